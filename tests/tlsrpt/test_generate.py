"""
Tests for L{moxtls.tlsrpt.generate}.

Tests for L{moxtls.tlsrpt.generate}.
"""

from __future__ import annotations

import copy
import gzip
import json
from collections import Counter
from datetime import date
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from moxtls.dates import spanOfDay
from moxtls.domain import Domain
from moxtls.tlsrpt import generate as module
from moxtls.tlsrpt.generate import (
    MAX_FAULTS,
    ReportTooLarge,
    TLSReportMetadata,
    composeReport,
    compress,
    findFaults,
    trim,
)
from moxtls.tlsrpt.types import (
    FailureDetail,
    PolicyTally,
    PolicyType,
    ResultType,
    TLSPolicy,
)

#: Optional fields of a failure.
DETAILS = (
    "sending-mta-ip",
    "receiving-mx-hostname",
    "receiving-mx-helo",
    "receiving-ip",
    "additional-information",
    "failure-reason-code",
)
OPTIONAL = {*DETAILS, "failure-details", "policy-string", "mx-host"}

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(
            st.sampled_from(["policies", "policy", "summary", "x"]), inner
        )
    ),
    max_leaves=10,
)


class FindFaultsTests(SynchronousTestCase):
    """
    Tests for L{findFaults}: RFC 8460 4.4.
    """

    def changed(self, path: tuple[str | int, ...], value: object) -> dict[str, Any]:
        report = copy.deepcopy(example())
        place: Any = report
        for step in path[:-1]:
            place = place[step]
        place[path[-1]] = value
        return report

    def test_good(self) -> None:
        """
        A generated report is valid.
        """
        self.assertEqual(findFaults(example()), ())

    def test_missing(self) -> None:
        """
        Each member is required, except for those that may be unknown or not apply.
        """
        policy = ("policies", 0)
        detail = (*policy, "failure-details", 0)
        places: list[tuple[tuple[str | int, ...], str]] = [
            ((), "report"),
            (("date-range",), "report.date-range"),
            (policy, "report.policies[0]"),
            ((*policy, "policy"), "report.policies[0].policy"),
            ((*policy, "summary"), "report.policies[0].summary"),
            (detail, "report.policies[0].failure-details[0]"),
        ]
        seen = set()
        for path, where in places:
            for name in self.at(example(), path):
                report = copy.deepcopy(example())
                del self.at(report, path)[name]
                faults = findFaults(report)
                expected = () if name in OPTIONAL else (f"{where}.{name} is missing",)
                self.assertEqual(faults, expected)
                seen.add(name)
        self.assertEqual(len(seen), 5 + 2 + 3 + 4 + 2 + 6)

    def test_empty(self) -> None:
        """
        No array and no string is empty, at any depth.
        """
        policy = ("policies", 0, "policy")
        detail = ("policies", 0, "failure-details", 0)
        empty: list[tuple[tuple[str | int, ...], object]] = [
            (("policies", 0, "failure-details"), []),
            ((*policy, "policy-string"), []),
            ((*policy, "policy-string"), [""]),
            ((*policy, "mx-host"), []),
            ((*policy, "mx-host"), [""]),
            *[((*detail, name), "") for name in DETAILS],
            *[((*detail, name), None) for name in DETAILS],
        ]
        for path, value in empty:
            self.assertEqual(
                len(findFaults(self.changed(path, value))), 1, (path, value)
            )

    def at(self, report: Any, path: tuple[str | int, ...]) -> dict[str, Any]:
        for step in path:
            report = report[step]
        found: dict[str, Any] = report
        return found

    def test_wrong(self) -> None:
        """
        Each kind of value is checked, and the fault names its member.
        """
        policy = ("policies", 0, "policy")
        summary = ("policies", 0, "summary")
        detail = ("policies", 0, "failure-details", 0)
        wrong: list[tuple[tuple[str | int, ...], object]] = [
            (("organization-name",), ""),
            (("organization-name",), None),
            (("extra",), 1),
            (("date-range", "start-datetime"), "2026-11-24"),
            (("date-range", "start-datetime"), "2026-11-24T00:00:00"),
            (("date-range", "end-datetime"), "2026-13-24T00:00:00Z"),
            (("date-range", "end-datetime"), "2026-11-23T00:00:00Z"),
            (("contact-info",), "postmaster"),
            (("report-id",), 5),
            (("policies",), []),
            (("policies",), {}),
            ((*policy, "policy-type"), "STS"),
            ((*policy, "policy-string"), "version: STSv1"),
            ((*policy, "policy-string"), ["\udcff"]),
            ((*policy, "policy-domain"), "bücher.example"),
            ((*policy, "policy-domain"), "Example.org"),
            ((*policy, "mx-host"), "mx.example.org"),
            ((*policy, "mx-host"), ["mx.*.example.org"]),
            ((*policy, "mx-host"), ["mx.bücher.example"]),
            ((*summary, "total-successful-session-count"), -1),
            ((*summary, "total-successful-session-count"), True),
            ((*summary, "total-failure-session-count"), 2**53),
            ((*summary, "total-failure-session-count"), "1"),
            ((*detail, "result-type"), "bad-day"),
            ((*detail, "sending-mta-ip"), "mx.example.org"),
            ((*detail, "receiving-ip"), "[192.0.2.1]"),
            ((*detail, "sending-mta-ip"), "fe80::1%eth0"),
            ((*detail, "sending-mta-ip"), "2001:DB8::1"),
            ((*detail, "receiving-ip"), "::ffff:192.0.2.1"),
            ((*detail, "receiving-ip"), "192.0.2.01"),
            ((*detail, "receiving-mx-hostname"), "mx bücher"),
            ((*detail, "receiving-mx-helo"), 5),
            ((*detail, "additional-information"), "see our pages"),
            ((*detail, "extra"), "x"),
            ((*detail, "failed-session-count"), 1.0),
        ]
        for path, value in wrong:
            faults = findFaults(self.changed(path, value))
            self.assertEqual(len(faults), 1, (path, value, faults))
            if path[-1] not in ("extra", "end-datetime"):
                self.assertIn(str(path[-1]), faults[0])

    def test_tlsa(self) -> None:
        """
        The strings of a DANE policy are TLSA records (RFC 8460 4.5).
        """
        report = self.changed(("policies", 0, "policy", "policy-type"), "tlsa")
        policy = report["policies"][0]["policy"]
        policy["policy-string"] = ["3 1 1 00ff", "2 0 1 AB"]
        self.assertEqual(findFaults(report), ())
        policy["policy-string"] = ["3 1 1 00 ff", "mode: enforce"]
        self.assertEqual(len(findFaults(report)), 2)

    def test_repeated(self) -> None:
        """
        RFC 8460 4.4: a policy that was applied has one entry.
        """
        report = example()
        report["policies"] *= 2
        self.assertEqual(
            findFaults(report),
            ("report.policies[1].policy occurs in an earlier entry",),
        )

    def test_bounded(self) -> None:
        """
        The number of faults of a report is limited.
        """
        report = example() | {"policies": [1] * 1000}
        self.assertEqual(len(findFaults(report)), MAX_FAULTS)

    @settings(max_examples=100, deadline=None)
    @given(VALUES)
    def test_anything(self, value: object) -> None:
        """
        Any JSON that is not a report has faults, and raises nothing.
        """
        self.assertTrue(findFaults(value))
        self.assertTrue(findFaults(example() | {"policies": [value]}))


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
        self.assertEqual(findFaults(composed), ())

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
        self.assertEqual(findFaults(composed), ())

    def test_untrustedText(self) -> None:
        """
        Lone surrogates are replaced (RFC 7493 2.1).
        """
        policy = TLSPolicy(PolicyType.STS, DOMAIN, ("mx: \udcff",))
        failure = FailureDetail(ResultType.VALIDATION_FAILURE, mxHELO="\udcfe")
        composed = composeReport(
            HEADING, [PolicyTally(policy, failures=Counter([failure]))]
        )
        self.assertEqual(findFaults(composed), ())

    def test_addresses(self) -> None:
        """
        RFC 8460 4.4, RFC 5952: addresses are in canonical form; invalid ones are left
        out.
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
            self.assertEqual(findFaults(composed), ())
            (detail,) = composed["policies"][0]["failure-details"]
            self.assertEqual(detail.get("sending-mta-ip"), written)
            self.assertEqual(detail.get("receiving-ip"), written)


class CompressTests(SynchronousTestCase):
    """
    Tests for L{compress}.
    """

    def test_roundTrip(self) -> None:
        """
        The document is gzip (RFC 8460 5.2) of JSON, indented by tabs.
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
        Tallies within the limits are unchanged.
        """
        tallies = many(3, 3)
        self.assertEqual(trim(tallies), tallies)

    def test_policies(self) -> None:
        """
        Policies with the most sessions are kept, if there are too many.
        """
        self.patch(module, "MAX_POLICIES", 2)
        self.assertEqual([each.succeeded for each in trim(many(5))], [4, 3])

    def test_failures(self) -> None:
        """
        The most frequent failures of each policy are kept, if there are too many; the
        summary is unchanged.
        """
        self.patch(module, "MAX_FAILURES", 6)
        trimmed = trim(many(2, 10))
        for tally, original in zip(trimmed, many(2, 10), strict=True):
            self.assertEqual(sorted(tally.failures.values()), [7, 8, 9])
            self.assertEqual(tally.succeeded, original.succeeded)
