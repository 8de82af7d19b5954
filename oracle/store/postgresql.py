"""PostgreSQL behind the store, through asyncpg: several daemons share one database."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from importlib.util import find_spec
from typing import Any, Final, TypeVar

from sqlalchemy import URL, Connection, event
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from oracle.store.errors import COMMIT_UNKNOWN, CONFLICT, NOT_DURABLE, URL_REFUSED
from oracle.store.failures import is_coded, translate

T = TypeVar("T")

APPLICATION: Final = "inference-oracle"
_CONFLICT_RETRIES: Final = 3

# A statement takes milliseconds. One that takes so long has lost its server, or waits behind somebody's mistake.
STATEMENT_SECONDS: Final = 30.0

# Shorter than the wait for a lock: whoever meets the locks of a daemon that was stopped in a transaction outlives it.
_IDLE_SECONDS: Final = 5.0

_OPTIONS: Final = frozenset({"host", "port", "ssl", "target_session_attrs", "prepared_statement_cache_size"})


class Postgresql:
    """One database on a server. A transaction that waits for a lock longer than the timeout fails, and is repeated."""

    def __init__(self, url: URL, *, lock_timeout_seconds: float) -> None:
        self._engine = async_engine(url, lock_timeout_seconds=lock_timeout_seconds, statement_seconds=STATEMENT_SECONDS)
        # A server that was started anew may have other settings.
        event.listen(self._engine.sync_engine, "connect", _assert_durable)
        self._reading = self._engine.execution_options(postgresql_readonly=True)

    async def open(self, check: Callable[[Connection], None]) -> None:
        await self.read(check)

    async def read(self, work: Callable[[Connection], T]) -> T:
        async with _connected(self._reading) as conn:
            return await conn.run_sync(work)

    async def transact(self, work: Callable[[Connection], T]) -> T:
        for _ in range(_CONFLICT_RETRIES):
            try:
                return await self._transact_once(work)
            except DBAPIError as error:
                if not is_coded(translate(error), CONFLICT):
                    raise
        return await self._transact_once(work)

    async def _transact_once(self, work: Callable[[Connection], T]) -> T:
        async with _connected(self._engine) as conn:
            result = await conn.run_sync(work)
            try:
                await conn.commit()
            except (DBAPIError, OSError) as error:
                # The server may have committed and only its answer was lost.
                raise COMMIT_UNKNOWN(str(translate(error))) from error
            return result

    async def close(self) -> None:
        await self._engine.dispose()


def async_engine(
    url: URL, *, lock_timeout_seconds: float, statement_seconds: float | None = None, **options: Any
) -> AsyncEngine:
    """Raises ORC-STORE-001 where the driver is missing, or does not know an option of the URL."""
    if find_spec("asyncpg") is None:
        raise URL_REFUSED("PostgreSQL needs the extra: pip install 'solana-inference-oracle[postgres]'")
    return create_async_engine(
        _for_driver(url),
        hide_parameters=True,
        connect_args={
            "timeout": 10,
            # For a server that says nothing more at all; one that lives ends the statement itself.
            "command_timeout": None if statement_seconds is None else statement_seconds + 5,
            "server_settings": {
                "application_name": APPLICATION,
                "lock_timeout": _milliseconds(lock_timeout_seconds),
                "statement_timeout": _milliseconds(statement_seconds or 0),
                "idle_in_transaction_session_timeout": _milliseconds(_IDLE_SECONDS),
            },
        },
        **{"pool_pre_ping": True, **options},
    )


def _for_driver(url: URL) -> URL:
    """asyncpg's own words for what others call differently."""
    query = dict(url.query)
    if "sslmode" in query:
        query["ssl"] = query.pop("sslmode")
    if unknown := sorted(query.keys() - _OPTIONS):
        raise URL_REFUSED(f"option {', '.join(unknown)} of the URL; known are {', '.join(sorted(_OPTIONS))}")
    driver = url.drivername.partition("+")[2]
    if driver not in ("", "asyncpg"):
        raise URL_REFUSED(f"driver {driver!r}: only asyncpg is supported")
    return url.set(drivername="postgresql+asyncpg", query=query)


@asynccontextmanager
async def _connected(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    async with engine.connect() as conn:
        try:
            yield conn
        except TimeoutError:
            # A server that does not answer would not answer a rollback either.
            await conn.invalidate()
            raise


def _assert_durable(connection: DBAPIConnection, _: object) -> None:
    """Raise ORC-STORE-003 unless a commit on this connection survives a power failure of the server."""
    cursor = connection.cursor()
    for name in ("fsync", "synchronous_commit"):
        cursor.execute(f"SHOW {name}")
        if cursor.fetchone() == ("off",):
            raise NOT_DURABLE(f"{name}=off")
    cursor.close()


def _milliseconds(seconds: float) -> str:
    return str(int(seconds * 1000))
