"""
Tests for L{moxtls.authentication.dkim.verify}.
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from moxtls.authentication.dkim.sign import sign
from moxtls.authentication.dkim.verify import (
    MAX_KEY_RECORDS,
    MAX_SIGNATURES,
    findSignatures,
    lookUpKeys,
    signatureClaims,
    verify,
)
from moxtls.authentication.results import AuthResult, DKIMResult
from moxtls.dns.types import LookupQuestion, LookupStatus, RRType, runWithAnswers
from moxtls.domain import Domain
from moxtls.message.header import splitHeader
from tests.authentication.dkim.samples import (
    BODY,
    HEADER,
    MESSAGE,
    NOW,
    ZONE,
    Zone,
    chunks,
    lookup,
    publicKey,
    results,
    signedByOthers,
    split,
    statuses,
)
from tests.corpus import corpus
from tests.reporting.support import ED25519, RSA

PASS, FAIL, POLICY = AuthResult.PASS, AuthResult.FAIL, AuthResult.POLICY
PERMERROR, TEMPERROR = AuthResult.PERMERROR, AuthResult.TEMPERROR
BROKEN = (
    b"DKIM-Signature: v=2; a=rsa-sha256; d=a.example; s=s; h=From; bh=YQ==; b=QUJD\r\n"
)
NOBODY = b"DKIM-Signature: v=1; a=rsa-sha256; h=From; bh=YQ==; b=QUJD\r\n"

# RFC 8463 A.2, A.3, and the key of RFC 6376's example.
FOOTBALL: Zone = {
    "brisbane._domainkey.football.example.com": [
        "v=DKIM1; k=ed25519; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="
    ],
    "test._domainkey.football.example.com": [
        "v=DKIM1; k=rsa; p=MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQDkHlOQoBTzWR"
        "iGs5V6NpP3idY6Wk08a5qhdR6wy5bdOKb2jLQiY/J16JYi0Qvx/byYzCNb3W91y3FutAC"
        "DfzwQ/BC/e/8uBsCR+yz1Lxj+PL6lHvqMKrM3rG4hstT5QjvHO9PzoxZyVYLzBfO2EeC3"
        "Ip3G+2kryOTIKT+l/K4w3QIDAQAB"
    ],
}
FOOTBALL_MESSAGE = b"""\
DKIM-Signature: v=1; a=ed25519-sha256; c=relaxed/relaxed;
 d=football.example.com; i=@football.example.com;
 q=dns/txt; s=brisbane; t=1528637909; h=from : to :
 subject : date : message-id : from : subject : date;
 bh=2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=;
 b=/gCrinpcQOoIfuHNQIbq4pgh9kyIK3AQUdt9OdqQehSwhEIug4D11Bus
 Fa3bT3FY5OsU7ZbnKELq+eXdp1Q1Dw==
DKIM-Signature: v=1; a=rsa-sha256; c=relaxed/relaxed;
 d=football.example.com; i=@football.example.com;
 q=dns/txt; s=test; t=1528637909; h=from : to : subject :
 date : message-id : from : subject : date;
 bh=2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=;
 b=F45dVWDfMbQDGHJFlXUNB2HKfbCeLRyhDXgFpEL8GwpsRe0IeIixNTe3
 DhCVlUrSjV4BwcVcOF6+FF3Zo9Rpo1tFOeS9mPYQTnGdaSGsgeefOsk2Jz
 dA+L10TeYt9BgDfQNZtKdN1WO//KgIqXP7OdEFE4LjFYNcUxZQ4FADY+8=
From: Joe SixPack <joe@football.example.com>
To: Suzie Q <suzie@shopping.example.net>
Subject: Is dinner ready?
Date: Fri, 11 Jul 2003 21:00:37 -0700 (PDT)
Message-ID: <20030712040037.46341.5F8J@football.example.com>

Hi.

We lost the game.  Are you hungry yet?

