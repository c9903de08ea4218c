"""
Tests for L{moxtls.tlsrpt.generate}.
"""

from __future__ import annotations

import gzip
import json
from collections import Counter
from datetime import date
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from moxtls.dates import spanOfDay
from moxtls.domain import Domain
from moxtls.tlsrpt import generate as module
from moxtls.tlsrpt.generate import (
    ReportTooLarge,
    TLSReportMetadata,
    check,
    composeReport,
    compress,
    trim,
)
from moxtls.tlsrpt.types import (
    FailureDetail,
    PolicyTally,
    PolicyType,
    ResultType,
    TLSPolicy,
)

DOMAIN = Domain.parse("bücher.example")
SUBMITTER = Domain.parse("sender.example")
SPAN = spanOfDay(date(2026, 11, 24))
HEADING = TLSReportMetadata(SUBMITTER, "20261124.x@sender.example", SPAN)
LINES = ("version: STSv1", "mode: enforce", "mx: *.bücher.example", "max_age: 86400")
STS = TLSPolicy(PolicyType.STS, DOMAIN, LINES, ("*.xn--bcher-kva.example",))
EXPIRED = FailureDetail(
    ResultType.CERTIFICATE_EXPIRED,
    sendingIP="192.0.2.1",
    mxHostname="mx.example.net",
    mxHELO="mx.example.net",
    receivingIP="2001:db8::1",
)
FETCH = FailureDetail(ResultType.STS_POLICY_FETCH_ERROR, reasonCode="dns-lookup")

EXPECTED = {
    "organization-name": "sender.example",
    "date-range": {
        "start-datetime": "2026-11-24T00:00:00Z",
        "end-datetime": "2026-11-24T23:59:59Z",
    },
    "contact-info": "postmaster@sender.example",
    "report-id": "20261124.x@sender.example",
    "policies": [
        {
            "policy": {
                "policy-type": "sts",
                "policy-string": list(LINES),
                "policy-domain": "xn--bcher-kva.example",
                "mx-host": ["*.xn--bcher-kva.example"],
            },
            "summary": {
                "total-successful-session-count": 5,
                "total-failure-session-count": 2,
            },
            "failure-details": [
                {
                    "result-type": "certificate-expired",
                    "sending-mta-ip": "192.0.2.1",
                    "receiving-mx-hostname": "mx.example.net",
                    "receiving-mx-helo": "mx.example.net",
                    "receiving-ip": "2001:db8::1",
                    "failed-session-count": 2,
                },
                {
                    "result-type": "sts-policy-fetch-error",
                    "failed-session-count": 1,
                    "failure-reason-code": "dns-lookup",
                },
            ],
        }
    ],
}


def example() -> dict[str, Any]:
    tally = PolicyTally(STS, 5, 2, Counter({EXPIRED: 2, FETCH: 1}))
    return composeReport(HEADING, [tally])


def many(count: int, failures: int = 0) -> list[PolicyTally]:
    return [
        PolicyTally(
            TLSPolicy(PolicyType.NO_POLICY, Domain(f"d{number}.example")),
            succeeded=number,
            failures=Counter(
                {
                    FailureDetail(
                        ResultType.VALIDATION_FAILURE, reasonCode=str(each)
                    ): each
                    for each in range(failures)
                }
            ),
        )
        for number in range(count)
    ]


class ComposeTests(SynchronousTestCase):
    """
    Tests for L{composeReport}.
    """

    def test_fields(self) -> None:
        """
        Every member of RFC 8460 4.4 that has a value, in its order; domains in
        A-labels.
        """
        composed = example()
        self.assertEqual(composed, EXPECTED)
        self.assertEqual(json.dumps(composed), json.dumps(EXPECTED))
        self.assertEqual(check(composed), ())

    def test_noFailures(self) -> None:
        """
        RFC 8460 4.4: a report without failures has no list of them, and no
        policy has no text.
        """
        composed: dict[str, Any] = composeReport(HEADING, many(1))
        self.assertEqual(
            composed["policies"],
            [
                {
                    "policy": {
                        "policy-type": "no-policy-found",
                        "policy-domain": "d0.example",
                    },
                    "summary": {
                        "total-successful-session-count": 0,
                        "total-failure-session-count": 0,
                    },
                }
            ],
        )
        self.assertEqual(check(composed), ())

    def test_strangersWords(self) -> None:
        """
        What isn't Unicode doesn't get into a report (RFC 7493 2.1).
        """
        policy = TLSPolicy(PolicyType.STS, DOMAIN, ("mx: \udcff",))
        failure = FailureDetail(ResultType.VALIDATION_FAILURE, mxHELO="\udcfe")
        composed = composeReport(
            HEADING, [PolicyTally(policy, failures=Counter([failure]))]
        )
        self.assertEqual(check(composed), ())

    def test_addresses(self) -> None:
        """
        RFC 8460 4.4, RFC 5952: addresses are ones that any reader knows as
        such, in one spelling; what is none is left out.
        """
        for known, written in {
            "192.0.2.1": "192.0.2.1",
            "2001:DB8:0:0:0:0:0:1": "2001:db8::1",
            "::ffff:192.0.2.1": "192.0.2.1",
            "fe80::1%eth0": "fe80::1",
            "/run/lmtp": None,
            "": None,
        }.items():
            failure = FailureDetail(
                ResultType.VALIDATION_FAILURE, "x", known, "", "", known
            )
            composed: Any = composeReport(
                HEADING, [PolicyTally(STS, 0, 1, Counter([failure]))]
            )
            self.assertEqual(check(composed), ())
            (detail,) = composed["policies"][0]["failure-details"]
            self.assertEqual(detail.get("sending-mta-ip"), written)
            self.assertEqual(detail.get("receiving-ip"), written)


class CompressTests(SynchronousTestCase):
    """
    Tests for L{compress}.
    """

    def test_roundTrip(self) -> None:
        """
        It is gzip (RFC 8460 5.2) of JSON, indented by tabs.
        """
        text = gzip.decompress(compress(example()))
        self.assertEqual(json.loads(text), EXPECTED)
        self.assertIn(b'\n\t"report-id": ', text)

    def test_deterministic(self) -> None:
        """
        Equal reports are equal bytes: no time in the header (RFC 1952 2.3).
        """
        self.assertEqual(compress(example()), compress(example()))
        self.assertEqual(compress(example())[4:8], bytes(4))

    def test_tooLarge(self) -> None:
        """
        A report beyond the limit isn't made at all.
        """
        self.patch(module, "MAX_REPORT", 100)
        self.assertRaises(ReportTooLarge, compress, example())


class TrimTests(SynchronousTestCase):
    """
    Tests for L{trim}.
    """

    def test_small(self) -> None:
        """
        What fits is left as it is.
        """
        tallies = many(3, 3)
        self.assertEqual(trim(tallies), tallies)

    def test_policies(self) -> None:
        """
        Of too many policies, those with the most sessions are kept.
        """
        self.patch(module, "MAX_POLICIES", 2)
        self.assertEqual([each.succeeded for each in trim(many(5))], [4, 3])

    def test_failures(self) -> None:
        """
        Of too many failures, those seen most often are kept, under each
        policy; the summary isn't changed.
        """
        self.patch(module, "MAX_FAILURES", 6)
        trimmed = trim(many(2, 10))
        for tally, original in zip(trimmed, many(2, 10), strict=True):
            self.assertEqual(sorted(tally.failures.values()), [7, 8, 9])
            self.assertEqual(tally.succeeded, original.succeeded)
