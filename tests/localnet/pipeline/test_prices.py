"""Prices that are read while the daemon runs."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest
from pipeline_world import World, until
from price_server import KEY, PriceServer, price_server

from oracle.core.lifecycle import State
from oracle.providers.errors import PRICE_STALE, UNAVAILABLE

pytestmark = pytest.mark.localnet
FEE = 10_000_000


@pytest.fixture
async def prices(world: World) -> AsyncIterator[PriceServer]:
    """The provider costs money, and the price of SOL is read every moment."""
    async with price_server() as server:
        world.charge(usd_per_million_tokens=100.0)
        world.settings["rates"] = {
            "sol_usd_url": server.url,
            "refresh_seconds": 0.05,
            "timeout_seconds": 0.5,
            "max_age_seconds": 1.0,
        }
        yield server


async def ready(world: World) -> httpx.Response:
    async with httpx.AsyncClient(trust_env=False, timeout=60) as http:
        return await http.get(f"{world.settings['operator']['base_uri']}/readyz")


async def test_a_request_waits_while_the_price_is_too_old_and_goes_on_when_it_is_read_again(
    world: World, prices: PriceServer
) -> None:
    prices.says({"solana": {"usd": 100}})
    async with world.daemon() as daemon:
        await world.reaches(daemon, await world.submit(fee_lamports=FEE, nonce=1), State.SETTLED)
        prices.says(b"", "503 Service Unavailable")

        async def old() -> bool:
            return daemon.context.rates.sol.is_stale

        await until(old, "a price that is too old")
        asked = len(world.model.requests)
        submitted = await world.submit(fee_lamports=FEE, nonce=2)
        row = await world.waits(daemon, submitted, PRICE_STALE)
        assert (row.state, row.retries, len(world.model.requests)) == (State.SEEN, 0, asked)

        async def told() -> str | None:
            said = await ready(world)
            return said.json()["problems"].get("price of SOL") if said.status_code == 503 else None

        said = await until(told, "the price in /readyz")
        assert PRICE_STALE.code in said
        assert UNAVAILABLE.code in said
        assert KEY not in said
        prices.says({"solana": {"usd": 101}})
        await world.reaches(daemon, submitted, State.SETTLED)


async def test_a_quote_follows_the_price(world: World, prices: PriceServer) -> None:
    world.settings["rates"] |= {"timeout_seconds": 60, "max_age_seconds": 600}
    prices.says({"solana": {"usd": 100}})
    async with world.daemon() as daemon:

        async def read() -> bool:
            return not daemon.context.rates.sol.is_stale

        await until(read, "a price")
        before = await world.quote(daemon, "What is the capital of Japan?")
        prices.says({"solana": {"usd": 80}})

        async def confirmed() -> bool:
            return daemon.context.rates.usd_per_sol() == 80

        # A fall by a fifth of the higher price is a change of a quarter: it takes two readings.
        await until(confirmed, "the new price")
        assert await world.quote(daemon, "What is the capital of Japan?") == pytest.approx(before * 1.25, abs=1)
