"""
Tests for L{moxtls.dns.cname}.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import product

from twisted.trial.unittest import SynchronousTestCase

from moxtls.dns.cname import needsSteps, stepQuestions, withStepAuthenticity
from moxtls.dns.types import (
    IP,
    Answer,
    CNAMELink,
    ExtendedError,
    LookupStatus,
    NameRecord,
    RRType,
)
from moxtls.dns.wire import Question, failedAnswer

WHOLE = Answer(
    "a.example",
    RRType.A,
    LookupStatus.RECORDS,
    (IP("192.0.2.66"),),
    (
        CNAMELink("a.example", "b.example", False),
        CNAMELink("b.example", "c.example", False),
    ),
    ttl=300,
)


def alias(name: str, target: str, authentic: bool) -> Answer:
    return Answer(
        name,
        RRType.CNAME,
        LookupStatus.RECORDS,
        (NameRecord(target),),
        authentic=authentic,
        endAuthentic=authentic,
        ttl=200,
    )


def end(authentic: bool) -> Answer:
    return Answer(
        "c.example",
        RRType.A,
        LookupStatus.RECORDS,
        (IP("192.0.2.1"),),
        authentic=authentic,
        endAuthentic=authentic,
        ttl=100,
    )


class StepsTests(SynchronousTestCase):
    """
    Tests for L{needsSteps}, L{stepQuestions} and L{withStepAuthenticity}.
    """

    def test_unclear(self) -> None:
        """
        One AD bit for several steps is conclusive only if it is set.
        """
        self.assertTrue(needsSteps(WHOLE))
        self.assertFalse(needsSteps(replace(WHOLE, authentic=True)))
        self.assertFalse(needsSteps(replace(WHOLE, chain=())))
        self.assertFalse(needsSteps(replace(WHOLE, status=LookupStatus.FAILED)))

    def test_steps(self) -> None:
        """
        Each CNAME is queried, and the records at the end.
        """
        self.assertEqual(
            stepQuestions(WHOLE),
            (
                Question("a.example", RRType.CNAME),
                Question("b.example", RRType.CNAME),
                Question("c.example", RRType.A),
            ),
        )

    def test_mixed(self) -> None:
        """
        Each step is authentic by itself, the end too; all of it only if all
        are (RFC 7672 2.2.2).
        """
        for first, second, last in product((False, True), repeat=3):
            answer = withStepAuthenticity(
                WHOLE,
                [
                    alias("a.example", "b.example", first),
                    alias("b.example", "c.example", second),
                    end(last),
                ],
            )
            self.assertEqual([each.authentic for each in answer.chain], [first, second])
            self.assertEqual(answer.endAuthentic, last)
            self.assertEqual(answer.authentic, first and second and last)
            self.assertEqual(answer.addresses, ("192.0.2.1",))
            self.assertEqual((answer.name, answer.ttl), ("a.example", 100))

    def test_otherTarget(self) -> None:
        """
        An authentic CNAME to another target doesn't count.
        """
        answer = withStepAuthenticity(
            WHOLE,
            [
                alias("a.example", "elsewhere.example", True),
                alias("b.example", "c.example", True),
                end(True),
            ],
        )
        self.assertEqual([each.authentic for each in answer.chain], [False, True])
        self.assertFalse(answer.authentic)

    def test_failed(self) -> None:
        """
        If one step's lookup fails, the authenticity of the whole is unknown: an
        attacker might cause that (RFC 7672 2.1.1).
        """
        error = ExtendedError(6)
        parts = [
            alias("a.example", "b.example", True),
            failedAnswer(Question("b.example", RRType.CNAME), "SERVFAIL", (error,)),
            end(True),
        ]
        answer = withStepAuthenticity(WHOLE, parts)
        self.assertEqual(
            (answer.status, answer.name), (LookupStatus.FAILED, "a.example")
        )
        self.assertEqual((answer.kind, answer.dnssecError), (RRType.A, error))
        self.assertIn("b.example", answer.reason)

    def test_longerNow(self) -> None:
        """
        If there is a CNAME where the end was, the end isn't authentic.
        """
        further = (CNAMELink("c.example", "d.example", True),)
        answer = withStepAuthenticity(
            WHOLE,
            [
                alias("a.example", "b.example", True),
                alias("b.example", "c.example", True),
                replace(end(True), chain=further),
            ],
        )
        self.assertEqual((answer.authentic, answer.endAuthentic), (False, False))
        self.assertEqual(answer.addresses, WHOLE.addresses)
