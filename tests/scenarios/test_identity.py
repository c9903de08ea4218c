"""
Identifiers and file names of reports from several hosts of one domain, as their
consumer sees them.
"""

from __future__ import annotations

import gzip
import json
from dataclasses import replace
from email import message_from_bytes
from email.message import Message
from typing import NamedTuple
from xml.etree import ElementTree

from twisted.trial.unittest import SynchronousTestCase

from moxtls.dmarc.types import DMARCPolicy, PublishedPolicy
from moxtls.domain import Domain
from moxtls.ledger.ledger import MemoryLedger
from moxtls.queue.memory import MemoryQueue
from tests.dmarc.reports import DMARCWorld, evaluation
from tests.reporting.support import A, World, outcome

B = Domain("b.example")
NAMESPACE = "{urn:ietf:params:xml:ns:dmarc-2.0}"


class Names(NamedTuple):
    """
    The names that distinguish reports.

    @ivar written: The identifier in the report.
    @ivar subject: The identifier in the field Subject.
    """

    written: str
    subject: str
    filename: str


def names(queue: MemoryQueue) -> list[Names]:
    """
    Names of every report in C{queue}.
    """
    return [_names(message_from_bytes(body)) for body in queue.bodies.values()]


def _names(message: Message[str, str]) -> Names:
    subject = " ".join(str(message["Subject"]).split())
    parts = list(message.walk())
    filename, content = parts[-1].get_filename(), parts[-1].get_payload(decode=True)
    assert filename is not None and isinstance(content, bytes)
    document = gzip.decompress(content)
    if filename.endswith(".json.gz"):
        written = json.loads(document)["report-id"]
    else:
        path = f"{NAMESPACE}report_metadata/{NAMESPACE}report_id"
        written = ElementTree.fromstring(document).findtext(path)
    return Names(written, subject.rpartition("Report-ID: ")[2], filename)


class IdentityTests(SynchronousTestCase):
    """
    Several hosts report in the name of one domain about the same day and
    policy domain.
    """

    def assertDistinct(self, found: list[Names], count: int) -> None:
        """
        There are C{count} reports, and no two share a name.
        """
        self.assertEqual(len(found), count)
        for column in zip(*found, strict=True):
            self.assertEqual(len(set(column)), count, column)
        for each in found:
            # RFC 9990 3.5.2, RFC 8460 5.1
            unique = each.filename.partition(".gz")[0].rpartition("!")[2]
            self.assertEqual(unique.partition(".")[0], each.written)
            self.assertRegex(each.written, r"\A[0-9A-Za-z]+\Z")

    def test_dmarc(self) -> None:
        """
        Two hosts have a ledger each, and one of them gets a new ledger: their DMARC
        reports differ in identifier, Subject and file name (RFC 9990 3.5.1), and so
        do those of one ledger about two policies (RFC 9990 3.1.1.4).
        """
        found = []
        for _ in range(3):
            world = DMARCWorld()
            world.publishRecord(A)
            policies = (
                PublishedPolicy(A, p) for p in (DMARCPolicy.NONE, DMARCPolicy.REJECT)
            )
            world.record(*(replace(evaluation(), published=p) for p in policies))
            self.successResultOf(world.service().runNow())
            found += names(world.queue)
        self.assertDistinct(found, 6)
        for each in found:
            # RFC 9990 3.1.4: exactly the same.
            self.assertEqual(each.subject, f"<{each.written}>")

    def test_tls(self) -> None:
        """
        The same for TLS reports, and for the two reports to a domain that receives
        its own mail and that of others (RFC 8460 5.1, 5.3).
        """
        found = []
        for _ in range(3):
            world = World()
            world.publishRecord(A)
            world.record(outcome(A), outcome(B, str(A)))
            self.successResultOf(world.service().runNow())
            found += names(world.queue)
        self.assertDistinct(found, 6)
        for each in found:
            self.assertEqual(each.subject, f"<{each.written}@sender.example>")

    def test_sharedLedger(self) -> None:
        """
        Nodes with a shared ledger use the same identifier for a report.
        """
        found = set()
        ledger = MemoryLedger()
        for _ in range(2):
            world = World()
            world.ledger = ledger
            world.publishRecord(A)
            world.record(outcome(A))
            ((_, draft),) = self.successResultOf(world.service().preview(A))
            found.add(getattr(draft, "reportID", None))
        self.assertEqual(len(found), 1)
        self.assertNotIn(None, found)
