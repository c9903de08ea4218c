# -*- test-case-name: tests.reporting.test_httpsupload -*-
"""
Posts reports to C{https:} destinations (RFC 8460 5.4).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Protocol
from urllib.parse import urljoin, urlsplit

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from zope.interface import implementer

from moxtls.dates import DAY
from moxtls.https import HTTPSErrorKind, HTTPSFailure, Response
from moxtls.interfaces import ICourier, IResultRecorder
from moxtls.queue.types import Batch, BatchMessage, DeliveryStatus, Result
from moxtls.reporting.rua import InvalidDestination, canonicalURI

#: Enough for a server that tidies up its paths.
MAX_REDIRECTS = 3
#: RFC 8460 5.5: redelivery is attempted for up to a day.
MAX_WAIT = DAY

#: RFC 9110 15.4.2, 15.4.3, 15.4.8, 15.4.9.  Not 303: what it names is to be
#: fetched, not posted to.
_REDIRECTS = frozenset({301, 302, 307, 308})
#: RFC 9110 15.5.9, RFC 8470 5.2, RFC 6585 4: worth trying again.
_TEMPORARY = frozenset({408, 425, 429})
_SECONDS = re.compile(r"[0-9]{1,10}\Z")
_MAX_TEXT = 300


class HTTPSPostClient(Protocol):
    """
    What of an HTTPS client is needed: L{moxtls.https.HTTPSClient}.
    """

    def post(
        self, url: str, headers: Mapping[str, str], body: bytes
    ) -> Deferred[Response | HTTPSFailure]:
        """
        Fires with the answer, or with why there is none.
        """


@implementer(ICourier)
class HTTPSCourier:
    """
    Delivers to URIs.

    Reading of RFC 8460 3, 7: certificates may be ignored.  They aren't: a
    report may hold what only its recipient should know, and a domain whose
    web server is in the same trouble as its mail can name a C{mailto:} too.
    A bad certificate counts as temporary.
    """

    def __init__(self, clock: IReactorTime, client: HTTPSPostClient) -> None:
        self._clock = clock
        self._client = client

    def deliver(
        self, batch: Batch, recorder: IResultRecorder
    ) -> Deferred[tuple[Result, ...]]:
        return Deferred.fromCoroutine(self._deliver(batch, recorder))

    async def _deliver(
        self, batch: Batch, recorder: IResultRecorder
    ) -> tuple[Result, ...]:
        results: list[Result] = []
        for message in batch.parcels:
            await recorder.record(results)
            answer = await self._post(batch.destination, message)
            ending, text = classifyResponse(answer)
            wait = None
            if ending is DeliveryStatus.TEMPORARY and isinstance(answer, Response):
                wait = retryAfter(answer.header("retry-after"), self._clock.seconds())
            results.extend(
                Result(
                    messageID=message.messageID,
                    recipient=recipient,
                    ending=ending,
                    status=_STATUS[ending],
                    text=text,
                    host=urlsplit(batch.destination).hostname or "",
                    retryAfter=wait,
                )
                for recipient in message.recipients
            )
        return tuple(results)

    async def _post(self, uri: str, message: BatchMessage) -> Response | HTTPSFailure:
        headers = {"Content-Type": message.contentType}
        body = message.path.read_bytes()
        for _ in range(MAX_REDIRECTS + 1):
            answer = await self._client.post(uri, headers, body)
            target = redirected(uri, answer)
            if target is None:
                break
            uri = target
        return answer


_STATUS = {
    DeliveryStatus.DELIVERED: "2.0.0",
    DeliveryStatus.TEMPORARY: "4.0.0",
    DeliveryStatus.PERMANENT: "5.0.0",
}


def classifyResponse(answer: Response | HTTPSFailure) -> tuple[DeliveryStatus, str]:
    """
    What an answer means for the report, and words for people.
    """
    if isinstance(answer, HTTPSFailure):
        text = f"{answer.kind.name.lower().replace('_', ' ')}: {answer.reason}"
        gone = answer.kind is HTTPSErrorKind.NO_NAME
        return DeliveryStatus.PERMANENT if gone else DeliveryStatus.TEMPORARY, text[
            :_MAX_TEXT
        ]
    text = f"HTTP status {answer.status}"
    if 200 <= answer.status < 300:
        return DeliveryStatus.DELIVERED, text
    if answer.status >= 500 or answer.status in _TEMPORARY:
        return DeliveryStatus.TEMPORARY, text
    return DeliveryStatus.PERMANENT, text


def redirected(uri: str, answer: Response | HTTPSFailure) -> str | None:
    """
    Where to post instead, if C{answer} says so and it is the same server: a
    report goes to whom the domain named, and nobody else.
    """
    if isinstance(answer, HTTPSFailure) or answer.status not in _REDIRECTS:
        return None
    location = answer.header("location")
    try:
        target = canonicalURI(urljoin(uri, location) if location else "")
    except (InvalidDestination, ValueError):
        return None
    same = urlsplit(target).netloc == urlsplit(uri).netloc
    return target if same and target.startswith("https:") else None


def retryAfter(value: str, now: float) -> int | None:
    """
    The seconds that a C{Retry-After} field (RFC 9110 10.2.3) asks to wait;
    C{None} if it can't be read.
    """
    if _SECONDS.match(value):
        seconds = int(value)
    else:
        try:
            moment = parsedate_to_datetime(value).replace(tzinfo=UTC)
            seconds = round(moment.timestamp() - now)
        except (ValueError, TypeError, OverflowError, IndexError):
            return None
    return int(min(max(seconds, 0), MAX_WAIT))
