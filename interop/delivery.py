"""
Mail from moxtls to Postfix under DANE, with a wrong TLSA record, and without
any policy; and from Postfix to moxtls.
"""

from __future__ import annotations

import re
import smtplib
import socket
from email.utils import formatdate
from pathlib import Path
from typing import Any

from interop.checks import Checks, InteropError, waitFor
from interop.environment import DANE, MISMATCH, PEERS, PLAIN, Peer
from interop.postfix import MAX_DELIVERY_TIME, READER, Destination, Submitter
from interop.server import WRITER, MoxtlsServer

# As Postfix writes it into Received fields, and into its log.
_RECEIVED = re.compile(r"\(using (TLSv1\.[23]) with cipher ")
_LOGGED = "TLS connection established from"
_END = re.compile(r"disconnect from \S+ (.*)")


def checkDeliveries(
    checks: Checks, sender: MoxtlsServer, destination: Destination, submitter: Submitter
) -> None:
    """
    Send mail, and compare its results on both sides.
    """
    sender.send(_reader(DANE), _message(DANE, "command"))
    _submit(sender, PLAIN, "listener")
    sender.send(_reader(MISMATCH), _message(MISMATCH, "mismatch"))
    _checkArrived(checks, destination, DANE, "command")
    _checkArrived(checks, destination, PLAIN, "listener")
    submitter.send(WRITER, _reader(DANE), _message(DANE, "postfix"))
    _checkSubmitter(checks, submitter, destination)
    _checkDeferred(checks, sender, destination)
    _checkResults(checks, sender, destination)
    _checkLog(checks, destination, submitter)


def _reader(peer: Peer) -> str:
    return f"{READER}@{peer.domain}"


def _message(peer: Peer, subject: str) -> bytes:
    lines = (
        f"From: Alice <{WRITER}>",
        f"To: Bob <{_reader(peer)}>",
        f"Subject: {subject}",
        f"Date: {formatdate()}",
        "",
        ".a line that begins with a point",
        "",
    )
    return "\n".join(lines).encode("ascii")


def _submit(sender: MoxtlsServer, peer: Peer, subject: str) -> None:
    """
    Submit a message by SMTP, as other programs on this host do.
    """
    try:
        with smtplib.SMTP(*sender.submission, timeout=MAX_DELIVERY_TIME) as client:
            text = _message(peer, subject).decode("ascii")
            client.sendmail(WRITER, _reader(peer), text)
    except (OSError, smtplib.SMTPException) as error:
        raise InteropError(f"moxtls takes no mail: {error}") from None


def _arrivedText(destination: Destination, peer: Peer, subject: str) -> str:
    """
    The content of the only message with this subject.
    """

    def look() -> list[Path]:
        field = f"Subject: {subject}\n".encode()
        files = destination.mailbox(_reader(peer))
        return [each for each in files if field in each.read_bytes()]

    what = f"the message {subject!r} for {_reader(peer)}"
    found = waitFor(what, look, MAX_DELIVERY_TIME)
    if len(found) > 1:
        raise InteropError(f"{what} is there {len(found)} times")
    return found[0].read_text("utf-8")


def _checkArrived(
    checks: Checks, destination: Destination, peer: Peer, subject: str
) -> None:
    message = _arrivedText(destination, peer, subject)
    whole = message.endswith("\n\n.a line that begins with a point\n")
    checks.holds(f"{peer.domain}: {subject!r} arrived unchanged", whole, message[-99:])
    # The topmost Received is of the last delivery.
    received = message.partition("\nReceived:")[2].partition("\nReceived:")[0]
    version = _RECEIVED.search(received)
    what = f"{peer.domain}: Received by Postfix over {version[1] if version else 'TLS'}"
    checks.holds(what, version, received)
    logged = [line for line in destination.log(peer.label) if _LOGGED in line]
    checks.holds(f"{peer.domain}: its log has the TLS connection", logged)


