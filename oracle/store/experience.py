"""What the newest jobs have come to, by provider and model: how many succeeded, and how long those took."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, func, select

from oracle.store.schema import AttemptState
from oracle.store.schema import attempts as t
from oracle.store.sql import is_one_of

NEWEST: Final = 100
_OVER: Final = frozenset({AttemptState.SUCCEEDED, AttemptState.FAILED})


@dataclass(frozen=True, slots=True)
class Experience:
    """Of the newest jobs of one route that have succeeded or failed. `seconds` are those of the successful ones, from
    the purchase to the answer. One that was called off says nothing of its provider, and does not count."""

    model: str
    jobs: int
    seconds: tuple[float, ...]

    @property
    def success_rate(self) -> float:
        return len(self.seconds) / self.jobs


def of_all(conn: Connection, newest: int = NEWEST) -> dict[str, tuple[Experience, ...]]:
    """By provider, one for each model it has run, in the order of their names."""
    lasted_ms = t.c.ended_at_ms - t.c.intended_at_ms
    place = func.row_number().over(partition_by=(t.c.provider, t.c.model), order_by=t.c.ended_at_ms.desc())
    ended = select(t.c.provider, t.c.model, t.c.state, lasted_ms.label("ms"), place.label("place"))
    over = ended.where(is_one_of(t.c.state, _OVER)).subquery()
    query = select(over.c.provider, over.c.model, over.c.state, over.c.ms).where(over.c.place <= newest)
    jobs: dict[tuple[str, str], list[tuple[AttemptState, int]]] = defaultdict(list)
    for provider, model, state, lasted in conn.execute(query.order_by(over.c.provider, over.c.model, over.c.place)):
        jobs[provider, model].append((AttemptState(state), lasted))
    found: dict[str, list[Experience]] = defaultdict(list)
    for (provider, model), ends in jobs.items():
        seconds = tuple(ms / 1000 for state, ms in ends if state is AttemptState.SUCCEEDED)
        found[provider].append(Experience(model, len(ends), seconds))
    return {provider: tuple(experiences) for provider, experiences in found.items()}
