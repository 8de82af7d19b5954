"""Requests that have a day are answered by a batch, at half the price; those that have not never wait for one."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
from pipeline_world import World

from oracle.chain.program.layout import QueueTerms
from oracle.core.lifecycle import State
from oracle.core.request import Status
from oracle.localnet.emulators.openai_batches import OpenAIBatches
from oracle.localnet.emulators.server import serve
from oracle.localnet.network import LOCAL_TERMS

pytestmark = pytest.mark.localnet

A_DAY_AND_MORE = 5_000_000
"""Slots, at those of this chain."""


@pytest.fixture
def terms() -> QueueTerms:
    return replace(LOCAL_TERMS, max_deadline_slots=10_000_000)


@asynccontextmanager
async def batches(world: World) -> AsyncIterator[tuple[OpenAIBatches, dict[str, Any]]]:
    """The emulator, and what a daemon has to be told to use it before its own server."""
    emulator = OpenAIBatches(f"{world.model_url.url}/v1")
    async with serve(emulator) as running:
        provider = {
            "kind": "openai_batch",
            "base_url": f"{running.url}/v1",
            "api_key": "sk-localnet",
            "gather_seconds": 0.5,
            "poll_seconds": 0.1,
            # However quick it is said to be: what counts is the day that it may take.
            "expected_seconds": 1.0,
            "model_prices": {"tiny": {"input_usd_per_million_tokens": "1", "output_usd_per_million_tokens": "1"}},
        }
        batch = {"provider": "batch", "model": "tiny", "timeout_seconds": 90_000}
        routes = [batch, {"provider": "scripted", "model": "tiny"}]
        settings = {
            "providers": {"batch": provider},
            "models": {"tiny": {"routes": routes}},
            "rates": {"sol_usd": "100"},
        }
        yield emulator, settings


async def test_requests_with_a_day_share_a_batch_even_if_its_purchase_was_unclear(world: World) -> None:
    async with batches(world) as (emulator, settings):
        emulator.faults.add("lose_answer", on="POST /batches")
        async with world.daemon(**settings) as daemon:
            sent = [await world.submit(f"question {n}", ttl_slots=A_DAY_AND_MORE) for n in range(2)]
            for submitted in sent:
                assert (await world.ended(submitted)).header.status is Status.FULFILLED
                await world.reaches(daemon, submitted, State.SETTLED)
        books = emulator.books()
    assert sum(batch["request_counts"]["total"] for batch in books["batches"]) == 2
    assert len(books["executed"]) == 2


async def test_a_request_that_has_no_day_is_never_sent_to_a_batch(world: World) -> None:
    async with batches(world) as (emulator, settings):
        async with world.daemon(**settings):
            submitted = await world.submit(ttl_slots=2_000)
            assert (await world.ended(submitted)).header.status is Status.FULFILLED
        assert emulator.books()["batches"] == []
