"""Maildirs of twisted.mail, with verdicts.  Arguments: PORT [DNS_SERVER...]"""

import sys
from secrets import token_hex

from twisted.cred.checkers import AllowAnonymousAccess
from twisted.internet import reactor
from twisted.mail import mail, maildir

from moxtls.api import MemoryLedger, filterServer, makeMessageFilter, makeResolver


class Domain(maildir.MaildirDirdbmDomain):
    def startMessage(self, user):  # That of Twisted 26.10 can't write to its files.
        folder = self.userDirectory(user.dest.local).decode()
        name = f"{reactor.seconds()}.{token_hex(8)}"
        tmp, new = (f"{folder}/{each}/{name}" for each in ("tmp", "new"))
        return maildir.MaildirMessage(bytes(user.dest), open(tmp, "wb"), tmp, new)


service, resolver = mail.MailService(), makeResolver(reactor, sys.argv[2:])
resolver.setServiceParent(service)
service.addDomain(b"us.example", Domain(service, b"maildirs"))
service.domains[b"us.example"].addUser(b"anna", b"password")
service.smtpPortal.registerChecker(AllowAnonymousAccess())
checks = makeMessageFilter(reactor, resolver, MemoryLedger(), "mx", enforce=True)
server = filterServer(reactor, service.getESMTPFactory(), checks)
reactor.listenTCP(int(sys.argv[1]), server)
reactor.callWhenRunning(service.startService)
reactor.run()
