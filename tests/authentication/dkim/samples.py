"""
Signed messages and the key records for them.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Iterator

import dkim

from moxtls.authentication.dkim.sign import Signer
from moxtls.authentication.dkim.verify import lookUpKeys, signatureClaims, verify
from moxtls.authentication.results import AuthResult, DKIMResult
from moxtls.dns.types import TXT, Answer, LookupQuestion, LookupStatus, runWithAnswers
from moxtls.message.header import splitHeader
from tests.reporting.support import ED25519, RSA, RSA_PEM

#: In 2096: dkimpy can't be told when it signs, and that mustn't be later.
NOW = 4_000_000_000.0
HEADER = (
    b"Received: from a.example\r\n\tby b.example\r\n"
    b"From: A <a@sender.example>\r\nTo:  B <b@rcpt.example>\r\n"
    b"Subject: one\r\n two\tthree \r\nDate: Wed, 25 Nov 2026 00:05:00 +0000\r\n"
)
BODY = b"Hello  there, \r\n\r\n\tyou.\t\r\n\r\n\r\n"
MESSAGE = HEADER + b"\r\n" + BODY

Zone = dict[str, Iterable[str] | LookupStatus]

#: The key records of our signers.
ZONE: Zone = {each.recordName: [each.record] for each in (RSA, ED25519)}


def lookup(zone: Zone) -> Callable[[LookupQuestion], Answer]:
    """
    Answer from the published keys.
    """

    def answer(question: LookupQuestion) -> Answer:
        found = zone.get(question.name, LookupStatus.NO_NAME)
        if isinstance(found, LookupStatus):
            return Answer(question.name, question.kind, found)
        records = tuple(TXT(each.encode("utf-8")) for each in found)
        return Answer(question.name, question.kind, LookupStatus.RECORDS, records)

    return answer


def split(message: bytes) -> tuple[bytes, bytes]:
    """
    Header and body; without an empty line, all is header.
    """
    header, empty, body = message.partition(b"\r\n\r\n")
    return (header + b"\r\n" if empty else header), body


def results(
    message: bytes, zone: Zone = ZONE, now: float = NOW, size: int = 64 * 1024
) -> tuple[DKIMResult, ...]:
    """
    @param size: Of the chunks.
    """
    header, body = split(message)
    checks = runWithAnswers(
        lookUpKeys(signatureClaims(splitHeader(header))), lookup(zone)
    )
    return verify(header, chunks(body, size), checks, now)


def statuses(message: bytes, zone: Zone = ZONE) -> list[AuthResult]:
    return [each.status for each in results(message, zone)]


def chunks(data: bytes, size: int) -> Iterator[bytes]:
    return (data[start : start + size] for start in range(0, len(data), size))


def signedByOthers(
    signer: Signer,
    message: bytes = MESSAGE,
    ways: tuple[bytes, bytes] = (b"relaxed", b"relaxed"),
    identity: bytes | None = None,
    fields: Iterable[bytes] | None = None,
    length: bool = False,
) -> bytes:
    """
    C{message} with a signature that dkimpy makes.
    """
    secret = RSA_PEM
    if signer is ED25519:
        raw = signer.key.secret.private_bytes_raw()  # type: ignore[union-attr]
        secret = base64.b64encode(raw)
    writer = dkim.DKIM(message, signature_algorithm=signer.key.algorithm.encode())
    # It has opinions, which a stranger may not share.
    writer.should_not_sign = frozenset()
    field: bytes = writer.sign(
        signer.selector.encode(),
        signer.domain.ascii.encode(),
        secret,
        identity=identity,
        canonicalize=ways,
        include_headers=fields,
        length=length,
    )
    return field + message


def publicKey(modulus: int, exponent: int) -> str:
    """
    RSAPublicKey (RFC 8017 A.1.1) of any two numbers, in base64.
    """
    content = _integer(modulus) + _integer(exponent)
    return base64.b64encode(b"\x30" + _length(content) + content).decode()


def _integer(number: int) -> bytes:
    content = number.to_bytes(number.bit_length() // 8 + 1, "big")
    return b"\x02" + _length(content) + content


def _length(content: bytes) -> bytes:
    octets = len(content).to_bytes((len(content).bit_length() + 7) // 8, "big")
    return octets if len(content) < 128 else bytes([0x80 | len(octets)]) + octets
