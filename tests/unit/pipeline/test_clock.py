"""The daemon's wall time goes on whatever somebody does to the machine's."""

from __future__ import annotations

from oracle.pipeline.clock import Clock

SECOND_NS = 1_000_000_000


class Machine:
    def __init__(self) -> None:
        self.wall_ns, self.monotonic_ns = 1_700_000_000 * SECOND_NS, 5 * SECOND_NS

    def clock(self) -> Clock:
        return Clock(wall_ns=lambda: self.wall_ns, monotonic_ns=lambda: self.monotonic_ns)

    def pass_seconds(self, seconds: int) -> None:
        self.wall_ns += seconds * SECOND_NS
        self.monotonic_ns += seconds * SECOND_NS


def test_it_tells_the_time_of_the_machine() -> None:
    machine = Machine()
    clock = machine.clock()
    machine.pass_seconds(7)
    assert clock.now_ms() == machine.wall_ns // 1_000_000
    assert clock.monotonic() == 12.0


def test_a_clock_that_is_set_back_takes_no_second_back() -> None:
    machine = Machine()
    clock = machine.clock()
    before_ms = clock.now_ms()
    machine.wall_ns -= 3600 * SECOND_NS
    assert clock.now_ms() == before_ms
    machine.pass_seconds(3)
    assert clock.now_ms() == before_ms + 3_000


def test_a_clock_that_is_set_forward_is_followed() -> None:
    machine = Machine()
    clock = machine.clock()
    before_ms = clock.now_ms()
    machine.wall_ns += 3600 * SECOND_NS
    assert clock.now_ms() == before_ms + 3_600_000


def test_a_clock_that_was_set_back_is_followed_again_once_it_has_caught_up() -> None:
    machine = Machine()
    clock = machine.clock()
    machine.wall_ns -= 2 * SECOND_NS
    clock.now_ms()
    machine.wall_ns += 10 * SECOND_NS
    assert clock.now_ms() == machine.wall_ns // 1_000_000
