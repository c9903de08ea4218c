"""
Tests for L{moxtls.authentication.spf.evaluate}.
"""

from __future__ import annotations

from collections.abc import Iterable

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from moxtls.authentication.results import AuthResult, SPFResult, SPFScope
from moxtls.authentication.spf.evaluate import (
    MAX_PROBLEM_LENGTH,
    SPFRequest,
    checkHost,
    heloRequest,
    mailFromRequest,
)
from moxtls.dns.memory import Content, MemoryResolver
from moxtls.dns.types import (
    IP,
    MX,
    TXT,
    Answer,
    LookupQuestion,
    LookupStatus,
    NameRecord,
    Record,
    RRType,
    runWithAnswers,
)

CLIENT = "192.0.2.3"
CLIENT6 = "2001:db8::3"
REVERSE = "3.2.0.192.in-addr.arpa"
SENDER = "user@example.com"

#: Terms that can be there, for records at random.
TERMS = st.sampled_from(
    [
        *("-all", "?all", "a", "mx", "~ptr", "-ptr:example.com", "exists:%{ir}.a.b"),
        *("ip4:192.0.2.0/30", "ip6:2001:db8::/32", "-a:%{l}.%{o}/8//16", "a:%{p}"),
        *("include:one.example", "include:two.example", "?include:%{d2}", "mx:%{h}"),
        *("redirect=one.example", "redirect=example.com", "exp=two.example"),
        *("exp=%{s}.example.com", "x=y", "moo", "a:one.example", "exists:%{S}"),
    ]
)
RECORDS = st.lists(TERMS, max_size=14).map(lambda terms: " ".join(["v=spf1", *terms]))


def textRecord(text: str) -> TXT:
    return TXT(text.encode("utf-8", "replace"))


#: Answers of each kind: usable, wrong, and too many.
CONTENTS: dict[RRType, st.SearchStrategy[Iterable[Record]]] = {
    RRType.TXT: st.lists(RECORDS.map(textRecord), min_size=1, max_size=1)
    | st.lists(st.text(max_size=20).map(textRecord), max_size=2),
    RRType.A: st.lists(st.sampled_from([IP(CLIENT), IP("192.0.2.2")]), max_size=2),
    RRType.AAAA: st.lists(st.sampled_from([IP(CLIENT6), IP("::1")]), max_size=2),
    RRType.MX: st.integers(0, 12).map(
        lambda most: [MX(each, f"mx{each}.example") for each in range(most)]
    ),
    RRType.PTR: st.integers(0, 20).map(
        lambda most: [NameRecord(f"host{each}.example.com") for each in range(most)]
    ),
}


class SPFTestCase(SynchronousTestCase):
    """
    Checks against a zone.
    """

    def setUp(self) -> None:
        self.dns = MemoryResolver()
        #: The questions of each round.
        self.rounds: list[tuple[LookupQuestion, ...]] = []

    def put(self, name: str, kind: RRType, *contents: Content) -> None:
        self.dns.put(name, kind, *contents)

    def publish(self, record: str, domain: str = "example.com") -> None:
        self.put(domain, RRType.TXT, record)

    def ask(self, request: SPFRequest) -> SPFResult:
        lookups = checkHost(request)
        self.rounds = []
        try:
            questions = next(lookups)
            while True:
                self.rounds.append(questions)
                questions = lookups.send(tuple(map(self.answer, questions)))
        except StopIteration as end:
            result = end.value
            assert isinstance(result, SPFResult)
            return result

    def answer(self, question: LookupQuestion) -> Answer:
        return self.successResultOf(self.dns.lookup(question.name, question.kind))

    def check(
        self,
        record: str = "",
        ip: str = CLIENT,
        sender: str = SENDER,
        helo: str = "mail.example.com",
    ) -> SPFResult:
        """
        @param record: To be published by example.com.
        """
        if record:
            self.publish(record)
        return self.ask(mailFromRequest(ip, helo, sender, "mx.example.net", 7.9))

    def status(self, record: str, ip: str = CLIENT, sender: str = SENDER) -> str:
        return self.check(record, ip, sender).status.value

    def broken(self, record: str, *words: str) -> None:
        """
        The result is permerror, with C{words} as the problem.
        """
        result = self.check(record)
        self.assertEqual(result.status, AuthResult.PERMERROR, record)
        for each in words:
            self.assertIn(each, result.problem)


