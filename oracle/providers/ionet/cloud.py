"""IO Cloud as a `Landlord`: GPU containers by the hour, paid ahead, found again by their names (ionet.md §4)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Final, Literal
from urllib.parse import quote

from oracle.core.compute import Money
from oracle.core.errors import OracleError, Verdict
from oracle.providers import errors
from oracle.providers.http import Answer, Http
from oracle.providers.ionet import cloud_wire as wire
from oracle.providers.ionet.cloud_wire import Choice, Container, Id, Wanted
from oracle.providers.rented.landlord import Rental, RentalPrice, RentalState

CALL_SECONDS: Final = 30.0
DEPLOY_SECONDS: Final = 90.0
QUOTE_SECONDS: Final = 60.0
"""How old a quote may be when a container is deployed at it."""

PAGE_SIZE: Final = 100
_MOST_PAGES: Final = 100

# Nothing was sent, or the sender is not known: no container can have come of it.
_CERTAINLY_NOT: Final = (
    errors.UNREACHABLE,
    errors.NOT_SENT,
    errors.WRONG_ADDRESS,
    errors.CREDENTIALS_REFUSED,
    errors.RATE_LIMITED,
)


class IoCloud:
    """`container` makes what runs in the container of a name: each has a key of its own."""

    def __init__(
        self,
        http: Http,
        wanted: Wanted,
        container: Callable[[str], Container],
        *,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._http = http
        self._wanted = wanted
        self._container = container
        self._clock = clock
        self._now = now
        self._choosing = asyncio.Lock()
        self._chosen: Choice | None = None
        self._chosen_at = clock()

    async def price(self) -> RentalPrice:
        """Of the cheapest hardware that is free, for all of its time: whether an early end is paid back is not known.

        Raises ORC-PROVIDER-026 where none is free, or none within the cap.
        """
        choice = await self._choose()
        return wire.paid_ahead(choice.total_usd, self._wanted.hours * 3600.0)

    async def create(self, name: str) -> str:
        """Deploy the container of this name, at a price that was asked for just now.

        There is no idempotency key, but a name is given away once. So whatever is answered, the list has the last word.
        """
        choice = await self._choose()
        if not await self._is_free(name):
            return await self._named(name, errors.NAME_TAKEN(f"{name} was given away before"))
        body = wire.deploy_body(name, self._wanted, choice, self._container(name))
        secrets = tuple(self._container(name).secrets.values())
        try:
            answer = await self._http.call(
                "POST", "deploy", json=body, repeatable=False, seconds=DEPLOY_SECONDS, private=secrets
            )
        except OracleError as error:
            # What was true when it was quoted may be true no longer.
            self._chosen = None
            if error.verdict is Verdict.UNKNOWN or error.error in _CERTAINLY_NOT:
                raise
            if error.error is errors.UNAVAILABLE:
                raise errors.NO_ANSWER(error.detail) from None
            return await self._named(name, error)
        if (rental_id := wire.read_deployment_id(self._http.json(answer, repeatable=False))) is None:
            raise self._http.unreadable("no id of a deployment", repeatable=False)
        return rental_id

    async def rentals(self, prefix: str) -> Sequence[Rental]:
        """Raises ORC-PROVIDER-036 where the pages do not add up: what was missed could be a container."""
        found: dict[str, Rental] = {}
        for page in range(_MOST_PAGES):
            params: dict[str, str | int] = {"page": page, "page_size": PAGE_SIZE}
            answer = await self._get("deployments", params)
            read = wire.read_rentals(wire.read_exact(answer.content), self._now())
            if read is None:
                raise self._http.unreadable("no list of deployments", repeatable=True)
            rentals, total = read
            found |= {rental.id: rental for rental in rentals}
            if len(found) >= total:
                return [rental for rental in found.values() if rental.name.startswith(prefix)]
            if not rentals:
                break
        raise errors.LOOK_UP_INCOMPLETE(f"{len(found)} of {total} deployments were listed")

    async def look(self, rental: Rental) -> Rental | None:
        answer = await self._about(rental, "GET")
        if answer is None:
            return None
        seen = wire.read_rental(wire.read_exact(answer.content), rental, self._now())
        if seen is None:
            raise self._http.unreadable("no deployment", repeatable=True)
        if seen.state is not RentalState.RUNNING:
            return seen
        answer = await self._about(rental, "GET", "/containers")
        workers = None if answer is None else wire.read_workers(wire.read_exact(answer.content))
        if workers is None:
            raise self._http.unreadable("no list of containers", repeatable=True)
        address, said = workers
        return Rental(
            seen.id, seen.name, seen.state, seen.created_at, seen.ends_at, address, seen.price, said or seen.why
        )

    async def destroy(self, rental: Rental) -> None:
        """Repeated at will: a deployment that is gone is as good as destroyed."""
        try:
            await self._about(rental, "DELETE")
        except OracleError as error:
            # What is being ended, or has ended, may be refused in words that nobody has published.
            if error.error is not errors.REQUEST_REFUSED:
                raise
            seen = await self.look(rental)
            if seen is not None and seen.state is not RentalState.ENDED:
                raise

    async def balance(self) -> Money | None:
        """Told by no documented call."""
        return None

    async def close(self) -> None:
        await self._http.close()

    async def _choose(self) -> Choice:
        async with self._choosing:
            if self._chosen is None or self._clock() - self._chosen_at > QUOTE_SECONDS:
                self._chosen = await self._cheapest()
                self._chosen_at = self._clock()
            return self._chosen

    async def _cheapest(self) -> Choice:
        offers: list[Choice] = []
        dearer: list[Choice] = []
        for hardware in self._wanted.hardware:
            choice = await self._quoted(hardware)
            if choice is None:
                continue
            fits = choice.total_usd <= self._wanted.max_usd_per_hour * self._wanted.hours
            (offers if fits else dearer).append(choice)
        if offers:
            return min(offers, key=lambda choice: choice.total_usd)
        if dearer:
            least = min(choice.total_usd for choice in dearer) / self._wanted.hours
            raise errors.NO_MARKET(f"the cheapest is {least:f} USD an hour, {self._wanted.max_usd_per_hour:f} allowed")
        raise errors.NO_MARKET("no hardware of the configuration is free")

    async def _quoted(self, hardware: Id) -> Choice | None:
        """None where it is not free, or not known here."""
        try:
            answer = await self._get("available-replicas", {"hardware_id": hardware, "hardware_qty": self._wanted.gpus})
            places = wire.read_places(wire.read_exact(answer.content))
            if places is None:
                raise self._http.unreadable("no list of places", repeatable=True)
            wanted = self._wanted.locations
            locations = tuple(place for place in places if not wanted or place in wanted)
            if not locations:
                return None
            answer = await self._get("price", wire.price_query(self._wanted, hardware, locations))
        except OracleError as error:
            if error.error is errors.REQUEST_REFUSED:
                return None
            raise
        total = wire.read_total_usd(wire.read_exact(answer.content))
        if total is None:
            raise self._http.unreadable("no price", repeatable=True)
        return Choice(hardware, locations, total)

    async def _is_free(self, name: str) -> bool:
        answer = await self._get("clusters/check_cluster_name_availability", {"cluster_name": name})
        free = wire.read_exact(answer.content)
        if not isinstance(free, bool):
            raise self._http.unreadable("neither true nor false", repeatable=True)
        return free

    async def _named(self, name: str, error: OracleError) -> str:
        """The id of the live container of this name; raises `error` where there is none."""
        try:
            rentals = await self.rentals(name)
        except OracleError as failure:
            raise errors.NO_ANSWER(f"{error}; then {failure}") from None
        for rental in rentals:
            if rental.name == name and rental.state is not RentalState.ENDED:
                return rental.id
        raise error

    async def _get(self, path: str, params: dict[str, str | int]) -> Answer:
        return await self._http.call("GET", path, params=params, repeatable=True, seconds=CALL_SECONDS)

    async def _about(self, rental: Rental, method: Literal["GET", "DELETE"], more: str = "") -> Answer | None:
        """None where the API itself says that there is no such deployment; a proxy's page proves nothing."""
        path = f"deployment/{quote(rental.id, safe='')}{more}"
        answer = await self._http.call(method, path, repeatable=True, seconds=CALL_SECONDS, expect=(404,))
        if answer.status != 404:
            return answer
        body = wire.read_exact(answer.content)
        if not isinstance(body, dict) or "detail" not in body:
            raise self._http.unreadable("HTTP 404 without a detail", repeatable=True)
        return None
