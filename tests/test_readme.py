"""
Tests for README.rst and docs/moxtls.toml.
"""

from __future__ import annotations

import re
import textwrap
from importlib import import_module
from pathlib import Path
from runpy import run_path
from unittest import SkipTest

from twisted.trial.unittest import SynchronousTestCase

import moxtls
from moxtls.cli.main import COMMANDS, parser
from moxtls.config import parse
from moxtls.domain import Domain

ROOT = Path(moxtls.__file__).parents[1]


class ReadmeTests(SynchronousTestCase):
    """
    Tests for README.rst.
    """

    def setUp(self) -> None:
        file = ROOT / "README.rst"
        if not file.exists():
            raise SkipTest(f"no {file}")
        self.text = file.read_text()

    def test_short(self) -> None:
        """
        It is read to its end.
        """
        self.assertLess(len(self.text.splitlines()), 190)

    def test_picture(self) -> None:
        """
        The picture equals the output of docs/loops.py.
        """
        script = ROOT / "docs" / "loops.py"
        self.assertIn(".. image:: docs/loops.svg", self.text)
        drawn = run_path(str(script))["svg"]()
        self.assertEqual(drawn, script.with_suffix(".svg").read_text())

    def test_configuration(self) -> None:
        """
        The configuration in the README is docs/moxtls.toml, and valid.
        """
        block = self.text.partition(".. code-block:: toml\n\n")[2]
        block = re.split(r"^\S", block, maxsplit=1, flags=re.MULTILINE)[0]
        example = (ROOT / "docs" / "moxtls.toml").read_text()
        self.assertEqual(textwrap.dedent(block).strip(), example.strip())
        config = parse(example, "moxtls.toml")
        self.assertEqual(set(config.listeners), {"local", "submission", "smtp"})
        self.assertEqual(list(config.domains), [Domain("example.org")])

    def test_commands(self) -> None:
        """
        All commands are in the README, and those in it exist, with their verbs and
        options.
        """
        section = re.search(r"^Commands\n-+\n\n::\n\n(.*?)^\S", self.text, re.M | re.S)
        assert section is not None
        lines = re.findall(r"moxtls (\S+) ?(.*?)(?:   .*)?$", section[1], re.M)
        self.assertEqual({name for name, _ in lines}, set(COMMANDS))
        for name, rest in lines:
            usages = self.usages(name)
            verbs = re.match(r"[a-z-]+(\|[a-z-]+)*(?= |$)", rest)
            for verb in verbs[0].split("|") if verbs else ():
                self.assertIn(verb, usages, name)

    def usages(self, name: str) -> set[str]:
        """
        The verbs of a command.
        """
        with_ = parser([name])
        [commands] = [each for each in with_._actions if each.dest == "command"]
        assert isinstance(commands.choices, dict)
        verbs = [
            each.choices
            for each in commands.choices[name]._actions
            if each.dest == "verb"
        ]
        return set(verbs[0]) if verbs else set()

    def test_documents(self) -> None:
        """
        Every document named in the README exists.
        """
        named = set(re.findall(r"docs/[a-z]+\.[a-z]+", self.text))
        self.assertIn("docs/performance.rst", named)
        self.assertEqual({each for each in named if not (ROOT / each).exists()}, set())

    def test_targets(self) -> None:
        """
        The targets of C{make} in the README exist.
        """
        targets = (ROOT / "Makefile").read_text()
        for name in set(re.findall(r"``?make ([a-z]+)", self.text)):
            self.assertRegex(targets, rf"(?m)^{name}:")


class PluginTests(SynchronousTestCase):
    """
    Tests for the plugin of C{twistd moxtls}.
    """

    def test_cheap(self) -> None:
        """
        Every run of twistd imports every plugin, so this one imports nothing of the
        project; the names in it exist.
        """
        file = ROOT / "twisted" / "plugins" / "moxtls_dropin.py"
        if not file.exists():
            raise SkipTest(f"no {file}")
        self.assertNotRegex(file.read_text(), r"(?m)^(?:from|import) moxtls")
        names: dict[str, object] = {}
        exec(compile(file.read_text(), str(file), "exec"), names)
        maker = names["moxtls"]
        self.assertEqual(getattr(maker, "tapname", ""), "moxtls")
        module = import_module(getattr(maker, "module", ""))
        self.assertTrue(callable(module.makeService))
        self.assertIs(getattr(maker, "options", None), module.Options)
