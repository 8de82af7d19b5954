"""Several endpoints behind one `Client`: reads go to the best, sends to all, and each endpoint's state is watched.

What to think of an endpoint is decided in `core/endpoints.py`; here are only the calls.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NoReturn, TypeVar

from solana.rpc.commitment import Confirmed
from solders.hash import Hash

from oracle.chain.rpc import shapes
from oracle.chain.rpc.address import address
from oracle.chain.rpc.client import Client
from oracle.chain.rpc.errors import (
    BEHIND,
    GARBAGE,
    NO_ENDPOINT,
    NODE_ERROR,
    PREFLIGHT_FAILED,
    RATE_LIMITED,
    REFUSED,
    SEND_UNCERTAIN,
    UNHEALTHY,
    UNSUPPORTED,
    WRONG_GENESIS,
    RpcError,
)
from oracle.chain.rpc.http import Wire
from oracle.chain.rpc.limits import PUBLIC_LIMITS, Limits
from oracle.chain.rpc.meter import Meter
from oracle.chain.rpc.provider import Provider
from oracle.chain.rpc.transport import Call
from oracle.core import endpoints as core
from oracle.core.endpoints import Endpoint, Health
from oracle.core.errors import OracleError, Verdict

T = TypeVar("T")

_BENIGN_REFUSALS: Final = frozenset({"AlreadyProcessed", "BlockhashNotFound"})
"""In these honest nodes differ: one has seen the transaction, another does not know its blockhash yet."""


@dataclass(frozen=True, slots=True)
class EndpointConfig:
    """One endpoint. Without `limits` a loopback address is called freely, any other as the public ones allow."""

    url: str = field(repr=False)
    limits: Limits | None = None


class Pool:
    """A `Transport` over several endpoints.

    `genesis` is the hash of the cluster that is meant; without it, that of the first endpoint that answers, in their
    order. A read is tried again, elsewhere or after the pause that was asked for, for `patience_seconds`.
    """

    def __init__(
        self,
        endpoints: Sequence[EndpointConfig],
        *,
        genesis: Hash | None = None,
        timeout_seconds: float = 10.0,
        patience_seconds: float = 15.0,
        check_seconds: float = 5.0,
        now: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        jitter: Callable[[], float] = random.random,
        wire: Callable[[], Wire | None] = lambda: None,
    ) -> None:
        self._genesis = genesis
        self._patience_seconds = patience_seconds
        self._check_seconds = check_seconds
        self._now, self._sleep, self._jitter = now, sleep, jitter
        self._providers = [
            Provider(
                config.url,
                limits=_limits(config),
                timeout_seconds=timeout_seconds,
                wire=wire(),
                on_slot=lambda slot, i=position: self._note(i, core.answered, slot=slot),  # type: ignore[misc]
                now=now,
            )
            for position, config in enumerate(endpoints)
        ]
        self._states = [Endpoint(provider.name) for provider in self._providers]
        self._verifying = [asyncio.Lock() for _ in self._providers]
        self._sending: set[asyncio.Task[Any]] = set()
        self.client = Client(self)

    @property
    def name(self) -> str:
        return ", ".join(provider.name for provider in self._providers)

    @property
    def tip_slot(self) -> int:
        return core.tip_slot(self._states)

    def view(self) -> tuple[Endpoint, ...]:
        """What is known of each endpoint, in the order of the configuration."""
        return tuple(self._states)

    def health(self) -> tuple[Health, ...]:
        """The state of each endpoint now, in the same order."""
        now, tip = self._now(), self.tip_slot
        return tuple(core.health(state, now=now, tip_slot=tip) for state in self._states)

    def meters(self) -> tuple[Meter, ...]:
        """How each endpoint has answered, in the same order."""
        return tuple(provider.meter for provider in self._providers)

    async def run(self) -> NoReturn:
        """Check every endpoint every few seconds, for ever."""
        while True:
            await self.check()
            await self._sleep(self._check_seconds)

    async def check(self) -> None:
        """Ask every endpoint, whatever its state, for its cluster and its slot. Raises nothing: see `health`."""
        if self._genesis is None:
            for position in range(len(self._providers)):  # in order: the first that answers says which cluster is meant
                await self._measure(position)
        else:
            await asyncio.gather(*(self._measure(position) for position in range(len(self._providers))))

    async def close(self) -> None:
        for task in self._sending:
            task.cancel()
        await asyncio.gather(*self._sending, return_exceptions=True)
        for provider in self._providers:
            await provider.close()

    async def call(self, call: Call[T]) -> T:
        give_up_at = self._now() + self._patience_seconds
        while True:
            errors = []
            for position in await self._candidates(call):
                try:
                    return await self._attempt(position, call)
                except OracleError as error:
                    if not _may_help_elsewhere(error):
                        raise
                    errors.append(error)
            worst = _worth_waiting_for(errors) or self._nobody(call)
            wait = self._pause()
            is_hopeless = worst.verdict is Verdict.GIVE_UP and len(errors) >= self._usable()
            if is_hopeless or wait is None or self._now() + wait > give_up_at:
                raise worst
            await self._sleep(wait)

    async def broadcast(self, call: Call[T]) -> T:
        positions = core.for_sending(self._states, now=self._now())
        if not positions:
            raise self._nobody(call)
        tasks = [asyncio.create_task(self._attempt(position, call)) for position in positions]
        self._sending.update(tasks)
        for task in tasks:
            task.add_done_callback(self._sending.discard)
        together = asyncio.create_task(self._compare(positions, tasks))
        self._sending.add(together)
        together.add_done_callback(self._sending.discard)
        for next_done in asyncio.as_completed(tasks):
            try:
                return await next_done
            except OracleError:
                continue
        raise _most_telling([error for task in tasks if isinstance(error := task.exception(), OracleError)])

    def pinned(self) -> _Pinned:
        positions = core.for_reading(self._states, now=self._now())
        if not positions:
            raise NO_ENDPOINT(self._summary())
        return _Pinned(self, positions[0])

    async def attempt_at(self, position: int, call: Call[T]) -> T:
        """Make the call at one endpoint, once."""
        return await self._attempt(position, call)

    def name_of(self, position: int) -> str:
        return self._providers[position].name

    async def _attempt(self, position: int, call: Call[T]) -> T:
        if self._states[position].genesis_matches is None:
            await self._verify(position)
        return await self._observed(position, call)

    async def _observed(self, position: int, call: Call[T]) -> T:
        """Make the call and remember what it shows of the endpoint."""
        try:
            value = await self._providers[position].call(call)
        except OracleError as error:
            if error.error is RATE_LIMITED:
                told = error.retry_after_seconds
                self._note(position, core.limited, now=self._now(), jitter=self._jitter(), told_seconds=told)
            elif _is_an_answer(error):
                self._note(position, core.answered)
            else:
                self._note(position, core.failed, now=self._now(), jitter=self._jitter())
            raise
        self._note(position, core.answered)
        return value

    async def _verify(self, position: int) -> None:
        async with self._verifying[position]:
            if self._states[position].genesis_matches is None:
                genesis = await self._observed(position, Call("getGenesisHash", [], shapes.blockhash))
                if self._genesis is None:
                    self._genesis = genesis
                self._note(position, core.verified, matches=genesis == self._genesis)
        if self._states[position].genesis_matches is False:
            raise WRONG_GENESIS(self.name_of(position))

    async def _measure(self, position: int) -> None:
        if self._now() < self._states[position].resume_at:
            return  # it asked for a pause, or has just failed
        try:
            if not self._states[position].genesis_matches:
                self._note(position, core.verified, matches=None)
                await self._verify(position)
            started = self._now()
            slot = await self._observed(position, _SLOT)
            self._note(position, core.measured, slot=slot, seconds=self._now() - started)
        except OracleError:
            return  # noted where it was met

    async def _compare(self, positions: Sequence[int], tasks: Sequence[asyncio.Task[Any]]) -> None:
        """When all have answered, note who refused for good what another accepted."""
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        if not any(not isinstance(outcome, BaseException) for outcome in outcomes):
            return
        for position, outcome in zip(positions, outcomes, strict=True):
            if isinstance(outcome, OracleError) and _contradicts_success(outcome):
                self._note(position, core.contradicted)

    async def _candidates(self, call: Call[Any]) -> list[int]:
        """Who may serve the call. Who is known to be behind is asked where it is now before it is left out."""
        slot = call.min_context_slot or 0
        positions = core.for_reading(self._states, now=self._now(), min_context_slot=slot)
        if not positions and slot:
            await asyncio.gather(*(self._measure(i) for i in core.for_reading(self._states, now=self._now())))
            positions = core.for_reading(self._states, now=self._now(), min_context_slot=slot)
        return positions

    def _usable(self) -> int:
        """How many endpoints may serve us sooner or later: one that pauses now has not refused anything."""
        return sum(state.genesis_matches is not False for state in self._states)

    def _pause(self) -> float | None:
        """Seconds until another round makes sense; None if none ever will."""
        resume_at = core.next_resume_at(self._states)
        return None if resume_at is None else max(0.2, resume_at - self._now())

    def _nobody(self, call: Call[Any]) -> OracleError:
        slot = call.min_context_slot
        if slot is not None and core.for_reading(self._states, now=self._now()):
            return BEHIND(f"slot {slot}: {self._summary()}")
        return NO_ENDPOINT(self._summary(), retry_after_seconds=self._pause())

    def _summary(self) -> str:
        shown = zip(self._states, self.health(), strict=True)
        return ", ".join(f"{state.name} is {health} at slot {state.slot}" for state, health in shown)

    def _note(self, position: int, change: Callable[..., Endpoint], **what: Any) -> None:
        self._states[position] = change(self._states[position], **what)


class _Pinned:
    """A `Transport` to one endpoint of a pool. What goes wrong is raised: a proof is not continued elsewhere."""

    def __init__(self, pool: Pool, position: int) -> None:
        self._pool = pool
        self._position = position

    @property
    def name(self) -> str:
        return self._pool.name_of(self._position)

    @property
    def tip_slot(self) -> int:
        return self._pool.tip_slot

    async def call(self, call: Call[T]) -> T:
        return await self._pool.attempt_at(self._position, call)

    async def broadcast(self, call: Call[T]) -> T:
        return await self.call(call)

    def pinned(self) -> _Pinned:
        return self

    async def close(self) -> None:
        """The pool owns the connection."""


def connect(url: str, *, limits: Limits | None = None, timeout_seconds: float = 10.0) -> Client:
    """A client to one endpoint, with the pool's patience."""
    return Pool([EndpointConfig(url, limits=limits)], timeout_seconds=timeout_seconds).client


