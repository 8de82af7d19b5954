"""Remembers an answer for a moment, so that a burst of requests asks the database once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

Value = TypeVar("Value")
MOST_KEPT = 10_000


class Memo(Generic[Value]):
    """Values by key, each believed for `seconds`. For what may be a little old, never for money."""

    def __init__(self, seconds: float, now: Callable[[], float]) -> None:
        self._seconds = seconds
        self._now = now
        self._kept: dict[Hashable, tuple[float, Value]] = {}
        self._finding: dict[Hashable, asyncio.Lock] = {}

    async def get(self, key: Hashable, find: Callable[[], Awaitable[Value]]) -> Value:
        if (kept := self._fresh(key)) is not None:
            return kept[1]
        # Those who ask while one finds out wait for what it finds.
        async with self._finding.setdefault(key, asyncio.Lock()):
            if (kept := self._fresh(key)) is not None:
                return kept[1]
            value = await find()
            if len(self._kept) >= MOST_KEPT:
                self._kept.clear()
                self._finding.clear()
            self._kept[key] = (self._now(), value)
            return value

    def _fresh(self, key: Hashable) -> tuple[float, Value] | None:
        kept = self._kept.get(key)
        return kept if kept is not None and self._now() - kept[0] < self._seconds else None
