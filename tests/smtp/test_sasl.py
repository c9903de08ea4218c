"""
Tests for L{moxtls.smtp.sasl} and L{moxtls.smtp.passwords}.
"""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from moxtls.smtp.passwords import (
    InvalidPassword,
    ScramKeys,
    StoredPassword,
    hashPassword,
    saslprep,
)
from moxtls.smtp.sasl import (
    MECHANISMS,
    Authenticated,
    Challenge,
    CredentialsChecker,
    PasswordAttempt,
    Rejected,
    SASLStep,
    ServerExchange,
)
from tests.smtp.scramclient import ScramClient

SALT = bytes(range(32))
PENCIL = StoredPassword.make("pencil", SALT)
ACCOUNTS = CredentialsChecker({"user": PENCIL}, b"secret")

# RFC 7677 3.
CLIENT_NONCE = "rOprNGfwEbeRWgbNEkqO"
SERVER_NONCE = "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
CLIENT_FIRST = b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO"
SERVER_FIRST = (
    b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,"
    b"s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
)
CLIENT_FINAL = (
    b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,"
    b"p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
)
SERVER_FINAL = b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="
EXAMPLE = StoredPassword.parse(
    f"{PENCIL.argon} SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$"
    "WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:"
    "wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU="
)


class StoredPasswordTests(SynchronousTestCase):
    """
    Tests for L{StoredPassword}.
    """

    def test_verify(self) -> None:
        """
        The password is right, and no other is.
        """
        self.assertTrue(PENCIL.verify("pencil"))
        self.assertFalse(PENCIL.verify("Pencil"))
        self.assertFalse(PENCIL.verify(""))
        self.assertFalse(PENCIL.verify("\u0007"))

    def test_text(self) -> None:
        """
        The text form can be parsed again.
        """
        self.assertEqual(StoredPassword.parse(hashPassword("pencil", SALT)), PENCIL)
        self.assertNotIn("pencil", str(PENCIL))
        for text in ("", "pencil", PENCIL.argon, str(PENCIL) + " ", "x" + str(PENCIL)):
            self.assertRaises(InvalidPassword, StoredPassword.parse, text)
        few = str(PENCIL).replace("$15000:", "$4095:")
        self.assertRaises(InvalidPassword, StoredPassword.parse, few)

    def test_keys(self) -> None:
        """
        The keys are those of RFC 5802 3, for the example of RFC 7677 3.
        """
        salt = EXAMPLE.scram.salt
        self.assertEqual(ScramKeys.derive("pencil", salt, 4096), EXAMPLE.scram)

    def test_saslprep(self) -> None:
        """
        The examples of RFC 4013 3.
        """
        for text, prepared in (
            ("I\u00adX", "IX"),
            ("user", "user"),
            ("USER", "USER"),
            ("\u00aa", "a"),
            ("\u2168", "IX"),
            ("a\u00a0b", "a b"),
        ):
            self.assertEqual(saslprep(text), prepared)
        for text in ("\u0007", "\u0627\u0031"):
            self.assertRaises(InvalidPassword, saslprep, text)
        self.assertRaises(InvalidPassword, hashPassword, "", SALT)


