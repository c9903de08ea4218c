"""
The domains that send mail to moxtls, what they publish, their messages and the
expected result of each.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from moxtls.lab.keys import ED25519_SELECTOR, RSA_SELECTOR
from moxtls.lab.scenario import SENDER

#: The common MX of all sending domains, which receives DSNs and reports.
OUTSIDE = "postfix-outside.test"
OUTSIDE_NUMBER = 203
#: Local parts in each domain: the author, and the addresses for reports.
WRITER = "carol"
REPORTS = "dmarc"
FAILURES = "failures"

#: The domain of the second moxtls, which receives reports about it and its host.
REPORTED = "reported.test"
REPORTED_HOST = f"mx.{REPORTED}"

ANNA, OTTO, FULL = (f"{name}@{SENDER}" for name in ("anna", "otto", "full"))


@dataclass(frozen=True, slots=True)
class SendingDomain:
    """
    A domain with a host that sends its mail.

    @ivar number: The last octet of that host's address.
    @ivar spf: Its SPF record; C{{ip}} stands for that address.
    @ivar dmarc: The tags of its DMARC record except C{v} and C{rua}; empty if it has
        none.
    @ivar selectors: The selectors of its DKIM keys.
    @ivar publishesKeys: Whether the published keys are those that sign.
    @ivar more: Further records.
    """

    domain: str
    number: int
    spf: str = "v=spf1 ip4:{ip} -all"
    dmarc: str = ""
    selectors: tuple[str, ...] = (RSA_SELECTOR,)
    publishesKeys: bool = True
    more: tuple[str, ...] = ()

    @property
    def host(self) -> str:
        return f"mta.{self.domain}"

    @property
    def label(self) -> str:
        """
        The syslog name of its deliveries.
        """
        return self.domain.removesuffix(".test")

    @property
    def address(self) -> str:
        return f"{WRITER}@{self.domain}"

    @property
    def reports(self) -> str:
        return f"{REPORTS}@{self.domain}"


# As many features of SPF and DMARC as fit.
STRICT = SendingDomain(
    "postfix-reject.test",
    204,
    dmarc=f"p=reject; fo=1; ruf=mailto:{FAILURES}@postfix-reject.test",
    more=('bounces TXT "v=spf1 a:mta.postfix-reject.test -all"',),
)
WATCHING = SendingDomain(
    "postfix-none.test",
    205,
    "v=spf1 include:_spf.%{{d}} ~all",
    "p=none; adkim=s; aspf=s",
    selectors=(RSA_SELECTOR, ED25519_SELECTOR),
    more=('_spf TXT "v=spf1 exists:%{{i}}.from.%{{d2}} ?all"', "{ip}.from A 127.0.0.2"),
)
CAREFUL = SendingDomain(
    "postfix-quarantine.test",
    206,
    "v=spf1 redirect=_spf.postfix-quarantine.test",
    "p=none; sp=quarantine; pct=100",
    more=(
        '_spf TXT "v=spf1 mx a:mta.%{{o}}/32 -all"',
        "news MX 10 mx.postfix-outside.test.",
        'news TXT "v=spf1 ip4:{ip} -all"',
    ),
)
#: Another key than the one it signs with is in its zone.
MISTAKEN = SendingDomain(
    "postfix-mistaken.test", 207, dmarc="p=quarantine", publishesKeys=False
)
SERVICE = SendingDomain("postfix-service.test", 208)
FORGER = SendingDomain("postfix-forger.test", 209, "v=spf1 +all", selectors=())
#: Gets its reports as RFC 7489 has them.
OLD_FORMAT = CAREFUL
SENDING_DOMAINS = (STRICT, WATCHING, CAREFUL, MISTAKEN, SERVICE, FORGER)


@dataclass(frozen=True, slots=True)
class ExpectedResult:
    """
    The expected authentication results and disposition of a message.

    @ivar spf: The result for MAIL FROM, or for HELO if that is empty.
    @ivar dkim: Domain and result of each signature.
    @ivar aligned: C{dkim}, C{spf}, both or none.
    @ivar disposition: The action because of DMARC.
    """

    spf: str
    dkim: tuple[tuple[str, str], ...]
    dmarc: str
    aligned: tuple[str, ...] = ()
    disposition: str = "none"

    @property
    def mailbox(self) -> str:
        """
        The expected mailbox; empty if the message is refused.
        """
        return {"none": "Inbox", "quarantine": "Junk", "reject": ""}[self.disposition]


@dataclass(frozen=True, slots=True)
class SampleMessage:
    """
    A message to be sent, and its expected result.

    @ivar name: Its subject.
    @ivar via: The domain whose host sends it.
    @ivar author: The address in From.
    @ivar envelope: MAIL FROM; empty for the null reverse-path.
    @ivar policy: The domain whose DMARC record applies; empty for none.
    @ivar signer: The address in Sender, whose domain signs; if empty, the author's
        does.
    @ivar body: The text, lines ending with LF.
    """

    name: str
    via: SendingDomain
    author: str
    envelope: str
    policy: str
    expected: ExpectedResult
    signer: str = ""
    body: bytes = b".a line that begins with a point\n"
    headers: tuple[str, ...] = ()
    recipients: tuple[str, ...] = field(default=(ANNA,))

    @property
    def isSpoofed(self) -> bool:
        return not self.expected.mailbox

    @property
    def message(self) -> bytes:
        """
        The whole message; lines end with LF.
        """
        lines = [f"From: Carol <{self.author}>"]
        if self.signer:
            lines.append(f"Sender: {self.signer}")
        lines += [f"To: {', '.join(self.recipients)}", f"Subject: {self.name}"]
        return "\n".join([*lines, *self.headers, "", ""]).encode("utf-8") + self.body


def _passed(*domains: str) -> tuple[tuple[str, str], ...]:
    return tuple((each, "pass") for each in domains)


_BOTH = ("dkim", "spf")
_8BIT = (
    "MIME-Version: 1.0",
    "Content-Type: text/plain; charset=utf-8",
    "Content-Transfer-Encoding: 8bit",
)
#: Several MB, of lines as long as they may be, each with another beginning.
_LARGE = b"".join(b"%06d%s\n" % (each, b"." * 991) for each in range(4_500))

_ALIGNED = ExpectedResult("pass", _passed(STRICT.domain), "pass", _BOTH)
_TWICE = ExpectedResult(
    "pass", _passed(WATCHING.domain, WATCHING.domain), "pass", _BOTH
)

SAMPLES = (
    SampleMessage(
        "aligned", STRICT, STRICT.address, STRICT.address, STRICT.domain, _ALIGNED
    ),
    SampleMessage(
        "large",
        STRICT,
        STRICT.address,
        STRICT.address,
        STRICT.domain,
        _ALIGNED,
        body=_LARGE,
    ),
    SampleMessage(
        "for two",
        STRICT,
        STRICT.address,
        f"{WRITER}@bounces.{STRICT.domain}",
        STRICT.domain,
        _ALIGNED,
        recipients=(ANNA, OTTO),
    ),
    SampleMessage(
        "forwarded",
        SERVICE,
        STRICT.address,
        f"forwarded@{STRICT.domain}",
        STRICT.domain,
        ExpectedResult("fail", _passed(STRICT.domain), "pass", ("dkim",)),
    ),
    SampleMessage(
        "eight bits",
        WATCHING,
        WATCHING.address,
        WATCHING.address,
        WATCHING.domain,
        _TWICE,
        body="Grüße aus Åbo\n".encode(),
        headers=_8BIT,
    ),
    SampleMessage(
        "Grüße",
        WATCHING,
        f"jürgen@{WATCHING.domain}",
        f"jürgen@{WATCHING.domain}",
        WATCHING.domain,
        _TWICE,
        body="Grüße aus Åbo\n".encode(),
        headers=_8BIT,
    ),
    SampleMessage(
        "a notice",
        WATCHING,
        WATCHING.address,
        "",
        WATCHING.domain,
        # aspf=s, and SPF is about its host.
        ExpectedResult(
            "pass", _passed(WATCHING.domain, WATCHING.domain), "pass", ("dkim",)
        ),
    ),
    SampleMessage(
        "strictly",
        WATCHING,
        f"{WRITER}@news.{WATCHING.domain}",
        WATCHING.address,
        WATCHING.domain,
        ExpectedResult("pass", _passed(WATCHING.domain, WATCHING.domain), "fail"),
    ),
    SampleMessage(
        "by a service, none",
        SERVICE,
        WATCHING.address,
        SERVICE.address,
        WATCHING.domain,
        ExpectedResult("pass", _passed(SERVICE.domain), "fail"),
        signer=SERVICE.address,
    ),
    SampleMessage(
        "redirected",
        CAREFUL,
        CAREFUL.address,
        CAREFUL.address,
        CAREFUL.domain,
        ExpectedResult("pass", _passed(CAREFUL.domain), "pass", _BOTH),
    ),
    SampleMessage(
        "from below",
        CAREFUL,
        f"{WRITER}@news.{CAREFUL.domain}",
        f"{WRITER}@news.{CAREFUL.domain}",
        CAREFUL.domain,
        ExpectedResult("pass", _passed(CAREFUL.domain), "pass", _BOTH),
    ),
    SampleMessage(
        "by a service, quarantine",
        SERVICE,
        f"{WRITER}@news.{CAREFUL.domain}",
        SERVICE.address,
        CAREFUL.domain,
        ExpectedResult(
            "pass", _passed(SERVICE.domain), "fail", disposition="quarantine"
        ),
        signer=SERVICE.address,
    ),
    SampleMessage(
        "another key",
        MISTAKEN,
        MISTAKEN.address,
        MISTAKEN.address,
        MISTAKEN.domain,
        ExpectedResult("pass", ((MISTAKEN.domain, "fail"),), "pass", ("spf",)),
    ),
    SampleMessage(
        "another key, by a service",
        SERVICE,
        MISTAKEN.address,
        SERVICE.address,
        MISTAKEN.domain,
        ExpectedResult(
            "pass", ((MISTAKEN.domain, "fail"),), "fail", disposition="quarantine"
        ),
    ),
    SampleMessage(
        "forged",
        FORGER,
        STRICT.address,
        f"forged@{STRICT.domain}",
        STRICT.domain,
        ExpectedResult("fail", (), "fail", disposition="reject"),
        signer=FORGER.address,
    ),
)

#: To the moxtls that delivers to Dovecot.
BY_LMTP = SampleMessage(
    "by LMTP",
    STRICT,
    STRICT.address,
    f"lmtp@{STRICT.domain}",
    STRICT.domain,
    _ALIGNED,
)
BY_LMTP_JUNK = SampleMessage(
    "by LMTP, quarantine",
    SERVICE,
    f"{WRITER}@news.{CAREFUL.domain}",
    f"lmtp@{SERVICE.domain}",
    CAREFUL.domain,
    ExpectedResult("pass", _passed(SERVICE.domain), "fail", disposition="quarantine"),
    signer=SERVICE.address,
)
BY_LMTP_TOO_LARGE = replace(
    BY_LMTP, name="by LMTP, large", body=_LARGE, recipients=(FULL,)
)
KEPT_ELSEWHERE = (BY_LMTP, BY_LMTP_JUNK, BY_LMTP_TOO_LARGE)
_REPORT = (
    b'{"organization-name": "Forger", "contact-info": "a@postfix-forger.test",'
    b' "report-id": "forged", "date-range": {"start-datetime": "2026-01-01T00:00:00Z",'
    b' "end-datetime": "2026-01-01T23:59:59Z"}, "policies": [{"policy":'
    b' {"policy-type": "tlsa", "policy-domain": "reported.test"}, "summary":'
    b' {"total-successful-session-count": 0, "total-failure-session-count": 9}}]}\n'
)
_AGGREGATE = (
    b"<feedback><report_metadata><org_name>Forger</org_name>\n"
    b"<email>a@postfix-forger.test</email><report_id>forged</report_id>\n"
    b"<date_range><begin>1767225600</begin><end>1767311999</end></date_range>\n"
    b"</report_metadata><policy_published><domain>reported.test</domain><p>none</p>\n"
    b"</policy_published><record><row><source_ip>192.0.2.1</source_ip>\n"
    b"<count>9</count><policy_evaluated><disposition>none</disposition>\n"
    b"<dkim>fail</dkim><spf>fail</spf></policy_evaluated></row><identifiers>\n"
    b"<header_from>reported.test</header_from></identifiers></record></feedback>\n"
)


def _forgedReport(kind: str, type: str, recipient: str, body: bytes) -> SampleMessage:
    """
    A report that the author's domain neither signed nor sent.
    """
    return SampleMessage(
        f"forged {kind} report",
        FORGER,
        WATCHING.address,
        f"{kind.lower()}@{FORGER.domain}",
        WATCHING.domain,
        ExpectedResult("pass", (), "fail"),
        signer=FORGER.address,
        body=body,
        headers=("MIME-Version: 1.0", f"Content-Type: {type}"),
        recipients=(recipient,),
    )


#: To the moxtls that receives reports.
FORGED_TLS = _forgedReport(
    "TLS", "application/tlsrpt+json", f"tlsreports@{REPORTED}", _REPORT
)
FORGED_DMARC = _forgedReport(
    "DMARC", "application/xml", f"dmarcreports@{REPORTED}", _AGGREGATE
)
FORGED = (FORGED_TLS, FORGED_DMARC)
#: By a server that sends in chunks; no host of this domain.
IN_CHUNKS = SampleMessage(
    "in chunks",
    SERVICE,
    SERVICE.address,
    SERVICE.address,
    "",
    ExpectedResult("fail", (), "none"),
    body="Grüße aus Åbo\n".encode() + _LARGE,
    headers=_8BIT,
    recipients=(OTTO,),
)
