"""The seam between the typed client and whatever carries its calls: one endpoint or a pool."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """One JSON-RPC call and how its result is read.

    `read` turns the `result` into a value and may raise anything: what it cannot read is garbage. Where there is a
    `read_bulk`, it reads the pieces of a body that is too large to parse without stalling the event loop.
    `acts` says that the node does something: if the answer is lost, nobody knows whether it did.
    """

    method: str
    params: Sequence[Any]
    read: Callable[[Any], T]
    read_bulk: Callable[[Sequence[bytes]], Awaitable[T]] | None = None
    min_context_slot: int | None = None
    acts: bool = False


class Transport(Protocol):
    """Carries calls. Every method raises `OracleError` only (and cancellation)."""

    @property
    def name(self) -> str:
        """What may be shown of where it leads: hosts."""
        ...

    @property
    def tip_slot(self) -> int:
        """The newest slot that more than one endpoint has answered with; of a single one, its newest. 0: not known."""
        ...

    async def call(self, call: Call[T]) -> T:
        """Make the call at one endpoint."""
        ...

    async def broadcast(self, call: Call[T]) -> T:
        """Make the call at every endpoint that is fit for it; the first success counts."""
        ...

    def pinned(self) -> Transport:
        """A transport to one endpoint, for answers that prove something only together."""
        ...

    async def close(self) -> None: ...
