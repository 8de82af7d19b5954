"""What lives when the daemon starts is left out of later collections; what dies afterwards is not."""

from __future__ import annotations

import gc
import sys
import weakref
from collections.abc import Iterator

import pytest

from oracle.pipeline import interpreter


class Cycle:
    def __init__(self) -> None:
        self.me = self


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    thresholds, switch_seconds = gc.get_threshold(), sys.getswitchinterval()
    # A command that was tested before in this process may have spared all that there is.
    gc.unfreeze()
    yield
    gc.unfreeze()
    gc.set_threshold(*thresholds)
    sys.setswitchinterval(switch_seconds)


def test_only_what_was_there_before_is_spared() -> None:
    before = Cycle()
    interpreter.prepare()
    spared = gc.get_freeze_count()
    after = Cycle()
    died, is_spared = weakref.ref(after), weakref.ref(before)
    del before, after
    gc.collect()

    assert spared > 1_000
    assert died() is None
    assert is_spared() is not None


def test_a_hundred_thousand_rows_for_a_moment_bring_on_no_full_collection() -> None:
    gc.set_threshold(700, 10, 10)
    full: list[int] = []

    def count(phase: str, info: dict[str, int]) -> None:
        if phase == "start" and info["generation"] == 2:
            full.append(1)

    interpreter.prepare()
    gc.callbacks.append(count)
    try:
        for _ in range(3):
            [[n] for n in range(100_000)]
    finally:
        gc.callbacks.remove(count)
    assert not full
