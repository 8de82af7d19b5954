"""A request through the whole daemon on a container that it rents on IO Cloud, uses, finds again and gives back."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any

import pytest
import tomlkit
from pipeline_world import World, until

from oracle.core.lifecycle import State
from oracle.core.policy import DEADLINE_TOO_CLOSE
from oracle.core.request import Status
from oracle.localnet.emulators.ionet import IonetCloud
from oracle.localnet.emulators.server import Running, serve
from oracle.pipeline.choice import FEWEST_JOBS
from oracle.providers.rented.compute import RentedCompute
from oracle.store import attempts
from oracle.testing.daemon import running_daemon

pytestmark = pytest.mark.localnet

MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"


def renting(url: Running, **settings: Any) -> dict[str, Any]:
    cloud = {
        "kind": "ionet_cloud",
        "base_url": f"{url.url}/enterprise/v1/io-cloud/caas",
        "api_key": "io-cloud-localnet",
        "repository": MODEL,
        "hardware": [12],
        "expected_boot_seconds": 1,
        "expected_seconds": 1,
        **settings,
    }
    route = {"provider": "cloud", "model": MODEL, "timeout_seconds": 30}
    return {"rates": {"sol_usd": 100}, "providers": {"cloud": cloud}, "models": {"gpu": {"routes": [route]}}}


def live(emulator: IonetCloud) -> list[str]:
    return [one["name"] for one in emulator.books()["rentals"] if one["status"] == "running"]


async def test_requests_share_a_container_which_ends_with_the_daemon(world: World) -> None:
    emulator = IonetCloud(f"{world.model_url.url}/v1")
    async with serve(emulator) as url:
        async with world.daemon(**renting(url, expected_answers=2)) as daemon:
            # An hour is 0.30675 USD, 3,067,500 lamports at 100 USD; two answers share it.
            costs = []
            for prompt in ("a", "b"):
                submitted = await world.submit(prompt, model="gpu", fee_lamports=3_000_000)
                assert (await world.ended(submitted)).header.status is Status.FULFILLED
                row = await world.reaches(daemon, submitted, State.SETTLED)
                (attempt,) = await daemon.context.store.read(lambda c, row=row: attempts.of(c, row.id))  # type: ignore[misc]
                costs.append(attempt.cost_lamports)
            assert sum(costs) == pytest.approx(3_067_500, abs=2)
            assert len(live(emulator)) == 1
        assert live(emulator) == []
    assert len(emulator.books()["rentals"]) == 1


async def test_a_request_that_could_not_wait_for_the_start_rents_nothing(world: World) -> None:
    """However fast the container answered that is there no longer."""
    emulator = IonetCloud(f"{world.model_url.url}/v1")
    async with serve(emulator) as url, world.daemon(**renting(url, expected_answers=5)) as daemon:
        quick = [await world.submit(model="gpu", fee_lamports=5_000_000, nonce=nonce) for nonce in range(FEWEST_JOBS)]
        for submitted in quick:
            await world.reaches(daemon, submitted, State.SETTLED)
        cloud = daemon.context.providers["cloud"]
        assert isinstance(cloud, RentedCompute)
        cloud._patience = replace(cloud._patience, expected_boot=6_000.0)
        cloud.server._idle_since -= cloud._patience.idle
        await cloud.server.look_after()
        assert live(emulator) == []
        late = await world.submit(model="gpu", fee_lamports=5_000_000)
        row = await world.reaches(daemon, late, State.DECLINED)
        assert row.error_code == DEADLINE_TOO_CLOSE.code
    assert len(emulator.books()["rentals"]) == 1


@pytest.mark.chaos
@pytest.mark.skipif(os.environ.get("ORACLE_TEST_LENGTH") != "long", reason="ORACLE_TEST_LENGTH=long")
async def test_a_killed_daemon_finds_its_container_again(world: World) -> None:
    emulator = IonetCloud(f"{world.model_url.url}/v1")
    async with serve(emulator) as url:
        # It learns of no address before it is killed.
        emulator.faults.add("hang", on="GET /deployment/*/containers", count=None)
        for section, values in renting(url).items():
            world.settings[section] = {**world.settings.get(section, {}), **values}
        config = world.directory / "oracle.toml"
        config.write_text(tomlkit.dumps(world.settings))
        options = {"XDG_RUNTIME_DIR": str(world.directory)}
        base_uri, log = world.settings["operator"]["base_uri"], world.directory / "daemon.log"
        async with running_daemon(config, base_uri, log, options) as daemon:
            submitted = await world.submit(model="gpu", fee_lamports=5_000_000)

            async def is_rented() -> bool:
                return bool(live(emulator))

            await until(is_rented, "a container")
            await daemon.kill()
            emulator.faults.clear()
            await daemon.start()
            assert (await world.ended(submitted)).header.status is Status.FULFILLED
            assert await daemon.stop() == 0
        assert live(emulator) == []
    assert len(emulator.books()["rentals"]) == 1
