"""What `oracle doctor` says of data networks."""

from __future__ import annotations

import pytest
from pipeline_world import World

from oracle.localnet.emulators.beemaps import Beemaps
from oracle.localnet.emulators.server import serve
from oracle.pipeline import checks
from oracle.pipeline.checks import Health

pytestmark = pytest.mark.localnet


async def test_the_doctor_asks_every_data_network_and_buys_nothing(world: World) -> None:
    emulator = Beemaps()
    async with serve(emulator) as running:
        beemaps = {"kind": "beemaps", "base_url": running.url, "api_key": "bee_localnet"}
        sources = {"beemaps": beemaps, "map": {**beemaps, "api_key": "wrong"}, "grass": {"kind": "grass"}}
        found = {one.name: one for one in await checks.all_of(world.config(sources=sources))}
    good, refused, nowhere = (found[f"data network {name}"] for name in ("beemaps", "map", "grass"))
    assert (good.health, good.detail) == (Health.OK, "takes the key, balance 100,000")
    assert (refused.health, "ORC-PROVIDER-007" in refused.detail) == (Health.FAILED, True)
    assert (nowhere.health, "no public API" in nowhere.detail) == (Health.FAILED, True)
    assert set(emulator.books()["spent"].values()) == {0}
