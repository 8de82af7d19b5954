"""The main job with Nosana on chain: bought by transaction, run by a host, settled; and everything that goes wrong."""

from __future__ import annotations

import pytest
from nosana_world import NOS, PRICE, NosanaWorld, host_waits, nosana, timings
from pipeline_world import World, until

from oracle.core.request import Status
from oracle.store.schema import SettlementState

pytestmark = pytest.mark.localnet

__all__ = ["host_waits", "nosana", "timings"]


async def test_a_request_is_answered_by_a_job_that_was_bought_on_chain(world: World, nosana: NosanaWorld) -> None:
    async with world.daemon() as daemon:
        submitted = await world.submit()
        assert (await world.ended(submitted)).header.status is Status.FULFILLED
        (attempt,) = await nosana.attempts(daemon, submitted)
        job = await nosana.job(attempt)
        assert job is not None
        assert (job.state, job.project, job.payer) == (2, nosana.operator, nosana.operator)
        assert attempt.job_id == str((await nosana.job_key(attempt)).pubkey())
        used_seconds = job.time_end - job.time_start
        assert await nosana.nos() == NOS - PRICE * used_seconds
        assert await nosana.in_vault() == 0
        assert len(await nosana.listings()) == 1

        async def final() -> bool:
            (purchase,) = await nosana.purchases(daemon, submitted)
            return purchase.state is SettlementState.FINALIZED

        await until(final, "the purchase, finalized")
