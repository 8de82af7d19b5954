"""Many clients at once, and clients that leave: every answer is its asker's own, and nobody pays for the unheard."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import settings_file
from gateway_world import CLIENTS, MODEL, GatewayWorld, answer_to, ask, holds, key_of
from openai import AsyncOpenAI
from pipeline_world import World, until

from oracle.localnet.ports import free_port
from oracle.store import calls
from oracle.store.schema import AttemptState, CallState
from oracle.testing.daemon import running_daemon

pytestmark = pytest.mark.localnet

MANY = 1_000
WORDS = 4


@asynccontextmanager
async def gateway_process(world: World) -> AsyncIterator[str]:
    """`oracle gateway` as a process of its own, with room for a thousand calls at once; yields its base URL."""
    port = free_port()
    settings = {
        **world.settings,
        "providers": {
            "scripted": {
                "kind": "openai",
                "base_url": f"{world.model_url.url}/v1",
                "free": True,
                "max_concurrent_jobs": MANY,
                "connect_seconds": 60.0,
            }
        },
        "models": {MODEL: {"routes": [{"provider": "scripted", "model": MODEL, "timeout_seconds": 100}]}},
        "gateway": {"port": port, "keys": {"alice": CLIENTS["alice"]}},
    }
    config = settings_file.write(world.directory / "oracle.toml", settings)
    log, environment = world.directory / "gateway.log", {"XDG_RUNTIME_DIR": str(world.directory)}
    uri = world.settings["operator"]["base_uri"]
    async with running_daemon(config, uri, log, environment, command="gateway"):
        yield f"http://127.0.0.1:{port}/v1"


@pytest.mark.timeout(300)
async def test_a_thousand_streams_at_once_are_answered_without_an_error_or_a_mix_up(world: World) -> None:
    world.model.words = WORDS
    world.model.flowing.clear()

    async def all_under_way() -> bool:
        return sum(stream.live for stream in world.model.streams) == MANY

    async with (
        gateway_process(world) as url,
        AsyncOpenAI(base_url=url, api_key=key_of("alice"), max_retries=0, timeout=100) as client,
    ):
        asking = asyncio.gather(*(heard(client, f"question {n}") for n in range(MANY)))
        await until(all_under_way, "a thousand streams under way", seconds=100)
        world.model.flowing.set()
        assert await asking == [answer_to(f"question {n}", WORDS) for n in range(MANY)]
        used = await client.get("/usage", cast_to=dict[str, object])
    assert (used["calls"], used["output_tokens"]) == (MANY, WORDS * MANY)
    assert len(world.model.streams) == MANY
    assert all(stream.finished for stream in world.model.streams)


async def heard(client: AsyncOpenAI, question: str) -> str:
    stream = await client.chat.completions.create(**ask(question, stream=True))
    return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])


@pytest.mark.asyncio(loop_scope="package")
async def test_a_stream_that_is_closed_stops_the_providers_call(gateway: GatewayWorld) -> None:
    gateway.model.words, gateway.model.word_seconds = 1_000, 0.01
    async with gateway.client() as client:
        async with await client.chat.completions.create(**ask(stream=True)) as stream:
            first = await anext(aiter(stream))
        await holds(lambda: not gateway.model.streams[0].live, "the end of the provider's call")
    booked = gateway.model.streams[0]
    assert booked.sent < 500
    assert not booked.finished
    await ended_as_cancelled(gateway, first.id)


@pytest.mark.asyncio(loop_scope="package")
async def test_a_client_that_leaves_before_the_first_word_stops_the_providers_call(gateway: GatewayWorld) -> None:
    gateway.model.flowing.clear()
    async with gateway.client() as client:
        asking = asyncio.ensure_future(client.chat.completions.create(**ask(stream=True)))
        await holds(lambda: bool(gateway.model.streams), "the call at the provider")
        asking.cancel()
        await holds(lambda: not gateway.model.streams[0].live, "the end of the provider's call")
    assert gateway.model.streams[0].sent == 0


async def ended_as_cancelled(gateway: GatewayWorld, call_id: str) -> None:
    async def look() -> bool:
        call = await gateway.context.store.read(lambda c: calls.get(c, call_id))
        (job,) = await gateway.context.store.read(lambda c: calls.jobs_of(c, call_id))
        return (call.state, job.state) == (CallState.CANCELLED, AttemptState.CANCELLED) and call.output_tokens > 0

    await until(look, "the call in the books as cancelled")
