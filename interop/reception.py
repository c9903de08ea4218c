"""
Checks mail from the hosts of other domains to accounts of moxtls, sent by Postfix and
signed by OpenDKIM.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from email import message_from_bytes
from email.message import Message
from pathlib import Path

from interop.checks import Checks, InteropError, waitFor
from interop.domains import (
    ANNA,
    FULL,
    SAMPLES,
    SERVICE,
    STRICT,
    ExpectedResult,
    SampleMessage,
)
from interop.environment import Environment
from interop.postfix import MAX_DELIVERY_TIME
from interop.remotepostfix import RemotePostfix
from interop.server import MoxtlsServer
from interop.verifiers import VerifierResults, Verifiers
from moxtls.lab.scenario import SENDER, SENDING_HOST

#: Subfolders of mailboxes in an account's Maildir++.
FOLDERS = {"Inbox": "", "Junk": ".Junk"}
_TAKEN = ExpectedResult("pass", ((STRICT.domain, "pass"),), "pass", ("dkim", "spf"))


def _other(name: str, *recipients: str, body: bytes = b"\n") -> SampleMessage:
    """
    A message that is refused or deferred, but not because of DMARC.
    """
    return SampleMessage(
        name,
        STRICT,
        STRICT.address,
        STRICT.address,
        STRICT.domain,
        _TAKEN,
        body=body,
        recipients=recipients,
    )


UNKNOWN = _other("to nobody", f"nobody@{SENDER}")
ELSEWHERE = _other("to elsewhere", "anna@postfix-elsewhere.test")
TOO_LARGE = _other("too large", FULL, body=b"a line\n" * 1_000)
FITTING = _other("small", FULL)


def checkReception(
    checks: Checks,
    environment: Environment,
    server: MoxtlsServer,
    remote: RemotePostfix,
    verifiers: Verifiers,
) -> None:
    """
    Send all samples, and check where and how they arrive.
    """
    first, *others = (each for each in SAMPLES if not each.isSpoofed)
    remote.send(first)
    files = {first: arrived(server, first, first.recipients[0])}
    # Failure reports go to domains from which there was mail before.
    for sample in others:
        remote.send(sample)
    files |= {each: arrived(server, each, each.recipients[0]) for each in others}
    # Spoofed mail of a domain from which there was mail before.
    for sample in SAMPLES:
        if sample.isSpoofed:
            remote.send(sample)
    for sample in (UNKNOWN, ELSEWHERE, FITTING, TOO_LARGE):
        remote.send(sample)
    for sample, file in files.items():
        _checkContent(checks, server, sample, file)
    contents = {sample: file.read_bytes() for sample, file in files.items()}
    # Postfix returns refused messages in DSNs.
    contents |= {each: _returned(remote, each) for each in SAMPLES if each.isSpoofed}
    addresses = {each: environment.network.address(each.via.number) for each in SAMPLES}
    for sample, results in verifiers.results(contents, addresses).items():
        _checkResults(checks, sample, results)
    _checkRefusals(checks, server, remote)
    _checkFull(checks, server, remote)
    _checkConversation(checks, remote)


def arrived(server: MoxtlsServer, sample: SampleMessage, recipient: str) -> Path:
    """
    The file of the only message of that name, in the expected mailbox.
    """
    folder = server.maildir(recipient) / FOLDERS[sample.expected.mailbox] / "new"

    def look() -> list[Path]:
        return [each for each in folder.glob("*") if _isOf(sample, each.read_bytes())]

    what = f"{sample.name!r} in {sample.expected.mailbox} of {recipient}"
    found = waitFor(what, look, MAX_DELIVERY_TIME)
    if len(found) > 1:
        raise InteropError(f"{what} is there {len(found)} times")
    return found[0]


def _isOf(sample: SampleMessage, message: bytes) -> bool:
    return f"\nSubject: {sample.name}\n".encode() in message.replace(b"\r\n", b"\n")


def _checkContent(
    checks: Checks, server: MoxtlsServer, sample: SampleMessage, file: Path
) -> None:
    message = file.read_bytes().replace(b"\r\n", b"\n")
    header, _, body = message.partition(b"\n\n")
    what = (
        f"{sample.name!r} is in {sample.expected.mailbox} unchanged, {len(body)} octets"
    )
    checks.holds(what, body == sample.body, body[-200:])
    first = header.partition(b"\n")[0].decode()
    checks.same(f"{sample.name!r}: {first}", first, f"Return-Path: <{sample.envelope}>")
    for recipient in sample.recipients[1:]:
        arrived(server, sample, recipient)
        checks.holds(f"{sample.name!r} is with {recipient} as well", True)


def _checkResults(
    checks: Checks, sample: SampleMessage, results: VerifierResults
) -> None:
    """
    The verifiers and moxtls find the expected results.
    """
    expected = sample.expected
    checks.same(
        f"{sample.name!r}: Mail::SPF says {expected.spf}", results.spf, expected.spf
    )
    words = ", ".join(f"{result} for {domain}" for domain, result in expected.dkim)
    is_, should = sorted(results.dkim), sorted(expected.dkim)
    checks.same(f"{sample.name!r}: Mail::DKIM says {words or 'nothing'}", is_, should)
    dmarc = {
        "result": expected.dmarc,
        "disposition": expected.disposition,
        "dkim": _word("dkim" in expected.aligned),
        "spf": _word("spf" in expected.aligned),
    }
    what = f"{sample.name!r}: Mail::DMARC says {', '.join(dmarc.values())}"
    checks.same(what, results.dmarc, dmarc)
    if not sample.isSpoofed:
        what = f"{sample.name!r}: Authentication-Results says the same"
        checks.same(what, list(_differences(sample, results)), [])


def _word(isAligned: bool) -> str:
    return "pass" if isAligned else "fail"


def _differences(sample: SampleMessage, results: VerifierResults) -> Iterator[str]:
    """
    Differences between the Authentication-Results of moxtls and the expected ones.
    """
    expected, said = sample.expected, results.said
    identity = "smtp.mailfrom" if sample.envelope else "smtp.helo"
    spf = [
        (result, properties[identity])
        for result, properties in said.get("spf", ())
        if identity in properties
    ]
    dkim = sorted(
        (properties.get("header.d", ""), result)
        for result, properties in said.get("dkim", ())
    )
    dmarc = [
        (result, properties.get("header.from"))
        for result, properties in said.get("dmarc", ())
    ]
    author = sample.author.partition("@")[2]
    for name, is_, should in (
        ("authserv-id", results.sayer, SENDING_HOST),
        ("spf", spf, [(expected.spf, sample.envelope or sample.via.host)]),
        ("dkim", dkim, sorted(expected.dkim)),
        ("dmarc", dmarc, [(expected.dmarc, author)]),
    ):
        if is_ != should:
            yield f"{name} is {is_}, not {should}"


def _checkRefusals(checks: Checks, server: MoxtlsServer, remote: RemotePostfix) -> None:
    """
    Refused mail is bounced by the sender's own host: Postfix quotes the reply of
    moxtls in DSNs.
    """
    (forged,) = (each for each in SAMPLES if each.isSpoofed)
    for sample, code, words in (
        (forged, "550 5.7.1", f"DMARC policy of {STRICT.domain}"),
        (UNKNOWN, "550 5.1.1", "No such mailbox here"),
        (ELSEWHERE, "550 5.7.1", "isn't local"),
    ):
        status, diagnostic = bounced(remote, sample)
        what = f"{sample.name!r}: Postfix bounces it, Status {code[4:]}"
        checks.same(what, status, code[4:])
        # It may be several lines: 550- and 550.
        said = re.sub(r"\b550-", "550 ", diagnostic)
        good = said.startswith(f"smtp; {code} ") and words in said
        checks.holds(f"{sample.name!r}: {diagnostic}", good)
    found = [each for each in _everything(server) if _isOf(forged, each.read_bytes())]
    checks.same(f"{forged.name!r} is in no mailbox", found, [])


def bounced(remote: RemotePostfix, sample: SampleMessage) -> tuple[str, str]:
    """
    Status and Diagnostic-Code of the DSN about a message.
    """
    for part in _notice(remote, sample).walk():
        # The per-recipient fields (RFC 3464 2.3).
        if "Diagnostic-Code" in part:
            return str(part["Status"]), " ".join(str(part["Diagnostic-Code"]).split())
    raise InteropError(f"no Diagnostic-Code in the DSN about {sample.name!r}")


def _returned(remote: RemotePostfix, sample: SampleMessage) -> bytes:
    """
    The original message in the DSN about it.
    """
    for part in _notice(remote, sample).walk():
        if part.get_content_type() == "message/rfc822":
            original = part.get_payload(0)
            assert isinstance(original, Message)
            return original.as_bytes()
    raise InteropError(f"no message in the DSN about {sample.name!r}")


def _notice(remote: RemotePostfix, sample: SampleMessage) -> Message[str, str]:
    """
    The DSN about a message.
    """

    def look() -> list[bytes]:
        files = remote.mailbox(sample.envelope)
        return [each for f in files if _isOf(sample, each := f.read_bytes())]

    (message, *_) = waitFor(f"a DSN about {sample.name!r}", look, MAX_DELIVERY_TIME)
    return message_from_bytes(message)


def _everything(server: MoxtlsServer) -> list[Path]:
    accounts = server.maildir(ANNA).parent
    return [each for each in accounts.rglob("*") if each.parent.name in ("new", "cur")]


def _checkFull(checks: Checks, server: MoxtlsServer, remote: RemotePostfix) -> None:
    """
    A message above the quota is deferred at RCPT, and stays in Postfix's queue.
    """
    arrived(server, FITTING, FULL)
    deferred = waitFor(
        "a deferred message in Postfix's queue",
        lambda: [line for line in remote.log(STRICT.label) if "status=def" in line],
        MAX_DELIVERY_TIME,
    )
    reason = deferred[0].partition("said: ")[2]
    good = reason.startswith("452 4.2.2 ") and "RCPT TO" in reason
    checks.holds(f"{TOO_LARGE.name!r} is deferred: {reason}", good, deferred)


def _checkConversation(checks: Checks, remote: RemotePostfix) -> None:
    """
    The log and the SMTP dialogues of Postfix: certificate, extensions, pipelining and
    complaints.
    """
    log = remote.log(STRICT.label)
    verified = [line for line in log if "Verified TLS connection" in line]
    checks.holds("Postfix verified moxtls' certificate", verified, log[-5:])
    offered = {text for _, text in remote.said(STRICT) if re.match("250[- ]", text)}
    for word in ("PIPELINING", "SIZE", "8BITMIME", "SMTPUTF8", "CHUNKING"):
        isThere = any(text[4:].split(" ")[0] == word for text in offered)
        checks.holds(f"moxtls offers {word}", isThere, sorted(offered))
    said = list(map(_command, remote.said(SERVICE)))
    pipelined = [">MAIL", ">RCPT", ">DATA", "<250"]
    found = any(said[at : at + 4] == pipelined for at in range(len(said)))
    checks.holds("Postfix pipelines MAIL, RCPT and DATA", found, said)
    complaints = [
        line
        for line in remote.complaints()
        if not re.search(r"said: (550 5\.(7\.1|1\.1)|452 4\.2\.2)", line)
    ]
    checks.same("Postfix has no complaints", complaints, [])


def _command(line: tuple[str, str]) -> str:
    return line[0] + re.split(r"[ :-]", line[1])[0].upper()
