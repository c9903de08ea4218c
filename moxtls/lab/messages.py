# -*- test-case-name: tests.lab.test_messages -*-
"""
The mail that comes to us in the lab: what it is, and what has to become of it.
No I/O.

What can be said of mail that comes to us in the lab, and what can be expected
of it.  No I/O.

Messages as their authors write and sign them, and what lists make of them.
No I/O.

They are signed by somebody else's code, so that what checks them here isn't
what made them.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from email.utils import formatdate

import dkim
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from moxtls.lab.keys import DKIMKey
from moxtls.lab.scenario import SENDER, TLD
from moxtls.lab.senders import BY_NAME, KNOWN_LIST

#: Who gets mail: one who never sees what was refused, and one who does.
ANNA = "anna"
OTTO = "otto"
#: Where the other one finds that.
REJECTS = "Rejects"

INBOX, JUNK, NOWHERE = "Inbox", "Junk", ""


@dataclass(frozen=True, slots=True)
class Expected:
    """
    What has to become of a message, and what the report on it has to say.

    @ivar dkim: The result of each signature, by its domain; nothing if there
        is none.
    @ivar code: Of the reply to the message.
    @ivar mailbox: Where it is then; empty if nowhere.
    @ivar disposition: What was done because of DMARC.
    @ivar policy: The name of the sender whose policy applied, who is told of
        it if told of anything; empty if none applied.
    @ivar reported: C{disposition}, in the words of reports.
    @ivar aligned: C{dkim}, C{spf}, both or none.
    @ivar reasons: Types and comments.
    """

    spf: str
    dkim: tuple[tuple[str, str], ...]
    dmarc: str
    code: int = 250
    mailbox: str = INBOX
    disposition: str = "none"
    policy: str = ""
    reported: str = "none"
    aligned: tuple[str, ...] = ()
    reasons: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class LabMessage:
    """
    A message to somebody here.

    Senders are meant by their names.

    @ivar name: Of it.
    @ivar explanation: One line for people.
    @ivar author: The domain in From.
    @ivar client: Whose host brings it.
    @ivar envelope: The domain in MAIL FROM; empty for the null sender.
    @ivar signers: Who signs it as it was written.
    @ivar through: The list that changed it and signed it then.
    @ivar to: Whom it is for.
    """

    name: str
    explanation: str
    author: str
    client: str
    envelope: str
    expected: Expected
    signers: tuple[str, ...] = ()
    through: str = ""
    to: str = ANNA

    @property
    def recipient(self) -> str:
        return f"{self.to}@{SENDER}"


_LIST_KNOWN = (("mailing_list", f"verified as from {KNOWN_LIST}"),)
_LIST_UNKNOWN = (("mailing_list", "looks like mail through a list"),)
_TEST_MODE = (("policy_test_mode", ""),)


def _own(name: str, *, isEnforced: bool = True) -> Expected:
    """
    From a domain's own host, signed by it.
    """
    domain = f"{name}.{TLD}"
    return Expected(
        "pass",
        ((domain, "pass"),),
        "pass",
        policy=name,
        reported="pass" if isEnforced else "none",
        aligned=("dkim", "spf"),
    )


def _byService(
    policy: str,
    disposition: str,
    *,
    reasons: tuple[tuple[str, str], ...] = (),
    mailbox: str = JUNK,
    code: int = 250,
) -> Expected:
    """
    From somebody who answers for it in his own name only.
    """
    return Expected(
        "pass",
        ((f"bulk.{TLD}", "pass"),),
        "fail",
        code,
        mailbox,
        disposition,
        policy,
        disposition,
        reasons=reasons,
    )


def _direct(name: str, explanation: str, *, isEnforced: bool = True) -> LabMessage:
    """
    As most mail is.
    """
    domain = f"{name}.{TLD}"
    expected = _own(name, isEnforced=isEnforced)
    return LabMessage(
        f"{name}-direct", explanation, domain, name, domain, expected, (name,)
    )


def _served(
    name: str, explanation: str, author: str, expected: Expected, to: str = ANNA
) -> LabMessage:
    """
    Sent by a service.
    """
    domain = f"bulk.{TLD}"
    return LabMessage(
        name, explanation, author, "bulk", domain, expected, ("bulk",), to=to
    )


def _listed(
    client: str, explanation: str, reasons: tuple[tuple[str, str], ...], fate: str
) -> LabMessage:
    """
    Through a list, which has changed it.
    """
    domain = f"{client}.{TLD}"
    mailbox = INBOX if fate == "none" else JUNK
    expected = Expected(
        "pass",
        ((domain, "pass"), (f"listed.{TLD}", "fail")),
        "fail",
        mailbox=mailbox,
        disposition=fate,
        policy="listed",
        reported=fate,
        reasons=reasons,
    )
    return LabMessage(
        f"listed-{client}",
        explanation,
        f"listed.{TLD}",
        client,
        domain,
        expected,
        ("listed",),
        through=client,
    )


def _forged(name: str, explanation: str) -> LabMessage:
    domain = f"{name}.{TLD}"
    expected = Expected(
        "fail", (), "fail", 550, NOWHERE, "reject", name, reported="reject"
    )
    return LabMessage(f"{name}-forged", explanation, domain, "forger", domain, expected)


_TWICE = Expected(
    "pass",
    ((f"aligned.{TLD}", "pass"), (f"aligned.{TLD}", "pass")),
    "pass",
    policy="aligned",
    reported="pass",
    aligned=("dkim", "spf"),
)

MESSAGES = (
    LabMessage(
        "aligned-1",
        "from its own host, signed twice, p=reject",
        f"aligned.{TLD}",
        "aligned",
        f"aligned.{TLD}",
        _TWICE,
        ("aligned",),
    ),
    LabMessage(
        "aligned-2",
        "the same again, to be counted with it",
        f"aligned.{TLD}",
        "aligned",
        f"aligned.{TLD}",
        _TWICE,
        ("aligned",),
        to=OTTO,
    ),
    _direct("monitor", "from its own host, p=none", isEnforced=False),
    _served(
        "monitor-service",
        "by a service that signs as itself, p=none",
        f"monitor.{TLD}",
        _byService("monitor", "none", mailbox=INBOX),
    ),
    LabMessage(
        "monitor-notice",
        "a DSN: SPF is by HELO",
        f"monitor.{TLD}",
        "monitor",
        "",
        Expected("pass", (), "pass", policy="monitor", aligned=("spf",)),
    ),
    LabMessage(
        "careful-unsigned",
        "from its own host, unsigned, p=quarantine",
        f"careful.{TLD}",
        "careful",
        f"careful.{TLD}",
        Expected(
            "pass", (), "pass", policy="careful", reported="pass", aligned=("spf",)
        ),
    ),
    _served(
        "careful-service",
        "by a service that signs as itself, p=quarantine",
        f"careful.{TLD}",
        _byService("careful", "quarantine"),
    ),
    LabMessage(
        "forwarded-plain",
        "forwarded with its MAIL FROM, signature intact",
        f"forwarded.{TLD}",
        "forwarder",
        f"forwarded.{TLD}",
        Expected(
            "fail",
            ((f"forwarded.{TLD}", "pass"),),
            "pass",
            policy="forwarded",
            reported="pass",
            aligned=("dkim",),
        ),
        ("forwarded",),
    ),
    LabMessage(
        "forwarded-rewritten",
        "forwarded in the forwarder's name, signature intact",
        f"forwarded.{TLD}",
        "forwarder",
        f"forwarder.{TLD}",
        Expected(
            "pass",
            ((f"forwarded.{TLD}", "pass"),),
            "pass",
            policy="forwarded",
            reported="pass",
            aligned=("dkim",),
        ),
        ("forwarded",),
    ),
    _direct("listed", "from its own host, p=reject"),
    _listed("lists", "through a list we know, p=reject", _LIST_KNOWN, "none"),
    _listed(
        "circle",
        "through a list we don't know, p=reject",
        _LIST_UNKNOWN,
        "quarantine",
    ),
    _direct("spoofed", "from its own host, p=reject"),
    _forged("spoofed", "forged in the name of the same, p=reject"),
    _forged("stranger", "forged in the name of a stranger, p=reject"),
    LabMessage(
        "parent-subdomain",
        "from a subdomain, aligned with what is above it",
        f"news.parent.{TLD}",
        "parent",
        f"parent.{TLD}",
        _own("parent"),
        ("parent",),
    ),
    _served(
        "parent-sp",
        "from a subdomain, by a service, sp=quarantine",
        f"news.parent.{TLD}",
        _byService("parent", "quarantine"),
    ),
    _served(
        "parent-np",
        "from a subdomain that isn't there, np=reject",
        f"nowhere.parent.{TLD}",
        _byService("parent", "reject", mailbox=REJECTS, code=550),
        to=OTTO,
    ),
    _direct("trial", "from its own host, p=reject with t=y"),
    _served(
        "trial-service",
        "by a service, p=reject with t=y: one level less",
        f"trial.{TLD}",
        _byService("trial", "quarantine", reasons=_TEST_MODE),
    ),
    LabMessage(
        "deep-walk",
        "from ten labels down, by a tree walk",
        f"a.b.c.d.e.f.g.h.deep.{TLD}",
        "deep",
        f"deep.{TLD}",
        _own("deep"),
        ("deep",),
    ),
    LabMessage(
        "silent",
        "from a domain without a DMARC record",
        f"silent.{TLD}",
        "silent",
        f"silent.{TLD}",
        Expected("pass", ((f"silent.{TLD}", "pass"),), "none"),
        ("silent",),
    ),
    _served(
        "unsure",
        "its DMARC record can't be looked up",
        f"unsure.{TLD}",
        Expected("pass", ((f"bulk.{TLD}", "pass"),), "temperror"),
    ),
    _direct("hourly", "wants reports each hour (RFC 7489)", isEnforced=False),
    _direct("outsourced", "wants reports elsewhere, confirmed", isEnforced=False),
    _direct("unasked", "wants reports elsewhere, not confirmed", isEnforced=False),
)


#: By the name of a sender.
SenderKeys = Mapping[str, Sequence[DKIMKey]]


def writtenLetter(
    letter: LabMessage, keys: SenderKeys, now: float, token: str
) -> bytes:
    """
    A message as it comes in.

    @param now: Unix seconds.
    @param token: Makes it differ from others that are the same.
    """
    message = _written(letter, now, token)
    for name in letter.signers:
        message = _signed(message, name, keys[name])
    if letter.through:
        message = _listFields(message, letter.through)
        message = _signed(message, letter.through, keys[letter.through])
    return message


def messageID(letter: LabMessage, token: str) -> str:
    """
    What it can be found by.
    """
    return f"<{letter.name}.{token}@{letter.author}>"


def _written(letter: LabMessage, now: float, token: str) -> bytes:
    lines = (
        f"From: Somebody <somebody@{letter.author}>",
        f"To: {letter.to.capitalize()} <{letter.recipient}>",
        f"Subject: {letter.explanation}",
        f"Date: {formatdate(now)}",
        f"Message-ID: {messageID(letter, token)}",
        "",
        f"Hello {letter.to.capitalize()},",
        "",
        f"what DMARC has to say of this message is: {letter.expected.dmarc}.",
        "",
    )
    return "\r\n".join(lines).encode("ascii")


def _listFields(message: bytes, name: str) -> bytes:
    """
    What lists do: a mark of theirs, and some words below.
    """
    domain = BY_NAME[name].domain
    footer = f"-- \r\nYou get this since you are on the list announce@{domain}.\r\n"
    mark = f"List-Id: Announcements <announce.{domain}>\r\n"
    return mark.encode("ascii") + message + footer.encode("ascii")


def _signed(message: bytes, name: str, keys: Sequence[DKIMKey]) -> bytes:
    """
    With the signatures of all C{keys}, the last on top.
    """
    domain = BY_NAME[name].domain.encode("ascii")
    signatures = [
        dkim.sign(
            message,
            key.selector.encode("ascii"),
            domain,
            _secret(key),
            signature_algorithm=key.algorithm.encode("ascii"),
        )
        for key in keys
    ]
    return b"".join(reversed(signatures)) + message


def _secret(key: DKIMKey) -> bytes:
    """
    As C{dkimpy} takes it.
    """
    loaded = load_pem_private_key(key.pem, None)
    if isinstance(loaded, Ed25519PrivateKey):
        return base64.b64encode(loaded.private_bytes_raw())
    return key.pem
