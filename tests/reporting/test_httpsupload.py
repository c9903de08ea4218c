"""
Tests for L{moxtls.reporting.handover}: uploads to HTTPS destinations.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from moxtls.dates import DAY
from moxtls.https import HTTPSErrorKind, HTTPSFailure, Response
from moxtls.interfaces import ICourier
from moxtls.queue.memory import MemoryResultRecorder
from moxtls.queue.types import Batch, BatchMessage, DeliveryStatus, ReportKind, Result
from moxtls.reporting.handover import HTTPSCourier, retryAfter

URI = "https://a.example/tlsrpt"
#: Wed, 25 Nov 2026 00:00:00 GMT
NOW = 1_795_564_800


class FakeClient:
    """
    Returns scripted responses, and keeps uploads.
    """

    def __init__(self, *answers: Response | HTTPSFailure) -> None:
        self.answers = list(answers)
        self.posted: list[tuple[str, dict[str, str], bytes]] = []

    def post(
        self, url: str, headers: Mapping[str, str], body: bytes
    ) -> Deferred[Response | HTTPSFailure]:
        self.posted.append((url, dict(headers), body))
        return succeed(self.answers.pop(0)) if self.answers else Deferred()


def answer(status: int, **headers: str) -> Response:
    fields = tuple((name.replace("_", "-"), value) for name, value in headers.items())
    return Response(status, fields, b"")


class HTTPSCourierTests(SynchronousTestCase):
    """
    Tests for L{HTTPSCourier}: RFC 8460 5.4, 5.5.
    """

    def deliver(
        self, *answers: Response | HTTPSFailure
    ) -> Deferred[tuple[Result, ...]]:
        path = Path(self.mktemp())
        path.write_bytes(b"\x1f\x8bdocument")
        message = BatchMessage(
            "id", "", (URI,), path, 10, contentType="application/tlsrpt+gzip"
        )
        self.client = FakeClient(*answers)
        clock = Clock()
        clock.advance(NOW)
        courier = HTTPSCourier(clock, self.client)
        verifyObject(ICourier, courier)
        return courier.deliver(
            Batch(URI, (message,), report=ReportKind.TLS), MemoryResultRecorder()
        )

    def result(self, *answers: Response | HTTPSFailure) -> Result:
        (result,) = self.successResultOf(self.deliver(*answers))
        return result

    def test_posted(self) -> None:
        """
        The document is uploaded with its media type; any 2xx is success.
        """
        for status in (200, 201, 202, 204):
            self.assertEqual(
                self.result(answer(status)),
                Result(
                    "id",
                    URI,
                    DeliveryStatus.DELIVERED,
                    "2.0.0",
                    text=f"HTTP status {status}",
                    host="a.example",
                ),
            )
            headers = {"Content-Type": "application/tlsrpt+gzip"}
            self.assertEqual(self.client.posted, [(URI, headers, b"\x1f\x8bdocument")])

    def test_status(self) -> None:
        """
        Server errors and requests to retry are temporary; any other refusal is
        permanent.
        """
        for status in (408, 425, 429, 500, 502, 503, 504):
            result = self.result(answer(status))
            self.assertIs(result.ending, DeliveryStatus.TEMPORARY)
            self.assertEqual(result.status, "4.0.0")
        for status in (303, 304, 400, 401, 403, 404, 405, 410, 413, 415):
            result = self.result(answer(status))
            self.assertIs(result.ending, DeliveryStatus.PERMANENT)
            self.assertEqual(result.status, "5.0.0")

    def test_noAnswer(self) -> None:
        """
        No answer is temporary, a bad certificate included; but a host that
        doesn't exist is gone.
        """
        for error in HTTPSErrorKind:
            gone = error is HTTPSErrorKind.NO_NAME
            result = self.result(HTTPSFailure(error, "reason"))
            expected = DeliveryStatus.PERMANENT if gone else DeliveryStatus.TEMPORARY
            self.assertIs(result.ending, expected)
            self.assertIn("reason", result.text)

    def test_retryAfter(self) -> None:
        """
        Retry-After determines the next attempt.
        """
        result = self.result(answer(503, retry_after="120"))
        self.assertEqual(result.retryAfter, 120)
        self.assertIsNone(self.result(answer(503)).retryAfter)
        self.assertIsNone(self.result(answer(404, retry_after="120")).retryAfter)

    def test_redirect(self) -> None:
        """
        A redirect on the same server is followed, a few times.
        """
        result = self.result(
            answer(307, location="/new"),
            answer(308, location="https://A.EXAMPLE:443/newer"),
            answer(301, location="newest?x=y"),
            answer(200),
        )
        self.assertIs(result.ending, DeliveryStatus.DELIVERED)
        self.assertEqual(
            [url for url, _, _ in self.client.posted],
            [
                URI,
                "https://a.example/new",
                "https://a.example/newer",
                "https://a.example/newest?x=y",
            ],
        )
        result = self.result(*[answer(307, location="/x")] * 9)
        self.assertIs(result.ending, DeliveryStatus.PERMANENT)
        self.assertEqual(len(self.client.posted), 4)

    def test_elsewhere(self) -> None:
        """
        Redirects to other hosts, or without a location, aren't followed.
        """
        for location in [
            "https://b.example/",
            "https://a.example:8443/",
            "http://a.example/",
            "//b.example/",
            "https://x@a.example/",
            "mailto:a@a.example",
            "https://[/",
            "",
        ]:
            result = self.result(answer(307, location=location), answer(200))
            self.assertEqual(len(self.client.posted), 1, location)
            self.assertIs(result.ending, DeliveryStatus.PERMANENT)
        self.result(answer(303, location="/seen"), answer(200))
        self.assertEqual(len(self.client.posted), 1)

    def test_cancel(self) -> None:
        """
        An attempt can be broken off.
        """
        delivering = self.deliver()
        delivering.cancel()
        self.failureResultOf(delivering, CancelledError)


class RetryAfterTests(SynchronousTestCase):
    """
    Tests for L{retryAfter}: RFC 9110 10.2.3.
    """

    def test_values(self) -> None:
        """
        Seconds or a date; within a day, and never in the past.
        """
        for value, seconds in [
            ("0", 0),
            ("3600", 3600),
            ("9999999999", DAY),
            ("Wed, 25 Nov 2026 01:00:00 GMT", 3600),
            ("Wed, 25 Nov 2026 01:00:00 -0000", 3600),
            ("Tue, 24 Nov 2026 01:00:00 GMT", 0),
            ("Fri, 31 Dec 9999 23:59:59 GMT", DAY),
            ("-1", None),
            ("1.5", None),
            ("soon", None),
            ("Wed, 99 Nov 2026 01:00:00 GMT", None),
            ("", None),
        ]:
            self.assertEqual(retryAfter(value, NOW), seconds, value)
