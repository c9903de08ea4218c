"""Check a message on asyncio.  Arguments: FILE CLIENT_IP [DNS_SERVER...]"""

import asyncio
import sys
from pathlib import Path

from twisted.internet import asyncioreactor

loop = asyncio.new_event_loop()
asyncioreactor.install(loop)
from twisted.internet import reactor  # noqa: E402

from moxtls.api import ClientInfo, checkMessage, makeResolver  # noqa: E402


async def check(file, ip, *servers):
    resolver = makeResolver(reactor, servers)
    resolver.startService()
    message, client = Path(file).read_bytes(), ClientInfo(ip, "client.example")
    checked = checkMessage(reactor, resolver, "mx.example", message, client)
    found = await checked.asFuture(loop)
    print(found.verdict.status, found.verdict.disposition)


task = loop.create_task(check(*sys.argv[1:]))
task.add_done_callback(lambda task: reactor.stop())
reactor.run()
