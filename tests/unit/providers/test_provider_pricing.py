"""Prices in lamports."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from provider_wire import TASK

from oracle.core.compute import Money
from oracle.core.errors import OracleError
from oracle.providers import errors
from oracle.providers.pricing import (
    NO_RATES,
    FixedRates,
    TokenPrice,
    estimated_input_tokens,
    nos_to_usd,
    quoted_usd,
    usd_quote,
    usd_to_lamports,
)


def test_the_input_is_counted_generously() -> None:
    assert estimated_input_tokens(TASK) == 8 + 16


def test_a_quote_is_kept_in_lamports_and_told_in_dollars() -> None:
    quote = usd_quote(quoted_usd(TASK, TokenPrice(Decimal(1), Decimal(2))), FixedRates(sol_usd=Decimal(200)))
    assert (quote.cost_lamports, quote.cost) == (440, Money(0.000088, "USD"))


def test_what_costs_something_cannot_be_quoted_without_a_price_of_sol() -> None:
    with pytest.raises(OracleError) as caught:
        usd_to_lamports(Decimal("0.01"), NO_RATES)
    assert caught.value.error is errors.PRICE_UNKNOWN
    with pytest.raises(OracleError):
        nos_to_usd(Decimal(1), FixedRates(sol_usd=Decimal(1)))


def test_what_costs_nothing_needs_no_price_of_sol() -> None:
    assert usd_to_lamports(Decimal(0), NO_RATES) == 0
    assert nos_to_usd(Decimal(0), NO_RATES) == 0


def test_nos_is_worth_its_price() -> None:
    assert nos_to_usd(Decimal("2.5"), FixedRates(nos_usd=Decimal("0.3"))) == Decimal("0.75")


@given(usd=st.decimals(0, 1000, places=9), sol=st.decimals("0.01", 10_000, places=2))
def test_lamports_are_never_rounded_below_the_cost(usd: Decimal, sol: Decimal) -> None:
    lamports = usd_to_lamports(usd, FixedRates(sol_usd=sol))
    assert Decimal(lamports) * sol >= usd * 1_000_000_000
