"""Keeps the prices of SOL and NOS fresh, and wakes those who wait for one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal

from oracle.config.rates import RateSettings
from oracle.core.lifecycle import State
from oracle.core.price import Price, PriceTerms
from oracle.pipeline import submit
from oracle.pipeline.context import Context
from oracle.providers.errors import PRICE_STALE
from oracle.providers.price_feed import LiveRates, PriceReader, Quotation
from oracle.store import requests

WAITING = (State.SEEN, *submit.STATES)
"""Where quotes are asked for."""


def live(settings: RateSettings, now: Callable[[], float]) -> LiveRates:
    """Prices as they are configured, to be read where an address is named. `now` is monotonic; close it."""
    share, seconds = Decimal(str(settings.max_change_share)), settings.timeout_seconds
    sol = PriceTerms(settings.sol_usd_least, settings.sol_usd_most, share)
    nos = PriceTerms(settings.nos_usd_least, settings.nos_usd_most, share)
    sol_reader, nos_reader = None, None
    if settings.sol_usd_url is not None:
        sol = replace(sol, max_age_seconds=settings.max_age_seconds)
        url = settings.sol_usd_url.get_secret_value()
        sol_reader = PriceReader("SOL", url, settings.sol_usd_pointer, timeout_seconds=seconds)
    if settings.nos_usd_url is not None:
        nos = replace(nos, max_age_seconds=settings.max_age_seconds)
        url = settings.nos_usd_url.get_secret_value()
        nos_reader = PriceReader("NOS", url, settings.nos_usd_pointer, timeout_seconds=seconds)
    return LiveRates(
        Quotation("SOL", Price(sol, settings.sol_usd, now()), now, sol_reader),
        Quotation("NOS", Price(nos, settings.nos_usd, now()), now, nos_reader),
        settings.refresh_seconds,
    )


async def run(context: Context) -> None:
    """For ever."""
    while True:
        stale = [quotation for quotation in context.rates.all if quotation.is_stale]
        await context.rates.refresh()
        if any(not quotation.is_stale for quotation in stale):
            now_ms = context.clock.now_ms()
            await context.write(lambda c, now_ms=now_ms: requests.wake(c, WAITING, PRICE_STALE.code, now_ms), *WAITING)  # type: ignore[misc]
        await asyncio.sleep(context.rates.refresh_seconds)
