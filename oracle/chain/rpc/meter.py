"""How an endpoint has answered, by method: for metrics."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass, field
from typing import Final

BOUNDS_SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


@dataclass(slots=True)
class Timings:
    """A histogram: `counts` are of the durations up to each of `BOUNDS_SECONDS`, the last of all longer ones."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(BOUNDS_SECONDS) + 1))
    sum_seconds: float = 0.0

    def add(self, seconds: float) -> None:
        self.counts[bisect_left(BOUNDS_SECONDS, seconds)] += 1
        self.sum_seconds += seconds

    def cumulative(self) -> list[tuple[str, float]]:
        """The buckets as Prometheus wants them: at most this long, so many."""
        total, buckets = 0, []
        for bound, count in zip([*map(str, BOUNDS_SECONDS), "+Inf"], self.counts, strict=True):
            total += count
            buckets.append((bound, float(total)))
        return buckets


@dataclass(slots=True)
class Meter:
    """The calls to one endpoint. Durations are those of the endpoint; what our own throttle took is apart."""

    timings: dict[str, Timings] = field(default_factory=dict)
    errors: Counter[tuple[str, str]] = field(default_factory=Counter)
    throttled_seconds: float = 0.0

    def took(self, method: str, seconds: float, *, code: str | None = None) -> None:
        """A call has ended, with the error `code` or well."""
        if method not in self.timings:
            self.timings[method] = Timings()
        self.timings[method].add(seconds)
        if code is not None:
            self.errors[method, code] += 1