class RequestTests(SPFTestCase):
    """
    Tests for L{heloRequest} and L{mailFromRequest}.
    """

    def test_hello(self) -> None:
        """
        RFC 7208 2.3: the sender is the postmaster at the name.
        """
        self.put("mail.example", RRType.TXT, "v=spf1 -all exp=x.mail.example")
        self.put("x.mail.example", RRType.TXT, "%{s} %{h} %{d}")
        result = self.ask(heloRequest(CLIENT, "Mail.Example.", "mx.example.net"))
        self.assertEqual(result.scope, SPFScope.HELO)
        self.assertEqual(result.domain, "mail.example")
        self.assertEqual(
            result.explanation, "postmaster@mail.example mail.example mail.example"
        )

    def test_nullSender(self) -> None:
        """
        RFC 7208 2.4: the null reverse-path is about HELO.
        """
        request = mailFromRequest(CLIENT, "mail.example", "", "mx.example.net")
        self.assertEqual(request, heloRequest(CLIENT, "mail.example", "mx.example.net"))

    def test_mailFrom(self) -> None:
        """
        RFC 7208 2.4: the domain follows the last C{@}.
        """
        for sender in (
            SENDER,
            "@example.com",
            '"a@b.example"@EXAMPLE.com',
            SENDER + ".",
        ):
            result = self.check("v=spf1 +all", sender=sender)
            self.assertEqual(
                result,
                SPFResult(SPFScope.MAIL_FROM, "example.com", AuthResult.PASS, "+all"),
            )

    def test_noDomain(self) -> None:
        """
        RFC 7208 2.3, 4.3: names that aren't domains of several labels give C{none}
        without lookups.
        """
        for name in (
            *("", ".", "localhost", "localhost.", "[192.0.2.3]", "192.0.2.3"),
            *("[IPv6:2001:db8::3]", "a..example", ".example.com", "a b.example"),
            *("a@example.com", "x" * 64 + ".example", "x." * 126 + "example", "\x00.c"),
            *("xn--\xe9.example", "\udc80.example", "a.example-", "a.b\n", "%{d}.com"),
        ):
            results = [self.ask(heloRequest(CLIENT, name, ""))]
            if "@" not in name:
                results.append(self.check(sender=f"user@{name}"))
            for result in results:
                self.assertEqual(result.status, AuthResult.NONE, name)
        self.assertEqual(self.dns.asked, [])

    def test_noAddress(self) -> None:
        """
        Without an address there is nothing to check.
        """
        for ip in ("", "client.example", "192.0.2", "1::2::3"):
            result = self.check("v=spf1 +all", ip)
            self.assertEqual(result.status, AuthResult.NONE, ip)

    def test_international(self) -> None:
        """
        RFC 8616 4: domains are looked up, and stand in macros, as A-labels.
        """
        self.put("xn--bcher-kva.example", RRType.TXT, "v=spf1 -all exp=x.example")
        self.put("x.example", RRType.TXT, "%{o} %{h}")
        result = self.check(sender="user@B\xfccher.example", helo="b\xfccher.example")
        self.assertEqual(result.domain, "xn--bcher-kva.example")
        self.assertEqual(
            result.explanation, "xn--bcher-kva.example xn--bcher-kva.example"
        )

    def test_internationalLocalPart(self) -> None:
        """
        RFC 8616 4: terms with a local part that isn't ASCII match nothing.
        """
        self.put("example.org", RRType.TXT, "v=spf1 +all")
        for term in ("exists:%{l}.org", "include:%{s1r}example.org", "a:%{L1}.org"):
            self.assertEqual(
                self.status(f"v=spf1 {term} -all", sender="\xfc@example.com"), "fail"
            )
        self.assertEqual(
            self.check("v=spf1 redirect=%{l}.org", sender="\xfc@example.com").status,
            AuthResult.PERMERROR,
        )
        self.publish("v=spf1 -all exp=x.example.com")
        self.put("x.example.com", RRType.TXT, "not %{s}, not %{L}")
        result = self.check(sender="\xfc@example.com")
        self.assertEqual(result.explanation, "not ?@example.com, not %C3%BC")
        self.check("v=spf1 -all exp=%{l}.example.com", sender="\xfc@example.com")
        self.assertEqual(len(self.rounds), 1)


