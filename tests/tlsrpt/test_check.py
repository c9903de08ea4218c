"""
Tests for L{moxtls.tlsrpt.generate}.
"""

from __future__ import annotations

import copy
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from moxtls.tlsrpt.generate import MAX_FAULTS, check
from tests.tlsrpt.test_report import example

#: What a failure may have.
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


class CheckTests(SynchronousTestCase):
    """
    Tests for L{check}: RFC 8460 4.4.
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
        A report of ours is right.
        """
        self.assertEqual(check(example()), ())

    def test_missing(self) -> None:
        """
        Each member is needed, except for what may be unknown or not apply.
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
                faults = check(report)
                expected = () if name in OPTIONAL else (f"{where}.{name} is missing",)
                self.assertEqual(faults, expected)
                seen.add(name)
        self.assertEqual(len(seen), 5 + 2 + 3 + 4 + 2 + 6)

    def test_empty(self) -> None:
        """
        Nothing is there and empty: neither an array nor a string, at any
        depth.
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
            self.assertEqual(len(check(self.changed(path, value))), 1, (path, value))

    def at(self, report: Any, path: tuple[str | int, ...]) -> dict[str, Any]:
        for step in path:
            report = report[step]
        found: dict[str, Any] = report
        return found

    def test_wrong(self) -> None:
        """
        Each kind of value is looked at, and the fault names the place.
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
            faults = check(self.changed(path, value))
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
        self.assertEqual(check(report), ())
        policy["policy-string"] = ["3 1 1 00 ff", "mode: enforce"]
        self.assertEqual(len(check(report)), 2)

    def test_repeated(self) -> None:
        """
        RFC 8460 4.4: a policy that was applied has one entry.
        """
        report = example()
        report["policies"] *= 2
        self.assertEqual(
            check(report), ("report.policies[1].policy is that of an entry before",)
        )

    def test_bounded(self) -> None:
        """
        A report that is wrong all over doesn't fill the log.
        """
        report = example() | {"policies": [1] * 1000}
        self.assertEqual(len(check(report)), MAX_FAULTS)

    @settings(max_examples=100, deadline=None)
    @given(VALUES)
    def test_anything(self, value: object) -> None:
        """
        Whatever it is given, it finds fault with, and doesn't fail.
        """
        self.assertTrue(check(value))
        self.assertTrue(check(example() | {"policies": [value]}))
