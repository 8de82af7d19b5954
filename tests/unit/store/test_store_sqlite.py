"""SQLite itself: what survives a kill, a full disk, a lock, and what is refused at the door."""

from __future__ import annotations

import asyncio
import os
import resource
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from sqlalchemy import Connection, create_engine
from store_world import see

from oracle.core.errors import OracleError
from oracle.store import duties, marks
from oracle.store.engine import Store, upgrade
from oracle.store.errors import (
    CANNOT_OPEN,
    CLOSED,
    COMMIT_UNKNOWN,
    DAMAGED,
    DISK_FULL,
    LOCKED,
    NOT_DURABLE,
    URL_REFUSED,
)
from oracle.store.sqlite import assert_durable


async def test_a_commit_is_one_synced_commit_on_the_disk(store: Store, url: str) -> None:
    await see(store)
    before = commits_in_log(path(url))
    await asyncio.gather(*(store.write(lambda c, n=n: marks.put(c, f"mark-{n}", n)) for n in range(100)))  # type: ignore[misc]
    assert commits_in_log(path(url)) == before + 1


async def test_both_connections_sync_every_commit_to_the_write_ahead_log(store: Store) -> None:
    for use in (store.read, store.write):
        assert await use(lambda c: c.exec_driver_sql("PRAGMA journal_mode").scalar_one()) == "wal"
        assert await use(lambda c: c.exec_driver_sql("PRAGMA synchronous").scalar_one()) == 2
    assert await store.write(lambda c: c.exec_driver_sql("PRAGMA foreign_keys").scalar_one()) == 1


@pytest.mark.parametrize("pragma", ["synchronous=NORMAL", "synchronous=OFF", "journal_mode=DELETE"])
def test_a_connection_that_would_lose_commits_is_refused(tmp_path: Path, pragma: str) -> None:
    engine = create_engine(f"sqlite:///{tmp_path}/oracle.sqlite")
    try:
        with engine.connect() as conn:
            for setting in ("journal_mode=WAL", "synchronous=FULL"):
                conn.exec_driver_sql(f"PRAGMA {setting}")
            assert_durable(conn)
            conn.exec_driver_sql(f"PRAGMA {pragma}")
            with pytest.raises(OracleError) as raised:
                assert_durable(conn)
            assert raised.value.error is NOT_DURABLE
    finally:
        engine.dispose()


async def test_a_database_that_another_program_keeps_locked_is_told_at_the_door(url: str) -> None:
    with closing(sqlite3.connect(path(url), isolation_level=None)) as shell:
        shell.execute("PRAGMA journal_mode=DELETE")
        shell.execute("BEGIN EXCLUSIVE")
        with pytest.raises(OracleError) as raised:
            await Store.open(url, lock_timeout_seconds=0.05)
        assert raised.value.error is LOCKED


def test_the_database_is_readable_by_its_owner_only(tmp_path: Path) -> None:
    upgrade(f"sqlite:///{tmp_path}/new.sqlite")
    with closing(sqlite3.connect(tmp_path / "new.sqlite")) as connection:
        connection.execute("CREATE TABLE x (y)")
        modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in tmp_path.iterdir()}
    assert modes == {"new.sqlite": 0o600, "new.sqlite-wal": 0o600, "new.sqlite-shm": 0o600}


@pytest.mark.parametrize(
    "bad", ["sqlite://", "sqlite:///:memory:", "mysql://host/db", "no url at all", "sqlite:///x?mode=memory"]
)
async def test_a_database_that_would_not_last_is_refused(bad: str) -> None:
    with pytest.raises(OracleError) as raised:
        await Store.open(bad)
    assert raised.value.error is URL_REFUSED


async def test_a_database_that_does_not_exist_is_not_created_by_opening_it(tmp_path: Path) -> None:
    with pytest.raises(OracleError) as raised:
        await Store.open(f"sqlite:///{tmp_path}/none.sqlite")
    assert raised.value.error is CANNOT_OPEN
    assert "oracle db upgrade" in str(raised.value)
    assert os.listdir(tmp_path) == []


