"""One daemon for one database file, and one database for one operator key, on one machine.

Two daemons on one SQLite file, or with one key and a database each, would pay twice for the same work without either
noticing. On one PostgreSQL database they share the work by leases, and so they share the key. The lock is the kernel's
(`flock`): it ends with the process that took it, however that ends, so there is never a stale one to clear away.
"""

from __future__ import annotations

import fcntl
import os
import stat
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import quote

from oracle.store.errors import CANNOT_OPEN, HELD_BY_ANOTHER
from oracle.store.sqlite import path_of
from oracle.store.urls import is_sqlite, parse

_OURS_ALONE: Final = 0o700
_START_SECONDS: Final = 1.0


@dataclass(slots=True)
class Lock:
    """A lock that is held. Keep it for as long as the process lives; `release` ends it before that."""

    path: Path
    _descriptor: int | None

    def release(self) -> None:
        # The file stays: to delete it would let a third process lock a new one while a second waits for the old.
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def __enter__(self) -> Lock:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


def hold_database(url: str) -> Lock | None:
    """Hold a SQLite file, by a lock file beside it; None for PostgreSQL, which several daemons may share.

    Raises ORC-STORE-021, with the pid of the holder, where another process holds it.
    """
    parsed = parse(url)
    if not is_sqlite(parsed):
        return None
    # One file has one lock, by whatever relative path or symbolic link it is reached.
    path = path_of(parsed).resolve()
    return _hold(path.with_name(path.name + ".lock"), f"database {path}")


def hold(name: str) -> Lock:
    """Hold a name, such as an operator key, for the user on this machine. Raises ORC-STORE-021 as `hold_database`."""
    return _hold(_file_of(name), name)


def share(name: str, database: str) -> Lock:
    """As `hold`, but together with whoever else names the same database.

    Raises ORC-STORE-021 where somebody holds the name alone, or for another database.
    """
    path, until = _file_of(name), time.monotonic() + _START_SECONDS
    while True:
        descriptor = _opened(path)
        if _locks(path, descriptor, fcntl.LOCK_EX):
            _write(descriptor, f"{os.getpid()}\n{database}\n")
        # One lock becomes the other by way of none: whoever came in between is found in the file, or by the lock.
        if _locks(path, descriptor, fcntl.LOCK_SH):
            if _lines(descriptor)[1:] == [database]:
                return Lock(path, descriptor)
            os.close(descriptor)
            raise HELD_BY_ANOTHER(f"{name} is held by a daemon on another database")
        (holder, *_) = _lines(descriptor) or ["unknown"]
        os.close(descriptor)
        # Another that shares it may be in its start, for a moment; a holder alone stays.
        if time.monotonic() > until:
            raise HELD_BY_ANOTHER(f"{name} is held by process {holder}")
        time.sleep(0.01)


def runtime_directory() -> Path:
    """Where the user's lock files lie: `$XDG_RUNTIME_DIR`, else a directory in the temporary one that nobody shares."""
    base = os.environ.get("XDG_RUNTIME_DIR")
    if base:
        directory = Path(base) / "inference-oracle"
    else:
        directory = Path(tempfile.gettempdir()) / f"inference-oracle-{os.getuid()}"
    try:
        directory.mkdir(mode=_OURS_ALONE, exist_ok=True)
        found = directory.lstat()
    except OSError as error:
        raise CANNOT_OPEN(f"{directory}: {error.strerror}") from error
    # In a shared directory anyone can be first to make it, and could then hold our locks for us.
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o022:
        raise CANNOT_OPEN(f"{directory} belongs to somebody else, or others may write to it")
    return directory


def _file_of(name: str) -> Path:
    return runtime_directory() / f"{quote(name, safe='')}.lock"


def _hold(path: Path, what: str) -> Lock:
    descriptor = _opened(path)
    if not _locks(path, descriptor, fcntl.LOCK_EX):
        (holder, *_) = _lines(descriptor) or ["unknown"]
        os.close(descriptor)
        raise HELD_BY_ANOTHER(f"{what} is held by process {holder}")
    _write(descriptor, f"{os.getpid()}\n")
    return Lock(path, descriptor)


def _opened(path: Path) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise CANNOT_OPEN(f"{path}: {error.strerror}") from error


def _locks(path: Path, descriptor: int, how: int) -> bool:
    try:
        fcntl.flock(descriptor, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        os.close(descriptor)
        raise CANNOT_OPEN(f"{path}: {error.strerror}") from error
    return True


def _lines(descriptor: int) -> list[str]:
    return os.pread(descriptor, 256, 0).decode(errors="replace").splitlines()


def _write(descriptor: int, text: str) -> None:
    os.ftruncate(descriptor, os.pwrite(descriptor, text.encode(), 0))
