"""Work that goes straight into the next loop."""

from __future__ import annotations

from typing import Any

from oracle.pipeline.handover import Handover, Work


class Loop:
    """With so many places, it begins what it is given, and is never done with it."""

    def __init__(self, handover: Handover, places: int) -> None:
        self.begun: list[Any] = []
        handover.open(lambda: places - len(self.begun), self.start, self.step)

    def start(self, work: Work) -> None:
        try:
            work.send(None)
        except StopIteration:
            return

    async def step(self, row: Any) -> None:
        self.begun.append(row)


def begin(handover: Handover, row: Any) -> bool:
    return handover.begin(row)


def test_what_has_a_place_in_the_next_loop_is_begun_there_and_what_has_none_is_not() -> None:
    handover = Handover()
    loop = Loop(handover, places=2)
    assert [begin(handover, row) for row in "abc"] == [True, True, False]
    assert loop.begun == ["a", "b"]
    assert not handover.is_free


def test_other_work_takes_a_place_as_a_row_does() -> None:
    handover = Handover()
    loop = Loop(handover, places=1)

    async def other() -> None:
        loop.begun.append("other")

    assert handover.begin_with(other)
    assert not handover.begin_with(other)
    assert not begin(handover, "row")
    assert loop.begun == ["other"]


def test_a_loop_that_is_not_there_has_no_place() -> None:
    handover = Handover()
    assert not handover.is_free
    assert not begin(handover, "early")
    loop = Loop(handover, places=1)
    assert handover.is_free
    handover.close()
    assert not handover.is_free
    assert not begin(handover, "late")
    assert loop.begun == []