class RecordTests(SPFTestCase):
    """
    The choice of the record.
    """

    def test_none(self) -> None:
        """
        RFC 7208 4.3, 4.5: the name doesn't exist, has no TXT records, or no SPF
        record.
        """
        self.assertEqual(self.check().status, AuthResult.NONE)
        self.put("example.com", RRType.TXT)
        self.assertEqual(self.check().status, AuthResult.NONE)
        self.put("example.com", RRType.TXT, "v=spf10 +all", "v=spf2.0/pra +all", "")
        self.assertEqual(self.check().status, AuthResult.NONE)

    def test_several(self) -> None:
        """
        RFC 7208 4.5: one among others will do, two are an error.
        """
        self.put("example.com", RRType.TXT, "x=y", "V=SPF1 +all", TXT(b"\xff"))
        self.assertEqual(self.check().status, AuthResult.PASS)
        self.put("example.com", RRType.TXT, "v=spf1 +all", "v=spf1")
        result = self.check()
        self.assertEqual(result.status, AuthResult.PERMERROR)
        self.assertEqual(result.problem, "example.com: more than one SPF record")

    def test_failed(self) -> None:
        """
        RFC 7208 4.4: the lookup fails.
        """
        self.dns.fail("example.com", RRType.TXT)
        result = self.check()
        self.assertEqual(result.status, AuthResult.TEMPERROR)
        self.assertIn("TXT at example.com failed: SERVFAIL", result.problem)

    def test_syntax(self) -> None:
        """
        RFC 7208 4.6: an error anywhere is one, before anything is evaluated.
        """
        self.broken("v=spf1 a +all moo", "example.com", "'moo'")
        self.assertEqual(len(self.rounds), 1)

    def test_results(self) -> None:
        """
        RFC 7208 4.6.2, 4.7: the first matching term gives the result; without one it
        is neutral.
        """
        for terms, status, mechanism in [
            ("ip4:192.0.2.3 -all", "pass", "ip4:192.0.2.3"),
            ("-ip4:192.0.2.0/24 +all", "fail", "-ip4:192.0.2.0/24"),
            ("~All", "softfail", "~All"),
            ("?all +all", "neutral", "?all"),
            ("ip4:192.0.2.4", "neutral", ""),
            ("", "neutral", ""),
        ]:
            result = self.check(f"v=spf1 {terms}")
            found = (result.status, result.mechanism, result.problem)
            self.assertEqual(found, (status, mechanism, ""), terms)

    def test_longMechanism(self) -> None:
        """
        A term that matched is shown up to a length.
        """
        self.put("x.example", RRType.A, "192.0.2.3")
        # Macros for what the client didn't say.
        result = self.check("v=spf1 exists:" + "%{h}" * 500 + "x.example", helo="")
        self.assertEqual(result.status, AuthResult.PASS)
        self.assertEqual(len(result.mechanism), MAX_PROBLEM_LENGTH)


