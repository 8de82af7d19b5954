"""A row that goes from one loop to the next under the lease that it has: to be taken there would cost a commit."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from oracle.store.rows import RequestRow

Begin = Callable[[RequestRow], None]


@dataclass(slots=True)
class Place:
    """A place in the next loop, if that has a free one. A held row that is put into `row` goes there."""

    is_free: bool
    row: RequestRow | None = None


class Handover:
    """Into one loop. Only what it can begin at once goes this way, so that nothing overtakes what waits for a place.

    A loop that is full, paused or not there has no place to give: its rows are then released, and taken in their order.
    """

    def __init__(self) -> None:
        self._free: Callable[[], int] | None = None
        self._begin: Begin | None = None
        self.promised = 0
        """Places that are kept for rows on their way."""

    def open(self, free: Callable[[], int], begin: Begin) -> None:
        """By the loop: how many steps more it could begin now, and how it begins one."""
        self._free, self._begin = free, begin

    def close(self) -> None:
        self._free = self._begin = None

    @contextmanager
    def place(self) -> Iterator[Place]:
        """Kept free until it is left, with a row or without."""
        place = Place(self._free is not None and self.promised < self._free())
        self.promised += place.is_free
        try:
            yield place
        finally:
            self.promised -= place.is_free
            # Where the loop has ended meanwhile, the row is let go of with all that this process holds.
            if place.is_free and place.row is not None and self._begin is not None:
                self._begin(place.row)
