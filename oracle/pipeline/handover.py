"""Work that goes straight into the next loop: a row under the lease that it has, or what is to become one. To be taken
there would cost a commit."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from oracle.store.rows import RequestRow

Work = Coroutine[Any, Any, None]


class Handover:
    """Into one loop. Only what it can begin at once goes this way, so that nothing overtakes what waits for a place.

    A loop that is full, behind, paused or not there has no place to give: its rows wait to be taken in their order.
    """

    def __init__(self) -> None:
        self._free: Callable[[], int] = lambda: 0
        self._start: Callable[[Work], None] | None = None
        self._step: Callable[[RequestRow], Work] | None = None

    def open(self, free: Callable[[], int], start: Callable[[Work], None], step: Callable[[RequestRow], Work]) -> None:
        """By the loop: how much more work it could begin now, how it begins one piece, and its own step on a row."""
        self._free, self._start, self._step = free, start, step

    def close(self) -> None:
        self._start = self._step = None

    @property
    def is_free(self) -> bool:
        return self._start is not None and self._free() > 0

    def begin(self, row: RequestRow) -> bool:
        """Whether the loop has begun with a row that is held."""
        step = self._step
        return step is not None and self.begin_with(lambda: step(row))

    def begin_with(self, work: Callable[[], Work]) -> bool:
        """Whether the loop has begun with something else, which counts as one of its steps and ends with them."""
        if self._start is None or not self.is_free:
            return False
        self._start(work())
        return True
