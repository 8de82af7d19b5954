"""What a client may use, and what it is told it has used."""

from __future__ import annotations

import asyncio
from typing import Any

import openai
import pytest
from gateway_world import MODEL, GatewayWorld, ask, holds, refusal
from test_gateway_routes import newest

from oracle.store import attempts, calls, ledger
from oracle.store.schema import CallState

pytestmark = [pytest.mark.localnet, pytest.mark.asyncio(loop_scope="package")]


async def test_calls_beyond_those_of_a_minute_are_told_when_to_come_back(gateway: GatewayWorld) -> None:
    async with gateway.client("slow") as client:
        for _ in range(2):
            await client.chat.completions.create(**ask())
        error = await refusal(client.chat.completions.create(**ask()))
    assert isinstance(error, openai.RateLimitError)
    assert (error.code, error.type) == ("rate_limit_exceeded", "requests")
    assert 1 <= int(error.response.headers["retry-after"]) <= 60
    assert len(gateway.model.requests) == 2


async def test_calls_at_once_beyond_the_limit_are_refused_and_the_next_one_is_not(gateway: GatewayWorld) -> None:
    gateway.model.flowing.clear()
    async with gateway.client("narrow") as client:
        first = asyncio.ensure_future(client.chat.completions.create(**ask()))
        await holds(lambda: len(gateway.model.requests) == 1, "the first call")
        error = await refusal(client.chat.completions.create(**ask()))
        gateway.model.flowing.set()
        await first
        await client.chat.completions.create(**ask())
    assert (error.status_code, error.response.headers["retry-after"]) == (429, "1")


async def test_the_official_client_waits_as_it_is_told_and_then_succeeds(gateway: GatewayWorld) -> None:
    gateway.model.word_seconds = 0.05
    async with gateway.client("narrow", max_retries=30) as client:
        answers = await asyncio.gather(*(client.chat.completions.create(**ask(str(n))) for n in range(2)))
    assert len({answer.choices[0].message.content for answer in answers}) == 2


async def test_a_call_that_might_use_more_tokens_than_the_day_has_left_buys_nothing(gateway: GatewayWorld) -> None:
    async with gateway.client("frugal") as client:
        await client.chat.completions.create(**ask(max_tokens=100))
        error = await refusal(client.chat.completions.create(**ask(max_tokens=140)))
        await client.chat.completions.create(**ask(max_tokens=20))
    assert isinstance(error, openai.RateLimitError)
    assert (error.code, error.response.headers["x-should-retry"]) == ("insufficient_quota", "false")
    assert 0 < int(error.response.headers["retry-after"]) <= 86_400
    assert len(gateway.model.requests) == 2


async def test_many_at_once_cannot_overrun_the_day_together(gateway: GatewayWorld) -> None:
    """16 bytes of prompt and 50 tokens at 10 USD a million, at 100 USD for a SOL: a quote of some 5,200 lamports."""
    async with gateway.client("poor") as client:
        outcomes = await asyncio.gather(
            *(client.chat.completions.create(**ask(str(n), max_tokens=50) | {"model": "dear"}) for n in range(8)),
            return_exceptions=True,
        )
    refused = [outcome for outcome in outcomes if isinstance(outcome, openai.RateLimitError)]
    assert len(refused) + len(gateway.model.requests) == 8
    assert len(gateway.model.requests) == 2
    assert (await gateway.used("poor")).lamports <= 15_000


async def test_what_a_job_has_really_cost_is_booked_where_the_budget_of_the_daemon_sees_it(
    gateway: GatewayWorld,
) -> None:
    before = await gateway.context.store.read(lambda c: attempts.spent(c, since_ms=0))
    async with gateway.client() as client:
        answer = await client.chat.completions.create(**ask(max_tokens=50) | {"model": "dear"})
    assert answer.usage is not None
    # 1 and 10 USD for a million tokens, at 100 USD for a SOL.
    cost = (answer.usage.prompt_tokens * 1 + answer.usage.completion_tokens * 10) * 10
    after = await gateway.context.store.read(lambda c: attempts.spent(c, since_ms=0))
    assert after - before == cost
    (job,) = await gateway.context.store.read(lambda c: calls.jobs_of(c, answer.id))
    assert (job.cost_lamports, job.quoted_lamports > cost, job.state) == (cost, True, "succeeded")
    assert await gateway.context.store.read(lambda c: ledger.sum(c, kind="job")) == -after


async def test_a_client_asks_only_for_its_own_models(gateway: GatewayWorld) -> None:
    async with gateway.client("picky") as client:
        assert [model.id for model in (await client.models.list()).data] == ["pair"]
        error = await refusal(client.chat.completions.create(**ask()))
        await client.chat.completions.create(**ask() | {"model": "pair"})
    assert (error.status_code, error.code) == (404, "model_not_found")


async def test_use_is_told_as_it_was_told_with_the_answers(gateway: GatewayWorld) -> None:
    before = (await gateway.get("/usage")).json()["models"].get("pair", {"calls": 0, "output_tokens": 0})
    async with gateway.client() as client:
        for stream in (False, True):
            answer: Any = await client.chat.completions.create(**ask(stream=stream) | {"model": "pair"})
            if stream:
                _ = [chunk async for chunk in answer]
        await client.embeddings.create(model="pair", input="a b c")
    told = (await gateway.get("/usage")).json()
    used = told["models"]["pair"]
    assert (used["calls"] - before["calls"], used["output_tokens"] - before["output_tokens"]) == (3, 12)
    assert (told["client"], told["today"]["under_way"]) == ("alice", 0)
    assert told["today"]["calls"] == told["calls"]
    assert told["limits"]["concurrent"] == 10_000
    later = (await gateway.get(f"/usage?since={told['since'] + 86_400}")).json()
    assert (later["calls"], later["models"]) == (0, {})
    assert (await gateway.get("/usage?since=yesterday")).status_code == 400


async def test_use_is_durable_before_the_answer_ends(gateway: GatewayWorld) -> None:
    gateway.model.flowing.clear()
    async with gateway.client() as client:
        asking = asyncio.ensure_future(client.chat.completions.create(**ask(stream=True)))
        await holds(lambda: bool(gateway.model.streams), "the call at the provider")
        before, _ = await newest(gateway)
        gateway.model.flowing.set()
        states = []
        async for chunk in await asking:
            row = await gateway.context.store.read(lambda c, id=chunk.id: calls.get(c, id))  # type: ignore[misc]
            states.append((row.state, chunk.choices[0].finish_reason))
    assert (before.id, before.state) == (row.id, CallState.OPEN)
    assert states[-1] == (CallState.SUCCEEDED, "stop")
    assert (row.input_tokens, row.output_tokens, row.provider, row.model_run) == (10, 6, "scripted", MODEL)


async def test_an_open_call_counts_with_the_most_that_it_may_use(gateway: GatewayWorld) -> None:
    gateway.model.flowing.clear()
    async with gateway.client() as client:
        before = await gateway.used()
        call = asyncio.ensure_future(client.chat.completions.create(**ask(max_tokens=500)))
        await holds(lambda: len(gateway.model.requests) == 1, "the call")
        during = await gateway.used()
        gateway.model.flowing.set()
        await call
        after = await gateway.used()
    assert during.output_tokens - before.output_tokens == 500
    assert after.output_tokens - before.output_tokens == 6
