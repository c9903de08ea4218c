# -*- test-case-name: tests.tls.test_dane -*-
"""
Verifies certificate chains with TLSA records (DANE, RFC 6698, 7671, 7672).  No I/O.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum, auto

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    load_der_public_key,
)
from cryptography.x509 import Certificate, load_der_x509_certificate

from moxtls.dns.types import TLSA, ExtendedError
from moxtls.domain import Domain
from moxtls.tls.chains import ChainError, PathBuilder, spki

#: More than a domain needs during a key rollover; further records are ignored, as
#: each costs work on each handshake.
MAX_RECORDS = 50

DANE_TA = 2
DANE_EE = 3
CERTIFICATE = 0
SPKI = 1
FULL = 0

# RFC 7671 9: by strength, strongest last.  RFC 6698 7.4 has numbered them so.
_DIGESTS = {1: hashlib.sha256, 2: hashlib.sha512}


class DANEVerdict(Enum):
    """
    The result of verification with TLSA records (RFC 7671, 7672).

    C{NOT_ASKED}: there were no usable records.  C{NO_MATCH_WITH_ERRORS}: no record
    matches, and some couldn't be compared because of a defective certificate.
    """

    NOT_ASKED = auto()
    MATCHED = auto()
    NO_MATCH = auto()
    NO_MATCH_WITH_ERRORS = auto()


@dataclass(frozen=True, slots=True)
class TLSALookupError:
    """
    A failed TLSA lookup.

    @ivar name: The name that was looked up.
    @ivar error: RFC 8914, if the resolver gave one; one of DNSSEC before
        others.
    @ivar reason: For the log.
    """

    name: str
    error: ExtendedError | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class TLSALookup:
    """
    The TLSA records of a host.

    @ivar base: The TLSA base domain (RFC 7672 2.2.3), sent in SNI; the
        host itself where DANE doesn't apply; C{None} for an address literal.
    @ivar names: The reference identifiers of the certificate (RFC 7672 3.2.2),
        C{base} first.
    @ivar records: The secure records, usable or not.
    @ivar usable: Those of C{records} that can be checked.
    @ivar error: The lookup failed, so the host must not be used: there
        might be records (RFC 7672 2.1.2).
    """

    base: Domain | None
    names: tuple[Domain, ...] = ()
    records: tuple[TLSA, ...] = ()
    usable: tuple[TLSA, ...] = ()
    error: TLSALookupError | None = None

    @property
    def required(self) -> bool:
        """
        True if the host has to offer TLS (RFC 7672 2.2.3): also with unusable
        records only.
        """
        return bool(self.records) or self.error is not None


def usableRecords(records: Iterable[TLSA]) -> tuple[TLSA, ...]:
    """
    The records that SMTP clients can check (RFC 7672 3.1), without duplicates.

    @param records: As L{moxtls.interfaces.IResolver.lookup} finds them, if the answer
        is authenticated.
    """
    distinct = list(dict.fromkeys(records))[:MAX_RECORDS]
    return tuple(record for record in distinct if _isUsable(record))


def strongest(usable: Sequence[TLSA]) -> tuple[TLSA, ...]:
    """
    The usable records; of those that differ in the digest only, those with the
    strongest digest (RFC 7671 9).  Full data (matching type 0) always stays.
    """
    best: dict[tuple[int, int], int] = {}
    for record in usable:
        kind = (record.usage, record.selector)
        best[kind] = max(best.get(kind, FULL), record.matching)
    return tuple(
        record
        for record in usable
        if record.matching in (FULL, best[record.usage, record.selector])
    )


def policyStrings(usable: Iterable[TLSA]) -> tuple[str, ...]:
    """
    The records as RFC 8460 4.4 policy-string, in an order that doesn't depend on the
    DNS.
    """
    return tuple(sorted(str(record) for record in usable))


def verifyDANE(
    records: Iterable[TLSA],
    chain: Sequence[Certificate],
    names: Sequence[Domain],
    now: float,
) -> DANEVerdict:
    """
    Verify the chain that a server sent with its TLSA records.

    @param records: Those that aren't usable are ignored.
    @param chain: As sent, leaf first; may be empty.
    @param names: The reference identifiers of the leaf, for DANE-TA.
    @param now: Unix seconds.

    @return: C{MATCHED} if any record matches.
    """
    asked = strongest(usableRecords(records))
    if not asked:
        return DANEVerdict.NOT_ASKED
    if not chain:
        return DANEVerdict.NO_MATCH
    builder = PathBuilder(chain, names, now)
    errors = False
    for record in asked:
        try:
            if _matches(record, builder):
                return DANEVerdict.MATCHED
        except (ChainError, ValueError):
            # ValueError: cryptography finds some defects of a certificate, perhaps
            # one in a record, only when a field is read.
            errors = True
    return DANEVerdict.NO_MATCH_WITH_ERRORS if errors else DANEVerdict.NO_MATCH


def _isUsable(record: TLSA) -> bool:
    # RFC 7672 3.1.3: PKIX-TA(0) and PKIX-EE(1) are not for SMTP.
    if record.usage not in (DANE_TA, DANE_EE):
        return False
    if record.selector not in (CERTIFICATE, SPKI):
        return False
    if record.matching == FULL:
        return _parses(record)
    digest = _DIGESTS.get(record.matching)
    return digest is not None and len(record.data) == digest().digest_size


def _parses(record: TLSA) -> bool:
    try:
        if record.selector == CERTIFICATE:
            load_der_x509_certificate(record.data)
        else:
            load_der_public_key(record.data)
    except (ValueError, UnsupportedAlgorithm):
        return False
    return True


def _matches(record: TLSA, builder: PathBuilder) -> bool:
    """
    True if the chain matches a record.

    @raise ChainError: It matches, but a certificate is not valid.
    """
    if record.usage == DANE_EE:
        # RFC 7672 3.1.1: the leaf alone; neither its names nor its dates.
        return _matchesCertificate(record, builder.chain[0])
    matching = [each for each in builder.chain if _matchesCertificate(record, each)]
    anchors = matching or _anchorInRecord(record)
    failure: ChainError | None = None
    for anchor in anchors:
        try:
            builder.checkUnder(anchor)
        except ChainError as error:
            failure = error
        else:
            return True
    if failure:
        raise failure
    if not anchors and (record.selector, record.matching) == (SPKI, FULL):
        # RFC 7671 5.2.3: no certificate has that key, but it may have signed
        # the topmost.
        return builder.checkUnderKey(record.data)
    return False


def _matchesCertificate(record: TLSA, certificate: Certificate) -> bool:
    """
    RFC 6698 2.1.2, 2.1.3.
    """
    if record.selector == SPKI:
        data = spki(certificate)
    else:
        data = certificate.public_bytes(Encoding.DER)
    digest = _DIGESTS.get(record.matching)
    return record.data == (digest(data).digest() if digest else data)


def _anchorInRecord(record: TLSA) -> list[Certificate]:
    """
    RFC 7671 5.2.2: with 2 0 0 the anchor need not be in the chain.
    """
    if (record.selector, record.matching) != (CERTIFICATE, FULL):
        return []
    return [load_der_x509_certificate(record.data)]
