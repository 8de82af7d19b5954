"""A line between the daemons on one PostgreSQL database: what one says, the others hear at once (LISTEN/NOTIFY).

It is a connection of its own, outside the pool that the work goes through. What is said while it is broken is lost.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any, Final

from sqlalchemy.pool import NullPool

from oracle.store.errors import CONNECTION_LOST
from oracle.store.failures import is_coded, translate
from oracle.store.postgresql import APPLICATION, async_engine
from oracle.store.urls import parse

_ANSWER_SECONDS: Final = 10.0

# Whoever works changes its state with every statement, and whoever waits for a lock does not wait for its client.
_END_STANDSTILLS: Final = f"""
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE datname = current_database() AND usename = current_user AND application_name = '{APPLICATION}'
    AND xact_start IS NOT NULL AND wait_event = 'ClientRead'
    AND state_change < clock_timestamp() - make_interval(secs => $1) AND pid <> pg_backend_pid()
"""


class Line:
    """An open line on a channel. Belongs to the event loop that opened it."""

    def __init__(self, connection: Any, channel: str) -> None:
        self._connection = connection
        self._channel = channel

    async def say(self, words: Iterable[str]) -> int:
        """Let the others hear words without spaces; none only asks whether the line is still open.

        Returns the server's time, in unix milliseconds. Raises ORC-STORE-008 where the line is broken.
        """
        said = " ".join(words)
        asked = "SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint"
        with_words = f"{asked} FROM pg_notify($1, $2)"
        try:
            async with asyncio.timeout(_ANSWER_SECONDS):
                if said:
                    return int(await self._connection.fetchval(with_words, self._channel, said))
                return int(await self._connection.fetchval(asked))
        except Exception as error:
            raise _broken(error) from error

    async def end_standstills(self, seconds: float) -> int:
        """End the sessions of daemons that have left a transaction waiting for so long; how many.

        The server itself only sees those that wait between two statements, and not those that were stopped in the
        middle of one, half of its messages sent: they would keep their locks for as long as they stand still.
        Raises ORC-STORE-008 as `say` does.
        """
        try:
            async with asyncio.timeout(_ANSWER_SECONDS):
                return len(await self._connection.fetch(_END_STANDSTILLS, seconds))
        except Exception as error:
            raise _broken(error) from error


@asynccontextmanager
async def line(url: str, channel: str, hear: Callable[[str], None]) -> AsyncIterator[Line]:
    """A line that is open until the block ends; `hear` is called with each word that another says.

    Raises ORC-STORE-008, or a code that says why the server refuses.
    """
    engine = async_engine(parse(url), lock_timeout_seconds=_ANSWER_SECONDS, poolclass=NullPool, pool_pre_ping=False)
    try:
        try:
            pooled = await engine.raw_connection()
        except Exception as error:
            raise _broken(error) from error
        connection: Any = pooled.driver_connection
        pooled.detach()
        own = connection.get_server_pid()

        def heard(_: Any, sender: int, __: str, words: str) -> None:
            if sender != own:
                for word in words.split():
                    hear(word)

        try:
            try:
                await connection.add_listener(channel, heard)
            except Exception as error:
                raise _broken(error) from error
            yield Line(connection, channel)
        finally:
            # No good-bye: a server that is away would not answer it.
            connection.terminate()
    finally:
        await engine.dispose()


def _broken(error: Exception) -> Exception:
    coded = translate(error)
    return coded if is_coded(coded) or coded is not error else CONNECTION_LOST(type(error).__name__)
