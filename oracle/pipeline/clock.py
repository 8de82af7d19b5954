"""Time and randomness, as the daemon gets them."""

from __future__ import annotations

import random
import time
from collections.abc import Callable


class Clock:
    """Real time and randomness. Tests pass other sources of time.

    The wall time follows the machine's forwards, and never goes back: what was to be done in a second would wait for
    the hour by which somebody has set the clock back, beyond its deadline, and nothing would tell of it.
    """

    def __init__(
        self, *, wall_ns: Callable[[], int] = time.time_ns, monotonic_ns: Callable[[], int] = time.monotonic_ns
    ) -> None:
        self._wall_ns, self._monotonic_ns = wall_ns, monotonic_ns
        self._newest_ns, self._newest_at_ns = wall_ns(), monotonic_ns()

    def now_ms(self) -> int:
        """Unix time, for the database and for people."""
        at_ns = self._monotonic_ns()
        self._newest_ns = max(self._wall_ns(), self._newest_ns + at_ns - self._newest_at_ns)
        self._newest_at_ns = at_ns
        return self._newest_ns // 1_000_000

    def monotonic(self) -> float:
        """Seconds that never go back, for durations and slots."""
        return self._monotonic_ns() / 1e9

    def jitter(self) -> float:
        """A number in [0, 1)."""
        return random.random()
