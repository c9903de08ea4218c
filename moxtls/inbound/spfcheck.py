# -*- test-case-name: tests.inbound.test_spf -*-
"""
Evaluates SPF records (RFC 7208 4.4 to 6).  No I/O.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from moxtls.authentication import AuthResult
from moxtls.dns.answers import Kind
from moxtls.dns.inquiry import Answers, Inquiry
from moxtls.inbound.spfclient import Client
from moxtls.inbound.spflookups import (
    Lookups,
    Place,
    Stopped,
    ask,
    escaped,
    unanswered,
)
from moxtls.inbound.spfmacro import (
    InvalidMacro,
    expandName,
    expandText,
    lettersOf,
    parseMacroString,
)
from moxtls.inbound.spfrecord import (
    LONGEST_RECORD,
    InvalidSPFRecord,
    isSPF,
    parseRecord,
)
from moxtls.inbound.spfterms import (
    MX,
    PTR,
    A,
    All,
    DomainSpec,
    Exists,
    Include,
    Network,
    SPFRecord,
)

#: Octets of all records of one check, with hundreds of terms: reading them takes
#: a hundredth of a second, and whoever sends mail says how many there are.
MOST_OCTETS = 2 * LONGEST_RECORD

#: RFC 8616 4: with a sender that isn't ASCII, these can't be in the DNS.
_ABOUT_LOCAL_PART = frozenset("sl")


@dataclass(frozen=True, slots=True)
class Outcome:
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


class Check:
    """
    One check of a client: the limits are on all records together.
    """

    def __init__(self, client: Client) -> None:
        self._client = client
        self._lookups = Lookups(client)
        self._octets = 0

    def evaluate(self, domain: str) -> Inquiry[Outcome]:
        """
        What the record of C{domain} says about the client.

        Each record that leads to another one uses up a term for it, so there
        is an end to it.

        @raise Stopped: Nothing, for now or until it is mended.
        """
        record = yield from self._record(domain)
        if record is None:
            return Outcome(AuthResult.NONE)
        for each in record.directives:
            if isinstance(each.mechanism, Network):
                matched = self._client.isIn(each.mechanism)
            else:
                place = Place(domain, each.text)
                matched = yield from self._matches(each.mechanism, place)
            if matched:
                return Outcome(each.result, each.text, domain, record.explanation)
        if record.redirect is not None:
            return (yield from self._redirected(record.redirect, domain))
        return Outcome(AuthResult.NEUTRAL)

    def explain(self, outcome: Outcome) -> Inquiry[str]:
        """
        The domain's words for a failure (RFC 7208 6.2); empty if there are
        none, or none that can be used.
        """
        spec = outcome.explanation
        if outcome.status is not AuthResult.FAIL or spec is None:
            return ""
        target = yield from self._target(spec, outcome.domain)
        answers = yield from ask((escaped(target),), Kind.TXT)
        texts = [text for each in answers for text in each.texts]
        if len(texts) != 1 or len(texts[0]) > LONGEST_RECORD:
            return ""
        try:
            parts = parseMacroString(texts[0].decode("latin-1"), explaining=True)
        except InvalidMacro:
            return ""
        values = yield from self._values(lettersOf(parts), outcome.domain)
        return expandText(parts, values)

    def _record(self, domain: str) -> Inquiry[SPFRecord | None]:
        """
        RFC 7208 4.3 to 4.5.
        """
        names = (escaped(domain),) if "." in domain else ()
        answers = yield from ask(names, Kind.TXT)
        for each in answers:
            if each.failed:
                raise unanswered(domain, each)
        texts = [text for each in answers for text in each.texts if isSPF(text)]
        if not texts:
            return None
        if len(texts) > 1:
            raise Stopped(AuthResult.PERMERROR, f"{domain}: more than one SPF record")
        self._octets += len(texts[0])
        if self._octets > MOST_OCTETS:
            raise Stopped(AuthResult.PERMERROR, f"{domain}: too much to read")
        try:
            return parseRecord(texts[0])
        except InvalidSPFRecord as error:
            raise Stopped(AuthResult.PERMERROR, f"{domain}: {error}") from None

    def _redirected(self, spec: DomainSpec, domain: str) -> Inquiry[Outcome]:
        """
        RFC 7208 6.1.
        """
        place = Place(domain, "redirect")
        self._lookups.spend(spec, place)
        target = yield from self._target(spec, domain)
        outcome = yield from self.evaluate(target)
        if outcome.status is AuthResult.NONE:
            raise place.broken(f"no SPF record at {target!r}")
        return outcome

    def _matches(
        self, mechanism: All | Include | A | MX | PTR | Exists, place: Place
    ) -> Inquiry[bool]:
        """
        RFC 7208 5.
        """
        if isinstance(mechanism, All):
            return True
        self._lookups.spend(mechanism.domain, place)
        if self._isBeyondASCII(mechanism.domain):
            return False
        target = yield from self._target(mechanism.domain, place.domain)
        match mechanism:
            case Include():
                return (yield from self._included(target, place))
            case A():
                kind = self._client.kind
                found = yield from self._lookups.one(target, kind, place)
                return self._isNear(found, mechanism)
            case MX():
                return (yield from self._isExchange(mechanism, target, place))
            case PTR():
                return (yield from self._isNamed(target, place))
            case Exists():
                found = yield from self._lookups.one(target, Kind.A, place)
                return any(each.records for each in found)

    def _included(self, target: str, place: Place) -> Inquiry[bool]:
        """
        RFC 7208 5.2.
        """
        outcome = yield from self.evaluate(target)
        if outcome.status is AuthResult.NONE:
            raise place.broken(f"no SPF record at {target!r}")
        return outcome.status is AuthResult.PASS

    def _isExchange(self, mx: MX, target: str, place: Place) -> Inquiry[bool]:
        """
        RFC 7208 5.4.
        """
        found = yield from self._lookups.exchanges(target, place)
        if self._isNear(found, mx):
            return True
        self._lookups.settle(found, place)
        return False

    def _isNamed(self, target: str, place: Place) -> Inquiry[bool]:
        """
        RFC 7208 5.5, which has it the wrong way around in one of its
        sentences: the client's name may be a subdomain.
        """
        names = yield from self._lookups.clientNames(place)
        return any(_isUnder(name, target) for name in names)

    def _isNear(self, answers: Answers, mechanism: A | MX) -> bool:
        client = self._client
        prefix = mechanism.prefix4 if client.kind is Kind.A else mechanism.prefix6
        return any(client.isNear(each.addresses, prefix) for each in answers)

    def _isBeyondASCII(self, spec: DomainSpec | None) -> bool:
        return (
            spec is not None
            and not spec.letters.isdisjoint(_ABOUT_LOCAL_PART)
            and not self._client.localPart.isascii()
        )

    def _target(self, spec: DomainSpec | None, domain: str) -> Inquiry[str]:
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

    def _values(self, letters: frozenset[str], domain: str) -> Inquiry[dict[str, str]]:
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
