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
    "authentication.py",
    "calendar.py",
    "cli/times.py",
    "config/checks.py",
    "config/delivery.py",
    "config/description.py",
    "config/dmarc.py",
    "config/domains.py",
    "config/errors.py",
    "config/feedback.py",
    "config/keys.py",
    "config/listeners.py",
    "config/mail.py",
    "config/places.py",
    "config/reading.py",
    "config/reports.py",
    "config/residents.py",
    "config/spelling.py",
    "config/values.py",
    "dns/answers.py",
    "dns/cache.py",
    "dmarc/arf.py",
    "dmarc/received.py",
    "dmarc/alignment.py",
    "dmarc/discovery.py",
    "dmarc/evaluations.py",
    "dmarc/external.py",
    "dmarc/failure.py",
    "dmarc/failuremail.py",
    "dmarc/hygiene.py",
    "dmarc/handling.py",
    "dmarc/record.py",
    "dmarc/redaction.py",
    "dmarc/report.py",
    "dmarc/reportxml.py",
    "dmarc/suffixes.py",
    "dmarc/values.py",
    "dmarc/verdict.py",
    "dmarc/walk.py",
    "dmarc/witnesses.py",
    "dns/abreast.py",
    "dns/chain.py",
    "dns/inquiry.py",
    "dns/message.py",
    "dns/system.py",
    "dns/wire.py",
    "domain.py",
    "inbound/authors.py",
    "inbound/authres.py",
    "inbound/decide.py",
    "inbound/dkim.py",
    "inbound/dkimbody.py",
    "inbound/dkimcanonical.py",
    "inbound/dkimkey.py",
    "inbound/dkimsignature.py",
    "inbound/dkimtags.py",
    "inbound/dkimwork.py",
    "inbound/findings.py",
    "inbound/headers.py",
    "inbound/iprev.py",
    "inbound/memories.py",
    "inbound/practice.py",
    "inbound/recipients.py",
    "inbound/spf.py",
    "inbound/spfcheck.py",
    "inbound/spfclient.py",
    "inbound/spflookups.py",
    "inbound/spfmacro.py",
    "inbound/spfrecord.py",
    "inbound/spfterms.py",
    "ipaddresses.py",
    "incoming/attachment.py",
    "incoming/dispatch.py",
    "mailbox/names.py",
    "outbound/candidates.py",
    "outbound/classify.py",
    "outbound/endings.py",
    "outbound/outcome.py",
    "outbound/ownhosts.py",
    "outbound/records.py",
    "policy/anchors.py",
    "policy/constraints.py",
    "policy/dane.py",
    "policy/decide.py",
    "policy/mtasts.py",
    "policy/require.py",
    "queue/backoff.py",
    "queue/bounce.py",
    "queue/deferrals.py",
    "queue/loads.py",
    "queue/responses.py",
    "queue/sendmail.py",
    "queue/tables.py",
    "queue/values.py",
    "reporting/bounces.py",
    "reporting/destinations.py",
    "reporting/fields.py",
    "reporting/identity.py",
    "reporting/message.py",
    "reporting/mime.py",
    "reporting/quota.py",
    "reporting/schedule.py",
    "reporting/signing.py",
    "reporting/suppression.py",
    "reporting/values.py",
    "smtp/authentication.py",
    "smtp/body.py",
    "smtp/chunking.py",
    "smtp/client.py",
    "smtp/clientevents.py",
    "smtp/commands.py",
    "smtp/dialogue.py",
    "smtp/events.py",
    "smtp/extensions.py",
    "smtp/intake.py",
    "smtp/logins.py",
    "smtp/lines.py",
    "smtp/passwords.py",
    "smtp/patience.py",
    "smtp/rates.py",
    "smtp/received.py",
    "smtp/replies.py",
    "smtp/sasl.py",
    "smtp/server.py",
    "smtp/shape.py",
    "smtp/transfer.py",
    "smtp/values.py",
    "store/due.py",
    "store/encoding.py",
    "store/migrations/env.py",
    "store/migrations/versions/0001_ledger.py",
    "store/migrations/versions/0002_evaluations.py",
    "store/phases.py",
    "store/rules.py",
    "store/sums.py",
    "store/tables.py",
    "store/tallies.py",
    "tlsrpt/check.py",
    "tlsrpt/received.py",
    "tlsrpt/record.py",
    "tlsrpt/report.py",
    "tlsrpt/results.py",
    "worker/frames.py",
}
IMPURE = {"OpenSSL", "os", "random", "socket", "time", "twisted", "zope"}

#: The words a domain asks for must not depend on how mail is moved.
APART = ("policy", "tlsrpt", "dmarc")
FROM = ("outbound", "inbound", "queue", "store", "web")
#: Values without which the seams have no names.
ALLOWED = {"moxtls.queue.values"}


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
