"""Settlements per second: the daemon beside plain anchorpy code.

    python benchmarks/throughput.py [REQUESTS]

REQUESTS are waiting on chain when the daemon starts; the provider is in process, is polled in bulk and answers at
once; the database is SQLite, durable as in production. The chain runs in a process of its own, on the other core. The
baselines do the same work as a competent user of anchorpy would write it: one request at a time, and 64 at a time,
each settlement sent singly, on a sample of the requests. The last line buys from a scripted server over HTTP.
"""

from __future__ import annotations

import asyncio
import sys
import time
from dataclasses import dataclass

from baselines import anchorpy_daemon
from bench import Bench, Instant, chain, cpu_seconds_by_thread, document, machine, settled_on_chain

from oracle.config import Log, parse
from oracle.core.lifecycle import State
from oracle.logs import set_up
from oracle.pipeline import interpreter
from oracle.pipeline.daemon import assembled
from oracle.store import requests

AT_ONCE = 512
"""`daemon.concurrency` of the daemon: steps under way at once. The default is meant for providers that take time."""


@dataclass(frozen=True)
class Figure:
    name: str
    requests: int
    seconds: float
    cpu_seconds: float

    @property
    def per_second(self) -> float:
        return self.requests / self.seconds


async def baseline(name: str, at_once: int, sample: int) -> Figure:
    with chain(sample) as bench:
        cpu = time.process_time()
        seconds = await anchorpy_daemon.run(bench.rpc, bench.queue, bench.directory, bench.addresses, at_once)
        cpu = time.process_time() - cpu
        assert await settled_on_chain(bench) == sample
    return Figure(name, sample, seconds, cpu)


async def daemon(name: str, count: int, *, over_http: bool = False) -> Figure:
    with chain(count) as bench:
        figure = await settled(name, bench, count, over_http=over_http)
        assert await settled_on_chain(bench) == count
    return figure


async def settled(name: str, bench: Bench, count: int, *, over_http: bool) -> Figure:
    """From the start of the loops until every request is settled and confirmed."""
    config = parse(document(bench, concurrency=AT_ONCE), base=bench.directory)
    async with assembled(config) as daemon:
        if not over_http:
            daemon.context.providers = {"instant": Instant()}
        store = daemon.context.store
        began, cpu, threads = time.perf_counter(), time.process_time(), cpu_seconds_by_thread()
        interpreter.prepare()  # as `oracle run` does
        task = asyncio.create_task(daemon.run())
        while True:
            if (await store.read(requests.counts))[State.SETTLED] >= count:
                break
            await asyncio.sleep(0.1)
        seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
        print(f"{name}: {store.commits / count:.3f} commits a request; processor time a request, by thread:")
        for thread, used in cpu_seconds_by_thread().items():
            if (milliseconds := 1000 * (used - threads.get(thread, 0.0)) / count) >= 0.01:
                print(f"  {thread:20}{milliseconds:8.2f} ms")
        daemon.stop()
        await task
    return Figure(name, count, seconds, cpu)


async def main(count: int) -> None:
    set_up(Log(level="error"))
    print(machine())
    figures = [
        await baseline("anchorpy, one at a time", 1, 20),
        await baseline("anchorpy, 64 at a time", 64, 640),
        await daemon("oracle daemon", count),
        await daemon("oracle daemon over HTTP", min(count, 1_000), over_http=True),
    ]
    ours = figures[2].per_second
    print(f"\n{'':26}{'requests':>10}{'seconds':>10}{'per second':>12}{'ms CPU each':>13}{'ours is':>10}")
    for each in figures:
        cpu = 1000 * each.cpu_seconds / each.requests
        ratio = ours / each.per_second
        print(
            f"{each.name:26}{each.requests:>10}{each.seconds:>10.1f}{each.per_second:>12.1f}{cpu:>13.2f}{ratio:>9.1f}x"
        )


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 5_000))