class PlainTests(SynchronousTestCase):
    """
    Tests for PLAIN (RFC 4616) and LOGIN.
    """

    def test_plain(self) -> None:
        """
        The message names a user and a password; authorization as another user is
        refused (RFC 4616 2).
        """
        for message, step in (
            (b"\0user\0pencil", PasswordAttempt("user", "pencil")),
            (b"user\0user\0pencil", PasswordAttempt("user", "pencil")),
            (b"\0user\0p\xc3\xa9", PasswordAttempt("user", "p\u00e9")),
            (b"other\0user\0pencil", Rejected()),
            (b"\0\0pencil", Rejected()),
            (b"\0user\0", Rejected()),
            (b"\0user\0pencil\0", Rejected()),
            (b"\0user\0" + b"x" * 2000, Rejected()),
            (b"\xff\0user\0pencil", Rejected()),
            (b"", Rejected()),
        ):
            exchange = ACCOUNTS.begin("PLAIN", "")
            self.assertEqual(exchange.step(message), step, message)

    def test_noInitialResponse(self) -> None:
        """
        Without an initial response the challenge is empty (RFC 4954 4).
        """
        exchange = ACCOUNTS.begin("PLAIN", "")
        self.assertEqual(exchange.step(None), Challenge(b""))
        self.assertEqual(exchange.step(b"\0a\0b"), PasswordAttempt("a", "b"))

    def test_login(self) -> None:
        """
        First the name, which may come with AUTH, then the password.
        """
        exchange = ACCOUNTS.begin("LOGIN", "")
        self.assertEqual(exchange.step(None), Challenge(b"Username:"))
        self.assertEqual(exchange.step(b"user"), Challenge(b"Password:"))
        self.assertEqual(exchange.step(b"pencil"), PasswordAttempt("user", "pencil"))
        exchange = ACCOUNTS.begin("LOGIN", "")
        self.assertEqual(exchange.step(b"user"), Challenge(b"Password:"))

    def test_check(self) -> None:
        """
        A claim is true if there is such a user and that is the password.
        """
        self.assertTrue(ACCOUNTS.check(PasswordAttempt("user", "pencil")))
        self.assertFalse(ACCOUNTS.check(PasswordAttempt("user", "pen")))
        self.assertFalse(ACCOUNTS.check(PasswordAttempt("nobody", "pencil")))


