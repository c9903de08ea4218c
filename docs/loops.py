"""
Draws docs/loops.svg, the picture of the feedback loops: C{python docs/loops.py}.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path

WIDTH, HEIGHT = 880, 594
BOX_WIDTH, BOX_HEIGHT, GAP = 152, 74, 20
LEFT = 20

#: Each loop: its title, its boxes in order (first line bold), and the label of the
#: arrow from the last box back to the first. The first box isn't part of moxtls.
Box = tuple[str, ...]
LOOPS: Sequence[tuple[str, Sequence[Box], str]] = (
    (
        "Mail that you send",
        (
            ("Recipient domain", "publishes MTA-STS,", "TLSA, _smtp._tls"),
            ("SMTP session", "STARTTLS under DANE,", "MTA-STS, REQUIRETLS"),
            ("Delivery or DSN", "retries, then", "a notification"),
            ("Ledger", "TLS outcomes", "per policy and day"),
            ("TLS report", "RFC 8460", "JSON, gzip"),
        ),
        "after each UTC day, by mail or HTTPS: its TLS failures, and why",
    ),
    (
        "Mail that you receive",
        (
            ("Author domain", "publishes SPF, DKIM", "keys, _dmarc"),
            ("SMTP session", "SPF, DKIM, DMARC", "while data arrives"),
            ("Verdict", "mailbox, junk", "or refusal"),
            ("Ledger", "DMARC evaluations", "per policy and hour"),
            ("Aggregate report", "RFC 9990", "XML, gzip"),
        ),
        "as often as it asks, by mail: who sends in its name, and what passes",
    ),
    (
        "Reports about you",
        (
            ("Other mail host", "sends to you, receives", "mail in your name"),
            ("Report", "TLS or DMARC, by mail,", "HTTPS or import"),
            ("Check", "DKIM or DMARC", "of its submitter"),
            ("Ledger", "results per domain,", "day and source"),
            ("Summary", "what failed, why,", "what to do"),
        ),
        "once you have mended it: sessions that succeed, and mail that passes",
    ),
)


def svg() -> str:
    """
    The picture.
    """
    return "\n".join([*_picture(), ""])


def _picture() -> Iterator[str]:
    yield (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        f'width="{WIDTH}" height="{HEIGHT}" role="img" '
        'font-family="Helvetica, Arial, sans-serif" font-size="12" fill="#1f2933">'
    )
    yield "<title>The feedback loops of moxtls</title>"
    yield (
        '<defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4" '
        'markerWidth="8" markerHeight="8" orient="auto">'
        '<path d="M0 0 L8 4 L0 8 z" fill="#52606d"/></marker></defs>'
    )
    yield f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>'
    for index, (title, boxes, back) in enumerate(LOOPS):
        yield from _loop(12 + index * 194, title, boxes, back)
    yield "</svg>"


def _loop(top: int, title: str, boxes: Sequence[Box], back: str) -> Iterator[str]:
    yield f'<text x="{LEFT}" y="{top + 16}" font-size="15">{escape(title)}</text>'
    row = top + 30
    for index, box in enumerate(boxes):
        left = LEFT + index * (BOX_WIDTH + GAP)
        yield from _box(left, row, box, outside=index == 0)
        if index:
            middle = row + BOX_HEIGHT // 2
            yield _arrow(f"M{left - GAP} {middle} H{left - 2}")
    first = LEFT + BOX_WIDTH // 2
    last = first + (len(boxes) - 1) * (BOX_WIDTH + GAP)
    bottom = row + BOX_HEIGHT
    yield _arrow(f"M{last} {bottom} V{bottom + 34} H{first} V{bottom + 2}")
    centre = (first + last) // 2
    yield (
        f'<text x="{centre}" y="{bottom + 52}" text-anchor="middle">'
        f"{escape(back)}</text>"
    )


def _box(left: int, top: int, lines: Box, outside: bool) -> Iterator[str]:
    fill, stroke = ("#f5f0e1", "#b59a4c") if outside else ("#e3f0fb", "#3e7cb1")
    yield (
        f'<rect x="{left}" y="{top}" width="{BOX_WIDTH}" height="{BOX_HEIGHT}" '
        f'rx="6" fill="{fill}" stroke="{stroke}"/>'
    )
    for index, line in enumerate(lines):
        weight = "" if index else ' font-weight="bold"'
        yield (
            f'<text x="{left + BOX_WIDTH // 2}" y="{top + 24 + 19 * index}" '
            f'text-anchor="middle"{weight}>{escape(line)}</text>'
        )


def _arrow(path: str) -> str:
    return (
        f'<path d="{path}" fill="none" stroke="#52606d" stroke-width="1.5" '
        'marker-end="url(#head)"/>'
    )


if __name__ == "__main__":
    Path(__file__).with_suffix(".svg").write_text(svg())