class MechanismTests(SPFTestCase):
    """
    RFC 7208 5, one by one.
    """

    def test_networks(self) -> None:
        """
        RFC 7208 5.6, 5: bits of the client's address, if it's of that kind;
        IPv4 mapped into IPv6 is IPv4.
        """
        for term, ip, expected in [
            ("ip4:192.0.2.3", CLIENT, "pass"),
            ("ip4:192.0.2.2/31", CLIENT, "pass"),
            ("ip4:192.0.2.2/31", "192.0.2.4", "fail"),
            ("ip4:0.0.0.0/0", CLIENT, "pass"),
            ("ip4:0.0.0.0/0", CLIENT6, "fail"),
            ("ip4:192.0.2.3", "::ffff:192.0.2.3", "pass"),
            ("ip6:::ffff:192.0.2.3", "::ffff:192.0.2.3", "fail"),
            ("ip6:::/0", CLIENT, "fail"),
            ("ip6:2001:DB8::/32", CLIENT6, "pass"),
            ("ip6:2001:db8::2/127", CLIENT6, "pass"),
            ("ip6:2001:db8::2", CLIENT6, "fail"),
            ("ip6:2001:db8::3", CLIENT6 + "%eth0", "pass"),
        ]:
            self.assertEqual(self.status(f"v=spf1 {term} -all", ip), expected, term)

    def test_a(self) -> None:
        """
        RFC 7208 5.3: A or AAAA records, compared up to the prefix length.
        """
        self.put("example.com", RRType.A, "192.0.2.9", "198.51.100.3")
        self.put("example.com", RRType.AAAA, "2001:db8::9")
        self.put("host.example", RRType.A, CLIENT)
        for term, ip, expected in [
            ("a", CLIENT, "fail"),
            ("a", "198.51.100.3", "pass"),
            ("a/24", CLIENT, "pass"),
            ("a//64", CLIENT, "fail"),
            ("a//64", CLIENT6, "pass"),
            ("a/0", CLIENT6, "fail"),
            ("a:Host.example.", CLIENT, "pass"),
            ("a:host.example/0", "203.0.113.1", "pass"),
            ("a:host.example//0", CLIENT6, "fail"),
            ("a:gone.example/0", CLIENT, "fail"),
        ]:
            self.assertEqual(self.status(f"v=spf1 {term} -all", ip), expected, term)

    def test_exists(self) -> None:
        """
        RFC 7208 5.7: any A record, also for a client with IPv6.
        """
        self.put("192.0.2.3._spf.example.com", RRType.A, "127.0.0.2")
        self.put("six.example", RRType.AAAA, CLIENT6)
        self.put("four.example", RRType.A, "127.0.0.2")
        for term, ip, expected in [
            ("exists:%{i}._spf.%{d}", CLIENT, "pass"),
            ("exists:%{i}._spf.%{d}", "192.0.2.4", "fail"),
            ("exists:six.example", CLIENT6, "fail"),
            ("exists:four.example", CLIENT6, "pass"),
        ]:
            self.assertEqual(self.status(f"v=spf1 {term} -all", ip), expected, term)

    def test_mx(self) -> None:
        """
        RFC 7208 5.4: any address of any host, which are looked up at the same
        time; no MX records, no hosts.
        """
        self.put(
            "example.com", RRType.MX, "10 b.example", "5 a.example", "20 b.example"
        )
        self.put("a.example", RRType.A, "192.0.2.9")
        self.put("b.example", RRType.A, "192.0.2.8", CLIENT)
        self.assertEqual(self.status("v=spf1 mx -all"), "pass")
        self.assertEqual(
            [len(questions) for questions in self.rounds], [1, 1, 2], self.rounds
        )
        self.assertEqual(self.status("v=spf1 mx:example.com/28 -all"), "pass")
        self.assertEqual(self.status("v=spf1 mx -all", CLIENT6), "fail")
        self.assertEqual(self.status("v=spf1 mx:a.example/0 -all"), "fail")
        self.put("example.com", RRType.MX, MX(0, ""))
        self.assertEqual(self.status("v=spf1 mx/0 -all"), "fail")
        self.assertEqual(len(self.rounds), 2)

    def test_mxHosts(self) -> None:
        """
        RFC 7208 4.6.4: of more than ten hosts, none is looked up.
        """
        hosts = [f"{each} mx{each}.example" for each in range(11)]
        self.put("mx0.example", RRType.A, CLIENT)
        self.put("example.com", RRType.MX, *hosts[:10])
        self.assertEqual(self.status("v=spf1 mx -all"), "pass")
        self.put("example.com", RRType.MX, *hosts)
        self.broken("v=spf1 mx -all", "example.com: mx: more than 10 MX hosts")
        self.assertEqual(len(self.rounds), 2)

    def test_ptr(self) -> None:
        """
        RFC 7208 5.5: a name that has the address, and is the domain or under
        it.
        """
        self.put(REVERSE, RRType.PTR, "a.mail-example.com", "A.mail.example.com")
        self.put("a.mail-example.com", RRType.A, CLIENT)
        self.put("a.mail.example.com", RRType.A, "192.0.2.9", CLIENT)
        for term, expected in [
            ("ptr", "pass"),
            ("ptr:Mail.example.com", "pass"),
            ("ptr:a.mail.example.com", "pass"),
            ("ptr:b.a.mail.example.com", "fail"),
            ("ptr:ail.example.com", "fail"),
            ("ptr:example.org", "fail"),
        ]:
            self.assertEqual(self.status(f"v=spf1 {term} -all"), expected, term)
        self.assertEqual([len(questions) for questions in self.rounds], [1, 1, 2])
        self.put("a.mail.example.com", RRType.A, "192.0.2.9")
        self.assertEqual(self.status("v=spf1 ptr -all"), "fail")

    def test_ptrFailing(self) -> None:
        """
        RFC 7208 5.5: a failed lookup doesn't match; a name without an address is
        skipped.
        """
        self.dns.fail(REVERSE, RRType.PTR)
        self.assertEqual(self.status("v=spf1 ptr -all"), "fail")
        self.put(REVERSE, RRType.PTR, "a.example.com", "b.example.com")
        self.dns.fail("a.example.com", RRType.A)
        self.put("b.example.com", RRType.A, CLIENT)
        self.assertEqual(self.status("v=spf1 ptr -all"), "pass")

    def test_ptrNames(self) -> None:
        """
        RFC 7208 4.6.4: of more than ten names, the first ten count.
        """
        names = [f"host{each}.example.com" for each in range(11)]
        self.put(REVERSE, RRType.PTR, *names)
        self.put(names[10], RRType.A, CLIENT)
        self.assertEqual(self.status("v=spf1 ptr -all"), "fail")
        self.assertEqual(len(self.rounds[-1]), 10)
        self.put(names[9], RRType.A, CLIENT)
        self.assertEqual(self.status("v=spf1 ptr -all"), "pass")

    def test_include(self) -> None:
        """
        RFC 7208 5.2: a pass matches, errors are passed on, a missing record is a
        permanent error; the matched mechanism is the include.
        """
        for included, status in [
            ("v=spf1 ip4:192.0.2.3 -all", "softfail"),
            ("v=spf1 -all", "fail"),
            ("v=spf1 ~all", "fail"),
            ("v=spf1 ?all", "fail"),
            ("v=spf1", "fail"),
            ("v=spf1 moo", "permerror"),
            ("x=y", "permerror"),
        ]:
            self.publish(included, "one.example")
            found = self.status("v=spf1 ~include:One.example -all")
            self.assertEqual(found, status, included)
        self.publish("v=spf1 +all", "one.example")
        result = self.check("v=spf1 ~include:One.example -all")
        self.assertEqual(result.mechanism, "~include:One.example")
        self.dns.fail("one.example", RRType.TXT)
        self.assertEqual(self.status("v=spf1 include:one.example +all"), "temperror")

    def test_includeProblems(self) -> None:
        """
        A problem names the record it is in.
        """
        self.broken(
            "v=spf1 include:one.example", "example.com: include:one.example: no"
        )
        self.publish("v=spf1 include:two.example", "one.example")
        self.publish("v=spf1 a:museum", "two.example")
        self.broken("v=spf1 include:one.example", "two.example: 'a:museum'")

    def test_longTerm(self) -> None:
        """
        The fault of a long term is reported.
        """
        self.broken("v=spf1 include:" + "%{h}" * 500 + ".example", "no SPF record at")

    def test_includeNoName(self) -> None:
        """
        RFC 7208 4.3, 5.2: a malformed name has no record.
        """
        for name in ("a..example", "%{l1}%{v}", "x" * 64 + ".example", "%{o1}"):
            self.broken(f"v=spf1 include:{name} +all", "no SPF record")

    def test_failing(self) -> None:
        """
        RFC 7208 5: a failed lookup is a temporary error.
        """
        for kind, term in [
            (RRType.A, "a:broken.example"),
            (RRType.A, "exists:broken.example"),
            (RRType.MX, "mx:broken.example"),
        ]:
            self.dns.fail("broken.example", kind)
            result = self.check(f"v=spf1 {term} +all")
            self.assertEqual(result.status, AuthResult.TEMPERROR, term)
            self.assertIn(f"example.com: {term}: lookup of {kind}", result.problem)

    def test_mxFailing(self) -> None:
        """
        RFC 7208 5.4: one host has no answer, which matters only if no other
        one is the client.
        """
        self.put("example.com", RRType.MX, "1 broken.example", "2 a.example")
        self.put("a.example", RRType.A, CLIENT)
        self.dns.fail("broken.example", RRType.A)
        self.assertEqual(self.status("v=spf1 mx -all"), "pass")
        self.put("a.example", RRType.A, "192.0.2.9")
        self.assertEqual(self.status("v=spf1 mx -all"), "temperror")

    def test_noName(self) -> None:
        """
        RFC 7208 4.8: impossible names aren't looked up, and don't match.
        """
        long = "x" * 64
        for domain in ("a..example", f"{long}.example", f"{long * 4}.example"):
            for name in ("a", "mx", "exists", "ptr"):
                record = f"v=spf1 {name}:{domain} -all"
                self.assertEqual(self.status(record), "fail", record)
        self.check(f"v=spf1 a:a..example exists:{long}.example a:{long}.example -all")
        self.assertEqual(len(self.rounds), 1)

    def test_backslash(self) -> None:
        """
        RFC 7208 4.8: the sender's local part can't escape a dot in a name, and
        so get it out of the domain that it's in.
        """
        self.put("x\\._spf.example.com", RRType.A, "127.0.0.2")
        record = "v=spf1 exists:%{l}._spf.%{d} -all"
        self.assertEqual(self.status(record, sender="x\\@example.com"), "fail")
        self.put("x\\\\._spf.example.com", RRType.A, "127.0.0.2")
        self.assertEqual(self.status(record, sender="x\\@example.com"), "pass")


