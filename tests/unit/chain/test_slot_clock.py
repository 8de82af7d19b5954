"""Slots and seconds, when nothing about the cluster can be taken for granted."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oracle.chain.clock import SlotClock
from oracle.chain.rpc.types import PerformanceSample


def measured(
    slot_seconds: float, *, seconds: float = 60.0, clock: SlotClock | None = None, slot: int = 1000
) -> SlotClock:
    clock = clock or SlotClock()
    for n in range(int(seconds / slot_seconds)):
        clock.observe(slot + n, 50.0 + n * slot_seconds)
    return clock


@pytest.mark.parametrize("slot_seconds", [0.02, 0.2, 0.4, 0.45, 1.3])
def test_the_slot_time_is_the_one_that_is_observed(slot_seconds: float) -> None:
    clock = measured(slot_seconds)
    assert clock.is_measured
    assert clock.slot_seconds == pytest.approx(slot_seconds, rel=0.01)
    assert clock.slots(60.0) == pytest.approx(60.0 / slot_seconds, abs=1)
    assert clock.seconds(150) == pytest.approx(150 * slot_seconds, rel=0.01)


def test_performance_samples_serve_until_something_is_observed() -> None:
    clock = SlotClock()
    clock.seed([PerformanceSample(900, 300, 60), PerformanceSample(600, 0, 60)])
    assert clock.slot_seconds == pytest.approx(0.2)


def test_new_observations_outweigh_the_samples_in_time() -> None:
    clock = SlotClock()
    clock.seed([PerformanceSample(900, 150, 60)] * 24)
    measured(0.2, seconds=120.0, clock=clock)
    assert clock.slot_seconds == pytest.approx(0.2, rel=0.01)


def test_a_halt_of_the_cluster_does_not_change_the_slot_time() -> None:
    clock = measured(0.4)
    clock.observe(1151, 50.0 + 3600.0)
    assert clock.slot_seconds == pytest.approx(0.4, rel=0.01)


def test_a_slot_that_an_endpoint_invented_does_not_change_the_slot_time() -> None:
    clock = measured(0.4)
    clock.observe(10**15, 120.0)
    assert clock.slot_seconds == pytest.approx(0.4, rel=0.01)
    assert clock.slot_at(120.0) < 2000
    clock.observe(1160, 121.0)
    clock.observe(10**15, 121.1)
    clock.observe(1161, 121.2)
    clock.observe(10**15, 121.3)
    assert clock.slot_at(121.3) == 1161


@pytest.mark.parametrize("slot", [5, 10_000_000])
def test_a_chain_that_began_anew_or_ran_on_while_the_machine_slept_is_believed_after_three_reports(slot: int) -> None:
    clock = measured(0.4)
    for n in range(3):
        clock.observe(slot + n, 200.0 + n * 0.4)
    assert clock.slot_at(200.8) == slot + 2
    clock.observe(slot + 20, 208.0)
    assert clock.slot_seconds == pytest.approx(0.4, rel=0.01)


def test_an_endpoint_behind_the_others_changes_nothing() -> None:
    clock = measured(0.4)
    before = (clock.slot_seconds, clock.slot_at(200.0))
    clock.observe(1003, 111.0)
    assert (clock.slot_seconds, clock.slot_at(200.0)) == before


def test_the_current_slot_is_counted_on_but_not_through_a_halt() -> None:
    clock = measured(0.4)
    newest_slot, newest_at = 1149, 50.0 + 149 * 0.4
    assert clock.slot_at(newest_at) == newest_slot
    assert clock.slot_at(newest_at + 4.01) == newest_slot + 10
    assert clock.slot_at(newest_at + 3600.0) == clock.slot_at(newest_at + 30.0)
    assert clock.slot_at(newest_at - 5.0) == newest_slot


def test_nothing_is_current_before_the_first_observation() -> None:
    assert SlotClock().slot_at(1e9) == 0


@given(st.lists(st.tuples(st.integers(0, 2**64 - 1), st.floats(0.0, 1e9)), max_size=50))
def test_no_report_makes_the_clock_useless(reports: list[tuple[int, float]]) -> None:
    clock = SlotClock()
    for slot, at in reports:
        clock.observe(slot, at)
    assert clock.slot_seconds > 0
    assert clock.slots(10.0) >= 0
    assert clock.slot_at(1e9) >= 0
