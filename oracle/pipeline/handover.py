"""A row that goes from one loop to the next under the lease that it has: to be taken there would cost a commit."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from oracle.store.rows import RequestRow

if TYPE_CHECKING:
    from oracle.pipeline.context import Context

Step = Callable[["Context", RequestRow], Awaitable[None]]
Begin = Callable[[RequestRow, Step | None], None]


class Handover:
    """Into one loop. Only what it can begin at once goes this way, so that nothing overtakes what waits for a place.

    A loop that is full, behind, paused or not there has no place to give: its rows are released, and taken in their
    order.
    """

    def __init__(self) -> None:
        self._free: Callable[[], int] | None = None
        self._begin: Begin | None = None
        self._promised = 0

    def open(self, free: Callable[[], int], begin: Begin) -> None:
        """By the loop: how many steps more it could begin now, and how it begins one: its own, or the one given."""
        self._free, self._begin = free, begin

    def close(self) -> None:
        self._free = self._begin = None

    @property
    def is_free(self) -> bool:
        return self._free is not None and self._promised < self._free()

    def begin(self, row: RequestRow, step: Step | None = None) -> bool:
        """Whether the loop has begun with a row that is held."""
        if not self.is_free or self._begin is None:
            return False
        self._begin(row, step)
        return True

    @contextmanager
    def place(self) -> Iterator[bool]:
        """Whether there is a place for a row that is to be made yet. It is kept free until it is left: whoever has made
        the row begins with it then."""
        is_free = self.is_free
        self._promised += is_free
        try:
            yield is_free
        finally:
            self._promised -= is_free
