"""Law 2 as logic: every observation that there can be, and what may follow from it."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oracle.core import settlement
from oracle.core.settlement import DEAD, Attempted, Next, Observed, SignatureState, judge, may_sign_again

LAST_VALID = 1_000
SIGNED_SLOT = 1_500

ATTEMPTED = [Attempted(state, LAST_VALID, SIGNED_SLOT) for state in SignatureState]
OBSERVED = [
    Observed(*values)
    for values in itertools.product(
        (None, "processed", "confirmed", "finalized", "recent", ""),
        (False, True),
        (None, 0, LAST_VALID - 1, LAST_VALID, LAST_VALID + 1, 2**62),
        (None, 0, SIGNED_SLOT - 1, SIGNED_SLOT, SIGNED_SLOT + 1, 2**62),
        (False, True),
    )
]
CASES = list(itertools.product(ATTEMPTED, OBSERVED))
FREEING = {Next.FAILED, Next.EXPIRED, Next.OUTLIVED}

heights = st.integers(0, 2**63)
observations = st.builds(
    Observed,
    commitment=st.sampled_from([None, "processed", "confirmed", "finalized", "something"]),
    failed=st.booleans(),
    finalized_height=st.none() | heights,
    first_available_slot=st.none() | heights,
    searched_history=st.booleans(),
)
attempts = st.builds(Attempted, st.sampled_from(SignatureState), heights, heights)


def test_a_signature_that_may_still_land_is_never_replaced() -> None:
    """Every observation (5,184): members are freed by a finalized error, or by absence past the last valid height."""
    for attempted, observed in CASES:
        if judge(attempted, observed) not in FREEING:
            continue
        is_finalized_error = observed.commitment == "finalized" and observed.failed
        cannot_land = (
            observed.commitment is None
            and observed.searched_history
            and observed.first_available_slot is not None
            and observed.finalized_height is not None
            and observed.finalized_height > LAST_VALID
        )
        assert is_finalized_error or cannot_land, (attempted, observed)


@given(attempts, observations)
def test_no_height_at_or_below_the_last_valid_one_proves_a_signature_dead(
    attempted: Attempted, observed: Observed
) -> None:
    if judge(attempted, observed) in (Next.EXPIRED, Next.OUTLIVED):
        assert observed.finalized_height is not None
        assert observed.finalized_height > attempted.last_valid_block_height


@given(attempts, observations)
def test_absence_is_proven_only_by_a_history_that_reaches_back_to_the_signature(
    attempted: Attempted, observed: Observed
) -> None:
    if observed.commitment is not None or not observed.searched_history:
        assert judge(attempted, observed) not in (Next.EXPIRED, Next.OUTLIVED)
    elif judge(attempted, observed) is Next.EXPIRED:
        assert observed.first_available_slot is not None
        assert observed.first_available_slot <= attempted.signed_slot
    elif judge(attempted, observed) is Next.OUTLIVED:
        assert observed.first_available_slot is not None
        assert observed.first_available_slot > attempted.signed_slot


def test_each_observation_leads_to_one_next_step() -> None:
    def after(
        commitment: str | None,
        failed: bool = False,
        height: int | None = LAST_VALID + 1,
        first: int | None = SIGNED_SLOT,
        searched: bool = True,
    ) -> Next:
        [one] = {judge(attempted, Observed(commitment, failed, height, first, searched)) for attempted in ATTEMPTED}
        return one

    assert after(None) is Next.EXPIRED
    assert after(None, first=SIGNED_SLOT + 1) is Next.OUTLIVED
    for unproven in (
        {"height": LAST_VALID},
        {"height": None},
        {"first": None},
        {"searched": False},
    ):
        assert after(None, **unproven) is Next.RESEND  # type: ignore[arg-type]
    assert after("processed") is Next.WAIT
    assert after("processed", failed=True) is Next.WAIT
    assert after("confirmed") is Next.SHOW
    assert after("confirmed", failed=True) is Next.WAIT
    assert after("finalized") is Next.DONE
    assert after("finalized", failed=True) is Next.FAILED
    assert after("a level that a newer node invents") is Next.WAIT


def test_success_is_final_only_when_it_is_finalized() -> None:
    for attempted, observed in CASES:
        if judge(attempted, observed) is Next.DONE:
            assert observed.commitment == "finalized"
            assert not observed.failed


@pytest.mark.parametrize("states", list(itertools.product(SignatureState, repeat=3)))
def test_only_the_dead_may_be_replaced(states: tuple[SignatureState, ...]) -> None:
    all_dead = set(states) <= {SignatureState.FAILED, SignatureState.EXPIRED}
    assert may_sign_again(states, request_is_open=True, read_slot=5, proof_slot=5) == all_dead


def test_a_signature_is_replaced_only_for_a_request_that_a_read_after_the_proof_shows_open() -> None:
    dead = [SignatureState.EXPIRED]
    assert may_sign_again(dead, request_is_open=True, read_slot=6, proof_slot=5)
    assert may_sign_again([], request_is_open=True, read_slot=5, proof_slot=5)
    assert not may_sign_again(dead, request_is_open=False, read_slot=6, proof_slot=5)
    assert not may_sign_again(dead, request_is_open=True, read_slot=4, proof_slot=5)


def test_two_states_are_dead_and_they_are_those_that_can_have_no_effect() -> None:
    assert {SignatureState.FAILED, SignatureState.EXPIRED} == DEAD


@given(st.integers(0, 1_400_000), st.floats(0, 5))
def test_the_compute_limit_covers_what_the_simulation_took(units: int, margin: float) -> None:
    limit = settlement.compute_unit_limit(units, margin=margin)
    assert min(units, 1_400_000) <= limit <= 1_400_000
    assert limit >= 1_000
    assert limit == min(1_400_000, max(1_000, int(units * (1 + margin)) + 300))


@pytest.mark.parametrize(("units", "limit"), [(0, 1_000), (635, 1_000), (637, 1_000), (1_000, 1_400), (10_000, 11_300)])
def test_the_compute_limit_is_a_tenth_and_300_units_above_the_simulation(units: int, limit: int) -> None:
    assert settlement.compute_unit_limit(units) == limit


def test_no_more_compute_is_asked_than_a_transaction_may_have() -> None:
    assert settlement.compute_unit_limit(1_399_000) == 1_400_000
    assert settlement.compute_unit_limit(500, margin=0.0, floor=100) == 800


prices = st.lists(st.integers(0, 10**9), max_size=200)


@given(prices, st.floats(0, 1), st.integers(0, 10**7), st.integers(0, 10**4), st.integers(0, 200))
def test_a_price_never_passes_its_cap_and_never_falls_by_escalation(
    recent: list[int], percentile: float, cap: int, floor: int, escalation: int
) -> None:
    price = settlement.priority_price(recent, percentile=percentile, cap=cap, floor=floor, escalation=escalation)
    assert 0 <= price <= cap
    more = settlement.priority_price(recent, percentile=percentile, cap=cap, floor=floor, escalation=escalation + 1)
    assert more >= price
    assert more == cap or more >= 2 * price


def test_a_price_is_a_percentile_of_what_landed() -> None:
    recent = [50, 10, 40, 20, 30]

    def price(percentile: float, **more: int) -> int:
        return settlement.priority_price(recent, percentile=percentile, cap=10_000, **more)

    assert [price(p) for p in (0.0, 0.19, 0.2, 0.5, 0.8, 0.99, 1.0)] == [10, 10, 20, 30, 50, 50, 50]
    assert price(0.5, floor=35) == 35
    assert settlement.priority_price([], percentile=0.5, cap=10_000) == 0


def test_what_expired_at_no_price_is_sent_again_at_one_that_is_noticed_and_doubles() -> None:
    def price(escalation: int, recent: list[int]) -> int:
        return settlement.priority_price(recent, percentile=0.5, cap=10_000, escalation=escalation)

    assert [price(n, []) for n in range(5)] == [0, 2_000, 4_000, 8_000, 10_000]
    assert [price(n, [1_500]) for n in range(4)] == [1_500, 3_000, 6_000, 10_000]
