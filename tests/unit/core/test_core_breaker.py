"""A circuit breaker opens for who fails again and again, and for nobody else."""

from __future__ import annotations

from typing import Any

import hypothesis.strategies as st
from hypothesis import given

from oracle.core.breaker import Breaker, BreakerTerms, Phase

TERMS = BreakerTerms(failures_in_a_row=3, window=8, failure_share=0.5, open_seconds=10.0, longest_open_seconds=40.0)


def opened(at: float = 0.0) -> Breaker:
    breaker = Breaker(TERMS)
    for whose in range(3):
        breaker.failed(at, whose)
    return breaker


def test_failures_of_different_requests_in_a_row_open_it() -> None:
    breaker = Breaker(TERMS)
    assert [breaker.failed(0.0, whose) for whose in "abc"] == [False, False, True]
    assert (breaker.allows(9.9), breaker.allows(10.0), breaker.seconds_left(4.0)) == (False, True, 6.0)


@given(st.lists(st.sampled_from("ab"), max_size=200))
def test_fewer_requests_than_it_takes_never_open_it_however_often_they_fail(whose: list[str]) -> None:
    breaker = Breaker(TERMS)
    assert not any(breaker.failed(0.0, each) for each in whose)


def test_a_success_between_them_ends_a_row_but_half_of_many_failing_opens_it_all_the_same() -> None:
    breaker = Breaker(TERMS)
    outcomes = []
    for number in range(4):
        breaker.succeeded()
        outcomes.append(breaker.failed(0.0, number))
    assert outcomes == [False, False, False, True]


def test_one_probe_at_a_time_and_its_success_closes_it() -> None:
    breaker = opened()
    assert [breaker.begin(5.0), breaker.begin(10.0), breaker.begin(10.0)] == [False, True, False]
    assert breaker.phase is Phase.HALF_OPEN
    assert breaker.succeeded()
    assert all(breaker.begin(10.0) for _ in range(10))


def test_a_probe_that_fails_opens_it_for_twice_as_long_up_to_a_bound() -> None:
    breaker, now, waits = opened(), 0.0, []
    for _ in range(4):
        waits.append(breaker.seconds_left(now))
        now += waits[-1]
        assert breaker.begin(now)
        assert breaker.failed(now, "probe")
    assert waits == [10.0, 20.0, 40.0, 40.0]


def test_a_probe_that_is_never_heard_of_again_keeps_nobody_out_for_ever() -> None:
    breaker = opened()
    assert breaker.begin(10.0)
    assert [breaker.begin(19.9), breaker.begin(20.0)] == [False, True]


def test_the_end_of_a_call_that_began_before_it_opened_changes_nothing() -> None:
    breaker = opened()
    assert not breaker.succeeded()
    assert not breaker.failed(1.0, "late")
    assert breaker.seconds_left(1.0) == 9.0


def test_a_trip_opens_it_at_once_and_again_after_a_probe_for_longer() -> None:
    breaker = Breaker(TERMS)
    assert (breaker.trip(0.0), breaker.trip(1.0)) == (True, False)
    assert breaker.begin(10.0)
    assert breaker.trip(10.0)
    assert breaker.seconds_left(10.0) == 20.0


def test_trips_after_probes_pause_for_twice_as_long_up_to_the_same_bound() -> None:
    breaker, now, waits = Breaker(TERMS), 0.0, []
    for _ in range(4):
        assert breaker.trip(now)
        waits.append(breaker.seconds_left(now))
        now += waits[-1]
        assert breaker.begin(now)
    assert waits == [10.0, 20.0, 40.0, 40.0]


def test_one_that_has_closed_knows_nothing_of_its_past_but_how_often_it_has_opened() -> None:
    breaker = opened()
    assert breaker.begin(10.0)
    assert breaker.succeeded()
    assert (breaker.phase, breaker.seconds_left(0.0), breaker.allows(0.0), breaker.opened) == (
        Phase.CLOSED,
        0.0,
        True,
        1,
    )
    assert [breaker.failed(11.0, whose) for whose in "abc"] == [False, False, True]
    assert (breaker.seconds_left(11.0), breaker.opened) == (10.0, 2)


