"""
Runs Dovecot, which receives mail from moxtls by LMTP, sends mail to it in chunks, and
reads the Maildirs of moxtls, also to serve them by IMAP.
"""

from __future__ import annotations

import json
import re
import shutil
import smtplib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from interop.checks import Checks, InteropError, waitFor
from interop.domains import (
    ANNA,
    BY_LMTP,
    BY_LMTP_JUNK,
    BY_LMTP_TOO_LARGE,
    FULL,
    IN_CHUNKS,
    OTTO,
    SAMPLES,
    SampleMessage,
)
from interop.environment import Environment
from interop.postfix import MAX_DELIVERY_TIME, owner
from interop.processes import MAX_START_TIME, daemon, freePort, listens, output
from interop.reception import arrived, bounced
from interop.remotepostfix import RemotePostfix
from interop.server import QUOTA, MoxtlsServer

PROGRAM, ADMIN = "/usr/sbin/dovecot", "/usr/bin/doveadm"
PORT = 2424
#: The quota of a user, in octets.
ROOM = 1_000_000

CONFIG = """\
base_dir = {folder}/run
state_dir = {folder}
log_path = {folder}/log
protocols = lmtp submission imap
ssl_cert = <{folder}/imap.pem
ssl_key = <{folder}/imap.pem
disable_plaintext_auth = no
hostname = dovecot.test
postmaster_address = postmaster@dovecot.test
mail_location = maildir:~
mail_plugins = quota
first_valid_uid = 1
auth_username_format = %n
recipient_delimiter = +
lmtp_save_to_detail_mailbox = yes
lda_mailbox_autocreate = yes
passdb {{
  driver = static
  args = nopassword=y
}}
userdb {{
  driver = static
  args = uid={uid} gid={gid} home={folder}/%{{user}} allow_all_users=yes
}}
plugin {{
  quota = maildir:User quota
  {rule}
}}
service lmtp {{
  inet_listener lmtp {{
    address = {address}
    port = {port}
  }}
}}
service imap-login {{
  inet_listener imap {{
    port = 0
  }}
  inet_listener imaps {{
    address = 127.0.0.1
    port = {imapPort}
  }}
}}
# Submitted mail is relayed to moxtls, and the dialogue logged.
submission_relay_host = {relay}
submission_relay_port = {relayPort}
submission_relay_ssl = starttls
submission_relay_ssl_verify = no
submission_relay_rawlog_dir = {folder}/raw
service submission-login {{
  inet_listener submission {{
    address = {address}
    port = {submissionPort}
  }}
}}
"""
# Not at the beginning of a line, if a chunk ends within one.
_CHUNK = re.compile(rb"BDAT [0-9]+( LAST)?\r\n")


