"""A job on chain is bought at most once: through deaths of the daemon, lost databases, forks and cleaned keys."""

from __future__ import annotations

import asyncio

import pytest
from nosana_daemon import (
    answered,
    forget_answers,
    hang_in_simulation,
    hold_back_listings,
    runs,
    signature_of,
    some,
    stop_settling,
)
from nosana_world import LISTING, NosanaWorld, host_waits, nosana, timings
from pipeline_world import World, confirming_late, dropped_with_a_fork, until

from oracle.core.lifecycle import State
from oracle.store.schema import AttemptState

pytestmark = pytest.mark.localnet

__all__ = ["host_waits", "nosana", "timings"]


async def test_a_listing_that_expires_unseen_is_bought_anew_only_once_it_is_proven_dead(
    world: World, nosana: NosanaWorld
) -> None:
    await nosana.lose_listings()
    async with world.daemon() as daemon:
        submitted = await world.submit()

        async def sent() -> bool:
            return bool(nosana.lost)

        await until(sent, "a listing on its way")
        # Three times as many slots as its blockhash lives, and the finality after them.
        await world.node.advance(200)
        await nosana.lose_listings(False)
        await answered(world, submitted)
        first, second = await nosana.attempts(daemon, submitted)
        assert (first.state, first.cost_lamports) == (AttemptState.FAILED, 0)
        assert second.state is AttemptState.SUCCEEDED
        assert first.idempotency_key != second.idempotency_key
        assert len(set(nosana.lost)) == 1
        assert len(await nosana.listings()) == 1


async def test_a_daemon_that_dies_between_signing_and_sending_buys_one_job(world: World, nosana: NosanaWorld) -> None:
    async with nosana.mortal() as daemon:
        held = await hold_back_listings(daemon)
        submitted = await world.submit()
        (wire,) = await until(lambda: some(held.wires), "a signed listing")
    assert await nosana.listings() == []
    async with world.daemon() as daemon:
        await answered(world, submitted)
        (attempt,) = await nosana.attempts(daemon, submitted)
        assert attempt.state is AttemptState.SUCCEEDED
        assert await nosana.listings() == [signature_of(wire)]


async def test_a_daemon_that_dies_before_signing_buys_one_job(world: World, nosana: NosanaWorld) -> None:
    async with nosana.mortal() as daemon:
        reached = await hang_in_simulation(daemon)
        submitted = await world.submit()
        await asyncio.wait_for(reached.wait(), 60)
    async with world.daemon() as daemon:
        await answered(world, submitted)
        first, second = await nosana.attempts(daemon, submitted)
        assert (first.error_code, first.cost_lamports) == ("ORC-POLICY-017", 0)
        assert second.state is AttemptState.SUCCEEDED
        assert len(await nosana.listings()) == 1


async def test_a_daemon_that_dies_after_the_purchase_finds_its_job(world: World, nosana: NosanaWorld) -> None:
    nosana.faults.add("slow_run", seconds=1.0, count=1)
    async with nosana.mortal() as daemon:
        await forget_answers(daemon)
        submitted = await world.submit()

        async def listed() -> bool:
            return len(await nosana.listings()) == 1

        await until(listed, "the listing")
    async with world.daemon() as daemon:
        await answered(world, submitted)
        (attempt,) = await nosana.attempts(daemon, submitted)
        assert attempt.state is AttemptState.SUCCEEDED
        assert len(await nosana.listings()) == 1


async def test_a_daemon_that_has_lost_its_database_adopts_the_job_that_it_bought(
    world: World, nosana: NosanaWorld
) -> None:
    nosana.faults.add("slow_run", seconds=1.0, count=1)
    async with nosana.mortal() as daemon:
        submitted = await world.submit()
        await runs(nosana, daemon, submitted)
    world.settings["database"] = {"url": "sqlite:///empty.sqlite"}
    async with world.daemon() as daemon:
        await answered(world, submitted)
        (attempt,) = await nosana.attempts(daemon, submitted)
        assert attempt.state is AttemptState.SUCCEEDED
        assert len(await nosana.listings()) == 1


async def test_a_key_that_was_cleaned_is_not_bought_under_again(world: World, nosana: NosanaWorld) -> None:
    """Account gone, database gone: only the transactions that named the key tell of the purchase."""
    async with world.daemon() as daemon:
        await stop_settling(daemon)
        submitted = await world.submit()
        await world.reaches(daemon, submitted, State.COMPUTED, State.SETTLING)
        (attempt,) = await nosana.attempts(daemon, submitted)
    await nosana.clean(attempt)
    assert await nosana.job(attempt) is None
    world.settings["database"] = {"url": "sqlite:///empty.sqlite"}
    async with world.daemon() as daemon:
        await answered(world, submitted)
        (again,) = await nosana.attempts(daemon, submitted)
        assert again.idempotency_key == attempt.idempotency_key
        assert len(await nosana.listings()) == 1


async def test_a_fork_that_drops_the_purchase_leads_to_the_same_job(world: World, nosana: NosanaWorld) -> None:
    nosana.faults.add("slow_start", seconds=0.6, count=1)
    async with world.daemon() as daemon:
        async with confirming_late(world.node):
            submitted = await world.submit()
            await dropped_with_a_fork(world.node, LISTING)
        await answered(world, submitted)
        (attempt,) = await nosana.attempts(daemon, submitted)
        assert attempt.state is AttemptState.SUCCEEDED
        assert len(await nosana.listings()) == 1
