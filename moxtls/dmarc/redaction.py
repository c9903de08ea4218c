# -*- test-case-name: tests.dmarc.test_redaction -*-
"""
Redacts the header of a message for failure reports (RFC 9991 7, RFC 6590).  No I/O.

Only listed fields are included: those by which the author's domain can identify the
message and its signatures.  Display names are omitted, and local parts of addresses are
replaced by digests, so that equal addresses can be recognized without being revealed.
The result is ASCII, without line ends or links.
"""

from __future__ import annotations

import hmac
import re
from base64 import b32encode
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import islice

from moxtls.domain import (
    MAX_DOMAIN_LENGTH,
    Address,
    Domain,
    InvalidAddress,
    InvalidDomain,
)
from moxtls.message.header import textFields
from moxtls.message.mime import Field
from moxtls.taglist import parseTagSpec, splitTagSpecs

#: Octets of a header that are read: some four times the usual size.
MAX_HEADER = 64 * 1024
#: Fields of one name, such as signatures.
MAX_EACH = 10
#: Addresses in one field, and candidates for addresses.
MAX_ADDRESSES = 10
MAX_TRIED = 50
#: Tags of a signature; RFC 6376 3.5 has 14.
MAX_TAGS = 20
#: Characters of a value or a tag: an RSA signature of 4096 bits is 684 long, and
#: the names of the signed fields mostly are less.
MAX_VALUE = 900
#: Where a long run of Base64 may be folded.
_CHUNK = 64
#: 80 bits: collisions are negligible.
_TOKEN_BYTES = 10
#: The key has other uses, too.
_PURPOSE = b"redaction of local parts\0"

#: What ends an address, wherever it stands.
_SPECIAL = re.compile(r'[\s<>()\[\]:;,"\\]+')
_NOT_IN_DATE = re.compile(r"[^A-Za-z0-9 ,.:+()-]")
_NOT_VISIBLE = re.compile(r"[^!-~]")
#: Without colons there are no links.
_NOT_IN_ID = re.compile(r"[^!#-'*+./0-9=?@A-Z\[\]^-~<>-]")
_BRACKETED = re.compile(r"<([^<>]*)>")
_AFTER_COLON = re.compile(r"(?<=:)")
_BLANK = re.compile(r"\s+")
#: RFC 6376 3.5, without C{z=}, which has other fields in it.
_TAGS = ("v", "a", "b", "bh", "c", "d", "h", "i", "l", "q", "s", "t", "x")


@dataclass(frozen=True, slots=True)
class Redaction:
    """
    Replaces local parts of addresses by digests.

    @ivar key: The secret "redaction key" (RFC 6590 3).
    """

    key: bytes = field(repr=False)

    def token(self, localPart: str) -> str:
        """
        The digest of a local part, compared case-insensitively.

        Reading of RFC 6590 3: the algorithm and encoding of the digest are a local
        matter.
        """
        data = localPart.lower().encode("utf-8", "replace")
        digest = hmac.digest(self.key, _PURPOSE + data, sha256)
        return b32encode(digest[:_TOKEN_BYTES]).decode("ascii").lower()

    def path(self, address: str) -> str | None:
        """
        A redacted reverse-path (RFC 5321 4.1.2) with brackets; C{None} if C{address}
        is invalid.
        """
        try:
            known = Address.parse(address)
        except InvalidAddress:
            return None
        return f"<{self.token(known.localPart)}@{known.domain}>"

    def identity(self, text: str) -> str:
        """
        A redacted C{i=} tag of a signature (RFC 6376 3.5); empty if invalid.
        """
        local, at, domain = text.rpartition("@")
        host = _hostOf(domain) if at else None
        if host is None:
            return ""
        return f"{self.token(local) if local else ''}@{host}"

    def addresses(self, text: str) -> list[str]:
        """
        The redacted addresses of an address field, without display names.
        """
        found = dict.fromkeys(self._addresses(text))
        return list(found)[:MAX_ADDRESSES]

    def _addresses(self, text: str) -> Iterator[str]:
        words = (word for word in _SPECIAL.split(text) if "@" in word)
        for word in islice(words, MAX_TRIED):
            local, _, domain = word.rpartition("@")
            host = _hostOf(domain)
            if host is not None:
                yield f"<{self.token(local)}@{host}>"


def redactedFields(header: bytes, redaction: Redaction) -> tuple[Field, ...]:
    """
    The redacted fields of C{header}, in order.

    @param header: As received.
    """
    shown: list[Field] = []
    counts: dict[str, int] = {}
    for written, value in textFields(header[:MAX_HEADER]):
        name = written.lower()
        if name not in _ALLOWED or counts.get(name, 0) >= MAX_EACH:
            continue
        counts[name] = counts.get(name, 0) + 1
        title, show = _ALLOWED[name]
        words = show(redaction, value)
        if words:
            shown.append((title, words))
    return tuple(shown)


def _hostOf(text: str) -> Domain | None:
    if len(text) > MAX_DOMAIN_LENGTH:
        return None
    try:
        return Domain.parse(text)
    except InvalidDomain:
        return None


def _people(redaction: Redaction, value: str) -> Sequence[str]:
    addresses = redaction.addresses(value)
    return [f"{each}," for each in addresses[:-1]] + addresses[-1:]


def _date(redaction: Redaction, value: str) -> Sequence[str]:
    return _NOT_IN_DATE.sub("?", value[:_CHUNK]).split()


def _identifier(redaction: Redaction, value: str) -> Sequence[str]:
    return [_NOT_IN_ID.sub("?", value[:MAX_VALUE])] if value else []


def _listID(redaction: Redaction, value: str) -> Sequence[str]:
    # RFC 2919 3: what is before the brackets is a phrase for people.
    found = _BRACKETED.findall(value)
    return _identifier(redaction, f"<{found[-1]}>") if found else []


def _signature(redaction: Redaction, value: str) -> Sequence[str]:
    words: list[str] = []
    specs = splitTagSpecs(value, MAX_TAGS)[:MAX_TAGS]
    for tag, content in filter(None, map(parseTagSpec, specs)):
        if tag not in _TAGS:
            continue
        content = _BLANK.sub("", content)
        if tag == "i":
            content = redaction.identity(content)
        content = _NOT_VISIBLE.sub("?", content[:MAX_VALUE])
        words += _foldable(tag, f"{tag}={content};")
    return words


def _foldable(tag: str, word: str) -> list[str]:
    """
    The parts of a tag between which white space has no meaning.
    """
    if tag == "h":
        return [each for each in _AFTER_COLON.split(word) if each]
    if tag in ("b", "bh"):
        return [word[start : start + _CHUNK] for start in range(0, len(word), _CHUNK)]
    return [word]


_Show = Callable[[Redaction, str], Sequence[str]]

#: For each included field its spelling and redaction function, by name.
_ALLOWED: dict[str, tuple[str, _Show]] = {
    "date": ("Date", _date),
    "dkim-signature": ("DKIM-Signature", _signature),
    "from": ("From", _people),
    "list-id": ("List-Id", _listID),
    "message-id": ("Message-ID", _identifier),
    "mime-version": ("MIME-Version", _date),
    "reply-to": ("Reply-To", _people),
    "sender": ("Sender", _people),
}
