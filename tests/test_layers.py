"""
Tests for which modules may import which.
"""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

import moxtls

ROOT = Path(moxtls.__file__).parent

#: The pure modules: functions of values, without I/O, clock or chance.
PURE = {
    "authentication/dkim/canonical.py",
    "authentication/dkim/sign.py",
    "authentication/dkim/signature.py",
    "authentication/dkim/verify.py",
    "authentication/outcome.py",
    "authentication/results.py",
    "authentication/spf/evaluate.py",
    "authentication/spf/record.py",
    "config/addresses.py",
    "config/check.py",
    "config/describe.py",
    "config/parse.py",
    "config/types.py",
    "dates.py",
    "delivery/mx.py",
    "delivery/results.py",
    "delivery/tls.py",
    "dmarc/aggregate.py",
    "dmarc/discovery.py",
    "dmarc/eligibility.py",
    "dmarc/failure.py",
    "dmarc/parse.py",
    "dmarc/record.py",
    "dmarc/redaction.py",
    "dmarc/types.py",
    "dmarc/verdict.py",
    "dns/answers.py",
    "dns/types.py",
    "dns/wire.py",
    "domain.py",
    "ipaddresses.py",
    "ledger/bounds.py",
    "ledger/migrations/env.py",
    "ledger/migrations/versions/0001_ledger.py",
    "ledger/migrations/versions/0002_evaluations.py",
    "ledger/migrations/versions/0005_received.py",
    "ledger/received/tables.py",
    "ledger/received/values.py",
    "ledger/tables.py",
    "mailbox/names.py",
    "message/addresses.py",
    "message/header.py",
    "message/mime.py",
    "mtasts/policy.py",
    "queue/dsn.py",
    "queue/schedule.py",
    "queue/sendmail.py",
    "queue/types.py",
    "received/analysis/answers.py",
    "received/reading/archives.py",
    "received/intake/authenticity.py",
    "received/analysis/correlation.py",
    "received/analysis/describe.py",
    "received/reading/documents.py",
    "received/analysis/explanations.py",
    "received/reading/parsed.py",
    "received/analysis/readiness.py",
    "received/analysis/sources.py",
    "received/types.py",
    "reception/policy.py",
    "reception/recipients.py",
    "reporting/destinations.py",
    "reporting/schedule.py",
    "reporting/types.py",
    "smtp/client/conversation.py",
    "smtp/client/replies.py",
    "smtp/dotstuffing.py",
    "smtp/logins.py",
    "smtp/passwords.py",
    "smtp/rates.py",
    "smtp/sasl.py",
    "smtp/server/conversation.py",
    "smtp/server/data.py",
    "smtp/server/state.py",
    "smtp/server/syntax.py",
    "smtp/types.py",
    "taglist.py",
    "tls/chains.py",
    "tls/dane.py",
    "tls/session.py",
    "tlsrpt/generate.py",
    "tlsrpt/parse.py",
    "tlsrpt/types.py",
}
IMPURE = {"OpenSSL", "os", "random", "socket", "time", "twisted", "zope"}

#: The layers, lowest first: a unit may import those before it. A unit is a
#: folder with its subfolders, a top-level module, or one part of a folder that is
#: on another layer than the rest of it; a module belongs to the longest match.
ORDER = (
    "domain",
    "dates",
    "ipaddresses",
    "regularfiles",
    "sqlitefile",
    "taglist",
    "workers",
    "smtp/types",
    "message/header",
    "authentication/results",
    "dns/types",
    "message",
    "tlsrpt/parse",
    "received/types",
    "smtp/passwords",
    "smtp/dotstuffing",
    "smtp/server/syntax",
    "smtp/server/state",
    "smtp/server/data",
    "tlsrpt/types",
    "mtasts/policy",
    "queue/types",
    "dmarc/types",
    "reporting/types",
    "interfaces",
    "outages",
    "tasks",
    "threads",
    "dns",
    "tls",
    "https",
    "smtp",
    "mtasts",
    "queue",
    "authentication/dkim",
    "reporting",
    "tlsrpt",
    "dmarc",
    "authentication",
    "mailbox",
    "config",
    "received",
    "ledger",
    "reception/recipients",
    "delivery",
    "reception",
    "twistedmail",
    "api",
    "app",
    "tap",
    "cli/output",
    "lab",
    "cli",
)

#: The pairs of folders that import each other, and why. No two modules do.
LOOPS = {
    ("authentication", "authentication/dkim"): (
        "Both use the values in authentication/results."
    ),
    ("authentication", "authentication/spf"): (
        "Both use the values in authentication/results."
    ),
    ("authentication", "dmarc"): (
        "DMARC evaluates SPF and DKIM results, and a check of a message includes "
        "its DMARC evaluation."
    ),
    ("ledger", "ledger/received"): "The ledger opens this store, which uses its "
    "database and writer.",
    ("cli", "lab"): "The lab prints tables with cli/output; cli/lab starts it.",
}

#: Policies and reports must not depend on how mail is moved or kept.
APART = ("mtasts", "tlsrpt", "dmarc")
FROM = ("delivery", "reception", "queue", "ledger", "web")
#: The exception: value types that the interfaces name.
ALLOWED = {"moxtls.queue.types"}


