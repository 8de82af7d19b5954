"""Rows that go from one loop to the next under the lease that they have."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from oracle.pipeline.handover import Handover


class Loop:
    """With so many places, it begins what it is given, and is never done with it."""

    def __init__(self, handover: Handover, places: int) -> None:
        self.begun: list[Any] = []
        handover.open(lambda: places - len(self.begun), lambda row, step: self.begun.append(row))


def begin(handover: Handover, row: Any) -> bool:
    return handover.begin(row)


def test_what_has_a_place_in_the_next_loop_is_begun_there_and_what_has_none_is_not() -> None:
    handover = Handover()
    loop = Loop(handover, places=2)
    assert [begin(handover, row) for row in "abc"] == [True, True, False]
    assert loop.begun == ["a", "b"]


def test_a_place_is_kept_for_a_row_that_is_still_on_its_way() -> None:
    handover = Handover()
    loop = Loop(handover, places=1)
    with handover.place() as is_free:
        assert is_free
        assert not begin(handover, "late")
    assert begin(handover, "first")
    with handover.place() as is_free:
        assert not is_free
    assert loop.begun == ["first"]


@pytest.mark.parametrize("never", [lambda: None, lambda: 1 / 0])
def test_a_place_that_nothing_came_of_is_free_again(never: Callable[[], Any]) -> None:
    handover = Handover()
    loop = Loop(handover, places=1)
    try:
        with handover.place():
            never()
    except ZeroDivisionError:
        pass
    assert begin(handover, "next")
    assert loop.begun == ["next"]


def test_a_loop_that_is_not_there_has_no_place() -> None:
    handover = Handover()
    assert not begin(handover, "early")
    loop = Loop(handover, places=1)
    with handover.place():
        handover.close()
    assert not begin(handover, "too late")
    assert loop.begun == []


async def test_whoever_is_cancelled_on_the_way_leaves_the_place_free() -> None:
    handover = Handover()
    loop = Loop(handover, places=1)

    async def held_up() -> None:
        with handover.place():
            await asyncio.Event().wait()

    task = asyncio.create_task(held_up())
    await asyncio.sleep(0)
    assert not begin(handover, "second")
    task.cancel()
    await asyncio.wait([task])
    assert begin(handover, "third")
    assert loop.begun == ["third"]
