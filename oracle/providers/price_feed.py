"""Prices of SOL and NOS that are read from an address of the operator's choice, and believed with care."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Final, Protocol
from urllib.parse import parse_qsl, urlsplit

import structlog

from oracle.core.errors import OracleError
from oracle.core.json_pointer import resolve
from oracle.core.price import Price, Verdict
from oracle.providers import errors
from oracle.providers.http import Http, Timeouts
from oracle.providers.pace import Pace

log = structlog.get_logger(__name__)

AGAIN_SECONDS: Final = 30.0
"""Whoever waits for a price looks again so late; as soon as one has been read, it is woken."""

MAX_ANSWER_BYTES: Final = 256 * 1024
_NUMBER: Final = re.compile(r"[0-9]{1,30}(\.[0-9]{1,30})?", re.ASCII)
_SHORTEST_KEY: Final = 12
"""Parts of a path that are shorter are words, and no keys."""


class Reader(Protocol):
    """Where a price comes from."""

    @property
    def host(self) -> str: ...

    async def read(self) -> Decimal: ...

    async def close(self) -> None: ...


class PriceReader:
    """One JSON document behind an address, in which a pointer names the price. No redirect is followed."""

    def __init__(self, coin: str, url: str, pointer: str, *, timeout_seconds: float) -> None:
        self.host = urlsplit(url).netloc.rpartition("@")[2]
        self._coin = coin
        self._pointer = pointer
        self._seconds = timeout_seconds
        self._http = Http(
            f"price of {coin}",
            url,
            pace=Pace(),
            secrets=_secrets(url),
            timeouts=Timeouts(connect=timeout_seconds, silence=timeout_seconds, total=timeout_seconds),
            max_answer_bytes=MAX_ANSWER_BYTES,
        )

    async def read(self) -> Decimal:
        """Raises an ORC-PROVIDER code where there is no price, or none that can be told."""
        answer = await self._http.call("GET", "", repeatable=True, seconds=self._seconds)
        document = self._http.json(answer, repeatable=True)
        try:
            return number(resolve(document, self._pointer))
        except (LookupError, ValueError):
            raise self._http.unreadable(f"no number at pointer {self._pointer!r}", repeatable=True) from None

    async def close(self) -> None:
        await self._http.close()


@dataclass(slots=True)
class Quotation:
    """The price of one coin: as configured, as read, or not known. `now` is monotonic."""

    coin: str
    price: Price
    now: Callable[[], float]
    reader: Reader | None = None
    trouble: OracleError | None = None
    """Why the last reading brought no price that is believed."""

    def usd(self) -> Decimal:
        """Raises ORC-PROVIDER-020 where nobody has named a price, and 080 where the price is too old."""
        usd = self.price.current(self.now())
        if usd is not None:
            return usd
        if self.reader is None:
            raise errors.PRICE_UNKNOWN(f"neither {self.coin.lower()}_usd nor {self.coin.lower()}_usd_url is set")
        raise self.staleness()

    @property
    def is_stale(self) -> bool:
        """It should be known, and is not, or not well enough."""
        return self.reader is not None and self.price.current(self.now()) is None

    def staleness(self) -> OracleError:
        known = "never read"
        if self.price.usd is not None:
            known = f"{self.price.usd} USD is {self.price.age_seconds(self.now()):.0f} s old"
        said = f"; {self.trouble}" if self.trouble is not None else ""
        return errors.PRICE_STALE(f"{self.coin}: {known}{said}", retry_after_seconds=AGAIN_SECONDS)

    async def refresh(self) -> None:
        """One reading, where there is a reader. A failure is kept, and the price ages on."""
        if self.reader is None:
            return
        try:
            usd = await self.reader.read()
        except OracleError as error:
            self._note(error)
            return
        before = self.price.usd
        match self.price.hear(usd, self.now()):
            case Verdict.BELIEVED:
                self._note(None)
            case Verdict.DOUBTED:
                self._note(errors.PRICE_DOUBTED(f"{self.coin}: {usd} USD after {before} USD"))
            case Verdict.OUT_OF_BOUNDS:
                bounds = f"{self.price.terms.least} … {self.price.terms.most}"
                self._note(errors.PRICE_DOUBTED(f"{self.coin}: {usd} USD is not within {bounds}"))

    def _note(self, trouble: OracleError | None) -> None:
        if trouble is not None:
            log.warning("price not read", coin=self.coin, code=trouble.code, detail=trouble.detail)
        elif self.trouble is not None:
            log.info("price read again", coin=self.coin)
        self.trouble = trouble


@dataclass(frozen=True, slots=True)
class LiveRates:
    """Implements `Rates`. Everybody who quotes shares it, so a price that is read is everybody's at once."""

    sol: Quotation
    nos: Quotation
    refresh_seconds: float = 60.0
    all: tuple[Quotation, ...] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "all", (self.sol, self.nos))

    def usd_per_sol(self) -> Decimal:
        return self.sol.usd()

    def usd_per_nos(self) -> Decimal:
        return self.nos.usd()

    async def refresh(self) -> None:
        await asyncio.gather(*(quotation.refresh() for quotation in self.all))

    async def close(self) -> None:
        await asyncio.gather(*(each.reader.close() for each in self.all if each.reader is not None))


def number(value: Any) -> Decimal:
    """A price as JSON states it, as a number or in a string. Raises `ValueError` for anything else."""
    if isinstance(value, str) and _NUMBER.fullmatch(value):
        return Decimal(value)
    if isinstance(value, int | float) and not isinstance(value, bool):
        return Decimal(str(value))
    raise ValueError("not a price")


def _secrets(url: str) -> tuple[str, ...]:
    """What in an address may be a key, so that no error repeats it."""
    parts = urlsplit(url)
    keys = [parts.query, parts.password, *(value for _, value in parse_qsl(parts.query))]
    keys += [part for part in parts.path.split("/") if len(part) >= _SHORTEST_KEY]
    return (url, *(key for key in keys if key))
