"""Send with sendmail(), and print its TLS outcomes.  Arguments: HOST PORT"""

import sys

from twisted.internet.defer import ensureDeferred
from twisted.internet.task import deferLater, react
from twisted.mail.smtp import SMTPClientError, sendmail

from moxtls.api import MemoryLedger, RecordingReactor, makeOutcomeRecorder


async def send(reactor, host, port):
    ledger = MemoryLedger()
    observer = makeOutcomeRecorder(reactor, ledger)
    recording = RecordingReactor(reactor, observer, "example.org")
    envelope = host, "a@us.example", ["b@example.org"], b"hello\n"
    try:
        await sendmail(*envelope, port=int(port), reactor=recording)
    except SMTPClientError:
        print("not sent")
    await deferLater(reactor, 1)  # Recorded once the connection is closed.
    for result in await ledger.outcomes.results():
        for tally in result.tallies:
            failures = [f"{why.resultType}={n}" for why, n in tally.failures.items()]
            print(result.policyDomain, tally.succeeded, tally.failed, *failures)


react(lambda *args: ensureDeferred(send(*args)), sys.argv[1:])
