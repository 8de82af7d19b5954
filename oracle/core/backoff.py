"""How long to wait before the next try."""

from __future__ import annotations


def backoff_seconds(
    failures: int, jitter: float, *, first: float = 0.5, most: float = 60.0, told: float | None = None
) -> float:
    """Exponential back-off with full jitter: between half and all of `first * 2**failures`, at most `most`.

    `jitter` is a number in [0, 1) from the caller. `told` is what the other side asked for, and is never undercut.
    """
    wait = min(most, first * 2.0 ** min(failures, 30))
    return max(told or 0.0, wait * (0.5 + jitter / 2))
