# -*- test-case-name: tests.inbound.test_spf -*-
"""
Evaluates SPF records (RFC 7208 4.4 to 6).  No I/O.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from moxtls.authentication import AuthResult
from moxtls.dns.answers import RRType
from moxtls.dns.inquiry import Answers, LookupGenerator
from moxtls.inbound.spfclient import SPFClient
from moxtls.inbound.spflookups import (
    EvaluationStopped,
    SPFContext,
    SPFLookups,
    escaped,
    lookUp,
    unanswered,
)
from moxtls.inbound.spfmacro import (
    InvalidMacro,
    expandName,
    expandText,
    lettersOf,
    parseMacroString,
)
from moxtls.inbound.spfrecord import MAX_RECORD, InvalidSPFRecord, isSPF, parseSPFRecord
from moxtls.inbound.spfterms import (
    AllMechanism,
    AMechanism,
    DomainSpec,
    ExistsMechanism,
    IncludeMechanism,
    IPMechanism,
    MXMechanism,
    PTRMechanism,
    SPFRecord,
)

#: Octets of all records of one check, with hundreds of terms: reading them takes
#: a hundredth of a second, and whoever sends mail says how many there are.
MAX_OCTETS = 2 * MAX_RECORD

#: RFC 8616 4: with a sender that isn't ASCII, these can't be in the DNS.
_ABOUT_LOCAL_PART = frozenset("sl")


@dataclass(frozen=True, slots=True)
class SPFOutcome:
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


class SPFCheck:
    """
    One check of a client: the limits are on all records together.
    """

    def __init__(self, client: SPFClient) -> None:
        self._client = client
        self._lookups = SPFLookups(client)
        self._octets = 0

    def evaluate(self, domain: str) -> LookupGenerator[SPFOutcome]:
        """
        What the record of C{domain} says about the client.

        Each record that leads to another one uses up a term for it, so there
        is an end to it.

        @raise Stopped: Nothing, for now or until it is mended.
        """
        record = yield from self._record(domain)
        if record is None:
            return SPFOutcome(AuthResult.NONE)
        for each in record.directives:
            if isinstance(each.mechanism, IPMechanism):
                matched = self._client.isIn(each.mechanism)
            else:
                place = SPFContext(domain, each.text)
                matched = yield from self._matches(each.mechanism, place)
            if matched:
                return SPFOutcome(each.result, each.text, domain, record.explanation)
        if record.redirect is not None:
            return (yield from self._redirected(record.redirect, domain))
        return SPFOutcome(AuthResult.NEUTRAL)

    def explain(self, outcome: SPFOutcome) -> LookupGenerator[str]:
        """
        The domain's words for a failure (RFC 7208 6.2); empty if there are
        none, or none that can be used.
        """
        spec = outcome.explanation
        if outcome.status is not AuthResult.FAIL or spec is None:
            return ""
        target = yield from self._target(spec, outcome.domain)
        answers = yield from lookUp((escaped(target),), RRType.TXT)
        texts = [text for each in answers for text in each.texts]
        if len(texts) != 1 or len(texts[0]) > MAX_RECORD:
            return ""
        try:
            parts = parseMacroString(texts[0].decode("latin-1"), explaining=True)
        except InvalidMacro:
            return ""
        values = yield from self._values(lettersOf(parts), outcome.domain)
        return expandText(parts, values)

    def _record(self, domain: str) -> LookupGenerator[SPFRecord | None]:
        """
        RFC 7208 4.3 to 4.5.
        """
        names = (escaped(domain),) if "." in domain else ()
        answers = yield from lookUp(names, RRType.TXT)
        for each in answers:
            if each.failed:
                raise unanswered(domain, each)
        texts = [text for each in answers for text in each.texts if isSPF(text)]
        if not texts:
            return None
        if len(texts) > 1:
            raise EvaluationStopped(
                AuthResult.PERMERROR, f"{domain}: more than one SPF record"
            )
        self._octets += len(texts[0])
        if self._octets > MAX_OCTETS:
            raise EvaluationStopped(AuthResult.PERMERROR, f"{domain}: too much to read")
        try:
            return parseSPFRecord(texts[0])
        except InvalidSPFRecord as error:
            raise EvaluationStopped(
                AuthResult.PERMERROR, f"{domain}: {error}"
            ) from None

    def _redirected(self, spec: DomainSpec, domain: str) -> LookupGenerator[SPFOutcome]:
        """
        RFC 7208 6.1.
        """
        place = SPFContext(domain, "redirect")
        self._lookups.spend(spec, place)
        target = yield from self._target(spec, domain)
        outcome = yield from self.evaluate(target)
        if outcome.status is AuthResult.NONE:
            raise place.broken(f"no SPF record at {target!r}")
        return outcome

    def _matches(
        self,
        mechanism: AllMechanism
        | IncludeMechanism
        | AMechanism
        | MXMechanism
        | PTRMechanism
        | ExistsMechanism,
        place: SPFContext,
    ) -> LookupGenerator[bool]:
        """
        RFC 7208 5.
        """
        if isinstance(mechanism, AllMechanism):
            return True
        self._lookups.spend(mechanism.domain, place)
        if self._isBeyondASCII(mechanism.domain):
            return False
        target = yield from self._target(mechanism.domain, place.domain)
        match mechanism:
            case IncludeMechanism():
                return (yield from self._included(target, place))
            case AMechanism():
                kind = self._client.kind
                found = yield from self._lookups.one(target, kind, place)
                return self._isNear(found, mechanism)
            case MXMechanism():
                return (yield from self._isExchange(mechanism, target, place))
            case PTRMechanism():
                return (yield from self._isNamed(target, place))
            case ExistsMechanism():
                found = yield from self._lookups.one(target, RRType.A, place)
                return any(each.records for each in found)

    def _included(self, target: str, place: SPFContext) -> LookupGenerator[bool]:
        """
        RFC 7208 5.2.
        """
        outcome = yield from self.evaluate(target)
        if outcome.status is AuthResult.NONE:
            raise place.broken(f"no SPF record at {target!r}")
        return outcome.status is AuthResult.PASS

    def _isExchange(
        self, mx: MXMechanism, target: str, place: SPFContext
    ) -> LookupGenerator[bool]:
        """
        RFC 7208 5.4.
        """
        found = yield from self._lookups.exchanges(target, place)
        if self._isNear(found, mx):
            return True
        self._lookups.settle(found, place)
        return False

    def _isNamed(self, target: str, place: SPFContext) -> LookupGenerator[bool]:
        """
        RFC 7208 5.5, which has it the wrong way around in one of its
        sentences: the client's name may be a subdomain.
        """
        names = yield from self._lookups.clientNames(place)
        return any(_isUnder(name, target) for name in names)

    def _isNear(self, answers: Answers, mechanism: AMechanism | MXMechanism) -> bool:
        client = self._client
        prefix = mechanism.prefix4 if client.kind is RRType.A else mechanism.prefix6
        return any(client.isNear(each.addresses, prefix) for each in answers)

    def _isBeyondASCII(self, spec: DomainSpec | None) -> bool:
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
        if self._isBeyondASCII(spec):
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