class ModifierTests(SPFTestCase):
    """
    RFC 7208 6.
    """

    def test_redirect(self) -> None:
        """
        RFC 7208 6.1: behind all terms; everything is as in that record, and
        there has to be one.
        """
        self.publish("v=spf1 a:%{d} ip4:192.0.2.9 ~all", "one.example")
        self.put("one.example", RRType.A, "192.0.2.8")
        record = "v=spf1 redirect=one.example ip4:192.0.2.3"
        for ip, status, mechanism in [
            (CLIENT, "pass", "ip4:192.0.2.3"),
            ("192.0.2.8", "pass", "a:%{d}"),
            ("192.0.2.7", "softfail", "~all"),
        ]:
            result = self.check(record, ip)
            self.assertEqual((result.status, result.mechanism), (status, mechanism))
        self.assertEqual(self.status("v=spf1 redirect=gone.example ?all"), "neutral")
        self.broken("v=spf1 redirect=gone.example", "no SPF record at 'gone.example'")
        self.broken("v=spf1 redirect=a..example", "no SPF record")

    def test_explanation(self) -> None:
        """
        RFC 7208 6.2: for a failure, with macros, in printable ASCII.
        """
        self.put(
            "x.example.com", RRType.TXT, TXT(b"%{i}%_is not %{d}, says %{r} at %{t}.")
        )
        record = "v=spf1 ip4:192.0.2.4 -all exp=x.%{d}"
        expected = "192.0.2.3 is not example.com, says mx.example.net at 7."
        self.assertEqual(self.check(record).explanation, expected)
        self.assertEqual(self.check(record, "192.0.2.4").explanation, "")
        self.assertEqual(self.check(record.replace("-", "~")).explanation, "")

    def test_noExplanation(self) -> None:
        """
        RFC 7208 6.2: any fault of the explanation leaves none.
        """
        record = "v=spf1 -all exp=x.example"
        for texts in (
            [],
            ["one", "two"],
            ["%{x}"],
            ["100%"],
            [TXT(b"caf\xe9")],
            [TXT(b"a\r\nb")],
            [TXT(b"x" * 20000)],
        ):
            self.put("x.example", RRType.TXT, *texts)
            result = self.check(record)
            found = (result.status, result.explanation)
            self.assertEqual(found, (AuthResult.FAIL, ""), texts)
        self.dns.fail("x.example", RRType.TXT)
        self.assertEqual(self.check(record).explanation, "")
        self.assertEqual(self.check("v=spf1 -all exp=a..b").explanation, "")
        self.assertEqual(self.check("v=spf1 -all exp=a..b").status, AuthResult.FAIL)

    def test_whoExplains(self) -> None:
        """
        RFC 7208 6.2: the explanation is not that of an included record, but that of a
        redirect's target.
        """
        self.publish("v=spf1 -all exp=x.one.example", "one.example")
        self.put("x.one.example", RRType.TXT, "one")
        self.put("x.example.com", RRType.TXT, "com")
        for terms, words in [
            ("include:one.example -all exp=x.example.com", "com"),
            ("include:one.example -all", ""),
            ("exp=x.example.com redirect=one.example", "one"),
        ]:
            self.assertEqual(self.check(f"v=spf1 {terms}").explanation, words, terms)

    def test_explanationCosts(self) -> None:
        """
        RFC 7208 4.6.4: looking for an explanation isn't counted.
        """
        terms = "a mx:gone.example a:gone.example " + "a " * 7
        self.put("example.com", RRType.A, "192.0.2.9")
        result = self.check(f"v=spf1 {terms} -all exp=%{{p}}.gone.example")
        self.assertEqual(result.status, AuthResult.FAIL)


