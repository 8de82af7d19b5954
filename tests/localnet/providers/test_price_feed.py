"""Prices that are read from a real server, which may answer anything."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import pytest
from price_server import KEY, PriceServer, price_server
from structlog.testing import capture_logs

from oracle.config.rates import RateSettings
from oracle.core.errors import OracleError
from oracle.pipeline import prices
from oracle.providers import errors
from oracle.providers.price_feed import MAX_ANSWER_BYTES, LiveRates
from oracle.providers.pricing import usd_to_lamports

pytestmark = pytest.mark.localnet


@pytest.fixture
async def server() -> AsyncIterator[PriceServer]:
    async with price_server() as fake:
        yield fake


@dataclass
class Driven:
    now: float = 0.0

    def __call__(self) -> float:
        return self.now


@asynccontextmanager
async def rates_of(server: PriceServer, clock: Driven | None = None, **options: Any) -> AsyncIterator[LiveRates]:
    settings = RateSettings(sol_usd_url=server.url, **{"timeout_seconds": 30, **options})  # type: ignore[arg-type]
    rates = prices.live(settings, clock or Driven())
    try:
        yield rates
    finally:
        await rates.close()


@pytest.mark.parametrize("price", [142.5, "142.50", 142], ids=["a number", "a string", "a whole number"])
async def test_a_price_is_read_where_the_pointer_says_and_quotes_are_made_with_it(
    server: PriceServer, price: Any
) -> None:
    server.says({"data": [{"sol": price}]})
    async with rates_of(server, sol_usd_pointer="/data/0/sol") as rates:
        with pytest.raises(OracleError) as caught:
            usd_to_lamports(Decimal(1), rates)
        assert caught.value.error is errors.PRICE_STALE, "nothing has been read yet"
        await rates.refresh()
        assert rates.usd_per_sol() == Decimal(str(price))
        assert usd_to_lamports(Decimal(str(price)), rates) == 1_000_000_000
        assert (rates.sol.trouble, rates.sol.is_stale) == (None, False)


@pytest.mark.parametrize(
    ("body", "status", "error"),
    [
        (b"<html>maintenance</html>", "200 OK", errors.UNREADABLE_ANSWER),
        (b'{"solana": {"usd": 14', "200 OK", errors.UNREADABLE_ANSWER),
        (b"[" * 100_000, "200 OK", errors.UNREADABLE_ANSWER),
        ({"solana": {}}, "200 OK", errors.UNREADABLE_ANSWER),
        ({"solana": {"usd": None}}, "200 OK", errors.UNREADABLE_ANSWER),
        ({"solana": {"usd": True}}, "200 OK", errors.UNREADABLE_ANSWER),
        ({"solana": {"usd": "NaN"}}, "200 OK", errors.UNREADABLE_ANSWER),
        ({"solana": {"usd": "1e3"}}, "200 OK", errors.UNREADABLE_ANSWER),
        (b'{"solana": {"usd": NaN}}', "200 OK", errors.UNREADABLE_ANSWER),
        ({"solana": {"usd": [150]}}, "200 OK", errors.UNREADABLE_ANSWER),
        ({"solana": {"usd": -150}}, "200 OK", errors.PRICE_DOUBTED),
        ({"solana": {"usd": 0}}, "200 OK", errors.PRICE_DOUBTED),
        ({"solana": {"usd": 1e300}}, "200 OK", errors.PRICE_DOUBTED),
        ({"solana": {"usd": 900}}, "200 OK", errors.PRICE_DOUBTED),
        (b'{"solana": {"usd": 150}, "pad": "' + b"x" * MAX_ANSWER_BYTES + b'"}', "200 OK", errors.ANSWER_TOO_LARGE),
        ({"error": KEY}, "429 Too Many Requests", errors.RATE_LIMITED),
        ({"error": KEY}, "401 Unauthorized", errors.CREDENTIALS_REFUSED),
        ({"error": KEY}, "500 Internal Server Error", errors.UNAVAILABLE),
    ],
    ids=lambda value: value.code if isinstance(value, errors.ErrorCode) else str(value)[:40],
)
async def test_an_answer_that_is_no_price_changes_nothing_but_what_is_told(
    server: PriceServer, body: Any, status: str, error: errors.ErrorCode
) -> None:
    server.says(body, status)
    with capture_logs() as said:
        async with rates_of(server, sol_usd=Decimal(150)) as rates:
            await rates.refresh()
    assert rates.usd_per_sol() == 150
    assert rates.sol.trouble is not None
    assert rates.sol.trouble.error is error
    assert KEY not in f"{said} {rates.sol.trouble} {rates.sol.staleness()}"


async def test_a_redirect_is_not_followed(server: PriceServer) -> None:
    async with price_server() as elsewhere:
        elsewhere.says({"solana": {"usd": 151}})
        server.says(b"", "302 Found", f"Location: {elsewhere.url}\r\n")
        async with rates_of(server, sol_usd=Decimal(150)) as rates:
            await rates.refresh()
            assert (rates.usd_per_sol(), elsewhere.calls) == (150, 0)
            assert rates.sol.trouble is not None
            assert rates.sol.trouble.error is errors.WRONG_ADDRESS


async def test_a_server_that_says_nothing_costs_the_time_out_and_no_more(server: PriceServer) -> None:
    server.answer = None
    async with rates_of(server, timeout_seconds=0.5) as rates:
        await rates.refresh()
        assert rates.sol.trouble is not None
        assert rates.sol.trouble.error is errors.UNREACHABLE


async def test_a_price_that_is_not_read_again_grows_too_old_and_serves_again_once_it_is(server: PriceServer) -> None:
    clock = Driven()
    async with rates_of(server, clock, max_age_seconds=100.0) as rates:
        server.says({"solana": {"usd": 150}})
        await rates.refresh()
        server.says(b"", "503 Service Unavailable")
        clock.now = 100.0
        await rates.refresh()
        assert rates.usd_per_sol() == 150
        clock.now = 101.0
        with pytest.raises(OracleError, match=r"150 USD is 101 s old.*ORC-PROVIDER-002") as caught:
            rates.usd_per_sol()
        assert caught.value.error is errors.PRICE_STALE
        assert usd_to_lamports(Decimal(0), rates) == 0, "what is free needs no price"
        server.says({"solana": {"usd": 160}})
        await rates.refresh()
        assert rates.usd_per_sol() == 160


async def test_a_jump_waits_for_the_reading_that_confirms_it(server: PriceServer) -> None:
    async with rates_of(server, sol_usd=Decimal(150)) as rates:
        server.says({"solana": {"usd": 300}})
        await rates.refresh()
        assert rates.usd_per_sol() == 150
        await rates.refresh()
        assert rates.usd_per_sol() == 300


async def test_both_coins_may_be_read_at_one_address(server: PriceServer) -> None:
    server.says({"solana": {"usd": 150}, "nosana": {"usd": "0.31"}})
    async with rates_of(server, nos_usd_url=server.url) as rates:
        await rates.refresh()
        assert (rates.usd_per_sol(), rates.usd_per_nos()) == (150, Decimal("0.31"))
