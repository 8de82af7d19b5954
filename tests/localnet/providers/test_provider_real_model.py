"""The chat adapters against a real server and a real model: llama.cpp with SmolLM2."""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from provider_jobs import ended, until

from oracle.core.compute import (
    Completion,
    IdempotencyKey,
    JobState,
    Message,
    Piece,
    Recovery,
    Task,
)
from oracle.core.errors import OracleError, Verdict
from oracle.model.pinned import SMOLLM2
from oracle.model.server import LocalModel
from oracle.providers import errors
from oracle.providers.chat import ChatCompute
from oracle.providers.local.client import LocalChat
from oracle.providers.openai.client import OpenAIChat
from oracle.providers.registry import build

pytestmark = [pytest.mark.localnet, pytest.mark.model]

TASK = Task(SMOLLM2.model_id, (Message("user", "What is the capital of France?"),), max_output_tokens=16)
KEY = IdempotencyKey("11111111-2222-3333-4444-555555555555")


@contextlib.asynccontextmanager
async def server(model: LocalModel, **settings: object) -> AsyncIterator[ChatCompute]:
    compute = build(
        "llama", {"kind": "openai", "base_url": model.base_url, "server": "llamacpp", "free": True, **settings}
    )
    assert isinstance(compute, ChatCompute)
    try:
        yield compute
    finally:
        await compute.close()


async def test_a_job_runs_on_a_real_server_from_submit_to_fetch(model: LocalModel) -> None:
    async with server(model) as compute:
        assert await compute.models() == (SMOLLM2.model_id,)
        handle = await compute.submit(TASK, KEY)
        assert (await ended(compute, handle)).state is JobState.SUCCEEDED
        output = await compute.fetch(handle)
    assert output.content.decode().strip()
    assert output.model_run == SMOLLM2.model_id
    assert output.output_tokens is not None
    assert 0 < output.output_tokens <= 16
    assert output.input_tokens is not None
    assert (output.cost_lamports, compute.capabilities.recovery) == (0, Recovery.REPEAT)


async def test_texts_are_embedded_by_a_real_server(model: LocalModel) -> None:
    async with server(model) as compute:
        cat, kitten, votes = (
            await compute.embed(
                SMOLLM2.model_id,
                ["The cat sat on the mat.", "A kitten is sitting on a rug.", "Solana validators vote on blocks."],
                seconds=60,
            )
        ).vectors
    assert cosine(cat, kitten) > cosine(cat, votes) + 0.1


def cosine(a: Sequence[float], b: Sequence[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True)) / math.hypot(*a) / math.hypot(*b)


async def test_a_streamed_answer_is_the_answer(model: LocalModel) -> None:
    async with server(model) as compute:
        assert isinstance(compute.chat, OpenAIChat)
        *pieces, whole = [piece async for piece in compute.chat.stream(TASK)]
        again = await compute.chat.complete(TASK)
    assert isinstance(whole, Completion)
    assert "".join(piece.text for piece in pieces if isinstance(piece, Piece)) == whole.text
    assert len(pieces) > 1
    # Temperature 0 and no prompt cache: the same task gives the same text.
    assert again.text == whole.text
    assert again.output_tokens == whole.output_tokens


async def test_the_same_answer_comes_without_streaming(model: LocalModel) -> None:
    async with server(model) as streamed, server(model, server="other", extra_body={"cache_prompt": False}) as plain:
        assert (await plain.chat.complete(TASK)).text == (await streamed.chat.complete(TASK)).text


async def test_an_answer_cut_at_the_limit_that_was_asked_for_is_an_answer(model: LocalModel) -> None:
    async with server(model) as compute:
        handle = await compute.submit(replace(TASK, max_output_tokens=2), KEY)
        assert (await ended(compute, handle)).state is JobState.SUCCEEDED
        assert (await compute.fetch(handle)).output_tokens == 2


async def test_a_prompt_too_long_for_the_model_is_refused_and_not_repeated(model: LocalModel) -> None:
    long = replace(TASK, messages=(Message("user", "one two three " * 3000),))
    async with server(model) as compute:
        status = await ended(compute, await compute.submit(long, KEY))
    assert status.error is not None
    assert (status.error.error, status.error.verdict) == (errors.REQUEST_REFUSED, Verdict.GIVE_UP)
    assert "two three" not in status.message


async def test_a_cancelled_job_leaves_the_server_free_for_the_next(model: LocalModel) -> None:
    endless = replace(TASK, messages=(Message("user", "Write a long story."),), max_output_tokens=1500)
    async with server(model, max_concurrent_jobs=1) as compute:
        handle = await compute.submit(endless, KEY)
        await until(compute, handle, lambda status: status.state is JobState.RUNNING)
        await compute.cancel(handle)
        assert (await compute.poll([handle]))[handle].state is JobState.CANCELLED
        # 1500 tokens take far longer than this: the server has stopped computing them.
        async with asyncio.timeout(10):
            assert (await compute.chat.complete(TASK)).text


async def test_a_job_that_outlives_its_time_is_lost_and_not_failed(model: LocalModel) -> None:
    endless = replace(TASK, messages=(Message("user", "Write a long story."),), max_output_tokens=1500)
    async with server(model) as compute:
        status = await ended(compute, await compute.submit(replace(endless, timeout_seconds=1.0), KEY))
    assert status.state is JobState.LOST


async def test_a_server_that_is_not_there_was_sent_nothing() -> None:
    compute = build("gone", {"kind": "openai", "base_url": "http://127.0.0.1:1/v1"})
    status = await ended(compute, await compute.submit(TASK, KEY))
    assert status.error is not None
    assert (status.error.error, status.error.verdict) == (errors.UNREACHABLE, Verdict.RETRY)
    await compute.close()


async def test_the_local_provider_starts_its_model_and_starts_it_again_after_its_death() -> None:
    compute = build("local", {"kind": "local"}, environ=os.environ)
    assert isinstance(compute, ChatCompute)
    assert isinstance(compute.chat, LocalChat)
    try:
        handle = await compute.submit(TASK, KEY)
        assert (await ended(compute, handle)).state is JobState.SUCCEEDED
        first = await compute.fetch(handle)
        running = compute.chat._model
        assert running is not None
        assert running._process is not None
        running._process.kill()
        running._process.wait()
        again = await compute.submit(TASK, IdempotencyKey("again"))
        assert (await ended(compute, again)).state is JobState.SUCCEEDED
        assert (await compute.fetch(again)).content == first.content
        pieces = [piece async for piece in compute.chat.stream(TASK)]
        assert "".join(piece.text for piece in pieces if isinstance(piece, Piece)).encode() == first.content
        ((vector,), cost) = (found := await compute.embed(TASK.model, ["a"], seconds=60)).vectors, found.cost_lamports
        assert (len(vector), found.model, cost) == (576, TASK.model, 0)
    finally:
        await compute.close()
    assert not compute.chat._model.alive


async def test_the_local_provider_runs_no_other_model(tmp_path: Path) -> None:
    chat = LocalChat("local", tmp_path / "never made")
    with pytest.raises(OracleError) as caught:
        await chat.complete(replace(TASK, model="gpt-x"))
    assert caught.value.error is errors.MODEL_UNAVAILABLE
    await chat.close()
    assert os.listdir(tmp_path) == []
