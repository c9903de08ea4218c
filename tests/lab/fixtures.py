"""
Fixtures for tests of the lab's servers.
"""

from __future__ import annotations

import random
from pathlib import Path

from OpenSSL import SSL
from twisted.internet import reactor
from twisted.internet.ssl import Certificate as TLSCertificate
from twisted.internet.ssl import CertificateOptions, trustRootFromCertificates
from twisted.trial.unittest import TestCase

from moxtls.lab.arrivals import Arrivals
from moxtls.lab.keys import LabCA
from moxtls.lab.plan import anyNetwork
from tests import MAX_WAIT


class LabTestCase(TestCase):
    """
    A network for itself, on which servers can listen.
    """

    timeout = MAX_WAIT

    def setUp(self) -> None:
        self.network = anyNetwork(random.randint)
        self.arrivals = Arrivals(Path(self.mktemp()))
        self.ca = LabCA.make("lab", reactor.seconds())


def trusting(ca: LabCA) -> SSL.Context:
    """
    A client context for which C{ca} is the only authority.
    """
    root = TLSCertificate.loadPEM(ca.identity.certificatePEM())
    options = CertificateOptions(trustRoot=trustRootFromCertificates([root]))
    context: SSL.Context = options.getContext()
    return context