def test_a_directory_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(OracleError, match=r"missing/oracle\.sqlite") as raised:
        upgrade(f"sqlite:///{tmp_path}/missing/oracle.sqlite")
    assert raised.value.error is CANNOT_OPEN


async def test_a_file_that_is_no_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "notes.txt"
    file.write_text("this is not a database, and somebody needs it\n" * 100)
    before = file.read_bytes()
    with pytest.raises(OracleError) as raised:
        await Store.open(f"sqlite:///{file}")
    assert raised.value.error is DAMAGED
    with pytest.raises(OracleError) as raised:
        await asyncio.to_thread(upgrade, f"sqlite:///{file}")
    assert raised.value.error is DAMAGED
    assert file.read_bytes() == before


async def test_a_locked_database_is_told_and_written_to_as_soon_as_it_is_free(url: str) -> None:
    store = await Store.open(url, lock_timeout_seconds=0.05)
    with closing(sqlite3.connect(path(url), isolation_level=None)) as shell:
        shell.execute("BEGIN IMMEDIATE")
        results = await asyncio.gather(
            *(store.write(lambda c, n=n: marks.put(c, f"mark-{n}", n)) for n in range(3)),  # type: ignore[misc]
            return_exceptions=True,
        )
        assert [result.error for result in results if isinstance(result, OracleError)] == [LOCKED] * 3
        assert await store.read(lambda c: marks.get(c, "mark-0")) is None
        shell.execute("ROLLBACK")
    await store.write(lambda c: marks.put(c, "mark-0", 7))
    assert await store.read(lambda c: marks.get(c, "mark-0")) == 7
    await store.close()


async def test_a_patient_write_waits_until_a_locked_database_is_free(url: str) -> None:
    """What a daemon has just bought must not be forgotten because somebody looks at its database."""
    store = await Store.open(url, lock_timeout_seconds=0.02, patience_seconds=30)
    with closing(sqlite3.connect(path(url), isolation_level=None)) as shell:
        shell.execute("BEGIN IMMEDIATE")
        writes = [asyncio.create_task(store.write(lambda c, n=n: marks.put(c, f"mark-{n}", n))) for n in range(3)]  # type: ignore[misc]
        done, _ = await asyncio.wait(writes, timeout=0.3)
        assert not done
        shell.execute("ROLLBACK")
    await asyncio.gather(*writes)
    assert [await store.read(lambda c, n=n: marks.get(c, f"mark-{n}")) for n in range(3)] == [0, 1, 2]  # type: ignore[misc]
    await store.close()


async def test_patience_has_an_end(url: str) -> None:
    store = await Store.open(url, lock_timeout_seconds=0.02, patience_seconds=0.2)
    with closing(sqlite3.connect(path(url), isolation_level=None)) as shell:
        shell.execute("BEGIN IMMEDIATE")
        with pytest.raises(OracleError) as raised:
            await store.write(lambda c: marks.put(c, "mark", 1))
        shell.execute("ROLLBACK")
    assert raised.value.error is LOCKED
    await store.close()


async def test_a_store_that_closes_waits_for_nothing(url: str) -> None:
    store = await Store.open(url, lock_timeout_seconds=0.02, patience_seconds=3_600)
    with closing(sqlite3.connect(path(url), isolation_level=None)) as shell:
        shell.execute("BEGIN IMMEDIATE")
        write = asyncio.create_task(store.write(lambda c: marks.put(c, "mark", 1)))
        await asyncio.sleep(0)
        async with asyncio.timeout(60):
            await store.close()
        with pytest.raises(OracleError) as raised:
            await write
        shell.execute("ROLLBACK")
    assert raised.value.error is LOCKED


async def test_a_write_that_does_not_fit_on_the_disk_waits_alone(url: str) -> None:
    store = await Store.open(url, patience_seconds=30)
    await store.write(lambda c: c.exec_driver_sql("PRAGMA max_page_count = 100"))
    large = asyncio.create_task(store.write(lambda c: marks.put(c, "large", "x" * 1_000_000)))
    for n in range(3):
        await store.write(lambda c, n=n: marks.put(c, "small", n))  # type: ignore[misc]
    assert not large.done()
    await store.write(lambda c: c.exec_driver_sql("PRAGMA max_page_count = 100000"))
    await large
    await store.close()


