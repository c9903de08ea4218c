# -*- test-case-name: tests.test_config -*-
"""
The configuration of what is done because of DMARC.  No I/O.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from moxtls.config.keys import setting
from moxtls.dmarc.values import DMARCPolicy
from moxtls.domain import Domain


@dataclass(frozen=True, slots=True)
class DMARC:
    """
    What is done because of DMARC.
    """

    legacy: bool = setting(
        "Legacy",
        "As RFC 7489 has it: organizational domains by the public suffix list, pct. "
        "If not, RFC 9989.",
        False,
    )
    enforcement: DMARCPolicy = setting(
        "Enforcement",
        'The most that is done to a message: "none" only writes down what would be, '
        '"quarantine" never refuses, "reject" does.',
        DMARCPolicy.REJECT,
    )
    mailingLists: tuple[Domain, ...] = setting(
        "MailingLists",
        "Domains of mailing lists: mail that SPF or DKIM says is from them is "
        "accepted whatever the policy of its author's domain.",
        (),
    )
    trustedForwarders: tuple[str, ...] = setting(
        "TrustedForwarders",
        "Networks, such as 192.0.2.0/24, and domains whose forwarded mail is "
        "accepted whatever the policy of its author's domain.",
        (),
    )
    localPolicies: Mapping[str, DMARCPolicy] = setting(
        "LocalPolicies",
        'Policies of ours, by author domain: "none", "quarantine" or "reject" for '
        "mail that fails, in place of what the domain publishes.",
        {},
    )
