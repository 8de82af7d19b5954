"""`oracle signer serve` as a process, and a daemon that never sees the key."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
from pipeline_world import World, until

from oracle.api.health import ready
from oracle.core.lifecycle import State

pytestmark = pytest.mark.localnet


@asynccontextmanager
async def signer(world: World, path: Path) -> AsyncIterator[None]:
    config = world.directory / "signer.toml"
    config.write_text('[operator]\nkeypair = "operator.json"\n')
    command = ("-m", "oracle", "signer", "serve", "-c", config, "--socket", path, "--spent", path.with_suffix(".json"))
    process = await asyncio.create_subprocess_exec(sys.executable, *command, stderr=asyncio.subprocess.PIPE)

    async def listening() -> bool:
        assert process.returncode is None, "the server is up"
        return await asyncio.to_thread(path.exists)

    try:
        await until(listening, "the socket")
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        _, said = await process.communicate()
    assert process.returncode == 0, said


async def test_a_daemon_settles_with_a_key_of_another_process_and_waits_while_that_is_away(world: World) -> None:
    path = world.directory / "signer.socket"
    world.settings["operator"] = {**world.settings["operator"], "socket": str(path)}
    del world.settings["operator"]["keypair"]
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(AsyncExitStack())
        await server.enter_async_context(signer(world, path))
        daemon = await stack.enter_async_context(world.daemon())
        assert daemon.context.signer.public_key == world.authority.pubkey()
        await world.reaches(daemon, await world.submit(), State.SETTLED)
        await server.aclose()
        second = await world.submit("And of Peru?")

        async def in_trouble() -> bool:
            return daemon.context.signer.trouble is not None

        await until(in_trouble, "the daemon's word that its signer is away")
        assert "ORC-SIGNER-005" in (await ready(daemon.context))["signer"]
        await world.reaches(daemon, second, State.SETTLING)
        await server.enter_async_context(signer(world, path))
        await world.reaches(daemon, second, State.SETTLED)
        assert daemon.context.signer.trouble is None