class MacroTests(SPFTestCase):
    """
    RFC 7208 7, where it needs the DNS or the request.
    """

    def test_name(self) -> None:
        """
        RFC 7208 7.3: the client's name is the domain itself, else one under
        it, else any, else unknown; it is looked up once.
        """
        names = ["a.example.org", "b.example.com", "example.com"]
        for name in names:
            self.put(name, RRType.A, CLIENT)
        self.put("x.example.com", RRType.TXT, "from %{p}")
        for count, expected in enumerate(["unknown", *names]):
            self.put(REVERSE, RRType.PTR, *names[:count])
            result = self.check("v=spf1 ptr:x.example -all exp=x.%{d}")
            self.assertEqual(result.explanation, f"from {expected}")
        self.dns.fail(REVERSE, RRType.PTR)
        result = self.check("v=spf1 -all exp=x.%{d}")
        self.assertEqual(result.explanation, "from unknown")

    def test_nameInTerms(self) -> None:
        """
        RFC 7208 7.2: the client's name in a term.
        """
        self.put(REVERSE, RRType.PTR, "b.example.com")
        self.put("b.example.com", RRType.A, CLIENT)
        self.put("b.example.com.ok.example", RRType.A, "127.0.0.2")
        self.assertEqual(self.status("v=spf1 exists:%{p}.ok.example -all"), "pass")

    def test_sender(self) -> None:
        """
        RFC 7208 7.2: the sender stays, the domain is that of the record; a
        sender without local part is the postmaster.
        """
        self.publish("v=spf1 -all exp=x.example", "one.example")
        self.put("x.example", RRType.TXT, "%{s} %{l} %{o} %{d} %{h} %{L}")
        result = self.check("v=spf1 redirect=one.example", sender="A/b@Example.com")
        self.assertEqual(
            result.explanation,
            "A/b@example.com A/b example.com one.example mail.example.com A%2Fb",
        )
        self.assertIn("postmaster@e", self.check(sender="@example.com").explanation)