Joe.
""".replace(b"\n", b"\r\n")


def withRecords(*records: str) -> Zone:
    """
    @param records: At the selector of C{ED25519}.
    """
    return {**ZONE, ED25519.recordName: list(records)}


class SignatureClaimsTests(SynchronousTestCase):
    """
    Tests for L{signatureClaims}.
    """

    def test_order(self) -> None:
        """
        Claims from the top; signatures without a domain are skipped, and keep their
        index.
        """
        header = b"A: b\r\n" + NOBODY + BROKEN + split(sign(MESSAGE, [RSA]))[0]
        broken, good = signatureClaims(splitHeader(header))
        self.assertEqual(broken.keyName, "s._domainkey.a.example")
        self.assertEqual(broken.index, 1)
        self.assertEqual(good.keyName, "r._domainkey.sender.example")
        self.assertEqual(good.index, 2)

    def test_most(self) -> None:
        """
        The number of signatures that are verified is limited (RFC 6376 8.4).
        """
        self.assertEqual(
            len(signatureClaims(splitHeader(BROKEN * 100))), MAX_SIGNATURES
        )

    def test_padding(self) -> None:
        """
        Signatures added on the way, readable or not, don't displace the author's (RFC
        6376 8.4).
        """
        below = BROKEN.replace(b"d=a.example", b"d=mail.sender.example")
        good = split(sign(MESSAGE, [RSA]))[0]
        for padding, authors, count in (
            (BROKEN * 50, ["sender.example"], 1),
            (BROKEN * 50, ["a.sender.example"], 1),
            (BROKEN * 50 + below * 7, ["sender.example"], 8),
            (below * 50, ["sender.example"], 8),
            (BROKEN * 50, ["b.example", "sender.example"], 1),
            (NOBODY * 50, [], 1),
        ):
            header = splitHeader(padding + good + BROKEN * 10)
            found = findSignatures(header, tuple(map(Domain, authors)))
            self.assertEqual(len(found.claims), MAX_SIGNATURES)
            names = [each.keyName for each in found.claims]
            self.assertIn("r._domainkey.sender.example", names)
            places = [each.index for each in found.claims]
            self.assertEqual(places, sorted(places))
            related = [name for name in names if name.endswith("sender.example")]
            self.assertEqual(len(related), count)

    def test_unreadable(self) -> None:
        """
        Signatures with an unreadable domain are permanent errors (RFC 8601 2.7.1),
        within the same limit.
        """
        for value, problem in (
            (b"eeee", "d= is not a domain"),
            (b"v=1; s=s", "d= is not a domain"),
            (b"v=1; d=a.example", "s= is not a selector"),
        ):
            found = findSignatures(splitHeader(b"DKIM-Signature: " + value + b"\r\n"))
            self.assertEqual((found.claims, found.problems), ((), (problem,)))
        found = findSignatures(splitHeader(NOBODY * 50 + BROKEN * 3))
        self.assertEqual(len(found.problems), MAX_SIGNATURES - 3)

    def test_fields(self) -> None:
        """
        Only whole fields of that name, in any case, folded in any place.
        """
        for header, count in [
            (b"", 0),
            (BROKEN.upper().replace(b"A.EXAMPLE", b"a.example").lower(), 1),
            (BROKEN.replace(b":", b" \t:").replace(b" d=", b"\r\n\td="), 1),
            (BROKEN[:-2], 1),
            (b"X-" + BROKEN, 0),
            (b" " + BROKEN, 0),
            (b"A: b\r\n " + BROKEN, 0),
            (b"A: b\n" + BROKEN, 0),
            (BROKEN.replace(b"Signature", b"Signatures"), 0),
            (BROKEN.replace(b": ", b""), 0),
            (b"A: b\r\n" + BROKEN + b"B: c\r\n d\r\n" + BROKEN + b"C: d\r\n", 2),
        ]:
            self.assertEqual(len(signatureClaims(splitHeader(header))), count, header)


class LookUpKeysTests(SynchronousTestCase):
    """
    Tests for L{lookUpKeys}.
    """

    def test_questions(self) -> None:
        """
        All keys are looked up at once, each once.
        """
        header, _ = split(sign(MESSAGE, [RSA, ED25519, RSA]))
        lookups = lookUpKeys(signatureClaims(splitHeader(NOBODY + header)))
        self.assertEqual(
            next(lookups),
            (
                LookupQuestion("r._domainkey.sender.example", RRType.TXT),
                LookupQuestion("e._domainkey.sender.example", RRType.TXT),
            ),
        )

    def test_nothing(self) -> None:
        """
        Keys are only looked up if needed.
        """
        with self.assertRaises(StopIteration) as end:
            next(lookUpKeys(signatureClaims(splitHeader(NOBODY))))
        self.assertEqual(end.exception.value, ())

    def found(self, *records: str) -> tuple[AuthResult, str, bool]:
        (result,) = results(sign(MESSAGE, [ED25519]), withRecords(*records))
        return result.status, result.problem, result.testing

    def test_answers(self) -> None:
        """
        A failure in the DNS is temporary, that there is no key is not (RFC
        6376 6.1.2).
        """
        message = sign(MESSAGE, [ED25519])
        for found, status, problem in [
            (LookupStatus.FAILED, TEMPERROR, "the key could not be looked up"),
            (LookupStatus.NO_NAME, PERMERROR, "there is no key record"),
            (LookupStatus.NO_RECORDS, PERMERROR, "there is no key record"),
        ]:
            (result,) = results(message, {ED25519.recordName: found})
            self.assertEqual((result.status, result.problem), (status, problem))
            self.assertEqual(result.identity, "@sender.example")

    def test_records(self) -> None:
        """
        A key has to be for the signature's algorithm; of several records
        those count that are (RFC 6376 6.1.2).
        """
        good, other = ED25519.record, RSA.record
        wrong = "v=DKIM1; k=ed25519; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="
        passed = (PASS, "", False)
        self.assertEqual(self.found("v=spf1 -all", other, good), passed)
        self.assertEqual(self.found(wrong, good), passed)
        self.assertEqual(self.found(*["x"] * (MAX_KEY_RECORDS - 1), good), passed)
        self.assertEqual(
            self.found(*["x"] * MAX_KEY_RECORDS, good),
            (PERMERROR, "the key record is malformed", False),
        )
        self.assertEqual(
            self.found(other), (PERMERROR, "the key is for another algorithm", False)
        )
        self.assertEqual(self.found("p="), (PERMERROR, "the key is revoked", False))
        self.assertEqual(
            self.found(wrong)[:2], (FAIL, "the signature doesn't match the header")
        )

    def test_testing(self) -> None:
        """
        The result has the testing flag of the key, pass or fail (RFC 6376 3.6.1).
        """
        record = ED25519.record.replace("p=", "t=y; p=")
        self.assertEqual(self.found(record), (PASS, "", True))
        message = sign(MESSAGE, [ED25519]) + b"more"
        (result,) = results(message, withRecords(record))
        self.assertEqual((result.status, result.testing), (FAIL, True))

    def test_strict(self) -> None:
        """
        A key may be for the very domain only (RFC 6376 3.6.1, "t=s").
        """
        strict = withRecords(ED25519.record.replace("p=", "t=s; p="))
        for identity, status in [
            (None, PASS),
            (b"joe@sender.example", PASS),
            (b"joe@x.sender.example", PERMERROR),
        ]:
            message = signedByOthers(ED25519, identity=identity)
            self.assertEqual(statuses(message, strict), [status])
            self.assertEqual(statuses(message), [PASS])

    def test_short(self) -> None:
        """
        A key that is too short fails by local policy, not as an error (RFC 8301 3.2).
        """
        record = f"p={publicKey((1 << 1000) + 1, 65537)}"
        (result,) = results(sign(MESSAGE, [RSA]), {RSA.recordName: [record]})
        self.assertEqual(
            (result.status, result.problem), (POLICY, "the RSA key is too short")
        )


class VerifyTests(SynchronousTestCase):
    """
    Tests for L{verify}.
    """

    def test_ours(self) -> None:
        """
        Our own signatures pass, with both algorithms, and their results are complete.
        """
        header, body = split(sign(MESSAGE, [RSA, ED25519]))
        found = signatureClaims(splitHeader(header))
        rsa, ed25519 = verify(
            header, [body], runWithAnswers(lookUpKeys(found), lookup(ZONE)), NOW
        )
        self.assertEqual(
            replace(rsa, signature=""),
            DKIMResult(
                Domain("sender.example"),
                "r",
                PASS,
                "",
                "@sender.example",
                "rsa-sha256",
                "",
                1024,
            ),
        )
        self.assertEqual((ed25519.status, ed25519.keySize), (PASS, 256))
        self.assertIn(f"b=\r\n {ed25519.signature}".encode(), header)
        self.assertEqual(len(rsa.signature), 8)

    def test_others(self) -> None:
        """
        Signatures by dkimpy pass, with all canonicalizations and algorithms (RFC 6376
        3.4), for any chunks.
        """
        words = (b"simple", b"relaxed")
        ways = [(one, other) for one in words for other in words]
        for signer, way, body in product(
            (RSA, ED25519), ways, (b"", b"\r\n", b"x", BODY, BODY * 9)
        ):
            message = signedByOthers(signer, HEADER + b"\r\n" + body, way)
            for size in (1, 2, 1000):
                (result,) = results(message, size=size)
                self.assertIs(result.status, PASS, (signer, way, body, result))

    def test_examples(self) -> None:
        """
        RFC 8463 A.3, which has the message of RFC 6376 A.
        """
        found = results(FOOTBALL_MESSAGE, FOOTBALL)
        self.assertEqual([each.status for each in found], [PASS, PASS])
        self.assertEqual([each.signature for each in found], ["/gCrinpc", "F45dVWDf"])

    def test_mutated(self) -> None:
        """
        Every change of signed content is detected.
        """
        for signer in (RSA, ED25519):
            message = signedByOthers(
                signer,
                b"From: <a@b>\r\nTo: c\r\n\r\nHello\r\n",
                (b"simple", b"simple"),
                fields=[b"from", b"to"],
            )
            self.assertEqual(statuses(message), [PASS])
            # The last one of base64 has bits that mean nothing.
            loose = message.index(b"=\r\nFrom") - 2
            for at, octet in enumerate(message):
                if loose <= at <= loose + 2:
                    continue
                changed = message[:at] + bytes([octet ^ 1]) + message[at + 1 :]
                self.assertNotIn(PASS, statuses(changed), changed[at - 5 : at + 5])

    def test_relaxed(self) -> None:
        """
        Usual changes in transit do no harm, additions do (RFC 6376 3.4.2, 3.4.4,
        5.4.2).
        """
        message = signedByOthers(ED25519, fields=[b"from", b"from", b"to", b"subject"])
        for old, new, status in [
            (b"\r\nTo:  B", b"\r\nTO:\r\n\tB", PASS),
            (b"one\r\n two\tthree \r\n", b"one two three\r\n", PASS),
            (b"Hello  there, \r\n", b"Hello\t there,\r\n", PASS),
            (b"you.\t\r\n\r\n\r\n", b"you.\r\n \r\n", PASS),
            (b"From: A", b"X: y\r\nFrom: A", PASS),
            (b"Hello  there", b"Hellothere", FAIL),
            (b"\r\n\r\n\tyou", b"\r\n\tyou", FAIL),
            (b"you.\t\r\n", b"you.\r\n\r\n.\r\n", FAIL),
            (b"From: A", b"From: x\r\nFrom: A", FAIL),
            (b"To:  B", b"T o:  B", FAIL),
            (b"Subject: one\r\n two", b"Subject: onetwo", FAIL),
        ]:
            self.assertIn(old, message)
            changed = message.replace(old, new, 1)
            self.assertEqual(statuses(changed), [status], (old, new))

    def test_problems(self) -> None:
        """
        The problem names the changed part, the body first (RFC 6376 6.1.3).
        """
        message = sign(MESSAGE, [ED25519])
        for old, new, problem in [
            (b"you", b"me", "the body was changed"),
            (b"Date: Wed", b"Date: Thu", "the signature doesn't match the header"),
        ]:
            (result,) = results(message.replace(old, new))
            self.assertEqual((result.status, result.problem), (FAIL, problem))

    def test_limit(self) -> None:
        """
        A valid signature of only a part of the body is worthless (RFC 6376 8.2); one
        of more than the body is invalid.
        """
        for way in (b"simple", b"relaxed"):
            message = signedByOthers(RSA, ways=(b"relaxed", way), length=True)
            self.assertIn(b" l=", message)
            self.assertEqual(statuses(message), [PASS])
            for size in (1, 3, 1000):
                (result,) = results(message + b"<h1>\r\n", size=size)
                self.assertIs(result.status, POLICY)
                self.assertEqual(
                    result.problem, "l= leaves a part of the body unsigned"
                )
            self.assertEqual(statuses(message + b"\r\n\r\n"), [PASS])
            (result,) = results(message[:-12])
            self.assertEqual(
                (result.status, result.problem), (FAIL, "the body is shorter than l=")
            )
            changed = message.replace(b"Hello", b"Jello") + b"<h1>\r\n"
            self.assertEqual(statuses(changed), [FAIL])

    def test_keyForTLSRPT(self) -> None:
        """
        A key with C{s=tlsrpt} is no key for mail (RFC 6376 3.6.1), but whether the
        signature is valid is kept for TLS reports (RFC 8460 3); one for mail with the
        same key data is preferred, and another service is none at all.
        """
        message = signedByOthers(ED25519)
        changed = message + b"more\r\n"
        mail = ED25519.record
        tls = mail.replace("k=ed25519", "s=tlsrpt; k=ed25519")
        other = tls.replace("tlsrpt", "other")
        for text, records, status, problem, passes in [
            (message, [tls], PERMERROR, "the key is for TLS reports only", True),
            (changed, [tls], PERMERROR, "the body was changed", False),
            (message, [tls, mail], PASS, "", False),
            (message, [other], PERMERROR, "the key is not for mail", False),
        ]:
            [result] = results(text, withRecords(*records))
            self.assertEqual((result.status, result.problem), (status, problem))
            self.assertIs(result.passesForTLSRPT, passes, records)

    def test_hasLength(self) -> None:
        """
        Whether a signature has C{l=} is kept: those of TLS reports must not (RFC 8460
        3).
        """
        for length in (True, False):
            [result] = results(signedByOthers(ED25519, length=length))
            self.assertEqual((result.status, result.hasLength), (PASS, length))
            [copy] = pickle.loads(pickle.dumps([result]))
            self.assertEqual(copy, result)

    def test_own(self) -> None:
        """
        A signature may sign others, and never itself (RFC 6376 3.5, 3.7).
        """
        inner = sign(MESSAGE, [RSA])
        fields = [b"from", b"dkim-signature", b"dkim-signature"]
        message = signedByOthers(ED25519, inner, fields=fields)
        self.assertEqual(statuses(message), [PASS, PASS])
        self.assertEqual(statuses(BROKEN + message), [PERMERROR, FAIL, PASS])
        self.assertEqual(statuses(NOBODY + message), [FAIL, PASS])
        self.assertEqual(statuses(message.replace(inner, MESSAGE)), [FAIL])

    def test_order(self) -> None:
        """
        There is one result for each signature, in order, invalid ones included.
        """
        message = BROKEN + sign(MESSAGE, [RSA]) + b"more"
        message = sign(message, [ED25519])
        self.assertEqual(statuses(message), [PASS, PERMERROR, FAIL])

    def test_untouched(self) -> None:
        """
        Without anything to check, the body isn't gone through.
        """

        def body() -> Iterator[bytes]:
            self.fail("read")
            yield b""

        header, _ = split(sign(MESSAGE, [RSA]))
        cases: list[tuple[bytes, Zone, AuthResult]] = [
            (BROKEN, ZONE, PERMERROR),
            (BROKEN, {"s._domainkey.a.example": LookupStatus.FAILED}, PERMERROR),
            (header, {}, PERMERROR),
            (header, {RSA.recordName: LookupStatus.FAILED}, TEMPERROR),
        ]
        for text, zone, status in cases:
            checks = runWithAnswers(
                lookUpKeys(signatureClaims(splitHeader(text))), lookup(zone)
            )
            (result,) = verify(text, body(), checks, NOW)
            self.assertIs(result.status, status)
        self.assertEqual(verify(HEADER, body(), (), NOW), ())

    @settings(max_examples=60, deadline=None)
    @given(
        st.lists(
            st.sampled_from(
                [
                    b"DKIM-Signature: v=1; a=ed25519-sha256; d=sender.example; s=e; "
                    b"h=from:dkim-signature:dkim-signature; bh=YQ==; b=YQ==",
                    b"DKIM-Signature",
                    b"From: a",
                    b"\r\n",
                    b":",
                    b" ",
                    b"c=relaxed",
                    b";",
                ]
            ),
            max_size=20,
        ).map(b"".join),
        st.binary(max_size=20),
    )
    def test_anything(self, header: bytes, body: bytes) -> None:
        """
        Any message is verified without an exception.
        """
        checks = runWithAnswers(
            lookUpKeys(signatureClaims(splitHeader(header))), lookup(ZONE)
        )
        found = verify(header, chunks(body, 3), checks, NOW)
        self.assertNotIn(PASS, [each.status for each in found])


#: As chasquid has them, but for what we don't let pass.
EXPECTED = {
    "01-rfc8463": [PASS] * 2,
    # We look at more than chasquid's five.
    "02-too_many_headers": [PASS] * 7,
    "03-bad_message": [],
    "04-bad_dkim_signature_header": [PERMERROR],
    "05-dns_temp_error": [TEMPERROR, PASS],
    "06-dns_perm_error": [PERMERROR, PASS],
    "07-algo_mismatch": [PASS] * 2,
    "08-our_signature": [PASS] * 3,
    # RFC 6376 8.2: a part of it isn't signed.
    "09-limited_body": [POLICY, PASS, PASS],
    "10-strict_domain_check_pass": [PASS] * 2,
    "11-strict_domain_check_fail": [PERMERROR],
}


class CorpusTests(SynchronousTestCase):
    """
    Messages that others test with.
    """

    def test_chasquid(self) -> None:
        """
        All of chasquid's cases.
        """
        root = corpus("dkim-arc", "albertito_chasquid")
        cases = {each.stem for each in root.glob("*.msg")}
        self.assertEqual(cases, set(EXPECTED))
        for name, wanted in EXPECTED.items():
            message = _network(_content(root / f"{name}.msg"))
            zone = _zone(root / f"{name}.dns")
            for size in (1, 4096):
                found = [each.status for each in results(message, zone, size=size)]
                self.assertEqual(found, wanted, name)

    def test_dkimpy(self) -> None:
        """
        dkimpy's signed messages; one is from Exim, one folds in the middle of
        base64, and its key is gone.
        """
        root = corpus("dkim-arc", "kitterma_dkimpy-mirror")
        exim: Zone = {
            "sed._domainkey.test.ex": [(root / "eximtest.dns").read_text().strip()]
        }
        for name, zone, wanted in [
            ("rfc6376.signed.msg", FOOTBALL, [PASS, PASS]),
            ("ed25519test2.msg", exim, [PASS]),
            ("test2.message", FOOTBALL, [PERMERROR]),
            ("test.message", FOOTBALL, []),
        ]:
            message = _network((root / name).read_bytes())
            found = [each.status for each in results(message, zone)]
            self.assertEqual(found, wanted, name)
        record = (root / "badversion.txt").read_text().strip()
        message = _network((root / "rfc6376.signed.msg").read_bytes())
        for name in ("badversion", "badk", "test_bad", "test_tlsrpt"):
            record = (root / f"{name}.txt").read_text().strip()
            zone = {**FOOTBALL, "test._domainkey.football.example.com": [record]}
            found = [each.status for each in results(message, zone)]
            self.assertEqual(found, [PASS, PERMERROR], name)


def _network(message: bytes) -> bytes:
    """
    With CRLF line ends.
    """
    return re.sub(rb"\r?\n", b"\r\n", message)


def _content(path: Path) -> bytes:
    """
    The content of a file, or of the file that it names.
    """
    content = path.read_bytes()
    other = path.parent / content.decode().strip()[:60]
    return other.read_bytes() if other.is_file() else content


def _zone(path: Path) -> Zone:
    if not path.exists():
        return {}
    text = _content(path).decode().replace("\\\n", "")
    zone: dict[str, list[str]] = {}
    for name, value in re.findall(r"^(\S+):\s+(.+)$", text, re.MULTILINE):
        zone.setdefault(name, []).append(value)
    special = {"TEMPERROR": LookupStatus.FAILED, "PERMERROR": LookupStatus.NO_NAME}
    return {name: special.get(values[0], values) for name, values in zone.items()}
