"""Whether a purchase happened: the jobs of the account, searched for the key in their definitions (nosana.md §6.5)."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from oracle.providers import errors
from oracle.providers.nosana import definition
from oracle.providers.nosana.api import PAGE, Job, NosanaApi, State, key_of

# In the order of a job's life: one that moves on while the lists are read is met in the next. Without a state the list
# hides queued jobs behind all others, which has led to double purchases (§6.5).
_STATES: Final[tuple[State, ...]] = ("QUEUED", "RUNNING", "COMPLETED", "STOPPED")
_ENDED: Final[frozenset[State]] = frozenset({"COMPLETED", "STOPPED"})

# Pages overlap, or a job that leaves the list between two calls would move another past the edge, unseen.
_OVERLAP: Final = 10
_MOST_PAGES: Final = 40
_FRESH_SECONDS: Final = 15.0
_KEPT_KEYS: Final = 10_000

INDEX_LAG_SECONDS: Final = 360.0
"""How long the indexer may not know a job that exists: a full scan of the chain every five minutes, and a margin."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Every job of the account within the horizon, as read from `began_at` on (monotonic seconds).

    `ours` says that the account is known to be the one our jobs belong to: only then is absence proof of anything.
    """

    began_at: float
    by_key: dict[str, Job] = field(default_factory=dict)
    by_cid: dict[str, Job] = field(default_factory=dict)
    ours: bool = False


class LookUp:
    """`project` owns the jobs. Where it is not configured it is learned from the first purchase, and until then guessed
    from the API key: a guess is good enough to find a job, not to prove that there is none.
    """

    def __init__(
        self,
        api: NosanaApi,
        *,
        api_key: str,
        project: str | None = None,
        horizon_seconds: float = 86_400.0,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._api = api
        self._api_key = api_key
        self._project = project
        self._guess: str | None = None
        self._horizon_seconds = horizon_seconds
        self._clock = clock
        self._now = now
        self._reading = asyncio.Lock()
        self._snapshot: Snapshot | None = None
        # A definition never changes under its CID.
        self._keys: OrderedDict[str, str] = OrderedDict()

    def learn(self, project: str | None) -> None:
        """The account that a bought job belongs to, in the provider's own words."""
        self._project = self._project or project

    async def snapshot(self) -> Snapshot:
        """The account's jobs, at most a few seconds old. Raises ORC-PROVIDER-036 where they cannot all be read."""
        async with self._reading:
            if self._snapshot is None or self._clock() - self._snapshot.began_at > _FRESH_SECONDS:
                self._snapshot = await self._read()
            return self._snapshot

    async def _read(self) -> Snapshot:
        began_at = self._clock()
        project = self._project or await self._guessed()
        by_key: dict[str, Job] = {}
        by_cid: dict[str, Job] = {}
        for state in _STATES:
            for job in await self._pages(project, state):
                if job.definition_cid is not None:
                    by_cid[job.definition_cid] = job
                if (key := await self._key_of(job)) is not None:
                    by_key[key] = job
        return Snapshot(began_at, by_key, by_cid, ours=self._project is not None or bool(by_key))

    async def _guessed(self) -> str:
        self._guess = self._guess or await self._api.address_of_key(self._api_key)
        if self._guess is None:
            raise errors.LOOK_UP_INCOMPLETE("the address of the account is not known")
        return self._guess

    async def _pages(self, project: str, state: State) -> list[Job]:
        jobs: list[Job] = []
        oldest = self._now() - self._horizon_seconds
        for page_number in range(_MOST_PAGES):
            page = await self._api.listed(project, state, page_number * (PAGE - _OVERLAP))
            jobs += page
            if len(page) < PAGE or (state in _ENDED and page[-1].started_at < oldest):
                return jobs
        raise errors.LOOK_UP_INCOMPLETE(f"more than {_MOST_PAGES} pages of {state.lower()} jobs")

    async def _key_of(self, job: Job) -> str | None:
        """The key in a job's definition: from REST, or from IPFS while the indexer has not fetched it yet."""
        if (key := key_of(job)) is not None:
            return key
        if job.definition is not None or job.definition_cid is None or job.kind not in (None, definition.TRIGGER):
            return None
        known = self._keys.get(job.definition_cid)
        if known is None:
            document = await self._api.document(job.definition_cid)
            if document is None:
                raise errors.LOOK_UP_INCOMPLETE(f"the definition of job {job.address} cannot be read")
            known = definition.key_of(document) or ""
            self._keys[job.definition_cid] = known
            if len(self._keys) > _KEPT_KEYS:
                self._keys.popitem(last=False)
        return known or None
