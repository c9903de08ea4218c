"""
Tests for L{moxtls.delivery.requirements}.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from moxtls.delivery.requirements import (
    MessageRequirements,
    PolicyRefusal,
    SessionRequirements,
    sessionRequirements,
)
from moxtls.dns.types import TLSA
from moxtls.domain import Domain
from moxtls.mtasts.policy import Mode, STSPolicy
from moxtls.smtp.types import TLSMode
from moxtls.tls.dane import TLSALookup, TLSALookupError

HOST = Domain("mx.example")
RECORD = TLSA(3, 1, 1, b"x" * 32)
NO_DANE = TLSALookup(HOST, (HOST,))
DANE = TLSALookup(HOST, (HOST,), (RECORD,), (RECORD,))
UNUSABLE = TLSALookup(HOST, (HOST,), (TLSA(1, 1, 1, b""),))
BROKEN = TLSALookup(HOST, (HOST,), error=TLSALookupError("_25._tcp.mx.example"))

PLAIN = MessageRequirements()
REQUIRED = MessageRequirements(requireTLS=True)
LENIENT = MessageRequirements(requireTLS=False)
DMARC_REPORT = MessageRequirements(noFallback=True)


def sts(mode: Mode, mx: str = "mx.example") -> STSPolicy:
    """
    A policy that allows one host.
    """
    return STSPolicy(mode, 86400, (mx,), ())


class SessionRequirementsTests(SynchronousTestCase):
    """
    Tests for L{sessionRequirements}.
    """

    def assertRequirements(
        self,
        expected: SessionRequirements,
        policy: STSPolicy | None = None,
        tlsa: TLSALookup = NO_DANE,
        requirements: MessageRequirements = PLAIN,
    ) -> None:
        """
        The requirements on L{HOST} are exactly C{expected}.
        """
        self.assertEqual(
            sessionRequirements(HOST, policy, tlsa, requirements), expected
        )

    def test_nothing(self) -> None:
        """
        RFC 7435: without policies TLS is used if it works.
        """
        expected = SessionRequirements(TLSMode.OPPORTUNISTIC, plaintextFallback=True)
        for policy in (None, sts(Mode.NONE), sts(Mode.NONE, "other.example")):
            self.assertRequirements(expected, policy)

    def test_testing(self) -> None:
        """
        RFC 8461 5: a policy in testing is only reported about.
        """
        expected = SessionRequirements(TLSMode.OPPORTUNISTIC, plaintextFallback=True)
        self.assertRequirements(expected, sts(Mode.TESTING))
        mismatch = SessionRequirements(
            TLSMode.OPPORTUNISTIC, plaintextFallback=True, mxMismatch=True
        )
        self.assertRequirements(mismatch, sts(Mode.TESTING, "other.example"))

    def test_enforce(self) -> None:
        """
        RFC 8461 5: STARTTLS and a certificate of the Web PKI, at a host that
        the policy has.
        """
        expected = SessionRequirements(TLSMode.REQUIRED, enforcePKIX=True)
        self.assertRequirements(expected, sts(Mode.ENFORCE))
        mismatch = SessionRequirements(
            TLSMode.REQUIRED,
            enforcePKIX=True,
            mxMismatch=True,
            refuse=PolicyRefusal.MX_MISMATCH,
        )
        self.assertRequirements(mismatch, sts(Mode.ENFORCE, "other.example"))

    def test_dane(self) -> None:
        """
        RFC 7672 2.2: TLS and a matching certificate.
        """
        expected = SessionRequirements(TLSMode.REQUIRED, dane=(RECORD,))
        self.assertRequirements(expected, tlsa=DANE)

    def test_unusable(self) -> None:
        """
        RFC 7672 2.2: unusable records require TLS, unauthenticated, without
        plaintext.
        """
        self.assertRequirements(SessionRequirements(TLSMode.REQUIRED), tlsa=UNUSABLE)

    def test_both(self) -> None:
        """
        A host under DANE and MTA-STS has to satisfy both.
        """
        expected = SessionRequirements(
            TLSMode.REQUIRED, enforcePKIX=True, dane=(RECORD,)
        )
        self.assertRequirements(expected, sts(Mode.ENFORCE), DANE)

    def test_lookupFailed(self) -> None:
        """
        RFC 7672 2.1.2: a host whose TLSA lookup fails is unreachable.
        """
        found = sessionRequirements(HOST, None, BROKEN, PLAIN)
        self.assertIs(found.refuse, PolicyRefusal.TLSA_LOOKUP)

    def test_dmarcReport(self) -> None:
        """
        DMARC reports don't fall back to plaintext, but still go to hosts that
        never had TLS.
        """
        expected = SessionRequirements(TLSMode.OPPORTUNISTIC)
        self.assertRequirements(expected, requirements=DMARC_REPORT)

    def test_lenient(self) -> None:
        """
        RFC 8689 3: TLS-Required: No overrides every policy; TLS is tried all the
        same.
        """
        self.assertRequirements(
            SessionRequirements(
                TLSMode.REQUIRED,
                enforcePKIX=True,
                dane=(RECORD,),
                ignoreVerifyErrors=True,
                plaintextFallback=True,
                mxMismatch=True,
            ),
            sts(Mode.ENFORCE, "other.example"),
            DANE,
            LENIENT,
        )
        self.assertRequirements(
            SessionRequirements(
                TLSMode.OPPORTUNISTIC, ignoreVerifyErrors=True, plaintextFallback=True
            ),
            tlsa=BROKEN,
            requirements=LENIENT,
        )

    def test_requireTLS(self) -> None:
        """
        RFC 8689 4.2.1: REQUIRETLS needs a host that is authenticated by DANE
        or MTA-STS; testing and unusable records don't do that.
        """
        testing = sts(Mode.TESTING)
        for policy, tlsa, refuse in (
            (None, NO_DANE, PolicyRefusal.REQUIRETLS),
            (testing, NO_DANE, PolicyRefusal.REQUIRETLS),
            (None, UNUSABLE, PolicyRefusal.REQUIRETLS),
            (testing, UNUSABLE, PolicyRefusal.REQUIRETLS),
            (None, DANE, None),
            (sts(Mode.ENFORCE), NO_DANE, None),
            (sts(Mode.ENFORCE), UNUSABLE, None),
            (sts(Mode.ENFORCE, "other.example"), DANE, PolicyRefusal.MX_MISMATCH),
            (None, BROKEN, PolicyRefusal.TLSA_LOOKUP),
        ):
            found = sessionRequirements(HOST, policy, tlsa, REQUIRED)
            self.assertIs(found.refuse, refuse, (policy, tlsa))
            self.assertFalse(found.plaintextFallback)
            if refuse is None:
                self.assertIs(found.tlsMode, TLSMode.REQUIRED)

    def test_literal(self) -> None:
        """
        RFC 8461 3.4: policies contain no address literals; so a relay with one
        wouldn't match by its address.
        """
        found = sessionRequirements(None, None, TLSALookup(None), PLAIN)
        self.assertEqual(found.tlsMode, TLSMode.OPPORTUNISTIC)
        found = sessionRequirements(None, sts(Mode.ENFORCE), TLSALookup(None), PLAIN)
        self.assertIs(found.refuse, PolicyRefusal.MX_MISMATCH)
