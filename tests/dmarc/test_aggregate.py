"""
Tests for L{moxtls.dmarc.aggregate}.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from itertools import product

from hypothesis import given, settings
from hypothesis.strategies import characters, text
from twisted.trial.unittest import SynchronousTestCase

from moxtls import __version__
from moxtls.authentication.results import AuthResult
from moxtls.dmarc.aggregate import (
    MAX_ERROR_LENGTH,
    MAX_SIGNATURES,
    AggregateMetadata,
    AggregateWriter,
    ReportFormat,
)
from moxtls.dmarc.parse import parseAggregateReport
from moxtls.dmarc.types import (
    Alignment,
    DiscoveryMethod,
    Disposition,
    DMARCPolicy,
    Override,
    OverrideKind,
    PublishedPolicy,
    ReportedSignature,
    ReportedSPF,
    ReportRow,
)
from tests.dmarc.reports import (
    HEADING,
    PUBLISHED,
    ROW,
    children,
    counts,
    faults,
    parsed,
    rowsFrom,
    texts,
    unpacked,
)
from tests.reporting.support import A

NEW, OLD = ReportFormat.RFC9990, ReportFormat.RFC7489


def document(
    format: ReportFormat = NEW,
    rows: Iterable[tuple[ReportRow, int]] = ((ROW, 1),),
    heading: AggregateMetadata = HEADING,
    published: PublishedPolicy = PUBLISHED,
) -> bytes:
    writer = AggregateWriter(format, heading, published)
    writer.add(rows)
    return writer.finish()


def everyRow() -> list[tuple[ReportRow, int]]:
    """
    Rows with every value of every element.
    """
    rows = [replace(ROW, disposition=each) for each in Disposition]
    rows += [
        replace(ROW, reasons=(Override(kind, comment), Override(kind)))
        for kind, comment in product(OverrideKind, ("", "because"))
    ]
    for result in AuthResult:
        spf = [ReportedSPF("a.example", scope, result) for scope in ("mfrom", "helo")]
        signature = ReportedSignature("a.example", "s", result, "bad")
        rows += [replace(ROW, spf=each, dkim=(signature,) * 2) for each in spf]
    rows += [
        replace(ROW, envelopeFrom="", envelopeTo="", dkim=(), spf=None),
        replace(ROW, sourceIP="2001:db8::1"),
        replace(ROW, dkim=(ReportedSignature("a.example", "", AuthResult.NONE),)),
    ]
    return [(row, number + 1) for number, row in enumerate(rows)]


class SchemaTests(SynchronousTestCase):
    """
    Reports are valid by RFC 9990 appendix A and RFC 7489 appendix C.
    """

    def test_everyWord(self) -> None:
        """
        Reports with any row are valid.
        """
        for format in ReportFormat:
            composed = document(format, everyRow())
            self.assertEqual(faults(composed, format), [], format)
            self.assertEqual(len(parsed(composed).findall("record")), len(everyRow()))

    def test_everyPolicy(self) -> None:
        """
        Reports on any published policy are valid.
        """
        rest = (
            {"sp": DMARCPolicy.NONE, "np": DMARCPolicy.QUARANTINE, "testing": True},
            {"adkim": Alignment.STRICT, "aspf": Alignment.STRICT, "percent": 0},
            {"fo": ("1", "d", "s"), "method": DiscoveryMethod.PSL},
        )
        for format, p, more in product(ReportFormat, DMARCPolicy, rest):
            published = replace(PublishedPolicy(A, p), **more)  # type: ignore[arg-type]
            composed = document(format, published=published)
            self.assertEqual(faults(composed, format), [], (format, published))

    def test_errors(self) -> None:
        """
        With one error, or many: RFC 9990 3.1.1.3 has one element for all, in
        RFC 7489 there is one for each.
        """
        for errors, old, new in [
            (("<a>",), ["<a>"], ["<a>"]),
            (("a", "b"), ["a", "b"], ["a; b"]),
            (("x" * 9999,), ["x" * MAX_ERROR_LENGTH], ["x" * MAX_ERROR_LENGTH]),
        ]:
            heading = replace(HEADING, errors=errors)
            for format, expected in [(OLD, old), (NEW, new)]:
                composed = document(format, heading=heading)
                self.assertEqual(faults(composed, format), [])
                found = texts(parsed(composed), "report_metadata/error")
                self.assertEqual(found, expected)

    @settings(max_examples=60, deadline=None)
    @given(text(characters(), max_size=30))
    def test_odd(self, odd: str) -> None:
        """
        With any names, the report is well-formed, and reads the same except for
        characters that XML 1.0 2.2 forbids.
        """
        signature = ReportedSignature(odd, odd, AuthResult.FAIL, odd)
        row = ReportRow(
            odd,
            Disposition.NONE,
            False,
            False,
            (Override(OverrideKind.OTHER, odd),),
            odd,
            odd,
            odd,
            (signature,),
            ReportedSPF(odd, "mfrom", AuthResult.NONE),
        )
        for format in ReportFormat:
            record = parsed(document(format, [(row, 1)])).find("record")
            assert record is not None
            (found,) = texts(record, "identifiers/header_from")
            self.assertEqual(len(found), len(odd))
            for ours, theirs in zip(odd, found, strict=True):
                self.assertIn(theirs, (ours, "\ufffd"))
            for path in ("auth_results/dkim/domain", "row/policy_evaluated/reason"):
                self.assertEqual(len(record.findall(path)), 1)

    def test_forbidden(self) -> None:
        """
        Characters allowed in XML are kept; others are replaced.
        """
        kept = "a&b<c>d\"e'\r\n\t ü \U0001f600 ]]> <!-- &amp;"
        for odd, expected in [
            (kept, kept),
            ("a\x00b\x0b\x1b\ud800\udfff\ufffe\uffff", "a" + "\ufffd" + "b"),
        ]:
            composed = document(rows=[(replace(ROW, headerFrom=odd), 1)])
            (found,) = texts(parsed(composed), "record/identifiers/header_from")
            self.assertEqual(found.rstrip("\ufffd"), expected)


class ContentTests(SynchronousTestCase):
    """
    The content of reports.
    """

    def test_metadata(self) -> None:
        """
        The reporting organization, the period, which ends with its last second, and
        the generator for bug reports (RFC 9990 3.1.1.3).
        """
        expected = {
            "org_name": "sender.example",
            "email": "postmaster@sender.example",
            "report_id": HEADING.reportID,
        }
        for format in ReportFormat:
            metadata = parsed(document(format)).find("report_metadata")
            found = children(metadata)
            for name, value in expected.items():
                self.assertEqual(found[name], value)
            assert metadata is not None
            span = children(metadata.find("date_range"))
            self.assertEqual(span, {"begin": "1795478400", "end": "1795564799"})
            self.assertEqual(
                found.get("generator"),
                f"moxtls/{__version__}" if format is NEW else None,
            )

    def test_published(self) -> None:
        """
        All that was published, and the defaults of the rest (RFC 9990
        3.1.1.5).
        """
        expected = {
            "domain": "a.example",
            "discovery_method": "treewalk",
            "p": "reject",
            "sp": "reject",
            "np": "reject",
            "adkim": "r",
            "aspf": "r",
            "fo": "0",
            "testing": "n",
        }
        root = parsed(document())
        self.assertEqual(children(root.find("policy_published")), expected)
        self.assertEqual(texts(root, "version"), ["1.0"])

    def test_subdomains(self) -> None:
        """
        Without C{np}, C{sp} applies to nonexistent subdomains (RFC 9989 4.7).
        """
        for sp, np, expected in [
            (DMARCPolicy.NONE, None, ("none", "none")),
            (DMARCPolicy.NONE, DMARCPolicy.REJECT, ("none", "reject")),
            (None, DMARCPolicy.NONE, ("reject", "none")),
        ]:
            published = replace(PUBLISHED, sp=sp, np=np)
            root = parsed(document(published=published))
            found = children(root.find("policy_published"))
            self.assertEqual((found["sp"], found["np"]), expected)

    def test_oldPublished(self) -> None:
        """
        Elements that only RFC 9990 has are left out; those that only RFC 7489 has are
        there.
        """
        published = replace(PUBLISHED, np=DMARCPolicy.NONE, testing=True, percent=50)
        found = children(parsed(document(OLD, published=published)).find(
            "policy_published"
        ))  # fmt: skip
        self.assertEqual(
            found,
            {
                "domain": "a.example",
                "adkim": "r",
                "aspf": "r",
                "p": "reject",
                "sp": "reject",
                "pct": "50",
                "fo": "0",
            },
        )

    def test_record(self) -> None:
        """
        A message in all its parts.
        """
        record = parsed(document(rows=[(ROW, 42)])).find("record")
        assert record is not None
        row = record.find("row")
        assert row is not None
        self.assertEqual(texts(row, "source_ip") + texts(row, "count"), [
            "192.0.2.1", "42",
        ])  # fmt: skip
        self.assertEqual(
            children(row.find("policy_evaluated")),
            {"disposition": "pass", "dkim": "pass", "spf": "fail"},
        )
        self.assertEqual(
            children(record.find("identifiers")),
            {
                "envelope_to": "sender.example",
                "envelope_from": "bounce.a.example",
                "header_from": "a.example",
            },
        )
        self.assertEqual(
            children(record.find("auth_results/dkim")),
            {"domain": "a.example", "selector": "s1", "result": "pass"},
        )
        self.assertEqual(
            children(record.find("auth_results/spf")),
            {"domain": "bounce.a.example", "scope": "mfrom", "result": "fail"},
        )

    def test_nullSender(self) -> None:
        """
        C{envelope_from} is present and empty (RFC 9990 3.1.1.10), and the HELO check
        counts as MAIL FROM (RFC 7208 2.4), which has a scope of its own in RFC 7489
        only.
        """
        spf = ReportedSPF("mail.a.example", "helo", AuthResult.PASS)
        row = replace(ROW, envelopeFrom="", spf=spf)
        for format, scope in [(NEW, "mfrom"), (OLD, "helo")]:
            root = parsed(document(format, [(row, 1)]))
            self.assertEqual(texts(root, "record/identifiers/envelope_from"), [""])
            found = children(root.find("record/auth_results/spf"))
            self.assertEqual((found["domain"], found["scope"]), (spf.domain, scope))

    def test_reasons(self) -> None:
        """
        An override type that one of the formats lacks is C{other}, with the type in
        the comment.
        """
        for kind, comment, new, old in [
            (OverrideKind.LOCAL_POLICY, "", ("local_policy", None), None),
            (OverrideKind.MAILING_LIST, "l", ("mailing_list", "l"), None),
            (OverrideKind.TRUSTED_FORWARDER, "", ("trusted_forwarder", None), None),
            (
                OverrideKind.POLICY_TEST_MODE,
                "t",
                ("policy_test_mode", "t"),
                ("other", "policy_test_mode: t"),
            ),
            (
                OverrideKind.POLICY_TEST_MODE,
                "",
                ("policy_test_mode", None),
                ("other", "policy_test_mode"),
            ),
            (
                OverrideKind.SAMPLED_OUT,
                "",
                ("other", "sampled_out"),
                ("sampled_out", None),
            ),
            (
                OverrideKind.FORWARDED,
                "f",
                ("other", "forwarded: f"),
                ("forwarded", "f"),
            ),
        ]:
            row = replace(ROW, reasons=(Override(kind, comment),))
            for format, expected in [(NEW, new), (OLD, old or new)]:
                root = parsed(document(format, [(row, 1)]))
                found = children(root.find("record/row/policy_evaluated/reason"))
                self.assertEqual((found["type"], found.get("comment")), expected)

    def test_old(self) -> None:
        """
        RFC 7489 knows no C{pass}, wants IPv6 without C{::}, and always a
        result of SPF.
        """
        row = replace(ROW, sourceIP="2001:db8::1", spf=None)
        root = parsed(document(OLD, [(row, 1)]))
        path = "record/row/policy_evaluated/disposition"
        self.assertEqual(texts(root, path), ["none"])
        self.assertEqual(
            texts(root, "record/row/source_ip"),
            ["2001:0db8:0000:0000:0000:0000:0000:0001"],
        )
        self.assertEqual(texts(root, "record/auth_results/spf/result"), ["none"])

    def test_languages(self) -> None:
        """
        Human-readable texts have a language attribute where RFC 9990 3.1.1 has it.
        """
        signature = ReportedSignature("a.example", "s", AuthResult.FAIL, "bad")
        reasons = (Override(OverrideKind.OTHER, "why"),)
        row = replace(ROW, dkim=(signature,), reasons=reasons)
        heading = replace(HEADING, errors=("e",))
        for format, expected in [(NEW, "en"), (OLD, None)]:
            root = parsed(document(format, [(row, 1)], heading))
            for path in (
                "report_metadata/error",
                "record/row/policy_evaluated/reason/comment",
                "record/auth_results/dkim/human_result",
            ):
                element = root.find(path)
                assert element is not None
                self.assertEqual(element.get("lang"), expected)

    def test_read(self) -> None:
        """
        L{parseAggregateReport} reads both formats.
        """
        for format in ReportFormat:
            report = parseAggregateReport(unpacked(document(format, everyRow())))
            self.assertEqual(report.domain, "a.example")
            self.assertEqual(report.messages, sum(count for _, count in everyRow()))
            self.assertEqual((report.start, report.end + 1), (
                HEADING.span.start, HEADING.span.end,
            ))  # fmt: skip

    def test_manySignatures(self) -> None:
        """
        Only the first hundred signatures are reported (RFC 9990 3.1.3).
        """
        many = tuple(
            ReportedSignature("a.example", f"s{number}", AuthResult.FAIL)
            for number in range(MAX_SIGNATURES + 50)
        )
        for format in ReportFormat:
            root = parsed(document(format, [(replace(ROW, dkim=many), 1)]))
            selectors = texts(root, "record/auth_results/dkim/selector")
            self.assertEqual(selectors, [f"s{n}" for n in range(MAX_SIGNATURES)])


class WriterTests(SynchronousTestCase):
    """
    Tests for L{AggregateWriter}.
    """

    def test_pieces(self) -> None:
        """
        The size of pages of rows doesn't matter; equal reports are equal octets,
        without timestamps.
        """
        rows = [(row, 1) for row in rowsFrom(1000)]
        writer = AggregateWriter(NEW, HEADING, PUBLISHED)
        for start in range(0, len(rows), 100):
            writer.add(rows[start : start + 100])
        composed = writer.finish()
        self.assertEqual(composed, document(rows=rows))
        self.assertEqual(writer.records, 1000)
        self.assertEqual(composed[4:8], bytes(4))
        self.assertEqual(len(counts(composed)), 1000)

    def test_full(self) -> None:
        """
        A report that has become too large takes no more rows, and is complete.
        """
        writer = AggregateWriter(NEW, HEADING, PUBLISHED, 5000)
        rows = [(row, 1) for row in rowsFrom(100)]
        for row in rows:
            writer.add([row])
        self.assertTrue(writer.isFull)
        composed = writer.finish()
        self.assertEqual(len(counts(composed)), writer.records)
        self.assertLess(len(unpacked(composed)), 6000)
