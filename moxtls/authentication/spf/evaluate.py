# -*- test-case-name: tests.authentication.spf.test_evaluate -*-
"""
SPF: may this client send in that domain's name (RFC 7208)?  No I/O.

This is our own since libraries for it wait for each look-up in the DNS, and
everybody else with them; and it's as much faster as C{bench/spf.py} says.

Evaluates SPF records (RFC 7208 4.4 to 6).  No I/O.

What SPF asks the DNS, and how much of it (RFC 7208 4.6.4).  No I/O.

Who is checked by SPF, and what macros say of it (RFC 7208 7.2).  No I/O.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from moxtls.authentication.results import AuthResult, SPFResult, SPFScope
from moxtls.authentication.spf.macro import (
    InvalidMacro,
    expandName,
    expandText,
    macroLetters,
    parseMacroString,
    printable,
)
from moxtls.authentication.spf.record import (
    MAX_RECORD_LENGTH,
    AllMechanism,
    AMechanism,
    DomainSpec,
    ExistsMechanism,
    IncludeMechanism,
    InvalidSPFRecord,
    IPMechanism,
    MXMechanism,
    PTRMechanism,
    SPFRecord,
    isSPF,
    parseSPFRecord,
)
from moxtls.dns.query import Answers, LookupGenerator, LookupQuestion
from moxtls.dns.types import Answer, RRType
from moxtls.dns.wire import normalName
from moxtls.domain import MAX_DOMAIN_LENGTH, Domain, InvalidDomain
from moxtls.ipaddresses import IP, parseIP

#: RFC 7208 2.4, 4.3: who it is where nobody is named.
POSTMASTER = "postmaster"
#: Of what is said about what is wrong: for a log, and a line on a page.
MAX_PROBLEM_LENGTH = 300

# RFC 7208 4.3: of more than one label.  Addresses are none, so the last has
# something that is no digit; there are hosts with underscores.
_DOMAIN = re.compile(
    r"(?:[a-z0-9_-]{1,63}\.)+(?![0-9]+\Z)[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\Z"
)


@dataclass(frozen=True, slots=True)
class SPFRequest:
    """
    The arguments of RFC 7208 4.1.

    @ivar ip: The client's address.
    @ivar helo: What the client calls itself, as it said it.
    @ivar sender: C{local@domain}; where the scope is C{HELO}, it is
        C{postmaster} at C{helo}.
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
    Whether the client may call itself C{helo} (RFC 7208 2.3).
    """
    sender = f"{POSTMASTER}@{helo}"
    return SPFRequest(ip, SPFScope.HELO, helo, sender, receiver, now)


def mailFromRequest(
    ip: str, helo: str, sender: str, receiver: str, now: float = 0
) -> SPFRequest:
    """
    Whether the client may use C{sender} (RFC 7208 2.4).

    @param sender: The reverse-path without angle brackets; empty for the null
        reverse-path, which is about C{helo} then.
    """
    if not sender:
        return heloRequest(ip, helo, receiver, now)
    return SPFRequest(ip, SPFScope.MAIL_FROM, helo, sender, receiver, now)


def checkHost(request: SPFRequest) -> LookupGenerator[SPFResult]:
    """
    C{check_host()} of RFC 7208 4, for any request.

    RFC 7208 4.6.4 wants it to end after some time: who asks the questions has
    to see to that.
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
    In lower case, and as A-labels if it can be (RFC 8616 4).
    """
    name = text.removesuffix(".").lower()
    if name.isascii() or len(name) > MAX_DOMAIN_LENGTH:
        return name
    try:
        return Domain.parse(name).ascii
    except InvalidDomain:
        return name


#: Octets of all records of one check, with hundreds of terms: reading them takes
#: a hundredth of a second, and whoever sends mail says how many there are.
MAX_TOTAL_LENGTH = 2 * MAX_RECORD_LENGTH

#: RFC 8616 4: with a sender that isn't ASCII, these can't be in the DNS.
_ABOUT_LOCAL_PART = frozenset("sl")


@dataclass(frozen=True, slots=True)
class RecordResult:
    """
    What a record comes to.

    @ivar status: C{NONE} if there is no record.
    @ivar mechanism: The term that matched.
    @ivar domain: Whose record that term was in.
    @ivar explanation: Of that record.
    """

    status: AuthResult
    mechanism: str = ""
    domain: str = ""
    explanation: DomainSpec | None = None


class SPFEvaluator:
    """
    One check of a client: the limits are on all records together.
    """

    def __init__(self, client: SPFClient) -> None:
        self._client = client
        self._lookups = SPFLookups(client)
        self._octets = 0

    def evaluate(self, domain: str) -> LookupGenerator[RecordResult]:
        """
        What the record of C{domain} says about the client.

        Each record that leads to another one uses up a term for it, so there
        is an end to it.

        @raise Stopped: Nothing, for now or until it is mended.
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
        The domain's explanation for a failure (RFC 7208 6.2); empty if there are
        none, or none that can be used.
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
            raise EvaluationStopped(AuthResult.PERMERROR, f"{domain}: too much to read")
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
        RFC 7208 5.5, which has it the wrong way around in one of its
        sentences: the client's name may be a subdomain.
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
        RFC 7208 4.8: lower case, no final dot; empty if there can't be such a
        name.
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


#: RFC 7208 4.6.4: terms that need the DNS, in all records together; those of
#: them for which it may have nothing; MX hosts, and names of the client.
MAX_TERMS = 10
MAX_VOID_TERMS = 2
MAX_MX_HOSTS = 10
MAX_PTR_NAMES = 10
#: So that there is room for what is wrong with it.
_MAX_TERM_LENGTH = 80


