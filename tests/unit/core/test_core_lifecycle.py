"""The table of states: closed, without a trap, and left only by the doors that it names."""

from __future__ import annotations

import itertools

import pytest

from oracle.core import lifecycle
from oracle.core.errors import OracleError
from oracle.core.lifecycle import ENDED, RESTING, State
from oracle.core.request import Status

OPEN = frozenset(State) - ENDED
BY_ANOTHER = {State.CANCELLED, State.EXPIRED, State.SUPERSEDED, State.VANISHED}
WORK = {
    State.SEEN: {State.ADMITTED, State.REFUSED},
    State.ADMITTED: {State.CLAIMING, State.RUNNING, State.REFUSED},
    State.CLAIMING: {State.CLAIMED, State.ADMITTED, State.COMPUTED, State.REFUSED},
    State.CLAIMED: {State.RUNNING, State.ADMITTED, State.REFUSED},
    State.RUNNING: {State.COMPUTED, State.REFUSED, State.ADMITTED, State.CLAIMED},
    State.COMPUTED: {State.SETTLING},
    State.REFUSED: {State.SETTLING},
    State.SETTLING: {State.COMPUTED, State.REFUSED, State.CLAIMING},
    State.PARKED: {State.SEEN, State.ADMITTED, State.CLAIMED, State.COMPUTED, State.REFUSED},
    State.DECLINED: {State.SEEN},
}


@pytest.mark.parametrize("state", sorted(OPEN))
def test_an_open_state_leads_to_its_work_to_rest_or_to_any_end_and_nowhere_else(state: State) -> None:
    anywhere = BY_ANOTHER | RESTING | {State.SETTLED, State.REJECTED}
    assert lifecycle.successors(state) == (WORK[state] | anywhere) - {state}


@pytest.mark.parametrize("state", sorted(ENDED - {State.VANISHED}))
def test_an_end_is_left_only_for_another_end_or_for_what_a_fork_leaves_at_hand(state: State) -> None:
    after_fork = {State.SEEN, State.CLAIMING, State.COMPUTED, State.REFUSED, State.SETTLING}
    assert lifecycle.successors(state) == after_fork | (ENDED - {state, State.VANISHED})


def test_what_has_vanished_stays_so() -> None:
    assert lifecycle.successors(State.VANISHED) == frozenset()


def test_the_states_are_open_resting_or_ended() -> None:
    assert {State.SETTLED, State.REJECTED, *BY_ANOTHER} == ENDED
    assert {State.DECLINED, State.PARKED} == RESTING
    assert set(WORK) == OPEN


def test_every_state_can_be_reached_and_reaches_every_end() -> None:
    assert reachable_from(State.SEEN) == set(State)
    for state in OPEN:
        assert reachable_from(state) >= ENDED


def test_the_chain_can_end_any_open_request_in_one_step() -> None:
    for state in OPEN:
        assert lifecycle.successors(state) >= ENDED


def test_nothing_is_bought_before_admission_and_nothing_settled_without_an_outcome() -> None:
    bought_from = {state for state in State if State.RUNNING in lifecycle.successors(state)}
    assert bought_from == {State.ADMITTED, State.CLAIMED}
    settled_from = {state for state in OPEN if State.SETTLING in lifecycle.successors(state)}
    assert settled_from == {State.COMPUTED, State.REFUSED}


@pytest.mark.parametrize(("old", "new"), list(itertools.product(State, State)))
def test_a_move_that_is_not_in_the_table_is_refused_by_name(old: State, new: State) -> None:
    if new in lifecycle.successors(old):
        lifecycle.check(old, new)
        return
    with pytest.raises(OracleError, match=f"{old} -> {new}") as raised:
        lifecycle.check(old, new)
    assert raised.value.code == "ORC-CORE-001"


@pytest.mark.parametrize(
    ("status", "ours", "others"),
    [
        (Status.PENDING, None, None),
        (Status.CLAIMED, None, None),
        (Status.FULFILLED, State.SETTLED, State.SUPERSEDED),
        (Status.REJECTED, State.REJECTED, State.SUPERSEDED),
        (Status.CANCELLED, State.CANCELLED, State.CANCELLED),
        (Status.EXPIRED, State.EXPIRED, State.EXPIRED),
    ],
)
def test_what_the_chain_says_names_the_end(status: Status, ours: State | None, others: State | None) -> None:
    assert lifecycle.end_of(status, settled_by_us=True) is ours
    assert lifecycle.end_of(status, settled_by_us=False) is others
    assert status.is_open == (ours is None)


def reachable_from(start: State) -> set[State]:
    found, edge = {start}, [start]
    while edge:
        new = lifecycle.successors(edge.pop()) - found
        found |= new
        edge += new
    return found
