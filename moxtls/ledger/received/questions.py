# -*- test-case-name: tests.ledger.received.test_store -*-
"""
Reads received reports: lists, rows, and sums over days.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    Select,
    and_,
    bindparam,
    func,
    not_,
    or_,
    select,
    text,
    tuple_,
)

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
    MONTH,
    State,
    decodeNames,
    decodePolicy,
    decodePublished,
)
from moxtls.received.types import (
    MAX_REPORTERS,
    Channel,
    DMARCDay,
    DMARCSource,
    Origin,
    RawFormat,
    ReceivedKind,
    Reporter,
    ReportFilter,
    RowOutcome,
    StoredDMARCRow,
    StoredReport,
    TLSDay,
    TLSFailureGroup,
    TLSRow,
)

_r = receivedReport.c
_d = receivedDomain.c
_o = receivedOrganization.c
_p = receivedPolicy.c
_f = receivedFailure.c
_t = receivedTLSDay.c
_w = receivedRow.c
_e = receivedDetail.c
_m = receivedDMARCDay.c
_s = receivedSource.c

#: Outcomes below this did not pass.
_PASSED = int(RowOutcome.DKIM)

_REPORTS = (
    select(receivedReport)
    .where(
        _r.number.in_(bindparam("numbers", expanding=True)),
        _r.state.in_((State.ACCEPTED, State.REFUSED)),
    )
    .order_by(_r.number.desc())
)
_RAW = (
    select(receivedRaw.c.content)
    .join(receivedReport, _r.number == receivedRaw.c.report)
    .where(
        _r.number == bindparam("number"),
        _r.state.in_((State.ACCEPTED, State.REFUSED)),
    )
)
# From each domain to the next, as there are many reports of each.
_DOMAINS = text(
    """
    WITH RECURSIVE kinds(kind) AS (VALUES ('tls'), ('dmarc'), ('failure')),
    found(kind, domain) AS (
        SELECT kind, (
            SELECT min(other.domain) FROM received_domain AS other
            WHERE other.kind = kinds.kind AND other.domain > ''
        ) FROM kinds
        UNION ALL
        SELECT kind, (
            SELECT min(other.domain) FROM received_domain AS other
            WHERE other.kind = found.kind AND other.domain > found.domain
        ) FROM found WHERE found.domain IS NOT NULL
    )
    SELECT DISTINCT domain FROM found WHERE EXISTS (
        SELECT 1 FROM received_domain AS result
        WHERE result.kind = found.kind AND result.domain = found.domain
        AND result.day BETWEEN :first AND :last AND NOT result.refused
    )
    """
)
_TLS_DAYS = (
    select(_t.day, _t.policy_type, _t.succeeded, _t.failed)
    .where(
        _t.domain == bindparam("domain"),
        _t.day.between(bindparam("first"), bindparam("last")),
    )
    .order_by(_t.day, _t.policy_type)
)
_DMARC_DAYS = (
    select(_m.day, _m.outcome, _m.messages)
    .where(
        _m.domain == bindparam("domain"),
        _m.day.between(bindparam("first"), bindparam("last")),
    )
    .order_by(_m.day, _m.outcome)
)
_FAILURES_OF_DOMAIN = and_(
    _f.domain == bindparam("domain"),
    _f.day.between(bindparam("first"), bindparam("last")),
)
_CAUSES = (
    select(
        _f.cause,
        func.min(_f.policy_type),
        func.min(_f.result_type),
        func.min(_f.reason_code),
        func.min(_f.mx_host),
        func.min(_f.receiving_ip),
        func.sum(_f.sessions).label("sessions"),
        func.min(_f.day),
        func.max(_f.day),
    )
    .where(_FAILURES_OF_DOMAIN)
    .group_by(_f.cause)
    .order_by(text("sessions DESC"), _f.cause)
    .limit(bindparam("limit"))
)
_OF_CAUSES = and_(
    _FAILURES_OF_DOMAIN, _f.cause.in_(bindparam("causes", expanding=True))
)
_REPORTERS_OF_CAUSES = (
    select(_f.cause, func.min(_o.name).label("name"))
    .join(receivedOrganization, _o.number == _f.organization)
    .where(_OF_CAUSES)
    .group_by(_f.cause, _f.organization)
    .order_by(func.sum(_f.sessions).desc(), text("name"))
)
_LATEST_OF_CAUSES = (
    select(
        _f.cause,
        _f.report,
        func.row_number()
        .over(partition_by=_f.cause, order_by=_f.report.desc())
        .label("rank"),
    )
    .where(_OF_CAUSES)
    .subquery()
)
_REPORTS_OF_CAUSES = (
    select(_LATEST_OF_CAUSES.c.cause, _LATEST_OF_CAUSES.c.report)
    .where(_LATEST_OF_CAUSES.c.rank <= MAX_REPORTERS)
    .order_by(_LATEST_OF_CAUSES.c.report.desc())
)
# First the sums, then what they are of, as few are wanted.
_MOST = (
    select(
        _s.key,
        func.sum(_s.messages).label("messages"),
        func.min(_s.day).label("first"),
        func.max(_s.day).label("last"),
    )
    .where(
        _s.domain == bindparam("domain"),
        _s.day.between(bindparam("first"), bindparam("last")),
        # Looking for each part takes as long as adding up.
        or_(
            _s.part == 0,
            _s.part.not_in(
                select(_r.number).where(
                    text("received_report.state > 0"),
                    _r.state.in_((State.INCOMPLETE, State.ABANDONED)),
                )
            ),
        ),
    )
    .group_by(_s.key)
    .order_by(text("messages DESC"), _s.key)
    .limit(bindparam("limit"))
    .subquery("most")
)
_SOURCES = (
    select(
        _s.network,
        func.max(_s.source),
        _s.authenticated,
        _s.outcome,
        _MOST.c.messages,
        _MOST.c.first,
        _MOST.c.last,
    )
    .join(_MOST, and_(_s.day == _MOST.c.first, _s.key == _MOST.c.key))
    .where(_s.domain == bindparam("domain"))
    .group_by(
        _s.network,
        _s.authenticated,
        _s.outcome,
        _MOST.c.messages,
        _MOST.c.first,
        _MOST.c.last,
    )
    .order_by(_MOST.c.messages.desc(), _s.network, _s.authenticated, _s.outcome)
)
_REPORTERS = (
    select(
        func.min(_o.name).label("name"),
        func.count().label("reports"),
        func.sum(_d.total).label("sum"),
        func.sum(_d.failed),
        func.min(_d.day),
        func.max(_d.day),
    )
    .join(receivedOrganization, _o.number == _d.organization)
    .where(
        _d.kind == bindparam("kind"),
        _d.domain == bindparam("domain"),
        _d.day.between(bindparam("first"), bindparam("last")),
        not_(_d.refused),
    )
    .group_by(_d.organization)
    .order_by(text("sum DESC, name"))
    .limit(bindparam("limit"))
)


def reports(
    connection: Connection, filter: ReportFilter, limit: int, before: int | None
) -> tuple[StoredReport, ...]:
    """
    As L{moxtls.received.interfaces.IReceivedReportStore.reports}.
    """
    numbers: list[int] = []
    if not _isKnown(connection, filter):
        return ()
    for refused in (False, True) if filter.refused is None else (filter.refused,):
        query = (
            select(_d.report)
            .where(
                _d.refused == refused,
                _d.domain == filter.domain,
                *_conditions(filter, _d.day, _d.organization, _d.has_failures),
            )
            .order_by(_d.report.desc())
            .limit(limit)
        )
        if before is not None:
            query = query.where(_d.report < before)
        if filter.kind is not None:
            query = query.where(_d.kind == filter.kind)
        numbers.extend(connection.scalars(query))
    numbers.sort(reverse=True)
    return storedReports(connection, numbers[:limit])


def storedReports(
    connection: Connection, numbers: Sequence[int]
) -> tuple[StoredReport, ...]:
    """
    Reports by their numbers, those with the highest first.
    """
    found = connection.execute(_REPORTS, {"numbers": list(numbers)})
    return tuple(map(_stored, found))


def raw(connection: Connection, number: int) -> bytes | None:
    """
    As L{moxtls.received.interfaces.IReceivedReportStore.raw}.
    """
    content = connection.execute(_RAW, {"number": number}).scalar()
    return None if content is None else bytes(content)


def domains(connection: Connection, first: int, last: int) -> tuple[str, ...]:
    """
    As L{moxtls.received.interfaces.IReceivedReportStore.domains}.
    """
    found = connection.execute(_DOMAINS, {"first": first, "last": last})
    return tuple(sorted(domain for (domain,) in found))


def tlsDays(
    connection: Connection, domain: str, first: int, last: int
) -> tuple[TLSDay, ...]:
    """
    As L{moxtls.received.interfaces.IReceivedReportStore.tlsDays}.
    """
    given = {"domain": domain, "first": first, "last": last}
    return tuple(TLSDay(*each) for each in connection.execute(_TLS_DAYS, given))


def tlsFailures(
    connection: Connection, domain: str, first: int, last: int, limit: int
) -> tuple[TLSFailureGroup, ...]:
    """
    As L{moxtls.received.interfaces.IReceivedReportStore.tlsFailures}.
    """
    given: dict[str, object] = {"domain": domain, "first": first, "last": last}
    found = connection.execute(_CAUSES, given | {"limit": limit}).all()
    given["causes"] = [each[0] for each in found]
    reporters: dict[bytes, list[str]] = defaultdict(list)
    numbers: dict[bytes, list[int]] = defaultdict(list)
    if found:
        for cause, name in connection.execute(_REPORTERS_OF_CAUSES, given):
            reporters[bytes(cause)].append(name)
        for cause, number in connection.execute(_REPORTS_OF_CAUSES, given):
            numbers[bytes(cause)].append(number)
    return tuple(
        TLSFailureGroup(
            policyType,
            resultType,
            reasonCode,
            mxHost,
            receivingIP,
            int(sessions),
            firstDay,
            lastDay,
            tuple(reporters[bytes(cause)][:MAX_REPORTERS]),
            tuple(numbers[bytes(cause)]),
        )
        for (
            cause,
            policyType,
            resultType,
            reasonCode,
            mxHost,
            receivingIP,
            sessions,
            firstDay,
            lastDay,
        ) in found
    )


def dmarcDays(
    connection: Connection, domain: str, first: int, last: int
) -> tuple[DMARCDay, ...]:
    """
    As L{moxtls.received.interfaces.IReceivedReportStore.dmarcDays}.
    """
    given = {"domain": domain, "first": first, "last": last}
    return tuple(
        DMARCDay(day, RowOutcome(outcome), messages)
        for day, outcome, messages in connection.execute(_DMARC_DAYS, given)
    )


def dmarcSources(
    connection: Connection, domain: str, first: int, last: int, limit: int
) -> tuple[DMARCSource, ...]:
    """
    As L{moxtls.received.interfaces.IReceivedReportStore.dmarcSources}.
    """
    given = {"domain": domain, "first": first, "last": last, "limit": limit}
    return tuple(
        DMARCSource(
            network, source, authenticated, RowOutcome(outcome), int(messages), *days
        )
        for network, source, authenticated, outcome, messages, *days in (
            connection.execute(_SOURCES, given)
        )
    )


def reporters(
    connection: Connection,
    kind: ReceivedKind,
    domain: str,
    first: int,
    last: int,
    limit: int,
) -> tuple[Reporter, ...]:
    """
    As L{moxtls.received.interfaces.IReceivedReportStore.reporters}.
    """
    given = {
        "kind": kind,
        "domain": domain,
        "first": first,
        "last": last,
        "limit": limit,
    }
    return tuple(
        Reporter(name, count, int(total), int(failed), firstDay, lastDay)
        for name, count, total, failed, firstDay, lastDay in connection.execute(
            _REPORTERS, given
        )
    )


def tlsRows(
    connection: Connection, filter: ReportFilter, limit: int, after: TLSRow | None
) -> tuple[TLSRow, ...]:
    """
    As L{moxtls.received.interfaces.IReceivedReportStore.tlsRows}.
    """
    query = (
        select(
            _p.report,
            _o.name,
            _p.day,
            _p.position,
            _p.policy_type,
            _p.domain,
            _p.succeeded,
            _p.failed,
            _p.content,
        )
        .join(receivedOrganization, _o.number == _p.organization)
        .where(*_conditions(filter, _p.day, _p.organization, _p.has_failures))
        .order_by(_p.domain, _p.day, _p.report, _p.position)
        .limit(limit)
    )
    if filter.domain:
        query = query.where(_p.domain == filter.domain)
    if after is not None:
        last = after.policy.domain, after.day, after.report, after.position
        query = query.where(tuple_(_p.domain, _p.day, _p.report, _p.position) > last)
    if not _wants(connection, filter, ReceivedKind.TLS):
        return ()
    return tuple(
        TLSRow(report, name, day, decodePolicy(*policy), position)
        for report, name, day, position, *policy in connection.execute(query)
    )


def dmarcRows(
    connection: Connection,
    filter: ReportFilter,
    limit: int,
    after: StoredDMARCRow | None,
) -> tuple[StoredDMARCRow, ...]:
    """
    As L{moxtls.received.interfaces.IReceivedReportStore.dmarcRows}.
    """
    if not _wants(connection, filter, ReceivedKind.DMARC):
        return ()
    query = _rowQuery(filter, limit)
    if after is not None:
        place = after.domain, after.day, after.report
        query = query.where(
            tuple_(_d.domain, _d.day, _d.report) >= place,
            or_(_w.report != after.report, _w.position > after.position),
        )
    return tuple(
        StoredDMARCRow(
            report,
            name,
            domain,
            day,
            source,
            RowOutcome(outcome),
            messages,
            detail or "{}",
            position,
        )
        for report, name, domain, day, source, outcome, messages, detail, position in (
            connection.execute(query)
        )
    )


def _rowQuery(filter: ReportFilter, limit: int) -> Select[Any]:
    query = (
        select(
            _d.report,
            _o.name,
            _d.domain,
            _d.day,
            _w.source,
            _w.outcome,
            _w.messages,
            _e.content,
            _w.position,
        )
        .join(receivedRow, _w.report == _d.report)
        .join(receivedOrganization, _o.number == _d.organization)
        .outerjoin(
            receivedDetail,
            and_(_e.month == _d.day // MONTH, _e.digest == _w.detail),
        )
        .where(
            _d.kind == ReceivedKind.DMARC,
            not_(_d.refused),
            _d.domain == filter.domain if filter.domain else _d.domain > "",
            *_conditions(filter, _d.day, _d.organization, _d.has_failures),
        )
        .order_by(_d.domain, _d.day, _d.report, _w.position)
        .limit(limit)
    )
    return query.where(_w.outcome < _PASSED) if filter.onlyFailures else query


def _wants(connection: Connection, filter: ReportFilter, kind: ReceivedKind) -> bool:
    """
    True if rows of accepted reports of that kind may fulfil C{filter}.
    """
    isWanted = filter.kind in (None, kind) and filter.refused is not True
    return isWanted and _isKnown(connection, filter)


def _isKnown(connection: Connection, filter: ReportFilter) -> bool:
    """
    True if an organization may fulfil C{filter}.  Else no report does, and looking at
    all of them would take longest.
    """
    query = _organizations(filter).limit(1)
    return not filter.organization or connection.execute(query).first() is not None


def _organizations(filter: ReportFilter) -> Select[Any]:
    folded = filter.organization.casefold()
    return select(_o.number).where(_o.folded.contains(folded, autoescape=True))


def _conditions(
    filter: ReportFilter,
    day: ColumnElement[int],
    organization: ColumnElement[int],
    hasFailures: ColumnElement[bool],
) -> Iterable[ColumnElement[bool]]:
    """
    The conditions on columns that several tables have.
    """
    if filter.first is not None:
        yield day >= filter.first
    if filter.last is not None:
        yield day <= filter.last
    if filter.organization:
        yield organization.in_(_organizations(filter))
    if filter.onlyFailures:
        yield hasFailures


def _stored(row: Row[Any]) -> StoredReport:
    origin = Origin(Channel(row.channel), row.sender, row.authentication, row.received)
    return StoredReport(
        row.number,
        ReceivedKind(row.kind) if row.kind else None,
        row.organization,
        row.contact,
        row.report_id,
        row.period_start,
        row.period_end,
        decodeNames(row.domains),
        row.total,
        row.failed,
        origin,
        row.refused,
        row.is_variant,
        RawFormat(row.format),
        row.size,
        decodePublished(row.published),
    )
