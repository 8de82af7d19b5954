"""What `oracle doctor` says about the prices of SOL and NOS: read once, measured against what is configured."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

from oracle.config import Config
from oracle.pipeline import prices
from oracle.pipeline.findings import CheckResult, Health, failed, ok
from oracle.providers.price_feed import LiveRates, Quotation


@asynccontextmanager
async def read_once(config: Config) -> AsyncIterator[LiveRates]:
    rates = prices.live(config.rates, time.monotonic)
    try:
        await rates.refresh()
        yield rates
    finally:
        await rates.close()


def checked(rates: LiveRates) -> Iterator[CheckResult]:
    """Each price that is configured or read, with its age. A price that nobody has named is a matter of the routes."""
    for quotation in rates.all:
        if quotation.is_stale:
            yield failed(_label(quotation), quotation.staleness())
        elif quotation.price.usd is not None:
            yield _known(quotation)


def _known(quotation: Quotation) -> CheckResult:
    usd = f"{quotation.price.usd} USD"
    if quotation.reader is None:
        return ok(_label(quotation), f"{usd}, as configured")
    if (trouble := quotation.trouble) is not None:
        detail = f"{usd} as configured holds for now; {quotation.reader.host}: {trouble}"
        return CheckResult(_label(quotation), Health.WARNING, detail, trouble.error.remedy)
    age = quotation.price.age_seconds(quotation.now())
    return ok(_label(quotation), f"{usd}, read {age:.0f} s ago from {quotation.reader.host}")


def _label(quotation: Quotation) -> str:
    return f"price of {quotation.coin}"
