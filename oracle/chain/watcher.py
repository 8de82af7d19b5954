"""Sees every request: pushes for speed, reading the program's accounts for truth (law 1)."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, Final

import structlog
from solders.pubkey import Pubkey

from oracle.chain.clock import SlotClock
from oracle.chain.rpc.client import ACCOUNTS_PER_CALL, Client
from oracle.chain.rpc.errors import BEHIND
from oracle.chain.rpc.types import Memcmp
from oracle.chain.scan import Differences, Scanner, breathing
from oracle.chain.sightings import Channel, Known, Layout, Sighting, Vanished
from oracle.chain.ws import Connected, ProgramNotice, PubSub, SlotNotice
from oracle.core.backoff import backoff_seconds
from oracle.core.errors import OracleError
from oracle.core.request import RequestKey

__all__ = ["Known", "Layout", "Sighting", "Stats", "Vanished", "Watcher"]

log = structlog.get_logger(__name__)

Deliver = Callable[[Sighting | Vanished], Awaitable[None]]

_AHEAD: Final = 256
_PUSH_IS_DUE_SLOTS: Final = 32
"""A push that has not come by so many slots after the change, while the subscription was live, will not come."""


@dataclass(slots=True)
class Stats:
    """What the watcher has done, for metrics. A lag is that of the newest sighting on its channel; how far a channel
    itself is behind, with or without news, is the cluster's slot less `push_slot` or `scan_slot`."""

    sightings: dict[Channel, int] = field(default_factory=lambda: {"push": 0, "scan": 0})
    lag_seconds: dict[Channel, float] = field(default_factory=dict)
    missed_pushes: int = 0
    """Requests that only a scan found, though pushes were live all their life: the subscription leaks."""
    push_is_live: bool = False
    push_slot: int = 0
    """The newest slot that the WebSocket has told of."""
    scans: int = 0
    scan_failures: int = 0
    scan_seconds: float = 0.0
    scan_slot: int = 0
    accounts: int = 0


