"""
Tests for L{moxtls.lab.mail}.
"""

from __future__ import annotations

from email import message_from_bytes
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from moxtls.authentication.headerfields import authenticationResults
from moxtls.authentication.results import (
    Authentication,
    AuthResult,
    IPRevResult,
    SPFResult,
    SPFScope,
)
from moxtls.dmarc.types import (
    Discovery,
    DMARCPolicy,
    DMARCRecord,
    Method,
    Override,
    OverrideKind,
    Verdict,
)
from moxtls.domain import Domain
from moxtls.lab.mail import FoundMessage, findMessage, seenIn, seenOn
from tests.dmarc.zone import signature

REFUSAL = (
    "5.7.1 Refused because of the DMARC policy of listed.test:\n"
    "5.7.1 nothing in the name of that domain says that the message is from it\n"
    "5.7.1 (SPF softfail for bounce.test; DKIM fail for listed.test, pass for a.test)"
)


class FindMessageTests(SynchronousTestCase):
    """
    Messages in a Maildir++.
    """

    def setUp(self) -> None:
        self.root = Path(self.mktemp())

    def put(self, place: str, messageID: str) -> None:
        path = self.root / place
        path.parent.mkdir(parents=True)
        path.write_bytes(f"Message-ID: {messageID}\r\n\r\ntext\r\n".encode())

    def test_mailboxes(self) -> None:
        """
        The folders of a Maildir++ go by the names that mail programs show.
        """
        self.put("new/1", "<one@a.test>")
        self.put(".Junk/new/2", "<two@a.test>")
        self.put(".Lists.Announce/cur/3:2,S", "<three@a.test>")
        for messageID, mailbox in (
            ("<one@a.test>", "Inbox"),
            ("<two@a.test>", "Junk"),
            ("<three@a.test>", "Lists/Announce"),
        ):
            found = findMessage(self.root, messageID)
            assert found is not None
            self.assertEqual(mailbox, found[0])
            self.assertEqual(messageID, found[1]["Message-ID"])

    def test_nowhere(self) -> None:
        """
        It may be nowhere, and there may be no Maildir yet.
        """
        self.assertIsNone(findMessage(self.root, "<one@a.test>"))
        self.put("new/1", "<one@a.test>")
        self.assertIsNone(findMessage(self.root, "<two@a.test>"))


class SeenTests(SynchronousTestCase):
    """
    What is known about a message from what is said of it.
    """

    def seen(self, verdict: Verdict, *dkim: str) -> FoundMessage:
        spf = SPFResult(SPFScope.MAIL_FROM, "b.test", AuthResult.FAIL, problem="a; b=c")
        helo = SPFResult(SPFScope.HELO, "mta.b.test", AuthResult.PASS)
        authentication = Authentication(
            "192.0.2.1",
            IPRevResult(AuthResult.PERMERROR),
            helo,
            spf,
            tuple(map(signature, dkim)),
        )
        field = authenticationResults(
            "mail.sender.test", authentication, verdict, "b@b.test"
        )
        # What came with the message is further down, and isn't ours.
        others = b"Authentication-Results: else.test; spf=pass; dmarc=pass\r\n"
        return seenOn(message_from_bytes(field + others + b"\r\n"))

    def test_results(self) -> None:
        """
        The results are those of C{Authentication-Results} (RFC 8601 2.2), of
        SPF that of MAIL FROM.
        """
        author = Domain("a.test")
        discovery = Discovery(author, author, Method.TREE_WALK, author, DMARCRecord())
        verdict = Verdict(
            AuthResult.FAIL,
            author,
            discovery,
            DMARCPolicy.REJECT,
            DMARCPolicy.QUARANTINE,
            reasons=(Override(OverrideKind.POLICY_TEST_MODE),),
        )
        self.assertEqual(
            FoundMessage(
                "fail",
                (("a.test", "pass"), ("b.test", "pass")),
                "fail",
                "quarantine",
            ),
            self.seen(verdict, "a.test", "b.test"),
        )

    def test_nothing(self) -> None:
        """
        Without a policy nothing is done, and without signatures there are
        none.
        """
        verdict = Verdict(AuthResult.NONE, Domain("a.test"))
        self.assertEqual(FoundMessage("fail", (), "none", "none"), self.seen(verdict))

    def test_refusal(self) -> None:
        """
        What was refused is nowhere, but its sender was told why.
        """
        self.assertEqual(
            FoundMessage(
                "softfail",
                (("listed.test", "fail"), ("a.test", "pass")),
                "fail",
                "reject",
            ),
            seenIn(REFUSAL),
        )
        self.assertEqual(
            FoundMessage("fail", (), "fail", "reject"),
            seenIn("5.7.1 DMARC\n5.7.1 (SPF fail for a.test; DKIM none)"),
        )

    def test_otherRefusal(self) -> None:
        """
        It may have been for another reason.
        """
        self.assertEqual(FoundMessage(), seenIn("5.1.1 No such mailbox here"))
