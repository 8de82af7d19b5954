"""Markets as they are now: prices and queues, read at most once a minute."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final

from oracle.core.errors import OracleError
from oracle.providers.nosana import markets
from oracle.providers.nosana.api import NosanaApi
from oracle.providers.nosana.markets import Listing, Offer, Wanted
from oracle.providers.pricing import NO_RATES, Rates, nos_usd_if_known

_FRESH_SECONDS: Final = 60.0
_REFUSED_SECONDS: Final = 3600.0
# The queue of a market costs a call of its own, so only the cheapest few are asked after.
_CANDIDATES: Final = 5


class MarketPlace:
    """`rates` price the markets that state no price in USD."""

    def __init__(
        self,
        api: NosanaApi,
        wanted: Wanted,
        *,
        rates: Rates = NO_RATES,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._api = api
        self._wanted = wanted
        self._rates = rates
        self._clock = clock
        self._reading = asyncio.Lock()
        self._read_at: float | None = None
        self._offers: tuple[Offer, ...] = ()
        self._queued: dict[str, int] = {}
        self._refused: dict[str, float] = {}

    async def offers(self) -> tuple[Offer, ...]:
        """The market to buy on, and after it the others that fit, cheapest first. Raises ORC-PROVIDER-026."""
        async with self._reading:
            if self._read_at is None or self._clock() - self._read_at > _FRESH_SECONDS:
                await self._read()
                self._read_at = self._clock()
        self._refused = {address: until for address, until in self._refused.items() if until > self._clock()}
        best = markets.choose(self._offers, self._queued, self._wanted, self._refused)
        return (best, *(offer for offer in self._offers if offer is not best))

    async def listings(self) -> tuple[Listing, ...]:
        """All markets with GPU, price and queue; the queue of those alone that fit otherwise."""
        listed = await self._api.markets()
        nos_usd = nos_usd_if_known(self._rates)
        known = markets.listings(listed, dict.fromkeys((one.address for one in listed), 0), self._wanted, nos_usd)
        addresses = [one.address for one in known if not one.why_not]
        counts = await asyncio.gather(*(self._count(address) for address in addresses))
        queued = {address: count for address, count in zip(addresses, counts, strict=True) if count is not None}
        return markets.listings(listed, queued, self._wanted, nos_usd, self._refused)

    def refuse(self, address: str) -> None:
        """Leave a market alone for an hour: it does not take our money."""
        self._refused[address] = self._clock() + _REFUSED_SECONDS

    async def _read(self) -> None:
        listed = await self._api.markets()
        self._offers = markets.fitting(listed, self._wanted, nos_usd_if_known(self._rates))[:_CANDIDATES]
        addresses = [offer.market.address for offer in self._offers]
        counts = await asyncio.gather(*(self._count(address) for address in addresses))
        self._queued = {address: count for address, count in zip(addresses, counts, strict=True) if count is not None}

    async def _count(self, address: str) -> int | None:
        try:
            return await self._api.queued(address)
        except OracleError:
            # One market that cannot be asked after does not hide the others.
            return None
