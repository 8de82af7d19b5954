"""Which endpoint a call goes to, in cases nobody thought of, and what each answer leaves behind, to the letter."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oracle.core import endpoints
from oracle.core.endpoints import Endpoint, Health

NOW = 1000.0

slots = st.integers(0, 400)
some_endpoint = st.builds(
    Endpoint,
    name=st.just("node"),
    genesis_matches=st.sampled_from([True, True, False, None]),
    slot=slots,
    latency_seconds=st.one_of(st.none(), st.floats(0.0, 10.0)),
    failures=st.integers(0, 3),
    refusals=st.integers(0, 3),
    resume_at=st.sampled_from([0.0, NOW, NOW + 1]),
    contradictions=st.just(0),
)
some_endpoints = st.lists(some_endpoint, max_size=6)


def alive(slot: int) -> Endpoint:
    return Endpoint("node", genesis_matches=True, slot=slot)


@given(some_endpoints, slots)
def test_no_read_goes_to_another_cluster_to_a_pausing_endpoint_or_behind_its_slot(
    known: list[Endpoint], slot: int
) -> None:
    for position in endpoints.for_reading(known, now=NOW, min_context_slot=slot):
        assert known[position].genesis_matches is not False
        assert known[position].resume_at <= NOW
        assert known[position].slot >= slot


@given(some_endpoints)
def test_every_endpoint_that_may_be_read_is_offered_once(known: list[Endpoint]) -> None:
    offered = endpoints.for_reading(known, now=NOW)
    usable = [i for i, e in enumerate(known) if e.genesis_matches is not False and e.resume_at <= NOW]
    assert sorted(offered) == usable
    assert sorted(offered) == endpoints.for_sending(known, now=NOW)


@given(some_endpoints)
def test_a_lagging_endpoint_is_read_only_after_all_others(known: list[Endpoint]) -> None:
    tip = endpoints.tip_slot(known)
    order = [
        endpoints.health(known[i], now=NOW, tip_slot=tip) is Health.LAGGING
        for i in endpoints.for_reading(known, now=NOW)
    ]
    assert order == sorted(order)


@given(st.lists(st.integers(1000, 1000 + endpoints.MAX_LAG_SLOTS), min_size=2, max_size=5), st.integers(2000, 2**62))
def test_one_endpoint_that_invents_a_slot_does_not_make_honest_ones_lag(honest: list[int], invented: int) -> None:
    known = [alive(invented), *map(alive, honest)]
    tip = endpoints.tip_slot(known)
    assert tip == max(honest)
    assert all(endpoints.health(e, now=NOW, tip_slot=tip) is Health.ALIVE for e in known[1:])


@given(some_endpoint, st.floats(0.0, 1.0, exclude_max=True), st.one_of(st.none(), st.floats(0.0, 300.0)))
def test_a_pause_that_was_asked_for_is_never_cut_short(endpoint: Endpoint, jitter: float, told: float | None) -> None:
    limited = endpoints.limited(endpoint, now=NOW, jitter=jitter, told_seconds=told)
    for after in (
        limited,
        endpoints.answered(limited, slot=10),
        endpoints.failed(limited, now=NOW, jitter=jitter),
        endpoints.limited(limited, now=NOW, jitter=jitter),
    ):
        assert after.resume_at >= max(endpoint.resume_at, NOW + (told or 0.0))


@given(some_endpoint)
def test_an_endpoint_that_failed_must_say_again_which_cluster_it_serves(endpoint: Endpoint) -> None:
    after = endpoints.failed(endpoint, now=NOW, jitter=0.0)
    assert after.genesis_matches is not True
    assert (after.genesis_matches is False) == (endpoint.genesis_matches is False)


@given(some_endpoint, slots)
def test_an_answer_never_takes_a_slot_back_but_a_measurement_corrects_it(endpoint: Endpoint, slot: int) -> None:
    assert endpoints.answered(endpoint, slot=slot).slot == max(endpoint.slot, slot)
    assert endpoints.measured(endpoint, slot=slot, seconds=0.1).slot == slot


def test_latencies_within_a_factor_of_two_keep_the_order_of_the_configuration() -> None:
    known = [replace(alive(10), latency_seconds=seconds) for seconds in (0.120, 0.070, 0.300)]
    assert endpoints.for_reading(known, now=NOW) == [0, 1, 2]


def test_nothing_is_known_of_no_endpoint() -> None:
    assert endpoints.tip_slot([]) == 0
    assert endpoints.for_reading([], now=NOW) == []
    assert endpoints.next_resume_at([]) is None


TROUBLED = Endpoint("node", True, slot=100, failures=3, refusals=2, resume_at=NOW + 9, contradictions=4)


def test_an_answer_ends_the_failures_in_a_row_and_nothing_else() -> None:
    assert endpoints.answered(TROUBLED) == replace(TROUBLED, failures=0)
    assert endpoints.answered(TROUBLED, slot=101) == replace(TROUBLED, failures=0, slot=101)
    assert endpoints.answered(Endpoint("node")) == Endpoint("node")


def test_a_measurement_ends_failures_and_refusals_and_moves_the_latency_by_three_tenths() -> None:
    first = endpoints.measured(TROUBLED, slot=90, seconds=1.0)
    assert first == replace(TROUBLED, failures=0, refusals=0, slot=90, latency_seconds=1.0)
    assert endpoints.measured(first, slot=90, seconds=3.0).latency_seconds == pytest.approx(1.6)


@pytest.mark.parametrize(
    ("failures", "jitter", "wait"), [(0, 0.0, 0.125), (0, 1.0, 0.25), (1, 1.0, 0.5), (6, 1.0, 16.0), (99, 1.0, 30.0)]
)
def test_a_failure_pauses_for_a_quarter_of_a_second_doubled_up_to_half_a_minute(
    failures: int, jitter: float, wait: float
) -> None:
    known = Endpoint("node", genesis_matches=True, slot=7, latency_seconds=0.1, failures=failures)
    after = endpoints.failed(known, now=NOW, jitter=jitter)
    assert after == replace(known, genesis_matches=None, failures=failures + 1, resume_at=NOW + wait)


@pytest.mark.parametrize(
    ("refusals", "jitter", "told", "wait"),
    [
        (0, 0.0, None, 0.5),
        (0, 1.0, None, 1.0),
        (1, 1.0, None, 2.0),
        (99, 1.0, None, 60.0),
        (0, 1.0, 17.0, 17.0),
        (3, 1.0, 2.0, 8.0),
    ],
)
def test_a_refusal_pauses_for_a_second_doubled_up_to_a_minute_or_as_long_as_it_says(
    refusals: int, jitter: float, told: float | None, wait: float
) -> None:
    known = Endpoint("node", genesis_matches=True, slot=7, latency_seconds=0.1, failures=1, refusals=refusals)
    after = endpoints.limited(known, now=NOW, jitter=jitter, told_seconds=told)
    assert after == replace(known, refusals=refusals + 1, resume_at=NOW + wait)


def test_what_it_says_of_its_cluster_replaces_what_it_said_before() -> None:
    for matches in (True, False, None):
        assert endpoints.verified(TROUBLED, matches=matches) == replace(TROUBLED, genesis_matches=matches)


def test_a_contradiction_is_counted() -> None:
    assert endpoints.contradicted(TROUBLED) == replace(TROUBLED, contradictions=5)


@pytest.mark.parametrize(
    ("changes", "health"),
    [
        ({}, Health.ALIVE),
        ({"slot": 160}, Health.ALIVE),
        ({"slot": 159}, Health.LAGGING),
        ({"slot": 999}, Health.ALIVE),
        ({"genesis_matches": None}, Health.UNVERIFIED),
        ({"genesis_matches": None, "slot": 0}, Health.UNVERIFIED),
        ({"genesis_matches": False}, Health.WRONG_GENESIS),
        ({"genesis_matches": False, "resume_at": NOW + 1, "failures": 1}, Health.WRONG_GENESIS),
        ({"resume_at": NOW, "failures": 1}, Health.ALIVE),
        ({"resume_at": NOW + 0.01, "failures": 1, "refusals": 1}, Health.UNREACHABLE),
        ({"resume_at": NOW + 0.01, "refusals": 1}, Health.RATE_LIMITED),
        ({"resume_at": NOW + 0.01, "genesis_matches": None}, Health.RATE_LIMITED),
    ],
)
def test_every_state_of_an_endpoint_has_its_name(changes: dict[str, object], health: Health) -> None:
    endpoint = replace(alive(200), **changes)  # type: ignore[arg-type]
    assert endpoints.health(endpoint, now=NOW, tip_slot=200) is health


def test_the_lag_that_is_forgiven_can_be_set() -> None:
    assert endpoints.health(alive(95), now=NOW, tip_slot=100, max_lag_slots=4) is Health.LAGGING
    assert endpoints.health(alive(95), now=NOW, tip_slot=100, max_lag_slots=5) is Health.ALIVE
    known = [alive(100), alive(94), alive(90)]
    assert endpoints.tip_slot(known, max_lag_slots=4) == 94
    assert endpoints.tip_slot(known, max_lag_slots=6) == 100


def test_the_newest_slot_counts_where_nobody_confirms_another_and_only_of_our_cluster() -> None:
    assert endpoints.tip_slot([alive(100), alive(900), alive(500)]) == 900
    assert endpoints.tip_slot([alive(100)]) == 100
    assert endpoints.tip_slot([alive(7), replace(alive(9), genesis_matches=None)]) == 7
    assert endpoints.tip_slot([alive(7), replace(alive(9), genesis_matches=False)]) == 7
    assert endpoints.tip_slot([alive(100), alive(100 - endpoints.MAX_LAG_SLOTS)]) == 100


def test_the_quick_are_read_before_the_slow_and_both_before_what_is_unverified_or_lags() -> None:
    def quick(endpoint: Endpoint) -> Endpoint:
        return replace(endpoint, latency_seconds=0.001)

    known = [
        quick(alive(10)),  # lags
        quick(replace(alive(200), genesis_matches=None)),
        alive(200),  # of unknown latency
        replace(alive(200), latency_seconds=5.0),
        quick(alive(200)),
        quick(replace(alive(200), genesis_matches=False)),
        quick(replace(alive(200), resume_at=NOW + 1)),
    ]
    assert endpoints.for_reading(known, now=NOW) == [4, 3, 2, 1, 0]
    assert endpoints.for_reading(known, now=NOW, min_context_slot=11) == [4, 3, 2, 1]
    assert endpoints.for_reading(known, now=NOW, min_context_slot=201) == []
    assert endpoints.for_reading(known, now=NOW + 1, min_context_slot=200) == [4, 6, 3, 2, 1]
    assert endpoints.for_sending(known, now=NOW) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("seconds", "class_"),
    [(None, 64), (0.0, 0), (-1.0, 0), (0.0009, 0), (0.001, 1), (0.002, 2), (0.0039, 2), (0.004, 3), (1.023, 10)],
)
def test_a_latency_class_is_the_power_of_two_above_its_milliseconds(seconds: float | None, class_: int) -> None:
    assert endpoints._latency_class(replace(alive(1), latency_seconds=seconds)) == class_


def test_the_next_try_is_that_of_the_first_endpoint_of_our_cluster() -> None:
    known = [
        replace(alive(1), resume_at=NOW + 5),
        replace(alive(1), resume_at=NOW + 3, genesis_matches=None),
        replace(alive(1), resume_at=NOW + 1, genesis_matches=False),
    ]
    assert endpoints.next_resume_at(known) == NOW + 3
    assert endpoints.next_resume_at(known[2:]) is None
