# -*- test-case-name: tests.reporting.test_httpsupload -*-
"""
Posts reports to HTTPS destinations (RFC 8460 5.4).
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
from moxtls.reporting.destinations import InvalidDestination, canonicalURI

#: Maximum number of redirects per attempt.
MAX_REDIRECTS = 3
#: RFC 8460 5.5: redelivery is attempted for up to a day.
MAX_WAIT = DAY

#: RFC 9110 15.4.2, 15.4.3, 15.4.8, 15.4.9.  Not 303: its target is for GET.
_REDIRECTS = frozenset({301, 302, 307, 308})
#: RFC 9110 15.5.9, RFC 8470 5.2, RFC 6585 4: worth trying again.
_TEMPORARY = frozenset({408, 425, 429})
_SECONDS = re.compile(r"[0-9]{1,10}\Z")
_MAX_TEXT = 300

_STATUS = {
    DeliveryStatus.DELIVERED: "2.0.0",
    DeliveryStatus.TEMPORARY: "4.0.0",
    DeliveryStatus.PERMANENT: "5.0.0",
}


class HTTPSPostClient(Protocol):
    """
    The used part of L{moxtls.https.HTTPSClient}.
    """

    def post(
        self, url: str, headers: Mapping[str, str], body: bytes
    ) -> Deferred[Response | HTTPSFailure]:
        """
        Fires with the response, or with the reason why there is none.
        """


@implementer(ICourier)
class HTTPSCourier:
    """
    Uploads reports to C{https:} URIs.

    Reading of RFC 8460 3, 7: certificate errors may be ignored.  We don't ignore
    them: a report may be confidential, and a domain whose web server has the same
    certificate problem as its mail servers can publish a C{mailto:} URI too.  A
    certificate error is temporary.
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
        for message in batch.messages:
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


def classifyResponse(answer: Response | HTTPSFailure) -> tuple[DeliveryStatus, str]:
    """
    The delivery status of a report after a response, and text for operators.
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
    The target of a redirect; C{None} if C{answer} is no redirect, or one to another
    server: a report only goes to the server that the domain has published.
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
    The seconds of a C{Retry-After} field (RFC 9110 10.2.3), at most L{MAX_WAIT};
    C{None} if it is invalid.
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
