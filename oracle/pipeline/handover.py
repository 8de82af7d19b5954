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

    A loop that is full, behind, paused or not there has no place to give: its rows are released, and taken in their
    order.
    """

    def __init__(self) -> None:
        self._free: Callable[[], int] | None = None
        self._begin: Begin | None = None
        self._promised = 0

    def open(self, free: Callable[[], int], begin: Begin) -> None:
        """By the loop: how many steps more it could begin now, and how it begins one."""
        self._free, self._begin = free, begin

    def close(self) -> None:
        self._free = self._begin = None

    def begin(self, row: RequestRow) -> bool:
        """Whether the loop has begun with a row that is held."""
        with self.place() as place:
            place.row = row
        return place.is_free

    @contextmanager
    def place(self) -> Iterator[Place]:
        """A place for a row that is to be made yet; kept free until it is left, with the row or without."""
        place = Place(self._free is not None and self._promised < self._free())
        self._promised += place.is_free
        try:
            yield place
        finally:
            self._promised -= place.is_free
            if place.is_free and place.row is not None and self._begin is not None:
                self._begin(place.row)
