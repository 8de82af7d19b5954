"""Thousands of histories of the settlement manager: whatever the network does, law 2 holds and every request ends."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from settlement_world import (
    ADDRESSES,
    Memory,
    World,
    cancel,
    payer_closes,
    payer_closes_and_submits_again,
    rival_claims,
    rival_records,
    somebody_expires,
)

HISTORIES = 6_000 if os.environ.get("ORACLE_TEST_LENGTH") == "long" else 500
STEPS = 24
TTL_SLOTS = (100_000, 100_000, 100_000, 500, 200, 60)
OTHERS = (cancel, rival_claims, rival_records, somebody_expires, payer_closes, payer_closes_and_submits_again)


@pytest.fixture(scope="module")
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as runner:
        yield runner


@pytest.mark.timeout(3_600 if HISTORIES > 500 else 600)
@settings(max_examples=HISTORIES, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(choices=st.binary(min_size=100, max_size=900))
def test_no_history_lands_two_settlements_or_leaves_a_request_open(
    runner: asyncio.Runner, database: Memory, choices: bytes
) -> None:
    runner.run(history(World(database, choices)))


async def history(world: World) -> None:
    for n in range(2 + world.script.below(5)):
        submit(world, n)
    # Mostly too deep for a fork to undo.
    world.advance(world.script.one_of((40, 40, 4)))
    await world.run(world.watch)
    for _ in range(4):
        misbehave(world)
    for _ in range(STEPS):
        await step(world)
        world.check()
    await world.settle_down()
    await world.check_the_end()


def submit(world: World, n: int) -> None:
    world.submit(n, ttl_slots=world.script.one_of(TTL_SLOTS), claim_required=world.script.chance(35))


def misbehave(world: World) -> None:
    """One kind of trouble more, or less. A few at a time: together they would only drown one another."""
    script, manners = world.script, world.manners
    match script.below(18):
        case 0:
            manners.lag, manners.lag_blocks = script.one_of(((20, 3), (60, 40), (60, 200), (0, 0)))
        case 1:
            manners.on_abandoned_fork = script.one_of((20, 60, 0))
        case 2:
            manners.unanswered = script.one_of((5, 30, 0))
        case 3:
            manners.cold_cache = script.one_of((20, 80, 0))
        case 4:
            manners.short_history = script.one_of((50, 100, 0))
        case 5 | 6:
            manners.lost = script.one_of((60, 100, 30, 0))
        case 7:
            manners.delayed, manners.delay_slots = script.one_of(((50, 10), (50, 160), (90, 400), (0, 0)))
            manners.repeated = manners.delayed
        case 8:
            manners.uncertain = script.one_of((50, 0))
        case 9:
            manners.refusing = script.one_of((10, 40, 0))
        case 10:
            manners.blaming_nobody = script.one_of((20, 60, 0))
        case 11 | 12:
            world.failing = script.one_of((20, 60, 0))
        case 13:
            world.failing_unnamed = script.one_of((20, 60, 0))
        case 14:
            world.locked, world.commit_unknown = script.one_of(((10, 0), (0, 10), (5, 5), (0, 0)))
        case 15:
            world.kills = script.one_of((1, 4, 0))
        case 16:
            world.pauses = script.one_of((1, 4, 0))
        case 17:
            world.yields = script.one_of((50, 90, 0))


async def step(world: World) -> None:
    script = world.script
    match script.below(20):
        case 0:
            await world.run(world.prepare, world.send, world.follow)
        case 1:
            # A step that was held up for longer than its lease meets whoever has taken its intents since.
            await world.run(world.send, world.send, world.follow)
        case 2 | 3:
            world.advance(script.one_of((1, 2, 5)))
            await world.run(world.follow)
        case 4 | 5 | 6:
            if world.chain.fork(script.one_of((1, 2, 3, 5, 8, 33)), resend=not script.chance(60)):
                world.advance(script.one_of((1, 2, 4)))
                await world.run(*script.one_of(((world.follow,), (world.watch,), (world.follow, world.watch))))
        case 7:
            to_an_edge(world)
            await world.run(*script.one_of(((world.follow,), (world.follow, world.send), (world.housekeep,))))
        case 8 | 9:
            world.meddle(script.below(6), script.one_of(OTHERS))
            world.advance(1)
        case 10:
            submit(world, script.below(len(ADDRESSES)))
            world.advance(2)
        case 11:
            misbehave(world)
        case 12 if script.chance(50):
            world.advance(script.one_of((40, 160, 300)), skipped=script.below(30), unnoticed=script.chance(20))
        case 12:
            world.clock.step(script.one_of((1_000, 3_600_000, -3_600_000)))
        case 13 | 14:
            await world.run(*(loop for loop in world.loops if not script.chance(30)))
            world.advance(script.below(3))
        case _:
            await world.round(script.one_of((1, 3, 8, 20)))


def to_an_edge(world: World) -> None:
    """Time passes to just before, or just after, the moment at which something ceases to be possible."""
    heights, deadlines = world.edges()
    script, chain = world.script, world.chain
    if heights and not script.chance(30):
        world.advance(max(1, script.one_of(heights) - chain.finalized.height - 4 + script.below(8)))
    elif deadlines:
        world.advance(max(1, script.one_of(deadlines) - chain.slot - 14 + script.below(18)))
