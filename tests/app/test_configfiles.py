"""
Tests for L{moxtls.app.configfiles}.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

from twisted.trial.unittest import SynchronousTestCase

from moxtls.app import configfiles as module
from moxtls.app.configfiles import ConfigFiles
from moxtls.authentication.dkim.sign import NoSubmitter
from moxtls.config import InvalidConfig
from moxtls.dns.types import NameServer
from moxtls.domain import Domain
from tests.certificates import good, root
from tests.configs import ed25519Key, lockedKey, rsaKey, writeConfig
from tests.queue.killing import quickDirectory
from tests.smtp.pem import writeCertificate

LISTENER = """
[Listeners.a]
Port = 25
TLS = "starttls"
CertificateFile = "cert.pem"
KeyFile = "key.pem"
"""
SELECTOR = """
[Domains."example.org".DKIM.Selectors.s]
KeyFile = "s.pem"
"""
RELAY = """
[Transports.relay]
Host = "relay.example"
User = "me"
PasswordFile = "password"
"""
AT_SELECTOR = '[Domains.example.org.DKIM.Selectors.s] KeyFile = "s.pem": '
AT_LISTENER = "[Listeners.a] "
AT_RELAY = '[Transports.relay] PasswordFile = "password": '


class ConfigFilesCase(SynchronousTestCase):
    """
    Tests with a configuration in a temporary folder.
    """

    def setUp(self) -> None:
        self.folder = quickDirectory(self)

    def write(self, name: str, content: bytes) -> Path:
        path = self.folder / name
        path.write_bytes(content)
        return path

    def assertWrong(self, work: Callable[[], object], said: str) -> None:
        """
        C{work} fails with one line that begins with the file's name.
        """
        error = self.assertRaises(InvalidConfig, work)
        self.assertEqual(str(error), f"{self.folder / 'moxtls.toml'}: {said}")


class ReadTests(ConfigFilesCase):
    """
    Tests for L{ConfigFiles.read}.
    """

    def test_unreadable(self) -> None:
        """
        A file that can't be read is named.
        """
        for path, why in [
            (self.folder, "cannot be used: Is a directory"),
            (self.folder / "no", "cannot be used: No such file or directory"),
            (self.write("latin", b"# \xe9"), "not TOML: not UTF-8"),
            (self.write("deep", b"a=" + b"[" * 10_000), "nested too deeply"),
        ]:
            error = self.assertRaises(InvalidConfig, ConfigFiles.read, path)
            self.assertEqual(str(error), f"{path}: {why}")

    def test_paths(self) -> None:
        """
        Relative paths are resolved against the folder of the file.
        """
        configFiles = writeConfig(self.folder, 'DataDirectory = "d"\n')
        self.assertEqual(configFiles.spool, self.folder / "d" / "queue")
        self.assertEqual(
            configFiles.ledgerURL, f"sqlite:///{self.folder}/d/ledger.sqlite"
        )
        configFiles = writeConfig(self.folder, 'DataDirectory = "/d"\n')
        self.assertEqual(configFiles.data, Path("/d"))

    def test_ledger(self) -> None:
        """
        The path of an SQLite ledger is resolved in the same way, whatever the working
        directory.
        """
        for url, whole in [
            ("sqlite:///x.sqlite", f"sqlite:///{self.folder}/x.sqlite"),
            ("sqlite:////x.sqlite", "sqlite:////x.sqlite"),
            ("postgresql://h/n", "postgresql://h/n"),
        ]:
            configFiles = writeConfig(self.folder, f'Ledger = "{url}"\n')
            self.assertEqual(configFiles.ledgerURL, whole)


class FileTests(ConfigFilesCase):
    """
    Tests for files that can't be used: each is one line that names file,
    table, key, value and what was expected.
    """

    def test_keys(self) -> None:
        """
        DKIM keys: there, a key, long enough (RFC 8301 3.2), and for the
        algorithm that is configured.
        """
        configFiles = writeConfig(self.folder, SELECTOR)
        gone = "cannot be used: No such file or directory"
        self.assertWrong(configFiles.check, AT_SELECTOR + gone)
        for pem, why in [
            (b"", "not an unencrypted private key in PEM"),
            (b"\xff", "not an unencrypted private key in PEM"),
            (good().pem, "neither an RSA nor an Ed25519 key"),
            (rsaKey(1024).replace(b"PRIVATE", b"PUBLIC"), "not an unencrypted pri"),
            (lockedKey(), "a private key without a passphrase is needed"),
            (ed25519Key(), "expected a key for rsa-sha256, not ed25519-sha256"),
        ]:
            self.write("s.pem", pem)
            error = self.assertRaises(InvalidConfig, configFiles.check)
            self.assertIn(AT_SELECTOR + why, str(error))
        self.write("s.pem", rsaKey(1024))
        configFiles.check()

    def test_unreadable(self) -> None:
        """
        A key that others have locked away.
        """
        configFiles = writeConfig(self.folder, SELECTOR)
        locked = patch.object(Path, "read_bytes", side_effect=PermissionError(13, "No"))
        with locked:
            self.assertWrong(configFiles.signers, AT_SELECTOR + "cannot be used: No")

    def test_certificates(self) -> None:
        """
        Certificates: there, with a key that is theirs.
        """
        configFiles = writeConfig(self.folder, LISTENER)
        gone = "cannot be used: No such file or directory"
        certificate, key = 'CertificateFile = "cert.pem": ', 'KeyFile = "key.pem": '
        self.assertWrong(configFiles.check, AT_LISTENER + certificate + gone)
        writeCertificate(self.folder / "other", "mx.example")
        writeCertificate(self.folder, "mx.example")
        configFiles.check()
        theirs = (self.folder / "other" / "key.pem").read_bytes()
        expected = "expected a certificate in PEM for the key in key.pem"
        self.write("key.pem", theirs)
        self.assertWrong(configFiles.check, AT_LISTENER + certificate + expected)
        for pem, why in (
            (b"", "expected a private key in PEM"),
            (b"\xff" * 10, "expected a private key in PEM"),
            (lockedKey(), "expected a private key without a passphrase"),
        ):
            self.write("key.pem", pem)
            self.assertWrong(configFiles.check, AT_LISTENER + key + why)
        (self.folder / "key.pem").unlink()
        self.assertWrong(configFiles.check, AT_LISTENER + key + gone)

    def test_domainCertificates(self) -> None:
        """
        Certificates of domains are checked too, also without a TLS listener, and used
        by listeners with TLS (RFC 6066 3).
        """
        domain = '[Domains."example.org"]\nCertificateFile = "d/cert.pem"\n'
        domain += 'KeyFile = "d/key.pem"\n'
        at = '[Domains.example.org] CertificateFile = "d/cert.pem": '
        gone = "cannot be used: No such file or directory"
        self.assertWrong(writeConfig(self.folder, domain).check, at + gone)
        writeCertificate(self.folder / "d", "example.org")
        writeCertificate(self.folder, "mx.example")
        configFiles = writeConfig(self.folder, LISTENER + domain)
        given: list[tuple[object, ...]] = []
        with patch.object(
            module, "ReloadingContext", lambda *those: given.append(those)
        ):
            configFiles.tls("a", configFiles.config.listeners["a"])
        own, theirs = (
            (folder / "cert.pem", folder / "key.pem")
            for folder in (self.folder, self.folder / "d")
        )
        self.assertEqual(given[-1], (*own, (theirs,), None))
        configFiles = writeConfig(self.folder, LISTENER)
        self.assertIsNotNone(configFiles.tls("a", configFiles.config.listeners["a"]))

    def test_roots(self) -> None:
        """
        Roots to trust: there, and at least one.
        """
        configFiles = writeConfig(self.folder, 'CAFile = "ca.pem"\n')
        at = 'CAFile = "ca.pem": '
        self.assertWrong(
            configFiles.check, at + "cannot be used: No such file or directory"
        )
        for content in (b"", b"nothing", b"\xff\x00"):
            self.write("ca.pem", content)
            error = self.assertRaises(InvalidConfig, configFiles.check)
            self.assertIn(f": {at}", str(error))
            self.assertNotIn("\n", str(error))
        self.write("ca.pem", root().pem)
        configFiles.check()

    def test_rootsPipe(self) -> None:
        """
        A named pipe as CAFile is refused: reading it could block for ever.
        """
        os.mkfifo(self.folder / "ca.pem")
        configFiles = writeConfig(self.folder, 'CAFile = "ca.pem"\n')
        at = 'CAFile = "ca.pem": '
        self.assertWrong(configFiles.check, at + "cannot be used: not a regular file")

    def test_passwords(self) -> None:
        """
        A smarthost's password is the first line of a file.
        """
        configFiles = writeConfig(self.folder, RELAY)
        gone = "cannot be used: No such file or directory"
        self.assertWrong(configFiles.check, AT_RELAY + gone)
        for content, why in [
            (b"\nx", "expected a password in the first line"),
            (b"\xff", "expected text in UTF-8"),
        ]:
            self.write("password", content)
            self.assertWrong(configFiles.check, AT_RELAY + why)
        self.write("password", b"s\xc3\xa9cret\r\nwhatever\n")
        configFiles.check()
        self.assertEqual(configFiles.password("relay"), "s\u00e9cret")

    def test_users(self) -> None:
        """
        A user's password must be the output of the command that makes it, and isn't
        printed.
        """
        configFiles = writeConfig(self.folder, '[Users]\nalice = "sesame"\n')
        expected = 'expected the output of "moxtls config password"'
        self.assertWrong(configFiles.check, f"[Users] alice: {expected}")

    def test_folders(self) -> None:
        """
        A data directory that can't be made.
        """
        self.write("file", b"")
        configFiles = writeConfig(self.folder, 'DataDirectory = "file/data"\n')
        why = 'DataDirectory = "file/data": cannot be used: Not a directory'
        self.assertWrong(configFiles.makeFolders, why)
        configFiles = writeConfig(self.folder)
        self.assertWrong(
            configFiles.secret,
            'DataDirectory = "data": secret cannot be used: No such file or directory',
        )

    def test_private(self) -> None:
        """
        Files that are made are readable by their owner only, and the secret is kept.
        """
        configFiles = writeConfig(self.folder)
        configFiles.makeFolders()
        secret = configFiles.secret()
        self.assertEqual(len(secret), 32)
        self.assertEqual(configFiles.secret(), secret)
        for path, mode in [
            (configFiles.data, 0o700),
            (configFiles.data / "secret", 0o600),
        ]:
            self.assertEqual(path.stat().st_mode & 0o777, mode)


class ResolverTests(ConfigFilesCase):
    """
    Tests for L{ConfigFiles.servers}.
    """

    def test_configured(self) -> None:
        """
        Servers of the configuration, and which of them are trusted.
        """
        configFiles = writeConfig(
            self.folder,
            "[Resolver]\n"
            'Servers = ["192.0.2.1", "192.0.2.2:5353"]\nTrusted = ["192.0.2.2:5353"]\n',
        )
        self.assertEqual(
            configFiles.servers(),
            (NameServer("192.0.2.1"), NameServer("192.0.2.2", 5353, trusted=True)),
        )

    def test_system(self) -> None:
        """
        Else those of the system, or one on this host.
        """
        configFiles = writeConfig(self.folder)
        for text, servers in [
            (b"nameserver 192.0.2.1\n", (NameServer("192.0.2.1"),)),
            (b"\xff\n", (NameServer("127.0.0.1"),)),
        ]:
            with patch.object(module, "RESOLV_CONF", self.write("conf", text)):
                self.assertEqual(configFiles.servers(), servers)
        with patch.object(module, "RESOLV_CONF", self.folder / "none"):
            self.assertEqual(configFiles.servers(), (NameServer("127.0.0.1"),))


class SubmitterTests(ConfigFilesCase):
    """
    Tests for L{ConfigFiles.submitter} (RFC 8460 3).
    """

    def test_found(self) -> None:
        """
        The DMARC submitter is a domain at or above the host name that can sign; if
        there is none, the reason.
        """
        self.write("s.pem", rsaKey(1024))
        configFiles = writeConfig(self.folder, SELECTOR)
        self.assertEqual(configFiles.submitter, Domain("example.org"))
        for text, why in [
            ("", "neither mail.example.org nor a parent of it is configured"),
            (
                '[Domains."example.org"]\nNoOutgoingTLSReports = true\n',
                "example.org is switched off",
            ),
            ('[Domains."example.org"]\n', "example.org has no DKIM selector"),
        ]:
            reason = writeConfig(self.folder, text).submitter
            assert isinstance(reason, NoSubmitter)
            self.assertIn(why, str(reason))


class DMARCSubmitterTests(ConfigFilesCase):
    """
    Tests for L{ConfigFiles.dmarcSubmitter} (RFC 9990 3.5.2).
    """

    def test_found(self) -> None:
        """
        The submitter domain is the configured one, or a domain at or above the host
        name, with a key that may sign any mail.
        """
        self.write("s.pem", rsaKey(1024))
        self.write("t.pem", rsaKey(1024))
        only = SELECTOR + 'Purpose = "tlsrpt"\n'
        both = only + SELECTOR.replace("Selectors.s", "Selectors.t")
        other = SELECTOR.replace("example.org", "example.com")
        off = '[Domains."example.org"]\nNoOutgoingDMARCReports = true\n'
        for text, expected in [
            (SELECTOR, "example.org"),
            (both, "example.org"),
            (other + '[Reporting.DMARC]\nDomain = "example.com"\n', "example.com"),
            (off.replace("DMARC", "TLS") + SELECTOR, "example.org"),
            (only, "has no DKIM selector"),
            (other, "is configured"),
            (off + SELECTOR, "is switched off"),
        ]:
            found = writeConfig(self.folder, text).dmarcSubmitter
            self.assertIn(expected, str(found), text)
            self.assertEqual(isinstance(found, NoSubmitter), " " in expected)
