"""
Tests for L{moxtls.received.analysis.correlation}.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from moxtls.dates import DAY, HOUR
from moxtls.received.analysis.answers import failureReasons
from moxtls.received.analysis.correlation import (
    MAX_EVENTS,
    correlate,
    listenerKey,
    localListener,
)
from moxtls.received.types import CertificateSeen, HandshakeFailures, TLSFailureGroup

#: 20 and 27 Nov 2026.
FIRST, LAST = 20777, 20784
HOSTS = frozenset({"mx.example.org", "192.0.2.1"})
EXPIRED = "tls-remote-alert-45-expired-certificate"


def events(
    resultType: str,
    *certificates: CertificateSeen,
    host: str = "mx.example.org",
    code: str = "",
    handshakes: tuple[HandshakeFailures, ...] = (),
) -> tuple[str, ...]:
    """
    The events beside failures from C{FIRST} to C{LAST}.
    """
    group = TLSFailureGroup(
        "sts", resultType, code, host, "", 9, FIRST, LAST, ("google.com",), (1,)
    )
    [reason] = failureReasons([group])
    return correlate(reason, handshakes, certificates, HOSTS)


def seen(
    since: float, until: float, *names: str, listener: str = "mx"
) -> CertificateSeen:
    """
    A certificate that is in use since a day, and valid until another one.
    """
    return CertificateSeen(
        listener,
        since * DAY,
        f"{since}",
        names or ("mx.example.org",),
        0,
        until * DAY,
    )


def failed(day: float, reason: str = EXPIRED, count: int = 31) -> HandshakeFailures:
    """
    Failed handshakes on a listener.
    """
    hour = int(day * DAY) // HOUR * HOUR
    return HandshakeFailures("mx", hour, reason, count)


class CorrelateTests(SynchronousTestCase):
    """
    Tests for L{correlate}.
    """

    def test_expired(self) -> None:
        """
        A certificate that was in use after it expired, and handshakes that clients
        aborted for that reason.
        """
        old, new = seen(FIRST - 90, FIRST), seen(LAST + 0.5, LAST + 90)
        self.assertEqual(
            events("certificate-expired", old, new, handshakes=(failed(FIRST + 1),)),
            (
                "the certificate of listener mx that expired on 20 Nov 2026 was in use "
                "until 27 Nov 2026",
                f"31 handshakes failed on listener mx: {EXPIRED}",
            ),
        )
        self.assertEqual(
            events("certificate-expired", old),
            (
                "the certificate of listener mx that expired on 20 Nov 2026 is still "
                "in use",
            ),
        )
        # Replaced in time, or valid for longer.
        inTime = (old, seen(FIRST - 1, LAST + 90))
        self.assertEqual(events("certificate-expired", *inTime), ())
        self.assertEqual(events("certificate-expired", seen(FIRST, LAST + 90)), ())

    def test_names(self) -> None:
        """
        A certificate for other names only (RFC 9525 6.3).
        """
        kind = "certificate-host-mismatch"
        [event] = events(kind, seen(FIRST - 9, LAST + 90, "mail.example.org"))
        self.assertEqual(
            event, "none of the certificates in use was for mx.example.org"
        )
        for name in ("mx.example.org", "*.example.org"):
            self.assertEqual(events(kind, seen(FIRST - 9, LAST + 90, name)), (), name)
        others = (
            seen(FIRST - 9, LAST + 90, "mail.example.org"),
            seen(FIRST - 9, LAST + 90, listener="other"),
        )
        self.assertEqual(events(kind, *others), ())
        self.assertEqual(
            events(kind, seen(FIRST - 9, LAST + 90, "a.example"), host="192.0.2.1"), ()
        )

    def test_replaced(self) -> None:
        """
        A certificate that was replaced on the day before the first failure, or on it.
        """
        changed = "listener mx began to use another certificate on {} Nov 2026"
        for since, day in ((FIRST, 20), (FIRST - 0.5, 19)):
            certificates = seen(FIRST - 99, LAST + 9), seen(since, LAST + 90)
            found = events("validation-failure", *certificates, code="dane-no-match")
            self.assertEqual(found, (changed.format(day),))
        for since in (FIRST - 2, FIRST + 2):
            certificates = seen(FIRST - 99, LAST + 9), seen(since, LAST + 90)
            found = events("validation-failure", *certificates, code="dane-no-match")
            self.assertEqual(found, ())

    def test_handshakes(self) -> None:
        """
        Only handshakes that failed for such a reason, in these days, are counted.
        """
        handshakes = (
            failed(FIRST - 0.1),
            failed(FIRST),
            failed(LAST + 0.9),
            failed(LAST + 1),
            failed(FIRST, "tls-record-header-error"),
            # A client that doesn't tell what is wrong.
            failed(FIRST, "tls-remote-alert-42-bad-certificate", 5),
        )
        found = events("certificate-expired", handshakes=handshakes)
        self.assertEqual(
            found,
            (
                f"62 handshakes failed on listener mx: {EXPIRED}",
                "5 handshakes failed on listener mx: "
                "tls-remote-alert-42-bad-certificate",
            ),
        )

    def test_nodes(self) -> None:
        """
        Nodes share the history; listeners that were removed don't count.
        """
        for key, listener in [
            ("n/mx", "mx"),
            ("n/mx/a.example", "mx/a.example"),
            ("other/mx", None),
            ("n/old", None),
            ("mx", None),
        ]:
            self.assertEqual(localListener(key, "n", {"mx"}), listener, key)
        self.assertEqual(localListener(listenerKey("n", "mx"), "n", {"mx"}), "mx")

    def test_removed(self) -> None:
        """
        A certificate for SNI may have been removed from the configuration; it is known
        to have been in use only if another one replaced it.
        """
        old = seen(FIRST - 90, FIRST, listener="mx/a.example")
        new = seen(LAST + 0.5, LAST + 90, listener="mx/a.example")
        self.assertEqual(events("certificate-expired", old), ())
        self.assertEqual(len(events("certificate-expired", old, new)), 1)

    def test_elsewhere(self) -> None:
        """
        Failures at another host, and those of the policy, have other causes.
        """
        old = seen(FIRST - 90, FIRST)
        self.assertEqual(events("certificate-expired", old, host="mx2.example.net"), ())
        self.assertEqual(events("sts-webpki-invalid", old), ())
        # Some reporters name no host.
        self.assertEqual(len(events("certificate-expired", old, host="")), 1)

    def test_bounded(self) -> None:
        """
        There are few sentences, however many listeners there are.
        """
        many = [seen(FIRST - 9, FIRST, listener=f"l{n}") for n in range(300)]
        self.assertEqual(len(events("certificate-expired", *many)), MAX_EVENTS)