class Dovecot:
    """
    A Dovecot to which every user is known.

    @ivar config: Its configuration file.
    @ivar endpoint: Its LMTP listener.
    @ivar submission: Its submission listener, which accepts mail to everybody.
    @ivar imapPort: The port of its IMAP listener on C{localhost}.
    """

    def __init__(
        self, environment: Environment, folder: Path, name: str, rule: str = ""
    ) -> None:
        """
        @param rule: A quota rule; without one, the quotas in the Maildirs apply.
        """
        network = environment.network
        self.endpoint = (network.address(251), PORT)
        self.submission = (self.endpoint[0], network.submissionPort)
        self.imapPort = freePort()
        self._parent, self._name = folder, name
        self.folder = folder / name
        self._owner = uid, gid = owner()
        for each in (self.folder, self.folder / "raw"):
            each.mkdir()
            shutil.chown(each, uid, gid)
        identity = environment.imap
        (self.folder / "imap.pem").write_bytes(
            identity.keyPEM() + identity.certificatePEM()
        )
        address, port = self.endpoint
        self.config = self.folder / "dovecot.conf"
        self.config.write_text(
            CONFIG.format(
                folder=self.folder,
                uid=uid,
                gid=gid,
                rule=rule,
                address=address,
                port=port,
                relay=network.submission,
                relayPort=network.smtpPort,
                submissionPort=network.submissionPort,
                imapPort=self.imapPort,
            )
        )

    @contextmanager
    def running(self) -> Iterator[None]:
        """
        @raise InteropError: It doesn't start.
        """
        command: list[str | Path] = [PROGRAM, "-F", "-c", self.config]
        with daemon(self._name, command, self._parent):
            waitFor("Dovecot listens", lambda: listens(self.endpoint), MAX_START_TIME)
            yield

    def copyMaildir(self, maildir: Path, user: str) -> None:
        """
        Copy a Maildir to be that of C{user}.
        """
        uid, gid = self._owner
        copy = self.folder / user
        shutil.copytree(maildir, copy)
        for each in (copy, *copy.rglob("*")):
            shutil.chown(each, uid, gid)

    def asked(self, *command: str) -> list[dict[str, str]]:
        """
        Run C{doveadm}, and parse its output.

        @raise InteropError: It fails.
        """
        said = output([ADMIN, "-f", "json", "-c", self.config, *command])
        rows: list[dict[str, str]] = json.loads(said)
        return rows

    def mailboxOf(self, user: str) -> set[tuple[str, str]]:
        """
        Mailbox and subject of each message that Dovecot can read.
        """
        wanted = "mailbox hdr.subject size.physical text"
        rows = self.asked("fetch", "-u", user, wanted, "ALL")
        return {(each["mailbox"], each["hdr.subject"]) for each in rows}

    def submit(self, sample: SampleMessage) -> None:
        """
        @raise InteropError: The message isn't accepted.
        """
        message = sample.message.replace(b"\n", b"\r\n")
        try:
            with smtplib.SMTP(*self.submission, timeout=MAX_DELIVERY_TIME) as client:
                client.login("carol", "anything")
                client.sendmail(
                    sample.envelope, sample.recipients, message, ["BODY=8BITMIME"]
                )
        except (OSError, smtplib.SMTPException) as error:
            raise InteropError(f"Dovecot takes no mail: {error}") from None

    def chunks(self) -> list[bytes]:
        """
        The end of each BDAT command sent: C{ LAST} or empty (RFC 3030 2).
        """
        files = sorted((self.folder / "raw").glob("*.out"))
        return [end for each in files for end in _CHUNK.findall(each.read_bytes())]

    def complaints(self) -> list[str]:
        log = (self.folder / "log").read_text("utf-8", "replace").splitlines()
        words = (": Error: ", ": Fatal: ", ": Panic: ")
        return [line for line in log if any(word in line for word in words)]


def checkLMTP(
    checks: Checks, dovecot: Dovecot, server: MoxtlsServer, remote: RemotePostfix
) -> None:
    """
    Mail that moxtls accepts arrives in Dovecot's mailboxes.
    """
    user, _, _ = ANNA.partition("@")
    for sample in (BY_LMTP, BY_LMTP_JUNK, BY_LMTP_TOO_LARGE):
        remote.send(sample)
    expected = {("INBOX", BY_LMTP.name), ("Junk", BY_LMTP_JUNK.name)}

    def delivered() -> Any:
        found = dovecot.mailboxOf(user)
        return found if len(found) >= len(expected) else None

    found = waitFor("mail in Dovecot's mailboxes", delivered, MAX_DELIVERY_TIME)
    checks.same("moxtls delivered to Dovecot by LMTP", found, expected)
    status, diagnostic = bounced(remote, BY_LMTP_TOO_LARGE)
    what = f"over quota in Dovecot, reply to Postfix: {diagnostic}"
    good = status == "5.2.2" and diagnostic.startswith("smtp; 552 5.2.2 ")
    checks.holds(what, good, status)
    stored = [each for each in server.maildir(ANNA).rglob("*") if each.is_file()]
    checks.same("moxtls stores none of it", stored, [])
    checks.same("Dovecot has no complaints", dovecot.complaints(), [])


