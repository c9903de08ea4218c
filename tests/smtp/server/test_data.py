"""
Tests for L{moxtls.smtp.server.data}, alone and within a conversation.

Tests for L{moxtls.smtp.server.data}.
"""

from __future__ import annotations

import re
from dataclasses import replace
from time import process_time

from hypothesis import given, settings
from hypothesis import settings as examples
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from moxtls.smtp.server.data import Chunk, ChunkReader, HeaderLimits, parseChunk
from moxtls.smtp.server.state import BodyChunk, BodyEnd, BodyFailed, DataStart
from moxtls.smtp.types import Reply
from tests.smtp.owner import ENVELOPE, SETTINGS, Owner, greeted


def bdat(data: bytes, last: bool = False) -> bytes:
    """
    A chunk as it is sent.
    """
    return b"BDAT %d%b\r\n%b" % (len(data), b" LAST" if last else b"", data)


def begun(size: int = 1000) -> Owner:
    """
    A conversation in which a message may come.
    """
    owner = greeted(replace(SETTINGS, maxSize=size))
    owner.says(ENVELOPE)
    owner.events.clear()
    return owner


class ParseTests(SynchronousTestCase):
    """
    Tests for L{parseChunk}.
    """

    def test_syntax(self) -> None:
        """
        A size, and perhaps LAST in any case (RFC 3030 2).
        """
        for argument, chunk in (
            ("0", Chunk(0, False)),
            ("86 LAST", Chunk(86, True)),
            ("86  last", Chunk(86, True)),
            ("0010", Chunk(10, False)),
        ):
            self.assertEqual(parseChunk(argument), chunk)

    def test_unclear(self) -> None:
        """
        A malformed BDAT closes the connection, as the end of the chunk is unknown.
        """
        for argument in (
            "",
            "LAST",
            "-1",
            "1 FIRST",
            "1LAST",
            "\u0661",
            "9" * 21,
            "1,5",
        ):
            reply = parseChunk(argument)
            assert isinstance(reply, Reply), argument
            self.assertEqual(reply.code, 421, argument)


class ReaderTests(SynchronousTestCase):
    """
    Tests for L{ChunkReader}.
    """

    @examples(max_examples=100, deadline=None)
    @given(
        st.lists(st.sampled_from([b"\r\n", b"\r", b"\n", b"a", b".", b"\0"])).map(
            b"".join
        ),
        st.lists(st.integers(0, 5), max_size=8),
    )
    def test_anyChunks(self, message: bytes, sizes: list[int]) -> None:
        """
        The message is unchanged, with an end to its last line, for any chunks. Bare
        CR, bare LF and NUL make it flawed, also across chunks.
        """
        reader, text = ChunkReader(), b""
        for size in sizes:
            piece, message_ = message[:size], message[size:]
            reader.begin(Chunk(len(piece), False))
            text += reader.feed(piece)
            message = message_
        reader.begin(Chunk(len(message), True))
        text += reader.feed(message)
        self.assertTrue(reader.ended)
        self.assertEqual(reader.size, len(text))
        bare = text.replace(b"\r\n", b"")
        flawed = any(each in bare for each in (b"\r", b"\n", b"\0"))
        self.assertEqual(reader.flawed, flawed)
        self.assertTrue(not text or flawed or text.endswith(b"\r\n"))


