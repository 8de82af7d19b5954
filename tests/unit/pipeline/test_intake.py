"""What is taken in of an account, and in which order."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

import pytest
from settlement_world import Memory, World
from solders.pubkey import Pubkey

from oracle.chain.program import layout
from oracle.chain.sightings import Sighting, Vanished
from oracle.core.lifecycle import State
from oracle.core.request import RequestKey, Status
from oracle.pipeline import intake
from oracle.store.rows import RequestRow


@pytest.mark.parametrize(("slots_later", "state"), [(-1, State.SEEN), (1, State.CANCELLED)], ids=["older", "newer"])
async def test_an_end_is_believed_unless_a_newer_look_has_shown_the_request_open(
    database: Memory, slots_later: int, state: State
) -> None:
    world = World(database)
    row = await seen(world)
    await intake.take_in(world.context, ended(row, row.chain_slot + slots_later))
    assert (await world.row()).state is state


async def test_the_news_of_an_end_waits_for_what_is_to_be_worked_on(
    database: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(database)
    first = await seen(world)
    monkeypatch.setattr(intake, "ENDED_WAIT_SECONDS", 3_600.0)
    later = first.chain_slot + 1
    both = [ended(first, later), Sighting(Pubkey.from_string(first.address), first.account, later, "push")]
    task = asyncio.create_task(intake.run(world.context, told(both)))
    await until(lambda: reads(world, later))
    assert (await world.row()).state is State.SEEN
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_flood_of_ends_keeps_nothing_back(database: Memory, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(database)
    row = await seen(world)
    monkeypatch.setattr(intake, "ENDED_WAIT_SECONDS", 3_600.0)
    gone: list[Sighting | Vanished] = [Vanished(RequestKey(f"address-{n}", 1), 2) for n in range(2 * intake.AT_ONCE)]
    later = row.chain_slot + 1
    task = asyncio.create_task(
        intake.run(world.context, told([*gone, Sighting(Pubkey.from_string(row.address), row.account, later, "push")]))
    )
    await until(lambda: reads(world, later))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def seen(world: World) -> RequestRow:
    world.submit()
    world.advance(40)
    await world.watch()
    return await world.row()


def ended(row: RequestRow, slot: int) -> Sighting:
    """The account as its requester's cancellation leaves it."""
    data = bytearray(row.account)
    data[layout.STATUS_OFFSET] = Status.CANCELLED
    return Sighting(Pubkey.from_string(row.address), bytes(data), slot, "push")


async def told(sightings: Sequence[Sighting | Vanished]) -> AsyncIterator[Sighting | Vanished]:
    for sighting in sightings:
        yield sighting
    await asyncio.Event().wait()


async def reads(world: World, slot: int) -> bool:
    return (await world.row()).chain_slot == slot


async def until(is_true: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(30):
        while True:
            if await is_true():
                return
            await asyncio.sleep(0.001)
