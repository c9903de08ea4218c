# -*- test-case-name: tests.received.analysis.test_sources -*-
"""
Groups the sources of a domain's mail in DMARC reports, and tells them apart: own hosts,
known services, forwarders, and unknown ones.  No I/O.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import lru_cache
from ipaddress import ip_network

from moxtls.ipaddresses import parseIP
from moxtls.received.types import DMARCSource, RowOutcome

#: Networks and names that a group lists.
MAX_LISTED = 5


class SourceKind(StrEnum):
    """
    The relation of a source to the domain.
    """

    OURS = "ours"
    SERVICE = "service"
    FORWARDER = "forwarder"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class OwnSenders:
    """
    The hosts that send for a domain.

    @ivar domain: The policy domain, in A-labels.
    @ivar names: Host names of this installation, in A-labels.
    @ivar addresses: IP addresses, in canonical form.
    """

    domain: str
    names: frozenset[str] = frozenset()
    addresses: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class KnownService:
    """
    A service that sends mail for others.

    @ivar isMailbox: True for providers of mailboxes, whose users also forward mail.
    @ivar domains: Those in DKIM signatures, SPF results and reverse names.
    """

    name: str
    isMailbox: bool
    domains: tuple[str, ...]


# Domains as these services use them in DKIM signatures, bounce addresses and the
# reverse names of their outgoing hosts.
_MAILBOXES = {
    "Google Workspace": ("google.com", "gappssmtp.com", "googlemail.com", "gmail.com"),
    "Microsoft 365": ("outlook.com", "onmicrosoft.com", "office365.com"),
    "Yahoo": ("yahoo.com", "yahoodns.net", "yahoo.co.jp", "aol.com"),
    "iCloud": ("icloud.com", "me.com", "apple.com"),
    "Fastmail": ("fastmail.com", "messagingengine.com", "pobox.com"),
    "Proton": ("proton.me", "protonmail.ch", "protonmail.com"),
    "Zoho": ("zoho.com", "zoho.eu", "zohomail.com", "zohomail.eu", "zcsend.net"),
    "GMX and WEB.DE": ("gmx.net", "gmx.com", "web.de"),
    "IONOS": ("ionos.com", "kundenserver.de", "perfora.net", "1and1.com", "ui-dns.com"),
    "OVH": ("ovh.net",),
    "Gandi": ("gandi.net",),
    "Infomaniak": ("infomaniak.ch",),
    "Mailbox.org": ("mailbox.org",),
    "Posteo": ("posteo.de",),
    "Migadu": ("migadu.com",),
    "Tuta": ("tutanota.de", "tuta.com", "tutao.de"),
    "Rackspace": ("emailsrvr.com",),
    "GoDaddy": ("secureserver.net",),
    "Namecheap": ("privateemail.com", "jellyfish.systems"),
    "Yandex": ("yandex.ru", "yandex.net", "yandex.com"),
    "Mail.ru": ("mail.ru",),
    "Mimecast": ("mimecast.com",),
    "Proofpoint": ("pphosted.com", "ppe-hosted.com"),
    "Barracuda": ("barracudanetworks.com", "ess.barracuda.com"),
    "Cloudflare Email Routing": ("cloudflare-email.net", "cloudflare-email.com"),
}
_SENDERS = {
    "Amazon SES": ("amazonses.com",),
    "SendGrid": ("sendgrid.net", "sendgrid.com", "sendgrid.info"),
    "Mailgun": ("mailgun.org", "mailgun.net", "mailgun.com", "mailgun.info"),
    "Mailchimp": (
        "mcsv.net",
        "mailchimp.com",
        "mcdlv.net",
        "rsgsv.net",
        "mailchimpapp.net",
    ),
    "Mandrill": ("mandrillapp.com", "mandrill.com"),
    "Postmark": ("mtasv.net", "postmarkapp.com"),
    "SparkPost": ("sparkpostmail.com", "sparkpost.com", "messagebird.com"),
    "Brevo": ("sendinblue.com", "brevo.com", "sender-sib.com", "brevosend.com"),
    "Mailjet": ("mailjet.com", "mjt.lu"),
    "Zendesk": ("zendesk.com", "zdsys.com"),
    "Salesforce": ("salesforce.com", "exacttarget.com", "pardot.com"),
    "HubSpot": ("hubspot.com", "hubspotemail.net", "hs-send.com"),
    "Freshworks": ("freshdesk.com", "freshemail.io", "freshworks.com"),
    "Intercom": ("intercom.io", "intercom-mail.com"),
    "Help Scout": ("helpscout.net",),
    "Front": ("frontapp.com",),
    "Klaviyo": ("klaviyomail.com", "klaviyo.com"),
    "ActiveCampaign": ("activehosted.com", "acems1.com", "emsend1.com"),
    "Campaign Monitor": ("createsend.com", "cmail19.com", "cmail20.com"),
    "Constant Contact": ("constantcontact.com", "ccsend.com"),
    "GetResponse": ("getresponse.com", "gr-mail.com"),
    "MailerLite": ("mailerlite.com", "mlsend.com"),
    "MailerSend": ("mailersend.net", "mailersend.com"),
    "Resend": ("resend.com", "resend.dev"),
    "SMTP2GO": ("smtp2go.com", "smtpcorp.com"),
    "Elastic Email": ("elasticemail.com", "elasticemail.net"),
    "SocketLabs": ("socketlabs.com", "email-od.com"),
    "Sendcloud": ("sendcloud.org", "sendcloud.net"),
    "Rapidmail": ("rapidmail.de", "emailsys.net"),
    "CleverReach": ("cleverreach.com", "crsend.com"),
    "Marketo": ("mktomail.com", "marketo.com"),
    "Oracle Eloqua": ("eloqua.com", "oracle.com", "oracleemaildelivery.com"),
    "Adobe Campaign": ("neolane.net", "campaign.adobe.com"),
    "Customer.io": ("customeriomail.com", "customer.io"),
    "Iterable": ("iterable.com",),
    "Braze": ("braze.com",),
    "Atlassian": ("atlassian.net", "atlassian.com"),
    "GitHub": ("github.com",),
    "Shopify": ("shopify.com", "shopifyemail.com"),
    "DocuSign": ("docusign.net", "docusign.com"),
    "Stripe": ("stripe.com",),
    "Xero": ("xero.com",),
    "Qualtrics": ("qualtrics.com", "qemailserver.com"),
    "SurveyMonkey": ("surveymonkey.com", "research.net"),
    "Squarespace": ("squarespace.com", "squarespace-mail.com"),
    "Wix": ("wix.com", "wixemails.com", "ascendbywix.com"),
    "Discourse": ("discoursemail.com", "discourse.org"),
}
#: All that are known.
SERVICES = tuple(
    KnownService(name, isMailbox, domains)
    for table, isMailbox in ((_MAILBOXES, True), (_SENDERS, False))
    for name, domains in table.items()
)
_BY_DOMAIN = {domain: each for each in SERVICES for domain in each.domains}

# First labels of hosts and domains of mailing lists.
_LISTS = frozenset({"lists", "list", "mailman", "listserv", "groups", "sympa", "ml"})
_LIST_DOMAINS = frozenset({"googlegroups.com", "groups.io", "freelists.org"})


def knownService(name: str) -> KnownService | None:
    """
    The service that a domain or host name belongs to.
    """
    while name:
        found = _BY_DOMAIN.get(name)
        if found is not None:
            return found
        name = name.partition(".")[2]
    return None


def isUnder(name: str, domain: str) -> bool:
    """
    True if C{name} is C{domain} or a name below it.
    """
    return bool(domain) and (name == domain or name.endswith("." + domain))


@dataclass(slots=True)
class SourceGroup:
    """
    Sources with the same relation to a domain, and the same name.

    @ivar name: That of the service or organizational domain; a network if there is
        none.
    @ivar authenticated: The domain that most of its messages were authenticated as;
        empty if most of them weren't.
    @ivar address: An IP address of the largest network.
    @ivar networks: The largest ones, at most L{MAX_LISTED}.
    @ivar names: Reverse names that resolve back, at most L{MAX_LISTED}.
    @ivar dkim: Messages with an aligned DKIM signature that passed.
    @ivar spf: Messages with an aligned SPF result that passed.
    @ivar failed: Messages that failed DMARC.
    @ivar refused: Messages that the receivers rejected or quarantined.
    @ivar firstFailure: The first day with messages that failed; C{None} without any.
    """

    kind: SourceKind
    name: str
    authenticated: str
    address: str
    networks: list[str] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    messages: int = 0
    dkim: int = 0
    spf: int = 0
    failed: int = 0
    refused: int = 0
    firstDay: int = 0
    lastDay: int = 0
    firstFailure: int | None = None
    lastFailure: int | None = None

    @property
    def passed(self) -> int:
        return self.messages - self.failed

    def add(self, source: DMARCSource, name: str) -> None:
        """
        Count some messages.

        @param name: The reverse name of C{source}; may be empty.
        """
        outcome = RowOutcome(source.outcome)
        count = source.messages
        first = source.firstDay
        self.firstDay = first if not self.messages else min(self.firstDay, first)
        self.lastDay = max(self.lastDay, source.lastDay)
        self.messages += count
        self.dkim += count if outcome & RowOutcome.DKIM else 0
        self.spf += count if outcome & RowOutcome.SPF else 0
        if outcome.disposition in ("reject", "quarantine"):
            self.refused += count
        if not outcome.passed:
            self.failed += count
            known = self.firstFailure
            self.firstFailure = first if known is None else min(known, first)
            self.lastFailure = max(self.lastFailure or 0, source.lastDay)
        _list(self.networks, source.network)
        _list(self.names, name)


def _list(texts: list[str], text: str) -> None:
    if text and text not in texts and len(texts) < MAX_LISTED:
        texts.append(text)


def groupSources(
    sources: Iterable[DMARCSource],
    own: OwnSenders,
    names: Mapping[str, str],
    organizational: Callable[[str], str],
) -> tuple[SourceGroup, ...]:
    """
    Group the sources of a domain's mail.

    @param sources: Those of one policy domain, most messages first.
    @param names: By IP address, the reverse name that resolves back to it, in lower
        case.
    @param organizational: Returns the organizational domain of a domain name, by the
        public suffix list.

    @return: Groups with failures first, those with most failures before others; then
        those with most messages.
    """
    organization = lru_cache(maxsize=4096)(organizational)
    groups: dict[tuple[SourceKind, str], SourceGroup] = {}
    for source in sources:
        name = names.get(source.source, "")
        kind = sourceKind(source, name, own)
        title = _title(kind, source, name, own, organization)
        group = groups.get((kind, title))
        if group is None:
            group = SourceGroup(kind, title, source.authenticated, source.source)
            groups[kind, title] = group
        group.add(source, name)
    return tuple(
        sorted(groups.values(), key=lambda each: (-each.failed, -each.messages))
    )


def sourceKind(source: DMARCSource, name: str, own: OwnSenders) -> SourceKind:
    """
    The relation of a source to a domain.

    @param name: The reverse name of C{source}; may be empty.
    """
    outcome = RowOutcome(source.outcome)
    if _isOwnHost(source, name, own, outcome.passed):
        return SourceKind.OURS
    onlyDKIM = bool(outcome & RowOutcome.DKIM) and not outcome & RowOutcome.SPF
    service = _service(source, name, own)
    if service is not None:
        # What providers of mailboxes send for their customers passes SPF, too; a
        # signature alone survives forwarding.
        isForwarded = service.isMailbox and onlyDKIM
        return SourceKind.FORWARDER if isForwarded else SourceKind.SERVICE
    if onlyDKIM or _isList(name) or _isList(source.authenticated):
        return SourceKind.FORWARDER
    if outcome & RowOutcome.SPF or isUnder(source.authenticated, own.domain):
        # The domain's own records name it.
        return SourceKind.OURS
    return SourceKind.UNKNOWN


def _isOwnHost(source: DMARCSource, name: str, own: OwnSenders, passed: bool) -> bool:
    if source.source in own.addresses or name in own.names:
        return True
    if not passed:
        # Anybody can have a neighbouring address, or a name that says so.
        return False
    return isUnder(name, own.domain) or source.network in _networks(own.addresses)


@lru_cache(maxsize=16)
def _networks(addresses: frozenset[str]) -> frozenset[str]:
    """
    The networks of addresses, as in L{DMARCSource.network}.
    """
    ips = filter(None, map(parseIP, addresses))
    texts = (f"{ip}/{24 if ip.version == 4 else 48}" for ip in ips)
    return frozenset(str(ip_network(text, strict=False)) for text in texts)


def _service(source: DMARCSource, name: str, own: OwnSenders) -> KnownService | None:
    authenticated = source.authenticated
    found = None
    if not isUnder(authenticated, own.domain):
        found = knownService(authenticated)
    return found or knownService(name)


def _isList(name: str) -> bool:
    labels = name.split(".")
    return labels[0] in _LISTS or ".".join(labels[-2:]) in _LIST_DOMAINS


def _title(
    kind: SourceKind,
    source: DMARCSource,
    name: str,
    own: OwnSenders,
    organization: Callable[[str], str],
) -> str:
    service = _service(source, name, own)
    if service is not None and kind is not SourceKind.OURS:
        return service.name
    if kind is SourceKind.UNKNOWN and source.authenticated:
        return organization(source.authenticated)
    if kind is SourceKind.FORWARDER and not name:
        foreign = not isUnder(source.authenticated, own.domain)
        if foreign and source.authenticated:
            return organization(source.authenticated)
    return organization(name) if name else source.network or "no address"


def advice(group: SourceGroup, domain: str) -> str:
    """
    A sentence with the remedy for the failures of a group; empty if none is needed.

    @param domain: The policy domain, for display.
    """
    if group.failed:
        return _FAILING[group.kind].format(name=group.name, domain=domain)
    # RFC 9989 7.4: domains must not rely on SPF alone.
    if group.dkim < group.messages and group.kind is not SourceKind.FORWARDER:
        return (
            f"Sign all its mail with DKIM as {domain}: SPF alone fails when mail is "
            "forwarded."
        )
    return ""


_FAILING = {
    SourceKind.OURS: (
        "Sign its mail with DKIM as {domain}, and add its address to the SPF record."
    ),
    SourceKind.SERVICE: (
        "If you use {name}, set up DKIM for {domain} there; otherwise somebody else "
        "sends as you through it."
    ),
    SourceKind.FORWARDER: (
        "Nothing, if mailing lists change messages; otherwise sign all mail with DKIM, "
        "which survives forwarding."
    ),
    SourceKind.UNKNOWN: (
        "If it is yours, sign its mail with DKIM as {domain}; otherwise it is forged, "
        "and p=reject keeps it out."
    ),
}
