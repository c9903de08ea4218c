"""Store reports of other hosts, and print what they say.  Arguments: DOMAIN FILE..."""

import sys
from pathlib import Path

from twisted.internet.defer import ensureDeferred, succeed
from twisted.internet.task import react

from moxtls import api


class Printer:
    def reportAccepted(self, accepted):
        report = accepted.report
        print(report.organization, report.failed, "of", report.total, "failed")
        return succeed(None)


async def read(reactor, domain, *files):
    ledger = api.Ledger(reactor, "sqlite:///ledger.sqlite")
    intake = api.makeReportIntake(reactor, ledger, [Printer()])
    for file in files:
        data = Path(file).read_bytes()
        for result in await api.takeReport(reactor, intake, data, [domain], file):
            print(file, result.added or result.judged.reason)
    await intake.stop()
    await ledger.stop()


react(lambda *args: ensureDeferred(read(*args)), sys.argv[1:])
