"""Time and randomness, as the daemon gets them."""

from __future__ import annotations

import random
import time


class Clock:
    """Real time and randomness. Tests pass one that they drive."""

    def now_ms(self) -> int:
        """Unix time, for the database and for people."""
        return time.time_ns() // 1_000_000

    def monotonic(self) -> float:
        """Seconds that never go back, for durations and slots."""
        return time.monotonic()

    def jitter(self) -> float:
        """A number in [0, 1)."""
        return random.random()
