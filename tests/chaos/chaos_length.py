"""How long these tests run, and from which seed: `make test` takes seconds, `make test-all` ten minutes."""

from __future__ import annotations

import os
import random
import secrets
from collections.abc import Callable

import pytest

IS_LONG = os.environ.get("ORACLE_TEST_LENGTH") == "long"

Say = Callable[[str], None]
"""The fixture `say`: a figure or a seed for the summary."""

LONG_RUNS = 3
"""Storms and random kills are several in a long run, each from a seed of its own: one is one history of many."""


def seconds(short: float, *, share: int = 1) -> float:
    """`ORACLE_CHAOS_SECONDS`, else ten minutes where the run is long, or that share of them."""
    told = os.environ.get("ORACLE_CHAOS_SECONDS")
    return float(told) if told else 600.0 / share if IS_LONG else short


def seeds(count: int) -> list[int]:
    """`ORACLE_CHAOS_SEED`, or so many new ones."""
    told = os.environ.get("ORACLE_CHAOS_SEED")
    return [int(told)] if told else [secrets.randbelow(2**32) for _ in range(count)]


def chance() -> tuple[int, random.Random]:
    """A seed, and what follows from it."""
    (seed,) = seeds(1)
    return seed, random.Random(seed)


def of_several_seeds() -> pytest.MarkDecorator:
    """Gives a test its `seed`. Its name must not tell it: where tests are shared out, each process draws its own."""
    drawn = seeds(LONG_RUNS if IS_LONG else 1)
    return pytest.mark.parametrize("seed", drawn, ids=[f"{n} of {len(drawn)}" for n in range(1, len(drawn) + 1)])
