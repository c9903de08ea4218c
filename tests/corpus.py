"""
The folder of third-party samples, beside the checkout.
"""

from __future__ import annotations

from pathlib import Path
from unittest import SkipTest

ROOT = Path(__file__).parents[1].parent / "shared"


def corpus(*parts: str) -> Path:
    """
    A sample of a public project.

    @raise SkipTest: It isn't there.
    """
    return _existing("corpus", *parts)


def cases(*parts: str) -> Path:
    """
    A sample of something that was once wrong.

    @raise SkipTest: It isn't there.
    """
    return _existing("cases", *parts)


def _existing(*parts: str) -> Path:
    path = ROOT.joinpath(*parts)
    if not path.exists():
        raise SkipTest(f"no {path}")
    return path
