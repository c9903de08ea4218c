"""
Tests for the names and texts of the code that the documents quote.
"""

from __future__ import annotations

import ast
import re
from functools import cache
from importlib import import_module
from inspect import getmodule
from pathlib import Path
from textwrap import dedent
from unittest import SkipTest

from twisted.trial.unittest import SynchronousTestCase

import moxtls
from moxtls import api
from moxtls.config import parse
from moxtls.config.addresses import reportMailboxes

PACKAGE = Path(moxtls.__file__).parent
DOCS = PACKAGE.parent / "docs"
#: ``...`` in a quoted log event, in the place of a field or at the end.
FIELD = r"(?:\{\w+(?:![rs])?(?::[^}]*)?\})"
#: A module, or a name in one, as architecture.rst writes it.
PLACE = re.compile(r"``([a-z]+(?:/[a-z]+)+)(?:\.([A-Za-z_]+))?``")

#: A path in the repository.
FILE = re.compile(
    r"(?<![/\w])((?:moxtls|tests|docs|bench|fuzz|interop)/[\w/]+(?:\.\w+)?)"
)


@cache
def texts() -> tuple[str, ...]:
    """
    All string literals of the package.
    """
    trees = [ast.parse(path.read_text()) for path in PACKAGE.rglob("*.py")]
    nodes = (node for tree in trees for node in ast.walk(tree))
    return tuple(
        node.value
        for node in nodes
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    )


class DocumentTests(SynchronousTestCase):
    """
    Tests for docs/.
    """

    def setUp(self) -> None:
        if not DOCS.exists():
            raise SkipTest(f"no {DOCS}")

    def test_receivedReports(self) -> None:
        """
        The configuration in docs/received.rst has no errors.
        """
        document = (DOCS / "received.rst").read_text()
        block = document.partition("for its reports::")[2].partition("and names")[0]
        account = '[Accounts.alice.Destinations]\n"alice@example.org" = {}\n'
        text = f'Hostname = "mail.example.org"\n{dedent(block)}{account}'
        found = [str(each.address) for each in reportMailboxes(parse(text, "doc"))]
        dmarc = "dmarcreports@example.org"
        self.assertEqual(found, ["tlsreports@example.org", dmarc, dmarc])

    def test_logEvents(self) -> None:
        """
        The log events in docs/operating.rst are in the code.
        """
        document = (DOCS / "operating.rst").read_text()
        table = document.partition("Event contains")[2].partition("\n\n")[0]
        quoted = re.findall(r"^``(.+?)``", table, re.MULTILINE)
        self.assertGreater(len(quoted), 8)
        for text in quoted:
            event = re.compile(FIELD.join(map(re.escape, text.split("..."))))
            self.assertTrue(any(map(event.search, texts())), text)

    def test_places(self) -> None:
        """
        The modules that docs/architecture.rst names are there, with the names in them.
        """
        places = PLACE.findall((DOCS / "architecture.rst").read_text())
        self.assertGreater(len(places), 10)
        for name, attribute in places:
            if attribute != "py":
                module = import_module(f"moxtls.{name.replace('/', '.')}")
                self.assertTrue(not attribute or hasattr(module, attribute), name)

    def test_files(self) -> None:
        """
        The files and folders that the documents name are there.
        """
        documents = [*DOCS.glob("*.rst"), *DOCS.parent.glob("*.rst")]
        missing = {
            f"{document.name}: {name}"
            for document in documents
            for name in FILE.findall(document.read_text())
            if name != "docs/build" and not (DOCS.parent / name).exists()
        }
        self.assertEqual(missing, set())

    def test_api(self) -> None:
        """
        The names of C{moxtls.api} are there, in alphabetical order, and are defined in
        this package.
        """
        self.assertEqual(api.__all__, sorted(api.__all__))
        for name in api.__all__:
            module = getmodule(getattr(api, name))
            assert module is not None, name
            self.assertEqual(module.__name__.partition(".")[0], "moxtls", name)
