# -*- test-case-name: tests.smtp.client.test_conversation -*-
"""
SASL mechanisms of a client (RFC 4422): PLAIN and LOGIN, for smarthosts.  No I/O.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from moxtls.smtp.types import Credentials


@dataclass(frozen=True, slots=True)
class AuthAttempt:
    """
    One use of a mechanism.

    @ivar initial: The initial response (RFC 4954 4); C{None} for none.
    @ivar answer: Returns the response to a challenge; C{None} if there is none,
        and the exchange has to be cancelled.
    """

    initial: bytes | None
    answer: Callable[[bytes], bytes | None]


@dataclass(frozen=True, slots=True)
class Mechanism:
    """
    A SASL mechanism.

    @ivar name: As in the reply to EHLO, upper case.
    @ivar attempt: Starts an exchange.
    """

    name: str
    attempt: Callable[[Credentials], AuthAttempt]


def _plain(credentials: Credentials) -> AuthAttempt:
    # RFC 4616 2.
    message = f"\0{credentials.user}\0{credentials.password}".encode()
    return AuthAttempt(message, lambda challenge: None)


def _login(credentials: Credentials) -> AuthAttempt:
    # The text of the challenges differs between servers; their order doesn't.
    answers = [credentials.password.encode(), credentials.user.encode()]
    return AuthAttempt(None, lambda challenge: answers.pop() if answers else None)


#: In order of preference; both are for use over TLS only.
MECHANISMS = (Mechanism("PLAIN", _plain), Mechanism("LOGIN", _login))


def chooseMechanism(
    mechanisms: Sequence[Mechanism], offered: frozenset[str]
) -> Mechanism | None:
    """
    The first of C{mechanisms} that the server offers; C{None} if there is none.
    """
    return next((each for each in mechanisms if each.name in offered), None)
