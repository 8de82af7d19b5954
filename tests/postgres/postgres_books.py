"""What a database on the tests' own server holds, read from beside the event loop of a test."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import asyncpg
from sqlalchemy import make_url

PATIENCE_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Books:
    """Called with a query, it returns the rows; while the server is away it waits."""

    directory: str
    url: str

    def __call__(self, query: str) -> list[tuple[Any, ...]]:
        # The caller's loop may be running, and a second one needs a thread of its own.
        with ThreadPoolExecutor(1) as thread:
            return thread.submit(asyncio.run, self._read(query)).result()

    async def _read(self, query: str) -> list[tuple[Any, ...]]:
        until = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                connection = await asyncpg.connect(
                    user="postgres", database=make_url(self.url).database, host=self.directory
                )
                try:
                    return [tuple(row) for row in await connection.fetch(query)]
                finally:
                    connection.terminate()
            except (OSError, asyncpg.PostgresError):
                if time.monotonic() > until:
                    raise
                await asyncio.sleep(0.05)
