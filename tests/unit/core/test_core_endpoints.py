"""Which endpoint a call goes to, in cases nobody thought of."""

from __future__ import annotations

from dataclasses import replace

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
