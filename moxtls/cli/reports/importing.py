# -*- test-case-name: tests.cli.reports.test_importing -*-
"""
C{moxtls report import}: stores reports from files, folders, mailboxes and archives.
"""

from __future__ import annotations

import argparse
import gc
import signal
from contextlib import aclosing, closing
from dataclasses import dataclass
from getpass import getpass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import LoopingCall, deferLater

from moxtls.cli.shell import INTERRUPTED, CommandError, Shell, addCommand
from moxtls.dates import MINUTE
from moxtls.received.analysis.answers import count
from moxtls.received.types import AddResult, Unreadable
from moxtls.regularfiles import checkedFile
from moxtls.tlsrpt.parse import escapeUnprintable

if TYPE_CHECKING:
    from moxtls.cli.output import Output
    from moxtls.received.intake.imap import MailboxURL
    from moxtls.received.intake.importing import ImportCounts, Importer
    from moxtls.received.intake.inputs import Found

#: The path that stands for standard input.
STDIN = "-"
#: Seconds between updates of the progress, in which the reactor also gets its turn.
INTERVAL = 0.1
#: The exit status if something was refused, and if nothing could be read.
REFUSED, NOTHING = 1, 2
#: Characters of the progress bar.
BAR = 20


def add(verbs: Any) -> None:
    command = addCommand(
        verbs, "import", "store received reports from files, mailboxes and archives"
    )
    command.add_argument(
        "paths",
        nargs="+",
        metavar="PATH",
        help="a report, a message, a mailbox (mbox or Maildir), a zip or tar archive, "
        "or a folder of such; - for standard input; imaps://USER@HOST/MAILBOX for a "
        "mailbox on an IMAP server, which isn't changed",
    )
    command.add_argument(
        "--password-file",
        metavar="FILE",
        help="a file whose first line is the password for the IMAP server",
    )
    command.set_defaults(run=run)


async def run(shell: Shell, arguments: argparse.Namespace) -> int:
    """
    Import everything, and print a summary.  After an interrupt, what was read until
    then is stored.
    """
    from moxtls.app.process import GARBAGE
    from moxtls.received.intake.importing import Importer, startWorkers

    gc.set_threshold(*GARBAGE)
    sources = [_Mailbox.of(each, arguments) or each for each in arguments.paths]
    ledger = await shell.ledger(make=True, isThreaded=True)

    def refused(name: str, reason: str) -> None:
        shell.output.progressEnded()
        shell.output.stderr.write(escapeUnprintable(f"moxtls: {name}: {reason}") + "\n")

    workers = startWorkers(shell.reactor)
    isConfigured = shell.configFiles.config.reportedDomains.__contains__
    importer = Importer(ledger.received, workers, isConfigured, refused, shell.now)
    feeder, isInterrupted = _Feeder(shell, importer), False
    try:
        for source in sources:
            await feeder.feed(source)
        await feeder.finish()
    except (CancelledError, KeyboardInterrupt):
        isInterrupted = True
        await importer.finish()
    finally:
        shell.output.progressEnded()
        for worker in workers:
            await worker.stop()
    _summarize(shell.output, importer.counts, shell.now() - feeder.began)
    return INTERRUPTED if isInterrupted else _status(importer.counts)


def _status(counts: ImportCounts) -> int:
    if not counts.refused:
        return 0
    return REFUSED if counts.reports else NOTHING


@dataclass(frozen=True)
class _Mailbox:
    """
    A mailbox on a server.
    """

    url: MailboxURL
    password: str

    @classmethod
    def of(cls, path: str, arguments: argparse.Namespace) -> _Mailbox | None:
        """
        C{None} if C{path} isn't an URL.
        """
        if "://" not in path:
            return None
        from moxtls.received.intake.imap import InvalidURL, MailboxURL

        try:
            url = MailboxURL.parse(path)
        except InvalidURL as error:
            raise CommandError(f"{path}: {error}") from None
        return cls(url, _password(url, arguments.password_file))


def _password(url: MailboxURL, file: str | None) -> str:
    if file is None:
        try:
            return getpass(f"Password of {url.user} at {url.host}: ")
        except EOFError:
            raise CommandError(f"{url}: no password was typed") from None
    try:
        text = checkedFile(Path(file)).read_text("utf-8")
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise CommandError(f"{file}: {reason}") from None
    password = text.partition("\n")[0].rstrip("\r")
    if not password:
        raise CommandError(f"{file}: expected a password in the first line")
    return password


