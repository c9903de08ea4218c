"""
Dovecot: takes mail from moxtls by LMTP, and reads the Maildirs of moxtls.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from interop.checks import Checks, waitFor
from interop.correspondents import (
    ANNA,
    BY_LMTP,
    BY_LMTP_JUNK,
    BY_LMTP_TOO_LARGE,
    FULL,
    LETTERS,
)
from interop.outside import Outside
from interop.postfix import LONGEST_DELIVERY, owner
from interop.processes import LONGEST_START, daemon, listens, output
from interop.receiving import bounced
from interop.sender import QUOTA, Sender
from interop.world import World

PROGRAM, ADMIN = "/usr/sbin/dovecot", "/usr/bin/doveadm"
PORT = 2424
#: What a user may keep, in octets.
ROOM = 1_000_000

CONFIG = """\
base_dir = {folder}/run
state_dir = {folder}
log_path = {folder}/log
protocols = lmtp
ssl = no
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
"""


class Dovecot:
    """
    One that knows everybody.

    @ivar config: The file.
    @ivar place: Where it speaks LMTP.
    """

    def __init__(self, world: World, folder: Path, name: str, rule: str = "") -> None:
        """
        @param rule: On quotas; without one, those count that the Maildirs
            have.
        """
        self.place = (world.network.address(251), PORT)
        self._parent, self._name = folder, name
        self.folder = folder / name
        self.folder.mkdir()
        self._owner = owner()
        uid, gid = self._owner
        shutil.chown(self.folder, uid, gid)
        address, port = self.place
        self.config = self.folder / "dovecot.conf"
        self.config.write_text(
            CONFIG.format(
                folder=self.folder,
                uid=uid,
                gid=gid,
                rule=rule,
                address=address,
                port=port,
            )
        )

    @contextmanager
    def running(self) -> Iterator[None]:
        """
        @raise Trouble: It doesn't start.
        """
        command: list[str | Path] = [PROGRAM, "-F", "-c", self.config]
        with daemon(self._name, command, self._parent):
            waitFor("Dovecot listens", lambda: listens(self.place), LONGEST_START)
            yield

    def adopt(self, maildir: Path, user: str) -> None:
        """
        Have a copy of a Maildir be that of a user.
        """
        uid, gid = self._owner
        copy = self.folder / user
        shutil.copytree(maildir, copy)
        for each in (copy, *copy.rglob("*")):
            shutil.chown(each, uid, gid)

    def asked(self, *command: str) -> list[dict[str, str]]:
        """
        What C{doveadm} says.

        @raise Trouble: It fails.
        """
        said = output([ADMIN, "-f", "json", "-c", self.config, *command])
        rows: list[dict[str, str]] = json.loads(said)
        return rows

    def mailboxOf(self, user: str) -> set[tuple[str, str]]:
        """
        Mailbox and subject of each message that it can read.
        """
        wanted = "mailbox hdr.subject size.physical text"
        rows = self.asked("fetch", "-u", user, wanted, "ALL")
        return {(each["mailbox"], each["hdr.subject"]) for each in rows}

    def complaints(self) -> list[str]:
        log = (self.folder / "log").read_text("utf-8", "replace").splitlines()
        words = (": Error: ", ": Fatal: ", ": Panic: ")
        return [line for line in log if any(word in line for word in words)]


def checkLMTP(
    checks: Checks, dovecot: Dovecot, server: Sender, outside: Outside
) -> None:
    """
    Mail that moxtls takes is in Dovecot's mailboxes then.
    """
    user, _, _ = ANNA.partition("@")
    for letter in (BY_LMTP, BY_LMTP_JUNK, BY_LMTP_TOO_LARGE):
        outside.send(letter)
    expected = {("INBOX", BY_LMTP.name), ("Junk", BY_LMTP_JUNK.name)}

    def arrived() -> Any:
        found = dovecot.mailboxOf(user)
        return found if len(found) >= len(expected) else None

    found = waitFor("mail in Dovecot's mailboxes", arrived, LONGEST_DELIVERY)
    checks.same("moxtls gave mail to Dovecot by LMTP", found, expected)
    status, diagnostic = bounced(outside, BY_LMTP_TOO_LARGE)
    what = f"no room there, Postfix is told: {diagnostic}"
    good = status == "5.2.2" and diagnostic.startswith("smtp; 552 5.2.2 ")
    checks.holds(what, good, status)
    stored = [each for each in server.maildir(ANNA).rglob("*") if each.is_file()]
    checks.same("moxtls keeps none of it", stored, [])
    checks.same("Dovecot has no complaints", dovecot.complaints(), [])


def checkMaildir(checks: Checks, dovecot: Dovecot, server: Sender) -> None:
    """
    Dovecot finds in the Maildirs of moxtls what is there.
    """
    names = {"Inbox": "INBOX", "Junk": "Junk"}
    expected = {
        (names[each.fate.mailbox], each.name)
        for each in LETTERS
        if ANNA in each.recipients and each.fate.mailbox
    }
    user, _, _ = ANNA.partition("@")
    dovecot.adopt(server.maildir(ANNA), user)
    what = f"Dovecot reads {len(expected)} messages in the Maildir, Junk too"
    checks.same(what, dovecot.mailboxOf(user), expected)
    user, _, _ = FULL.partition("@")
    dovecot.adopt(server.maildir(FULL), user)
    before = _usage(dovecot, user)
    quotas = {each["type"]: each for each in dovecot.asked("quota", "get", "-u", user)}
    limits = quotas["STORAGE"]["limit"], quotas["MESSAGE"]["value"]
    should = str(-(-QUOTA // 1024)), "1"
    checks.same("Dovecot knows the quota, and what there is", limits, should)
    output([ADMIN, "-c", dovecot.config, "quota", "recalc", "-u", user])
    checks.same("counted anew it is as moxtls has it", _usage(dovecot, user), before)
    checks.same("Dovecot has no complaints", dovecot.complaints(), [])


def _usage(dovecot: Dovecot, user: str) -> tuple[str, int, int]:
    """
    The quota, octets and messages of C{maildirsize}.
    """
    head, *lines = (dovecot.folder / user / "maildirsize").read_text().split("\n")
    pairs = [tuple(map(int, line.split())) for line in lines if line]
    octets, messages = (sum(column) for column in zip(*pairs, strict=True))
    return head, octets, messages
