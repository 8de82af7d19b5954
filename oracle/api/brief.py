"""An answer that is worked out at most once in a while, however many ask for it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, Generic, TypeVar

T = TypeVar("T")

SECONDS: Final = 1.0


class Brief(Generic[T]):
    """What `work` said last, if that was less than a second ago. Those who ask together wait for one answer.

    Health and metrics cost a call to the cluster and a look over the database: were each question a call of its own,
    whoever reaches the port could use up the rate that the daemon needs to settle.
    """

    def __init__(self, work: Callable[[], Awaitable[T]], now: Callable[[], float]) -> None:
        self._work = work
        self._now = now
        self._asking = asyncio.Lock()
        self._last: tuple[float, T] | None = None

    async def __call__(self) -> T:
        async with self._asking:
            if self._last is None or self._now() - self._last[0] >= SECONDS:
                answer = await self._work()
                self._last = (self._now(), answer)
            return self._last[1]
