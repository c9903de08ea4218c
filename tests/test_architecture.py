"""
Tests for what docs/architecture.rst says is there.
"""

from __future__ import annotations

import re
from pathlib import Path
from unittest import SkipTest

from twisted.trial.unittest import SynchronousTestCase

import moxtls
from moxtls.mtasts import fetch, rules
from moxtls.mtasts.policy import STSRecordError
from moxtls.tls import resulttype
from tests.test_layers import PURE

PACKAGE = Path(moxtls.__file__).parent
FILE = PACKAGE.parent / "docs" / "architecture.rst"
READINGS = FILE.with_name("readings.rst")
#: An entry of the map: names, perhaps on a line of their own, and a mark.
ENTRY = re.compile(r"^ +((?:\w+,? +)+)([.>])(?= )", re.MULTILINE)


class ArchitectureTests(SynchronousTestCase):
    """
    Tests for docs/architecture.rst.
    """

    def setUp(self) -> None:
        if not FILE.exists():
            raise SkipTest(f"no {FILE}")
        self.text = FILE.read_text()

    def sections(self) -> dict[str, str]:
        """
        The map by folder; what is in none is in the first.
        """
        start = self.text.index("    moxtls/\n")
        map = self.text[start : self.text.index("\n\nHow values flow")]
        pieces = re.split(r"^      ([\w/]+/)", map, flags=re.MULTILINE)
        folders = ["", *pieces[1::2]]
        return dict(zip(folders, pieces[::2], strict=True))

    def modules(self) -> set[str]:
        return {
            path.relative_to(PACKAGE).as_posix()
            for path in PACKAGE.rglob("*.py")
            if not path.name.startswith("_") and "migrations" not in path.parts
        }

    def test_everything(self) -> None:
        """
        Every module is in the map, in its folder.
        """
        sections = self.sections()
        for module in self.modules():
            folder, _, name = module.rpartition("/")
            section = sections[f"{folder}/" if folder else ""]
            word = rf"\b{name.removesuffix('.py')}\b"
            self.assertRegex(section, word, module)

    def test_marks(self) -> None:
        """
        What is marked as pure is held to be, and nothing else is.
        """
        marked = {
            f"{folder}{name}.py": mark
            for folder, section in self.sections().items()
            for names, mark in ENTRY.findall(section)
            for name in re.findall(r"\w+", names)
        }
        for module in self.modules() & set(marked):
            expected = "." if module in PURE or module == "interfaces.py" else ">"
            self.assertEqual(marked[module], expected, module)
        self.assertGreater(len(self.modules() & set(marked)), 100)

    def test_reasonCodes(self) -> None:
        """
        Every failure-reason-code is explained in docs/readings.rst.
        """
        failures = (fetch.NOT_SERVED, fetch.NOT_FETCHED, fetch.INVALID)
        codes = {each.reasonCode for each in (*failures, rules.BACKOFF_FAILURE)}
        codes |= set(STSRecordError) | {rules.FALLBACK_SUFFIX}
        source = Path(resulttype.__file__).read_text()
        codes |= set(re.findall(r'"([a-z0-9]+(?:[-+][a-z0-9]+)+)"', source))
        self.assertGreater(len(codes), 15)
        for code in codes:
            self.assertIn(f"``{code}", READINGS.read_text())

    def test_short(self) -> None:
        """
        It is read to its end.
        """
        self.assertLess(len(self.text.splitlines()), 600)
