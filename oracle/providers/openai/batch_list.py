"""The batches of the last day, by the requests in them: what became of a purchase whose answer was lost."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from oracle.providers import errors
from oracle.providers.openai.batch_api import BatchApi
from oracle.providers.openai.batch_wire import Batch, custom_ids

_MOST_PAGES: Final = 100
_FRESH_SECONDS: Final = 5.0
_KEPT_FILES: Final = 1000


@dataclass(frozen=True, slots=True)
class Snapshot:
    """As read from `began_at` on (monotonic seconds)."""

    began_at: float
    by_key: dict[str, Batch]


class BatchList:
    """A batch names its requests in its metadata; where it has none, as a clone may lose it, its input file does."""

    def __init__(
        self,
        api: BatchApi,
        *,
        horizon_seconds: float,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._api = api
        self._horizon_seconds = horizon_seconds
        self._clock = clock
        self._now = now
        self._reading = asyncio.Lock()
        self._snapshot: Snapshot | None = None
        # A file never changes under its id.
        self._files: OrderedDict[str, tuple[str, ...]] = OrderedDict()

    async def snapshot(self) -> Snapshot:
        """All batches within the horizon. Raises ORC-PROVIDER-036 where they cannot all be read."""
        async with self._reading:
            if self._snapshot is None or self._clock() - self._snapshot.began_at > _FRESH_SECONDS:
                self._snapshot = await self._read()
            return self._snapshot

    async def keys_of(self, batch: Batch) -> tuple[str, ...]:
        if batch.keys is not None:
            return batch.keys
        if batch.input_file not in self._files:
            self._files[batch.input_file] = custom_ids(await self._api.content(batch.input_file))
            if len(self._files) > _KEPT_FILES:
                self._files.popitem(last=False)
        return self._files[batch.input_file]

    async def _read(self) -> Snapshot:
        began_at, oldest = self._clock(), self._now() - self._horizon_seconds
        by_key: dict[str, Batch] = {}
        after: str | None = None
        for _ in range(_MOST_PAGES):
            page, more = await self._api.batches(after)
            for batch in page:
                if batch.created_at >= oldest:
                    by_key |= dict.fromkeys(await self.keys_of(batch), batch)
            # The newest come first, but no word of it is documented: only a page of old ones alone ends the search.
            if not more or not page or all(batch.created_at < oldest for batch in page):
                return Snapshot(began_at, by_key)
            after = page[-1].id
        raise errors.LOOK_UP_INCOMPLETE(f"more than {_MOST_PAGES} pages of batches")
