"""
Tests for L{moxtls.authentication.check}.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from moxtls.authentication.check import (
    CACHE_TTL,
    MAX_CACHED,
    MAX_WAIT,
    MessageAuthentication,
    MessageAuthenticator,
    authenticate,
)
from moxtls.authentication.deadline import OVERDUE
from moxtls.authentication.outcome import AuthenticationOutcome
from moxtls.authentication.results import AuthResult, DKIMResult
from moxtls.dmarc.discovery import PublicSuffixes
from moxtls.dmarc.types import DMARCPolicy
from moxtls.dmarc.verdict import LocalPolicy
from moxtls.dns.resolver import MAX_QUERIES_PER_CLIENT
from moxtls.dns.types import RRType
from moxtls.domain import Domain
from moxtls.message.addresses import FromField
from moxtls.message.header import ClientInfo, headerEnd, splitHeader
from tests.reception.signed import (
    BODY,
    HOST,
    OTHER_CLIENT,
    RELAY,
    message,
    resolver,
    signer,
)

A = Domain("a.example")
PASS, FAIL, NONE = AuthResult.PASS, AuthResult.FAIL, AuthResult.NONE
TEMPERROR, PERMERROR = AuthResult.TEMPERROR, AuthResult.PERMERROR
LARGE = b"x" * 70 + b"\r\n"

VerificationJob = Callable[[], tuple[DKIMResult, ...]]


class CheckCase(SynchronousTestCase):
    """
    Messages that are checked.
    """

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1_800_000_000)
        self.dns = resolver()
        self.offloaded: list[VerificationJob] = []
        self.checks = MessageAuthenticator(
            self.clock,
            self.dns,
            LocalPolicy(),
            "mx.our.example",
            self.offload,
            lambda: 0.5,
        )

    def offload(self, job: VerificationJob) -> Deferred[tuple[DKIMResult, ...]]:
        self.offloaded.append(job)
        return succeed(job())

    def outcome(
        self, text: bytes, client: ClientInfo = HOST, sender: str = "x@a.example"
    ) -> AuthenticationOutcome:
        """
        The outcome for a complete message.
        """
        return self.successResultOf(authenticate(self.checks, client, sender, [text]))

    def coming(self, text: bytes, sender: str = "x@a.example") -> MessageAuthentication:
        """
        A message whose header has arrived.
        """
        authentication = self.checks.startMessage(HOST, sender)
        authentication.begin(splitHeader(text[: headerEnd(text)]))
        return authentication

    def finished(
        self, authentication: MessageAuthentication, body: bytes = BODY
    ) -> Deferred[AuthenticationOutcome]:
        """
        The outcome of the complete message.
        """
        return Deferred.fromCoroutine(authentication.finish([body]))


class AuthenticateTests(CheckCase):
    """
    Tests for L{authenticate}.
    """

    def test_all(self) -> None:
        """
        All methods have their results, and the verdict follows from them.
        """
        found = self.outcome(message("X <x@A.example>", "a.example", "relay.example"))
        authentication = found.authentication
        self.assertEqual(authentication.address, HOST.address)
        self.assertEqual(authentication.iprev.name, "mail.a.example")
        self.assertEqual(authentication.helo.status, NONE)
        self.assertEqual(authentication.spf.status, PASS)
        self.assertEqual([each.status for each in authentication.dkim], [PASS, PASS])
        self.assertEqual(found.verdict.status, PASS)
        self.assertEqual(found.verdict.alignedDKIM, (0,))
        self.assertTrue(found.verdict.spfAligned)
        self.assertEqual(found.froms, (A,))

    def test_spoofed(self) -> None:
        """
        Results for other domains don't count for the author's.
        """
        found = self.outcome(
            message("x@a.example", "stranger.example"),
            OTHER_CLIENT,
            "x@stranger.example",
        )
        self.assertEqual(found.authentication.spf.status, PASS)
        self.assertEqual(found.verdict.status, FAIL)
        self.assertEqual(found.verdict.disposition, DMARCPolicy.REJECT)

    def test_bounce(self) -> None:
        """
        With an empty MAIL FROM, HELO takes its place (RFC 7208 2.4), and is looked up
        once.
        """
        self.outcome(message("x@a.example"), RELAY, "")
        self.assertEqual(self.dns.asked.count(("relay.example", RRType.TXT)), 1)

    def test_noAuthor(self) -> None:
        """
        Without exactly one author domain no DMARC lookups are made (RFC 9989 11.5),
        and all others are.
        """
        for author, state in (
            ("x@a.example, y@q.example", FromField.READ),
            ("nobody", FromField.UNREADABLE),
        ):
            found = self.outcome(message(author, "a.example"))
            self.assertEqual(found.authors.state, state)
            self.assertIsNone(found.verdict.discovery)
            self.assertEqual(found.authentication.dkim[0].status, PASS)
        asked = {name for name, _ in self.dns.asked}
        self.assertNotIn("_dmarc.a.example", asked)

    def test_noHeader(self) -> None:
        """
        Any bytes come to something.
        """
        for text in (b"", b"\r\n", b"\r\n\r\n", b"x", b"From: x@a.example\r\n"):
            found = self.outcome(text)
            self.assertEqual(found.authentication.dkim, ())

    def test_notes(self) -> None:
        """
        The result has each step: what passed, what was published, what is aligned.
        """
        found = self.outcome(message("x@a.example", "a.example", "relay.example"))
        notes = "\n".join(found.notes)
        for each in (
            "iprev: pass: 192.0.2.1 is mail.a.example",
            "SPF (mfrom): pass: a.example by ip4:192.0.2.1",
            "DKIM: pass: d=relay.example s=s a=ed25519-sha256, 256-bit key",
            "From: a.example",
            "DMARC: _dmarc.a.example: v=DMARC1; p=reject",
            "DMARC: DKIM passes for a.example, aligned",
            "DMARC: SPF passes for a.example, aligned",
            "DMARC: pass: policy reject, disposition none",
        ):
            self.assertIn(each, notes)
        found = self.outcome(message("x, y@a-"), OTHER_CLIENT, "")
        notes = "\n".join(found.notes)
        self.assertIn("DKIM: none", notes)
        self.assertIn(f"From: {FromField.UNREADABLE}", notes)

    def test_notesOnFailure(self) -> None:
        """
        The notes explain failures, too.
        """
        self.dns.put("_dmarc.a.example", RRType.TXT, "v=DMARC1; p=reject; t=y")
        text = message("x@a.example", "a.example") + b"more\r\n"
        notes = "\n".join(self.outcome(text, OTHER_CLIENT).notes)
        self.assertIn("DKIM: fail: d=a.example s=s", notes)
        self.assertIn("the body was changed", notes)
        self.assertIn("DMARC: no aligned identifier passes", notes)
        self.assertIn("DMARC: override policy_test_mode", notes)


class TimeTests(CheckCase):
    """
    The times and timeouts of lookups.
    """

    def test_early(self) -> None:
        """
        SPF and the client's name are looked up at MAIL, and keys and the policy
        during the body; at the end all answers are there.
        """
        self.checks.prefetch(HOST, "x@a.example")
        self.assertIn(("a.example", RRType.TXT), self.dns.asked)
        self.assertIn(("1.2.0.192.in-addr.arpa", RRType.PTR), self.dns.asked)
        authentication = self.coming(message("x@a.example", "a.example"))
        self.assertIn((signer("a.example").recordName, RRType.TXT), self.dns.asked)
        self.assertIn(("_dmarc.a.example", RRType.TXT), self.dns.asked)
        count = len(self.dns.asked)
        found = self.successResultOf(self.finished(authentication))
        self.assertEqual(found.verdict.status, PASS)
        self.assertEqual(len(self.dns.asked), count)

    def test_overdue(self) -> None:
        """
        Lookups that take too long are temporary errors, and the client waits once for
        all of them.
        """
        hanging = [
            ("a.example", RRType.TXT),
            ("mail.a.example", RRType.TXT),
            ("1.2.0.192.in-addr.arpa", RRType.PTR),
            (signer("a.example").recordName, RRType.TXT),
            ("_dmarc.a.example", RRType.TXT),
        ]
        for those in (hanging, *([each] for each in hanging)):
            for name, kind in those:
                self.dns.hang(name, kind)
            authentication = self.coming(message("x@a.example", "a.example"))
            waiting = self.finished(authentication)
            self.clock.advance(MAX_WAIT - 1)
            self.assertNoResult(waiting)
            self.clock.advance(1)
            found = self.successResultOf(waiting)
            self.clock.advance(CACHE_TTL)
            results = found.authentication
            problems = [
                results.spf.problem,
                results.helo.problem,
                results.iprev.problem,
                *(each.problem for each in results.dkim),
                found.verdict.problem,
            ].count(OVERDUE)
            self.assertGreaterEqual(problems, len(those), those)
            self.assertEqual(found.verdict.disposition, DMARCPolicy.NONE)
            self.assertEqual(self.clock.getDelayedCalls(), [])
            for name, kind in those:
                self.dns.release(name, kind)

    def test_late(self) -> None:
        """
        An answer still pending at the end is waited for.
        """
        self.dns.hang("_dmarc.a.example", RRType.TXT)
        waiting = self.finished(self.coming(message("x@a.example")))
        self.clock.advance(MAX_WAIT - 1)
        self.dns.release("_dmarc.a.example", RRType.TXT)
        self.assertEqual(self.successResultOf(waiting).verdict.status, PASS)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_keysApart(self) -> None:
        """
        A key that is never answered doesn't affect other signatures: else adding a
        signature to a forgery would suspend the author's policy.
        """
        text = message("x@a.example", "a.example", "stranger.example")
        forged = text.replace(b"Subject: hello", b"Subject: pay me")
        self.dns.hang(signer("stranger.example").recordName, RRType.TXT)
        for large in (b"", LARGE * 1000):
            authentication = self.checks.startMessage(OTHER_CLIENT, "x@nobody.example")
            end = headerEnd(forged)
            authentication.begin(splitHeader(forged[:end]))
            body = forged[end + 2 :] + large
            waiting = self.finished(authentication, body)
            self.clock.advance(MAX_WAIT)
            found = self.successResultOf(waiting)
            statuses = [each.status for each in found.authentication.dkim]
            self.assertCountEqual(statuses, [TEMPERROR, FAIL])
            self.assertEqual(found.verdict.disposition, DMARCPolicy.REJECT)

    def test_verificationJob(self) -> None:
        """
        The time of verification doesn't suspend a policy, as any client can keep a
        host busy.
        """
        job: Deferred[tuple[DKIMResult, ...]] = Deferred()
        self.checks.offload = lambda work: job.addCallback(lambda _: work())
        text = message("x@a.example", "a.example", body=LARGE * 1000)
        forged = text.replace(b"Subject: hello", b"Subject: pay me")
        waiting = authenticate(self.checks, OTHER_CLIENT, "x@nobody.example", [forged])
        self.clock.advance(10 * MAX_WAIT)
        self.assertNoResult(waiting)
        job.callback(())
        found = self.successResultOf(waiting)
        self.assertEqual(found.authentication.dkim[0].status, FAIL)
        self.assertEqual(found.verdict.disposition, DMARCPolicy.REJECT)

    def test_alignment(self) -> None:
        """
        Lookups for alignment have a timeout, too; without them a message isn't
        refused.
        """
        self.dns.hang("_dmarc.sub.a.example", RRType.TXT)
        text = message("x@a.example", "sub.a.example")
        self.dns.put(
            signer("sub.a.example").recordName, RRType.TXT, signer("a.example").record
        )
        authentication = self.checks.startMessage(OTHER_CLIENT, "x@stranger.example")
        end = headerEnd(text)
        authentication.begin(splitHeader(text[:end]))
        waiting = self.finished(authentication)
        self.clock.advance(MAX_WAIT)
        verdict = self.successResultOf(waiting).verdict
        self.assertEqual(verdict.status, TEMPERROR)
        self.assertEqual(verdict.disposition, DMARCPolicy.NONE)

    def test_cancelled(self) -> None:
        """
        Lookups are cancelled when the client disconnects.
        """
        for name, kind in (
            ("a.example", RRType.TXT),
            ("1.2.0.192.in-addr.arpa", RRType.PTR),
            ("_dmarc.a.example", RRType.TXT),
            (signer("a.example").recordName, RRType.TXT),
        ):
            self.dns.hang(name, kind)
        cancelled = self.coming(message("x@a.example", "a.example"))
        cancelled.cancel()
        self.assertEqual(sum(map(len, self.dns._hanging.values())), 0)

    def test_shared(self) -> None:
        """
        Messages of one client share lookups; the end of one doesn't affect the
        others.
        """
        self.dns.hang("a.example", RRType.TXT)
        text = message("x@a.example")
        first, second = self.coming(text), self.coming(text)
        first.cancel()
        waiting = self.finished(second)
        self.dns.release("a.example", RRType.TXT)
        found = self.successResultOf(waiting)
        self.assertEqual(found.authentication.spf.status, PASS)


class MemoryTests(CheckCase):
    """
    The caches of results for clients.
    """

    def asked(self, sender: str = "x@a.example") -> int:
        """
        The number of questions.
        """
        before = len(self.dns.asked)
        self.checks.prefetch(HOST, sender)
        return len(self.dns.asked) - before

    def test_remembered(self) -> None:
        """
        For some time a client isn't looked up again, for the same sender.
        """
        self.assertGreater(self.asked(), 0)
        self.assertEqual(self.asked(), 0)
        self.assertGreater(self.asked("x@q.example"), 0)
        self.clock.advance(CACHE_TTL + 1)
        self.assertGreater(self.asked(), 0)

    def test_failed(self) -> None:
        """
        Failed lookups are tried again.
        """
        self.dns.fail("a.example", RRType.TXT)
        self.asked()
        self.dns.put("a.example", RRType.TXT, "v=spf1 -all")
        self.assertGreater(self.asked(), 0)
        self.assertEqual(self.asked(), 0)

    def test_policy(self) -> None:
        """
        The policy of an author domain is cached if it is certain.
        """

        def status() -> AuthResult:
            return self.outcome(message("x@a.example"), OTHER_CLIENT).verdict.status

        self.dns.fail("_dmarc.a.example", RRType.TXT)
        self.assertEqual(status(), TEMPERROR)
        self.dns.put("_dmarc.a.example", RRType.TXT, "v=DMARC1; p=none")
        self.assertEqual(status(), FAIL)
        self.dns.remove("_dmarc.a.example", RRType.TXT)
        self.assertEqual(status(), FAIL)
        self.clock.advance(CACHE_TTL + 1)
        self.assertEqual(status(), NONE)

    def test_chance(self) -> None:
        """
        C{pct} (RFC 7489 6.6.4) is drawn for each message, and only where there
        is one.
        """
        self.checks.localPolicy = LocalPolicy(PublicSuffixes(lambda: lambda name: name))
        drawn = []

        def chance() -> float:
            drawn.append(0.4)
            return drawn[-1]

        self.checks.chance = chance
        for record, count, disposition in (
            ("v=DMARC1; p=quarantine; pct=30", 1, DMARCPolicy.NONE),
            ("v=DMARC1; p=quarantine; pct=50", 2, DMARCPolicy.QUARANTINE),
            ("v=DMARC1; p=quarantine", 2, DMARCPolicy.QUARANTINE),
        ):
            self.clock.advance(CACHE_TTL + 1)
            self.dns.put("_dmarc.a.example", RRType.TXT, record)
            found = self.outcome(message("x@a.example"), OTHER_CLIENT)
            self.assertEqual(found.verdict.disposition, disposition)
            self.assertEqual(len(drawn), count)

    def test_bounded(self) -> None:
        """
        The number of cached lookups is limited.
        """
        for number in range(MAX_CACHED + 1):
            self.checks.prefetch(OTHER_CLIENT, f"{number}@x.example")
        self.assertEqual(len(self.checks._connections), MAX_CACHED)


class LookupLimitTests(CheckCase):
    """
    Limits on the lookups that a client can cause.
    """

    def hanging(self, client: ClientInfo, number: int) -> None:
        """
        MAIL with a sender whose domain never answers.
        """
        self.dns.hang(f"{number}.slow.example", RRType.TXT)
        self.checks.prefetch(client, f"x@{number}.slow.example")

    def test_share(self) -> None:
        """
        A client with many unanswered lookups doesn't delay those for other clients.
        """
        for number in range(MAX_QUERIES_PER_CLIENT + 5):
            self.hanging(OTHER_CLIENT, number)
        asked = [name for name, _ in self.dns.asked if name.endswith("slow.example")]
        self.assertEqual(len(asked), MAX_QUERIES_PER_CLIENT)
        self.assertEqual(self.outcome(message("x@a.example")).verdict.status, PASS)

    def test_forgotten(self) -> None:
        """
        Lookups for transactions that end after MAIL are cancelled, except for the
        last few.
        """
        for number in range(MAX_CACHED + 5):
            host = f"203.0.{number % 100}.{number // 100}"
            self.hanging(ClientInfo(host, "stranger.example"), number)
        waiting = sum(map(len, self.checks._fairResolver._waiting.values()))
        # Each has SPF looked up twice, and a name.
        running = self.checks._fairResolver._total
        self.assertLessEqual(waiting + running, 3 * MAX_CACHED)

    def test_overdue(self) -> None:
        """
        Lookups that time out are marked as overdue.
        """
        found = self.outcome(message("x@a.example"))
        self.assertFalse(found.isOverdue)
        self.dns.hang("_dmarc.a.example", RRType.TXT)
        self.clock.advance(CACHE_TTL + 1)
        waiting = authenticate(self.checks, HOST, "", [message("x@a.example")])
        self.clock.advance(MAX_WAIT)
        self.assertTrue(self.successResultOf(waiting).isOverdue)

    def test_overdueOnlyLooking(self) -> None:
        """
        Without enforcement nothing is overdue.
        """
        self.checks.localPolicy = LocalPolicy(enforcement=DMARCPolicy.NONE)
        self.dns.hang("_dmarc.a.example", RRType.TXT)
        waiting = authenticate(self.checks, HOST, "", [message("x@a.example")])
        self.clock.advance(MAX_WAIT)
        self.assertFalse(self.successResultOf(waiting).isOverdue)

    def test_questions(self) -> None:
        """
        Any message causes a few hundred lookups at most, not thousands (RFC 7208
        4.6.4, 11.1).
        """
        exchanges = [f"{number} h%d-{number}.victim.example" for number in range(10)]
        terms = " ".join(f"mx:m{number}.bad.example" for number in range(10))
        self.dns.put("bad.example", RRType.TXT, f"v=spf1 {terms} -all")
        self.dns.put("helo.bad.example", RRType.TXT, f"v=spf1 {terms} -all")
        for number in range(10):
            hosts = [each % number for each in exchanges]
            self.dns.put(f"m{number}.bad.example", RRType.MX, *hosts)
            self.dns.put(f"h{number}-0.victim.example", RRType.A, "192.0.2.9")
        deep = ".".join("abcdefghijkl")
        signed = [f"{number}.{deep}.bad.example" for number in range(100)]
        self.dns.put("_dmarc.bad.example", RRType.TXT, "v=DMARC1; p=none")
        for each in signed:
            self.dns.put(
                signer(each).recordName, RRType.TXT, signer("a.example").record
            )
        text = message(f"x@z.{deep}.bad.example", *signed)
        client = ClientInfo("203.0.113.1", "helo.bad.example")
        self.outcome(text, client, "x@bad.example")
        self.assertLess(len(self.dns.asked), 400)


class VerifyTests(CheckCase):
    """
    Verification is passed to an offload function.
    """

    def test_offloaded(self) -> None:
        """
        All signatures of a message are verified together, where it doesn't hold
        up others.
        """
        for signers in (("a.example",), ("a.example", "q.example", "relay.example")):
            self.offloaded.clear()
            found = self.outcome(message("x@a.example", *signers))
            self.assertEqual(len(self.offloaded), 1)
            results = [each.status for each in found.authentication.dkim]
            self.assertEqual(results, [PASS] * len(signers))

    def test_nothing(self) -> None:
        """
        Without a signature or key record nothing is passed to the offload function.
        """
        self.dns.remove(signer("q.example").recordName, RRType.TXT)
        for signers in ((), ("q.example",)):
            found = self.outcome(message("x@a.example", *signers))
            self.assertEqual(self.offloaded, [])
            results = [each.status for each in found.authentication.dkim]
            self.assertEqual(results, [PERMERROR] * len(signers))

    def test_broken(self) -> None:
        """
        An internal error is logged and becomes a temporary error, without a decision:
        the message can be verified later.
        """
        self.checks.offload = lambda job: fail(OSError("no thread"))
        body = LARGE * 1000
        found = self.outcome(message("x@a.example", "a.example", body=body))
        self.assertEqual(found.authentication.dkim[0].status, TEMPERROR)
        self.assertTrue(found.isOverdue)
        self.assertEqual(len(self.flushLoggedErrors(OSError)), 1)