def checkChunking(checks: Checks, dovecot: Dovecot, server: MoxtlsServer) -> None:
    """
    Dovecot sends BDAT to a server that offers CHUNKING.
    """
    dovecot.submit(IN_CHUNKS)
    file = arrived(server, IN_CHUNKS, OTTO)
    _, _, body = file.read_bytes().replace(b"\r\n", b"\n").partition(b"\n\n")
    ends = dovecot.chunks()
    what = f"Dovecot sent {len(body)} octets in {len(ends)} chunks"
    isOne = len(ends) > 1 and ends == [*[b""] * (len(ends) - 1), b" LAST"]
    checks.holds(what, body == IN_CHUNKS.body and isOne, ends)


def checkMaildir(checks: Checks, dovecot: Dovecot, server: MoxtlsServer) -> None:
    """
    Dovecot reads the messages and quotas in the Maildirs of moxtls.
    """
    names = {"Inbox": "INBOX", "Junk": "Junk"}
    expected = {
        (names[each.expected.mailbox], each.name)
        for each in SAMPLES
        if ANNA in each.recipients and each.expected.mailbox
    }
    user, _, _ = ANNA.partition("@")
    dovecot.copyMaildir(server.maildir(ANNA), user)
    what = f"Dovecot reads {len(expected)} messages in the Maildir, Junk too"
    checks.same(what, dovecot.mailboxOf(user), expected)
    user, _, _ = FULL.partition("@")
    dovecot.copyMaildir(server.maildir(FULL), user)
    before = _usage(dovecot, user)
    quotas = {each["type"]: each for each in dovecot.asked("quota", "get", "-u", user)}
    limits = quotas["STORAGE"]["limit"], quotas["MESSAGE"]["value"]
    should = str(-(-QUOTA // 1024)), "1"
    checks.same("Dovecot reads quota and usage", limits, should)
    output([ADMIN, "-c", dovecot.config, "quota", "recalc", "-u", user])
    checks.same(
        "recalculated usage equals that of moxtls", _usage(dovecot, user), before
    )
    checks.same("Dovecot has no complaints", dovecot.complaints(), [])


def checkIMAP(
    checks: Checks, dovecot: Dovecot, receiver: MoxtlsServer, server: MoxtlsServer
) -> None:
    """
    The reports in the mailboxes of one moxtls are imported by IMAP into another one,
    and the mailboxes stay as they are.

    @param receiver: Need not run.
    """
    dovecot.copyMaildir(receiver.maildir(), "reports")
    password = dovecot.folder / "password"
    password.write_text("anything\n")
    for mailbox in ("TLSRPT", "DMARC"):
        query = ("fetch", "-u", "reports", "uid flags", "mailbox", mailbox, "ALL")
        before = dovecot.asked(*query)
        url = f"imaps://reports@localhost:{dovecot.imapPort}/{mailbox}"
        command = ("report", "import", "--password-file", str(password), "--json", url)
        for what in ("stored", "duplicates"):
            done = json.loads(server.command(*command))
            counts = {name: done[name] for name in ("stored", "duplicates", "refused")}
            expected = dict.fromkeys(counts, 0) | {what: len(before)}
            good = bool(before) and counts == expected
            checks.holds(f"{mailbox} imported by IMAP: {what}", good, done)
        checks.same(f"{mailbox} is unchanged", dovecot.asked(*query), before)
    checks.same("Dovecot has no complaints", dovecot.complaints(), [])


def _usage(dovecot: Dovecot, user: str) -> tuple[str, int, int]:
    """
    Quota, octets and messages in C{maildirsize}.
    """
    head, *lines = (dovecot.folder / user / "maildirsize").read_text().split("\n")
    pairs = [tuple(map(int, line.split())) for line in lines if line]
    octets, messages = (sum(column) for column in zip(*pairs, strict=True))
    return head, octets, messages