class ChunkingTests(SynchronousTestCase):
    """
    Tests for BDAT in a conversation.
    """

    def test_offered(self) -> None:
        """
        CHUNKING is announced, BINARYMIME isn't (RFC 3030 2, 3), and can't be
        requested.
        """
        lines = Owner().says(b"EHLO c\r\n")
        self.assertIn("250-CHUNKING", lines)
        self.assertNotIn("BINARYMIME", " ".join(lines))
        codes = greeted().codes(b"MAIL FROM:<> BODY=BINARYMIME\r\n")
        self.assertEqual(codes, ["501 5.5.4"])

    def test_one(self) -> None:
        """
        One chunk is a message; dots are data, and there is no 354 (RFC 3030 2).
        """
        owner = begun()
        codes = owner.codes(bdat(b".a\r\n.\r\n", last=True))
        self.assertEqual(codes, ["250 2.0.0"])
        self.assertEqual(owner.messages, [b".a\r\n.\r\n"])
        kinds = [type(event) for event in owner.events]
        self.assertEqual(kinds, [DataStart, BodyChunk, BodyEnd])
        self.assertEqual(owner.events[-1], BodyEnd(7))

    def test_several(self) -> None:
        """
        Each chunk is answered, lines may be cut by them, and the last may be
        empty (RFC 3030 2).
        """
        owner = begun()
        self.assertEqual(owner.says(bdat(b"a\r")), ["250 2.0.0 1 bytes so far"])
        self.assertEqual(owner.codes(bdat(b"\nb\r\n")), ["250 2.0.0"])
        self.assertEqual(owner.messages, [])
        self.assertEqual(owner.codes(b"BDAT 0 LAST\r\n"), ["250 2.0.0"])
        self.assertEqual(owner.messages, [b"a\r\nb\r\n"])
        self.assertEqual(owner.codes(ENVELOPE), ["250 2.0.0"] * 2)

    def test_pipelined(self) -> None:
        """
        A client may send all of it at once (RFC 3030 4.2), and several
        messages.
        """
        message = bdat(b"A: b\r\n\r\n") + bdat(b"c\r\n", last=True)
        owner = greeted()
        codes = owner.codes((ENVELOPE + message) * 2 + b"QUIT\r\n")
        self.assertEqual(codes, ["250 2.0.0"] * 8 + ["221 2.0.0"])
        self.assertEqual(owner.messages, [b"A: b\r\n\r\nc\r\n"] * 2)

    def test_empty(self) -> None:
        """
        A message without a byte, as behind DATA.
        """
        owner = begun()
        self.assertEqual(owner.codes(b"BDAT 0 LAST\r\n"), ["250 2.0.0"])
        self.assertEqual(owner.messages, [b""])

    def test_noLineEnd(self) -> None:
        """
        A missing line end at the end is added, as there would be with DATA.
        """
        owner = begun()
        owner.says(bdat(b"a\r\nb", last=True))
        self.assertEqual(owner.messages, [b"a\r\nb\r\n"])

    def test_outOfOrder(self) -> None:
        """
        A premature chunk is refused (RFC 3030 2), and none of its data is parsed as a
        command.
        """
        quit = b"QUIT\r\n"
        owner = Owner()
        self.assertEqual(owner.codes(bdat(quit)), ["503 5.5.1"])
        owner.says(b"EHLO c\r\n")
        self.assertEqual(owner.codes(bdat(quit, last=True)), ["503 5.5.1"])
        owner = greeted()
        owner.says(b"MAIL FROM:<>\r\n")
        self.assertEqual(owner.codes(bdat(quit)), ["554 5.5.1"])
        self.assertFalse(owner.conversation.isClosed)
        required = Owner(replace(SETTINGS, tlsRequired=True))
        self.assertEqual(required.codes(bdat(quit)), ["503 5.5.1"])

    def test_mixed(self) -> None:
        """
        DATA, MAIL and RCPT between chunks are refused (RFC 3030 2); the message goes
        on.
        """
        owner = begun()
        owner.says(bdat(b"a\r\n"))
        codes = owner.codes(ENVELOPE + b"DATA\r\n")
        self.assertEqual(codes, ["503 5.5.1"] * 3)
        self.assertEqual(owner.codes(bdat(b"b\r\n", last=True)), ["250 2.0.0"])
        self.assertEqual(owner.messages, [b"a\r\nb\r\n"])

    def test_reset(self) -> None:
        """
        RSET, EHLO and HELO between chunks end the message (RFC 3030 2, RFC 5321
        4.1.1.5) with an event.
        """
        for command in (b"RSET\r\n", b"EHLO c\r\n", b"HELO c\r\n"):
            owner = begun()
            owner.says(bdat(b"a\r\n"))
            owner.says(command)
            self.assertIsInstance(owner.events[-1], BodyFailed)
            self.assertEqual(owner.codes(bdat(b"x\r\n", last=True)), ["503 5.5.1"])
            owner.says(ENVELOPE, bdat(b"b\r\n", last=True))
            self.assertEqual(owner.messages, [b"b\r\n"])

    def test_tooLarge(self) -> None:
        """
        The size limit applies to each chunk and to their sum, before the bytes have
        come; those are skipped (RFC 3030 2).
        """
        for chunks in ([b"a" * 1001], [b"a" * 600, b"a" * 401]):
            owner = begun()
            *before, last = map(bdat, chunks)
            self.assertEqual(owner.codes(*before), ["250 2.0.0"] * len(before))
            self.assertEqual(owner.says(last[:-1]), [])
            self.assertEqual(owner.codes(last[-1:]), ["552 5.3.4"])
            self.assertEqual(owner.codes(ENVELOPE), ["250 2.0.0"] * 2)
            self.assertEqual(owner.messages, [])

    def test_far(self) -> None:
        """
        A chunk that would take forever is not waited for.
        """
        owner = begun()
        self.assertEqual(owner.codes(b"BDAT 99999999999999\r\n"), ["552 5.3.4"])
        self.assertTrue(owner.conversation.isClosed)

    def test_flawed(self) -> None:
        """
        Without BINARYMIME a message has lines (RFC 3030 3): bare CR, bare LF
        and NUL are as bad as behind DATA.
        """
        for message in (b"a\nb\r\n", b"a\rb\r\n", b"a\0b\r\n", b"a\r"):
            owner = begun()
            self.assertEqual(owner.codes(bdat(message, last=True)), ["554 5.6.0"])
            self.assertEqual(owner.messages, [])
            self.assertIsInstance(owner.events[-1], BodyFailed)
        owner = begun()
        codes = owner.codes(bdat(b"a\r"), bdat(b"b\r\n"))
        self.assertEqual(codes, ["250 2.0.0", "554 5.6.0"])

    def test_behindRefused(self) -> None:
        """
        Chunks sent before the client has read the refusal are skipped (RFC 3030 2),
        and don't count as errors.
        """
        owner = begun()
        codes = owner.codes(bdat(b"a\n") + bdat(b"QUIT\r\n") * 50)
        self.assertEqual(codes, ["554 5.6.0"] + ["503 5.5.1"] * 50)
        self.assertEqual(
            owner.codes(ENVELOPE + bdat(b"b\r\n", last=True)), ["250 2.0.0"] * 3
        )

    def test_refusedByOwner(self) -> None:
        """
        The owner's refusal of a message is sent after the chunk.
        """
        owner = begun()
        conversation = owner.conversation
        conversation.receive(bdat(b"QUIT\r\n")[:-1])
        self.assertIsInstance(conversation.nextEvent(), DataStart)
        conversation.reply(Reply(451, "4.3.0", "Not now"))
        self.assertIsNone(conversation.nextEvent())
        self.assertEqual(conversation.takeOutput(), b"")
        self.assertEqual(owner.codes(b"\n"), ["451 4.3.0"])
        self.assertEqual(owner.codes(ENVELOPE), ["250 2.0.0"] * 2)

    def test_nothingAtAll(self) -> None:
        """
        Empty chunks lead nowhere.
        """
        owner = begun()
        codes = owner.codes(b"BDAT 0\r\n" * 200)
        self.assertEqual(codes[-1], "421 4.7.0")
        self.assertLess(len(codes), 110)

    def test_starttls(self) -> None:
        """
        STARTTLS discards the transaction (RFC 3207 4.2).
        """
        owner = begun()
        owner.says(bdat(b"a\r\n"), b"STARTTLS\r\n", b"EHLO c\r\n")
        self.assertEqual(owner.codes(bdat(b"b\r\n", last=True)), ["503 5.5.1"])
        self.assertEqual(owner.messages, [])