class ScramTests(SynchronousTestCase):
    """
    Tests for SCRAM-SHA-256 (RFC 5802, RFC 7677).
    """

    def server(self) -> ServerExchange:
        """
        The server of RFC 7677 3.
        """
        accounts = CredentialsChecker({"user": EXAMPLE}, b"secret")
        return accounts.begin("SCRAM-SHA-256", SERVER_NONCE)

    def test_exampleServer(self) -> None:
        """
        The example of RFC 7677 3; behind our signature comes an empty
        response (RFC 4954 4).
        """
        server = self.server()
        self.assertEqual(server.step(None), Challenge(b""))
        self.assertEqual(server.step(CLIENT_FIRST), Challenge(SERVER_FIRST))
        self.assertEqual(server.step(CLIENT_FINAL), Challenge(SERVER_FINAL))
        self.assertEqual(server.step(b""), Authenticated("user"))

    def test_exampleClient(self) -> None:
        """
        The example of RFC 7677 3, from the other side.
        """
        client = ScramClient("user", "pencil", CLIENT_NONCE)
        self.assertEqual(client.initial(), CLIENT_FIRST)
        self.assertEqual(client.respond(SERVER_FIRST), CLIENT_FINAL)
        self.assertFalse(client.satisfied)
        self.assertEqual(client.respond(SERVER_FINAL), b"")
        self.assertTrue(client.satisfied)

    def test_impostor(self) -> None:
        """
        A client rejects a server that can't authenticate itself, changes the nonce,
        or asks for too few or too many iterations (RFC 5802 5.1, 9).
        """
        for first in (
            SERVER_FIRST.replace(b"r=rO", b"r=xx"),
            SERVER_FIRST.replace(b"4096", b"1"),
            SERVER_FIRST.replace(b"4096", b"9999999"),
            SERVER_FIRST.replace(b"s=W22", b"s=!"),
            b"",
            b"\xff",
        ):
            client = ScramClient("user", "pencil", CLIENT_NONCE)
            self.assertIsNone(client.respond(first), first)
        for final in (SERVER_FINAL.replace(b"6rr", b"7rr"), b"e=other-error", b""):
            client = ScramClient("user", "pencil", CLIENT_NONCE)
            client.respond(SERVER_FIRST)
            self.assertIsNone(client.respond(final))
            self.assertFalse(client.satisfied)

    def test_firstMessage(self) -> None:
        """
        C{y} is a client that could bind the channel; C{p} requires channel binding,
        which isn't offered; C{m} is for extensions, of which there are none (RFC 5802
        6, 5.1).
        """
        for message, good in (
            (b"y,,n=user,r=x", True),
            (b"n,a=user,n=user,r=x", True),
            (b"n,,n=user,r=x,ext=1", True),
            (b"n,a=other,n=user,r=x", False),
            (b"p=tls-unique,,n=user,r=x", False),
            (b"n,,m=x,n=user,r=x", False),
            (b"n,,n=us=er,r=x", False),
            (b"n,,n=user,r=", False),
            (b"n,,n=,r=x", False),
            (b"n,,n=user", False),
            (b"\xff", False),
            (b"", False),
        ):
            step = self.server().step(message)
            self.assertEqual(isinstance(step, Challenge), good, message)
            self.assertEqual(isinstance(step, Rejected), not good, message)

    def test_finalMessage(self) -> None:
        """
        The proof, the nonce and the channel binding have to be right.
        """
        for final in (
            CLIENT_FINAL.replace(b"p=d", b"p=e"),
            CLIENT_FINAL.replace(b"r=rO", b"r=xx"),
            CLIENT_FINAL.replace(b"biws", b"eSws"),
            CLIENT_FINAL.replace(b"p=dHzb", b"p="),
            CLIENT_FINAL.partition(b",p=")[0],
            b"",
        ):
            server = self.server()
            server.step(CLIENT_FIRST)
            self.assertEqual(server.step(final), Rejected(), final)

    def test_names(self) -> None:
        """
        Commas and equal signs in names are escaped (RFC 5802 5.1); C{y} clients bind
        to their own header.
        """
        accounts = CredentialsChecker({"a,=b": PENCIL}, b"secret")
        server = accounts.begin("SCRAM-SHA-256", "server")
        client = ScramClient("a,=b", "pencil", "client")
        step: SASLStep = server.step(client.initial())
        while isinstance(step, Challenge):
            response = client.respond(step.data)
            step = server.step(response if response is not None else b"*")
        self.assertEqual(step, Authenticated("a,=b"))
        self.assertTrue(client.satisfied)

    def test_nobody(self) -> None:
        """
        An unknown user name looks like a known one: its salt is always the same,
        and different names have different salts.
        """
        salts = []
        for name in (b"nobody", b"nobody", b"noone"):
            server = ACCOUNTS.begin("SCRAM-SHA-256", "server")
            step = server.step(b"n,,n=" + name + b",r=x")
            assert isinstance(step, Challenge)
            nonce, salt, iterations = step.data.split(b",")
            self.assertEqual((nonce, iterations), (b"r=xserver", b"i=15000"))
            salts.append(salt)
        self.assertEqual(salts[0], salts[1])
        self.assertNotEqual(salts[0], salts[2])
        theirs = ACCOUNTS.begin("SCRAM-SHA-256", "s").step(b"n,,n=user,r=x")
        assert isinstance(theirs, Challenge)
        self.assertEqual(len(theirs.data.split(b",")[1]), len(salts[0]))

    def test_nobodyProves(self) -> None:
        """
        There is no proof for an unknown user name.
        """
        server = ACCOUNTS.begin("SCRAM-SHA-256", "server")
        client = ScramClient("nobody", "pencil", "client")
        step = server.step(client.initial())
        assert isinstance(step, Challenge)
        self.assertEqual(server.step(client.respond(step.data)), Rejected())

    @settings(max_examples=100, deadline=None)
    @given(
        st.sampled_from(MECHANISMS),
        st.lists(
            st.one_of(
                st.binary(max_size=30),
                st.sampled_from([CLIENT_FIRST, CLIENT_FINAL, b"", b"n,,n=user,r=x"]),
            ),
            max_size=5,
        ),
    )
    def test_anything(self, mechanism: str, responses: list[bytes]) -> None:
        """
        Arbitrary responses raise nothing, and don't authenticate.
        """
        exchange = ACCOUNTS.begin(mechanism, "server")
        for response in responses:
            step = exchange.step(response)
            self.assertNotIsInstance(step, Authenticated)
            if isinstance(step, Rejected):
                break
