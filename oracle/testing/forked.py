"""Daemons forked from a process that has imported everything already: each starts in a tenth of a second.

It is the fork server of `multiprocessing`, which has no threads and no event loop of ours to inherit. A daemon lives no
longer than the process that has launched it, however that ends, unless it is stopped (SIGSTOP) then.
"""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import os
import signal
import sys
import threading
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from multiprocessing.context import ForkServerProcess
from pathlib import Path

from oracle.testing.crashing import Life, live

_SERVER = multiprocessing.get_context("forkserver")
_SERVER.set_forkserver_preload(["oracle.testing.warm"])
STOP_SECONDS = 40.0


@dataclass(slots=True)
class ForkedDaemon:
    """One daemon, life after life. Its output is appended to `log`; locks lie in `runtime_directory`."""

    log: Path
    runtime_directory: Path
    process: ForkServerProcess | None = field(default=None, repr=False)

    def launch(self, life: Life) -> None:
        """Begin a life, without waiting for it. The one before must be over."""
        assert not self.alive
        self.process = _SERVER.Process(target=_child, args=(life, self.log, self.runtime_directory), daemon=True)
        self.process.start()

    @property
    def alive(self) -> bool:
        return self.process is not None and self.process.is_alive()

    @property
    def pid(self) -> int:
        assert self.process is not None
        assert self.process.pid is not None
        return self.process.pid

    def send(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    async def wait(self, seconds: float = STOP_SECONDS) -> int:
        """The exit status, negative for a signal, once the life is over. Raises `TimeoutError`."""
        assert self.process is not None
        over = asyncio.Event()
        loop = asyncio.get_running_loop()
        loop.add_reader(self.process.sentinel, over.set)
        try:
            async with asyncio.timeout(seconds):
                await over.wait()
        finally:
            loop.remove_reader(self.process.sentinel)
        self.process.join()
        status = self.process.exitcode
        assert status is not None
        return status

    async def stop(self) -> int:
        """SIGTERM, and the exit status."""
        self.send(signal.SIGTERM)
        return await self.wait()

    async def kill(self) -> None:
        """SIGKILL: nothing of it runs any more when this returns."""
        if self.alive:
            self.send(signal.SIGKILL)
            await self.wait()


def _child(life: Life, log: Path, runtime_directory: Path) -> None:
    descriptor = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    for standard in (1, 2):
        os.dup2(descriptor, standard)
    os.close(descriptor)
    sys.stdout = os.fdopen(1, "w", buffering=1, closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)
    os.environ["XDG_RUNTIME_DIR"] = str(runtime_directory)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    live(life)


def _end_with_parent() -> None:
    """A test run that is killed ends no child of its own, and the fork server goes on for as long as it has one."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os.kill(os.getpid(), signal.SIGKILL)
