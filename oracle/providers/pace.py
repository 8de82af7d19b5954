"""How fast a provider is called: so many at once, so many a second, and not at all while it asks for quiet."""

from __future__ import annotations

import asyncio
import math
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from asyncio_throttle.throttler import Throttler

_LONGEST_QUIET_SECONDS: Final = 60.0
_UNITS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_DURATION: Final = re.compile(r"(?:\d+(?:\.\d+)?(?:ms|s|m|h))+")
_PART: Final = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h)")


class Pace:
    """A turn at calling a provider. `enter` waits for one, `leave` gives it back.

    `per_second` None means no limit of rate; `burst` calls may come at once if the average is kept.
    Waiters are served in order: asyncio-throttle alone lets them overtake each other and polls for each of them, so
    they queue at a lock and only the first one polls.
    """

    def __init__(
        self,
        *,
        per_second: float | None = None,
        burst: int | None = None,
        at_once: int = 32,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._room = asyncio.Semaphore(at_once)
        self._order = asyncio.Lock()
        self._throttle = _throttler(per_second, burst)
        self._clock = clock
        self._sleep = sleep
        self._quiet_until = -math.inf
        self.left: Mapping[str, int] = {}
        """`requests` and `tokens` that the provider said are left of its rate, when it last said so."""

    async def enter(self) -> None:
        await self._room.acquire()
        try:
            async with self._order:
                while (seconds := self._quiet_until - self._clock()) > 0:
                    await self._sleep(seconds)
                if self._throttle is not None:
                    await self._throttle.acquire()  # type: ignore[no-untyped-call]
        except BaseException:
            self._room.release()
            raise

    def leave(self) -> None:
        self._room.release()

    def quiet(self, seconds: float) -> None:
        """Start no call for this long (at most a minute: a provider must not be able to silence the daemon)."""
        self._quiet_until = max(self._quiet_until, self._clock() + min(seconds, _LONGEST_QUIET_SECONDS))

    def heed(self, headers: Mapping[str, str]) -> None:
        """Keep quiet where OpenAI's rate-limit headers say that nothing remains (openai_compatible.md §2.5)."""
        for what in ("requests", "tokens"):
            remaining = headers.get(f"x-ratelimit-remaining-{what}", "")
            if not re.fullmatch(r"[0-9]{1,15}", remaining):
                continue
            self.left = {**self.left, what: int(remaining)}
            if int(remaining) == 0:
                seconds = duration_seconds(headers.get(f"x-ratelimit-reset-{what}", ""))
                if seconds is not None:
                    self.quiet(seconds)


def duration_seconds(text: str) -> float | None:
    """Seconds in `12ms`, `1s`, `6m0s` or a plain number of seconds; None for anything else."""
    if re.fullmatch(r"\d+(\.\d+)?", text):
        return float(text)
    if not _DURATION.fullmatch(text):
        return None
    return sum(float(amount) * _UNITS[unit] for amount, unit in _PART.findall(text))


def _throttler(per_second: float | None, burst: int | None) -> Throttler | None:
    if per_second is None:
        return None
    burst = burst or max(1, math.ceil(per_second))
    return Throttler(rate_limit=burst, period=burst / per_second)
