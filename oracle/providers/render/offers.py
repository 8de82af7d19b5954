"""The cheapest hardware on offer that fits, read at most once a minute. An offer is a price, not a reservation (§7)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from decimal import Decimal
from typing import Final

from oracle.providers import errors
from oracle.providers.render.api import DispersedApi, Offer
from oracle.providers.render.container import Terms

_FRESH_SECONDS: Final = 60.0


class Offers:
    def __init__(
        self,
        api: DispersedApi,
        terms: Terms,
        max_usd_per_hour: Decimal,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.max_usd_per_hour = max_usd_per_hour
        self._api = api
        self._terms = terms
        self._clock = clock
        self._reading = asyncio.Lock()
        self._read_at: float | None = None
        self._offers: list[Offer] = []

    async def best(self) -> Offer:
        """The cheapest with one GPU: a node of several bills all of them. Raises ORC-PROVIDER-026."""
        async with self._reading:
            if self._read_at is None or self._clock() - self._read_at > _FRESH_SECONDS:
                self._offers = await self._api.offers(
                    min_vram_gb=self._terms.min_vram_gb,
                    min_ram_gb=self._terms.min_ram_gb,
                    min_storage_gb=self._terms.min_storage_gb,
                    regions=",".join(self._terms.regions),
                )
                self._read_at = self._clock()
        fitting = [offer for offer in self._offers if self._fits(offer)]
        if not fitting:
            raise errors.NO_MARKET(
                f"{len(self._offers)} offers, none with one GPU within {self.max_usd_per_hour} USD/h"
            )
        return min(fitting, key=lambda offer: offer.usd_per_hour)

    def _fits(self, offer: Offer) -> bool:
        return (
            offer.gpu_count == 1
            and offer.usd_per_hour <= self.max_usd_per_hour
            and offer.vram_gb >= self._terms.min_vram_gb
            and bool(offer.gpu_registry_uuid or offer.gpu_name)
        )
