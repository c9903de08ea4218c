"""Record an outcome, and send TLS reports each day: twistd -ny tls_reports.py"""

from collections import Counter
from pathlib import Path

from twisted.application.service import Application
from twisted.internet import reactor

from moxtls import api

ledger = api.Ledger(reactor, "sqlite:///ledger.sqlite")
resolver = api.makeResolver(reactor)
sender = api.ReportSender(
    hostname="mx.us.example",
    domain="us.example",
    selector="2026a",
    key=Path("dkim.pem").read_bytes(),
    submitter=api.RelaySubmitter("localhost"),
)
reports = api.makeTLSReportService(reactor, resolver, ledger, sender)

domain = api.Domain.parse("example.org")
policy = api.TLSPolicy(api.PolicyType.NO_POLICY, domain)
failure = api.FailureDetail(api.ResultType.STARTTLS_NOT_SUPPORTED)
tally = api.PolicyTally(policy, failed=1, failures=Counter({failure: 1}))
recorder = api.makeOutcomeRecorder(reactor, ledger)
recorder.sessionEnded(api.SessionOutcome(domain, tally))
application = Application("reports")
for service in (resolver, reports):
    service.setServiceParent(application)
