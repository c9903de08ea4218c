# -*- test-case-name: tests.ledger.test_receivedreports -*-
"""
Collects received reports, and writes them: each table with one statement, and each sum
once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from sqlalchemy import Connection

from moxtls.ledger.bounds import MAX_IP_LENGTH, MAX_NAME_LENGTH, clean
from moxtls.ledger.receivedtables import (
    receivedDetail,
    receivedDMARCDay,
    receivedDomain,
    receivedFailure,
    receivedOrganization,
    receivedPolicy,
    receivedRaw,
    receivedReport,
    receivedRow,
    receivedSource,
    receivedTLSDay,
)
from moxtls.ledger.receivedvalues import (
    MAX_REFUSED_RAW,
    MAX_ROW_DETAIL,
    MAX_TYPE_LENGTH,
    Cause,
    State,
    addCauses,
    boundedCount,
    countedPolicies,
    encodeNames,
    encodePolicy,
    encodePublished,
    monthOf,
    organizationName,
    organizationNumber,
)
from moxtls.ledger.tables import (
    BulkInsert,
    InsertMissing,
    Upsert,
    digest,
)
from moxtls.received.types import (
    AcceptedReport,
    Origin,
    ParsedReport,
    RawFormat,
    ReceivedKind,
    RowBlock,
    dayOf,
)

_ADD_REPORTS = BulkInsert(receivedReport)
_ADD_RAW = BulkInsert(receivedRaw)
_ADD_DOMAINS = BulkInsert(receivedDomain)
_ADD_POLICIES = BulkInsert(receivedPolicy)
_ADD_FAILURES = BulkInsert(receivedFailure)
_ADD_ROWS = BulkInsert(receivedRow)
_ADD_DETAILS = InsertMissing(receivedDetail)
_ADD_ORGANIZATIONS = Upsert(
    receivedOrganization, lambda old, new: {"reports": old.reports + new.reports}
)
_ADD_TLS_DAYS = Upsert(
    receivedTLSDay,
    lambda old, new: {
        "succeeded": old.succeeded + new.succeeded,
        "failed": old.failed + new.failed,
    },
)
_ADD_DMARC_DAYS = Upsert(
    receivedDMARCDay, lambda old, new: {"messages": old.messages + new.messages}
)
_ADD_SOURCES = Upsert(
    receivedSource, lambda old, new: {"messages": old.messages + new.messages}
)

Row = tuple[object, ...]
#: Messages or sessions, and those of them that failed.
Counts = tuple[int, int]
#: Domain, day, part, network, authenticated, outcome.
_SourceKey = tuple[str, int, int, str, str, int]


@dataclass(frozen=True, slots=True)
class Head:
    """
    What the store adds to a report.

    @ivar identity: C{None} unless it is accepted and complete.
    @ivar kind: Of something that couldn't be read.
    """

    state: State
    identity: bytes | None = None
    isVariant: bool = False
    refused: str = ""
    kind: str = ""
    rowCount: int = 0


@dataclass(slots=True)
class Batch:
    """
    What a transaction writes, by table.

    @ivar details: By month and digest.
    @ivar sources: An address, and the number of messages.
    """

    reports: list[Row] = field(default_factory=list)
    raw: list[Row] = field(default_factory=list)
    domains: list[Row] = field(default_factory=list)
    organizations: Counter[str] = field(default_factory=Counter)
    policies: list[Row] = field(default_factory=list)
    failures: list[Row] = field(default_factory=list)
    tlsDays: dict[tuple[str, int, str], list[int]] = field(default_factory=dict)
    rows: list[Row] = field(default_factory=list)
    details: dict[tuple[int, bytes], str] = field(default_factory=dict)
    dmarcDays: Counter[tuple[str, int, int]] = field(default_factory=Counter)
    sources: dict[_SourceKey, list[object]] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """
        The approximate number of rows of all tables.
        """
        return len(self.rows) + len(self.policies) + len(self.failures)

    def write(self, connection: Connection) -> None:
        """
        Write everything.
        """
        _ADD_REPORTS(connection, self.reports)
        _ADD_RAW(connection, self.raw)
        _ADD_DOMAINS(connection, sorted(self.domains))
        _ADD_ORGANIZATIONS(
            connection,
            [
                (organizationNumber(name), name, name.casefold(), count)
                for name, count in self.organizations.items()
            ],
        )
        _ADD_POLICIES(connection, self.policies)
        _ADD_FAILURES(connection, self.failures)
        _ADD_TLS_DAYS(
            connection,
            [(*key, *counts) for key, counts in sorted(self.tlsDays.items())],
        )
        _ADD_ROWS(connection, self.rows)
        # In the order of the index, for neighbours in the same page.
        _ADD_DETAILS(
            connection, [(*key, text) for key, text in sorted(self.details.items())]
        )
        _ADD_DMARC_DAYS(
            connection, [(*key, count) for key, count in self.dmarcDays.items()]
        )
        _ADD_SOURCES(
            connection,
            [(*key, *self.sources[key]) for key in sorted(self.sources)],
        )

    def addReport(
        self,
        number: int,
        accepted: AcceptedReport,
        identity: bytes,
        isVariant: bool,
    ) -> None:
        """
        Add a report with all that it contains.
        """
        report = accepted.report
        position = 0
        if report.kind is ReceivedKind.TLS:
            counts = self._addPolicies(number, accepted)
        else:
            counts = {clean(report.domain, MAX_NAME_LENGTH): totals(report)}
            for block in report.blocks:
                position = self.addBlock(number, 0, report, block, position)
        head = Head(State.ACCEPTED, identity, isVariant, rowCount=position)
        self.addHead(number, head, accepted.origin, report, counts, _sum(counts))
        self.addDomains(number, report.day, report, counts)

    def addHead(
        self,
        number: int,
        head: Head,
        origin: Origin,
        report: ParsedReport | None,
        domains: Iterable[str],
        whole: Counts,
    ) -> None:
        """
        Add a report itself and its raw form.

        @param domains: The policy domains.
        @param whole: The sum over them.
        """
        raw = report.raw if report else b""
        if head.state is State.REFUSED and len(raw) > MAX_REFUSED_RAW:
            raw = b""
        start, end = (report.start, report.end) if report else (0, 0)
        self.reports.append(
            (
                number,
                head.state,
                head.identity,
                report.content if report else b"",
                head.kind or (report.kind if report else ""),
                organizationName(report),
                clean(report.contact) if report else "",
                clean(report.reportID) if report else "",
                start,
                end,
                report.day if report else dayOf(origin.received),
                encodeNames(sorted(domains)),
                encodePublished(report.published if report else ()),
                *whole,
                origin.channel,
                clean(origin.sender),
                clean(origin.authentication),
                origin.received,
                clean(head.refused),
                head.isVariant,
                report.format if report else RawFormat.MESSAGE,
                len(raw),
                head.rowCount,
            )
        )
        if raw:
            self.raw.append((number, raw))

    def addDomains(
        self,
        number: int,
        day: int,
        report: ParsedReport | None,
        counts: Mapping[str, Counts],
        head: Head | None = None,
    ) -> None:
        """
        Make a report appear in lists and sums.

        @param counts: By policy domain.
        @param head: Of a refused one.
        """
        name = organizationName(report)
        self.organizations[name] += 1
        kind = report.kind if report else head.kind if head else ""
        organization = organizationNumber(name)
        for domain, both in [("", _sum(counts)), *counts.items()]:
            self.domains.append(
                (head is not None, domain, number, kind, day, organization, *both)
            )

    def _addPolicies(self, number: int, accepted: AcceptedReport) -> dict[str, Counts]:
        """
        Add the policies of a TLS report.

        @return: The sessions by policy domain.
        """
        day = accepted.report.day
        organization = organizationNumber(organizationName(accepted.report))
        counts: dict[str, Counts] = {}
        causes: dict[str, dict[Cause, int]] = {}
        for position, domain, policy in countedPolicies(accepted):
            succeeded, failed = map(boundedCount, (policy.succeeded, policy.failed))
            policyType = clean(policy.type, MAX_TYPE_LENGTH)
            before = counts.get(domain, (0, 0))
            counts[domain] = before[0] + succeeded + failed, before[1] + failed
            self.policies.append(
                (
                    domain,
                    day,
                    number,
                    position,
                    organization,
                    policyType,
                    succeeded,
                    failed,
                    encodePolicy(policy),
                )
            )
            sums = self.tlsDays.setdefault((domain, day, policyType), [0, 0])
            sums[0] += succeeded
            sums[1] += failed
            addCauses(causes.setdefault(domain, {}), policy)
        for domain, several in causes.items():
            for cause, sessions in several.items():
                key = digest(*cause)
                self.failures.append(
                    (domain, day, number, key, organization, *cause, sessions)
                )
        return counts

    def addBlock(
        self, number: int, part: int, report: ParsedReport, data: bytes, position: int
    ) -> int:
        """
        Add rows, and their sums.

        @param part: As in the table of sources.
        @param position: Of the first row.

        @return: The position after the last row.
        """
        block = RowBlock.decode(data)
        domain, day = clean(report.domain, MAX_NAME_LENGTH), report.day
        month = monthOf(day)
        rows, sources, days = self.rows, self.sources, self.dmarcDays
        for source, network, authenticated, outcome, detail, messages in block.rows:
            messages = boundedCount(messages)
            source = clean(source, MAX_IP_LENGTH)
            rows.append((number, position, source, outcome, messages, detail))
            position += 1
            days[domain, day, outcome] += messages
            key = (
                domain,
                day,
                part,
                clean(network, MAX_IP_LENGTH),
                clean(authenticated, MAX_NAME_LENGTH),
                outcome,
            )
            known = sources.get(key)
            if known is None:
                sources[key] = [source, messages]
            else:
                known[1] += messages  # type: ignore[operator]
        for each, text in block.details.items():
            if (month, each) not in self.details:
                self.details[month, each] = _detail(text)
        return position


def _detail(text: str) -> str:
    # The raw report has what is too long.
    return clean(text, MAX_ROW_DETAIL) if len(text) <= MAX_ROW_DETAIL else "{}"


def totals(report: ParsedReport) -> Counts:
    """
    Its messages or sessions, and those that failed, within the limits.
    """
    return boundedCount(report.total), boundedCount(report.failed)


def _sum(counts: Mapping[str, Counts]) -> Counts:
    return (
        sum(total for total, _ in counts.values()),
        sum(failed for _, failed in counts.values()),
    )
