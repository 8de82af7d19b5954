"""What every loop of the daemon holds: its parts, its clock, and the bells by which loops wake one another."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from solders.pubkey import Pubkey
from sqlalchemy import Connection

from oracle.chain.clock import SlotClock
from oracle.chain.program import addresses
from oracle.chain.rpc.client import Client
from oracle.chain.rpc.pool import Pool
from oracle.chain.signer import Signer
from oracle.chain.watcher import Stats
from oracle.config import Config
from oracle.core.compute import Compute, Source
from oracle.core.lifecycle import State
from oracle.core.policy import Terms
from oracle.core.request import RequestKey
from oracle.core.routing import ModelRoutes
from oracle.pipeline.batch import Batch
from oracle.pipeline.blockhashes import Blockhashes
from oracle.pipeline.breakers import Breakers
from oracle.pipeline.clock import Clock
from oracle.pipeline.fees import Fees
from oracle.pipeline.handover import Handover
from oracle.pipeline.memo import Memo
from oracle.providers.price_feed import LiveRates
from oracle.store import requests
from oracle.store.changes import Move
from oracle.store.engine import Store
from oracle.store.rows import RequestRow

LATENCY_SECONDS = 5.0
"""How old a measured latency may be when a route is chosen by it."""


class Bells:
    """One bell a name. Ringing wakes its loop at once; a loop that misses a bell still looks on its own.

    What is rung here is also remembered for other daemons, until somebody who tells them asks for it.
    """

    def __init__(self) -> None:
        self._events: dict[str, asyncio.Event] = {}
        self._rung: set[str] = set()
        self._any_rung = asyncio.Event()

    def ring(self, *names: str) -> None:
        self.ring_here(*names)
        self._rung.update(str(name) for name in names)
        self._any_rung.set()

    def ring_here(self, *names: str) -> None:
        """As another daemon has rung them."""
        for name in names:
            self._event(name).set()

    async def rung(self, seconds: float) -> set[str]:
        """What has been rung here since this was asked last; waits for it, at most `seconds`."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._any_rung.wait()
        self._any_rung.clear()
        rung, self._rung = self._rung, set()
        return rung

    async def wait(self, name: str, seconds: float) -> bool:
        """Until the bell rings, at most `seconds`; whether it rang."""
        event = self._event(name)
        try:
            async with asyncio.timeout(max(0.0, seconds)):
                await event.wait()
        except TimeoutError:
            return False
        event.clear()
        return True

    def ring_all(self) -> None:
        for event in self._events.values():
            event.set()

    def _event(self, name: str) -> asyncio.Event:
        return self._events.setdefault(name, asyncio.Event())


@dataclass(slots=True)
class Context:
    """The daemon's parts. `instance` names this process as holder of leases."""

    config: Config
    store: Store
    rpc: Client
    program_id: Pubkey
    signer: Signer
    queues: tuple[Pubkey, ...]
    providers: Mapping[str, Compute]
    sources: Mapping[str, Source]
    routes: Mapping[str, ModelRoutes]
    slots: SlotClock
    fees: Fees
    rates: LiveRates
    instance: str
    clock: Clock = field(default_factory=Clock)
    bells: Bells = field(default_factory=Bells)
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    restarts: dict[str, int] = field(default_factory=dict)
    fetching: Counter[str] = field(default_factory=Counter)
    pulses: dict[str, float] = field(default_factory=dict)
    pool: Pool | None = None
    sight: Stats = field(default_factory=Stats)
    wallet_lamports: int | None = None
    """What the operator's key held when it was last asked for."""
    rehearsals: Batch[RequestRow, None] | None = None
    latencies: Memo[Sequence[float]] = field(init=False)
    blockhashes: Blockhashes = field(init=False)
    without_rival: dict[int, float] = field(default_factory=dict)
    breakers: Breakers = field(init=False)
    to_admit: Handover = field(default_factory=Handover)
    to_buy: Handover = field(default_factory=Handover)
    passed_over: dict[Pubkey, float] = field(default_factory=dict)
    """Until when nothing is bought at once for a requester (`pipeline.at_once`)."""
    _terms: tuple[Config, float, Terms] | None = None

    def __post_init__(self) -> None:
        self.breakers = Breakers(self.providers, self.config.breaker.of(), self.clock.monotonic)
        self.latencies = Memo(LATENCY_SECONDS, self.clock.monotonic)
        self.blockhashes = Blockhashes(self.rpc, self.clock)

    def slot(self) -> int:
        """The current slot, as the slot clock estimates it from what it has observed."""
        return self.slots.slot_at(self.clock.monotonic())

    @property
    def operator(self) -> str:
        """Our key, whose rows we work on."""
        return str(self.signer.public_key)

    @property
    def may_buy(self) -> bool:
        """Not while the wallet is low, nor while the signer cannot sign what would settle it."""
        return self.breakers.wallet is None and self.signer.trouble is None

    def terms(self) -> Terms:
        """What is asked of a request. Made anew only when something of it has changed: lists of requesters are long."""
        config, seconds = self.config, self.slots.slot_seconds
        if self._terms is None or self._terms[0] is not config or self._terms[1] != seconds:
            self._terms = config, seconds, config.terms(seconds)
        return self._terms[2]

    def operator_account(self, queue: str) -> Pubkey:
        """The `Operator` account of our key on a queue."""
        return addresses.operator_address(self.program_id, Pubkey.from_string(queue), self.signer.public_key)

    def pulse(self, loop: str) -> None:
        """A loop has turned: a daemon that is alive but idle shows in `/livez`."""
        self.pulses[loop] = self.clock.monotonic()

    def kept_until_ms(self, row: RequestRow, now_ms: int) -> int | None:
        """Until when a row that is put off stays ours: a call that runs in this process is unknown to every other
        daemon of our key, which would take it for lost and buy again (law 3)."""
        is_ours = row.state is State.RUNNING and any(p.capabilities.in_process for p in self.providers.values())
        return now_ms + self.lease_ms if is_ours else None

    @property
    def lease_ms(self) -> int:
        return int(self.config.daemon.lease_seconds * 1000)

    async def move(
        self,
        row: RequestRow,
        new: State,
        *,
        wake_in_seconds: float = 0.0,
        code: str | None = None,
        detail: str | None = None,
        **columns: Any,
    ) -> RequestRow:
        """Move a row that we hold, and wake the loop of its new state."""
        now_ms = self.clock.now_ms()
        move = Move(
            row,
            new,
            now_ms,
            slot=self.slot(),
            code=code,
            detail=detail,
            wake_at_ms=now_ms + int(wake_in_seconds * 1000),
            columns=columns,
        )
        moved = await self.store.write_together(requests.move_all, move)
        self.bells.ring(new)
        return moved

    async def write(self, f: Callable[[Connection], Any], *bells: str) -> Any:
        """A durable write, and then the bells of those who wait for it."""
        result = await self.store.write(f)
        self.bells.ring(*bells)
        return result


def key_of(row: RequestRow) -> RequestKey:
    return RequestKey(row.address, row.created_slot)
