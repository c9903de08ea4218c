"""
The folder of third-party samples, beside the checkout.
"""

from __future__ import annotations

from pathlib import Path
from unittest import SkipTest

ROOT = Path(__file__).parents[1].parent / "shared" / "corpus"


def corpus(*parts: str) -> Path:
    """
    @raise SkipTest: It isn't there.
    """
    path = ROOT.joinpath(*parts)
    if not path.exists():
        raise SkipTest(f"no {path}")
    return path
