"""
Contracts on which received reports are kept, and for how long, as mixins.
"""

from __future__ import annotations

from dataclasses import replace

from moxtls.dates import DAY
from moxtls.ledger.received import expiry, values
from moxtls.received.types import (
    AddResult,
    ReceivedKind,
    RefusedReport,
    ReportFilter,
)
from tests.ledger.received.contracts import MANY, TUESDAY, WEDNESDAY, ReceivedBase
from tests.ledger.received.values import (
    FAILED,
    HTTPS,
    MONDAY,
    NET,
    ORG,
    PASSED,
    Row,
    detail,
    dmarc,
    failure,
    policy,
    refused,
    tls,
)


class RefusedContract(ReceivedBase):
    """
    L{IReceivedReportStore}: reports that aren't accepted.
    """

    def test_refused(self) -> None:
        """
        They are kept with the reason, and not counted.
        """
        report = dmarc(Row(messages=4), Row(outcome=FAILED))
        unreadable = RefusedReport(HTTPS, "not a report", ReceivedKind.TLS)
        self.refuse(refused("DMARC fails", report), unreadable)
        second, first = self.listed(refused=True)
        self.assertEqual((first.refused, first.domains), ("DMARC fails", (ORG,)))
        self.assertEqual((first.total, first.failed), (5, 1))
        self.assertEqual((second.kind, second.origin), (ReceivedKind.TLS, HTTPS))
        self.assertEqual((second.size, second.domains), (0, ()))
        self.assertEqual(self.got(self.store.raw(first.number)), report.raw)
        self.assertIsNone(self.got(self.store.raw(second.number)))
        self.assertEqual(self.messages(), {})
        self.assertEqual(self.got(self.store.domains(0, 99_999)), ())

    def test_acceptedLater(self) -> None:
        """
        A report that was refused can be accepted, and the other way round.
        """
        self.refuse(refused(report=dmarc()))
        self.assertEqual(self.add(dmarc()), [AddResult.STORED])
        self.refuse(refused(report=dmarc()))
        self.assertEqual(len(self.listed(refused=True)), 2)
        self.assertEqual(self.messages(), {PASSED: 1})

    def test_number(self) -> None:
        """
        Only the latest are kept.
        """
        self.patch(expiry, "MAX_REFUSED", 3)
        self.add(dmarc())
        self.refuse(*[refused(str(n), dmarc(reportID=str(n))) for n in range(6)])
        kept = [each.refused for each in self.listed(refused=True)]
        self.assertEqual(kept, ["5", "4", "3"])
        self.assertEqual(self.messages(), {PASSED: 1})

    def test_octets(self) -> None:
        """
        The oldest go if all are too large, and those that are too large by themselves
        are kept without their raw form.
        """
        self.patch(expiry, "MAX_REFUSED_OCTETS", 25)
        for number in range(4):
            report = replace(dmarc(), raw=b"x" * 10)
            self.refuse(refused(str(number), report))
        self.assertEqual(
            [each.refused for each in self.listed(refused=True)], ["3", "2"]
        )
        huge = replace(dmarc(), raw=bytes(values.MAX_REFUSED_RAW + 1))
        self.refuse(refused("huge", huge))
        last = self.listed(refused=True)[0]
        self.assertEqual((last.refused, last.size), ("huge", 0))

    def test_expire(self) -> None:
        """
        They expire by the day in which they were received, not with accepted ones.
        """
        self.add(dmarc())
        self.refuse(*[refused(str(n), tls(), MONDAY + n) for n in range(5)])
        for kind in ReceivedKind:
            self.got(self.store.expire(kind, MONDAY, 100))
        self.expireAll(None, MONDAY + 3, 1)
        kept = [each.refused for each in self.listed(refused=True)]
        self.assertEqual(kept, ["4", "3"])
        self.assertEqual(self.messages(), {PASSED: 1})


