"""Runs the tests of the program on Surfpool, whose clock stands still but for them.

A transaction takes Surfpool tens of milliseconds of processor time, LiteSVM one. So `make test` runs every test here,
with one in four of its cases; `make test-all` runs every case. In LiteSVM (`tests/unit/program`) both run every case.
"""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from oracle.testing.surfpool import SurfpoolUnavailable, running_surfpool

sys.path.insert(0, str(Path(__file__).parents[2] / "unit" / "program"))

from surfpool_world import SurfpoolWorld

IS_LONG = os.environ.get("ORACLE_TEST_LENGTH") == "long"
ONE_IN = 4
HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: Sequence[pytest.Item]) -> None:
    cases: Counter[str] = Counter()
    for item in items:
        if IS_LONG or item.path.parent != HERE:
            continue
        test, _, _ = item.nodeid.partition("[")
        if cases[test] % ONE_IN:
            item.add_marker(pytest.mark.skip(reason="one case in four on Surfpool; all of them: `make test-all`"))
        cases[test] += 1


@pytest.fixture(scope="package")
def world() -> Iterator[SurfpoolWorld]:
    """On a Surfpool of its own, not the session's: these tests pause its clock and travel in time."""
    try:
        with running_surfpool() as surfpool:
            yield SurfpoolWorld.on(surfpool)
    except SurfpoolUnavailable as reason:
        pytest.skip(f"no Surfpool: {reason}")
