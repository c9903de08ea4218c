"""
Configurations with the files that they name, and components built from them.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from moxtls.app.build import Components, IReactor
from moxtls.app.configfiles import ConfigFiles
from moxtls.ledger.ledger import Ledger
from tests.queue.killing import quickDirectory

HOSTNAME = "mail.example.org"


class ThreadCallReactor(MemoryReactorClock):
    """
    A reactor in memory that accepts calls from threads.
    """

    def callFromThread(
        self, callable: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> None:
        callable(*args, **kwargs)


def writeConfig(folder: Path, text: str = "") -> ConfigFiles:
    """
    @param text: The configuration after the host name.
    """
    file = folder / "moxtls.toml"
    file.write_text(f'Hostname = "{HOSTNAME}"\n{text}')
    return ConfigFiles.read(file)


def makeComponents(case: SynchronousTestCase, text: str) -> Components:
    """
    The components of a server with a reactor in memory, until the test ends.

    @param text: The configuration after the host name.
    """
    configFiles = writeConfig(quickDirectory(case), text)
    configFiles.makeFolders()
    ledger = Ledger(None, configFiles.ledgerURL)
    case.addCleanup(ledger.stop)
    reactor: IReactor = ThreadCallReactor()  # type: ignore[assignment]
    return Components(reactor, configFiles, ledger, reactor)


def ed25519Key() -> bytes:
    """
    A private key in PEM.
    """
    return Ed25519PrivateKey.generate().private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
    )


def lockedKey() -> bytes:
    """
    A private key in PEM, with a passphrase.
    """
    return Ed25519PrivateKey.generate().private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"sesame")
    )


def rsaKey(bits: int) -> bytes:
    """
    A private key in PEM.
    """
    return generate_private_key(65537, bits).private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
    )
