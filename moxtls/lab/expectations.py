# -*- test-case-name: tests.lab.test_scenario -*-
"""
The reports that must arrive in the lab, field by field, and comparison with those that
did. No I/O.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from datetime import date
from email import message_from_bytes
from email.parser import BytesHeaderParser
from email.utils import parseaddr, parsedate_to_datetime

import dkim

from moxtls.dates import DAY, HOUR, Span, spanOfDay
from moxtls.dmarc.parse import (
    ReceivedAggregateReport,
    ReceivedReason,
    ReceivedRecord,
    ReceivedSignature,
    ReceivedSPF,
)
from moxtls.lab.keys import ED25519_SELECTOR, RSA_SELECTOR
from moxtls.lab.messages import LabMessage
from moxtls.lab.network import Arrival, Network
from moxtls.lab.plan import mailHosts, policyHosts, policyText
from moxtls.lab.scenario import (
    HOST_REPORT_ADDRESS,
    REPORT_ADDRESS,
    SENDER,
    SHARED_HOST,
    TLD,
    ExpectedFailure,
    ExpectedPolicy,
    LabDestination,
)
from moxtls.lab.senders import BY_NAME, Published, Sender, addressOf
from moxtls.reportfiles import readReport
from moxtls.tlsrpt.parse import (
    MalformedReport,
    ReceivedFailure,
    ReceivedPolicy,
    ReceivedTLSReport,
    readTLSReport,
)
from moxtls.tlsrpt.types import PolicyType

#: The source address that Linux chooses for connections within 127.0.0.0/8.
SENDING_IP = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Facts:
    """
    Values in reports that depend on the run.

    @ivar tlsa: As L{moxtls.lab.plan.Publication.tlsa}.
    """

    network: Network
    destinations: tuple[LabDestination, ...]
    tlsa: Mapping[str, tuple[str, ...]]


Policies = tuple[ReceivedPolicy, ...]


def expectedReports(facts: Facts) -> dict[str, Policies]:
    """
    The policies in the report for each policy domain, in the order of L{inOrder}.

    Each recipient domain gets a report, and so does the host that has a TLSRPT record
    of its own.
    """
    reports = {
        each.domain: inOrder(_aboutDomain(facts, each)) for each in facts.destinations
    }
    shared = [each for each in facts.destinations if each.sharedHost == SHARED_HOST]
    if shared:
        reports[SHARED_HOST] = inOrder([_aboutHost(facts, each) for each in shared])
    return reports


def inOrder(policies: Sequence[ReceivedPolicy]) -> Policies:
    """
    Sort into a canonical order: the order within a report has no meaning.
    """
    sorted_ = [
        replace(each, failures=tuple(sorted(each.failures, key=repr)))
        for each in policies
    ]
    return tuple(
        sorted(sorted_, key=lambda each: (each.domain, each.type, each.strings))
    )


def _aboutDomain(facts: Facts, destination: LabDestination) -> list[ReceivedPolicy]:
    policies = [_policy(facts, destination, destination.recipient, destination.domain)]
    if destination.host is not None:
        policies.append(_policy(facts, destination, destination.host, destination.mx))
    return policies


def _aboutHost(facts: Facts, destination: LabDestination) -> ReceivedPolicy:
    """
    The report to the operator of a host names the affected recipient domains.
    """
    assert destination.host is not None
    policy = _policy(facts, destination, destination.host, destination.domain)
    return replace(policy, mxHosts=(destination.mx,))


def _policy(
    facts: Facts, destination: LabDestination, expected: ExpectedPolicy, domain: str
) -> ReceivedPolicy:
    text = policyText(destination)
    strings: tuple[str, ...] = ()
    mxHosts: tuple[str, ...] = ()
    if expected.type is PolicyType.STS and text and not expected.empty:
        strings = tuple(text.decode("ascii").splitlines())
        mxHosts = policyHosts(destination)
    if expected.type is PolicyType.TLSA and not expected.empty:
        strings = tuple(sorted(facts.tlsa[destination.mx]))
    failures = [_failure(facts, destination, each) for each in expected.failures]
    return ReceivedPolicy(
        type=str(expected.type),
        domain=domain,
        strings=strings,
        mxHosts=mxHosts,
        succeeded=expected.succeeded,
        failed=expected.failed,
        failures=tuple(failures),
    )


def _failure(
    facts: Facts, destination: LabDestination, expected: ExpectedFailure
) -> ReceivedFailure:
    host = destination.mx
    addresses = {
        each.name: each.address for each in mailHosts(facts.network, facts.destinations)
    }
    session = expected.inSession
    return ReceivedFailure(
        resultType=str(expected.type),
        count=expected.sessions,
        reasonCode=expected.reason,
        sendingIP=SENDING_IP if session else "",
        mxHostname=host if expected.namesHost else "",
        mxHELO=host if session else "",
        receivingIP=addresses[host] if session else "",
    )


#: What is said of a signature over a message that a list has changed.
BROKEN = "the body was changed"


@dataclass(frozen=True, slots=True)
class ExpectedAggregate:
    """
    An aggregate report that must arrive.

    @ivar domain: The policy domain.
    @ivar recipient: The address of the report.
    @ivar hours: The length of its period.
    @ivar published: Names and values, in any order.
    @ivar records: In any order.
    """

    domain: str
    recipient: str
    hours: int
    errors: tuple[str, ...]
    published: tuple[tuple[str, str], ...]
    records: tuple[ReceivedRecord, ...]


#: By policy domain and recipient.
ExpectedAggregates = dict[tuple[str, str], ExpectedAggregate]


def expectedAggregates(
    network: Network, labMessages: Sequence[LabMessage]
) -> ExpectedAggregates:
    """
    The reports that must arrive after each of C{labMessages} was received once.
    """
    owed: ExpectedAggregates = {}
    for name in dict.fromkeys(each.expected.policy for each in labMessages):
        sender = BY_NAME.get(name)
        if sender is None or sender.published is None:
            continue
        about = [each for each in labMessages if each.expected.policy == name]
        records = counted(_record(network, each) for each in about)
        published = quoted(sender.published)
        for recipient in sender.told:
            owed[sender.domain, recipient] = ExpectedAggregate(
                sender.domain,
                recipient,
                sender.hours,
                sender.errors,
                published,
                records,
            )
    return owed


def quoted(published: Published) -> tuple[tuple[str, str], ...]:
    """
    C{policy_published} (RFC 9990 3.1.1.5), without the domain.
    """
    return (
        ("discovery_method", "treewalk"),
        ("p", published.p),
        ("sp", published.sp),
        ("np", published.np),
        ("adkim", "r"),
        ("aspf", "r"),
        ("fo", "0"),
        ("testing", published.testing),
    )


def counted(records: Iterable[ReceivedRecord]) -> tuple[ReceivedRecord, ...]:
    """
    Merge equal records, with their number.
    """
    return tuple(
        replace(record, count=count) for record, count in Counter(records).items()
    )


def _record(network: Network, labMessage: LabMessage) -> ReceivedRecord:
    expected, client = labMessage.expected, BY_NAME[labMessage.client]
    checked = labMessage.envelope or client.host
    return ReceivedRecord(
        sourceIP=addressOf(network, client),
        count=1,
        disposition=expected.reported,
        dkimAligned=_word("dkim" in expected.aligned),
        spfAligned=_word("spf" in expected.aligned),
        reasons=tuple(ReceivedReason(*each) for each in expected.reasons),
        headerFrom=labMessage.author,
        envelopeFrom=labMessage.envelope,
        envelopeTo=SENDER,
        dkim=_signatures(labMessage),
        spf=(ReceivedSPF(checked, "mfrom", expected.spf),),
    )


def _signatures(labMessage: LabMessage) -> tuple[ReceivedSignature, ...]:
    """
    All signatures, in the order of RFC 9990 3.1.3.
    """
    selectors = {
        domain: iter(_selectors(BY_NAME[domain.removesuffix(f".{TLD}")]))
        for domain, _ in labMessage.expected.dkim
    }
    found = [
        ReceivedSignature(
            domain, next(selectors[domain]), result, "" if result == "pass" else BROKEN
        )
        for domain, result in labMessage.expected.dkim
    ]
    policy = BY_NAME[labMessage.expected.policy].domain
    return tuple(sorted(found, key=lambda each: _rank(each, labMessage.author, policy)))


def _rank(signature: ReceivedSignature, author: str, policy: str) -> int:
    if signature.result != "pass":
        return 3
    return [author, policy, signature.domain].index(signature.domain)


def _selectors(sender: Sender) -> tuple[str, ...]:
    """
    In the order of signatures, from the top.
    """
    if sender.signsTwice:
        return (ED25519_SELECTOR, RSA_SELECTOR)
    return (ED25519_SELECTOR,)


def _word(passes: bool) -> str:
    return "pass" if passes else "fail"


#: Signatures looked at in one message.
MAX_SIGNATURES = 10


@dataclass(frozen=True, slots=True)
class ArrivedReport:
    """
    A TLS report that arrived.

    @ivar domain: The policy domain it is for.
    @ivar signatures: By selector, whether each DKIM signature is valid; empty for a
        report that was posted.
    """

    domain: str
    report: ReceivedTLSReport
    arrival: Arrival
    signatures: Mapping[str, bool]


def isReport(arrival: Arrival) -> bool:
    """
    True if it arrived at an address for TLS reports.
    """
    posted = arrival.recipient.startswith("https:")
    return posted or arrival.recipient in (REPORT_ADDRESS, HOST_REPORT_ADDRESS)


def arrivedReport(
    arrival: Arrival, dkimRecords: Mapping[str, str]
) -> ArrivedReport | None:
    """
    @return: C{None} if it can't be read.
    """
    try:
        report = readTLSReport(arrival.content)
    except MalformedReport:
        return None
    signatures: Mapping[str, bool] = {}
    if arrival.recipient.startswith("https:"):
        domain = arrival.recipient.rpartition("/")[2]
    else:
        header = BytesHeaderParser().parsebytes(arrival.content)
        domain = str(header["TLS-Report-Domain"])
        signatures = checkedSignatures(arrival.content, dkimRecords)
    return ArrivedReport(domain, report, arrival, signatures)


def checkedSignatures(message: bytes, records: Mapping[str, str]) -> dict[str, bool]:
    """
    Verify each DKIM signature; the results by selector.

    @param records: By selector, the contents of key records.
    """
    return dict(_dkimSignatures(message, records))


def _dkimSignatures(
    message: bytes, records: Mapping[str, str]
) -> Iterator[tuple[str, bool]]:
    def lookup(name: bytes, timeout: float = 0) -> bytes:
        return records.get(name.decode("ascii").partition(".")[0], "").encode("ascii")

    signed = dkim.DKIM(message, tlsrpt=True)
    names = [name.lower() for name, _ in signed.headers]
    for number in range(min(names.count(b"dkim-signature"), MAX_SIGNATURES)):
        try:
            holds = bool(signed.verify(number, lookup))
        except dkim.DKIMException:
            holds = False
        yield (signed.selector or b"?").decode("ascii", "replace"), holds


def differences(
    arrived: Sequence[ArrivedReport],
    expected: Mapping[str, Policies],
    day: date,
    selectors: Sequence[str],
) -> list[str]:
    """
    Differences from the expected report, one line each.

    @param selectors: Those that must have signed reports by mail.
    """
    counts = Counter(each.domain for each in arrived)
    found = [
        f"{domain}: {count} reports instead of one"
        for domain, count in sorted(counts.items())
        if count > 1
    ]
    found += [f"{domain}: no report" for domain in expected if domain not in counts]
    for each in arrived:
        if each.domain not in expected:
            found.append(f"{each.domain}: an unrequested report")
            continue
        found += _inHeading(each, day)
        found += _inSignatures(each, selectors)
        found += _inPolicies(each, expected[each.domain])
    return found


def _inHeading(arrived: ArrivedReport, day: date) -> Iterator[str]:
    span = spanOfDay(day)
    report = arrived.report
    expected = {
        "organization-name": (report.organization, SENDER),
        "contact-info": (report.contact, f"postmaster@{SENDER}"),
        "start-datetime": (report.start, span.start),
        "end-datetime": (report.end, span.last),
    }
    for name, (is_, should) in expected.items():
        if is_ != should:
            yield f"{arrived.domain}: {name} is {is_}, not {should}"


def _inSignatures(arrived: ArrivedReport, selectors: Sequence[str]) -> Iterator[str]:
    if arrived.arrival.recipient.startswith("https:"):
        return
    for selector in selectors:
        if not arrived.signatures.get(selector):
            yield f"{arrived.domain}: no valid DKIM signature by {selector}"


def _inPolicies(arrived: ArrivedReport, expected: Policies) -> Iterator[str]:
    policies = inOrder(arrived.report.policies)
    if len(policies) != len(expected):
        yield f"{arrived.domain}: {len(policies)} policies, not {len(expected)}"
        return
    for is_, should in zip(policies, expected, strict=True):
        for each in fields(should):
            value, wanted = getattr(is_, each.name), getattr(should, each.name)
            if value != wanted:
                yield (
                    f"{arrived.domain}: {should.type} {should.domain} {each.name}: "
                    f"{value}, not {wanted}"
                )


#: The local part of all addresses for them.
LOCAL_PART = "dmarc"


@dataclass(frozen=True, slots=True)
class ArrivedAggregate:
    """
    An aggregate report that arrived.

    @ivar signatures: By selector, whether each DKIM signature is valid.
    @ivar written: Its Date, in Unix seconds; 0 without one.
    @ivar subject: Of the message.
    @ivar author: The domain in From.
    @ivar filename: Of the attachment.
    """

    report: ReceivedAggregateReport
    recipient: str
    signatures: Mapping[str, bool]
    written: float
    subject: str
    author: str
    filename: str
    isEncrypted: bool

    @property
    def key(self) -> tuple[str, str]:
        """
        The key in L{ExpectedAggregates}.
        """
        return self.report.domain, self.recipient


def isAggregate(arrival: Arrival) -> bool:
    """
    True if it arrived at an address for aggregate reports.
    """
    return arrival.recipient.partition("@")[0] == LOCAL_PART


def arrivedAggregate(
    arrival: Arrival, dkimRecords: Mapping[str, str]
) -> ArrivedAggregate | None:
    """
    @return: C{None} if it can't be read.
    """
    try:
        report = readReport(arrival.content)
    except MalformedReport:
        return None
    if not isinstance(report, ReceivedAggregateReport):
        return None
    message = message_from_bytes(arrival.content)
    names = (part.get_filename() for part in message.walk())
    return ArrivedAggregate(
        report,
        arrival.recipient,
        checkedSignatures(arrival.content, dkimRecords),
        _written(message["Date"] or ""),
        " ".join((message["Subject"] or "").split()),
        parseaddr(message["From"] or "")[1].rpartition("@")[2],
        next(filter(None, names), ""),
        bool(arrival.tls),
    )


def aggregateDifferences(
    arrived: Sequence[ArrivedAggregate],
    owed: ExpectedAggregates,
    received: float,
    selectors: Sequence[str],
) -> list[str]:
    """
    Differences from the expected report, one line each.

    @param received: When the reported mail was received, in Unix seconds.
    @param selectors: Those that must have signed each report.
    """
    counts = Counter(each.key for each in arrived)
    found = [
        f"{domain}: {count} aggregate reports to {recipient} instead of one"
        for (domain, recipient), count in sorted(counts.items())
        if count > 1
    ]
    found += [
        f"{domain}: no aggregate report to {recipient}"
        for domain, recipient in owed
        if (domain, recipient) not in counts
    ]
    for each in arrived:
        domain, _ = each.key
        expected = owed.get(each.key)
        if expected is None:
            found.append(
                f"{domain}: an aggregate report to {each.recipient}, "
                "which it is not owed"
            )
            continue
        about = f"{domain}: aggregate report"
        wrong = (
            *_inAggregateMetadata(each, expected),
            *_inPeriod(each, spanOf(expected.hours, received)),
            *_inMessage(each, selectors),
            *_inRecords(each.report.records, expected.records),
        )
        found += [f"{about}: {line}" for line in wrong]
    return found


def spanOf(hours: int, moment: float) -> Span:
    """
    The interval of C{hours}, counted from midnight, that C{moment} is in.
    """
    length = hours * HOUR
    start = int(moment) // length * length
    return Span(start, start + length)


def _written(text: str) -> float:
    try:
        return parsedate_to_datetime(text).timestamp()
    except ValueError:
        return 0.0


def _inPeriod(arrived: ArrivedAggregate, due: Span) -> Iterator[str]:
    """
    RFC 9990 3.1.1.4: the reporting period.  A report that couldn't be made when
    it was due is made an interval or more later, and about all of them; but it is
    never about more than a day (RFC 9990 3.1: daily, or more frequent), nor about
    an interval that isn't over.

    @param due: The interval in which the mail came in.
    """
    start, last = arrived.report.start, arrived.report.end
    if start != due.start:
        yield f"begin is {start}, not {due.start}"
    interval = due.end - due.start
    seconds = last + 1 - due.start
    if seconds % interval or not interval <= seconds <= max(interval, DAY):
        yield f"end is {last}, not {due.last} or whole intervals later"
    elif last > arrived.written:
        yield f"end is {last}, after it was written at {arrived.written:.0f}"


def _inAggregateMetadata(
    arrived: ArrivedAggregate, expected: ExpectedAggregate
) -> Iterator[str]:
    report = arrived.report
    values: dict[str, tuple[object, object]] = {
        "org_name": (report.organization, SENDER),
        "email": (report.email, f"postmaster@{SENDER}"),
        "error": ("; ".join(report.errors), "; ".join(expected.errors)),
        "generator": (report.generator.partition("/")[0], "moxtls"),
        "policy_published": (sorted(report.published), sorted(expected.published)),
    }
    yield from _unequal(values)


def _inMessage(arrived: ArrivedAggregate, selectors: Sequence[str]) -> Iterator[str]:
    """
    RFC 9990 3.5.2.
    """
    report = arrived.report
    subject = (
        f"Report Domain: {report.domain} Submitter: {SENDER} "
        f"Report-ID: <{report.reportID}>"
    )
    # RFC 9990 3.1.4: the same identifier everywhere.
    period = f"{report.start}!{report.end}"
    filename = f"{SENDER}!{report.domain}!{period}!{report.reportID}.xml.gz"
    yield from _unequal(
        {
            "Subject": (arrived.subject, subject),
            "From": (arrived.author, SENDER),
            "filename": (arrived.filename, filename),
            "TLS": (arrived.isEncrypted, True),
        }
    )
    for selector in selectors:
        if not arrived.signatures.get(selector):
            yield f"no valid DKIM signature by {selector}"


def _inRecords(
    arrived: Sequence[ReceivedRecord], expected: Sequence[ReceivedRecord]
) -> Iterator[str]:
    """
    Compare records by source and domain.
    """
    left = {_identity(each): each for each in arrived}
    if len(left) != len(arrived) or len(arrived) != len(expected):
        yield f"{len(arrived)} records, not {len(expected)}"
    for should in expected:
        is_ = left.pop(_identity(should), None)
        name = " ".join(_identity(should))
        if is_ is None:
            yield f"no record of {name}"
            continue
        values = {
            f"{name}: {each.name}": (
                getattr(is_, each.name),
                getattr(should, each.name),
            )
            for each in fields(should)
        }
        yield from _unequal(values)
    for key in left:
        yield f"a record of {' '.join(key)}, which isn't expected"


def _identity(record: ReceivedRecord) -> tuple[str, ...]:
    return record.sourceIP, record.headerFrom, record.envelopeFrom


def _unequal(values: Mapping[str, tuple[object, object]]) -> Iterator[str]:
    for name, (is_, should) in values.items():
        if is_ != should:
            yield f"{name} is {is_}, not {should}"
