"""A landlord and servers in memory, with a clock that moves only when somebody sleeps."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from dataclasses import replace
from decimal import Decimal

from oracle.core.compute import Completion, Embeddings, Money, Piece, Task
from oracle.core.errors import OracleError
from oracle.providers import errors
from oracle.providers.rented.boot import Patience
from oracle.providers.rented.landlord import Naming, Rental, RentalPrice, RentalState
from oracle.providers.rented.server import RentedServer

NAMING = Naming("oracle-fast", "0123abcd")
PATIENCE = Patience(boot=100.0, expected_boot=60.0, idle=300.0, tend=60.0, settle=30.0, retire=120.0, poll=5.0)
PRICE = RentalPrice(Decimal("3.6"))


class FakeClock:
    """Unix seconds and monotonic seconds in one. Sleeping moves it, and lets everyone else run."""

    def __init__(self) -> None:
        self.time = 1_000.0

    def __call__(self) -> float:
        return self.time

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(0)
        self.time += seconds
        await asyncio.sleep(0)


class FakeServer:
    """Answers with the id of its rental. `boots` looks go by before it is ready."""

    def __init__(self, rental: Rental, boots: int = 0) -> None:
        self.rental = rental
        self.boots = boots
        self.failure: OracleError | None = None
        self.gate: asyncio.Event | None = None
        self.is_closed = False
        self.is_gone = False
        self.asked = 0

    async def is_ready(self) -> bool:
        self.boots -= 1
        return self.boots < 0 and not self.is_gone

    async def complete(self, task: Task) -> Completion:
        self.asked += 1
        if self.gate is not None:
            await self.gate.wait()
        if self.failure is not None:
            raise self.failure
        return Completion(self.rental.id, task.model, "stop", 1, 1)

    async def stream(self, task: Task) -> AsyncGenerator[Piece | Completion, None]:
        yield Piece(self.rental.id, task.model)
        yield await self.complete(task)

    async def embed(self, model: str, texts: Sequence[str], *, seconds: float) -> Embeddings:
        return Embeddings(tuple((1.0,) for _ in texts), model)

    async def models(self) -> Sequence[str]:
        return ("m",)

    async def close(self) -> None:
        self.is_closed = True


class FakeLandlord:
    """Keeps rentals. `create_fails`, `destroy_fails` and `list_fails` are raised once each, in their order.

    Where `create_is_lost`, the next create rents, but its answer is lost; its rental is listed after `shows_after`
    more questions for the list.
    """

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock
        self.books: dict[str, Rental] = {}
        self.created: list[str] = []
        self.servers: list[FakeServer] = []
        self.create_fails: list[OracleError] = []
        self.destroy_fails: list[OracleError] = []
        self.list_fails: list[OracleError] = []
        self.create_is_lost = False
        self.shows_after = 0
        self.boots = 0
        self.lasts_seconds: float | None = None
        self.is_closed = False

    async def price(self) -> RentalPrice:
        return PRICE

    async def create(self, name: str) -> str:
        self.created.append(name)
        if self.create_fails:
            raise self.create_fails.pop(0)
        await asyncio.sleep(0)
        rental = self.add(name)
        if self.create_is_lost:
            self.create_is_lost = False
            raise errors.NO_ANSWER("the answer to create was lost")
        return rental.id

    def add(self, name: str) -> Rental:
        ends_at = None if self.lasts_seconds is None else self.clock() + self.lasts_seconds
        number = len(self.books) + 1
        address = f"https://server-{number}.example/v1"
        rental = Rental(f"id-{number}", name, RentalState.RUNNING, self.clock(), ends_at, address, PRICE)
        self.books[rental.id] = rental
        return rental

    def end(self, rental_id: str) -> None:
        self.books[rental_id] = replace(self.books[rental_id], state=RentalState.ENDED)

    def running(self) -> list[str]:
        return [rental.id for rental in self.books.values() if rental.state is not RentalState.ENDED]

    async def rentals(self, prefix: str) -> Sequence[Rental]:
        if self.list_fails:
            raise self.list_fails.pop(0)
        await asyncio.sleep(0)
        if self.shows_after > 0:
            self.shows_after -= 1
            return []
        return [replace(one, address=None) for one in self.books.values() if one.name.startswith(prefix)]

    async def look(self, rental: Rental) -> Rental | None:
        return self.books.get(rental.id)

    async def destroy(self, rental: Rental) -> None:
        if self.destroy_fails:
            raise self.destroy_fails.pop(0)
        self.end(rental.id)

    def connect(self, rental: Rental) -> FakeServer:
        self.servers.append(FakeServer(rental, self.boots))
        return self.servers[-1]

    async def balance(self) -> Money | None:
        return Money(5.0, "USD")

    async def close(self) -> None:
        self.is_closed = True


def rented(
    landlord: FakeLandlord, *, naming: Naming = NAMING, patience: Patience = PATIENCE, expected_answers: int = 1
) -> RentedServer:
    clock = landlord.clock
    return RentedServer(
        landlord,
        landlord.connect,
        naming,
        patience=patience,
        expected_answers=expected_answers,
        clock=clock,
        now=clock,
        sleep=clock.sleep,
    )
