"""Waiting for what a daemon does about a request, and getting in the way of what it sends."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from nosana_world import NosanaWorld, is_listing
from pipeline_world import World, until
from solders.signature import Signature
from solders.transaction import VersionedTransaction

from oracle.client.requests import Submitted
from oracle.core.request import Status
from oracle.pipeline.daemon import Daemon
from oracle.store.rows import AttemptRow


async def answered(world: World, submitted: Submitted) -> None:
    assert (await world.ended(submitted)).header.status is Status.FULFILLED


async def rejected(world: World, submitted: Submitted) -> None:
    assert (await world.ended(submitted)).header.status is Status.REJECTED


async def attempt_that(
    nosana: NosanaWorld, daemon: Daemon, submitted: Submitted, holds: Callable[[AttemptRow], bool], what: str
) -> AttemptRow:
    async def look() -> AttemptRow | None:
        if await nosana.world.row(daemon, submitted) is None:
            return None
        found = [attempt for attempt in await nosana.attempts(daemon, submitted) if holds(attempt)]
        return found[0] if found else None

    return await until(look, what)


async def runs(nosana: NosanaWorld, daemon: Daemon, submitted: Submitted) -> AttemptRow:
    """The attempt whose job a host has begun."""
    attempt = await attempt_that(nosana, daemon, submitted, lambda a: a.job_id is not None, "a job that was bought")

    async def begun() -> bool:
        return any(job["address"] == attempt.job_id for job in nosana.nosana.books()["jobs"])

    await until(begun, "a host for it")
    return attempt


def signature_of(wire: bytes) -> Signature:
    return VersionedTransaction.from_bytes(wire).signatures[0]


async def some(items: list[Any]) -> list[Any] | None:
    return items or None


class Held:
    """Signed listings that the daemon believes it has sent."""

    def __init__(self, send: Callable[..., Awaitable[Signature]]) -> None:
        self._send = send
        self._open = asyncio.Event()
        self.wires: list[bytes] = []

    async def send(self, wire: bytes, **options: Any) -> Signature:
        if is_listing(VersionedTransaction.from_bytes(wire)) and not self._open.is_set():
            if wire not in self.wires:
                self.wires.append(wire)
            await self._open.wait()
        return await self._send(wire, **options)

    async def let_go(self) -> None:
        self._open.set()


async def hold_back_listings(daemon: Daemon) -> Held:
    rpc: Any = daemon.context.rpc
    held = Held(rpc.send_transaction)
    rpc.send_transaction = held.send
    return held


async def before_simulation(daemon: Daemon, act: Callable[[], Awaitable[None]]) -> None:
    rpc: Any = daemon.context.rpc
    simulate = rpc.simulate_transaction

    async def acted(wire: bytes, *args: Any, **options: Any) -> Any:
        if is_listing(VersionedTransaction.from_bytes(wire)):
            await act()
        return await simulate(wire, *args, **options)

    rpc.simulate_transaction = acted


async def hang_in_simulation(daemon: Daemon) -> asyncio.Event:
    reached = asyncio.Event()

    async def hang() -> None:
        reached.set()
        await asyncio.Event().wait()

    await before_simulation(daemon, hang)
    return reached


async def forget_answers(daemon: Daemon) -> None:
    """The purchase lands, and whoever waits for it never hears of it."""
    purchases: Any = daemon.context.providers["nosana"]

    async def deaf(*_: Any) -> Any:
        await asyncio.Event().wait()

    purchases._buyer._outcome = deaf


async def stop_settling(daemon: Daemon) -> None:
    """Nothing but listings is sent."""
    rpc: Any = daemon.context.rpc
    send = rpc.send_transaction

    async def listings_only(wire: bytes, **options: Any) -> Signature:
        if is_listing(VersionedTransaction.from_bytes(wire)):
            return await send(wire, **options)
        return signature_of(wire)

    rpc.send_transaction = listings_only
