"""Which GPU market a job is bought on: the cheapest that fits. Pure. Source: specs/nosana.md §4.7, §5."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal, InvalidOperation
from typing import Any, Final

from oracle.providers import errors

_SECONDS_PER_HOUR: Final = 3600


@dataclass(frozen=True, slots=True)
class Market:
    """A market as REST lists it. `lowest_vram_gb` is what its weakest host has; its card's nominal size is more."""

    address: str
    slug: str
    kind: str
    gpu_types: tuple[str, ...]
    lowest_vram_gb: float | None
    reward_usd_per_hour: Decimal | None
    price_nos_per_second: Decimal | None
    fee_percent: Decimal

    def usd_per_hour(self, nos_usd: Decimal | None) -> Decimal | None:
        """What an hour costs with the network fee, which the USD figure leaves out and the NOS figure holds."""
        if self.reward_usd_per_hour is not None:
            return self.reward_usd_per_hour * (1 + self.fee_percent / 100)
        if self.price_nos_per_second is not None and nos_usd is not None:
            return self.price_nos_per_second * _SECONDS_PER_HOUR * nos_usd
        return None


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a job needs. `markets` are addresses or slugs; empty means any. `kinds` are PREMIUM, COMMUNITY, OTHER."""

    max_usd_per_hour: Decimal
    min_vram_gb: int
    max_queued_jobs: int
    markets: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ("PREMIUM", "COMMUNITY")


@dataclass(frozen=True, slots=True)
class Offer:
    market: Market
    usd_per_hour: Decimal


@dataclass(frozen=True, slots=True)
class Listing:
    """A market for a person to look at. `why_not` says what keeps it from being used; empty where it may be.

    `usd_per_hour` holds the network fee. `queued` are the jobs that wait for a host, None where nobody asked.
    """

    address: str
    slug: str
    kind: str
    gpu_types: tuple[str, ...]
    lowest_vram_gb: float | None
    usd_per_hour: Decimal | None
    queued: int | None
    why_not: str
    is_chosen: bool = False


def listings(
    markets: Sequence[Market],
    queued: Mapping[str, int],
    wanted: Wanted,
    nos_usd: Decimal | None,
    refused: Collection[str] = (),
) -> tuple[Listing, ...]:
    """Every market, those that may be used first and the cheapest of them chosen: as `fitting` and `choose` do it."""
    found = []
    for market in markets:
        price = market.usd_per_hour(nos_usd)
        waiting = queued.get(market.address)
        why_not = _why_not(market, price, waiting, wanted, refused)
        kept = (market.address, market.slug, market.kind, market.gpu_types, market.lowest_vram_gb)
        found.append(Listing(*kept, price, waiting, why_not))
    found.sort(key=lambda one: (one.why_not != "", one.usd_per_hour is None, one.usd_per_hour or 0, one.address))
    if found and not found[0].why_not:
        found[0] = replace(found[0], is_chosen=True)
    return tuple(found)


def _why_not(
    market: Market, price: Decimal | None, waiting: int | None, wanted: Wanted, refused: Collection[str]
) -> str:
    if not is_allowed(market, wanted):
        return "not allowed"
    if not _is_large(market, wanted):
        return f"less than {wanted.min_vram_gb} GB"
    if not price:
        return "no known price"
    if price > wanted.max_usd_per_hour:
        return f"above {wanted.max_usd_per_hour} USD an hour"
    if market.address in refused:
        return "has refused credits"
    if waiting is None:
        return "queue not known"
    return f"{waiting} jobs waiting" if waiting > wanted.max_queued_jobs else ""


def fitting(markets: Sequence[Market], wanted: Wanted, nos_usd: Decimal | None) -> tuple[Offer, ...]:
    """Every market that fits, cheapest first. Raises ORC-PROVIDER-026 with the reason where none does."""
    allowed = [market for market in markets if is_allowed(market, wanted)]
    large = [market for market in allowed if _is_large(market, wanted)]
    priced = [(market, price) for market in large if (price := market.usd_per_hour(nos_usd)) is not None and price > 0]
    offers = [Offer(market, price) for market, price in priced if price <= wanted.max_usd_per_hour]
    if not offers:
        raise errors.NO_MARKET(
            f"of {len(markets)}, {len(allowed)} are allowed, {len(large)} of those have {wanted.min_vram_gb} GB, "
            f"{len(priced)} of those a known price, and none costs at most {wanted.max_usd_per_hour} USD an hour"
        )
    return tuple(sorted(offers, key=lambda offer: (offer.usd_per_hour, offer.market.address)))


def choose(offers: Sequence[Offer], queued: Mapping[str, int], wanted: Wanted, refused: Collection[str] = ()) -> Offer:
    """The cheapest whose queue is short enough and which has not refused us.

    A market whose queue is not in `queued` is taken for busy. Raises ORC-PROVIDER-026.
    """
    for offer in offers:
        address = offer.market.address
        if address not in refused and address in queued and queued[address] <= wanted.max_queued_jobs:
            return offer
    raise errors.NO_MARKET(f"of {len(offers)} that fit, none has at most {wanted.max_queued_jobs} jobs waiting")


def read_market(item: Any) -> Market | None:
    """One entry of `GET /markets/`; None for what is no market."""
    if not isinstance(item, dict) or not isinstance(item.get("address"), str):
        return None
    types = item.get("gpu_types")
    vram = item.get("lowest_vram")
    return Market(
        address=item["address"],
        slug=item["slug"] if isinstance(item.get("slug"), str) else "",
        kind=item["type"] if isinstance(item.get("type"), str) else "",
        gpu_types=tuple(name for name in types if isinstance(name, str)) if isinstance(types, list) else (),
        lowest_vram_gb=vram if isinstance(vram, int | float) and not isinstance(vram, bool) else None,
        reward_usd_per_hour=decimal(item.get("usd_reward_per_hour")),
        price_nos_per_second=decimal(item.get("nos_job_price_per_second")),
        fee_percent=decimal(item.get("network_fee_percentage")) or Decimal(0),
    )


def decimal(value: Any) -> Decimal | None:
    """A number that is none below zero, exactly as it was written; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float | str | Decimal):
        return None
    try:
        number = Decimal(str(value))
    except InvalidOperation:
        return None
    return number if number.is_finite() and number >= 0 else None


def is_allowed(market: Market, wanted: Wanted) -> bool:
    """Whether a market was named, or is of a kind that may be used where none was."""
    if wanted.markets:
        return market.address in wanted.markets or market.slug in wanted.markets
    return market.kind in wanted.kinds


def _is_large(market: Market, wanted: Wanted) -> bool:
    """A market that was named and does not tell its memory is trusted; one that was not named is not."""
    if market.lowest_vram_gb is None:
        return bool(wanted.markets)
    return market.lowest_vram_gb >= wanted.min_vram_gb