class _Feeder:
    """
    Feeds the importer, and shows its progress.
    """

    def __init__(self, shell: Shell, importer: Importer) -> None:
        self._shell = shell
        self._importer = importer
        self._isShown = shell.output.stderr.isatty()
        self._total = 0
        # Of the sources before the current one.
        self._octets = 0
        self.began = self._next = shell.now()

    async def feed(self, source: str | _Mailbox) -> None:
        self._total, self._octets = 0, self._importer.octets
        if isinstance(source, _Mailbox):
            await self._feedMailbox(source)
            return
        from moxtls.received.intake.inputs import findInputs, inStream, sizeOf

        if source == STDIN:
            found = inStream(_Interruptible(self._shell.stdin), "standard input")
        else:
            self._total = sizeOf(source) if self._isShown else 0
            found = findInputs(source)
        with closing(found):
            for each in found:
                await self._put(each)

    async def _feedMailbox(self, source: _Mailbox) -> None:
        from moxtls.received.intake.imap import Mailbox, MailboxError

        trust = self._shell.configFiles.trust()
        mailbox = Mailbox(self._shell.reactor, source.url, source.password, trust)
        try:
            async with aclosing(mailbox.messages()) as messages:
                async for each in messages:
                    self._total = mailbox.total
                    await self._put(each)
        except MailboxError as error:
            await self._put(Unreadable(str(source.url), str(error)))

    async def finish(self) -> None:
        """
        Wait for the last inputs.
        """
        finishing = Deferred.fromCoroutine(self._importer.finish())
        showing = LoopingCall(self._show)
        showing.clock = self._shell.reactor
        showing.start(INTERVAL)
        try:
            await finishing
        finally:
            showing.stop()

    async def _put(self, found: Found) -> None:
        await self._importer.put(found)
        now = self._shell.now()
        if now >= self._next:
            self._next = now + INTERVAL
            self._show()
            await deferLater(self._shell.reactor, 0)

    def _show(self) -> None:
        elapsed = self._shell.now() - self.began
        done = self._importer.octets - self._octets
        share = min(1, done / self._total) if self._total else 0
        self._shell.output.progress(
            progressLine(share, self._importer.counts.reports, elapsed)
        )


class _Interruptible:
    """
    A stream whose reads end with L{KeyboardInterrupt} at an interrupt: the reactor's
    handler would let them go on.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def read(self, size: int, /) -> bytes:
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            return self._file.read(size)
        finally:
            signal.signal(signal.SIGINT, before)


def progressLine(share: float, reports: int, elapsed: float) -> str:
    """
    The progress of an import.

    @param share: The part that is done, from 0 to 1; 0 if unknown.
    @param elapsed: Seconds.
    """
    rate = reports / elapsed if elapsed else 0
    text = f"{reports:,} reports, {rate:,.0f}/s"
    if not share:
        return text
    left = elapsed / share - elapsed
    bar = "#" * round(share * BAR)
    minutes, seconds = divmod(round(left), MINUTE)
    time = f"{minutes} min {seconds} s" if minutes else f"{seconds} s"
    return f"[{bar:<{BAR}}] {share:4.0%}  {text}, {time} left"


def _summarize(output: Output, counts: ImportCounts, seconds: float) -> None:
    results = counts.results
    if output.asJSON:
        output.json(
            {
                "stored": results[AddResult.STORED],
                "variants": results[AddResult.VARIANT],
                "duplicates": results[AddResult.DUPLICATE],
                "refused": counts.refused,
                "other_mail": counts.otherMail,
                "unconfigured": counts.unconfigured,
                "unconfigured_domains": list(counts.domains),
                "seconds": round(seconds, 3),
            }
        )
        return
    output.line(
        f"{results[AddResult.STORED]:,} stored, "
        f"{count(results[AddResult.VARIANT], 'variant')}, "
        f"{count(results[AddResult.DUPLICATE], 'duplicate')}, "
        f"{counts.refused:,} refused, "
        f"in {seconds:.1f} s."
    )
    if counts.otherMail:
        output.line(f"{count(counts.otherMail, 'message')} without a report.")
    if counts.unconfigured:
        named = ", ".join(counts.domains)
        output.line(
            f"{count(counts.unconfigured, 'report')} about domains that aren't in the "
            f"configuration: {named}"
        )
