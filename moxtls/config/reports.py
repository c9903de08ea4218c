# -*- test-case-name: tests.test_config -*-
"""
The configuration of outgoing reports.  No I/O.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from moxtls.config.keys import setting
from moxtls.dmarc.reportxml import ReportFormat
from moxtls.domain import Domain


@dataclass(frozen=True, slots=True)
class DMARCReports:
    """
    What is sent to whom about mail in their name.
    """

    domain: Domain | None = setting(
        "Domain",
        "In whose name reports are sent: one of Domains with a DKIM selector, that "
        "can receive mail. Not given: the nearest at or above Hostname.",
        None,
    )
    format: ReportFormat = setting(
        "Format",
        '"rfc9990" or "rfc7489". Some readers of reports fail at what RFC 9990 has '
        'new, such as the disposition "pass": for them there is Formats.',
        ReportFormat.RFC9990,
    )
    formats: Mapping[str, ReportFormat] = setting(
        "Formats", "By the domain of the address that a report goes to.", {}
    )
    minimum: int = setting(
        "Minimum", "Of how many messages there has to be something to report.", 1
    )
    onlyTo: tuple[Domain, ...] = setting(
        "OnlyTo", "Policy domains that get reports; empty for all.", ()
    )
    strangers: bool = setting(
        "Strangers",
        "Whether domains get reports that nobody here has had to do with, on mail that "
        "was accepted but did not pass. Without it mail has to have passed, or "
        "somebody here has to have written to them; as for mail that was refused or "
        "junk in any case.",
        True,
    )


@dataclass(frozen=True, slots=True)
class FailureReports:
    """
    A report on each message that fails DMARC (RFC 9991).
    """

    enabled: bool = setting("Enabled", "Whether they are sent.", False)
    allow: tuple[Domain, ...] = setting(
        "Allow",
        "Policy domains that get them; empty for all that ask and are no strangers.",
        (),
    )
    strangers: bool = setting(
        "Strangers",
        "Whether domains get them that nobody here has had to do with.",
        False,
    )
    perHour: int = setting("PerHour", "The most to one policy domain.", 10)
    perDay: int = setting("PerDay", "The most to all together.", 200)


@dataclass(frozen=True, slots=True)
class Reporting:
    """
    How reports are sent.
    """

    window: int = setting(
        "Window", "Seconds over which the reports of a day are spread.", 4 * 3600
    )
    notTo: tuple[Domain, ...] = setting(
        "NotTo", "Policy domains that get no reports.", ()
    )
    keepDays: int = setting("KeepDays", "For how long sent reports are kept.", 30)
    addresses: tuple[str, ...] = setting(
        "Addresses",
        "Addresses here that others send reports to, such as those about domains of "
        "others. Mail to them alone is no reason for a report; nor is mail to those "
        "that the _dmarc and _smtp._tls records of Domains name, which are looked up.",
        (),
    )
    dmarc: DMARCReports = setting(
        "DMARC", "DMARC aggregate reports only.", DMARCReports()
    )
    failures: FailureReports = setting(
        "Failures", "DMARC failure reports only.", FailureReports()
    )
