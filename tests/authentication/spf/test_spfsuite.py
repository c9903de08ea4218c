"""
Conformance of L{moxtls.authentication.spf.evaluate} with the public test suites.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from moxtls.authentication.spf.evaluate import checkHost, mailFromRequest
from moxtls.dns.types import Answer, LookupQuestion, runWithAnswers
from tests.authentication.spf.spfsuite import Case, cases
from tests.corpus import corpus


class OpenSPFSuiteTests(SynchronousTestCase):
    """
    Tests for L{checkHost}.
    """

    def wrong(self, case: Case) -> str:
        """
        @return: Empty if all is well.
        """

        def answer(question: LookupQuestion) -> Answer:
            return self.successResultOf(case.zone.lookup(question.name, question.kind))

        request = mailFromRequest(case.ip, case.helo, case.mailFrom, "mx.example")
        result = runWithAnswers(checkHost(request), answer)
        expected = case.explanation
        if result.status not in case.results:
            return f"{case.name}: {result}"
        # RFC 7208 7.4 has the digits of IPv6 addresses in lower case.
        if expected is None or result.explanation.lower() == expected.lower():
            return ""
        return f"{case.name}: {result.explanation!r}"

    def conformance(self, name: str) -> tuple[int, list[str]]:
        """
        @return: The number of cases, and the failed ones.
        """
        path = corpus("spf", "sdgathman_pyspf", name)
        found = [self.wrong(each) for each in cases(path)]
        return len(found), [each for each in found if each]

    def test_rfc7208(self) -> None:
        """
        All of the suite for RFC 7208.
        """
        self.assertEqual(self.conformance("rfc7208-tests.yml"), (203, []))

    def test_rfc4408(self) -> None:
        """
        All of the suite for RFC 4408, which RFC 7208 obsoletes.
        """
        self.assertEqual(self.conformance("rfc4408-tests.yml"), (191, []))

    def test_pyspf(self) -> None:
        """
        pyspf's own, but for a modifier that hasn't meant anything since RFC
        4408.
        """
        count, wrong = self.conformance("test.yml")
        self.assertEqual(count, 16)
        names = [each.partition(":")[0] for each in wrong]
        self.assertEqual(names, ["default-modifier", "default-modifier-harsh"])
