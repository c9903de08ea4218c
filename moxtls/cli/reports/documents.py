# -*- test-case-name: tests.cli.reports -*-
"""
Reports as JSON, with the field names of the RFCs and the times of RFC 3339, whatever
their format was.
"""

from __future__ import annotations

from moxtls.dates import rfc3339
from moxtls.dmarc.parse import FeedbackReport, ReceivedAggregateReport, ReceivedRecord
from moxtls.received.reading.read import ReceivedReport
from moxtls.tlsrpt.parse import ReceivedFailure, ReceivedPolicy, ReceivedTLSReport


def document(report: ReceivedReport) -> dict[str, object]:
    """
    A received report as JSON, with the names of RFC 8460 4.4, RFC 9990 3.1 or RFC
    5965 3.
    """
    if isinstance(report, ReceivedTLSReport):
        return _tls(report)
    if isinstance(report, FeedbackReport):
        return {"feedback_report": report.fields, "original": report.original}
    return _aggregate(report)


def _tls(report: ReceivedTLSReport) -> dict[str, object]:
    return {
        "organization-name": report.organization,
        "date-range": {
            "start-datetime": rfc3339(report.start),
            "end-datetime": rfc3339(report.end),
        },
        "contact-info": report.contact,
        "report-id": report.reportID,
        "policies": [_policy(each) for each in report.policies],
    }


def _policy(policy: ReceivedPolicy) -> dict[str, object]:
    return {
        "policy": {
            "policy-type": policy.type,
            "policy-string": policy.strings,
            "policy-domain": policy.domain,
            "mx-host": policy.mxHosts,
        },
        "summary": {
            "total-successful-session-count": policy.succeeded,
            "total-failure-session-count": policy.failed,
        },
        "failure-details": [_failure(each) for each in policy.failures],
    }


def _failure(failure: ReceivedFailure) -> dict[str, object]:
    fields: dict[str, object] = {
        "result-type": failure.resultType,
        "sending-mta-ip": failure.sendingIP,
        "receiving-mx-hostname": failure.mxHostname,
        "receiving-mx-helo": failure.mxHELO,
        "receiving-ip": failure.receivingIP,
        "failed-session-count": failure.count,
        "additional-information": failure.additional,
        "failure-reason-code": failure.reasonCode,
    }
    return {name: value for name, value in fields.items() if value != ""}


def _aggregate(report: ReceivedAggregateReport) -> dict[str, object]:
    return {
        "report_metadata": {
            "org_name": report.organization,
            "email": report.email,
            "extra_contact_info": report.contact,
            "report_id": report.reportID,
            "date_range": {
                "begin": rfc3339(report.start),
                "end": rfc3339(report.end),
            },
            "error": report.errors,
            "generator": report.generator,
        },
        "policy_published": {"domain": report.domain, **dict(report.published)},
        "records": [_record(each) for each in report.records],
    }


def _record(record: ReceivedRecord) -> dict[str, object]:
    return {
        "row": {
            "source_ip": record.sourceIP,
            "count": record.count,
            "policy_evaluated": {
                "disposition": record.disposition,
                "dkim": record.dkimAligned,
                "spf": record.spfAligned,
                "reasons": [each._asdict() for each in record.reasons],
            },
        },
        "identifiers": {
            "header_from": record.headerFrom,
            "envelope_from": record.envelopeFrom,
            "envelope_to": record.envelopeTo,
        },
        "auth_results": {
            "dkim": [
                {
                    "domain": each.domain,
                    "selector": each.selector,
                    "result": each.result,
                    "human_result": each.humanResult,
                }
                for each in record.dkim
            ],
            "spf": [each._asdict() for each in record.spf],
        },
    }
