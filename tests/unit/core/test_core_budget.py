"""What a day may cost: to the lamport, to the millisecond, and told so that one knows which number to raise."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oracle.core.budget import DAY_MS, Budget, Scope, day_began_ms, refuse, seconds_left_of_day
from oracle.core.errors import OracleError, Verdict

NOON = 20_000 * DAY_MS + DAY_MS // 2
amounts = st.integers(0, 10_000)


def refusal(budget: Budget, spent_lamports: int, asked_lamports: int, now_ms: int = NOON) -> OracleError | None:
    try:
        refuse(budget, spent_lamports, asked_lamports, now_ms)
    except OracleError as error:
        return error
    return None


def test_a_day_begins_at_midnight_utc() -> None:
    assert day_began_ms(0) == 0
    assert day_began_ms(DAY_MS - 1) == 0
    assert day_began_ms(DAY_MS) == DAY_MS
    assert day_began_ms(NOON) == NOON - 12 * 3_600_000


def test_what_is_left_of_a_day_is_told_in_seconds() -> None:
    assert seconds_left_of_day(0) == 86_400.0
    assert seconds_left_of_day(NOON + 1_500) == 43_198.5
    assert seconds_left_of_day(DAY_MS - 1) == 0.001


@given(st.integers(0, 2**43))
def test_the_day_turns_when_nothing_is_left_of_it_and_not_before(now_ms: int) -> None:
    turn = now_ms + round(seconds_left_of_day(now_ms) * 1_000)
    assert day_began_ms(turn) == turn == day_began_ms(turn - 1) + DAY_MS
    assert day_began_ms(turn - 1) == day_began_ms(now_ms) <= now_ms < turn


@given(amounts, amounts, amounts)
def test_a_budget_is_never_passed_and_refuses_nothing_that_fits(limit: int, spent: int, asked: int) -> None:
    error = refusal(Budget(Scope.DAY, limit_lamports=limit), spent, asked)
    if spent + asked <= limit:
        assert error is None
    else:
        assert error is not None
        assert error.code == ("ORC-POLICY-022" if asked > limit else "ORC-POLICY-018")


def test_a_budget_without_a_limit_refuses_nothing() -> None:
    assert refusal(Budget(Scope.REQUESTER, "somebody"), 2**62, 2**62) is None


def test_a_job_that_waits_for_room_is_tried_again_in_ten_minutes_or_when_the_day_turns() -> None:
    budget = Budget(Scope.PROVIDER, "nosana", 100)
    for now_ms, wait in ((NOON, 600.0), (DAY_MS - 600_000, 600.0), (DAY_MS - 599_999, 599.999), (DAY_MS - 1, 0.001)):
        error = refusal(budget, 70, 31, now_ms)
        assert error is not None
        assert (error.verdict, error.retry_after_seconds) == (Verdict.RETRY, wait)


def test_a_job_above_the_whole_budget_does_not_wait() -> None:
    error = refusal(Budget(Scope.DAY, limit_lamports=100), 0, 101)
    assert error is not None
    assert (error.verdict, error.retry_after_seconds) == (Verdict.GIVE_UP, None)


@pytest.mark.parametrize(
    ("budget", "asked", "detail"),
    [
        (Budget(Scope.DAY, "", 100), 31, "day: 70 lamports spent, 31 asked, 100 allowed"),
        (Budget(Scope.PROVIDER, "ionet", 100), 100, "provider ionet: 70 lamports spent, 100 asked, 100 allowed"),
        (Budget(Scope.REQUESTER, "5xyz", 100), 101, "101 lamports asked, requester 5xyz allows 100 a day"),
    ],
)
def test_a_refusal_names_the_budget_and_its_amounts(budget: Budget, asked: int, detail: str) -> None:
    error = refusal(budget, 70, asked)
    assert error is not None
    assert error.detail == detail
