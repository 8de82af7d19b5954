"""`oracle emulate`: every emulator alone, and the configuration that it prints leads to it."""

from __future__ import annotations

import asyncio
import signal
import socket
import sys
import tomllib
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest
from command import oracle

from oracle.cli.emulate import Emulated
from oracle.core.compute import Message, Task
from oracle.core.dataquery import parse
from oracle.localnet.emulators.exhibits import EXHIBITS, REPOSITORY, Ground
from oracle.localnet.emulators.openai import ScriptedOpenAI
from oracle.localnet.emulators.server import serve
from oracle.providers import registry
from oracle.providers.pricing import FixedRates
from oracle.providers.sources import registry as source_registry

pytestmark = pytest.mark.localnet

QUERIES = {
    "beemaps": "data://beemaps/features?at=11.575,48.137&radius=100",
    "helium": "data://helium/hotspots?subnetwork=iot",
    "grass": "data://grass/search?q=kettle",
}


def test_every_emulator_can_be_named() -> None:
    assert {str(name) for name in Emulated} == set(EXHIBITS)


@pytest.mark.parametrize("name", sorted(EXHIBITS))
async def test_the_settings_of_an_emulator_lead_to_it(name: str, tmp_path: Path) -> None:
    exhibit = EXHIBITS[name]
    async with serve(ScriptedOpenAI()) as model:
        emulator = exhibit.build(Ground(f"{model.url}/v1", tmp_path if exhibit.keeps_state else None))
        async with serve(emulator) as running:
            ((section, entries),) = tomllib.loads(exhibit.settings.format(url=running.url)).items()
            ((called, settings),) = entries.items()
            assert called == name
            if section == "sources":
                source = source_registry.build(name, source_registry.parse(settings))
                assert (await source.fetch(parse(QUERIES[name]))).content
                await source.close()
            else:
                provider = registry.build(
                    name, settings, rates=FixedRates(sol_usd=Decimal(100), nos_usd=Decimal("0.3"))
                )
                task = Task(REPOSITORY, (Message("user", "Is this thing on?"),), max_output_tokens=16)
                assert (await provider.quote(task)).cost_lamports >= 0
                assert await provider.models()
                await provider.close()
        assert running.calls
        assert {call.status for call in running.calls} == {200}


async def test_an_emulator_runs_alone_until_it_is_told_to_stop() -> None:
    arguments = (sys.executable, "-m", "oracle", "emulate", "openai")
    process = await asyncio.create_subprocess_exec(*arguments, stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    shown = ""
    while "Ctrl-C stops." not in shown:
        line = await asyncio.wait_for(process.stdout.readline(), 60)
        assert line, shown
        shown += line.decode()
    url = shown.split('base_url = "')[1].split('"')[0]
    body: dict[str, Any] = {"model": "any", "messages": [{"role": "user", "content": "Are you there?"}]}
    async with httpx.AsyncClient(trust_env=False, timeout=60) as http:
        assert (await http.post(f"{url}/chat/completions", json=body)).status_code == 200
        fault = {"kind": "rate_limit", "count": 1}
        admin = f"{url.removesuffix('/v1')}/_emulator"
        assert (await http.post(f"{admin}/faults", json=fault)).status_code == 200
        assert (await http.post(f"{url}/chat/completions", json=body)).status_code == 429
        assert len((await http.get(f"{admin}/calls")).json()) == 2
    process.send_signal(signal.SIGINT)
    assert await asyncio.wait_for(process.wait(), 60) == 0


async def test_what_an_emulator_has_no_use_for_is_refused() -> None:
    ran = await oracle("emulate", "openai", "--model-url", "http://127.0.0.1:1/v1")
    assert (ran.status, ran.refusal) == (1, "ORC-CLI-007")
    assert (await oracle("emulate", "nosuch")).status == 2


async def test_a_taken_port_is_a_coded_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        ran = await oracle("emulate", "helium", "--port", taken.getsockname()[1])
    assert (ran.status, ran.refusal) == (1, "ORC-LOCALNET-005")
