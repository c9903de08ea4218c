"""
Tests for L{moxtls.queue.deferrals}.
"""

from __future__ import annotations

from dataclasses import replace
from unittest.mock import patch

from twisted.trial.unittest import SynchronousTestCase

from moxtls.queue.deferrals import ResultLog
from moxtls.queue.types import DeliveryStatus, Result

DONE = Result(
    "m1", "a@there.example", DeliveryStatus.DELIVERED, "2.0.0", 250, "ok", "mx.test"
)
LATER = replace(
    DONE, ending=DeliveryStatus.TEMPORARY, status="4.2.1", code=450, text="later"
)


class ResultLogTests(SynchronousTestCase):
    """
    Tests for L{ResultLog}.
    """

    def setUp(self) -> None:
        self.said: list[Result] = []
        self.deferred: list[tuple[str, int, Result]] = []
        self.log = ResultLog(
            self.said.append,
            lambda host, number, last: self.deferred.append((host, number, last)),
        )

    def test_final(self) -> None:
        """
        Each final result has a line of its own.
        """
        failed = replace(DONE, ending=DeliveryStatus.PERMANENT)
        for result in (DONE, failed, DONE):
            self.log.ended(result)
        self.log.minutePassed()
        self.assertEqual(self.said, [DONE, failed, DONE])
        self.assertEqual(self.deferred, [])

    def test_deferred(self) -> None:
        """
        A host that puts recipients off has a line at once, and then one each
        minute with their number, until a minute without any.
        """
        last = replace(LATER, text="still later")
        self.log.ended(LATER)
        self.assertEqual(self.said, [LATER])
        self.log.minutePassed()
        self.log.ended(LATER)
        for _ in range(998):
            self.log.ended(LATER)
        self.log.ended(last)
        self.log.deferred(last, 1000)
        self.log.minutePassed()
        self.log.minutePassed()
        self.assertEqual(self.said, [LATER, LATER])
        self.assertEqual(self.deferred, [("mx.test", 1999, last)])

    def test_eachMinute(self) -> None:
        """
        There is no more than one line a minute for as long as it goes on.
        """
        self.log.ended(LATER)
        for _ in range(5):
            self.log.ended(LATER)
            self.log.minutePassed()
        self.assertEqual(len(self.said), 1)
        self.assertEqual([number for _, number, _ in self.deferred], [1] * 5)

    def test_hosts(self) -> None:
        """
        Each host has its own; a destination without a host counts as one.
        """
        nobody = replace(LATER, host="")
        for result in (LATER, nobody, replace(LATER, host="other.test")):
            self.log.ended(result)
            self.log.ended(result)
        self.log.minutePassed()
        hosts = [host for host, _, _ in self.deferred]
        self.assertEqual(hosts, ["mx.test", "there.example", "other.test"])

    def test_many(self) -> None:
        """
        Beyond so many hosts the rest counts as one.
        """
        with patch("moxtls.queue.deferrals.MAX_HOSTS", 2):
            for number in range(10):
                self.log.ended(replace(LATER, host=f"h{number}.test"))
            self.log.minutePassed()
        self.assertEqual(len(self.said), 3)
        self.assertEqual([each[:2] for each in self.deferred], [("other hosts", 7)])
