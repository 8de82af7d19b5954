"""Clients that wait for a long job, and a gateway that is told to stop."""

from __future__ import annotations

import asyncio

import openai
import pytest
from gateway_world import GatewayWorld, answer_to, ask, holds, open_gateway_world, refusal
from pipeline_world import World

from oracle.api.gateway import respond

pytestmark = pytest.mark.localnet


@pytest.mark.asyncio(loop_scope="package")
async def test_a_stream_that_waits_for_its_first_word_is_kept_alive(
    gateway: GatewayWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(respond, "KEEP_ALIVE_SECONDS", 0.02)
    gateway.model.flowing.clear()
    async with gateway.client() as client:
        async with client.chat.completions.with_streaming_response.create(**ask("wait", stream=True)) as response:
            lines = response.iter_lines()
            waited = [await anext(lines) for _ in range(6)]
            gateway.model.flowing.set()
            heard = [line async for line in lines]
        # And the official client reads over the comments.
        again = await client.chat.completions.create(**ask("wait", stream=True))
        text = "".join([chunk.choices[0].delta.content or "" async for chunk in again])
    assert {line for line in waited if line} == {": the job is under way"}
    assert heard[-2] == "data: [DONE]" or heard[-1] == "data: [DONE]"
    assert text == answer_to("wait")


@pytest.mark.asyncio(loop_scope="package")
async def test_an_error_after_a_long_wait_is_told_inside_the_stream(
    gateway: GatewayWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(respond, "KEEP_ALIVE_SECONDS", 0.02)
    gateway.model.faults.add("error", status=400, seconds=0.1, count=None)
    async with gateway.client() as client:
        stream = await client.chat.completions.create(**ask(stream=True))
        with pytest.raises(openai.APIError, match="Request refused"):
            await anext(aiter(stream))


async def test_a_gateway_that_is_told_to_stop_finishes_its_calls_and_takes_no_new_ones(world: World) -> None:
    world.model.flowing.clear()
    async with open_gateway_world(world) as gateway, gateway.client() as client:
        stream = asyncio.ensure_future(heard(client, "last words"))
        await holds(lambda: bool(world.model.streams), "the stream")
        gateway.context.stopping.set()
        error = await refusal(client.chat.completions.create(**ask()))
        world.model.flowing.set()
        assert await stream == answer_to("last words")
    assert (error.status_code, error.code) == (503, "stopping")
    assert int(error.response.headers["retry-after"]) > 0


async def heard(client: openai.AsyncOpenAI, question: str) -> str:
    stream = await client.chat.completions.create(**ask(question, stream=True))
    return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])
