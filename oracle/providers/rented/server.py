"""The life of a rented server: found or rented, waited for, used, given back, and never left running unseen.

One at a time. What it may cost is settled before it is rented (`Landlord.price`); the purchase itself is durable by its
name, which follows from the configuration and from what the landlord lists: whoever comes after a crash finds it.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

import structlog

from oracle.core.errors import OracleError, Verdict
from oracle.providers import errors
from oracle.providers.rented.boot import Patience, until_it_serves
from oracle.providers.rented.landlord import Landlord, Naming, Rental, RentalPrice, RentalState, Server
from oracle.providers.rented.meter import Meter

log = structlog.get_logger(__name__)

# Said of a server that may have ended, or hang.
_DOUBTS: Final = (errors.UNREACHABLE, errors.NO_ANSWER, errors.UNAVAILABLE, errors.WRONG_ADDRESS)
_GIVE_BACK_SECONDS: Final = 45.0
_LONGEST_COOLING_SECONDS: Final = 3600.0


@dataclass(slots=True)
class Held:
    """A server that serves."""

    rental: Rental
    server: Server
    meter: Meter
    in_flight: int = 0
    is_doubted: bool = False


class RentedServer:
    """`connect` makes the server behind an address. `expected_answers` is how many requests are to pay for a rental."""

    def __init__(
        self,
        landlord: Landlord,
        connect: Callable[[Rental], Server],
        naming: Naming,
        *,
        patience: Patience,
        expected_answers: int = 1,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._landlord = landlord
        self._connect = connect
        self._naming = naming
        self._patience = patience
        self._expected_answers = expected_answers
        self._clock = clock
        self._now = now
        self._sleep = sleep
        # Held while rentals are looked up, made or ended: who decides on a list must be the only one to change it.
        self._deciding = asyncio.Lock()
        self._rental: Rental | None = None
        self._meter: Meter | None = None
        self._held: Held | None = None
        self._given_back: set[str] = set()
        # Names that were given away, by what is no longer listed or not ours.
        self._taken: list[str] = []
        self._renting: asyncio.Task[Held] | None = None
        self._users = 0
        self._idle_since = clock()
        self._failures = 0
        self._cool_until = clock()
        self._is_mine = False
        self._is_tended = False
        self._is_closing = False

    @property
    def is_serving(self) -> bool:
        return self._usable() is not None

    async def price(self) -> RentalPrice:
        """Of the server that is there, or of the one that would be rented."""
        if self._held is not None and self._held.rental.price is not None:
            return self._held.rental.price
        return await self._landlord.price()

    @contextlib.asynccontextmanager
    async def use(self, seconds: float) -> AsyncIterator[Held]:
        """A server that serves, rented if there is none. Raises ORC-PROVIDER-014 where none does in that time."""
        self._users += 1
        try:
            held = await self._serving(seconds)
            held.in_flight += 1
            try:
                yield held
            except OracleError as error:
                if error.verdict is Verdict.GIVE_UP and not await held.server.is_ready():
                    # Whoever refused, such as the tunnel that led to it, was not the server.
                    held.is_doubted = True
                    raise errors.UNAVAILABLE(f"{held.rental.name} is gone: {error.detail}") from None
                held.is_doubted = held.is_doubted or error.error in _DOUBTS
                raise
            finally:
                held.in_flight -= 1
                await self._let_go(held)
        finally:
            self._users -= 1
            self._idle_since = self._clock()

    @property
    def own_cost_usd(self) -> Decimal | None:
        """Of the server that this process has rented, were it given back now; None where it has none, or no price."""
        if not self._is_mine or self._meter is None or self._meter.price is None:
            return None
        return self._meter.cost_usd(self._now())

    async def live(self) -> Sequence[Rental]:
        """Every server of ours that may cost something now, as the landlord lists them."""
        return await self._live()

    async def tend(self) -> None:
        """Until cancelled: take up what an earlier process left, end strays, give back what is idle."""
        while True:
            try:
                await self.look_after()
            except OracleError as error:
                log.warning("rented servers not seen to", server=self._naming.prefix, error=str(error))
            await self._sleep(self._patience.tend)

    async def look_after(self) -> None:
        """One turn of `tend`. Afterwards at most one server of ours is left running, and this process is to end it."""
        self._is_tended = True
        async with self._deciding:
            listed = await self._live()
            if self._rental is not None:
                await self._refresh(listed)
            else:
                self._adopt(listed)
            for rental in listed:
                if self._rental is None or rental.id != self._rental.id:
                    log.warning("stray server", server=rental.name, rental=rental.id)
                    await self._destroy(rental)
            if self._rental is not None and self._is_idle():
                await self._give_back(self._rental)

    async def close(self) -> None:
        """Give back what this process rented, or tends. What cannot be ended now is ended by the next to tend it."""
        self._is_closing = True
        try:
            async with asyncio.timeout(_GIVE_BACK_SECONDS), self._deciding:
                if self._renting is not None:
                    self._renting.cancel()
                    await asyncio.wait({self._renting})
                if self._is_tended:
                    for rental in await self._live():
                        await self._destroy(rental)
                elif self._rental is not None and self._is_mine:
                    await self._destroy(self._rental)
        except (OracleError, TimeoutError) as error:
            log.warning("a rented server may still run", server=self._naming.prefix, error=str(error))
        finally:
            await self._drop()
            await self._landlord.close()

    async def _serving(self, seconds: float) -> Held:
        if (held := self._usable()) is not None:
            return held
        if self._is_closing:
            raise errors.NOT_SENT(f"{self._naming.prefix} is being given back")
        if self._renting is None:
            self._renting = asyncio.create_task(self._rent(), name=f"rent {self._naming.prefix}")
            self._renting.add_done_callback(self._rented)
        # Whoever waits may give up: the server is for those that come after, too.
        done, _ = await asyncio.wait({self._renting}, timeout=seconds)
        if not done:
            raise errors.NOT_SENT(f"{self._naming.prefix} did not serve in {seconds:g} s")
        (task,) = done
        if task.cancelled():
            raise errors.NOT_SENT(f"{self._naming.prefix} is being given back")
        return task.result()

    def _rented(self, task: asyncio.Task[Held]) -> None:
        self._renting = None
        if not task.cancelled() and (error := task.exception()) is not None:
            log.warning("no server", server=self._naming.prefix, error=str(error))

    def _usable(self) -> Held | None:
        held = self._held
        if held is None or held.is_doubted or self._is_ending(held.rental):
            return None
        return held

    def _is_ending(self, rental: Rental) -> bool:
        return rental.ends_at is not None and rental.ends_at - self._now() < self._patience.retire

    def _is_idle(self) -> bool:
        waiting = self._users or self._renting is not None
        return not waiting and self._clock() - self._idle_since >= self._patience.idle

    async def _rent(self) -> Held:
        """A serving server: the one that is there, or was there, or a new one."""
        async with self._deciding:
            if self._rental is not None:
                await self._refresh(await self._live())
            if self._rental is not None and self._is_ending(self._rental):
                await self._drain(until=self._rental.ends_at or 0.0)
                await self._give_back(self._rental)
            if self._rental is None:
                await self._find_or_create()
            rental = self._rental
            assert rental is not None
        try:
            # One that has served before has its image and model: it need not be waited for as long as a new one.
            patience = self._patience if self._held is None else self._patience.for_another_start()
            serving, server = await until_it_serves(
                self._landlord, self._connect, rental, patience, clock=self._clock, sleep=self._sleep
            )
        except OracleError as error:
            self._failures += 1
            cooling = min(60.0 * 2 ** (self._failures - 1), _LONGEST_COOLING_SECONDS)
            self._cool_until = self._clock() + cooling
            async with self._deciding:
                await self._give_back(rental)
            raise error.error(error.detail, retry_after_seconds=cooling) from None
        return await self._hold(serving, server)

    async def _find_or_create(self) -> None:
        listed = await self._landlord.rentals(self._naming.prefix)
        self._adopt([rental for rental in listed if rental.state is not RentalState.ENDED])
        if self._rental is not None:
            return
        if (wait := self._cool_until - self._clock()) > 0:
            raise errors.SERVER_NOT_UP(
                f"{self._naming.prefix}: the last {self._failures} came to nothing", retry_after_seconds=wait
            )
        name = self._naming.next([*(rental.name for rental in listed), *self._taken])
        log.info("renting a server", server=name)
        try:
            rental_id = await self._landlord.create(name)
        except OracleError as error:
            if error.verdict is not Verdict.UNKNOWN:
                raise
            self._rental = await self._look_up(name, error)
        else:
            self._rental = Rental(rental_id, name, RentalState.STARTING, self._now())
        self._is_mine = True

    async def _look_up(self, name: str, error: OracleError) -> Rental:
        """The rental whose answer was lost. Nothing else is rented before it must have shown."""
        until = self._clock() + self._patience.settle
        while True:
            listed: Sequence[Rental] | None = None
            try:
                listed = await self._live()
            except OracleError as failure:
                log.warning("servers not listed", server=name, error=str(failure))
            if found := [rental for rental in listed or () if rental.name == name]:
                return found[0]
            if self._clock() >= until or self._is_closing:
                # Should it show after all, whoever comes next takes it up, or `tend` ends it.
                if error.error is errors.NAME_TAKEN:
                    self._taken.append(name)
                raise errors.SERVER_NOT_UP(f"{name} was not rented: {error}")
            await self._sleep(self._patience.poll)

    async def _hold(self, rental: Rental, server: Server) -> Held:
        if self._meter is None:
            self._meter = Meter(rental.price, rental.created_at, self._patience.idle, self._expected_answers)
            if not self._is_mine:
                self._meter.forgive(self._now())
        self._rental = rental
        doubted, self._held = self._held, Held(rental, server, self._meter)
        if doubted is not None:
            await self._let_go(doubted)
        self._failures = 0
        self._idle_since = self._clock()
        log.info("server serves", server=rental.name, rental=rental.id)
        return self._held

    async def _live(self) -> list[Rental]:
        listed = await self._landlord.rentals(self._naming.prefix)
        return [one for one in listed if one.state is not RentalState.ENDED and self._naming.is_ours(one.name)]

    def _adopt(self, live: Sequence[Rental]) -> None:
        """Take up the newest server of this very configuration, if there is one."""
        mine = [
            one
            for one in live
            if self._naming.is_current(one.name)
            and one.id not in self._given_back
            and one.state is not RentalState.FAILED
        ]
        if mine:
            self._rental = max(mine, key=lambda rental: (rental.created_at, rental.id))
            self._is_mine = False
            self._idle_since = self._clock()
            log.info("server taken up", server=self._rental.name, rental=self._rental.id)

    async def _refresh(self, live: Sequence[Rental]) -> None:
        """Let go of a server that has ended. One that was rented just now may not be listed yet."""
        assert self._rental is not None
        if any(one.id == self._rental.id and one.state is not RentalState.FAILED for one in live):
            return
        seen = await self._landlord.look(self._rental)
        if seen is None or seen.state in (RentalState.ENDED, RentalState.FAILED):
            log.info("server has ended", server=self._rental.name, why=seen.why if seen else "")
            self._given_back.add(self._rental.id)
            await self._drop()

    async def _drain(self, until: float) -> None:
        """Wait until nothing is in flight, at most until that time."""
        while self._held is not None and self._held.in_flight and self._now() < until and not self._is_closing:
            await self._sleep(1.0)

    async def _give_back(self, rental: Rental) -> None:
        """End it. Where that fails it is a stray from now on, and ended by the next turn of `tend`."""
        meter = self._meter
        self._given_back.add(rental.id)
        await self._drop()
        await self._destroy(rental)
        cost, billed = (meter.cost_usd(self._now()), meter.billed_usd) if meter else (None, None)
        log.info("server given back", server=rental.name, cost_usd=str(cost), billed_usd=str(billed))

    async def _drop(self) -> None:
        held, self._held, self._rental, self._meter = self._held, None, None, None
        if held is not None:
            await self._let_go(held)

    async def _let_go(self, held: Held) -> None:
        """Close what leads to a server that is no longer used, once the last call on it has ended."""
        if held is not self._held and not held.in_flight:
            await held.server.close()

    async def _destroy(self, rental: Rental) -> None:
        try:
            await self._landlord.destroy(rental)
        except OracleError as error:
            log.warning("server not given back yet", server=rental.name, rental=rental.id, error=str(error))
