"""A stock SMTP server that refuses forged mail.  Arguments: PORT [DNS_SERVER...]"""

import sys

from twisted.internet import reactor
from twisted.mail import mail, smtp
from zope.interface import implementer

from moxtls.api import MemoryLedger, filterServer, makeMessageFilter, makeResolver


@implementer(smtp.IMessageDelivery)
class Delivery:
    def receivedHeader(self, helo, origin, recipients):
        return b"Received: from example"

    def validateFrom(self, helo, origin):
        return origin

    def validateTo(self, user):
        return lambda: mail.FileMessage(open("new", "wb"), "new", str(user.dest))


factory = smtp.SMTPFactory()
factory.protocol = lambda: smtp.SMTP(Delivery())
resolver = makeResolver(reactor, sys.argv[2:])
resolver.startService()
checks = makeMessageFilter(reactor, resolver, MemoryLedger(), "mx", enforce=True)
reactor.listenTCP(int(sys.argv[1]), filterServer(reactor, factory, checks))
reactor.run()
