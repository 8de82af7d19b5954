"""The account's jobs, newest first, read in pages: for many jobs at once, and to find a lost purchase (§8)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Final

from oracle.providers import errors
from oracle.providers.render.api import PAGE, DispersedApi, Job

_MOST_PAGES: Final = 40
_PAGES_OF_A_POLL: Final = 4


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Every job since the horizon, as read from `began_at` on (monotonic seconds)."""

    began_at: float
    jobs: tuple[Job, ...]


class Listing:
    """Jobs are never deleted, and new ones push the others down: reading from the front may meet one twice, but misses
    none. A snapshot is shared by all who ask within `fresh_seconds`."""

    def __init__(
        self,
        api: DispersedApi,
        *,
        horizon_seconds: float,
        fresh_seconds: float = 5.0,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._api = api
        self._horizon_seconds = horizon_seconds
        self._fresh_seconds = fresh_seconds
        self._clock = clock
        self._now = now
        self._reading = asyncio.Lock()
        self._snapshot: Snapshot | None = None

    async def snapshot(self) -> Snapshot:
        """All jobs within the horizon. Raises ORC-PROVIDER-036 where they cannot all be read."""
        async with self._reading:
            if self._snapshot is None or self._clock() - self._snapshot.began_at > self._fresh_seconds:
                began_at = self._clock()
                self._snapshot = Snapshot(began_at, tuple(await self._since(self._now() - self._horizon_seconds)))
            return self._snapshot

    async def among_the_newest(self, uuids: Collection[str]) -> Mapping[str, Job]:
        """Those of the newest few pages, and all others that stand there: one question for many jobs."""
        found: dict[str, Job] = {}
        for page in range(1, _PAGES_OF_A_POLL + 1):
            jobs, total = await self._api.jobs(page)
            found |= {job.uuid: job for job in jobs if job.uuid not in found}
            if found.keys() >= set(uuids) or page * PAGE >= total or not jobs:
                break
        return found

    async def _since(self, oldest: float) -> list[Job]:
        found: dict[str, Job] = {}
        for page in range(1, _MOST_PAGES + 1):
            jobs, total = await self._api.jobs(page)
            found |= {job.uuid: job for job in jobs if job.uuid not in found}
            if page * PAGE >= total or not jobs or 0 < jobs[-1].created_at < oldest:
                return list(found.values())
        raise errors.LOOK_UP_INCOMPLETE(f"more than {_MOST_PAGES} pages of jobs")