@cache
def modules() -> dict[str, set[str]]:
    """
    Each module of the package with the dotted names that it imports.
    """
    return {
        str(path.relative_to(ROOT)): imported(path.read_text())
        for path in sorted(ROOT.rglob("*.py"))
    }


def imported(source: str) -> set[str]:
    """
    The dotted names that a module imports.
    """
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            found.add(module)
            found.update(f"{module}.{alias.name}" for alias in node.names)
    return found


def imports() -> set[tuple[str, str]]:
    """
    The pairs of modules of the package of which one imports the other.
    """
    files = {
        "moxtls." + name[:-3].replace("/", ".").removesuffix(".__init__"): name
        for name in modules()
    }
    return {
        (name, files[each])
        for name, found in modules().items()
        for each in found
        if each in files and files[each] != name
    }


def unitOf(name: str) -> str:
    """
    The unit of L{ORDER} that a module belongs to.
    """
    path = Path(name).with_suffix("")
    if path.parts[-1] == "__init__":
        path = path.parent
    units = (each.as_posix() for each in (path, *path.parents))
    return next((unit for unit in units if unit in ORDER), ".")


def folderOf(name: str) -> str:
    """
    The folder of a module within the package.
    """
    return Path(name).parent.as_posix()


class LayerTests(SynchronousTestCase):
    """
    Tests for the separation of pure modules from I/O, and of the packages.
    """

    def setUp(self) -> None:
        self.modules = modules()

    def test_pure(self) -> None:
        """
        Pure modules import nothing that does I/O.
        """
        for name in PURE:
            tops = {each.partition(".")[0] for each in self.modules[name]}
            self.assertEqual(tops & IMPURE, set(), name)

    def test_pureLeanOnPure(self) -> None:
        """
        Pure modules of this package import only pure modules of it.
        """
        pure = {"moxtls." + name[:-3].replace("/", ".") for name in PURE}
        for name in PURE:
            ours = {
                each
                for each in self.modules[name]
                if (ROOT.parent / (each.replace(".", "/") + ".py")).is_file()
                and each.startswith("moxtls.")
            }
            self.assertEqual(ours - pure, set(), name)

    def test_apart(self) -> None:
        """
        MTA-STS, TLS reports and DMARC don't depend on transport or storage.
        """
        forbidden = tuple(f"moxtls.{each}" for each in FROM)
        for name, found in self.modules.items():
            if name.startswith(APART):
                wrong = {
                    each
                    for each in found
                    if each.startswith(forbidden)
                    and not any(each.startswith(ok) for ok in ALLOWED)
                }
                self.assertEqual(wrong, set(), name)

    def test_interfaces(self) -> None:
        """
        The interfaces name value types of pure modules only.
        """
        ours = {
            each for each in self.modules["interfaces.py"] if each.startswith("moxtls.")
        }
        values = {"moxtls." + name[:-3].replace("/", ".") for name in PURE}
        stray = {each for each in ours if not each.startswith(tuple(values))}
        self.assertEqual(stray, set())

    def test_reactor(self) -> None:
        """
        Only the composition root and the command shell import the reactor.
        """
        naming = {
            name
            for name, found in self.modules.items()
            if "twisted.internet.reactor" in found
        }
        self.assertEqual(naming - {"tap.py", "cli/shell.py"}, set())

    def test_clock(self) -> None:
        """
        The time is read from the clock that is passed in.
        """
        for name in self.modules:
            source = (ROOT / name).read_text()
            for call in ("time.time(", "datetime.now(", "date.today(", ".utcnow("):
                if name not in ("tap.py", "cli/shell.py"):
                    self.assertNotIn(call, source, name)

    def test_tap(self) -> None:
        """
        Only the command that starts the server imports C{moxtls.tap}.
        """
        naming = {
            name
            for name, found in self.modules.items()
            if any(each.startswith("moxtls.tap") for each in found)
        }
        self.assertEqual(
            {each for each in naming if not each.startswith("cli/")}, set()
        )

    def test_order(self) -> None:
        """
        Each unit of L{ORDER} imports only the units before it.
        """
        upward = {
            f"{name} imports {target}"
            for name, target in imports()
            if unitOf(name) != unitOf(target)
            and ORDER.index(unitOf(name)) < ORDER.index(unitOf(target))
        }
        self.assertEqual(upward, set())

    def test_units(self) -> None:
        """
        Every unit of L{ORDER} exists.
        """
        self.assertEqual(set(ORDER), {unitOf(name) for name in self.modules} - {"."})

    def test_loops(self) -> None:
        """
        Folders that import each other are known, with a reason, and written down
        in docs/architecture.rst.
        """
        pairs = {(folderOf(name), folderOf(target)) for name, target in imports()}
        found = {
            (one, other)
            for one, other in pairs
            if one < other and "." not in (one, other) and (other, one) in pairs
        }
        self.assertEqual(found, set(LOOPS))
        document = ROOT.parent / "docs" / "architecture.rst"
        if document.exists():
            text = document.read_text()
            for one, other in LOOPS:
                self.assertIn(f"``{one}`` and ``{other}``", text)
