"""
Describes the machine and the versions of libraries, and measures memory.
"""

from __future__ import annotations

import os
import platform
import resource
from pathlib import Path

import cryptography
import OpenSSL
import sqlalchemy
from OpenSSL import SSL

import twisted


def describe() -> str:
    """
    The machine, and the versions of libraries that matter.
    """
    load = ", ".join(f"{each:.2f}" for each in os.getloadavg())
    return (
        f"{os.cpu_count()} x {_processor()}; load before: {load}\n"
        f"Python {platform.python_version()}, Twisted {twisted.__version__}, "
        f"SQLAlchemy {sqlalchemy.__version__}\n"
        f"pyOpenSSL {OpenSSL.__version__}, "
        f"cryptography {cryptography.__version__}, "
        f"{SSL.SSLeay_version(SSL.SSLEAY_VERSION).decode('ascii')}"
    )


def memory() -> int:
    """
    Octets of memory in use by this process.
    """
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def peakMemory() -> int:
    """
    The largest memory of this process so far.
    """
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def forgetPeak() -> None:
    """
    Reset L{peakSince}.
    """
    Path("/proc/self/clear_refs").write_text("5")


def peakSince() -> int:
    """
    The largest memory since L{forgetPeak}.
    """
    (line,) = (
        each
        for each in Path("/proc/self/status").read_text().splitlines()
        if each.startswith("VmHWM:")
    )
    return int(line.split()[1]) * 1024


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