def _checkSubmitter(
    checks: Checks, submitter: Submitter, destination: Destination
) -> None:
    """
    Postfix verifies moxtls' certificate, logs in, and moxtls delivers its mail.
    """
    message = _arrivedText(destination, DANE, "postfix")
    fields = message.split("\nReceived:")[1:]
    secured = any(" with ESMTPSA" in each for each in fields)
    checks.holds("Postfix submitted to moxtls over TLS with a login", secured, fields)
    verified = [
        line
        for line in submitter.log()
        if "Verified TLS connection established to" in line
    ]
    checks.holds("Postfix verified moxtls' certificate", verified, submitter.log())
    sent = [line for line in submitter.log() if "status=sent (250 2." in line]
    checks.same("Postfix logs status=sent", len(sent), 1)


def _checkDeferred(
    checks: Checks, sender: MoxtlsServer, destination: Destination
) -> None:
    """
    A TLSA record of another key defers mail, with a reason.
    """
    domain, recipient = MISMATCH.domain, _reader(MISMATCH)

    def attempted() -> list[dict[str, Any]]:
        rows = sender.table("queue", "list")
        return [each for each in rows if each["attempts"]]

    waiting = waitFor("an attempt", attempted, MAX_DELIVERY_TIME)
    found = [(each["recipient"], each["state"], each["attempts"]) for each in waiting]
    checks.same(f"{domain}: waits after an attempt", found, [(recipient, "waiting", 1)])
    reason = str(waiting[0]["last_result"])
    checks.holds(f"{domain}: reason: {reason}", "DANE doesn't match" in reason)
    checks.same(f"{domain}: nothing arrived", destination.mailbox(recipient), [])
    (commands,) = _sessions(destination, MISMATCH)
    what = f"{domain}: its Postfix got no MAIL command: {commands}"
    checks.holds(what, "mail=" not in commands)


def _sessions(destination: Destination, peer: Peer) -> list[str]:
    """
    The commands of each session over TLS as Postfix logs them, such as C{ehlo=2
    starttls=1 mail=1}.
    """

    def ended() -> list[str]:
        lines = map(_END.search, destination.log(peer.label))
        found = [line[1] for line in lines if line]
        return [commands for commands in found if "starttls=" in commands]

    return waitFor(f"{peer.domain}: the end of a session", ended, MAX_DELIVERY_TIME)


def _checkResults(
    checks: Checks, sender: MoxtlsServer, destination: Destination
) -> None:
    """
    The ledger has the same sessions as Postfix's log, with their failures.
    """
    sessions = {peer: len(_sessions(destination, peer)) for peer in PEERS}
    for peer, policy, succeeded, details in (
        (DANE, "tlsa", True, []),
        (MISMATCH, "tlsa", False, ["validation-failure dane-no-match: 1"]),
        (PLAIN, "no-policy-found", True, ["certificate-not-trusted: 1"]),
    ):
        count = sessions[peer]
        counts = (count, 0) if succeeded else (0, count)
        domain = peer.host if policy == "tlsa" else peer.domain
        found = [
            (each["success"], each["failure"], each["failure_details"])
            for each in sender.table("results", peer.domain)
            if (each["policy"], each["policy_domain"]) == (policy, domain)
        ]
        words = ", ".join(["{} good, {} failed".format(*counts), *details])
        what = f"{peer.domain}: results have {policy} of {domain}: {words}"
        checks.same(what, found, [(*counts, details)])


def _checkLog(checks: Checks, destination: Destination, submitter: Submitter) -> None:
    """
    Neither Postfix logs complaints; a client that violates the protocol shows that
    they would.
    """
    for peer in (DANE, PLAIN):
        complaints = destination.complaints(peer.label)
        checks.same(f"{peer.domain}: Postfix has no complaints", complaints, [])
        for commands in _sessions(destination, peer):
            # Refused commands are counted behind a slash.
            good = commands.split()[-2] == "quit=1" and "/" not in commands
            checks.holds(f"{peer.domain}: commands to Postfix: {commands}", good)
    checks.same("the submitting Postfix has no complaints", submitter.complaints(), [])
    with socket.create_connection(
        destination.endpoint(PLAIN), MAX_DELIVERY_TIME
    ) as client:
        client.recv(512)
        client.sendall(b"HELO nobody\r\nMAIL FROM:<>\r\nQUIT\r\n")
        while client.recv(512):
            pass
    waitFor(
        "a complaint about a client that doesn't wait for replies",
        lambda: destination.complaints(PLAIN.label),
        MAX_DELIVERY_TIME,
    )
    checks.holds("Postfix complains of commands that come too early", True)
