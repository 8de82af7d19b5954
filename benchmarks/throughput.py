"""Settlements per second: the daemon beside plain anchorpy code.

    python benchmarks/throughput.py [REQUESTS]

REQUESTS are waiting on chain when the daemon starts; the provider is in process, is polled in bulk and answers at
once; the database is SQLite, durable as in production. The chain runs in a process of its own, on the other core. The
baselines do the same work as a competent user of anchorpy would write it: one request at a time, and 64 at a time,
each settlement sent singly, on a sample of the requests.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from baselines import anchorpy_daemon
from solders.pubkey import Pubkey

from oracle.chain.program.layout import decode_header
from oracle.chain.rpc.pool import connect
from oracle.config import Log, parse
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
from oracle.core.lifecycle import State
from oracle.core.request import Status
from oracle.logs import set_up
from oracle.pipeline.daemon import assembled
from oracle.store import requests

HERE = Path(__file__).parent


class Instant:
    """A provider that has every answer at once, and is asked after all its jobs in one call."""

    name = "instant"
    capabilities = Capabilities(Recovery.REPEAT)

    def __init__(self) -> None:
        self.calls = 0

    async def quote(self, task: Task) -> Quote:
        return Quote(0, Money(0.0, "USD"))

    async def submit(self, task: Task, key: IdempotencyKey) -> JobHandle:
        self.calls += 1
        return JobHandle(self.name, key)

    async def find(self, key: IdempotencyKey) -> CannotTell:
        return CannotTell()

    async def poll(self, handles: Sequence[JobHandle]) -> Mapping[JobHandle, JobStatus]:
        self.calls += 1
        return dict.fromkeys(handles, JobStatus(JobState.SUCCEEDED))

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
    rpc: str
    program: str
    queue: str
    directory: Path

    @property
    def addresses(self) -> list[str]:
        found: list[str] = json.loads((self.directory / "addresses.json").read_text())
        return found


@contextmanager
def chain(count: int) -> Iterator[Bench]:
    with tempfile.TemporaryDirectory(prefix="oracle-bench-") as scratch:
        process = subprocess.Popen(
            [sys.executable, str(HERE / "chain_process.py"), scratch, str(count), "http://127.0.0.1:1"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        try:
            yield Bench(**json.loads(process.stdout.readline()), directory=Path(scratch))
        finally:
            process.communicate()


def document(bench: Bench) -> dict[str, Any]:
    return {
        "cluster": {"rpc": [bench.rpc]},
        "operator": {"keypair": "operator.json", "queues": [bench.queue], "base_uri": "http://127.0.0.1:1"},
        "providers": {"instant": {"kind": "openai", "base_url": "http://127.0.0.1:1/v1", "free": True}},
        "models": {"bench": {"routes": [{"provider": "instant", "model": "bench"}]}},
        "policy": {"max_open_per_requester": 1_000_000},
    }


async def run_daemon(bench: Bench, count: int) -> float:
    """Seconds from the start of the loops until every request is settled and confirmed."""
    config = parse(document(bench), base=bench.directory)
    async with assembled(config) as daemon:
        daemon.context.providers = {"instant": Instant()}
        began = time.perf_counter()
        task = asyncio.create_task(daemon.run())
        while True:
            counts = await daemon.context.store.read(requests.counts)
            if counts[State.SETTLED] >= count:
                break
            await asyncio.sleep(0.05)
        took = time.perf_counter() - began
        daemon.stop()
        await task
    return took


async def settled_on_chain(bench: Bench) -> int:
    rpc = connect(bench.rpc)
    read = await rpc.get_multiple_accounts([Pubkey.from_string(address) for address in bench.addresses])
    await rpc.close()
    return sum(a is not None and decode_header(a.data).status is Status.FULFILLED for a in read.value)


async def main(count: int) -> None:
    set_up(Log(level="error"))
    rows = []
    for name, at_once, sample in (("anchorpy, one at a time", 1, 20), ("anchorpy, 64 at a time", 64, 640)):
        with chain(sample) as bench:
            seconds = await anchorpy_daemon.run(bench.rpc, bench.queue, bench.directory, bench.addresses, at_once)
            assert await settled_on_chain(bench) == sample
            rows.append((name, sample, seconds))
    with chain(count) as bench:
        seconds = await run_daemon(bench, count)
        assert await settled_on_chain(bench) == count
        rows.append(("oracle daemon", count, seconds))
    ours = count / rows[-1][2]
    print(f"{'':28}{'requests':>10}{'seconds':>10}{'per second':>12}{'ours is':>10}")
    for name, done, seconds in rows:
        print(f"{name:28}{done:>10}{seconds:>10.1f}{done / seconds:>12.1f}{ours / (done / seconds):>9.1f}x")


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 5_000))
