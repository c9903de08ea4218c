"""
Tests for L{moxtls.dns.probed}.
"""

from __future__ import annotations

from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.task import Clock
from twisted.logger import LogLevel, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from moxtls.dns.answers import SOA_KIND, Answer, Found, Kind
from moxtls.dns.exchange import NoReply
from moxtls.dns.probed import PROBE_EVERY, ProbedResolver
from moxtls.dns.resolver import Resolver
from moxtls.dns.system import Server
from moxtls.dns.wire import Question
from moxtls.interfaces import IResolver
