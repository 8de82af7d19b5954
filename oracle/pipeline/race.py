"""The jobs of one request in one turn of the poll: most often one, and never more than its routes allow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from oracle.store.rows import AttemptRow, RequestRow
from oracle.store.schema import AttemptState


@dataclass(slots=True)
class Race:
    """A held request is written once a turn: for the first job that has something to tell, or after the last has not.

    So a provider that does not answer cannot keep a rival's answer waiting. `waiting` is how many are still asked.
    """

    row: RequestRow
    live: Sequence[AttemptRow]
    waiting: int
    _is_over: bool = False

    def hears(self, is_telling: bool) -> bool:
        """One of them has been asked: whether it is the one to act upon."""
        self.waiting -= 1
        if self._is_over or not (is_telling or self.waiting == 0):
            return False
        self._is_over = True
        return True

    def to_resolve(self, now_ms: int) -> AttemptRow | None:
        """An attempt of which nobody knows whether it was bought, and of which it is time to find out."""
        unsure = (attempt for attempt in self.live if attempt.state is not AttemptState.RUNNING)
        return next((attempt for attempt in unsure if attempt.wake_at_ms <= now_ms), None)