class Watcher:
    """Watches the requests of some queues. `watch` runs for ever; `scan` makes one pass.

    `known` is asked at the start of every scan for all requests that may still have an account, by address. Every
    `sweep_every`-th scan, the first included, reads ended requests too; of them nothing is urgent.
    """

    def __init__(
        self,
        client: Client,
        pubsub: PubSub | None,
        *,
        program: Pubkey,
        queues: Sequence[Pubkey],
        layout: Layout,
        known: Callable[[], Awaitable[Mapping[str, Known]]],
        scan_seconds: float = 30.0,
        sweep_every: int = 20,
        clock: SlotClock | None = None,
        jitter: Callable[[], float] = random.random,
        stats: Stats | None = None,
    ) -> None:
        self._scanner = Scanner(client, program, queues, layout)
        self._pubsub = pubsub
        self._program = program
        self._queues = queues
        self._layout = layout
        self._known = known
        self._scan_seconds = scan_seconds
        self._sweep_every = sweep_every
        self._clock = clock or SlotClock()
        self._jitter = jitter
        self._sighted: dict[str, tuple[int, int]] = {}  # newest slot, and the slot of creation seen then
        self._scan_due = asyncio.Event()
        self._tip_slot = 0
        self._gap_open = False
        self._pushed_since: int | None = None
        self.stats = Stats() if stats is None else stats

    async def watch(self) -> AsyncIterator[Sighting | Vanished]:
        """Everything as it becomes known; of one address nothing older follows something newer.

        It never ends by itself: an endpoint that fails is asked again. What `known` raises is raised.
        """
        arrivals: asyncio.Queue[Sighting | Vanished | Exception] = asyncio.Queue(_AHEAD)
        sources = [self._scan_for_ever(arrivals.put)]
        if self._pubsub is not None:
            sources.append(self._follow_tip(self._pubsub))
            sources += [self._take_pushes(self._pubsub, queue, arrivals.put) for queue in self._queues]
        tasks = [asyncio.create_task(_or_report(source, arrivals.put)) for source in sources]
        try:
            while True:
                event = await arrivals.get()
                if isinstance(event, Exception):
                    raise event
                yield event
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def scan(self, *, sweep: bool = True) -> list[Sighting | Vanished]:
        """One pass now, over all accounts or over the open ones. Raises ORC-RPC-NNN, and what `known` raises."""
        events: list[Sighting | Vanished] = []

        async def deliver(event: Sighting | Vanished) -> None:
            events.append(event)

        await self._scan(deliver, sweep=sweep)
        return events

    async def prove_absent(self, last_seen: Mapping[RequestKey, int]) -> dict[RequestKey, int]:
        """See `Scanner.prove_absent`."""
        return await self._scanner.prove_absent(last_seen)

    async def _scan_for_ever(self, deliver: Deliver) -> None:
        failures = 0
        while True:
            self._scan_due.clear()
            try:
                await self._scan(deliver, sweep=self.stats.scans % self._sweep_every == 0)
                failures, wait = 0, self._scan_seconds
            except OracleError as error:
                failures += 1
                self.stats.scan_failures += 1
                pause = backoff_seconds(failures, self._jitter(), told=error.retry_after_seconds)
                wait = min(self._scan_seconds, pause)
                log.warning("scan failed", code=error.code, detail=error.detail, again_in_seconds=round(wait, 1))
            with suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._scan_due.wait()

    async def _scan(self, deliver: Deliver, *, sweep: bool) -> None:
        began = time.monotonic()
        # Asked before the chain is: a row that is written meanwhile is then looked at once too often, not missed.
        known = await self._known()
        differences = await self._compare(known, sweep=sweep)
        gone: dict[RequestKey, int] = {}
        for start in range(0, len(differences.addresses), ACCOUNTS_PER_CALL):
            addresses = differences.addresses[start : start + ACCOUNTS_PER_CALL]
            looked = await self._scanner.look_at(addresses, differences.slot, known)
            for sighting in looked.sightings:
                await self._tell(sighting, deliver)
            gone |= {key: max(slot, self._last(key.address, key.created_slot)) for key, slot in looked.gone.items()}
        for key, slot in (await self._scanner.prove_absent(gone)).items():
            await deliver(Vanished(key, slot))
        if sweep:
            async for address in breathing([*self._sighted]):
                is_there = address in differences.found or address in known
                if not is_there and self._last(address) <= differences.slot:
                    del self._sighted[address]
        self.stats.scans += 1
        self.stats.scan_seconds, self.stats.scan_slot = time.monotonic() - began, differences.slot
        self.stats.accounts = len(differences.found)

    async def _compare(self, known: Mapping[str, Known], *, sweep: bool) -> Differences:
        """The scan that closes the gap before a subscription must not be older than the subscription.

        But a slot that a WebSocket invented must not stop the scans for ever: an older scan is better than none.
        """
        floor = self._pushed_since
        try:
            return await self._scanner.compare(known, sweep=sweep, floor=floor, sighted_at=self._last)
        except OracleError as error:
            if error.error is not BEHIND or floor is None:
                raise
            log.warning("scan is older than the subscription", slot=floor, detail=error.detail)
            return await self._scanner.compare(known, sweep=sweep, sighted_at=self._last)

    async def _take_pushes(self, pubsub: PubSub, queue: Pubkey, deliver: Deliver) -> None:
        # Never a filter on status: the change out of the filter would not be told.
        filters = [Memcmp(0, self._layout.discriminator), Memcmp(self._layout.queue_at, bytes(queue))]
        with pubsub.program(self._program, filters) as subscription:
            async for event in subscription:
                if isinstance(event, ProgramNotice):
                    if self._scanner.is_ours(event.account):
                        await self._tell(Sighting(event.address, event.account.data, event.slot, "push"), deliver)
                else:
                    self._pushed_since = None
                    self._gap_open = self.stats.push_is_live = isinstance(event, Connected)

    async def _follow_tip(self, pubsub: PubSub) -> None:
        """Pushes are complete from the first slot after their subscription began: a scan closes the gap before it."""
        with pubsub.slots() as subscription:
            async for event in subscription:
                if isinstance(event, SlotNotice):
                    self._tip_slot = self.stats.push_slot = event.slot
                    if self._gap_open:
                        self._gap_open = False
                        self._pushed_since = event.slot
                        self._scan_due.set()

    async def _tell(self, sighting: Sighting, deliver: Deliver) -> None:
        """Deliver a sighting unless a newer one of the same address went before it."""
        address = str(sighting.address)
        first = address not in self._sighted
        if sighting.slot < self._last(address):
            return
        self._sighted[address] = sighting.slot, self._layout.created_slot(self._layout.cut(sighting.data))
        self.stats.sightings[sighting.channel] += 1
        if (changed_slot := self._changed_slot(sighting, first=first)) is not None:
            lag_slots = max(0, max(self._tip_slot, sighting.slot) - changed_slot)
            self.stats.lag_seconds[sighting.channel] = self._clock.seconds(lag_slots)
            sighting = replace(sighting, lag_slots=lag_slots)
        await deliver(sighting)

    def _last(self, address: str, created_slot: int | None = None) -> int:
        """When the account was last seen, or its life that began in `created_slot`; 0 if never."""
        slot, created = self._sighted.get(address, (0, 0))
        return slot if created_slot in (None, created) else 0

    def _changed_slot(self, sighting: Sighting, *, first: bool) -> int | None:
        """When what is told happened. A scan can tell only of requests that are new since the last scan."""
        if sighting.channel == "push":
            return sighting.slot
        _, created_slot = self._sighted[str(sighting.address)]
        if not first or created_slot <= self.stats.scan_slot or not self.stats.scans:
            return None
        since = self._pushed_since
        if since is not None and since < created_slot <= sighting.slot - _PUSH_IS_DUE_SLOTS:
            self.stats.missed_pushes += 1
        return created_slot


async def _or_report(source: Coroutine[Any, Any, None], report: Callable[[Exception], Awaitable[None]]) -> None:
    try:
        await source
    except Exception as error:
        await report(error)