TEXT = st.lists(
    st.sampled_from([b"\r\n", b" ", b"\t", b"A:", b"bcdef", b"\r\n\r\n"]), max_size=30
)


def shaped(*pieces: bytes, longest: int = 10) -> HeaderLimits:
    """
    The result of a message.
    """
    limits = HeaderLimits(longest)
    for piece in pieces:
        limits.feed(piece)
    return limits


class HeaderLimitsTests(SynchronousTestCase):
    """
    Tests for L{HeaderLimits}.
    """

    @settings(max_examples=100, deadline=None)
    @given(TEXT)
    def test_anything(self, pieces: list[bytes]) -> None:
        """
        Header, fields (RFC 5322 2.2.3) and lines are the same as line by line,
        however the message is cut.
        """
        text = b"".join(pieces) + b"\r\n"
        lines = text.split(b"\r\n")[:-1]
        header = lines[: lines.index(b"")] if b"" in lines else lines
        for limits in (shaped(text), shaped(*pieces, b"\r\n")):
            fields = [line for line in header if line[:1] not in (b" ", b"\t")]
            self.assertEqual(limits.hasLongLine, max(map(len, lines)) > 8)
            if b"" in lines:
                self.assertEqual(limits.fields, len(fields))
                self.assertEqual(limits.header, sum(len(line) + 2 for line in header))

    def test_costs(self) -> None:
        """
        Many lines, or one without an end, take linear time.
        """
        start = process_time()
        limits = shaped(*[b"a\r\n" * 20_000] * 50, longest=1 << 20)
        self.assertFalse(limits.hasLongLine)
        limits = shaped(*[b"a" * 1000] * 5000, longest=1 << 20)
        self.assertTrue(limits.hasLongLine)
        self.assertLess(process_time() - start, 0.5)
        self.assertIsNone(re.search("_header", repr(limits)))
