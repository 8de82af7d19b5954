"""PostgreSQL itself: a server that dies, locks, deadlocks and commits that nobody hears of."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib import import_module
from pathlib import Path

import asyncpg
import pytest
import test_store_on_postgresql as gathered
from chaos_wait import until
from postgres_server import Server
from sqlalchemy import Connection, text
from store_world import sighting

from oracle.core.errors import OracleError, Verdict
from oracle.store import marks, requests
from oracle.store.engine import Store
from oracle.store.errors import (
    CANNOT_OPEN,
    COMMIT_UNKNOWN,
    CONFLICT,
    CONNECTION_LOST,
    DISK_FULL,
    LOCKED,
    NOT_DURABLE,
    VALUE_REFUSED,
)

pytestmark = pytest.mark.postgres


async def test_a_locked_table_is_told_and_written_to_as_soon_as_it_is_free(url: str, server: Server) -> None:
    store = await Store.open(url, lock_timeout_seconds=0.05)
    psql = await asyncpg.connect(user="postgres", database=name_of(url), host=server.directory)
    await psql.execute("BEGIN; LOCK TABLE marks IN EXCLUSIVE MODE")
    with pytest.raises(OracleError) as raised:
        await store.write(lambda c: marks.put(c, "mark", 1))
    assert raised.value.error is LOCKED
    await psql.execute("ROLLBACK")
    await psql.close()
    await store.write(lambda c: marks.put(c, "mark", 1))
    await store.close()


async def test_a_connection_that_is_lost_fails_the_group_and_the_next_one_is_made_anew(store: Store) -> None:
    results = await asyncio.gather(
        store.write(lambda c: marks.put(c, "mark", 1)),
        store.write(lambda c: c.execute(text("SELECT pg_terminate_backend(pg_backend_pid())"))),
        return_exceptions=True,
    )
    assert [getattr(result, "error", None) for result in results] == [CONNECTION_LOST] * 2
    assert await store.read(lambda c: marks.get(c, "mark")) is None
    await store.write(lambda c: marks.put(c, "mark", 2))
    assert await store.read(lambda c: marks.get(c, "mark")) == 2


async def test_a_commit_whose_answer_is_lost_is_unknown_and_not_repeated(store: Store) -> None:
    # A deferred trigger runs inside COMMIT, and ends the session there.
    await store.write(
        lambda c: c.execute(
            text(
                "CREATE FUNCTION die() RETURNS trigger LANGUAGE plpgsql AS "
                "$$ BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); RETURN NULL; END $$"
            )
        )
    )
    await store.write(
        lambda c: c.execute(
            text(
                "CREATE CONSTRAINT TRIGGER die AFTER INSERT ON marks DEFERRABLE INITIALLY DEFERRED "
                "FOR EACH ROW EXECUTE FUNCTION die()"
            )
        )
    )
    runs = itertools.count()
    results = await asyncio.gather(
        store.write(lambda c: (next(runs), marks.put(c, "mark", 1))),
        store.write(lambda c: next(runs)),
        return_exceptions=True,
    )
    assert [getattr(result, "error", None) for result in results] == [COMMIT_UNKNOWN] * 2
    assert COMMIT_UNKNOWN.verdict is Verdict.UNKNOWN
    assert next(runs) == 2
    assert await store.read(requests.counts)


async def test_two_daemons_in_a_deadlock_both_get_through(store: Store, other: Store) -> None:
    await store.write(lambda c: (marks.put(c, "a", 0), marks.put(c, "b", 0)))
    runs = itertools.count()

    def swap(conn: Connection, first: str, second: str) -> None:
        conn.execute(text("SET LOCAL deadlock_timeout = '10ms'"))
        marks.put(conn, first, first + second)
        if next(runs) < 2:
            conn.execute(text("SELECT pg_advisory_xact_lock_shared(1)"))
            conn.execute(text(WAIT_UNTIL_BOTH_HAVE_BEGUN))
        marks.put(conn, second, first + second)

    await asyncio.gather(store.write(lambda c: swap(c, "a", "b")), other.write(lambda c: swap(c, "b", "a")))
    assert next(runs) > 2, "there was no deadlock"
    assert await store.read(lambda c: marks.get(c, "a")) == await store.read(lambda c: marks.get(c, "b"))


async def test_a_conflict_that_does_not_end_is_told(store: Store) -> None:
    runs = itertools.count()
    with pytest.raises(OracleError) as raised:
        await store.write(lambda c: (next(runs), raise_in(c, "40001")))
    assert raised.value.error is CONFLICT
    assert next(runs) == 4


async def test_one_write_that_fills_the_disk_does_not_fail_those_that_fit(store: Store) -> None:
    results = await asyncio.gather(
        store.write(lambda c: marks.put(c, "small", 1)),
        store.write(lambda c: raise_in(c, "53100")),
        store.write(lambda c: marks.put(c, "small too", 1)),
        return_exceptions=True,
    )
    assert [getattr(result, "error", None) for result in results] == [None, DISK_FULL, None]


async def test_a_text_with_a_nul_is_refused_with_a_code(store: Store) -> None:
    with pytest.raises(OracleError) as raised:
        await store.write(lambda c: requests.see(c, sighting(model="a\0b")))
    assert raised.value.error is VALUE_REFUSED


async def test_a_server_that_acknowledges_commits_too_early_is_refused(url: str, server: Server) -> None:
    psql = await asyncpg.connect(user="postgres", database=name_of(url), host=server.directory)
    await psql.execute(f"ALTER DATABASE {name_of(url)} SET synchronous_commit = off")
    await psql.close()
    with pytest.raises(OracleError) as raised:
        await Store.open(url)
    assert raised.value.error is NOT_DURABLE


async def test_a_server_that_does_not_sync_is_refused(url: str, server: Server) -> None:
    async with without_fsync(server):
        with pytest.raises(OracleError, match="fsync=off") as raised:
            await Store.open(url)
    assert raised.value.error is NOT_DURABLE


async def test_a_server_that_syncs_no_longer_is_refused_by_a_store_that_connects_anew(
    store: Store, server: Server
) -> None:
    await store.write(lambda c: marks.put(c, "mark", 1))
    async with without_fsync(server):
        with pytest.raises(OracleError, match=CONNECTION_LOST.code):
            await store.write(lambda c: c.execute(text("SELECT pg_terminate_backend(pg_backend_pid())")))
        with pytest.raises(OracleError) as raised:
            await store.write(lambda c: marks.put(c, "mark", 2))
    assert raised.value.error is NOT_DURABLE
    assert await store.read(lambda c: marks.get(c, "mark")) == 1


@pytest.mark.parametrize(
    "where", ["/test_none?host={socket}", "/postgres?host={socket}/nowhere"], ids=["no such database", "no server"]
)
async def test_a_server_that_cannot_be_reached_is_told_without_the_password(server: Server, where: str) -> None:
    url = "postgresql+asyncpg://postgres:hunter2@" + where.format(socket=server.directory)
    with pytest.raises(OracleError) as raised:
        await Store.open(url)
    assert raised.value.error is CANNOT_OPEN
    assert "hunter2" not in str(raised.value)


async def test_a_server_that_crashes_loses_nothing_that_was_acknowledged(store: Store, server: Server) -> None:
    acknowledged: list[int] = []
    codes: set[str] = set()
    numbers = itertools.count()
    enough, crashed = asyncio.Event(), asyncio.Event()

    async def loop() -> None:
        since_crash = 0
        while since_crash < 5:
            n = next(numbers)
            try:
                await store.write(lambda c, n=n: marks.put(c, f"mark-{n}", n))  # type: ignore[misc]
            except OracleError as error:
                codes.add(error.code)
                await asyncio.sleep(0.01)
                continue
            acknowledged.append(n)
            if len(acknowledged) == 50:
                enough.set()
            since_crash += crashed.is_set()

    async def crash() -> None:
        await enough.wait()
        await asyncio.to_thread(server.crash_and_restart)
        crashed.set()

    async with asyncio.timeout(90):
        await asyncio.gather(crash(), *(loop() for _ in range(4)))
    kept = await store.read(lambda c: set(c.execute(text("SELECT name FROM marks")).scalars()))
    assert {f"mark-{n}" for n in acknowledged} <= kept
    assert codes
    assert codes <= {CONNECTION_LOST.code, COMMIT_UNKNOWN.code}


def test_every_test_of_the_store_that_is_not_of_sqlite_itself_runs_on_postgresql_too() -> None:
    modules = {path.stem for path in STORE_TESTS.glob("test_*.py")}
    assert modules > OF_SQLITE_ITSELF.keys()
    for origin in modules - OF_SQLITE_ITSELF.keys():
        tests = {name: test for name, test in vars(import_module(origin)).items() if name.startswith("test_")}
        assert tests, origin
        for name, test in tests.items():
            # Another module may have one of the same name, which hides it.
            assert getattr(gathered, name, None) is test, f"{origin}.{name}"


STORE_TESTS = Path(__file__).parents[1] / "unit" / "store"
OF_SQLITE_ITSELF = {
    "test_store_lock": "PostgreSQL is shared: locks are files, beside a database's own or named after a key",
    "test_store_prepared": "PostgreSQL's statements are prepared by its driver, not by us",
    "test_store_sqlite": "files, pragmas and full disks; what PostgreSQL has in place of them is here",
}

WAIT_UNTIL_BOTH_HAVE_BEGUN = """
    DO $$ BEGIN
        FOR i IN 1..3000 LOOP
            EXIT WHEN (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 1) >= 2;
            PERFORM pg_sleep(0.01);
        END LOOP;
    END $$
"""


@asynccontextmanager
async def without_fsync(server: Server) -> AsyncIterator[None]:
    psql = await asyncpg.connect(user="postgres", database="postgres", host=server.directory)

    async def change(statement: str, setting: str) -> None:
        await psql.execute(statement)
        await psql.execute("SELECT pg_reload_conf()")

        async def is_in_force() -> bool:
            return bool(await psql.fetchval("SHOW fsync") == setting)

        # The server that makes new sessions has read it by the time it reaches this one.
        await until(is_in_force, f"fsync = {setting}", 30.0)

    try:
        await change("ALTER SYSTEM SET fsync = off", "off")
        yield
    finally:
        # The other tests share the server.
        await change("ALTER SYSTEM RESET fsync", "on")
        await psql.close()


def raise_in(conn: Connection, sqlstate: str) -> None:
    conn.execute(text(f"DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = '{sqlstate}'; END $$"))


def name_of(url: str) -> str:
    return url.split("/")[3].partition("?")[0]
