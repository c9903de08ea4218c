# -*- test-case-name: tests.delivery.test_results -*-
"""
How an attempt ends for each recipient, from what hosts did and said.
No I/O.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from moxtls.delivery.mx import HostAddresses, NextHopFailure
from moxtls.delivery.ownhosts import LOOP_STATUS, ownHostReason
from moxtls.delivery.requirements import PolicyRefusal
from moxtls.queue.types import Batch, BatchMessage, DeliveryStatus, ReportKind, Result
from moxtls.smtp.types import RecipientReply, Reply

#: RFC 8689 4.2.1, 5: no host can be trusted as the sender asks.
REQUIRETLS_STATUS = "5.7.30"
#: Characters of what strangers say: a reply may have 64 KB, and there is one
#: for each recipient and host.
MAX_TEXT = 1000
#: Connections to one address for one batch, one after the other: a host may take
#: a few transactions only in each (RFC 9422 MAILMAX).
MAX_SESSIONS = 100


@dataclass(frozen=True, slots=True)
class DeliveryError:
    """
    Why a host, or the whole domain, took nothing.

    @ivar status: Enhanced status code (RFC 3463).
    @ivar text: For people: the reply as it was received, or our words; may
        hold a stranger's words, but not too many.
    @ivar code: Of the SMTP reply, 0 if C{text} is ours.
    """

    status: str
    text: str
    host: str = ""
    code: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "text", self.text[:MAX_TEXT])

    @property
    def permanent(self) -> bool:
        return self.status.startswith("5")

    def asTemporary(self) -> DeliveryError:
        """
        The same as something that may pass.
        """
        return replace(self, status="4" + self.status[1:])


_REFUSALS = {
    PolicyRefusal.TLSA_LOOKUP: ("4.7.5", "TLSA lookup failed"),
    PolicyRefusal.MX_MISMATCH: ("4.7.5", "host is not in the MTA-STS policy"),
    PolicyRefusal.REQUIRETLS: (
        REQUIRETLS_STATUS,
        "REQUIRETLS was asked for, and neither DANE nor MTA-STS vouches for the host",
    ),
}


def noNextHop(failure: NextHopFailure) -> DeliveryError:
    """
    It can't be said which hosts take mail for the domain.
    """
    return DeliveryError(failure.status, failure.reason)


def ownHost(host: str) -> DeliveryError:
    """
    A host turns out to be this one by its addresses.
    """
    return DeliveryError(LOOP_STATUS, ownHostReason(host))


def unreachableHost(found: HostAddresses) -> DeliveryError:
    """
    A host has no address.
    """
    status = "4.4.3" if found.failed else "4.4.4"
    return DeliveryError(status, found.reason, str(found.host))


def policyRefused(refusal: PolicyRefusal, host: str) -> DeliveryError:
    """
    A policy forbids to connect to a host.
    """
    status, text = _REFUSALS[refusal]
    return DeliveryError(status, text, host)


def requireTLSNotOffered(host: str) -> DeliveryError:
    """
    A host can't be asked for REQUIRETLS.
    """
    text = "REQUIRETLS was asked for, and the host doesn't support it"
    return DeliveryError(REQUIRETLS_STATUS, text, host)


def smtpError(reply: Reply, host: str) -> DeliveryError:
    """
    A host ended the session with a reply.
    """
    return DeliveryError(_status(reply), str(reply), host, reply.code)


def tlsFailed(reason: str, reply: Reply | None, host: str) -> DeliveryError:
    """
    There is no TLS to be had with a host, or none that will do.

    @param reply: To STARTTLS, if that was refused.
    """
    if reply is None:
        return DeliveryError("4.7.5", reason, host)
    return DeliveryError("4.7.5", str(reply), host, reply.code)


def sessionLimitReached(host: str) -> DeliveryError:
    """
    A host has had as many connections as it gets, and there is mail left.
    """
    return DeliveryError(
        "4.5.3", f"it takes too little in {MAX_SESSIONS} connections", host
    )


class RecipientResults:
    """
    Who of a batch has an answer.

    What a host accepts or refuses for good is final.  What it refuses for now
    is an answer only if no other host has a better one (RFC 5321 5.1: until a
    delivery attempt succeeds).  So is that a host can't be asked for want of an
    extension: the next may have it.
    """

    def __init__(self, batch: Batch) -> None:
        self._batch = batch
        self._final: dict[tuple[str, str], Result] = {}
        self._taken = 0
        self._begun = False
        self._passing: dict[tuple[str, str], Result] = {}
        self._unasked: dict[tuple[str, str], Result] = {}
        self._errors: list[DeliveryError] = []

    @property
    def complete(self) -> bool:
        return not self._open()

    @property
    def errors(self) -> tuple[DeliveryError, ...]:
        """
        Why hosts took nothing, in the order in which they were asked.
        """
        return tuple(self._errors)

    def undecidedRecipients(self, message: BatchMessage) -> tuple[str, ...]:
        """
        Those of a message's recipients for whom there is no final answer.
        """
        return tuple(
            each
            for each in message.recipients
            if (message.messageID, each) not in self._final
        )

    def messageStarted(self) -> None:
        """
        A host is given a message.  How that ends may be for what is in it.
        """
        self._begun = True

    def addHostError(self, error: DeliveryError) -> None:
        """
        A host took nothing, or nothing more; the next may.
        """
        self._errors.append(error)

    def failMessage(self, message: BatchMessage, error: DeliveryError) -> None:
        """
        A message can't be handed to any host now.
        """
        for recipient in self.undecidedRecipients(message):
            key = message.messageID, recipient
            self._final[key] = _failedResult(*key, error)

    def addReplies(
        self,
        message: BatchMessage,
        replies: Iterable[RecipientReply],
        host: str,
        lenient: bool = False,
    ) -> None:
        """
        A host said yes or no to recipients, or couldn't be asked.

        @param lenient: Take a refusal for reasons of security or policy (RFC
            3463 3.8) as temporary: over the other family of addresses it may
            be another.
        """
        for each in replies:
            result = _result(message.messageID, each, host)
            if lenient and result.status.startswith("5.7."):
                result = _softened(result)
            answers = self._final
            if each.reply.isLocal:
                answers = self._unasked
            elif result.ending is DeliveryStatus.TEMPORARY:
                answers = self._passing
            answers[message.messageID, each.recipient] = result

    def failAll(self, error: DeliveryError) -> None:
        """
        There is no host to ask.
        """
        self._errors = [error]
        self.finish()

    def finish(self) -> None:
        """
        There is no other host to ask.  If not all of them refused for good, a
        later attempt may find one that doesn't.
        """
        passing = [each for each in self._errors if not each.permanent]
        troubles = self._errors or [DeliveryError("4.4.1", "no host could be reached")]
        last = (passing or troubles)[-1]
        for key in self._open():
            unasked = None if passing else self._unasked.get(key)
            said = self._passing.get(key) or unasked
            self._final[key] = said or self._untried(key, last)

    def deferAll(self, error: DeliveryError) -> None:
        """
        This attempt can't go on; a later one may, and so may that of other mail
        to the same destination.
        """
        self._errors = [error]
        for key in self._open():
            self._final[key] = _failedResult(*key, error)

    def expire(self) -> None:
        """
        There is no time to ask another host, or to wait for this one.  What
        went wrong until then is all that can be said to whom has no answer.
        """
        seen = dict.fromkeys(
            f"{each.host}: {each.text}" if each.host else each.text
            for each in self._errors
        )
        text = "; ".join(["the attempt took too long", *seen])
        passing = [each for each in self._errors if not each.permanent]
        status = passing[-1].status if passing else "4.4.2"
        error = DeliveryError(status, text)
        for key in self._open():
            self._final[key] = self._passing.get(key) or self._untried(key, error)

    def final(self) -> tuple[Result, ...]:
        """
        Those that are final.
        """
        return tuple(self._final.values())

    def takeNew(self) -> tuple[Result, ...]:
        """
        Those that became final since this was called before.
        """
        # A result that is final stays as it is, and where it is.
        results = self.final()[self._taken :]
        self._taken += len(results)
        return results

    def _untried(self, key: tuple[str, str], error: DeliveryError) -> Result:
        unreachable = not self._begun and not error.permanent and self._isPlain
        return replace(_failedResult(*key, error), unreachable=unreachable)

    @property
    def _isPlain(self) -> bool:
        """
        Whether the batch asks for nothing that other mail to the same
        destination doesn't.
        """
        # Reports for DMARC don't fall back to plaintext.
        isStrict = self._batch.report is ReportKind.DMARC
        return self._batch.requireTLS is None and not isStrict

    def _open(self) -> list[tuple[str, str]]:
        return [
            (message.messageID, each)
            for message in self._batch.messages
            for each in self.undecidedRecipients(message)
        ]


def _failedResult(messageID: str, recipient: str, error: DeliveryError) -> Result:
    return Result(
        messageID,
        recipient,
        DeliveryStatus.PERMANENT if error.permanent else DeliveryStatus.TEMPORARY,
        error.status,
        error.code,
        error.text,
        error.host,
    )


def _result(messageID: str, answer: RecipientReply, host: str) -> Result:
    reply = answer.reply
    ending = DeliveryStatus.TEMPORARY
    if reply.accepted:
        ending = DeliveryStatus.DELIVERED
    elif reply.permanent:
        ending = DeliveryStatus.PERMANENT
    return Result(
        messageID,
        answer.recipient,
        ending,
        _status(reply),
        0 if reply.isLocal else reply.code,
        (reply.text if reply.isLocal else str(reply))[:MAX_TEXT],
        host,
    )


def _status(reply: Reply) -> str:
    """
    RFC 3463 2: the class of an enhanced status code is that of the reply; if
    they contradict each other the reply counts (RFC 5321 4.2.1).
    """
    first = "2" if reply.accepted else "5" if reply.permanent else "4"
    if reply.enhanced.startswith(first + "."):
        return reply.enhanced
    return f"{first}.0.0"


def _softened(result: Result) -> Result:
    status = "4" + result.status[1:]
    return replace(result, ending=DeliveryStatus.TEMPORARY, status=status)
