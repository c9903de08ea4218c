"""
SMTP smuggling: messages that other software would split, over the sans-IO server.
"""

from __future__ import annotations

import json
import re
from dataclasses import replace

from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from moxtls.smtp.server.conversation import MAX_AUTH_LINE
from moxtls.smtp.server.state import BodyChunk, BodyFailed, ServerEvent
from tests.corpus import corpus
from tests.smtp.owner import ENVELOPE, SETTINGS, Owner, greeted

# Behind these a client has to wait, and is sent away if it doesn't.
_WAITS = re.compile(rb"(?<=DATA\r\n)|(?<=TLS\r\n)")
#: Small, so that all limits are met.
SMALL = replace(
    SETTINGS,
    maxSize=60,
    maxHeaderSize=40,
    maxHeaderFields=3,
    maxLineLength=20,
    mechanisms=("PLAIN", "LOGIN"),
    authWithoutTLS=True,
)
#: The beginning of the conversation.
BEGUN = st.sampled_from(
    [
        b"",
        b"EHLO c\r\n",
        b"EHLO c\r\n" + ENVELOPE,
        b"EHLO c\r\n" + ENVELOPE + b"DATA\r\n",
    ]
)
WIRE = st.lists(
    st.one_of(
        st.binary(max_size=30),
        st.sampled_from(
            [
                b"EHLO c\r\n",
                b"HELO c\r\n",
                ENVELOPE,
                b"MAIL FROM:<a@b> ",
                b"RCPT TO:<",
                b"DATA\r\n",
                b"BDAT 5\r\n",
                b"BDAT 30\r\n",
                b"BDAT 3 LAST\r\n",
                b"BDAT 0 LAST\r\n",
                b"BDAT x\r\n",
                b"A: b\r\n",
                b"\r\n.\r\n",
                b".\r\n",
                b"..",
                b"\r",
                b"\n",
                b"\0",
                b"a" * 19,
                b"AUTH PLAIN ",
                b"AUTH LOGIN\r\n",
                b"AGEAYg==\r\n",
                b"*\r\n",
                b"STARTTLS\r\n",
                b"NOOP\r\n",
                b"RSET\r\n",
                b"QUIT\r\n",
                b"x" * 3000,
                b"\r\n",
            ]
        ),
    ),
    max_size=40,
)


def heard(events: list[ServerEvent]) -> list[object]:
    """
    The result for an owner: whole messages, or refused ones.
    """
    result: list[object] = []
    for event in events:
        last = result[-1] if result else None
        if isinstance(event, BodyChunk) and isinstance(last, bytes):
            result[-1] = last + event.data
        elif isinstance(event, BodyChunk):
            result.append(event.data)
        elif isinstance(event, BodyFailed):
            if isinstance(last, bytes):
                result.pop()
            result.append(BodyFailed)
        else:
            result.append(event)
    return result


def pieces(step: bytes, sizes: list[int]) -> list[bytes]:
    """
    Cut into pieces of these sizes, again and again.
    """
    found, position, turn = [], 0, 0
    while position < len(step):
        size = sizes[turn % len(sizes)]
        found.append(step[position : position + size])
        position, turn = position + size, turn + 1
    return found


