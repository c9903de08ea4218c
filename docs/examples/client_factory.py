"""Deliver with a factory, and print the TLS failures.  Arguments: HOST PORT"""

import sys
from io import BytesIO

from twisted.internet import defer, ssl, task
from twisted.mail.smtp import ESMTPSenderFactory
from zope.interface import implementer

from moxtls.api import recordTLS
from moxtls.interfaces import ISessionObserver


@implementer(ISessionObserver)
class Printer:
    def sessionEnded(self, outcome):
        print(*(each.resultType for each in outcome.recipient.failures))
        return defer.succeed(None)


def send(reactor, host, port):
    ends, message = defer.Deferred(), BytesIO(b"hello\n")
    tls = ssl.optionsForClientTLS(host)
    envelope = None, None, "a@us.example", "b@example.org", message, ends, 0
    factory = ESMTPSenderFactory(*envelope, contextFactory=tls)
    reactor.connectTCP(host, int(port), recordTLS(factory, Printer(), "example.org"))
    return ends.addErrback(lambda failure: print("not sent"))


task.react(send, sys.argv[1:])
