"""
A message that failed.
"""

from __future__ import annotations

from moxtls.authentication.results import AuthResult, DKIMResult
from moxtls.dmarc.types import (
    Discovery,
    DiscoveryMethod,
    DMARCPolicy,
    DMARCRecord,
    FinalDisposition,
    ReportURI,
    Verdict,
    VerdictEvent,
)
from moxtls.domain import Domain
from tests.dmarc.zone import FAIL, checked

AUTHOR = Domain("news.example.com")
ORGANIZATION = Domain("example.com")
RUF = ReportURI("mailto:ruf@example.com")
RECORD = DMARCRecord(DMARCPolicy.REJECT, ruf=(RUF,))
DISCOVERY = Discovery(
    AUTHOR, ORGANIZATION, DiscoveryMethod.TREE_WALK, ORGANIZATION, RECORD
)
HEADER = (
    b"Received: from relay.example for <anna@our.example>\r\n"
    b"DKIM-Signature: v=1; a=rsa-sha256; d=example.com; s=epsilon;\r\n"
    b" i=john.doe@example.com; h=from:to; bh=KYH/; b=hETr\r\n"
    b"From: John Doe <john.doe@news.example.com>\r\n"
    b"To: anna@our.example\r\n"
    b"Subject: secret\r\n"
    b"Date: Tue, 19 Jul 2022 07:57:33 +0200\r\n"
    b"Message-ID: <2431dc66@news.example.com>\r\n"
)
SIGNATURE = DKIMResult(
    ORGANIZATION,
    "epsilon",
    FAIL,
    "the body was changed",
    "john.doe@example.com",
    "rsa-sha256",
)


def failed(
    *dkim: DKIMResult,
    spf: str = "bounce.example.com",
    status: AuthResult = AuthResult.SOFTFAIL,
    discovery: Discovery = DISCOVERY,
    header: bytes = HEADER,
) -> VerdictEvent:
    """
    A message by C{AUTHOR}, without anything that passes.
    """
    return VerdictEvent(
        checked(*dkim, spf=spf, status=status),
        Verdict(
            FAIL,
            discovery.author,
            discovery,
            DMARCPolicy.REJECT,
            DMARCPolicy.QUARANTINE,
        ),
        FinalDisposition.JUNK,
        "john.doe@bounce.example.com",
        "anna@our.example",
        header=header,
    )