async def test_one_write_that_fills_the_disk_does_not_fail_those_that_fit(store: Store) -> None:
    await store.write(lambda c: c.exec_driver_sql("PRAGMA max_page_count = 100"))
    results = await asyncio.gather(
        store.write(lambda c: marks.put(c, "small", 1)),
        store.write(lambda c: marks.put(c, "large", "x" * 1_000_000)),
        store.write(lambda c: marks.put(c, "small too", 1)),
        return_exceptions=True,
    )
    assert [getattr(result, "error", None) for result in results] == [None, DISK_FULL, None]
    await store.write(lambda c: c.exec_driver_sql("PRAGMA max_page_count = 100000"))
    await store.write(lambda c: marks.put(c, "large", "x" * 1_000_000))


def test_on_a_disk_that_is_really_full_nothing_is_lost_and_writing_goes_on_when_there_is_room(tmp_path: Path) -> None:
    script = """
        import asyncio, sys
        from pathlib import Path
        from oracle.core.errors import OracleError
        from oracle.store import marks
        from oracle.store.engine import Store, upgrade

        disk = Path(sys.argv[1])
        ballast = disk / "ballast"
        ballast.write_bytes(bytes(200_000))
        url = f"sqlite:///{disk}/oracle.sqlite"
        upgrade(url)

        async def main():
            store = await Store.open(url)
            written = []
            try:
                for n in range(10_000):
                    await store.write(lambda c: marks.put(c, f"mark-{n}", "x" * 3000))
                    written.append(n)
            except OracleError as error:
                print(error.code)
            ballast.unlink()
            await store.write(lambda c: marks.put(c, "after", 1))
            await store.close()
            again = await Store.open(url)
            for n in written:
                assert await again.read(lambda c: marks.get(c, f"mark-{n}")) == "x" * 3000, n
            assert await again.read(lambda c: marks.get(c, "after")) == 1
            await again.close()
            print(len(written) > 10)

        asyncio.run(main())
    """
    disk = tmp_path / "disk"
    disk.mkdir()
    inside = f"mount -t tmpfs -o size=1536k tmpfs {disk} && exec {sys.executable} -c '{textwrap.dedent(script)}' {disk}"
    unshare = shutil.which("unshare")
    if unshare is None:
        pytest.skip("no `unshare`: no small disk can be had")
    done = subprocess.run(
        [unshare, "--mount", "--map-root-user", "sh", "-c", inside], capture_output=True, text=True, timeout=60
    )
    if "unshare" in done.stderr or "mount" in done.stderr:
        pytest.skip(f"no small disk can be had: {done.stderr.strip()}")
    assert (done.stdout.split(), done.stderr) == ([DISK_FULL.code, "True"], "")


async def test_a_commit_that_the_disk_interrupts_is_unknown_and_the_store_goes_on(store: Store, url: str) -> None:
    await store.write(lambda c: marks.put(c, "before", 1))
    with log_grows_no_more(path(url)):
        results = await asyncio.gather(
            *(store.write(lambda c, n=n: marks.put(c, f"mark-{n}", n)) for n in range(3)),  # type: ignore[misc]
            return_exceptions=True,
        )
    assert [result.error for result in results if isinstance(result, OracleError)] == [COMMIT_UNKNOWN] * 3
    await store.write(lambda c: marks.put(c, "after", 1))
    assert [await store.read(lambda c, n=n: marks.get(c, n)) for n in ("before", "after")] == [1, 1]  # type: ignore[misc]


async def test_when_the_committer_is_stopped_in_the_middle_nobody_waits_for_ever(store: Store) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def slow(conn: Connection) -> None:
        marks.put(conn, "slow", 1)
        begun.set()
        assert go_on.wait(60)

    first = asyncio.create_task(store.write(slow))
    await asyncio.to_thread(begun.wait, 60)
    second = asyncio.create_task(store.write(lambda c: marks.put(c, "second", 1)))
    await asyncio.sleep(0)
    committer = next(task for task in asyncio.all_tasks() if task.get_name() == "store-committer")
    committer.cancel()
    results = await asyncio.gather(first, second, return_exceptions=True)
    go_on.set()
    assert [getattr(result, "error", None) for result in results] == [COMMIT_UNKNOWN, CLOSED]
    await store.write(lambda c: marks.put(c, "third", 1))


