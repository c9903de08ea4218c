"""
Messages accepted per second, from clients over loopback sockets. All servers accept
everything, and some store nothing. Postfix queues a message before it replies, and
discards it later; moxtls stores it in a Maildir before it replies, with SPF, DKIM and
DMARC checked or not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import product

from bench import postfix
from bench.children import child
from bench.clients import Workload, anyServer, message, send
from bench.comparison import Variant, compare, table
from bench.identity import certify
from bench.settings import Effort, IReactor, main
from bench.signature import signer

#: Connections at a time.
WIDTH = 20
SIZES = (2048, 40960)
EACH = (1, 20)
STOCK = "twisted.mail"
STOCK_AT_ONCE = "twisted.mail, TCP_NODELAY"
POSTFIX = "Postfix, queues"
#: Messages in a round: about a second's worth.
MESSAGES = 1500
#: Seconds in which Postfix discards the messages it accepted.
REST = 0.5

Start = Callable[[bytes], AbstractContextManager[int]]


@dataclass(frozen=True, slots=True)
class Server:
    """
    A measured server.

    @ivar start: Runs the server, with a key and certificate, while the context lasts;
        gives its port.
    @ivar share: The share of the messages it gets: less if it is slower.
    @ivar isThere: Whether it is installed.
    """

    name: str
    start: Start
    share: float = 1
    isThere: bool = True


def process(module: str, *arguments: str) -> Start:
    """
    A server that is C{python -m module arguments}, as of L{bench.children}.
    """

    @contextmanager
    def start(pem: bytes) -> Iterator[int]:
        with child(module, pem, *arguments) as (port,):
            yield port

    return start


RECORD = signer().record
SERVERS = (
    Server(STOCK, process("bench.discarding", STOCK)),
    Server(STOCK_AT_ONCE, process("bench.discarding", STOCK_AT_ONCE)),
    Server(
        "aiosmtpd",
        process("bench.discarding", "aiosmtpd"),
        share=0.5,
        isThere=find_spec("aiosmtpd") is not None,
    ),
    Server(
        POSTFIX,
        postfix.running,
        isThere=postfix.isThere(),
    ),
    Server("moxtls, keeps nothing", process("bench.discarding", "moxtls")),
    Server("moxtls", process("bench.durable", "unchecked", RECORD)),
    Server("moxtls, checks", process("bench.durable", "checked", RECORD)),
)


def _variant(server: Server, load: Workload, effort: Effort) -> Variant:
    async def run(count: int) -> None:
        send(load, count)

    return Variant(server.name, run, effort.of(round(MESSAGES * server.share)))


async def _cell(
    ports: dict[Server, int], effort: Effort, size: int, isSecure: bool, each: int
) -> None:
    tls = anyServer() if isSecure else None
    variants = [
        _variant(server, Workload(port, message(size), each, WIDTH, tls), effort)
        for server, port in ports.items()
    ]
    title = (
        f"{'STARTTLS' if isSecure else 'plaintext'}, {size // 1024} KB, "
        f"{each} in each of {WIDTH} connections at a time"
    )
    baselines = (STOCK, POSTFIX) if postfix.isThere() else (STOCK, STOCK_AT_ONCE)
    comparison = await compare(
        title, "messages", variants, baselines, effort.rounds, REST
    )
    print(table(comparison), flush=True)


async def benchmark(reactor: IReactor, effort: Effort) -> None:
    pem = certify().pem
    with ExitStack() as stack:
        ports = {}
        for server in SERVERS:
            if server.isThere:
                ports[server] = stack.enter_context(server.start(pem))
            else:
                print(f"skipped, not installed: {server.name}")
        for isSecure, size, each in product((False, True), SIZES, EACH):
            await _cell(ports, effort, size, isSecure, each)


if __name__ == "__main__":
    main(benchmark)
