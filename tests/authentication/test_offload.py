"""
Tests for L{moxtls.authentication.check} and
L{moxtls.authentication.dkim.verify}, with real processes.
"""

from __future__ import annotations

import pickle
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast
from unittest.mock import patch

from twisted.internet import reactor as installed
from twisted.internet.defer import Deferred, gatherResults, succeed
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase, TestCase

from moxtls.authentication.check import SignatureVerifier
from moxtls.authentication.dkim.sign import Signer, loadKey, sign
from moxtls.authentication.dkim.signature import SignatureClaim
from moxtls.authentication.dkim.verify import (
    DKIMJob,
    DKIMResults,
    signatureClaims,
    verifyAll,
    withKey,
)
from moxtls.authentication.results import AuthResult
from moxtls.dns.types import TXT, Answer, LookupStatus, RRType
from moxtls.domain import Domain
from moxtls.message.header import headerEnd, splitHeader
from moxtls.message.spooled import MAX_IN_MEMORY, SpooledMessage
from moxtls.workers import process
from moxtls.workers.process import (
    HEAD_SIZE,
    MAX_MESSAGE_SIZE,
    FrameReader,
    IWorkerReactor,
    Worker,
    WorkerLost,
    encodeFrame,
    execute,
)
from tests import MAX_WAIT
from tests.configs import rsaKey
from tests.reception.signed import BODY, signer
from tests.workers.calls import die

reactor = cast(IWorkerReactor, installed)

KEYS = {
    "rsa.example": Signer(Domain("rsa.example"), "s", loadKey(rsaKey(2048))),
    "ed25519.example": signer("ed25519.example"),
}


def verification(text: bytes) -> DKIMJob:
    """
    The job of verifying C{text}.
    """
    end = headerEnd(text)
    header, body = text[:end], text[end + len(b"\r\n") :]
    claims = signatureClaims(splitHeader(header))
    checks = tuple(withKey(each, _answer(each)) for each in claims)
    return DKIMJob(header, [body], checks, 1_800_000_000)


def _answer(claim: SignatureClaim) -> Answer:
    record = KEYS[str(claim.domain)].record.encode()
    return Answer(claim.keyName, RRType.TXT, LookupStatus.RECORDS, (TXT(record),))


def _message(body: bytes = BODY) -> bytes:
    header = b"From: x@rsa.example\r\nTo: y@our.example\r\nSubject: hello\r\n"
    return sign(header + b"\r\n" + body, KEYS.values())


class DKIMJobTests(SynchronousTestCase):
    """
    Tests for L{DKIMJob}.
    """

    def test_carried(self) -> None:
        """
        A job pickled for another process has the same result, for keys of both
        algorithms (RFC 6376 3.3, RFC 8463 3), and without a key.
        """
        work = verification(_message())
        gone = replace(work.checks[0], problem="gone")
        work = replace(work, checks=(*work.checks, gone))
        results = work()
        self.assertEqual(pickle.loads(pickle.dumps(work)), work)
        [(isWell, [carried])] = FrameReader().receive(
            execute(encodeFrame((verifyAll, [work]))[HEAD_SIZE:])
        )
        self.assertTrue(isWell)
        self.assertEqual(carried, results)
        good, temporary = AuthResult.PASS, AuthResult.TEMPERROR
        self.assertEqual([each.status for each in results], [good, good, temporary])

    def test_without(self) -> None:
        """
        A job that is never performed leaves all signatures with a temporary error
        (RFC 8601 2.7.1).
        """
        results = verification(_message()).failed("too busy")
        self.assertEqual({str(each.domain) for each in results}, set(KEYS))
        self.assertEqual(
            {(each.status, each.problem) for each in results},
            {(AuthResult.TEMPERROR, "too busy")},
        )

    def test_alone(self) -> None:
        """
        A job that fails doesn't affect others.
        """
        good = verification(_message())
        bad = replace(good, body=cast(Sequence[bytes], [None]))
        results = verifyAll([good, bad, good])
        self.assertEqual([results[0], results[2]], [good()] * 2)
        self.assertIsInstance(results[1], Exception)


class VerifierTests(TestCase):
    """
    Tests for L{SignatureVerifier}.
    """

    timeout = MAX_WAIT

    def setUp(self) -> None:
        self.worker = Worker(reactor, "tests")
        self.inThreads: list[DKIMJob] = []
        self.verifier = SignatureVerifier(self.worker, self.inThread)
        self.addCleanup(self.verifier.stop)

    def inThread(self, work: DKIMJob) -> Deferred[DKIMResults]:
        self.inThreads.append(work)
        return succeed(work())

    async def test_elsewhere(self) -> None:
        """
        A worker process gives the same results as this one.
        """
        good = verification(_message())
        forged = replace(good, body=[b"pay me\r\n"])
        both = [good, forged] * 50
        found = await gatherResults([self.verifier(each) for each in both])
        self.assertEqual(found, [good(), forged()] * 50)
        self.assertEqual(forged()[0].status, AuthResult.FAIL)
        self.assertEqual(self.inThreads, [])

    async def test_large(self) -> None:
        """
        Large messages, and messages in files, are verified in threads.
        """
        small = verification(_message())
        large = replace(small, body=[b"x" * (MAX_MESSAGE_SIZE + 1)])
        spooled = SpooledMessage(Path(self.mktemp()).parent)
        self.addCleanup(spooled.close)
        spooled.write(b"x" * (MAX_IN_MEMORY + 1))
        filed = replace(small, body=spooled.chunks())
        for each in (large, filed):
            self.assertEqual((await self.verifier(each))[0].status, AuthResult.FAIL)
        self.assertEqual(self.inThreads, [large, filed])

    async def test_without(self) -> None:
        """
        Without a worker process, jobs run in threads.
        """
        work = verification(_message())
        command = (sys.executable, "-c", "raise SystemExit(3)")
        with capturedLogs(), patch.object(process, "_COMMAND", command):
            for _ in range(2):
                self.assertEqual(await self.verifier(work), work())
        self.assertEqual(self.inThreads, [work] * 2)

    async def test_lost(self) -> None:
        """
        If the worker process is killed, its job has no result; a new one performs
        later jobs.
        """
        work = verification(_message())
        await self.verifier(work)
        with capturedLogs():
            self.worker.call(die, None).addErrback(lambda _: None)
            with self.assertRaises(WorkerLost):
                await self.verifier(work)
            self.assertEqual(await self.verifier(work), work())
