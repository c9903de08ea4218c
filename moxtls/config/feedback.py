# -*- test-case-name: tests.test_config -*-
"""
What is wrong with DMARC and with reports.  No I/O.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from moxtls.config.domains import Purpose
from moxtls.config.errors import Inconsistency
from moxtls.config.places import isNumeric, networkOrDomain
from moxtls.config.reports import DMARCReports
from moxtls.config.spelling import destinationKey
from moxtls.config.values import Config
from moxtls.domain import Address, Domain, InvalidDomain

_DOMAIN = "expected a domain name as the key"


def reportAddressErrors(config: Config) -> Iterator[Inconsistency]:
    """
    Whatever can't be about DMARC and the reports that come of it.
    """
    for text in config.dmarc.trustedForwarders:
        if networkOrDomain(text) is None:
            expected = "expected a network, such as 192.0.2.0/24, or a domain name"
            yield "DMARC", "TrustedForwarders", text, expected
    yield from wrongKeys("DMARC.LocalPolicies", config.dmarc.localPolicies)
    for text in config.reporting.addresses:
        if not isinstance(destinationKey(text, config.domains), Address):
            expected = "expected an address in one of Domains"
            yield "Reporting", "Addresses", text, expected
    reports = config.reporting.dmarc
    yield from wrongKeys("Reporting.DMARC.Formats", reports.formats)
    if reports.minimum < 1:
        expected = "expected an integer from 1 up"
        yield "Reporting.DMARC", "Minimum", reports.minimum, expected
    yield from _wrongSubmitter(reports, config)


def wrongKeys(table: str, keys: Iterable[str]) -> Iterator[Inconsistency]:
    """
    Keys that are no domains, or the same one.
    """
    seen: set[Domain] = set()
    for text in keys:
        try:
            domain = Domain.parse(text)
        except InvalidDomain:
            yield table, text, None, _DOMAIN
            continue
        if isNumeric(domain):
            yield table, text, None, _DOMAIN
        if domain in seen:
            yield table, text, None, "expected each domain once"
        seen.add(domain)


def _wrongSubmitter(reports: DMARCReports, config: Config) -> Iterator[Inconsistency]:
    domain = reports.domain
    if domain is None:
        return
    local = config.domains.get(domain)
    if local is None:
        yield "Reporting.DMARC", "Domain", domain, "expected one of Domains"
    elif all(
        each.purpose is not Purpose.MAIL for each in local.dkim.selectors.values()
    ):
        expected = 'expected a domain with a selector whose Purpose is "mail"'
        yield "Reporting.DMARC", "Domain", domain, expected
    elif local.noOutgoingDMARCReports:
        expected = "expected a domain without NoOutgoingDMARCReports"
        yield "Reporting.DMARC", "Domain", domain, expected