@pytest.mark.chaos
def test_a_daemon_that_is_killed_in_the_middle_of_writing_loses_nothing_that_was_acknowledged(
    tmp_path: Path, url: str
) -> None:
    script = """
        import asyncio, itertools, os, sys
        from oracle.store import marks
        from oracle.store.engine import Store

        async def main():
            store = await Store.open(sys.argv[1])
            numbers = itertools.count()
            async def loop():
                while True:
                    n = next(numbers)
                    await store.write(lambda c: marks.put(c, f"mark-{n}", n))
                    os.write(1, f"{n}\\n".encode())
            await asyncio.gather(*(loop() for _ in range(8)))

        asyncio.run(main())
    """
    acknowledged = tmp_path / "acknowledged"
    with acknowledged.open("wb") as output:
        child = subprocess.Popen([sys.executable, "-c", textwrap.dedent(script), url], stdout=output)
        try:
            wait_until(lambda: acknowledged.stat().st_size > 2_000 or child.poll() is not None)
        finally:
            child.kill()
        assert child.wait(60) == -signal.SIGKILL
    numbers = [int(line) for line in acknowledged.read_bytes().split(b"\n")[:-1]]
    assert len(numbers) > 300

    async def missing() -> set[str]:
        store = await Store.open(url)
        kept = await store.read(lambda c: set(c.exec_driver_sql("SELECT name FROM marks").scalars()))
        assert await store.read(lambda c: c.exec_driver_sql("PRAGMA integrity_check").scalar_one()) == "ok"
        await store.close()
        return {f"mark-{n}" for n in numbers} - kept

    assert asyncio.run(missing()) == set()


def path(url: str) -> Path:
    return Path(url.removeprefix("sqlite:///"))


def commits_in_log(database: Path) -> int:
    """How many commits the write-ahead log holds, from its own format (https://www.sqlite.org/fileformat2.html#walformat).

    Each frame has a header of 24 bytes; its second word is not zero in the last frame of a commit.
    """
    log = Path(f"{database}-wal").read_bytes()
    page_size = int.from_bytes(log[8:12])
    salts = log[16:24]
    frames = [log[at : at + 24] for at in range(32, len(log), 24 + page_size)]
    return sum(frame[8:16] == salts and any(frame[4:8]) for frame in frames)


@contextmanager
def log_grows_no_more(database: Path) -> Iterator[None]:
    """A commit fails with EFBIG after its first kilobyte, which SQLite takes for a broken disk."""
    size = Path(f"{database}-wal").stat().st_size + 1_000
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def wait_until(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} seconds"
        time.sleep(0.005)


@pytest.mark.parametrize(
    ("find", "index"),
    [
        (lambda c: duties.closable(c, operator="key", slot=9, limit=5), "ix_requests_closable"),
        (lambda c: duties.unfinalized(c, operator="key", limit=5), "ix_requests_unfinalized"),
        (lambda c: duties.overdue(c, operator="key", slot=9, limit=5), "ix_requests_due"),
    ],
    ids=["closable", "unfinalized", "overdue"],
)
async def test_housekeeping_does_not_look_at_what_is_only_kept(
    store: Store, find: Callable[[Connection], object], index: str
) -> None:
    """Among the requests of a retention period, each look at the others would be one too many: a writer looks here."""

    def plan(c: Connection) -> list[str]:
        asked: list[str] = []
        driver = c.connection.dbapi_connection
        assert isinstance(driver, sqlite3.Connection)
        driver.set_trace_callback(asked.append)
        find(c)
        driver.set_trace_callback(None)
        [query] = [text for text in asked if text.startswith("SELECT")]
        return [detail for *_, detail in c.exec_driver_sql(f"EXPLAIN QUERY PLAN {query}")]

    of_requests = [line for line in await store.write(plan) if " requests " in line]
    assert of_requests
    assert all(index in line for line in of_requests)
