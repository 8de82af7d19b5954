"""Which market to list on: price and queue from the chain, GPU and memory as REST describes them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Final

from solders.pubkey import Pubkey

from oracle.core.errors import OracleError
from oracle.core.purchase import ChainView
from oracle.providers.nosana import markets, program
from oracle.providers.nosana.api import NosanaApi
from oracle.providers.nosana.markets import Listing, Market, Wanted
from oracle.providers.nosana.program import MarketAccount
from oracle.providers.pricing import Rates, nos_usd_if_known

NETWORK_FEE: Final = Decimal("1.1")
"""Whether the Jobs program still takes its tenth on top is not known, so it is reckoned with (§5)."""

_FRESH_SECONDS: Final = 10.0
_DESCRIBED_SECONDS: Final = 600.0


@dataclass(frozen=True, slots=True)
class ChainOffer:
    """`price` is what the market asks now, in millionths of a NOS per second; the USD hold the network fee too."""

    market: Pubkey
    price: int
    usd_per_hour: Decimal


class ChainMarkets:
    """Read again every few seconds: a price is fixed only when the job is listed."""

    def __init__(
        self,
        api: NosanaApi,
        view: ChainView,
        wanted: Wanted,
        rates: Rates,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._api = api
        self._view = view
        self._wanted = wanted
        self._rates = rates
        self._clock = clock
        self._reading = asyncio.Lock()
        self._described: tuple[float, tuple[Market, ...]] | None = None
        self._accounts: tuple[float, Mapping[str, MarketAccount]] | None = None

    async def best(self) -> ChainOffer:
        """The cheapest that fits and is free enough. Raises ORC-PROVIDER-020, 026 or 080."""
        nos_usd = self._rates.usd_per_nos()
        priced, queued, accounts = await self._now()
        offers = markets.fitting(priced, self._wanted, nos_usd)
        offer = markets.choose(offers, queued, self._wanted)
        address = offer.market.address
        return ChainOffer(Pubkey.from_string(address), accounts[address].price, offer.usd_per_hour)

    async def listings(self) -> tuple[Listing, ...]:
        """The allowed markets with GPU, and with price and queue as they are on chain."""
        priced, queued, _ = await self._now()
        return markets.listings(priced, queued, self._wanted, nos_usd_if_known(self._rates))

    async def _now(self) -> tuple[list[Market], dict[str, int], Mapping[str, MarketAccount]]:
        async with self._reading:
            described = await self._describe()
            accounts = await self._read(described)
        priced = [_priced(market, accounts[market.address]) for market in described if market.address in accounts]
        queued = {address: len(account.waiting) if account.holds_jobs else 0 for address, account in accounts.items()}
        return priced, queued, accounts

    def forget(self) -> None:
        """Read prices and queues anew: what was read has turned out to be old."""
        self._accounts = None

    async def _describe(self) -> tuple[Market, ...]:
        """REST's list, of which those that may be used; an address that was configured needs no description."""
        if self._described is None or self._clock() - self._described[0] > _DESCRIBED_SECONDS:
            try:
                listed = await self._api.markets()
            except OracleError:
                if not self._wanted.markets or not all(_is_address(name) for name in self._wanted.markets):
                    raise
                listed = []
            known = {market.address for market in listed}
            unknown = [name for name in self._wanted.markets if _is_address(name) and name not in known]
            listed += [Market(name, "", "", (), None, None, None, Decimal(0)) for name in unknown]
            usable = tuple(market for market in listed if markets.is_allowed(market, self._wanted))
            self._described = (self._clock(), usable)
        return self._described[1]

    async def _read(self, described: tuple[Market, ...]) -> Mapping[str, MarketAccount]:
        if self._accounts is None or self._clock() - self._accounts[0] > _FRESH_SECONDS:
            addresses = [Pubkey.from_string(market.address) for market in described if _is_address(market.address)]
            found: dict[str, MarketAccount] = {}
            for address, account in zip(addresses, await self._view.accounts(addresses), strict=True):
                if account is not None:
                    found[str(address)] = program.read_market(account.data)
            self._accounts = (self._clock(), found)
        return self._accounts[1]


def _priced(market: Market, account: MarketAccount) -> Market:
    """The chain's price in place of what REST says: it is what will be taken."""
    price = Decimal(account.price) / program.MICRO_NOS * NETWORK_FEE
    return replace(market, reward_usd_per_hour=None, price_nos_per_second=price)


def _is_address(name: str) -> bool:
    try:
        Pubkey.from_string(name)
    except ValueError:
        return False
    return True