class ExpiryContract(ReceivedBase):
    """
    L{IReceivedReportStore.expire}.
    """

    def fill(self) -> None:
        for day in range(MONDAY, MONDAY + 4):
            self.add(
                dmarc(*[Row(f"192.0.{n}.1", messages=n) for n in range(9)], day=day),
                dmarc(
                    *[Row(outcome=FAILED)] * MANY, day=day, rowsOfBlock=1, reportID="2"
                ),
                dmarc(day=day, domain=NET, organization=f"Org {day}"),
                tls(policy(ORG, failures={"a": 1}), policy(NET), day=day),
                failure(day=day),
            )

    def test_kinds(self) -> None:
        """
        Reports of one kind expire, those of earlier days, with rows and sums, in steps
        of any size.
        """
        for limit in (2, 7, 1000):
            self.fill()
            self.expireAll(ReceivedKind.DMARC, WEDNESDAY, limit)
            left = self.listed(kind=ReceivedKind.DMARC)
            self.assertEqual(
                {each.start // DAY for each in left}, {WEDNESDAY, WEDNESDAY + 1}
            )
            self.assertEqual(len(left), 6)
            self.assertEqual(len(self.listed(kind=ReceivedKind.TLS)), 4)
            self.consistent(ORG, NET)
            first = self.got(self.store.dmarcDays(ORG, 0, 99_999))[0]
            self.assertEqual(first.day, WEDNESDAY)
            sources = self.got(self.store.dmarcSources(ORG, 0, WEDNESDAY - 1, 9))
            self.assertEqual(sources, ())

    def test_everything(self) -> None:
        """
        Nothing is left once everything has expired.
        """
        self.fill()
        self.refuse(refused())
        numbers = [each.number for each in self.listed(refused=None)]
        for kind in (*ReceivedKind, None):
            self.expireAll(kind, 99_999, 5)
        self.assertEqual(self.listed(refused=None), [])
        self.assertEqual(self.got(self.store.domains(0, 99_999)), ())
        for number in numbers:
            self.assertIsNone(self.got(self.store.get(number)))
            self.assertIsNone(self.got(self.store.raw(number)))
        self.assertEqual(self.leftRows(), {})
        # What has expired can be stored again, with a new number.
        self.fill()
        self.consistent(ORG, NET)
        self.assertGreater(min(each.number for each in self.listed()), max(numbers))

    def leftRows(self) -> dict[str, int]:
        """
        The numbers of rows in tables that have some.
        """
        raise NotImplementedError

    def test_tls(self) -> None:
        """
        TLS reports expire with their failures.
        """
        self.fill()
        self.expireAll(ReceivedKind.TLS, TUESDAY, 3)
        self.consistent(ORG, NET)
        (group,) = self.got(self.store.tlsFailures(ORG, 0, 99_999, 9))
        self.assertEqual((group.sessions, group.firstDay), (3, TUESDAY))
        self.assertEqual(len(self.listed(kind=ReceivedKind.DMARC)), 12)

    def test_details(self) -> None:
        """
        Details are kept as long as a report of their time is.
        """
        month = values.MONTH
        start = MONDAY - MONDAY % month
        self.add(
            *[dmarc(Row(envelopeFrom="x"), day=start + n * month) for n in range(3)]
        )
        self.expireAll(ReceivedKind.DMARC, start + month + 1, 9)
        (row,) = self.got(self.store.dmarcRows(ReportFilter(), 9))
        self.assertEqual(row.detail, detail("x")[1])
        self.add(dmarc(Row(envelopeFrom="x"), day=start))
        row = self.got(self.store.dmarcRows(ReportFilter(), 9))[0]
        self.assertEqual(row.detail, detail("x")[1])

    def test_organizations(self) -> None:
        """
        Names are found as long as there is a report of the organization.
        """
        self.fill()
        self.expireAll(ReceivedKind.DMARC, WEDNESDAY, 9)
        self.assertEqual(self.ids(organization=f"Org {MONDAY}"), [])
        self.assertEqual(len(self.listed(organization=f"Org {WEDNESDAY}")), 1)
        self.assertEqual(
            len(self.listed(organization="google", kind=ReceivedKind.TLS)), 4
        )
