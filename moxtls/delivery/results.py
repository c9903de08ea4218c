# -*- test-case-name: tests.delivery.test_results -*-
"""
Results of an attempt for each recipient, from the replies and errors of hosts.
No I/O.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from moxtls.delivery.mx import LOOP_STATUS, HostAddresses, NextHopFailure, ownHostReason
from moxtls.delivery.tls import PolicyRefusal
from moxtls.queue.types import Batch, BatchMessage, DeliveryStatus, ReportKind, Result
from moxtls.smtp.types import RecipientReply, Reply

#: RFC 8689 4.2.1, 5: no host meets the REQUIRETLS of the sender.
REQUIRETLS_STATUS = "5.7.30"
#: Characters of a remote host's text: a reply may have 64 KB, and there is one
#: for each recipient and host.
MAX_TEXT = 1000
#: Connections to one address for one batch, one after the other: a host may
#: limit the transactions in each (RFC 9422 MAILMAX).
MAX_SESSIONS = 100


@dataclass(frozen=True, slots=True)
class DeliveryError:
    """
    The reason why a host, or the whole domain, accepted nothing (or nothing
    more).

    @ivar status: Enhanced status code (RFC 3463).
    @ivar text: Human-readable: the reply as it was received, or a local
        explanation; at most L{MAX_TEXT} characters, perhaps untrusted.
    @ivar host: The name of the host; empty for the whole domain.
    @ivar code: The SMTP reply code; 0 if C{text} is a local explanation.
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
        The same error as a temporary one.
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
    The hosts of the domain are unknown.
    """
    return DeliveryError(failure.status, failure.reason)


def ownHost(host: str) -> DeliveryError:
    """
    A host is this one, by its addresses.
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
    A policy forbids to use a host.
    """
    status, text = _REFUSALS[refusal]
    return DeliveryError(status, text, host)


def requireTLSNotOffered(host: str) -> DeliveryError:
    """
    A host doesn't offer REQUIRETLS.
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
    TLS with a host failed, or its certificate is not acceptable.

    @param reply: The reply to STARTTLS, if that was refused.
    """
    if reply is None:
        return DeliveryError("4.7.5", reason, host)
    return DeliveryError("4.7.5", str(reply), host, reply.code)


def sessionLimitReached(host: str) -> DeliveryError:
    """
    A host has had L{MAX_SESSIONS} connections, and messages remain.
    """
    return DeliveryError(
        "4.5.3", f"it takes too little in {MAX_SESSIONS} connections", host
    )


class RecipientResults:
    """
    Collects the results of one attempt.

    A positive or permanently negative reply is final.  A temporary one counts
    only if no other host gives a better one (RFC 5321 5.1: until a delivery
    attempt succeeds).  The same holds for a recipient that a host can't be asked
    for, because it lacks an extension: the next host may have it.
    """

    def __init__(self, batch: Batch) -> None:
        self._batch = batch
        self._recipients = len(
            {(each.messageID, to) for each in batch.messages for to in each.recipients}
        )
        self._final: dict[tuple[str, str], Result] = {}
        self._reported = 0
        self._hasStarted = False
        self._temporary: dict[tuple[str, str], Result] = {}
        self._notAttempted: dict[tuple[str, str], Result] = {}
        self._errors: list[DeliveryError] = []

    @property
    def complete(self) -> bool:
        return len(self._final) == self._recipients

    @property
    def errors(self) -> tuple[DeliveryError, ...]:
        """
        The errors of hosts, in the order in which they were tried.
        """
        return tuple(self._errors)

    def undecidedRecipients(self, message: BatchMessage) -> tuple[str, ...]:
        """
        The recipients of a message that have no final result.
        """
        return tuple(
            each
            for each in message.recipients
            if (message.messageID, each) not in self._final
        )

    def messageStarted(self) -> None:
        """
        A host is sent a message: from now on, an error may be about the message,
        so that it says nothing about other mail.
        """
        self._hasStarted = True

    def addHostError(self, error: DeliveryError) -> None:
        """
        A host accepted nothing, or nothing more; the next may.
        """
        self._errors.append(error)

    def failMessage(self, message: BatchMessage, error: DeliveryError) -> None:
        """
        A message can't be sent to any host now.
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
        Add a host's replies to recipients.

        @param lenient: Treat a refusal for reasons of security or policy (RFC
            3463 3.8) as temporary: over the other address family the host may
            accept the message.
        """
        for each in replies:
            result = _result(message.messageID, each, host)
            if lenient and result.status.startswith("5.7."):
                result = _asTemporary(result)
            answers = self._final
            if each.reply.isLocal:
                answers = self._notAttempted
            elif result.ending is DeliveryStatus.TEMPORARY:
                answers = self._temporary
            answers[message.messageID, each.recipient] = result

    def failAll(self, error: DeliveryError) -> None:
        """
        End the attempt: no host can be tried.
        """
        self._errors = [error]
        self.finish()

    def finish(self) -> None:
        """
        End the attempt after the last host.  If not all hosts failed
        permanently, a later attempt may succeed.
        """
        temporary = [each for each in self._errors if not each.permanent]
        errors = self._errors or [DeliveryError("4.4.1", "no host could be reached")]
        last = (temporary or errors)[-1]
        for key in self._undecided():
            notAttempted = None if temporary else self._notAttempted.get(key)
            result = self._temporary.get(key) or notAttempted
            self._final[key] = result or self._withoutReply(key, last)

    def deferAll(self, error: DeliveryError) -> None:
        """
        End the attempt with temporary results: a later attempt may succeed, and
        so may other mail to the same destination.
        """
        self._errors = [error]
        for key in self._undecided():
            self._final[key] = _failedResult(*key, error)

    def expire(self) -> None:
        """
        End an attempt that took too long.  Recipients without a final result
        get a temporary one with all errors so far.
        """
        errors = dict.fromkeys(
            f"{each.host}: {each.text}" if each.host else each.text
            for each in self._errors
        )
        text = "; ".join(["the attempt took too long", *errors])
        temporary = [each for each in self._errors if not each.permanent]
        status = temporary[-1].status if temporary else "4.4.2"
        error = DeliveryError(status, text)
        for key in self._undecided():
            self._final[key] = self._temporary.get(key) or self._withoutReply(
                key, error
            )

    def final(self) -> tuple[Result, ...]:
        """
        The final results.
        """
        return tuple(self._final.values())

    def takeNew(self) -> tuple[Result, ...]:
        """
        The results that became final since the last call.
        """
        # A final result never changes, nor does its position.
        results = self.final()[self._reported :]
        self._reported += len(results)
        return results

    def _withoutReply(self, key: tuple[str, str], error: DeliveryError) -> Result:
        unreachable = not self._hasStarted and not error.permanent and self._isPlain
        return replace(_failedResult(*key, error), unreachable=unreachable)

    @property
    def _isPlain(self) -> bool:
        """
        True if the batch has no requirements beyond those of other mail to the
        same destination.
        """
        # DMARC reports don't fall back to plaintext.
        isStrict = self._batch.report is ReportKind.DMARC
        return self._batch.requireTLS is None and not isStrict

    def _undecided(self) -> list[tuple[str, str]]:
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


def _asTemporary(result: Result) -> Result:
    status = "4" + result.status[1:]
    return replace(result, ending=DeliveryStatus.TEMPORARY, status=status)
