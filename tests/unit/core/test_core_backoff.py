"""How long is waited: longer after each failure, never by anyone's leave for ever."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oracle.core.backoff import MOST_TOLD_SECONDS, backoff_seconds

jitters = st.floats(0, 1, exclude_max=True)


@given(st.integers(0, 10**6), jitters)
def test_a_wait_is_between_half_and_all_of_its_step(failures: int, jitter: float) -> None:
    step = min(60.0, 0.5 * 2.0 ** min(failures, 1_000))
    assert step / 2 <= backoff_seconds(failures, jitter) <= step


def test_a_wait_doubles_until_it_is_longest() -> None:
    assert [backoff_seconds(n, 0.0) for n in range(9)] == [0.25, 0.5, 1, 2, 4, 8, 16, 30, 30]
    assert backoff_seconds(3, 0.5, first=0.1, most=10.0) == pytest.approx(0.6)
    assert backoff_seconds(30, 0.0, first=1e-9, most=1e9) == 2.0**29 * 1e-9
    assert backoff_seconds(31, 0.0, first=1e-9, most=1e9) == 2.0**29 * 1e-9


@given(st.integers(0, 100), jitters, st.floats(0, MOST_TOLD_SECONDS))
def test_what_the_other_side_asks_for_is_not_undercut(failures: int, jitter: float, told: float) -> None:
    wait = backoff_seconds(failures, jitter, told=told)
    assert wait == max(told, backoff_seconds(failures, jitter))


@given(st.integers(0, 100), jitters, st.floats())
def test_nobody_makes_us_wait_for_longer_than_an_hour(failures: int, jitter: float, told: float) -> None:
    wait = backoff_seconds(failures, jitter, told=told)
    assert math.isfinite(wait)
    assert backoff_seconds(failures, jitter) <= wait <= 3_600
