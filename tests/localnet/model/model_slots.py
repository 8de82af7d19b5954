"""Waits until llama.cpp's one slot is busy, or is free."""

import asyncio

import httpx

from oracle.model.server import LocalModel


async def wait_until_busy(model: LocalModel, *, deadline_seconds: float) -> None:
    await _wait(model, True, deadline_seconds)


async def wait_until_free(model: LocalModel, *, deadline_seconds: float) -> None:
    await _wait(model, False, deadline_seconds)


async def _wait(model: LocalModel, busy: bool, deadline_seconds: float) -> None:
    async with asyncio.timeout(deadline_seconds), httpx.AsyncClient(trust_env=False, timeout=60) as client:
        while True:
            slots = (await client.get(model.health_url.replace("/health", "/slots"))).json()
            if [slot["is_processing"] for slot in slots] == [busy]:
                return
