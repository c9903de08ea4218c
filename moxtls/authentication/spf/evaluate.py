# -*- test-case-name: tests.authentication.spf.test_evaluate -*-
"""
Evaluates SPF (RFC 7208 4 to 6): may a client send mail in the name of a domain?  No
I/O.

SPF libraries block during each DNS lookup.  C{bench/spf.py} compares the speed.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from moxtls.authentication.results import AuthResult, SPFResult, SPFScope
from moxtls.authentication.spf.record import (
    MAX_RECORD_LENGTH,
    AllMechanism,
    AMechanism,
    DomainSpec,
    ExistsMechanism,
    IncludeMechanism,
    InvalidMacro,
    InvalidSPFRecord,
    IPMechanism,
    MXMechanism,
    PTRMechanism,
    SPFRecord,
    expandName,
    expandText,
    isSPF,
    macroLetters,
    parseMacroString,
    parseSPFRecord,
    printable,
)
from moxtls.dns.types import Answer, Answers, LookupGenerator, LookupQuestion, RRType
from moxtls.dns.wire import normalName
from moxtls.domain import MAX_DOMAIN_LENGTH, Domain, InvalidDomain
from moxtls.ipaddresses import IP, parseIP

#: RFC 7208 2.4, 4.3: the local part where there is none.
POSTMASTER = "postmaster"
#: Characters of a problem: for a log, and a line of a report.
MAX_PROBLEM_LENGTH = 300

# RFC 7208 4.3: more than one label.  The last one isn't numeric, which excludes
# addresses; host names in use have underscores.
_DOMAIN = re.compile(
    r"(?:[a-z0-9_-]{1,63}\.)+(?![0-9]+\Z)[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\Z"
)

#: Octets of all records of one check, with hundreds of terms: reading them takes a
#: hundredth of a second, and the sender controls their number.
MAX_TOTAL_LENGTH = 2 * MAX_RECORD_LENGTH
#: RFC 8616 4: macros with the local part; if that isn't ASCII, no name with it can be
#: in the DNS.
_ABOUT_LOCAL_PART = frozenset("sl")
#: RFC 7208 4.6.4: terms that need the DNS, in all records together; terms without
#: records; MX hosts, and names of the client.
MAX_TERMS = 10
MAX_VOID_TERMS = 2
MAX_MX_HOSTS = 10
MAX_PTR_NAMES = 10
#: Characters of a term in a problem.
_MAX_TERM_LENGTH = 80


@dataclass(frozen=True, slots=True)
class SPFRequest:
    """
    The arguments of C{check_host()} (RFC 7208 4.1).

    @ivar ip: The client's address.
    @ivar helo: The name in HELO or EHLO, as sent.
    @ivar sender: C{local@domain}; with the scope C{HELO}, C{postmaster} at C{helo}.
    @ivar receiver: The name of this host, for explanations.
    @ivar now: Unix seconds, for explanations.
    """

    ip: str
    scope: SPFScope
    helo: str
    sender: str
    receiver: str
    now: float = 0


def heloRequest(ip: str, helo: str, receiver: str, now: float = 0) -> SPFRequest:
    """
    The request for the HELO identity (RFC 7208 2.3).
    """
    sender = f"{POSTMASTER}@{helo}"
    return SPFRequest(ip, SPFScope.HELO, helo, sender, receiver, now)


def mailFromRequest(
    ip: str, helo: str, sender: str, receiver: str, now: float = 0
) -> SPFRequest:
    """
    The request for the MAIL FROM identity (RFC 7208 2.4).

    @param sender: The reverse-path without angle brackets; empty for the null
        reverse-path, for which C{helo} is checked.
    """
    if not sender:
        return heloRequest(ip, helo, receiver, now)
    return SPFRequest(ip, SPFScope.MAIL_FROM, helo, sender, receiver, now)


def checkHost(request: SPFRequest) -> LookupGenerator[SPFResult]:
    """
    C{check_host()} of RFC 7208 4, for any request.

    The time limit of RFC 7208 4.6.4 is left to the caller.
    """
    localPart, domain = _identity(request)
    ip = parseIP(request.ip)
    if ip is None or len(domain) > MAX_DOMAIN_LENGTH or not _DOMAIN.match(domain):
        problem = "not a domain name" if ip else "not an IP address"
        return SPFResult(request.scope, domain, AuthResult.NONE, problem=problem)
    client = SPFClient(
        ip, localPart, domain, _asciiName(request.helo), request.receiver, request.now
    )
    check = SPFEvaluator(client)
    try:
        outcome = yield from check.evaluate(domain)
        explanation = yield from check.explain(outcome)
    except EvaluationStopped as stop:
        problem = printable(stop.problem, MAX_PROBLEM_LENGTH)
        return SPFResult(request.scope, domain, stop.status, problem=problem)
    return _result(request.scope, domain, outcome, explanation)


def _result(
    scope: SPFScope, domain: str, outcome: RecordResult, explanation: str
) -> SPFResult:
    mechanism = printable(outcome.mechanism, MAX_PROBLEM_LENGTH)
    return SPFResult(scope, domain, outcome.status, mechanism, explanation)


def _identity(request: SPFRequest) -> tuple[str, str]:
    if request.scope is SPFScope.HELO:
        # There may be an "@" in what a client calls itself.
        return POSTMASTER, _asciiName(request.helo)
    localPart, _, domain = request.sender.rpartition("@")
    return localPart or POSTMASTER, _asciiName(domain)


def _asciiName(text: str) -> str:
    """
    The name in lower case, as A-labels if it can be converted (RFC 8616 4).
    """
    name = text.removesuffix(".").lower()
    if name.isascii() or len(name) > MAX_DOMAIN_LENGTH:
        return name
    try:
        return Domain.parse(name).ascii
    except InvalidDomain:
        return name


@dataclass(frozen=True, slots=True)
class RecordResult:
    """
    The result of evaluating a record.

    @ivar status: C{NONE} if there is no record.
    @ivar mechanism: The term that matched.
    @ivar domain: The domain of the record with that term.
    @ivar explanation: C{exp=} of that record.
    """

    status: AuthResult
    mechanism: str = ""
    domain: str = ""
    explanation: DomainSpec | None = None


class SPFEvaluator:
    """
    One check of a client: its limits apply to all records together.
    """

    def __init__(self, client: SPFClient) -> None:
        self._client = client
        self._lookups = SPFLookups(client)
        self._octets = 0

    def evaluate(self, domain: str) -> LookupGenerator[RecordResult]:
        """
        Evaluate the record of C{domain}.

        Recursion ends, as each record that leads to another one uses up a term.

        @raise EvaluationStopped: A temporary or permanent error.
        """
        record = yield from self._record(domain)
        if record is None:
            return RecordResult(AuthResult.NONE)
        for each in record.directives:
            if isinstance(each.mechanism, IPMechanism):
                matched = self._client.matchesNetwork(each.mechanism)
            else:
                context = TermContext(domain, each.text)
                matched = yield from self._matches(each.mechanism, context)
            if matched:
                return RecordResult(each.result, each.text, domain, record.explanation)
        if record.redirect is not None:
            return (yield from self._redirected(record.redirect, domain))
        return RecordResult(AuthResult.NEUTRAL)

    def explain(self, outcome: RecordResult) -> LookupGenerator[str]:
        """
        The domain's explanation of a failure (RFC 7208 6.2); empty if there is none
        that can be used.
        """
        spec = outcome.explanation
        if outcome.status is not AuthResult.FAIL or spec is None:
            return ""
        target = yield from self._target(spec, outcome.domain)
        answers = yield from lookUp((escapeName(target),), RRType.TXT)
        texts = [text for each in answers for text in each.texts]
        if len(texts) != 1 or len(texts[0]) > MAX_RECORD_LENGTH:
            return ""
        try:
            parts = parseMacroString(texts[0].decode("latin-1"), explaining=True)
        except InvalidMacro:
            return ""
        values = yield from self._values(macroLetters(parts), outcome.domain)
        return expandText(parts, values)

    def _record(self, domain: str) -> LookupGenerator[SPFRecord | None]:
        """
        RFC 7208 4.3 to 4.5.
        """
        names = (escapeName(domain),) if "." in domain else ()
        answers = yield from lookUp(names, RRType.TXT)
        for each in answers:
            if each.failed:
                raise lookupFailed(domain, each)
        texts = [text for each in answers for text in each.texts if isSPF(text)]
        if not texts:
            return None
        if len(texts) > 1:
            raise EvaluationStopped(
                AuthResult.PERMERROR, f"{domain}: more than one SPF record"
            )
        self._octets += len(texts[0])
        if self._octets > MAX_TOTAL_LENGTH:
            raise EvaluationStopped(
                AuthResult.PERMERROR, f"{domain}: the records are too long"
            )
        try:
            return parseSPFRecord(texts[0])
        except InvalidSPFRecord as error:
            raise EvaluationStopped(
                AuthResult.PERMERROR, f"{domain}: {error}"
            ) from None

    def _redirected(
        self, spec: DomainSpec, domain: str
    ) -> LookupGenerator[RecordResult]:
        """
        RFC 7208 6.1.
        """
        context = TermContext(domain, "redirect")
        self._lookups.countTerm(spec, context)
        target = yield from self._target(spec, domain)
        outcome = yield from self.evaluate(target)
        if outcome.status is AuthResult.NONE:
            raise context.permanentError(f"no SPF record at {target!r}")
        return outcome

    def _matches(
        self,
        mechanism: AllMechanism
        | IncludeMechanism
        | AMechanism
        | MXMechanism
        | PTRMechanism
        | ExistsMechanism,
        context: TermContext,
    ) -> LookupGenerator[bool]:
        """
        RFC 7208 5.
        """
        if isinstance(mechanism, AllMechanism):
            return True
        self._lookups.countTerm(mechanism.domain, context)
        if self._needsNonASCIILocalPart(mechanism.domain):
            return False
        target = yield from self._target(mechanism.domain, context.domain)
        match mechanism:
            case IncludeMechanism():
                return (yield from self._included(target, context))
            case AMechanism():
                kind = self._client.kind
                found = yield from self._lookups.lookUpTerm(target, kind, context)
                return self._matchesAddress(found, mechanism)
            case MXMechanism():
                return (yield from self._matchesMX(mechanism, target, context))
            case PTRMechanism():
                return (yield from self._matchesPTR(target, context))
            case ExistsMechanism():
                found = yield from self._lookups.lookUpTerm(target, RRType.A, context)
                return any(each.records for each in found)

    def _included(self, target: str, context: TermContext) -> LookupGenerator[bool]:
        """
        RFC 7208 5.2.
        """
        outcome = yield from self.evaluate(target)
        if outcome.status is AuthResult.NONE:
            raise context.permanentError(f"no SPF record at {target!r}")
        return outcome.status is AuthResult.PASS

    def _matchesMX(
        self, mx: MXMechanism, target: str, context: TermContext
    ) -> LookupGenerator[bool]:
        """
        RFC 7208 5.4.
        """
        found = yield from self._lookups.mxAddresses(target, context)
        if self._matchesAddress(found, mx):
            return True
        self._lookups.noteUnmatched(found, context)
        return False

    def _matchesPTR(self, target: str, context: TermContext) -> LookupGenerator[bool]:
        """
        RFC 7208 5.5, one of whose sentences has it the wrong way around: the client's
        name may be a subdomain.
        """
        names = yield from self._lookups.clientNames(context)
        return any(_isUnder(name, target) for name in names)

    def _matchesAddress(
        self, answers: Answers, mechanism: AMechanism | MXMechanism
    ) -> bool:
        client = self._client
        prefix = mechanism.prefix4 if client.kind is RRType.A else mechanism.prefix6
        return any(client.matchesPrefix(each.addresses, prefix) for each in answers)

    def _needsNonASCIILocalPart(self, spec: DomainSpec | None) -> bool:
        return (
            spec is not None
            and not spec.letters.isdisjoint(_ABOUT_LOCAL_PART)
            and not self._client.localPart.isascii()
        )

    def _target(self, spec: DomainSpec | None, domain: str) -> LookupGenerator[str]:
        """
        The domain of a term (RFC 7208 4.8): lower case, no final dot; empty if such a
        name can't exist.
        """
        if spec is None:
            return domain
        if self._needsNonASCIILocalPart(spec):
            return ""
        values = yield from self._values(spec.letters, domain)
        return expandName(spec.parts, values).lower()

    def _values(
        self, letters: frozenset[str], domain: str
    ) -> LookupGenerator[dict[str, str]]:
        if not letters:
            return {}
        name = ""
        if "p" in letters:
            names = yield from self._lookups.clientNames()
            name = _preferred(names, domain)
        return self._client.values(domain, name)


def _preferred(names: Sequence[str], domain: str) -> str:
    """
    RFC 7208 7.3: the domain itself, else a subdomain of it, else any.
    """
    if domain in names:
        return domain
    return next((name for name in names if _isUnder(name, domain)), "".join(names[:1]))


def _isUnder(name: str, domain: str) -> bool:
    return name == domain or name.endswith("." + domain)


class EvaluationStopped(Exception):
    """
    A temporary or permanent error (RFC 7208 2.6.6, 2.6.7).

    @ivar status: C{TEMPERROR} or C{PERMERROR}.
    @ivar problem: The reason and its place; has text from other hosts.
    """

    def __init__(self, status: AuthResult, problem: str) -> None:
        super().__init__(status, problem)
        self.status = status
        self.problem = problem


@dataclass(frozen=True, slots=True)
class TermContext:
    """
    The term being evaluated, for error messages.

    @ivar domain: The domain of the record.
    @ivar term: As published.
    """

    domain: str
    term: str

    def __str__(self) -> str:
        return f"{self.domain}: {self.term[:_MAX_TERM_LENGTH]}"

    def permanentError(self, problem: str) -> EvaluationStopped:
        """
        An error that only the domain's owner can correct.
        """
        return EvaluationStopped(AuthResult.PERMERROR, f"{self}: {problem}")


class SPFLookups:
    """
    The DNS lookups of one check, in all its records, and their limits (RFC 7208
    4.6.4).
    """

    def __init__(self, client: SPFClient) -> None:
        self._client = client
        self._terms = 0
        self._voids = 0
        self._names: tuple[str, ...] | None = None

    def countTerm(self, spec: DomainSpec | None, context: TermContext) -> None:
        """
        Count a term that needs the DNS, and another one if it is the first that needs
        the client's name.

        @raise EvaluationStopped: The limit is exceeded.
        """
        needsName = spec is not None and "p" in spec.letters
        self._terms += 2 if needsName and self._names is None else 1
        if self._terms > MAX_TERMS:
            raise context.permanentError(
                f"more than {MAX_TERMS} terms that need the DNS"
            )

    def lookUpTerm(
        self, name: str, kind: RRType, context: TermContext
    ) -> LookupGenerator[Answers]:
        """
        The answer for a term; none if no such name can exist, which doesn't count.

        @raise EvaluationStopped: The lookup failed, or there were too many void
            lookups.
        """
        answers = yield from lookUp((escapeName(name),), kind)
        self._note(answers, context)
        return answers

    def mxAddresses(self, name: str, context: TermContext) -> LookupGenerator[Answers]:
        """
        The addresses of the MX hosts of C{name}.  Failed lookups don't matter if
        another host has the client's address; otherwise call C{noteUnmatched}.

        @raise EvaluationStopped: See C{lookUpTerm}; or there are too many hosts.
        """
        found = yield from self.lookUpTerm(name, RRType.MX, context)
        hosts = [host.exchange for each in found for host in each.mx]
        if len(hosts) > MAX_MX_HOSTS:
            raise context.permanentError(f"more than {MAX_MX_HOSTS} MX hosts")
        return (yield from lookUp(hosts, self._client.kind))

    def noteUnmatched(self, answers: Answers, context: TermContext) -> None:
        """
        Count C{answers}, none of which matched, for a term.

        @raise EvaluationStopped: See C{lookUpTerm}.
        """
        self._note(answers, context)

    def clientNames(
        self, context: TermContext | None = None
    ) -> LookupGenerator[tuple[str, ...]]:
        """
        The names of the client that have its address (RFC 7208 5.5); failed lookups
        count as empty.

        @param context: The term that needs the names, if the lookup counts.

        @raise EvaluationStopped: There were too many void lookups.
        """
        if self._names is None:
            ip = self._client.ip
            found = yield from lookUp((ip.reverse_pointer,), RRType.PTR)
            names = [name for each in found for name in each.names][:MAX_PTR_NAMES]
            answers = yield from lookUp(names, self._client.kind)
            self._names = tuple(
                each.name
                for each in answers
                if self._client.matchesPrefix(each.addresses, ip.max_prefixlen)
            )
            if context is not None:
                self._note(tuple(each for each in found if not each.failed), context)
        return self._names

    def _note(self, answers: Answers, context: TermContext) -> None:
        """
        RFC 7208 5, 4.6.4: a term whose lookup failed or is void.
        """
        for each in answers:
            if each.failed:
                raise lookupFailed(str(context), each)
        if answers and not any(each.records for each in answers):
            self._voids += 1
        if self._voids > MAX_VOID_TERMS:
            raise context.permanentError(f"more than {MAX_VOID_TERMS} void lookups")


def lookUp(names: Iterable[str], kind: RRType) -> LookupGenerator[Answers]:
    """
    The answers for all names in parallel, each once; names that can't exist have no
    answer.

    @param names: As in zone files, with special characters escaped.
    """
    normal = dict.fromkeys(map(normalName, names))
    questions = tuple(LookupQuestion(each, kind) for each in normal if each)
    if not questions:
        return ()
    return (yield questions)


def escapeName(name: str) -> str:
    """
    The result of macro expansion as a name for lookups (RFC 7208 4.8).  A backslash
    doesn't escape a dot: else the sender's local part could choose the domain.
    """
    return name.replace("\\", "\\\\")


def lookupFailed(where: str, answer: Answer) -> EvaluationStopped:
    """
    The temporary error of a failed lookup.
    """
    return EvaluationStopped(
        AuthResult.TEMPERROR,
        f"{where}: lookup of {answer.kind} at {answer.name} failed: {answer.reason}",
    )


@dataclass(frozen=True, slots=True)
class SPFClient:
    """
    The client and the identities that macros refer to (RFC 7208 7.2).

    @ivar localPart: Of the sender.
    @ivar domain: Of the sender.
    """

    ip: IP
    localPart: str
    domain: str
    helo: str
    receiver: str
    now: float

    @property
    def kind(self) -> RRType:
        """
        The type of the records with addresses of the client's family.
        """
        return RRType.A if self.ip.version == 4 else RRType.AAAA

    def matchesNetwork(self, network: IPMechanism) -> bool:
        """
        True if the address is in C{network}.
        """
        if network.version != self.ip.version:
            return False
        beyond = self.ip.max_prefixlen - network.prefix
        return int(self.ip) >> beyond == network.address >> beyond

    def matchesPrefix(self, addresses: Collection[str], prefix: int) -> bool:
        """
        True if the address has the first C{prefix} bits in common with any of
        C{addresses}, which are in canonical form.
        """
        if prefix == self.ip.max_prefixlen:
            return str(self.ip) in addresses
        return any(
            self.matchesNetwork(IPMechanism(ip.version, int(ip), prefix))
            for ip in map(parseIP, addresses)
            # The prefix length is that of the client's family.
            if ip is not None and ip.version == self.ip.version
        )

    def values(self, domain: str, name: str) -> dict[str, str]:
        """
        The values of the macro letters.

        @param domain: The domain of the record.
        @param name: The client's validated name; empty if unknown.
        """
        isV4 = self.ip.version == 4
        return {
            "s": f"{self.localPart}@{self.domain}",
            "l": self.localPart,
            "o": self.domain,
            "d": domain,
            "i": str(self.ip) if isV4 else ".".join(f"{int(self.ip):032x}"),
            "p": name or "unknown",
            "v": "in-addr" if isV4 else "ip6",
            "h": self.helo,
            "c": str(self.ip),
            "r": self.receiver or "unknown",
            "t": str(int(self.now)),
        }
