"""SQLite behind the store: one thread that writes, one that reads, and power loss survived.

A synchronous connection on a thread of its own does a grouped update in a hundredth of the time that aiosqlite takes,
which hands every statement from thread to thread.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, TypeVar

from sqlalchemy import URL, Connection, Engine, create_engine, event
from sqlalchemy.exc import DBAPIError

from oracle.store.errors import CANNOT_OPEN, COMMIT_UNKNOWN, DISK_FULL, LOCKED, NOT_DURABLE, URL_REFUSED
from oracle.store.failures import is_coded, translate

T = TypeVar("T")

_SYNCHRONOUS_FULL: Final = 2
_CACHE_KIB: Final = 32 * 1024


class Sqlite:
    """One database file. Writes run on one thread, in the order in which they were handed over."""

    def __init__(self, url: URL, *, lock_timeout_seconds: float) -> None:
        self._writing = _Kept(writing_engine(url, lock_timeout_seconds=lock_timeout_seconds))
        self._reading = _Kept(_reading_engine(url, lock_timeout_seconds=lock_timeout_seconds))
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="store-writer")
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="store-reader")

    async def open(self, check: Callable[[Connection], None]) -> None:
        def both() -> None:
            for kept in (self._writing, self._reading):
                with kept.transaction() as conn:
                    assert_durable(conn)
                    check(conn)

        await _on(self._writer, both)

    async def read(self, work: Callable[[Connection], T]) -> T:
        def run() -> T:
            with self._reading.transaction() as conn:
                return work(conn)

        return await _on(self._reader, run)

    async def transact(self, work: Callable[[Connection], T]) -> T:
        def run() -> T:
            with self._writing.transaction() as conn:
                result = work(conn)
                _commit(conn)
                return result

        return await _on(self._writer, run)

    async def close(self) -> None:
        await _on(self._reader, self._reading.dispose)
        # The last connection to close merges the write-ahead log into the database.
        await _on(self._writer, self._writing.dispose)
        self._reader.shutdown()
        self._writer.shutdown()


class _Kept:
    """The one connection of an engine, which stays checked out as long as nothing goes wrong with it: to take it from
    the pool and to give it back costs as much as a small transaction."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._conn: Connection | None = None

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """What is not committed inside is rolled back at the end."""
        conn = self._conn or self._engine.connect()
        self._conn = None
        try:
            yield conn
            conn.rollback()
        except BaseException:
            conn.close()
            raise
        self._conn = conn

    def dispose(self) -> None:
        if self._conn is not None:
            self._conn.close()
        self._engine.dispose()


def path_of(url: URL) -> Path:
    """The database file. Raises ORC-STORE-001 for a database in memory, which nothing survives."""
    if not url.database or url.database == ":memory:" or url.query:
        raise URL_REFUSED("a SQLite URL is `sqlite:///PATH`, without options")
    return Path(url.database)


def create_private(path: Path) -> None:
    """Make the file before SQLite does: it will hold prompts, so nobody but its owner may read it.

    SQLite gives its log and index files the permissions of the database file.
    """
    try:
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
    except OSError as error:
        raise CANNOT_OPEN(f"{path}: {error.strerror}") from error


def writing_engine(url: URL, *, lock_timeout_seconds: float, foreign_keys: bool = True) -> Engine:
    """Every transaction takes the write lock as it begins, so that none fails in the middle for want of it."""
    # SQLite keeps 2 MiB of pages unless told otherwise, and then reads twenty for each request that passes through.
    pragmas = (f"foreign_keys={'ON' if foreign_keys else 'OFF'}", f"cache_size=-{_CACHE_KIB}")
    return _engine(url, "BEGIN IMMEDIATE", lock_timeout_seconds, pragmas)


def _reading_engine(url: URL, *, lock_timeout_seconds: float) -> Engine:
    return _engine(url, "BEGIN", lock_timeout_seconds, ("query_only=ON",))


def assert_durable(conn: Connection) -> None:
    """Raise ORC-STORE-003 unless a commit on this connection survives a power failure."""
    journal = conn.exec_driver_sql("PRAGMA journal_mode").scalar_one()
    synchronous = conn.exec_driver_sql("PRAGMA synchronous").scalar_one()
    if journal != "wal" or synchronous < _SYNCHRONOUS_FULL:
        raise NOT_DURABLE(f"journal_mode={journal}, synchronous={synchronous}")


def _engine(url: URL, begin: str, lock_timeout_seconds: float, pragmas: tuple[str, ...]) -> Engine:
    path = path_of(url)
    if not path.is_file():
        raise CANNOT_OPEN(f"{path} does not exist; `oracle db upgrade` creates it")
    engine = create_engine(
        url.set(drivername="sqlite+pysqlite"),
        # None leaves transactions to us: the module would begin them late, and not before a SELECT.
        connect_args={"isolation_level": None, "timeout": lock_timeout_seconds},
        pool_size=1,
        max_overflow=0,
        hide_parameters=True,
    )

    @event.listens_for(engine, "connect")
    def _connected(connection: sqlite3.Connection, _: Any) -> None:
        # NORMAL would not sync a commit. `fullfsync` matters on macOS only, where fsync leaves data in the drive.
        _into_wal(connection, lock_timeout_seconds)
        for pragma in ("synchronous=FULL", "fullfsync=ON", *pragmas):
            connection.execute(f"PRAGMA {pragma}").close()

    @event.listens_for(engine, "begin")
    def _begun(connection: Connection) -> None:
        driver = connection.connection.dbapi_connection
        assert isinstance(driver, sqlite3.Connection)
        driver.execute(begin)

    return engine


def _into_wal(connection: sqlite3.Connection, patience_seconds: float) -> None:
    """A change of the journal mode is refused at once while another process makes it, whatever the busy time-out."""
    until = time.monotonic() + patience_seconds
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL").close()
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > until:
                raise
        time.sleep(0.01)


def _commit(conn: Connection) -> None:
    try:
        conn.commit()
    except DBAPIError as error:
        failure = translate(error)
        # A full disk or a lock stops a commit before its last frame is in the log. After any other failure, such as
        # that of fsync, the frame may be there, and the next start would find the transaction committed.
        if is_coded(failure, DISK_FULL, LOCKED):
            raise
        raise COMMIT_UNKNOWN(str(failure)) from error


async def _on(executor: ThreadPoolExecutor, run: Callable[[], T]) -> T:
    def guarded() -> T:
        try:
            return run()
        except StopIteration as error:
            # A future refuses to carry it: whoever waits, and here that is the committer, would wait for ever.
            raise RuntimeError("a query raised StopIteration") from error

    return await asyncio.get_running_loop().run_in_executor(executor, guarded)
