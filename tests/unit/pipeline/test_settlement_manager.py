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

HISTORIES = 10_000 if os.environ.get("ORACLE_TEST_LENGTH") == "long" else 300
STEPS = 24
DEADLINES = (100_000, 100_000, 400, 90, 30)


@pytest.fixture(scope="module")
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as runner:
        yield runner


@settings(max_examples=HISTORIES, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(choices=st.binary(min_size=100, max_size=900))
def test_no_history_lands_two_settlements_or_leaves_a_request_open(
    runner: asyncio.Runner, database: Memory, choices: bytes
) -> None:
    runner.run(history(World(database, choices)))


async def history(world: World) -> None:
    misbehave(world)
    for _ in range(STEPS):
        await step(world)
        world.check()
    await world.settle_down()
    await world.check_the_end()


def misbehave(world: World) -> None:
    """Each history has a few kinds of trouble, some of them often: together they would only drown one another."""
    script, manners = world.script, world.manners
    for name in ("lag", "on_abandoned_fork", "unanswered", "cold_cache", "short_history", "lost", "delayed"):
        setattr(manners, name, script.one_of((0, 0, 0, 10, 40, 80)))
    for name in ("repeated", "uncertain", "refusing", "blaming_nobody"):
        setattr(manners, name, script.one_of((0, 0, 0, 5, 20, 50)))
    manners.lag_blocks = script.one_of((3, 40, 200))
    manners.delay_slots = script.one_of((5, 60, 400))
    for name in ("failing", "failing_unnamed", "locked", "commit_unknown"):
        setattr(world, name, script.one_of((0, 0, 0, 5, 20)))
    world.kills = script.one_of((0, 0, 1, 3, 8))
    world.pauses = script.one_of((0, 0, 0, 1, 3))
    world.yields = script.one_of((0, 0, 30, 80))


async def step(world: World) -> None:
    script = world.script
    n = script.below(len(ADDRESSES))
    kind = script.below(16)
    if kind == 0:
        world.advance(script.one_of((1, 4, 12)))
    elif kind == 1:
        world.advance(script.one_of((40, 160, 300)), skipped=script.below(30), unnoticed=script.chance(20))
    elif kind in (2, 3):
        world.submit(n, ttl_slots=script.one_of(DEADLINES), claim_required=script.chance(40))
        world.advance(2)
    elif kind == 4:
        world.chain.fork(script.one_of((2, 5, 33)), resend=not script.chance(50))
    elif kind == 5:
        others = (cancel, rival_claims, rival_records, somebody_expires, payer_closes, payer_closes_and_submits_again)
        world.meddle(n, script.one_of(others))
        world.advance(1)
    elif kind in (6, 7):
        await world.run(script.one_of(world.loops))
    elif kind in (8, 9, 10):
        await world.run(*(loop for loop in world.loops if not script.chance(30)))
    elif kind == 11:
        world.clock.step(script.one_of((1_000, 3_600_000, -3_600_000)))
    else:
        await world.round(script.one_of((2, 10, 40)))