def test_a_row_ends_with_a_success_and_a_request_that_fails_again_counts_once_in_it() -> None:
    breaker = Breaker(TERMS)
    assert [breaker.failed(0.0, whose) for whose in "abab"] == [False] * 4
    assert not breaker.succeeded()
    assert [breaker.failed(0.0, whose) for whose in "aabbc"] == [False, False, False, False, True]


def fed(outcomes: str) -> list[bool]:
    """Whether each failure (of another request each) has opened a breaker that minds only the share."""
    breaker = Breaker(BreakerTerms(failures_in_a_row=99, window=8, failure_share=0.5))
    opens = []
    for number, outcome in enumerate(outcomes):
        if outcome == "+":
            breaker.succeeded()
        else:
            opens.append(breaker.failed(0.0, number))
    return opens


def test_a_share_of_failures_counts_from_a_whole_window_on_and_only_within_it() -> None:
    assert fed("-------") == [False] * 7
    assert fed("--------") == [False] * 7 + [True]
    assert fed("-+-+-+-") == [False] * 4
    assert fed("+-+-+-+-") == [False] * 3 + [True]
    assert fed("++++++++---") == [False] * 3
    assert fed("++++++++----") == [False] * 3 + [True]
    assert fed("---+++++" + "-") == [False] * 4
    assert fed("---+++++" + "++-") == [False] * 4
    assert fed("---+++++" + "+++---") == [False] * 6
    assert fed("+++++---" + "-") == [False] * 3 + [True]


def test_what_opened_it_does_not_open_it_again() -> None:
    breaker = Breaker(BreakerTerms(failures_in_a_row=99, window=4, failure_share=0.5, open_seconds=1.0))
    assert [breaker.failed(0.0, number) for number in range(4)] == [False, False, False, True]
    assert breaker.begin(1.0)
    assert breaker.succeeded()
    assert [breaker.failed(1.0, number) for number in range(4)] == [False, False, False, True]


def test_half_the_last_twenty_or_five_in_a_row_open_it_for_half_a_minute_up_to_ten() -> None:
    assert BreakerTerms() == BreakerTerms(5, 20, 0.5, 30.0, 600.0)
    assert Breaker() == Breaker(BreakerTerms(), Phase.CLOSED, 0)


EVENTS = st.one_of(
    st.tuples(st.just("time"), st.floats(0.0, 60.0)),
    st.tuples(st.just("begin"), st.none()),
    st.tuples(st.just("failed"), st.integers(0, 4)),
    st.tuples(st.just("succeeded"), st.none()),
    st.tuples(st.just("trip"), st.none()),
)


@given(st.lists(EVENTS, max_size=60))
def test_whatever_happens_nobody_is_kept_out_for_ever_and_one_probe_comes_at_a_time(events: list[Any]) -> None:
    breaker, now = Breaker(TERMS), 0.0
    for event, value in events:
        was, left = breaker.phase, breaker.seconds_left(now)
        match event:
            case "time":
                now += value
            case "begin":
                allowed = breaker.allows(now)
                assert breaker.begin(now) == allowed == (left == 0.0)
                assert was is Phase.CLOSED or not breaker.begin(now)
            case "failed" | "trip":
                opens = breaker.failed(now, value) if event == "failed" else breaker.trip(now)
                assert opens == (was is not Phase.OPEN and breaker.phase is Phase.OPEN)
                assert opens or was is not Phase.OPEN or breaker.seconds_left(now) == left
                # A moment plus a pause less the moment is a hair less than the pause.
                assert not opens or TERMS.open_seconds <= breaker.seconds_left(now) + 1e-6
            case "succeeded":
                assert breaker.succeeded() == (was is Phase.HALF_OPEN)
                assert (breaker.phase is Phase.OPEN) == (was is Phase.OPEN)
        assert 0.0 <= breaker.seconds_left(now) <= TERMS.longest_open_seconds + 1e-6
        assert breaker.allows(now + breaker.seconds_left(now) + 1e-6)