_SLOT: Final[Call[int]] = Call("getSlot", [{"commitment": Confirmed}], shapes.integer)


def _limits(config: EndpointConfig) -> Limits | None:
    if config.limits is not None:
        return config.limits
    return None if address(config.url).is_loopback else PUBLIC_LIMITS


def _is_an_answer(error: OracleError) -> bool:
    """Whether the endpoint did its part, though the answer is no."""
    return error.error in (BEHIND, UNSUPPORTED) or (error.verdict is Verdict.GIVE_UP and error.error is not REFUSED)


def _may_help_elsewhere(error: OracleError) -> bool:
    """Whether another endpoint may do better. An error about the call itself would be the same everywhere."""
    if error.error in (REFUSED, UNSUPPORTED, WRONG_GENESIS):
        return True
    return error.verdict is Verdict.RETRY


def _worth_waiting_for(errors: Sequence[OracleError]) -> OracleError | None:
    """Of the errors of one round: one that may pass, if there is any."""
    return min(errors, key=lambda error: error.verdict is Verdict.GIVE_UP, default=None)


def _contradicts_success(error: OracleError) -> bool:
    if error.error is PREFLIGHT_FAILED and isinstance(error, RpcError):
        raw = error.data.get("err") if isinstance(error.data, dict) else None
        failure = shapes.failure(raw)
        return failure is not None and failure.kind not in _BENIGN_REFUSALS
    return error.error in (NODE_ERROR, GARBAGE)


def _most_telling(errors: Sequence[OracleError]) -> OracleError:
    """Of the errors of a send to several endpoints: one that leaves doubt outweighs all, then one that says why."""
    order = (SEND_UNCERTAIN, PREFLIGHT_FAILED, NODE_ERROR, BEHIND, UNHEALTHY, RATE_LIMITED)
    return min(errors, key=lambda e: order.index(e.error) if e.error in order else len(order))
