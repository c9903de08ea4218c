# -*- test-case-name: tests.inbound.test_practice -*-
"""
How this host goes about DMARC, by its configuration.  No I/O.
"""

from __future__ import annotations

from types import MappingProxyType

from moxtls.config import DMARC
from moxtls.config.places import forwarders
from moxtls.dmarc.suffixes import Suffixes
from moxtls.dmarc.verdict import LocalPolicy
from moxtls.domain import Domain


def localPolicyOf(dmarc: DMARC) -> LocalPolicy:
    """
    @param dmarc: Checked already.
    """
    networks, domains = forwarders(dmarc)
    policies = dmarc.localPolicies.items()
    return LocalPolicy(
        Suffixes() if dmarc.legacy else None,
        dmarc.enforcement,
        frozenset(dmarc.mailingLists),
        networks,
        frozenset(domains),
        MappingProxyType({Domain.parse(name): policy for name, policy in policies}),
    )
