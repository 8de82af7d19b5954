"""What renting a server needs of a network that rents them out, and of the server: two narrow Protocols."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from typing import Final, Protocol

from oracle.core.compute import Chat, Money

_HOUR: Final = Decimal(3600)


class RentalState(StrEnum):
    STARTING = "starting"
    RUNNING = "running"
    """Charged for. Whether the server inside serves is another question."""
    FAILED = "failed"
    """It will not serve. It may still cost something, and must be ended."""
    ENDED = "ended"
    """Nothing runs and nothing more is charged, or it is about to be so without anyone's doing."""


@dataclass(frozen=True, slots=True)
class RentalPrice:
    """What a server costs. `least_seconds` are paid however early it is given back, and never more than
    `most_seconds`: where they are the same, its whole time is paid ahead."""

    usd_per_hour: Decimal
    least_seconds: float = 0.0
    most_seconds: float = math.inf

    def cost_usd(self, seconds: float) -> Decimal:
        paid = max(min(seconds, self.most_seconds), self.least_seconds, 0.0)
        return self.usd_per_hour * Decimal(str(paid)) / _HOUR


@dataclass(frozen=True, slots=True)
class Rental:
    """A server as its landlord tells of it. Times are unix seconds.

    `address` leads to its OpenAI-compatible API, `/v1` included; None until it is known. `price` None: not known.
    `why` says what keeps it from coming up, or ended it, where the landlord tells.
    """

    id: str
    name: str
    state: RentalState
    created_at: float
    ends_at: float | None = None
    address: str | None = None
    price: RentalPrice | None = None
    why: str = ""


class Landlord(Protocol):
    """A network that rents servers out. Methods raise `OracleError`."""

    async def price(self) -> RentalPrice:
        """Of a server that would be rented now. Raises ORC-PROVIDER-026 where none fits the configuration."""

    async def create(self, name: str) -> str:
        """Rent a server and return its id. Raises `UNKNOWN` where it may have been rented all the same: it is then
        looked for by its name, and the same name is used again where it does not show, unless it is ORC-PROVIDER-055.
        """

    async def rentals(self, prefix: str) -> Sequence[Rental]:
        """Every rental whose name begins so, those that ended included as long as they are listed.

        All of them, or it raises: what is missing in the answer counts as absent (law 5).
        """

    async def look(self, rental: Rental) -> Rental | None:
        """The same rental now, with its address where that is known; None where there is no such rental.

        One that was made but waits to be started is started: only a server that is wanted is looked at.
        """

    async def destroy(self, rental: Rental) -> None:
        """End it, so that nothing more is charged. One that has ended, or is gone, stays so."""

    async def balance(self) -> Money | None: ...

    async def close(self) -> None: ...


class Server(Chat, Protocol):
    """The inference server that runs in a rental."""

    async def is_ready(self) -> bool:
        """Whether it would answer now, with the model that was asked for."""


@dataclass(frozen=True, slots=True)
class Naming:
    """Names of the servers of one provider: `<prefix>-<fingerprint>-<number>`.

    The name is all by which a server is found again after a crash. `fingerprint` stands for what runs in it, so that a
    server of an earlier configuration is not taken for one of this; the number keeps names apart where a landlord
    refuses one that was ever used.
    """

    prefix: str
    fingerprint: str

    def is_ours(self, name: str) -> bool:
        return self._number(name, r"[0-9a-f]{8}") is not None

    def is_current(self, name: str) -> bool:
        return self._number(name, re.escape(self.fingerprint)) is not None

    def next(self, names: Sequence[str]) -> str:
        """The name after all of `names`: the same again until a server of that name is among them."""
        numbers = [number for name in names if (number := self._number(name, r"[0-9a-f]{8}")) is not None]
        return f"{self.prefix}-{self.fingerprint}-{max(numbers, default=0) + 1}"

    def _number(self, name: str, fingerprint: str) -> int | None:
        match = re.fullmatch(rf"{re.escape(self.prefix)}-{fingerprint}-(\d{{1,9}})", name)
        return int(match[1]) if match else None
