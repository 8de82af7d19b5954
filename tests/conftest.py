"""What every test may ask for."""

import os
from collections.abc import Iterator

import pytest

from oracle.testing.surfpool import Surfpool, SurfpoolUnavailable, running_surfpool

# A worker of pytest-xdist is told 80 columns, and commands would fold what they print into a pipe.
os.environ.pop("COLUMNS", None)


@pytest.fixture(scope="session")
def surfpool() -> Iterator[Surfpool]:
    """One Surfpool for the whole session, with 100 ms slots; whoever asks for it is skipped where there is none."""
    try:
        with running_surfpool(slot_milliseconds=100) as running:
            yield running
    except SurfpoolUnavailable as reason:
        pytest.skip(f"no Surfpool: {reason}")
