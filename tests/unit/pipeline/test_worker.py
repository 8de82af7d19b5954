"""A loop over rows: how many steps are under way, in which order, and what may be handed to it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from settlement_world import Memory, World, until

from oracle.core.compute import Money, Quote
from oracle.core.lifecycle import State
from oracle.core.policy import RETRIES_EXHAUSTED
from oracle.core.routing import Route
from oracle.pipeline import submit, worker
from oracle.pipeline.context import Context
from oracle.pipeline.errors import UNEXPECTED
from oracle.pipeline.handover import Handover
from oracle.store.rows import RequestRow

FREE: Final = Quote(0, Money(0.0, "USD"))


class Steps:
    """Steps that end when they are told to. Of each, the row is noted as it begins."""

    def __init__(self) -> None:
        self.begun: list[RequestRow] = []
        self._ends: list[asyncio.Event] = []

    async def step(self, context: Context, row: RequestRow) -> None:
        self.begun.append(row)
        self._ends.append(asyncio.Event())
        await self._ends[-1].wait()

    def end(self, at: int) -> None:
        self._ends[at].set()

    def end_all(self) -> None:
        for event in self._ends:
            event.set()

    async def reaches(self, count: int) -> None:
        await until(lambda: len(self.begun) >= count)


@asynccontextmanager
async def running(world: World, handover: Handover, *, concurrency: int, paused: bool = False) -> AsyncIterator[Steps]:
    context, steps = world.context, Steps()
    daemon = context.config.daemon.model_copy(update={"concurrency": concurrency})
    context.config = context.config.model_copy(update={"daemon": daemon})
    task = asyncio.create_task(worker.run(context, (State.SEEN,), steps.step, handover, is_paused=lambda: paused))
    try:
        yield steps
    finally:
        context.stopping.set()
        context.bells.ring_all()
        steps.end_all()
        await task


async def waiting(world: World, *ttl_slots: int) -> list[RequestRow]:
    """Requests that are seen and not held, one for each time to live."""
    for n, ttl in enumerate(ttl_slots):
        world.submit(n, ttl_slots=ttl)
    world.advance(40)
    await world.watch()
    return [await world.row(n) for n in range(len(ttl_slots))]


async def test_what_is_handed_over_is_begun_at_once_where_nothing_waits(database: Memory) -> None:
    world, handover = World(database), Handover()
    async with running(world, handover, concurrency=2) as steps:
        rows = await waiting(world, 1_000)
        await steps.reaches(1)
        await until(lambda: handover.begin(rows[0]))
        assert not handover.begin(rows[0])
        await steps.reaches(2)


async def test_what_is_handed_over_overtakes_nothing_that_waits_to_be_taken(database: Memory) -> None:
    world, handover = World(database), Handover()
    urgent, later, last = await waiting(world, 1_000, 2_000, 3_000)
    async with running(world, handover, concurrency=1) as steps:
        for already in range(1, 4):
            await steps.reaches(already)
            assert not handover.begin(last)
            steps.end(already - 1)
            # Its place is free, and the loop has not taken the next row yet.
            assert not handover.begin(last)
        await until(lambda: handover.begin(last))
        await steps.reaches(4)
        assert [row.id for row in steps.begun] == [urgent.id, later.id, last.id, last.id]


async def test_a_loop_that_is_paused_or_stopping_is_handed_nothing(database: Memory) -> None:
    world, handover = World(database), Handover()
    [row] = await waiting(world, 1_000)
    async with running(world, handover, concurrency=1, paused=True) as steps:
        await until(lambda: "seen" in world.context.pulses)
        assert not handover.begin(row)
    assert steps.begun == []
    async with running(World(database), handover, concurrency=1) as steps:
        await until(lambda: handover.begin(row))
        await steps.reaches(1)
    assert not handover.begin(row)


async def test_other_work_is_one_of_the_steps_and_is_waited_for_as_they_are(database: Memory) -> None:
    world, handover, other = World(database), Handover(), Steps()
    [row] = await waiting(world, 1_000)
    async with running(world, handover, concurrency=2) as steps:
        await steps.reaches(1)
        await until(lambda: handover.begin_with(lambda: other.step(world.context, row)))
        assert not handover.is_free
        await other.reaches(1)
        world.context.stopping.set()
        world.context.bells.ring_all()
        steps.end_all()
        await until(lambda: not handover.begin(row))
        other.end_all()


async def test_the_lease_of_a_purchase_is_counted_from_its_intent(database: Memory) -> None:
    world = World(database)
    await waiting(world, 1_000)
    [row] = await worker.take(world.context, (State.SEEN,), 1)
    world.clock.pass_by(60)
    intent = await submit.intend(world.context, row, Route("any", "model"), FREE)
    assert isinstance(intent, tuple)
    bought_for = intent[0]
    assert bought_for.state is State.RUNNING
    assert bought_for.lease_until_ms == world.clock.now_ms() + world.context.lease_ms
    assert (await world.row()).lease_until_ms == bought_for.lease_until_ms


async def test_a_step_that_fails_is_tried_as_often_as_is_allowed_and_ever_more_rarely_then_the_request_is_rejected(
    database: Memory,
) -> None:
    world = World(database)
    await waiting(world, 100_000)
    tried, waits_ms = 0, list[int]()

    async def step(context: Context, row: RequestRow) -> None:
        nonlocal tried
        tried += 1
        raise UNEXPECTED("simulated")

    while (row := await world.row()).state is State.SEEN:
        waits_ms.append(row.wake_at_ms - world.clock.ms)
        world.clock.ms = row.wake_at_ms
        (held,) = await worker.take(world.context, (State.SEEN,), 1)
        await worker.attempt(world.context, held, step)
    assert waits_ms[1:5] == [375, 750, 1_500, 3_000]
    assert tried == world.context.config.policy.max_retries + 1
    assert (row.state, row.error_code) == (State.REFUSED, RETRIES_EXHAUSTED.code)
