"""
Who may import whom.
"""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

import moxtls

ROOT = Path(moxtls.__file__).parent

#: Decide things, and do nothing.
PURE = {
    "authentication/dkim/canonical.py",
    "authentication/dkim/key.py",
    "authentication/dkim/sign.py",
    "authentication/dkim/signature.py",
    "authentication/dkim/verify.py",
    "authentication/headerfields.py",
    "authentication/iprev.py",
    "authentication/outcome.py",
    "authentication/results.py",
    "authentication/spf/evaluate.py",
    "authentication/spf/macro.py",
    "authentication/spf/record.py",
    "config/addresses.py",
    "config/check.py",
    "config/describe.py",
    "config/errors.py",
    "config/localparts.py",
    "config/parse.py",
    "config/types.py",
    "dates.py",
    "delivery/mx.py",
    "delivery/ownhosts.py",
    "delivery/requirements.py",
    "delivery/results.py",
    "delivery/tlsoutcome.py",
    "dmarc/aggregate.py",
    "dmarc/alignment.py",
    "dmarc/discovery.py",
    "dmarc/eligibility.py",
    "dmarc/externaldestinations.py",
    "dmarc/failure.py",
    "dmarc/parse.py",
    "dmarc/record.py",
    "dmarc/redaction.py",
    "dmarc/types.py",
    "dmarc/verdict.py",
    "dns/cache.py",
    "dns/cname.py",
    "dns/query.py",
    "dns/resolvconf.py",
    "dns/types.py",
    "dns/wire.py",
    "domain.py",
    "ipaddresses.py",
    "ledger/bounds.py",
    "ledger/migrations/env.py",
    "ledger/migrations/versions/0001_ledger.py",
    "ledger/migrations/versions/0002_evaluations.py",
    "ledger/tables.py",
    "lru.py",
    "mailbox/names.py",
    "message/addresses.py",
    "message/header.py",
    "message/mime.py",
    "message/trace.py",
    "mtasts/policy.py",
    "mtasts/rules.py",
    "queue/batches.py",
    "queue/deferrals.py",
    "queue/dsn.py",
    "queue/responses.py",
    "queue/retry.py",
    "queue/sendmail.py",
    "queue/types.py",
    "reception/policy.py",
    "reception/recipients.py",
    "reporting/detect.py",
    "reporting/identity.py",
    "reporting/rua.py",
    "reporting/schedule.py",
    "reporting/suppression.py",
    "reporting/types.py",
    "smtp/client/auth.py",
    "smtp/client/conversation.py",
    "smtp/client/extensions.py",
    "smtp/client/replies.py",
    "smtp/dotstuffing.py",
    "smtp/logins.py",
    "smtp/passwords.py",
    "smtp/sasl.py",
    "smtp/server/conversation.py",
    "smtp/server/data.py",
    "smtp/server/events.py",
    "smtp/server/limits.py",
    "smtp/server/state.py",
    "smtp/server/syntax.py",
    "smtp/types.py",
    "taglist.py",
    "tls/chains.py",
    "tls/dane.py",
    "tls/resulttype.py",
    "tls/session.py",
    "tlsrpt/generate.py",
    "tlsrpt/parse.py",
    "tlsrpt/record.py",
    "tlsrpt/types.py",
}
IMPURE = {"OpenSSL", "os", "random", "socket", "time", "twisted", "zope"}

#: The words a domain asks for must not depend on how mail is moved.
APART = ("mtasts", "tlsrpt", "dmarc")
FROM = ("delivery", "reception", "queue", "ledger", "web")
#: Values without which the seams have no names.
ALLOWED = {"moxtls.queue.types"}


@cache
def modules() -> dict[str, set[str]]:
    """
    Each module of the package, and what it imports.
    """
    return {
        str(path.relative_to(ROOT)): imported(path.read_text())
        for path in sorted(ROOT.rglob("*.py"))
    }


def imported(source: str) -> set[str]:
    """
    The dotted names of what a module imports.
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


class LayerTests(SynchronousTestCase):
    """
    Tests for the lines between deciding and doing, and between the parts.
    """

    def setUp(self) -> None:
        self.modules = modules()

    def test_pure(self) -> None:
        """
        Modules that decide things import nothing that does things.
        """
        for name in PURE:
            tops = {each.partition(".")[0] for each in self.modules[name]}
            self.assertEqual(tops & IMPURE, set(), name)

    def test_pureLeanOnPure(self) -> None:
        """
        Nor do they import modules of ours that aren't pure.
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
        C{policy} and C{tlsrpt} know nothing of how mail moves or is kept.
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
        The interfaces name values, and nothing that does something.
        """
        ours = {
            each for each in self.modules["interfaces.py"] if each.startswith("moxtls.")
        }
        values = {"moxtls." + name[:-3].replace("/", ".") for name in PURE}
        stray = {each for each in ours if not each.startswith(tuple(values))}
        self.assertEqual(stray, set())

    def test_reactor(self) -> None:
        """
        Only the wiring, and the command that runs it, name the global reactor.
        """
        naming = {
            name
            for name, found in self.modules.items()
            if "twisted.internet.reactor" in found
        }
        self.assertEqual(naming - {"tap.py", "cli/shell.py"}, set())

    def test_clock(self) -> None:
        """
        The time comes from the clock that is passed in.
        """
        for name in self.modules:
            source = (ROOT / name).read_text()
            for call in ("time.time(", "datetime.now(", "date.today(", ".utcnow("):
                if name not in ("tap.py", "cli/shell.py"):
                    self.assertNotIn(call, source, name)

    def test_tap(self) -> None:
        """
        Nobody imports the wiring but the command that starts it.
        """
        naming = {
            name
            for name, found in self.modules.items()
            if any(each.startswith("moxtls.tap") for each in found)
        }
        self.assertEqual(
            {each for each in naming if not each.startswith("cli/")}, set()
        )
