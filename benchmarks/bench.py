"""What the benchmarks share: a chain in its own process, a provider that answers at once, the name of the machine."""

from __future__ import annotations

import json
import os
import platform
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from solders.pubkey import Pubkey

from oracle.chain.program.layout import decode_header
from oracle.chain.rpc.pool import connect
from oracle.core.compute import (
    CannotTell,
    Capabilities,
    IdempotencyKey,
    JobHandle,
    JobState,
    JobStatus,
    Money,
    Output,
    Quote,
    Recovery,
    Task,
)
from oracle.core.request import Status

HERE = Path(__file__).parent


class Instant:
    """A provider that has every answer at once, and is asked after all its jobs in one call."""

    name = "instant"
    capabilities = Capabilities(Recovery.REPEAT)
    state = JobState.SUCCEEDED

    def __init__(self) -> None:
        self.polls = 0

    async def quote(self, task: Task) -> Quote:
        return Quote(0, Money(0.0, "USD"))

    async def submit(self, task: Task, key: IdempotencyKey) -> JobHandle:
        return JobHandle(self.name, key)

    async def find(self, key: IdempotencyKey) -> CannotTell:
        return CannotTell()

    async def poll(self, handles: Sequence[JobHandle]) -> Mapping[JobHandle, JobStatus]:
        self.polls += 1
        return dict.fromkeys(handles, JobStatus(self.state))

    async def fetch(self, handle: JobHandle) -> Output:
        return Output(f"answer to {handle.job_id}".encode(), "bench")

    async def cancel(self, handle: JobHandle) -> None:
        return None

    async def balance(self) -> None:
        return None

    async def models(self) -> Sequence[str]:
        return ["bench"]

    async def close(self) -> None:
        return None


@dataclass(frozen=True)
class Bench:
    """A running chain with requests on it. `model` is the base URL of a scripted OpenAI-compatible server."""

    rpc: str
    program: str
    queue: str
    model: str
    directory: Path
    process: subprocess.Popen[str]

    @property
    def addresses(self) -> list[str]:
        found: list[str] = json.loads((self.directory / "addresses.json").read_text())
        return found

    def submit(self, count: int, per_second: float) -> None:
        """Begin to submit more requests, at this rate."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps([count, per_second]) + "\n")
        self.process.stdin.flush()


@contextmanager
def chain(count: int) -> Iterator[Bench]:
    with tempfile.TemporaryDirectory(prefix=".benchmark-", dir=Path.cwd()) as scratch:
        process = subprocess.Popen(
            [sys.executable, str(HERE / "chain_process.py"), scratch, str(count), "http://127.0.0.1:1"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        try:
            yield Bench(**json.loads(process.stdout.readline()), directory=Path(scratch), process=process)
        finally:
            process.communicate()


def document(bench: Bench, **daemon: Any) -> dict[str, Any]:
    """A configuration of a daemon on that chain: all defaults, but one requester may have any number of requests."""
    return {
        "cluster": {"rpc": [bench.rpc]},
        "operator": {"keypair": "operator.json", "queues": [bench.queue], "base_uri": "http://127.0.0.1:1"},
        "providers": {"instant": {"kind": "openai", "base_url": bench.model, "free": True}},
        "models": {"bench": {"routes": [{"provider": "instant", "model": "bench"}]}},
        "policy": {"max_open_per_requester": 1_000_000},
        "daemon": daemon,
    }


async def settled_on_chain(bench: Bench) -> int:
    """How many of the requests the chain itself says are fulfilled."""
    rpc = connect(bench.rpc)
    read = await rpc.get_multiple_accounts([Pubkey.from_string(address) for address in bench.addresses])
    await rpc.close()
    return sum(a is not None and decode_header(a.data).status is Status.FULFILLED for a in read.value)


def cpu_seconds_by_thread() -> dict[str, float]:
    """Processor time of each thread of this process so far, by its name (Linux)."""
    found = {}
    for thread in threading.enumerate():
        stat = Path(f"/proc/self/task/{thread.native_id}/stat").read_text()
        fields = stat.rpartition(")")[2].split()
        found[thread.name] = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return found


def forget_peak() -> None:
    """Let the peak of this process's memory begin anew (Linux)."""
    Path("/proc/self/clear_refs").write_text("5")


def peak_bytes() -> int:
    """The most resident memory that this process has had since (Linux)."""
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) * 1024


def machine() -> str:
    """Where a figure was measured, and how busy it was with other things."""
    names = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    model = names[0].partition(":")[2].strip() if names else platform.machine()
    load = ", ".join(f"{each:.1f}" for each in os.getloadavg())
    return (
        f"{os.cpu_count()} x {model}; load average {load}; Python {platform.python_version()}, "
        f"SQLite {sqlite3.sqlite_version}; {time.strftime('%Y-%m-%d %H:%M')} UTC"
    )
