"""The daemon as a process of its own: started, waited for, stopped as systemd stops it, or killed.

async with running_daemon(Path("oracle.toml"), "http://127.0.0.1:8787", Path("daemon.log")) as daemon:
    await daemon.kill()
    await daemon.start()
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from oracle.core.errors import ErrorCode

NOT_READY = ErrorCode(
    "ORC-TESTING-001",
    "The daemon did not start",
    "The daemon's process ended, or did not become ready in time.",
    "See the end of its log, which is shown.",
)
START_SECONDS = 60.0
STOP_SECONDS = 40.0


@dataclass(slots=True)
class DaemonProcess:
    """`oracle run` over one configuration, or another `command`. Its output is appended to `log`, start after start."""

    config: Path
    base_uri: str
    log: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    command: str = "run"
    process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    async def start(self) -> None:
        """Returns when `/readyz` says yes. Raises ORC-TESTING-001 with the end of the log."""
        self.launch()
        until = time.monotonic() + START_SECONDS
        async with httpx.AsyncClient(trust_env=False) as http:
            while time.monotonic() < until and self.alive:
                with contextlib.suppress(httpx.HTTPError):
                    if (await http.get(f"{self.base_uri}/readyz")).status_code == 200:
                        return
                await asyncio.sleep(0.05)
        raise NOT_READY("\n" + self.log.read_text()[-3_000:])

    def launch(self) -> None:
        """Start the process without waiting for it."""
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "oracle", self.command, "--config", str(self.config)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **self.environment},
            )

    @property
    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    async def stop(self) -> int:
        """SIGTERM, and the exit status; SIGKILL where it does not end."""
        return await self._end(signal.SIGTERM)

    async def kill(self) -> None:
        """SIGKILL: nothing of it runs any more when this returns."""
        await self._end(signal.SIGKILL)

    def send(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    async def wait(self, seconds: float = STOP_SECONDS) -> int:
        """The exit status, once it has ended by itself. Raises `subprocess.TimeoutExpired`."""
        assert self.process is not None
        return await asyncio.to_thread(self.process.wait, seconds)

    async def _end(self, number: signal.Signals) -> int:
        assert self.process is not None
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(number)
        try:
            return await self.wait()
        except subprocess.TimeoutExpired:
            self.process.kill()
            return await self.wait()


@asynccontextmanager
async def running_daemon(
    config: Path,
    base_uri: str,
    log: Path,
    environment: Mapping[str, str] | None = None,
    *,
    command: str = "run",
) -> AsyncIterator[DaemonProcess]:
    """A daemon that is ready; stopped at the end if it still runs."""
    daemon = DaemonProcess(config, base_uri, log, environment or {}, command)
    try:
        await daemon.start()
        yield daemon
    finally:
        if daemon.alive:
            await daemon.stop()
