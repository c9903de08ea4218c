"""Send with sendmail(), and print what TLS came to.  Arguments: HOST PORT"""

import sys

from twisted.internet.defer import ensureDeferred
from twisted.internet.task import deferLater, react
from twisted.mail.smtp import sendmail

from moxtls.api import MemoryLedger, RecordingReactor, makeOutcomeRecorder


async def send(reactor, host, port):
    ledger = MemoryLedger()
    observer = makeOutcomeRecorder(reactor, ledger)
    recording = RecordingReactor(reactor, observer, "example.org")
    envelope = host, "a@us.example", ["b@example.org"], b"hello\n"
    await sendmail(*envelope, port=int(port), reactor=recording)
    # The outcome is recorded once the connection is closed.
    await deferLater(reactor, 1)
    for result in await ledger.outcomes.results():
        for tally in result.tallies:
            print(result.policyDomain, *(each.resultType for each in tally.failures))


react(lambda *args: ensureDeferred(send(*args)), sys.argv[1:])
