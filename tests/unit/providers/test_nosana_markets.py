"""Markets listed with GPU, price and queue, and which of them is chosen (nosana.md §4.7, §5, §7.8)."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest
from nosana_wire import MARKET, MARKETS, OTHER_MARKET

from oracle.core.errors import OracleError
from oracle.providers.nosana import markets
from oracle.providers.nosana.markets import Market, Wanted, read_market

WANTED = Wanted(Decimal("0.5"), min_vram_gb=8, max_queued_jobs=5)
LISTED = [market for item in MARKETS if (market := read_market(item)) is not None]
FREE = {MARKET: 0, OTHER_MARKET: 2}


def only(**changes: Any) -> list[Market]:
    """The 3060 market, changed."""
    return [replace(next(market for market in LISTED if market.address == MARKET), **changes)]


def test_every_market_is_listed_and_the_cheapest_that_fits_is_chosen() -> None:
    first, second = markets.listings(LISTED, FREE, WANTED, None)
    assert (first.slug, first.gpu_types, first.lowest_vram_gb) == ("nvidia-3060", ("NVIDIA GeForce RTX 3060",), 8)
    # The reward and a tenth of network fee.
    assert (first.usd_per_hour, first.queued, first.why_not, first.is_chosen) == (Decimal("0.04796"), 0, "", True)
    assert (second.slug, second.usd_per_hour, second.queued) == ("nvidia-4090-community", Decimal("0.2399925"), 2)
    assert (second.why_not, second.is_chosen) == ("", False)


@pytest.mark.parametrize(
    ("wanted", "changes", "queued", "why_not"),
    [
        ({"markets": ("nvidia-4090",)}, {}, 0, "not allowed"),
        ({"kinds": ("OTHER",)}, {}, 0, "not allowed"),
        ({"min_vram_gb": 12}, {}, 0, "less than 12 GB"),
        ({}, {"lowest_vram_gb": None}, 0, "less than 8 GB"),
        ({}, {"reward_usd_per_hour": None}, 0, "no known price"),
        ({"max_usd_per_hour": Decimal("0.01")}, {}, 0, "above 0.01 USD an hour"),
        ({}, {}, None, "queue not known"),
        ({}, {}, 6, "6 jobs waiting"),
        ({}, {}, 5, ""),
    ],
)
def test_a_market_that_is_not_used_says_why_and_is_never_chosen(
    wanted: dict[str, Any], changes: dict[str, Any], queued: int | None, why_not: str
) -> None:
    waiting = {} if queued is None else {MARKET: queued}
    (listing,) = markets.listings(only(**changes), waiting, replace(WANTED, **wanted), None)
    assert listing.why_not == why_not
    assert listing.is_chosen == (why_not == "")


@pytest.mark.parametrize("queued", [{MARKET: 0, OTHER_MARKET: 0}, {MARKET: 9, OTHER_MARKET: 0}, {OTHER_MARKET: 0}, {}])
@pytest.mark.parametrize("refused", [(), (MARKET,)])
@pytest.mark.parametrize("cap", ["0.5", "0.1", "0.01"])
def test_what_is_listed_as_chosen_is_what_is_bought(queued: dict[str, int], refused: tuple[str, ...], cap: str) -> None:
    wanted = replace(WANTED, max_usd_per_hour=Decimal(cap))
    chosen = [one.address for one in markets.listings(LISTED, queued, wanted, None, refused) if one.is_chosen]
    try:
        offer = markets.choose(markets.fitting(LISTED, wanted, None), queued, wanted, refused)
    except OracleError:
        assert chosen == []
    else:
        assert chosen == [offer.market.address]
