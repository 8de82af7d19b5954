"""How long these tests run, and from which seed: `make test` takes seconds, `make test-all` ten minutes each."""

from __future__ import annotations

import os
import random
import secrets
import sys

import pytest

IS_LONG = os.environ.get("ORACLE_TEST_LENGTH") == "long"


def seconds(short: float) -> float:
    """`ORACLE_CHAOS_SECONDS`, else ten minutes where the run is long."""
    told = os.environ.get("ORACLE_CHAOS_SECONDS")
    return float(told) if told else 600.0 if IS_LONG else short


def chance() -> tuple[int, random.Random]:
    """A seed, `ORACLE_CHAOS_SEED` or a new one, and what follows from it."""
    seed = int(os.environ.get("ORACLE_CHAOS_SEED") or secrets.randbelow(2**32))
    return seed, random.Random(seed)


def say(capsys: pytest.CaptureFixture[str], text: str) -> None:
    """Show a figure or a seed beside the test's own dot, whether it passes or not."""
    with capsys.disabled():
        sys.stdout.write(f" {text} ")
        sys.stdout.flush()
