"""
Mail from the hosts of other domains to people at moxtls, sent by Postfix and
signed by OpenDKIM.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from email import message_from_bytes
from email.message import Message
from pathlib import Path

from interop.checks import Checks, Trouble, waitFor
from interop.correspondents import (
    ANNA,
    FULL,
    LETTERS,
    SERVICE,
    STRICT,
    Fate,
    Letter,
)
from interop.judging import Judge, Opinion
from interop.outside import Outside
from interop.postfix import LONGEST_DELIVERY
from interop.sender import Sender
from interop.world import World
from moxtls.lab.scenario import SENDER, SENDING_HOST

#: Where a mailbox is in an account's Maildir++.
FOLDERS = {"Inbox": "", "Junk": ".Junk"}
_TAKEN = Fate("pass", ((STRICT.domain, "pass"),), "pass", ("dkim", "spf"))


def _other(name: str, *recipients: str, body: bytes = b"\n") -> Letter:
    """
    One that isn't taken, but not because of DMARC.
    """
    return Letter(
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
    checks: Checks, world: World, server: Sender, outside: Outside, judge: Judge
) -> None:
    """
    Send all of it, and see where it is then.
    """
    first, *others = (each for each in LETTERS if not each.isSpoofed)
    outside.send(first)
    files = {first: arrived(server, first, first.recipients[0])}
    # Some in the name of that author, who is told of failures as he is known here.
    for letter in others:
        outside.send(letter)
    files |= {each: arrived(server, each, each.recipients[0]) for each in others}
    # In the name of somebody from whom there is mail here.
    for letter in LETTERS:
        if letter.isSpoofed:
            outside.send(letter)
    for letter in (UNKNOWN, ELSEWHERE, FITTING, TOO_LARGE):
        outside.send(letter)
    for letter, file in files.items():
        _checkContent(checks, server, letter, file)
    contents = {letter: file.read_bytes() for letter, file in files.items()}
    # What isn't taken Postfix gives back.
    contents |= {each: _returned(outside, each) for each in LETTERS if each.isSpoofed}
    addresses = {each: world.network.address(each.via.number) for each in LETTERS}
    for letter, opinion in judge.opinions(contents, addresses).items():
        _checkOpinion(checks, letter, opinion)
    _checkRefusals(checks, server, outside)
    _checkFull(checks, server, outside)
    _checkConversation(checks, outside)


def arrived(server: Sender, letter: Letter, recipient: str) -> Path:
    """
    The one message of that name, in the mailbox where it has to be.
    """
    folder = server.maildir(recipient) / FOLDERS[letter.fate.mailbox] / "new"

    def look() -> list[Path]:
        return [each for each in folder.glob("*") if _isOf(letter, each.read_bytes())]

    what = f"{letter.name!r} in {letter.fate.mailbox} of {recipient}"
    found = waitFor(what, look, LONGEST_DELIVERY)
    if len(found) > 1:
        raise Trouble(f"{what} is there {len(found)} times")
    return found[0]


def _isOf(letter: Letter, message: bytes) -> bool:
    return f"\nSubject: {letter.name}\n".encode() in message.replace(b"\r\n", b"\n")


def _checkContent(checks: Checks, server: Sender, letter: Letter, file: Path) -> None:
    message = file.read_bytes().replace(b"\r\n", b"\n")
    header, _, body = message.partition(b"\n\n")
    what = f"{letter.name!r} is in {letter.fate.mailbox} as it was, {len(body)} octets"
    checks.holds(what, body == letter.body, body[-200:])
    first = header.partition(b"\n")[0].decode()
    checks.same(f"{letter.name!r}: {first}", first, f"Return-Path: <{letter.envelope}>")
    for recipient in letter.recipients[1:]:
        arrived(server, letter, recipient)
        checks.holds(f"{letter.name!r} is with {recipient} as well", True)


def _checkOpinion(checks: Checks, letter: Letter, opinion: Opinion) -> None:
    """
    The others, moxtls and what was expected: all three say the same.
    """
    fate = letter.fate
    checks.same(f"{letter.name!r}: Mail::SPF says {fate.spf}", opinion.spf, fate.spf)
    words = ", ".join(f"{result} for {domain}" for domain, result in fate.dkim)
    is_, should = sorted(opinion.dkim), sorted(fate.dkim)
    checks.same(f"{letter.name!r}: Mail::DKIM says {words or 'nothing'}", is_, should)
    expected = {
        "result": fate.dmarc,
        "disposition": fate.disposition,
        "dkim": _word("dkim" in fate.aligned),
        "spf": _word("spf" in fate.aligned),
    }
    what = f"{letter.name!r}: Mail::DMARC says {', '.join(expected.values())}"
    checks.same(what, opinion.dmarc, expected)
    if not letter.isSpoofed:
        what = f"{letter.name!r}: and so does Authentication-Results"
        checks.same(what, list(_differences(letter, opinion)), [])


def _word(isAligned: bool) -> str:
    return "pass" if isAligned else "fail"


def _differences(letter: Letter, opinion: Opinion) -> Iterator[str]:
    """
    Between what moxtls says in a message and what was expected.
    """
    fate, said = letter.fate, opinion.said
    identity = "smtp.mailfrom" if letter.envelope else "smtp.helo"
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
    author = letter.author.partition("@")[2]
    for name, is_, should in (
        ("authserv-id", opinion.sayer, SENDING_HOST),
        ("spf", spf, [(fate.spf, letter.envelope or letter.via.host)]),
        ("dkim", dkim, sorted(fate.dkim)),
        ("dmarc", dmarc, [(fate.dmarc, author)]),
    ):
        if is_ != should:
            yield f"{name} is {is_}, not {should}"


def _checkRefusals(checks: Checks, server: Sender, outside: Outside) -> None:
    """
    Whoever sends what isn't taken is told by his own host: Postfix writes
    what it was told into DSNs.
    """
    (forged,) = (each for each in LETTERS if each.isSpoofed)
    for letter, code, words in (
        (forged, "550 5.7.1", f"DMARC policy of {STRICT.domain}"),
        (UNKNOWN, "550 5.1.1", "No such mailbox here"),
        (ELSEWHERE, "550 5.7.1", "isn't local"),
    ):
        status, diagnostic = bounced(outside, letter)
        what = f"{letter.name!r}: Postfix bounces it, Status {code[4:]}"
        checks.same(what, status, code[4:])
        # It may be several lines: 550- and 550.
        said = re.sub(r"\b550-", "550 ", diagnostic)
        good = said.startswith(f"smtp; {code} ") and words in said
        checks.holds(f"{letter.name!r}: {diagnostic}", good)
    found = [each for each in _everything(server) if _isOf(forged, each.read_bytes())]
    checks.same(f"{forged.name!r} is in no mailbox", found, [])


def bounced(outside: Outside, letter: Letter) -> tuple[str, str]:
    """
    Status and Diagnostic-Code of the DSN about a message.
    """
    for part in _notice(outside, letter).walk():
        # The fields about the recipient, among those about the message.
        if "Diagnostic-Code" in part:
            return str(part["Status"]), " ".join(str(part["Diagnostic-Code"]).split())
    raise Trouble(f"no Diagnostic-Code in the DSN about {letter.name!r}")


def _returned(outside: Outside, letter: Letter) -> bytes:
    """
    The message that is in the DSN about it.
    """
    for part in _notice(outside, letter).walk():
        if part.get_content_type() == "message/rfc822":
            original = part.get_payload(0)
            assert isinstance(original, Message)
            return original.as_bytes()
    raise Trouble(f"no message in the DSN about {letter.name!r}")


def _notice(outside: Outside, letter: Letter) -> Message[str, str]:
    """
    The DSN about a message.
    """

    def look() -> list[bytes]:
        files = outside.mailbox(letter.envelope)
        return [each for f in files if _isOf(letter, each := f.read_bytes())]

    (message, *_) = waitFor(f"a DSN about {letter.name!r}", look, LONGEST_DELIVERY)
    return message_from_bytes(message)


def _everything(server: Sender) -> list[Path]:
    accounts = server.maildir(ANNA).parent
    return [each for each in accounts.rglob("*") if each.parent.name in ("new", "cur")]


def _checkFull(checks: Checks, server: Sender, outside: Outside) -> None:
    """
    Who has no room for so much is told at RCPT, and Postfix keeps it.
    """
    arrived(server, FITTING, FULL)
    deferred = waitFor(
        "Postfix keeps what is too large",
        lambda: [line for line in outside.log(STRICT.label) if "status=def" in line],
        LONGEST_DELIVERY,
    )
    reason = deferred[0].partition("said: ")[2]
    good = reason.startswith("452 4.2.2 ") and "RCPT TO" in reason
    checks.holds(f"{TOO_LARGE.name!r} is deferred: {reason}", good, deferred)


def _checkConversation(checks: Checks, outside: Outside) -> None:
    """
    What Postfix noticed of moxtls, and used of what that offers.
    """
    log = outside.log(STRICT.label)
    verified = [line for line in log if "Verified TLS connection" in line]
    checks.holds("Postfix verified moxtls' certificate", verified, log[-5:])
    offered = {text for _, text in outside.said(STRICT) if re.match("250[- ]", text)}
    for word in ("PIPELINING", "SIZE", "8BITMIME", "SMTPUTF8", "CHUNKING"):
        isThere = any(text[4:].split(" ")[0] == word for text in offered)
        checks.holds(f"moxtls offers {word}", isThere, sorted(offered))
    said = list(map(_command, outside.said(SERVICE)))
    pipelined = [">MAIL", ">RCPT", ">DATA", "<250"]
    found = any(said[at : at + 4] == pipelined for at in range(len(said)))
    checks.holds("Postfix sends MAIL, RCPT and DATA at a time", found, said)
    complaints = [
        line
        for line in outside.complaints()
        if not re.search(r"said: (550 5\.(7\.1|1\.1)|452 4\.2\.2)", line)
    ]
    checks.same("Postfix has no complaints", complaints, [])


def _command(line: tuple[str, str]) -> str:
    return line[0] + re.split(r"[ :-]", line[1])[0].upper()
