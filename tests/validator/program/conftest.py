"""Runs the tests of the program on Surfpool, whose clock stands still but for them."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from oracle.testing.surfpool import SurfpoolUnavailable, running_surfpool

sys.path.insert(0, str(Path(__file__).parents[2] / "unit" / "program"))

from surfpool_world import SurfpoolWorld


@pytest.fixture(scope="package")
def world() -> Iterator[SurfpoolWorld]:
    """On a Surfpool of its own, not the session's: these tests pause its clock and travel in time."""
    try:
        with running_surfpool() as surfpool:
            yield SurfpoolWorld.on(surfpool)
    except SurfpoolUnavailable as reason:
        pytest.skip(f"no Surfpool: {reason}")
