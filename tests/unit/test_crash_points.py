"""What is watched stays what it is."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from oracle.core.compute import JobHandle, Lingering, Synchronous, Tended
from oracle.testing.crash_points import Points, watch_providers


class Rented:
    name = "rented"

    def __init__(self) -> None:
        self.tend = self._tend

    async def _tend(self) -> None: ...

    async def submit(self, task: str) -> JobHandle:
        return JobHandle(self.name, task)


def watch(provider: Any, points: Points) -> Any:
    context: Any = SimpleNamespace(providers={provider.name: provider})
    watch_providers(points, context)
    return context.providers[provider.name]


async def test_a_watched_provider_implements_the_protocols_that_it_did_and_no_other() -> None:
    watched = watch(Rented(), Points(lambda name, count: None))
    assert isinstance(watched, Tended)
    assert not isinstance(watched, Lingering | Synchronous)


async def test_what_is_bought_of_it_lies_between_two_points_that_name_it() -> None:
    points = Points(lambda name, count: None)
    watched = watch(Rented(), points)
    assert watched.name == "rented"
    assert await watched.submit("task") == JobHandle("rented", "task")
    before, after = points.counts
    assert before.startswith("before provider.submit rented")
    assert after.startswith("after provider.submit rented")
