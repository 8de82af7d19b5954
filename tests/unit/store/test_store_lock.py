"""A second daemon on one database, or with one operator key, is refused for as long as the first one lives."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from oracle.core.errors import OracleError
from oracle.store import lock
from oracle.store.errors import CANNOT_OPEN, HELD_BY_ANOTHER, URL_REFUSED

KEY = "4Nd1mBQtrMJVYVfKf2PJy9NZUZdTAsp7D4xWLs4gDB4T"


@pytest.fixture(autouse=True)
def runtime_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    return tmp_path / "inference-oracle"


def test_a_second_daemon_on_the_same_file_is_refused_with_the_pid_of_the_first(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/oracle.sqlite"
    with holding(f"hold_database({url!r})") as holder:
        with pytest.raises(OracleError) as raised:
            lock.hold_database(url)
        assert raised.value.error is HELD_BY_ANOTHER
        assert f"process {holder.pid}" in str(raised.value)


def test_a_lock_ends_when_its_holder_is_killed(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/oracle.sqlite"
    with holding(f"hold_database({url!r})") as holder:
        holder.kill()
        holder.wait(60)
        with lock.hold_database(url) or pytest.fail("SQLite is locked"):
            assert (tmp_path / "oracle.sqlite.lock").read_text() == f"{os.getpid()}\n"


def test_a_child_that_the_holder_started_does_not_inherit_its_lock(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/oracle.sqlite"
    script = "import subprocess, sys; subprocess.Popen([sys.executable, '-c', 'input()'], stdin=0, close_fds=False)"
    with holding(f"hold_database({url!r}); {script}") as holder:
        holder.kill()
        holder.wait(60)
        taken = lock.hold_database(url)
        assert taken is not None
        taken.release()


def test_a_file_has_one_lock_by_whatever_name_it_is_reached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "oracle.sqlite").touch()
    (tmp_path / "link.sqlite").symlink_to(tmp_path / "oracle.sqlite")
    monkeypatch.chdir(tmp_path)
    with lock.hold_database(f"sqlite:///{tmp_path}/oracle.sqlite") or pytest.fail("SQLite is locked"):
        for name in ("oracle.sqlite", "./oracle.sqlite", "link.sqlite"):
            with pytest.raises(OracleError, match=HELD_BY_ANOTHER.code):
                lock.hold_database(f"sqlite:///{name}")


def test_a_released_lock_can_be_taken_again(tmp_path: Path) -> None:
    for _ in range(2):
        held = lock.hold(KEY)
        held.release()
        held.release()


def test_two_files_and_two_names_do_not_exclude_each_other(tmp_path: Path) -> None:
    locks = [lock.hold_database(f"sqlite:///{tmp_path}/{name}.sqlite") for name in ("a", "b")]
    locks += [lock.hold(name) for name in (KEY, "another/../key")]
    assert len({held.path for held in locks if held is not None}) == 4
    for held in locks:
        assert held is not None
        held.release()


def test_an_operator_key_is_held_once_on_a_machine(runtime_directory: Path) -> None:
    with lock.hold(KEY) as held:
        assert held.path == runtime_directory / f"{KEY}.lock"
        with pytest.raises(OracleError) as raised:
            lock.hold(KEY)
        assert raised.value.error is HELD_BY_ANOTHER
        assert str(os.getpid()) in str(raised.value)


def test_daemons_on_one_database_share_a_key_that_none_on_another_gets(runtime_directory: Path) -> None:
    first = lock.share(KEY, "database-1")
    with holding(f"share({KEY!r}, 'database-1')"):
        first.release()
        for take in (lambda: lock.share(KEY, "database-2"), lambda: lock.hold(KEY)):
            with pytest.raises(OracleError) as raised:
                take()
            assert raised.value.error is HELD_BY_ANOTHER
    # All who shared it are gone.
    lock.share(KEY, "database-2").release()
    with lock.hold(KEY), pytest.raises(OracleError) as raised:
        lock.share(KEY, "database-2")
    assert f"process {os.getpid()}" in str(raised.value)


def test_many_that_share_a_key_can_start_at_once() -> None:
    with ThreadPoolExecutor(16) as pool:
        held = list(pool.map(lambda _: lock.share(KEY, "database"), range(64)))
    for each in held:
        each.release()
    lock.hold(KEY).release()


def test_a_name_cannot_leave_the_directory_of_the_locks(runtime_directory: Path) -> None:
    with lock.hold("../../etc/passwd") as held:
        assert held.path.parent == runtime_directory


def test_locks_lie_where_nobody_else_can_write(tmp_path: Path, runtime_directory: Path) -> None:
    runtime_directory.mkdir()
    runtime_directory.chmod(0o777)
    with pytest.raises(OracleError) as raised:
        lock.hold(KEY)
    assert raised.value.error is CANNOT_OPEN


def test_a_directory_of_locks_that_is_a_link_is_refused(tmp_path: Path, runtime_directory: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    runtime_directory.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OracleError) as raised:
        lock.hold(KEY)
    assert raised.value.error is CANNOT_OPEN


def test_without_a_runtime_directory_each_user_has_one_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with lock.hold(KEY) as held:
        assert held.path.parent == tmp_path / f"inference-oracle-{os.getuid()}"
        assert held.path.parent.stat().st_mode & 0o777 == 0o700


def test_a_directory_that_cannot_be_written_to_is_named(tmp_path: Path) -> None:
    with pytest.raises(OracleError, match="missing") as raised:
        lock.hold_database(f"sqlite:///{tmp_path}/missing/oracle.sqlite")
    assert raised.value.error is CANNOT_OPEN


def test_postgresql_is_shared_and_an_unknown_engine_is_refused() -> None:
    assert lock.hold_database("postgresql+asyncpg://host/oracle") is None
    with pytest.raises(OracleError) as raised:
        lock.hold_database("mysql://host/oracle")
    assert raised.value.error is URL_REFUSED


@contextmanager
def holding(take: str) -> Iterator[subprocess.Popen[str]]:
    """Another process, which holds what `take` takes until it is ended."""
    script = f"""
        from oracle.store.lock import hold, hold_database, share
        held = {take}
        print("held", flush=True)
        input()
    """
    child = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert child.stdin is not None
    assert child.stdout is not None
    try:
        assert child.stdout.readline() == "held\n"
        yield child
    finally:
        child.kill()
        child.wait(60)
        child.stdin.close()
        child.stdout.close()
