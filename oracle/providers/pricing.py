"""What a job costs in lamports, from prices in USD or NOS and the price of SOL. Pure, rounded up."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from decimal import ROUND_CEILING, Decimal
from typing import Final, Protocol

from oracle.core.compute import Money, Quote, Task
from oracle.core.errors import OracleError
from oracle.providers import errors

LAMPORTS_PER_SOL: Final = 1_000_000_000
_MILLION: Final = Decimal(1_000_000)

# English has about four bytes a token, code and other scripts fewer: three err on the dear side, as a quote should.
_BYTES_PER_TOKEN: Final = 3
_TOKENS_PER_MESSAGE: Final = 8


class Rates(Protocol):
    """USD for one SOL and one NOS as they are now: asked at every quote, and never kept.

    Both raise ORC-PROVIDER-020 where the price is not known, and 080 where it is too old.
    """

    def usd_per_sol(self) -> Decimal: ...

    def usd_per_nos(self) -> Decimal: ...


@dataclass(frozen=True, slots=True)
class FixedRates:
    """None where nobody has said: then only what is free can be quoted."""

    sol_usd: Decimal | None = None
    nos_usd: Decimal | None = None

    def usd_per_sol(self) -> Decimal:
        if self.sol_usd is None:
            raise errors.PRICE_UNKNOWN("sol_usd is not configured")
        return self.sol_usd

    def usd_per_nos(self) -> Decimal:
        if self.nos_usd is None:
            raise errors.PRICE_UNKNOWN("nos_usd is not configured")
        return self.nos_usd


NO_RATES: Final = FixedRates()


@dataclass(frozen=True, slots=True)
class TokenPrice:
    """USD per million tokens."""

    input: Decimal = Decimal(0)
    output: Decimal = Decimal(0)


PriceOf = Callable[[str], Awaitable[TokenPrice]]
"""The price of a model, by the provider's own name of it. Raises `OracleError` where it is not known."""


def fixed(price: TokenPrice) -> PriceOf:
    """The same price for every model."""

    async def price_of(model: str) -> TokenPrice:
        return price

    return price_of


FREE: Final = fixed(TokenPrice())


def quoted_usd(task: Task, price: TokenPrice) -> Decimal:
    """What `task` costs at most: all its output tokens, and its input counted generously."""
    return token_cost_usd(price, estimated_input_tokens(task), task.max_output_tokens)


def estimated_input_tokens(task: Task) -> int:
    size = sum(len(message.content.encode()) for message in task.messages)
    return -(-size // _BYTES_PER_TOKEN) + _TOKENS_PER_MESSAGE * (len(task.messages) + 1)


def token_cost_usd(price: TokenPrice, input_tokens: int, output_tokens: int) -> Decimal:
    return (price.input * input_tokens + price.output * output_tokens) / _MILLION


def usd_quote(usd: Decimal, rates: Rates, expected_seconds: float | None = None) -> Quote:
    return Quote(usd_to_lamports(usd, rates), Money(float(usd), "USD"), expected_seconds)


def usd_to_lamports(usd: Decimal, rates: Rates) -> int:
    """Lamports worth `usd`. Nothing is worth nothing, whatever the price; else raises where SOL has none."""
    if usd == 0:
        return 0
    return int((usd / rates.usd_per_sol() * LAMPORTS_PER_SOL).to_integral_value(ROUND_CEILING))


def nos_to_usd(nos: Decimal, rates: Rates) -> Decimal:
    """Raises where NOS has no price."""
    return nos * rates.usd_per_nos() if nos else Decimal(0)


def nos_usd_if_known(rates: Rates) -> Decimal | None:
    try:
        return rates.usd_per_nos()
    except OracleError:
        return None
