# -*- test-case-name: tests.lab.test_messages -*-
"""
The messages from senders in the lab, with the results expected of them. No I/O.

Messages are signed with dkimpy, an implementation independent of the one under test.
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

#: The accounts: one without a mailbox for rejected mail, and one with it.
ANNA = "anna"
OTTO = "otto"
#: That mailbox.
REJECTS = "Rejects"

INBOX, JUNK, NOWHERE = "Inbox", "Junk", ""


@dataclass(frozen=True, slots=True)
class Expected:
    """
    The expected results of a message, and its part of the report.

    @ivar dkim: The result of each signature, by its domain; empty if there is none.
    @ivar code: Of the reply to the message.
    @ivar mailbox: Its mailbox; empty if it isn't stored.
    @ivar disposition: The disposition that DMARC causes.
    @ivar policy: The name of the sender whose policy applies, and who gets a report
        if there is one; empty if none applies.
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
    A message to a local account. Senders are given by their names.

    @ivar name: The name of the message.
    @ivar explanation: One line for the operator.
    @ivar author: The domain in From.
    @ivar client: The sender whose host delivers it.
    @ivar envelope: The domain in MAIL FROM; empty for the null sender.
    @ivar signers: The senders that sign the original message.
    @ivar through: The mailing list that then changed and signed it.
    @ivar to: The account.
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
    Sent by the author domain's own host, and signed by it.
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
    Sent by a service that authenticates only its own domain.
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
    Sent in the most common way.
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
    Sent by a service for the author domain.
    """
    domain = f"bulk.{TLD}"
    return LabMessage(
        name, explanation, author, "bulk", domain, expected, ("bulk",), to=to
    )


def _listed(
    client: str,
    explanation: str,
    reasons: tuple[tuple[str, str], ...],
    disposition: str,
) -> LabMessage:
    """
    Sent through a mailing list that changes the message.
    """
    domain = f"{client}.{TLD}"
    mailbox = INBOX if disposition == "none" else JUNK
    expected = Expected(
        "pass",
        ((domain, "pass"), (f"listed.{TLD}", "fail")),
        "fail",
        mailbox=mailbox,
        disposition=disposition,
        policy="listed",
        reported=disposition,
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


def writtenMessage(
    labMessage: LabMessage, keys: SenderKeys, now: float, token: str
) -> bytes:
    """
    The message as it is sent.

    @param now: Unix seconds.
    @param token: Distinguishes it from repetitions of the same message.
    """
    message = _written(labMessage, now, token)
    for name in labMessage.signers:
        message = signed(message, name, keys[name])
    if labMessage.through:
        message = _listFields(message, labMessage.through)
        message = signed(message, labMessage.through, keys[labMessage.through])
    return message


def messageID(labMessage: LabMessage, token: str) -> str:
    """
    The Message-ID.
    """
    return f"<{labMessage.name}.{token}@{labMessage.author}>"


def _written(labMessage: LabMessage, now: float, token: str) -> bytes:
    lines = (
        f"From: Sender <sender@{labMessage.author}>",
        f"To: {labMessage.to.capitalize()} <{labMessage.recipient}>",
        f"Subject: {labMessage.explanation}",
        f"Date: {formatdate(now)}",
        f"Message-ID: {messageID(labMessage, token)}",
        "",
        f"Hello {labMessage.to.capitalize()},",
        "",
        f"what DMARC has to say of this message is: {labMessage.expected.dmarc}.",
        "",
    )
    return "\r\n".join(lines).encode("ascii")


def _listFields(message: bytes, name: str) -> bytes:
    """
    Apply the changes of a mailing list: a subject tag and a footer.
    """
    domain = BY_NAME[name].domain
    footer = f"-- \r\nYou get this since you are on the list announce@{domain}.\r\n"
    mark = f"List-Id: Announcements <announce.{domain}>\r\n"
    return mark.encode("ascii") + message + footer.encode("ascii")


def signed(message: bytes, name: str, keys: Sequence[DKIMKey]) -> bytes:
    """
    Add the signatures of all C{keys}, the last on top.
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
    The private key in the form that C{dkimpy} takes.
    """
    loaded = load_pem_private_key(key.pem, None)
    if isinstance(loaded, Ed25519PrivateKey):
        return base64.b64encode(loaded.private_bytes_raw())
    return key.pem
