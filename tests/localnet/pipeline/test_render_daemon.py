"""A request that the daemon has answered by a container on Render's compute subnet, whatever comes in between."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from pipeline_world import World, until

from oracle.client.verify import verify
from oracle.core.lifecycle import State
from oracle.core.request import Status
from oracle.localnet.emulators.render import Render, Timings
from oracle.localnet.emulators.server import serve

pytestmark = pytest.mark.localnet

MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"
FEE = {"model": "gpu", "fee_lamports": 400_000}


@asynccontextmanager
async def render(world: World, **options: Any) -> AsyncIterator[tuple[Render, dict[str, Any]]]:
    """The emulator, and what a daemon has to be told to use it."""
    emulator = Render(f"{world.model_url.url}/v1", **options)
    async with serve(emulator) as running:
        provider = {
            "kind": "render",
            "base_url": running.url,
            "public_key": "pk_localnet",
            "secret_key": "sk_localnet",
            "expected_seconds": 1.0,
            "look_seconds": 0.05,
        }
        route = {"provider": "render", "model": MODEL, "timeout_seconds": 60}
        yield (
            emulator,
            {
                "providers": {"render": provider},
                "models": {"gpu": {"routes": [route]}},
                "rates": {"sol_usd": "100"},
            },
        )


async def test_a_request_is_answered_by_a_container_that_is_ended_after_it(world: World) -> None:
    async with render(world, timings=Timings(assign_seconds=0.2, start_seconds=0.2)) as (emulator, settings):
        async with world.daemon(**settings) as daemon:
            submitted = await world.submit(**FEE)
            assert (await world.ended(submitted)).header.status is Status.FULFILLED
            await world.reaches(daemon, submitted, State.SETTLED)
            result = await verify(world.rpc, world.program_id, submitted.address)
        (job,) = emulator.books()["jobs"]
    assert result.ok, [check for check in result.checks if not check.ok]
    assert result.output is not None
    assert result.output.startswith(b"answer ")
    assert job["status"] == "CANCELLED"


async def test_a_purchase_whose_answer_is_lost_is_found_and_not_made_again(world: World) -> None:
    async with render(world) as (emulator, settings):
        emulator.faults.add("lose_answer", on="POST /v1/jobs")
        async with world.daemon(**settings):
            submitted = await world.submit(**FEE)
            assert (await world.ended(submitted)).header.status is Status.FULFILLED
        assert len(emulator.books()["jobs"]) == 1


async def test_a_container_that_a_dead_daemon_had_no_time_to_end_is_ended_by_the_next(world: World) -> None:
    async with render(world) as (emulator, settings):
        emulator.faults.add("error", on="PUT /v1/jobs/*", count=None)
        async with world.daemon(**settings) as daemon:
            submitted = await world.submit(**FEE)
            await world.reaches(daemon, submitted, State.SETTLED)
        assert [job["status"] for job in emulator.books()["jobs"]] == ["RUNNING"]
        emulator.faults.clear()
        async with world.daemon(**settings):

            async def over() -> bool:
                return [job["status"] for job in emulator.books()["jobs"]] == ["CANCELLED"]

            await until(over, "the end of the container")


async def test_a_daemon_that_starts_anew_goes_on_with_the_container_of_the_old_one(world: World) -> None:
    async with render(world, timings=Timings(load_seconds=1.5)) as (emulator, settings):
        async with world.daemon(**settings) as daemon:
            submitted = await world.submit(**FEE)
            await world.reaches(daemon, submitted, State.RUNNING)

            async def bought() -> bool:
                return bool(emulator.books()["jobs"])

            await until(bought, "a purchase")
        async with world.daemon(**settings):
            assert (await world.ended(submitted)).header.status is Status.FULFILLED
        (job,) = emulator.books()["jobs"]
    assert job["status"] == "CANCELLED"
