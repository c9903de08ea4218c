# -*- test-case-name: tests.test_config -*-
"""
The configuration of mailboxes, and of who has them.  No I/O.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from moxtls.config.keys import setting


@dataclass(frozen=True, slots=True)
class Postmaster:
    """
    Where mail for the postmaster of this host goes.
    """

    mailbox: str = setting(
        "Mailbox", "Its mailbox, in the Maildir of this host.", "Postmaster"
    )


@dataclass(frozen=True, slots=True)
class HostTLSRPT:
    """
    Where others send TLS reports about this host.
    """

    localPart: str = setting(
        "Localpart", "The local part of the address, at Hostname.", "tlsreports"
    )
    mailbox: str = setting("Mailbox", "Where they are kept.", "TLSRPT")


@dataclass(frozen=True, slots=True)
class Destination:
    """
    An address of an account.
    """

    mailbox: str = setting("Mailbox", "Where its mail goes.", "Inbox")


@dataclass(frozen=True, slots=True)
class Account:
    """
    Somebody with mailboxes.
    """

    destinations: Mapping[str, Destination] = setting(
        "Destinations",
        'By address, such as "anna@example.org"; "@example.org" takes what nobody '
        "else in that domain does.",
    )
    junkMailbox: str = setting("JunkMailbox", "Where suspicious mail goes.", "Junk")
    rejectsMailbox: str = setting(
        "RejectsMailbox",
        "Where mail that DMARC has refused is kept all the same, while its sender "
        "is told that it was refused. Empty: it isn't kept.",
        "",
    )
    quota: int = setting("Quota", "Of all its mail, in bytes; 0 for no limit.", 0, True)


@dataclass(frozen=True, slots=True)
class LMTP:
    """
    Another program that keeps the mail of all accounts.
    """

    address: str = setting(
        "Address", "Where it listens: IP:PORT, [IP]:PORT or /path/of/a/socket."
    )
    separator: str = setting(
        "Separator",
        "Mail for a mailbox other than Inbox goes to ACCOUNT, this, and the mailbox.",
        "+",
    )
