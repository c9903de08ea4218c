"""
Tests for L{moxtls.dns.validation}.
"""

from __future__ import annotations

from dataclasses import replace

from twisted.internet.defer import Deferred, succeed
from twisted.trial.unittest import SynchronousTestCase

from moxtls.dns.transport import NoReply
from moxtls.dns.types import Answer, LookupStatus, NameRecord, NameServer, RRType
from moxtls.dns.validation import Diagnosis, ServerReport, ServerStatus, diagnose
from moxtls.dns.wire import Question, failedAnswer

LOCAL = NameServer("127.0.0.1")
OTHER = NameServer("192.0.2.53")


def nameServer(asked: Question, authentic: bool) -> Answer:
    return Answer(
        asked.name,
        asked.kind,
        LookupStatus.RECORDS,
        (NameRecord("ns.example"),),
        authentic=authentic,
        endAuthentic=authentic,
    )


class DiagnoseTests(SynchronousTestCase):
    """
    Tests for L{diagnose}.
    """

    def diagnose(
        self, replies: dict[tuple[str, RRType], bool | str], *servers: NameServer
    ) -> Diagnosis:
        """
        @param replies: By server and kind: whether the answer is authentic, or
            why there is none.
        """

        def ask(server: NameServer, asked: Question) -> Deferred[Answer | NoReply]:
            self.assertEqual(asked.name, "lab.example")
            reply = replies[server.host, asked.kind]
            if isinstance(reply, str):
                refused: Answer | NoReply = NoReply(reply)
                return succeed(
                    failedAnswer(asked, reply) if reply.isupper() else refused
                )
            authentic = reply and server.trustsAD
            return succeed(nameServer(asked, authentic))

        probed = Deferred.fromCoroutine(diagnose(ask, servers, "lab.example."))
        return self.successResultOf(probed)

    def test_statuses(self) -> None:
        """
        Authentic answers show validation, if not trust; others show that there is
        none; failures show neither (RFC 4035 3.2.3).
        """
        for soa, ns, server, status in (
            (True, False, LOCAL, ServerStatus.VALIDATING),
            ("lost", True, LOCAL, ServerStatus.VALIDATING),
            (False, False, LOCAL, ServerStatus.NOT_VALIDATING),
            (False, "lost", LOCAL, ServerStatus.NOT_VALIDATING),
            (True, True, OTHER, ServerStatus.NOT_TRUSTED),
            (True, True, replace(OTHER, trusted=True), ServerStatus.VALIDATING),
            ("lost", "lost", LOCAL, ServerStatus.NOT_ANSWERING),
            ("SERVFAIL", "REFUSED", LOCAL, ServerStatus.NOT_ANSWERING),
        ):
            replies = {(server.host, RRType.SOA): soa, (server.host, RRType.NS): ns}
            diagnosis = self.diagnose(replies, server)
            self.assertEqual([each.status for each in diagnosis.reports], [status])
            self.assertEqual(diagnosis.validating, status is ServerStatus.VALIDATING)

    def test_explanation(self) -> None:
        """
        Each server has one line with its status.
        """
        diagnosis = self.diagnose(
            {
                (LOCAL.host, RRType.SOA): "lost",
                (LOCAL.host, RRType.NS): "REFUSED",
                (OTHER.host, RRType.SOA): True,
            },
            LOCAL,
            OTHER,
        )
        self.assertEqual(
            diagnosis.explanation,
            "127.0.0.1 doesn't answer (REFUSED); "
            "192.0.2.53 says that it validates DNSSEC, but isn't trusted",
        )


class DiagnosisTests(SynchronousTestCase):
    """
    Tests for L{Diagnosis}.
    """

    def describe(self, *statuses: ServerStatus) -> str:
        return Diagnosis(
            tuple(ServerReport(LOCAL, status) for status in statuses)
        ).describe()

    def test_advice(self) -> None:
        """
        The operator is advised of the consequences and remedies.
        """
        for status, meaning, advice in (
            (ServerStatus.NOT_VALIDATING, "DANE IS OFF", "unbound"),
            (ServerStatus.NOT_TRUSTED, "DANE IS OFF", "declare it trusted"),
            (ServerStatus.NOT_ANSWERING, "NO DNS SERVER ANSWERS", "Start it"),
        ):
            text = self.describe(status)
            self.assertIn(meaning, text)
            self.assertIn(advice, text)
            self.assertIn(status.value, text)
            self.assertNotIn("\n", text)

    def test_fine(self) -> None:
        """
        One validating server is enough.
        """
        text = self.describe(ServerStatus.NOT_ANSWERING, ServerStatus.VALIDATING)
        self.assertNotIn("DANE", text)

    def test_none(self) -> None:
        """
        Without servers, there is no validation.
        """
        self.assertIn("no DNS server is configured", self.describe())
