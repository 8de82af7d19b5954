"""How long to wait before the next try."""

from __future__ import annotations

from typing import Final

MOST_TOLD_SECONDS: Final = 3_600.0


def backoff_seconds(
    failures: int, jitter: float, *, first: float = 0.5, most: float = 60.0, told: float | None = None
) -> float:
    """Exponential back-off with full jitter: between half and all of `first * 2**failures`, at most `most`.

    `jitter` is a number in [0, 1) from the caller. `told` is what the other side asked for, and is not undercut; but
    nobody can make us wait for longer than an hour.
    """
    wait = min(most, first * 2.0 ** min(failures, 30)) * (0.5 + jitter / 2)
    # In this order a NaN is passed over.
    return wait if told is None else max(wait, min(told, MOST_TOLD_SECONDS))
