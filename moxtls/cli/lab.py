# -*- test-case-name: tests.cli.test_lab -*-
"""
C{moxtls lab}: a small internet on loopback, to see moxtls at work.
"""

from __future__ import annotations

from typing import Any


def add(commands: Any) -> None:
    commands.add_parser("lab", help="a small internet on loopback")
