"""Check SPF, DKIM and DMARC of a message in a file.

Arguments: FILE CLIENT_IP SENDER [DNS_SERVER...]
"""

import sys
from pathlib import Path

from twisted.internet.defer import ensureDeferred
from twisted.internet.task import react

from moxtls.api import ClientInfo, authenticationResults, checkMessage, makeResolver


async def check(reactor, file, ip, sender, *servers):
    resolver = makeResolver(reactor, servers)
    resolver.startService()
    message, client = Path(file).read_bytes(), ClientInfo(ip, "client.example")
    found = await checkMessage(reactor, resolver, "mx.example", message, client, sender)
    fields = authenticationResults(
        "mx.example", found.authentication, found.verdict, sender
    )
    print(fields.decode())


react(lambda *args: ensureDeferred(check(*args)), sys.argv[1:])
