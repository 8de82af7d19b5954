"""How often an endpoint may be called, in all and per method."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Final

from asyncio_throttle.throttler import Throttler


@dataclass(frozen=True, slots=True)
class Limits:
    """At most `requests` calls, and at most `per_method` of one method, in any `period_seconds`."""

    requests: int
    per_method: int
    period_seconds: float = 10.0


# The public endpoints allow 100 calls in 10 seconds and 40 of one method (solana.com/docs/references/clusters). One
# a second is left to spare: what leaves here evenly may arrive there bunched, and other programs share the address.
PUBLIC_LIMITS: Final = Limits(requests=90, per_method=30)


class Throttle:
    """Holds callers back so that `limits` are never exceeded; None holds nobody back."""

    def __init__(self, limits: Limits | None) -> None:
        self._limits = limits
        self._methods: dict[str, _Gate] = {}
        self._all = None if limits is None else _Gate(limits.requests, limits.period_seconds)

    async def wait(self, method: str) -> None:
        """Return when one more call of `method` is allowed."""
        if self._limits is None or self._all is None:
            return
        if method not in self._methods:
            self._methods[method] = _Gate(self._limits.per_method, self._limits.period_seconds)
        # The method's gate comes first: callers of a crowded method then queue there, and a settlement does not wait
        # behind a scan.
        await self._methods[method].wait()
        await self._all.wait()


class _Gate:
    """asyncio-throttle lets every waiter poll, and wakes them in any order; behind a lock one polls, in order."""

    def __init__(self, permits: int, period_seconds: float) -> None:
        self._throttler = Throttler(permits, period_seconds, retry_interval=min(0.05, period_seconds / 20))
        self._lock = asyncio.Lock()

    async def wait(self) -> None:
        async with self._lock:
            await self._throttler.acquire()  # type: ignore[no-untyped-call]