class SmugglingTests(SynchronousTestCase):
    """
    No software can be made to see more messages than there are (RFC 5321 4.1.1.4).
    """

    def test_ends(self) -> None:
        """
        Any sequence resembling the end of a message gets 5xx, and only one reply.
        """
        path = corpus("smtp", "mox-smuggling-server.json")
        for case in json.loads(path.read_text())["cases"]:
            owner = greeted()
            owner.says(ENVELOPE, b"DATA\r\n")
            inner = case["sequence_in_data"].encode() + ENVELOPE + b"DATA\r\nx"
            lines = owner.says(b"test\r\n" + inner, case["then"].encode())
            self.assertEqual(len(lines), 1, case["id"])
            self.assertTrue(lines[0].startswith("5"), case["id"])
            self.assertEqual(owner.messages, [])

    def test_oneMessage(self) -> None:
        """
        LF.CRLF doesn't end a message; we refuse it as a whole.
        """
        path = corpus("smtp", "aiosmtpd-smuggling.json")
        for case in json.loads(path.read_text())["cases"]:
            owner = greeted()
            owner.says(ENVELOPE, b"DATA\r\n")
            codes = owner.codes(case["wire_after_354"].encode())
            self.assertEqual(codes, ["554 5.6.0"])

    def test_dots(self) -> None:
        """
        All variants of the end, in one piece and byte by byte: an accepted message
        equals the published decoding; one with bare line ends is refused, where the
        table tolerates some (RFC 5321 2.3.8).
        """
        path = corpus("smtp", "mox-smtp-data-read.json")
        for case in json.loads(path.read_text())["cases"]:
            wire, expect = case["wire"].encode("latin-1"), case["expect"]
            complete = wire.startswith(b".\r\n") or b"\r\n.\r\n" in wire
            bare = b"\n" in wire.replace(b"\r\n", b"")
            for sizes in ([len(wire)], [1]):
                owner = greeted()
                owner.says(ENVELOPE, b"DATA\r\n")
                owner.says(*pieces(wire, sizes))
                taken = complete and expect["error"] is None and not bare
                expected = [expect["decoded"].encode("latin-1")] if taken else []
                self.assertEqual(owner.messages, expected, case["id"])

    def test_chunks(self) -> None:
        """
        In chunks, a sequence resembling the end of a message is part of it; the
        message is refused if others might take it for the end.
        """
        for inner, count in ((b"\r\n.\r\n", 1), (b"\n.\n", 0), (b"\r.\r", 0)):
            owner = greeted()
            message = b"test" + inner + ENVELOPE + b"DATA\r\nx\r\n"
            owner.says(ENVELOPE)
            lines = owner.says(b"BDAT %d LAST\r\n%b" % (len(message), message))
            self.assertEqual(len(lines), 1)
            self.assertEqual(len(owner.messages), count, inner)

    def test_starttls(self) -> None:
        """
        Plaintext commands and AUTH responses after STARTTLS are ignored, however they
        are sent (RFC 3207 6).
        """
        settings = replace(SETTINGS, mechanisms=("LOGIN",), authWithoutTLS=True)
        for behind in (ENVELOPE, b"\r\n", b"E", b"AUTH LOGIN\r\n"):
            owner = greeted(settings)
            self.assertEqual(owner.codes(b"STARTTLS\r\n" + behind), ["421 4.7.0"])
            self.assertFalse(owner.conversation.state.isSecure)
        owner = greeted(settings)
        conversation = owner.conversation
        conversation.receive(b"AUTH LOGIN\r\n")
        conversation.nextEvent()
        conversation.authenticated("user")
        owner.says(b"STARTTLS\r\n")
        self.assertEqual(conversation.state.user, "")
        self.assertEqual(conversation.state.mechanism, "")
        self.assertEqual(owner.codes(ENVELOPE), ["503 5.5.1"] * 2)

    @examples(max_examples=100, deadline=None)
    @given(BEGUN, WIRE, st.lists(st.integers(1, 9), min_size=1, max_size=4))
    def test_cuts(self, begun: bytes, wire: list[bytes], sizes: list[int]) -> None:
        """
        With any input, nothing raises and little is buffered, and fragmentation
        changes neither replies nor accepted messages.
        """
        whole, cut = Owner(SMALL), Owner(SMALL)
        for step in _WAITS.split(begun + b"".join(wire)):
            expected = whole.says(step)
            self.assertEqual(cut.says(*pieces(step, sizes)), expected)
            for line in expected:
                self.assertRegex(line, r"\A[2-5][0-9][0-9][ -]")
            self.assertLess(cut.conversation.backlog, MAX_AUTH_LINE + 2)
        self.assertEqual(heard(cut.events), heard(whole.events))
        self.assertEqual(cut.messages, whole.messages)
        self.assertEqual(cut.conversation.isClosed, whole.conversation.isClosed)