class EvaluationStopped(Exception):
    """
    There is no going on (RFC 7208 2.6.6, 2.6.7).

    @ivar status: C{TEMPERROR} or C{PERMERROR}.
    @ivar problem: What is wrong, and where: has strangers' explanation in it.
    """

    def __init__(self, status: AuthResult, problem: str) -> None:
        super().__init__(status, problem)
        self.status = status
        self.problem = problem


@dataclass(frozen=True, slots=True)
class TermContext:
    """
    Where evaluation is.

    @ivar domain: Whose record.
    @ivar term: As published.
    """

    domain: str
    term: str

    def __str__(self) -> str:
        return f"{self.domain}: {self.term[:_MAX_TERM_LENGTH]}"

    def permanentError(self, problem: str) -> EvaluationStopped:
        """
        Only the domain's owner can mend it.
        """
        return EvaluationStopped(AuthResult.PERMERROR, f"{self}: {problem}")


class SPFLookups:
    """
    Those of one check, in all its records.
    """

    def __init__(self, client: SPFClient) -> None:
        self._client = client
        self._terms = 0
        self._voids = 0
        self._names: tuple[str, ...] | None = None

    def countTerm(self, spec: DomainSpec | None, context: TermContext) -> None:
        """
        Count a term that needs the DNS, and another one for the client's name
        if it is needed for the first time.

        @raise Stopped: There were enough of them.
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
        What a term is about: one answer, or none if there can't be such a
        name, which doesn't count as anything.

        @raise Stopped: The look-up failed, or it was one void look-up too many.
        """
        answers = yield from lookUp((escapeName(name),), kind)
        self._note(answers, context)
        return answers

    def mxAddresses(self, name: str, context: TermContext) -> LookupGenerator[Answers]:
        """
        The addresses of the MX hosts of C{name}.  Some may have failed, which
        doesn't matter if another one has the client's address: else, see
        C{settle}.

        @raise Stopped: See C{one}; or there are too many hosts.
        """
        found = yield from self.lookUpTerm(name, RRType.MX, context)
        hosts = [host.exchange for each in found for host in each.mx]
        if len(hosts) > MAX_MX_HOSTS:
            raise context.permanentError(f"more than {MAX_MX_HOSTS} MX hosts")
        return (yield from lookUp(hosts, self._client.kind))

    def noteUnmatched(self, answers: Answers, context: TermContext) -> None:
        """
        Let C{answers}, where none was of use, be what a term came to.

        @raise Stopped: See C{one}.
        """
        self._note(answers, context)

    def clientNames(
        self, context: TermContext | None = None
    ) -> LookupGenerator[tuple[str, ...]]:
        """
        The names of the client that have its address (RFC 7208 5.5); what
        fails is as good as not there.

        @param context: The term that wants to know, if it counts.

        @raise Stopped: It was one void look-up too many.
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
        RFC 7208 5, 4.6.4: a term whose look-up failed, or found nothing.
        """
        for each in answers:
            if each.failed:
                raise lookupFailed(str(context), each)
        if answers and not any(each.records for each in answers):
            self._voids += 1
        if self._voids > MAX_VOID_TERMS:
            raise context.permanentError(
                f"more than {MAX_VOID_TERMS} terms with nothing in the DNS"
            )


def lookUp(names: Iterable[str], kind: RRType) -> LookupGenerator[Answers]:
    """
    All at once, each once.  About what can't be in the DNS there is no answer.

    @param names: As in zone files: special characters are escaped.
    """
    normal = dict.fromkeys(map(normalName, names))
    questions = tuple(LookupQuestion(each, kind) for each in normal if each)
    if not questions:
        return ()
    return (yield questions)


def escapeName(name: str) -> str:
    """
    What macros come to, for a look-up (RFC 7208 4.8): not even a backslash
    keeps a dot in it from being one between labels, or else the sender's
    local part could say of which domain it is a part.
    """
    return name.replace("\\", "\\\\")


def lookupFailed(where: str, answer: Answer) -> EvaluationStopped:
    """
    Without that look-up, nothing can be said now.
    """
    return EvaluationStopped(
        AuthResult.TEMPERROR,
        f"{where}: look-up of {answer.kind} at {answer.name} failed: {answer.reason}",
    )


@dataclass(frozen=True, slots=True)
class SPFClient:
    """
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
        Of the records that addresses like the client's are in.
        """
        return RRType.A if self.ip.version == 4 else RRType.AAAA

    def matchesNetwork(self, network: IPMechanism) -> bool:
        """
        Whether the bits that count are those of C{network}.
        """
        if network.version != self.ip.version:
            return False
        beyond = self.ip.max_prefixlen - network.prefix
        return int(self.ip) >> beyond == network.address >> beyond

    def matchesPrefix(self, addresses: Collection[str], prefix: int) -> bool:
        """
        Whether it has the first C{prefix} bits in common with any of
        C{addresses}, which are in canonical form.
        """
        if prefix == self.ip.max_prefixlen:
            return str(self.ip) in addresses
        return any(
            self.matchesNetwork(IPMechanism(ip.version, int(ip), prefix))
            for ip in map(parseIP, addresses)
            # The prefix is for addresses of the client's kind.
            if ip is not None and ip.version == self.ip.version
        )

    def values(self, domain: str, name: str) -> dict[str, str]:
        """
        What the letters of macros stand for.

        @param domain: The one whose record it is.
        @param name: The client's, if it's known.
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
