"""
Tests for the modules in docs/architecture.rst.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path
from unittest import SkipTest

from twisted.trial.unittest import SynchronousTestCase

import moxtls
from moxtls.mtasts import cache, policy
from moxtls.mtasts.policy import STSRecordError
from moxtls.tls import session
from tests.test_layers import PURE

PACKAGE = Path(moxtls.__file__).parent
FILE = PACKAGE.parent / "docs" / "architecture.rst"
READINGS = FILE.with_name("readings.rst")
#: An entry of the map: name, mark and text.
ENTRY = re.compile(r"^ {8}(\w+) +([.>]) +((?:.|\n {9,})+)", re.MULTILINE)
#: The end of the first phrase of a docstring.
END = re.compile(r"(?::+|\.)(?: |$)")


class ArchitectureTests(SynchronousTestCase):
    """
    Tests for docs/architecture.rst.
    """

    def setUp(self) -> None:
        if not FILE.exists():
            raise SkipTest(f"no {FILE}")
        self.text = FILE.read_text()

    def entries(self) -> dict[str, tuple[str, str]]:
        """
        The map: mark and text by module.
        """
        start = self.text.index("    moxtls/\n")
        map = self.text[start : self.text.index("\n\nWhere is")]
        pieces = re.split(r"^      ([\w/]+/)", map, flags=re.MULTILINE)
        sections = zip(["", *pieces[1::2]], pieces[::2], strict=True)
        return {
            f"{folder}{name}.py": (mark, " ".join(text.split()))
            for folder, section in sections
            for name, mark, text in ENTRY.findall(section)
        }

    def test_map(self) -> None:
        """
        Every module is in the map, in its folder, with the mark of pure ones and the
        first phrase of its docstring.
        """
        entries = self.entries()
        for path in PACKAGE.rglob("*.py"):
            if path.name.startswith("_") or "migrations" in path.parts:
                continue
            module = path.relative_to(PACKAGE).as_posix()
            isPure = module in PURE or module == "interfaces.py"
            expected = ("." if isPure else ">", firstPhrase(path.read_text()))
            self.assertEqual(entries.pop(module, None), expected, module)
        self.assertEqual(entries, {})

    def test_reasonCodes(self) -> None:
        """
        Every failure-reason-code is explained in docs/readings.rst.
        """
        failures = (cache.NOT_SERVED, cache.NOT_FETCHED, cache.INVALID)
        codes = {each.reasonCode for each in (*failures, policy.BACKOFF_FAILURE)}
        codes |= set(STSRecordError) | {policy.FALLBACK_SUFFIX}
        source = Path(session.__file__).read_text()
        codes |= set(re.findall(r'"([a-z0-9]+(?:[-+][a-z0-9]+)+)"', source))
        self.assertGreater(len(codes), 15)
        for code in codes:
            self.assertIn(f"``{code}", READINGS.read_text())

    def test_short(self) -> None:
        """
        It is read to its end.
        """
        self.assertLess(len(self.text.splitlines()), 650)


def firstPhrase(source: str) -> str:
    """
    The first phrase of a module's docstring, without markup.
    """
    text = " ".join((ast.get_docstring(ast.parse(source)) or "").split())
    return END.split(re.sub(r"[A-Z]\{([^}]*)\}", r"\1", text))[0]
