# -*- test-case-name: tests.ledger.received.test_store -*-
"""
Collects received reports, and writes them: each table with one statement, and each sum
once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from sqlalchemy import Connection

from moxtls.ledger.bounds import MAX_IP_LENGTH, MAX_NAME_LENGTH, clean
from moxtls.ledger.received.tables import (
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
from moxtls.ledger.received.values import (
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
    sourceKey,
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
    A report without what it contains.

    @ivar report: C{None} if it couldn't be read.
    @ivar counts: By policy domain; of a refused one, all are those of the whole.
    @ivar failing: Policy domains with failures, also if no session of them failed.
    @ivar identity: C{None} unless it is accepted and complete.
    @ivar refused: The reason.
    @ivar readKind: Of one that couldn't be read, if known.
    """

    number: int
    state: State
    origin: Origin
    report: ParsedReport | None
    counts: Mapping[str, Counts]
    identity: bytes | None = None
    isVariant: bool = False
    refused: str = ""
    readKind: str = ""
    rowCount: int = 0
    failing: Collection[str] = ()

    @property
    def kind(self) -> str:
        """
        Empty if unknown.
        """
        return self.report.kind if self.report else self.readKind

    @property
    def day(self) -> int:
        """
        The day that it belongs to.
        """
        return self.report.day if self.report else dayOf(self.origin.received)

    @property
    def whole(self) -> Counts:
        """
        Its messages or sessions in all, as far as they are counted.
        """
        counts = self.counts.values()
        if self.state is State.REFUSED:
            return totals(self.report)
        return sum(each[0] for each in counts), sum(each[1] for each in counts)


@dataclass(slots=True)
class Batch:
    """
    The rows that a transaction writes, by table.

    @ivar details: By month and digest.
    @ivar sources: Messages.
    @ivar addresses: One of the addresses of each source.
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
    sources: dict[_SourceKey, int] = field(default_factory=dict)
    addresses: dict[_SourceKey, str] = field(default_factory=dict)

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
            sorted(self._sourceRow(key, count) for key, count in self.sources.items()),
        )

    def _sourceRow(self, key: _SourceKey, count: int) -> Row:
        domain, day = key[:2]
        return domain, day, sourceKey(*key[3:]), *key[2:], self.addresses[key], count

    def addReport(
        self, number: int, accepted: AcceptedReport, identity: bytes, isVariant: bool
    ) -> None:
        """
        Add a report with all that it contains.
        """
        report, origin = accepted.report, accepted.origin
        position, failing = 0, frozenset[str]()
        if report.kind is ReceivedKind.TLS:
            counts, failing = self._addPolicies(number, accepted)
        else:
            counts = countsByDomain(report)
            for block in report.blocks if counts else ():
                position = self.addBlock(number, 0, report, block, position)
        head = Head(
            number,
            State.ACCEPTED,
            origin,
            report,
            counts,
            identity,
            isVariant,
            rowCount=position,
            failing=failing,
        )
        self.addHead(head)
        self.addDomains(head)

    def addHead(self, head: Head) -> None:
        """
        Add a report itself and its raw form.
        """
        report, origin = head.report, head.origin
        raw = report.raw if report else b""
        if head.state is State.REFUSED and len(raw) > MAX_REFUSED_RAW:
            raw = b""
        self.reports.append(
            (
                head.number,
                head.state,
                head.identity,
                report.content if report else b"",
                head.kind,
                organizationName(report),
                clean(report.contact) if report else "",
                clean(report.reportID) if report else "",
                report.start if report else 0,
                report.end if report else 0,
                head.day,
                encodeNames(sorted(head.counts)),
                encodePublished(report.published if report else ()),
                *head.whole,
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
            self.raw.append((head.number, raw))

    def addDomains(self, head: Head) -> None:
        """
        Make a report appear in lists and sums.
        """
        name = organizationName(head.report)
        self.organizations[name] += 1
        organization = organizationNumber(name)
        isRefused = head.state is State.REFUSED
        for domain, counts in (("", head.whole), *head.counts.items()):
            self.domains.append(
                (
                    isRefused,
                    domain,
                    head.number,
                    head.kind,
                    head.day,
                    organization,
                    *counts,
                    bool(
                        counts[1]
                        or (domain in head.failing if domain else head.failing)
                    ),
                )
            )

    def _addPolicies(
        self, number: int, accepted: AcceptedReport
    ) -> tuple[dict[str, Counts], frozenset[str]]:
        """
        Add the policies of a TLS report.

        @return: The sessions by policy domain, and the domains with failures.
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
                    bool(failed or policy.failures),
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
        return counts, frozenset(domain for domain, each in causes.items() if each)

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
            if key in sources:
                sources[key] += messages
            else:
                sources[key] = messages
                self.addresses[key] = source
        for each, text in block.details.items():
            if (month, each) not in self.details:
                self.details[month, each] = _detail(text)
        return position


def _detail(text: str) -> str:
    # The raw report has what is too long.
    return clean(text, MAX_ROW_DETAIL) if len(text) <= MAX_ROW_DETAIL else "{}"


def totals(report: ParsedReport | None) -> Counts:
    """
    The messages or sessions of a report, and those that failed, within the limits.
    """
    if report is None:
        return 0, 0
    return boundedCount(report.total), boundedCount(report.failed)


def countsByDomain(report: ParsedReport) -> dict[str, Counts]:
    """
    The messages of a DMARC or failure report by its policy domain; empty if it has
    none.
    """
    domain = clean(report.domain, MAX_NAME_LENGTH)
    return {domain: totals(report)} if domain else {}
