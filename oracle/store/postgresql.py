"""PostgreSQL behind the store, through asyncpg: several daemons share one database."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import Final, TypeVar

from sqlalchemy import URL, Connection
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from oracle.store.errors import COMMIT_UNKNOWN, CONFLICT, NOT_DURABLE, URL_REFUSED
from oracle.store.failures import is_coded, translate

T = TypeVar("T")

_CONFLICT_RETRIES: Final = 3


class Postgresql:
    """One database on a server. A transaction that waits for a lock longer than the timeout fails, and is repeated."""

    def __init__(self, url: URL, *, lock_timeout_seconds: float) -> None:
        self._engine = async_engine(url, lock_timeout_seconds=lock_timeout_seconds)
        self._reading = self._engine.execution_options(postgresql_readonly=True)

    async def open(self, check: Callable[[Connection], None]) -> None:
        def run(conn: Connection) -> None:
            assert_durable(conn)
            check(conn)

        await self.read(run)

    async def read(self, work: Callable[[Connection], T]) -> T:
        async with self._reading.connect() as conn:
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
        async with self._engine.connect() as conn:
            result = await conn.run_sync(work)
            try:
                await conn.commit()
            except (DBAPIError, OSError) as error:
                # The server may have committed and only its answer was lost.
                raise COMMIT_UNKNOWN(str(translate(error))) from error
            return result

    async def close(self) -> None:
        await self._engine.dispose()


def async_engine(url: URL, *, lock_timeout_seconds: float) -> AsyncEngine:
    if find_spec("asyncpg") is None:
        raise URL_REFUSED("PostgreSQL needs the extra: pip install 'solana-inference-oracle[postgres]'")
    milliseconds = str(int(lock_timeout_seconds * 1000))
    return create_async_engine(
        url.set(drivername="postgresql+asyncpg"),
        pool_pre_ping=True,
        hide_parameters=True,
        connect_args={
            "timeout": 10,
            "server_settings": {
                "application_name": "inference-oracle",
                "lock_timeout": milliseconds,
                # A daemon that was stopped inside a transaction must not hold its row locks against the others.
                "idle_in_transaction_session_timeout": "30000",
            },
        },
    )


def assert_durable(conn: Connection) -> None:
    """Raise ORC-STORE-003 unless a commit survives a power failure of the server."""
    settings = {name: conn.exec_driver_sql(f"SHOW {name}").scalar_one() for name in ("fsync", "synchronous_commit")}
    if "off" in settings.values():
        raise NOT_DURABLE(", ".join(f"{name}={value}" for name, value in settings.items()))
