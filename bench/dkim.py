"""
DKIM signatures verified per second, compared with dkimpy on the same message, key and
record; and the cost of verification in a thread or another process.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any

import dkim
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThreadPool

from bench.comparison import Variant, compare, sideBySide, table
from bench.settings import Effort, IReactor, main
from moxtls.authentication.check import Offload, SignatureVerifier
from moxtls.authentication.dkim.sign import Signer, loadKey, sign
from moxtls.authentication.dkim.verify import (
    DKIMCheck,
    DKIMJob,
    DKIMResults,
    lookUpKeys,
    signatureClaims,
    verify,
)
from moxtls.authentication.results import AuthResult
from moxtls.dns.types import TXT, Answer, LookupQuestion, LookupStatus, runWithAnswers
from moxtls.domain import Domain
from moxtls.message.header import splitHeader
from moxtls.workers.process import Worker

SENDER = Domain("sender.example")
KEY_SIZE = 2048
NOW = 1_795_565_100.0
#: As messages are read from the spool.
CHUNK = 64 * 1024
#: Octets of body, and how many messages dkimpy and we verify in a round.
BODIES = (
    ("2 KB", 2_000, 100, 300),
    ("40 KB", 40_000, 20, 80),
    ("5 MB", 5_000_000, 1, 4),
)
HOPS = 3000
WIDTH = 20

HEADER = (
    b"".join(
        b"Received: from out%d.sender.example (out%d.sender.example [192.0.2.%d])\r\n"
        b"\tby in%d.sender.example with ESMTPS id 20261125000%d;\r\n"
        b"\tWed, 25 Nov 2026 00:05:00 +0000\r\n" % ((number,) * 5)
        for number in range(4)
    )
    + b"From: Sender <sender@sender.example>\r\nTo: You <you@rcpt.example>\r\n"
    b"Subject: A message as many others\r\nDate: Wed, 25 Nov 2026 00:05:00 +0000\r\n"
    b"Message-ID: <1@sender.example>\r\nMIME-Version: 1.0\r\n"
    b"Content-Type: text/plain; charset=utf-8\r\nX-Mailer: none\r\n\r\n"
)
LINES = (
    b"A line of text, which is as long as they are on the average, and has words.\r\n"
    b"    Another one, indented,  with runs of spaces.  And a short one behind it.\r\n"
    b"Bye.\r\n\r\n"
)

Run = Callable[[int], Coroutine[Deferred[Any], Any, None]]


@dataclass(frozen=True, slots=True)
class Sample:
    """
    A signed message, and the record of its key.
    """

    message: bytes
    header: bytes
    body: Sequence[bytes]
    record: bytes

    def checks(self) -> tuple[DKIMCheck, ...]:
        return runWithAnswers(
            lookUpKeys(signatureClaims(splitHeader(self.header))), self._answer
        )

    def verified(self) -> None:
        self.verifiedWith(self.checks())

    def verification(self) -> DKIMJob:
        return DKIMJob(self.header, self.body, self.checks(), NOW)

    def verifiedWith(self, checks: Sequence[DKIMCheck]) -> None:
        _passed(verify(self.header, self.body, checks, NOW))

    def verifiedByOthers(self) -> None:
        if not dkim.verify(self.message, dnsfunc=lambda name, timeout=5: self.record):
            raise AssertionError("dkimpy doesn't verify it")

    def _answer(self, question: LookupQuestion) -> Answer:
        return Answer(
            question.name, question.kind, LookupStatus.RECORDS, (TXT(self.record),)
        )


def _passed(results: DKIMResults) -> None:
    (result,) = results
    if result.status is not AuthResult.PASS:
        raise AssertionError(result)


def _signers() -> list[Signer]:
    return [
        Signer(SENDER, "bench", loadKey(key.private_bytes(*_FORMAT)))
        for key in (generate_private_key(65537, KEY_SIZE), Ed25519PrivateKey.generate())
    ]


_FORMAT = (Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _sample(signer: Signer, size: int) -> Sample:
    body = (LINES * (size // len(LINES) + 1))[: size - 2] + b"\r\n"
    message = sign(HEADER + body, [signer])
    header = message[: message.index(b"\r\n\r\n") + 2]
    chunks = [body[start : start + CHUNK] for start in range(0, len(body), CHUNK)]
    return Sample(message, header, chunks, signer.record.encode("ascii"))


def _repeated(once: Callable[[], None]) -> Run:
    async def run(count: int) -> None:
        for _ in range(count):
            once()

    return run


def _elsewhere(offload: Offload, work: DKIMJob) -> Run:
    async def once() -> None:
        _passed(await offload(work))

    return lambda count: sideBySide(count, WIDTH, once)


async def benchmark(reactor: IReactor, effort: Effort) -> None:
    signers = _signers()
    for name, size, theirs, ours in BODIES:
        for signer in signers:
            sample = _sample(signer, size)
            variants = [
                Variant(
                    "dkimpy", _repeated(sample.verifiedByOthers), effort.of(theirs)
                ),
                Variant("moxtls", _repeated(sample.verified), effort.of(ours)),
            ]
            title = f"{name}, {signer.key.algorithm}"
            comparison = await compare(
                title, "messages", variants, ("dkimpy",), effort.rounds
            )
            print(table(comparison))
    for name, size, _, _ in BODIES[:2]:
        await _hops(reactor, effort, name, _sample(signers[0], size))


async def _hops(reactor: IReactor, effort: Effort, name: str, sample: Sample) -> None:
    """
    The cost in the reactor's process of offloading verification, for messages so
    small that it matters.
    """

    def threads(call: DKIMJob) -> Deferred[DKIMResults]:
        return deferToThreadPool(reactor, reactor.getThreadPool(), call)

    work = sample.verification()
    verifier = SignatureVerifier(Worker(reactor, "signatures"), threads)
    count = effort.of(HOPS)
    variants = [
        Variant("at once", _repeated(lambda: _passed(work())), count),
        Variant("in threads", _elsewhere(threads, work), count),
        Variant("in a process", _elsewhere(verifier, work), count),
    ]
    title = f"{name}, {WIDTH} at a time"
    comparison = await compare(
        title, "messages", variants, (variants[0].name,), effort.rounds
    )
    await verifier.stop()
    print(table(comparison))


if __name__ == "__main__":
    main(benchmark)