class LimitTests(SPFTestCase):
    """
    RFC 7208 4.6.4.
    """

    def test_terms(self) -> None:
        """
        Ten terms that need the DNS, in all records together; the others are
        free.
        """
        self.put("example.com", RRType.A, "192.0.2.9")
        self.put("example.com", RRType.MX, "1 example.com")
        free = "ip4:192.0.2.1 ip6:::1 x=y " * 9
        self.assertEqual(self.status(f"v=spf1 {free} {'a mx ' * 5} -all"), "fail")
        self.broken(f"v=spf1 {'a mx ' * 5} ptr -all", "example.com: ptr: more than 10")
        self.broken(f"v=spf1 {'a ' * 10} redirect=example.com", "redirect: more than")
        self.publish(f"v=spf1 {'a:example.com ' * 8}", "one.example")
        self.assertEqual(self.status("v=spf1 include:one.example a -all"), "fail")
        self.broken("v=spf1 include:one.example a a -all", "more than 10 terms")

    def test_loops(self) -> None:
        """
        There is an end to records that lead to themselves.
        """
        for term in ("include:%{d}", "redirect=example.com", "include:x.example"):
            self.publish("v=spf1 include:example.com", "x.example")
            self.broken(f"v=spf1 {term}", "more than 10 terms")
            self.assertEqual(len(self.rounds), 11)

    def test_octets(self) -> None:
        """
        The total length of the records of a check is limited.
        """
        for number in range(9):
            self.publish("v=spf1 " + "ip4:192.0.2.77 " * 1000, f"{number}.example")
        for several, isTooMuch in ((2, False), (3, True)):
            terms = " ".join(f"include:{each}.example" for each in range(several))
            if isTooMuch:
                self.broken(f"v=spf1 {terms} -all", "the records are too long")
            else:
                self.assertEqual(self.status(f"v=spf1 {terms} -all"), "fail")

    def test_clientName(self) -> None:
        """
        RFC 7208 4.6.4: the lookup of the client's name counts as one, too.
        """
        self.put("example.com", RRType.A, "192.0.2.9")
        self.put("a.example", RRType.A, "192.0.2.9")
        self.assertEqual(self.status("v=spf1 " + "a " * 8 + "a:%{p}.x -all"), "fail")
        self.broken("v=spf1 " + "a " * 9 + "a:%{p}.x -all", "a:%{p}.x: more than 10")
        self.broken("v=spf1 " + "a:%{p}.x " * 3 + "-all", "void lookups")

    def test_void(self) -> None:
        """
        RFC 7208 4.6.4: two void lookups are allowed, whether a name has no records or
        doesn't exist.
        """
        self.put("empty.example", RRType.A)
        two = "a:gone.example exists:empty.example"
        self.assertEqual(self.status(f"v=spf1 {two} -all"), "fail")
        for term in ("a:gone.example", "mx", "ptr", "exists:gone.example"):
            words = f"example.com: {term}: more than 2 void lookups"
            self.broken(f"v=spf1 {two} {term} -all", words)

    def test_voidHosts(self) -> None:
        """
        RFC 7208 4.6.4: an MX record is one term, however many of its hosts
        aren't there.
        """
        hosts = [f"{each} mx{each}.example" for each in range(10)]
        self.put("example.com", RRType.MX, *hosts)
        self.assertEqual(self.status("v=spf1 mx mx -all"), "fail")
        self.broken("v=spf1 mx mx mx -all", "more than 2 void lookups")
        self.put("mx7.example", RRType.A, "192.0.2.9")
        self.assertEqual(self.status("v=spf1 mx mx mx -all"), "fail")

    def test_most(self) -> None:
        """
        The maximum number of lookups for a message, and of rounds.
        """
        hosts = [f"{each} %s{each}.example" for each in range(10)]
        for each in range(9):
            domain = f"d{each}.example"
            self.put(domain, RRType.MX, *(host % f"h{each}x" for host in hosts))
            self.put(f"h{each}x0.example", RRType.A, "192.0.2.9")
        names = [f"n{each}.example.com" for each in range(100)]
        self.put(REVERSE, RRType.PTR, *names)
        terms = " ".join(f"mx:d{each}.example" for each in range(9))
        self.assertEqual(self.status(f"v=spf1 {terms} ptr -all exp=x.example"), "fail")
        self.assertEqual(sum(map(len, self.rounds)), 1 + 9 * 11 + 11 + 1)
        self.assertEqual(len(self.rounds), 1 + 9 * 2 + 2 + 1)

    @settings(max_examples=60, deadline=None)
    @given(
        st.data(),
        st.sampled_from([CLIENT, CLIENT6]),
        st.sampled_from(["user", "\xfcser", "a.b-c+d", "\\", "", "x" * 64]),
        st.sampled_from(["mail.example.com", "[192.0.2.3]", "", "a b.\x00\xff"]),
    )
    def test_anything(
        self, data: st.DataObject, ip: str, localPart: str, helo: str
    ) -> None:
        """
        Any records yield a result within the limits, with printable texts.
        """
        asked: dict[LookupQuestion, Answer] = {}
        count = 0

        def answer(question: LookupQuestion) -> Answer:
            nonlocal count
            count += 1
            if question not in asked:
                records = tuple(data.draw(CONTENTS[question.kind]))
                found = LookupStatus.RECORDS if records else LookupStatus.NO_RECORDS
                if not records and data.draw(st.booleans()):
                    found = LookupStatus.FAILED
                asked[question] = Answer(question.name, question.kind, found, records)
            return asked[question]

        request = mailFromRequest(ip, helo, f"{localPart}@example.com", "mx.example")
        result = runWithAnswers(checkHost(request), answer)
        self.assertLessEqual(count, 1 + 10 * 11 + 11 + 1)
        for text in (result.mechanism, result.explanation, result.problem):
            self.assertTrue(text.isascii() and text.isprintable(), text)
        if result.status in (AuthResult.TEMPERROR, AuthResult.PERMERROR):
            self.assertTrue(result.problem)

    @settings(max_examples=60, deadline=None)
    @given(st.text(max_size=30), st.text(max_size=30), st.text(max_size=80))
    def test_anyRequest(self, ip: str, helo: str, sender: str) -> None:
        """
        Any request yields a result.
        """
        record = TXT(b"v=spf1 exists:%{s}.%{h}.%{o}.%{l1r-}.example -all exp=%{S}.x.de")

        def answer(question: LookupQuestion) -> Answer:
            return Answer(question.name, question.kind, LookupStatus.RECORDS, (record,))

        for address in (ip, CLIENT):
            runWithAnswers(
                checkHost(mailFromRequest(address, helo, sender, "")), answer
            )
