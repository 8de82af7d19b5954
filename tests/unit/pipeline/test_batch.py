"""What is done in one go."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from oracle.pipeline.batch import Batch


class Work:
    """Notes what it is given together, and goes on when it is told to."""

    def __init__(self) -> None:
        self.groups: list[Sequence[int]] = []
        self.has_begun, self.may_go_on = asyncio.Event(), asyncio.Event()

    async def do(self, items: Sequence[int]) -> Sequence[int]:
        self.groups.append(items)
        self.has_begun.set()
        await self.may_go_on.wait()
        return [-item for item in items]


async def test_the_eager_wait_only_for_what_comes_in_the_same_turn() -> None:
    work = Work()
    batch = Batch(work.do, most=8, window_seconds=3_600.0, is_eager=True)
    work.may_go_on.set()
    assert await asyncio.gather(*(batch.add(item) for item in range(3))) == [0, -1, -2]
    assert await batch.add(3) == -3
    assert work.groups == [[0, 1, 2], [3]]


async def test_what_comes_while_the_eager_are_busy_is_done_together_when_they_have_ended() -> None:
    work = Work()
    batch = Batch(work.do, most=8, window_seconds=3_600.0, is_eager=True)
    adding = [asyncio.create_task(batch.add(0))]
    await work.has_begun.wait()
    for item in (1, 2):
        adding.append(asyncio.create_task(batch.add(item)))
        await asyncio.sleep(0)
    assert work.groups == [[0]]
    work.may_go_on.set()
    assert await asyncio.gather(*adding) == [0, -1, -2]
    assert work.groups == [[0], [1, 2]]


async def test_nothing_is_done_for_who_has_given_up_waiting() -> None:
    work = Work()
    batch = Batch(work.do, most=8, window_seconds=3_600.0, is_eager=True)
    adding = [asyncio.create_task(batch.add(0))]
    await work.has_begun.wait()
    adding += [asyncio.create_task(batch.add(item)) for item in (1, 2)]
    await asyncio.sleep(0)
    adding.pop(1).cancel()
    await asyncio.sleep(0)
    work.may_go_on.set()
    assert await asyncio.gather(*adding) == [0, -2]
    assert work.groups == [[0], [2]]


async def test_as_many_as_go_into_one_do_not_wait() -> None:
    work = Work()
    batch = Batch(work.do, most=2, window_seconds=3_600.0)
    work.may_go_on.set()
    assert await asyncio.gather(*(batch.add(item) for item in range(4))) == [0, -1, -2, -3]
    assert work.groups == [[0, 1], [2, 3]]
