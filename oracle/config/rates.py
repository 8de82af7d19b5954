"""`[rates]`: what one SOL and one NOS are worth, and where that is read."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated

from pydantic import AfterValidator, BaseModel, Field, model_validator

from oracle.config.section import STRICT
from oracle.config.values import PrivateWebUrl
from oracle.core.json_pointer import is_pointer


def _pointer(value: str) -> str:
    if not is_pointer(value):
        raise ValueError("expected a JSON pointer (RFC 6901), such as /solana/usd")
    return value


Usd = Annotated[Decimal, Field(gt=0, allow_inf_nan=False, strict=False)]
Pointer = Annotated[str, AfterValidator(_pointer)]


class RateSettings(BaseModel):
    """What providers charge is turned into lamports with these; without them only free providers can be quoted."""

    model_config = STRICT

    sol_usd: Usd | None = None
    """USD for one SOL. With `sol_usd_url` it is where that begins, as if it had been read at the start."""
    nos_usd: Usd | None = None
    """USD for one NOS, likewise."""
    sol_usd_url: PrivateWebUrl | None = None
    """Where the price of SOL is read, as JSON; https, unless on this machine. `${NAME}` takes an API key."""
    sol_usd_pointer: Pointer = "/solana/usd"
    """JSON pointer (RFC 6901) to the price in the answer: a number, or a string that holds one."""
    sol_usd_least: Usd = Decimal(1)
    """A lower price is never believed."""
    sol_usd_most: Usd = Decimal(10_000)
    """A higher price is never believed. A price that is read too high buys at a loss: choose it well."""
    nos_usd_url: PrivateWebUrl | None = None
    """Where the price of NOS is read; it may be the same address."""
    nos_usd_pointer: Pointer = "/nosana/usd"
    """JSON pointer to the price of NOS."""
    nos_usd_least: Usd = Decimal("0.001")
    """A lower price of NOS is never believed."""
    nos_usd_most: Usd = Decimal(100)
    """A higher price of NOS is never believed."""
    refresh_seconds: Annotated[float, Field(gt=0)] = 60.0
    """How often prices are read."""
    timeout_seconds: Annotated[float, Field(gt=0, le=60)] = 10.0
    """Time for one reading."""
    max_age_seconds: Annotated[float, Field(gt=0)] = 600.0
    """A price that was read longer ago buys nothing: requests that need it wait until it is read again."""
    max_change_share: Annotated[float, Field(gt=0)] = 0.2
    """A change from one reading to the next beyond this share is believed only when the next reading confirms it."""

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> RateSettings:
        if self.max_age_seconds < self.refresh_seconds + self.timeout_seconds:
            raise ValueError("max_age_seconds must outlast refresh_seconds and timeout_seconds together")
        for coin in ("sol", "nos"):
            least, most, start, url = (getattr(self, f"{coin}_usd{end}") for end in ("_least", "_most", "", "_url"))
            if least > most:
                raise ValueError(f"{coin}_usd_least is above {coin}_usd_most")
            if url is not None and start is not None and not least <= start <= most:
                raise ValueError(f"{coin}_usd lies beyond its own bounds")
        return self
