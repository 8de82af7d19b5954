"""What the daemon adds to a request: from its account to the purchase, and from the output to the settlement.

    python benchmarks/latency.py [SECONDS]

Requests with inline input arrive at 1 and at 100 a second on a queue without claims; the provider answers at once.
"Visible" is when the notice of the account arrives in this process; "bought" when the provider is called; "known" when
the provider hands the output over; "sent" when the transaction with the settlement goes to the cluster. Between the
last two lies the flush window, in which results wait for company: its length is in the table.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bench import Bench, Instant, chain, document, machine
from solders.transaction import VersionedTransaction

from oracle.chain import notices
from oracle.config import Log, parse
from oracle.core.compute import IdempotencyKey, JobHandle, Output, Task
from oracle.core.lifecycle import State
from oracle.logs import set_up
from oracle.pipeline import interpreter
from oracle.pipeline.daemon import assembled
from oracle.store import requests

WARM_UP = 20
RATES = (1.0, 100.0)


@dataclass
class Moments:
    """When what happened, in seconds of one clock: by address, or by the text of the prompt."""

    visible: dict[str, float] = field(default_factory=dict)
    bought: dict[str, float] = field(default_factory=dict)
    known: dict[str, float] = field(default_factory=dict)
    sent: dict[str, float] = field(default_factory=dict)


class Watched(Instant):
    """The provider, which notes when a job is bought and when its output is handed over."""

    def __init__(self, moments: Moments) -> None:
        super().__init__()
        self.moments = moments
        self.prompts: dict[str, str] = {}

    async def submit(self, task: Task, key: IdempotencyKey) -> JobHandle:
        prompt = str(task.messages[-1].content)
        self.moments.bought[prompt] = time.perf_counter()
        self.prompts[key] = prompt
        return await super().submit(task, key)

    async def fetch(self, handle: JobHandle) -> Output:
        output = await super().fetch(handle)
        self.moments.known[self.prompts[handle.job_id]] = time.perf_counter()
        return output


class WatchedClient:
    """The daemon's RPC client, which notes when a transaction goes out."""

    def __init__(self, client: Any, moments: Moments) -> None:
        self._client, self._moments = client, moments

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    async def send_transaction(self, wire: bytes, **options: Any) -> Any:
        now = time.perf_counter()
        for key in VersionedTransaction.from_bytes(wire).message.account_keys:
            self._moments.sent.setdefault(str(key), now)
        return await self._client.send_transaction(wire, **options)


async def measured(bench: Bench, per_second: float, seconds: float) -> tuple[Moments, Mapping[str, str], float]:
    """Moments of every request, the prompt of each address, and the flush window."""
    config = parse(document(bench), base=bench.directory)
    moments, count = Moments(), max(10, round(per_second * seconds))
    read_program = notices.read_program

    def noted(result: Any) -> Any:
        notice = read_program(result)
        moments.visible.setdefault(str(notice.address), time.perf_counter())
        return notice

    notices.read_program = noted
    try:
        async with assembled(config) as daemon:
            context = daemon.context
            context.providers = {"instant": Watched(moments)}
            context.rpc = WatchedClient(context.rpc, moments)  # type: ignore[assignment]
            interpreter.prepare()  # as `oracle run` does
            task = asyncio.create_task(daemon.run())
            await settled(daemon.context.store, WARM_UP)
            bench.submit(count, per_second)
            await settled(daemon.context.store, WARM_UP + count)
            rows = await context.store.read(lambda c: requests.listing(c, limit=count))
            daemon.stop()
            await task
    finally:
        notices.read_program = read_program
    return moments, {row.address: prompt_of(row.account) for row in rows}, config.settlement.flush_window_seconds


def prompt_of(account: bytes) -> str:
    """The text that `chain_process` has put into the request."""
    at = account.index(b"question ")
    return account[at:].split(b"\0")[0].decode()


async def settled(store: Any, count: int) -> None:
    while True:
        if (await store.read(requests.counts))[State.SETTLED] >= count:
            return
        await asyncio.sleep(0.25)


def percentiles(values: Sequence[float]) -> tuple[float, float]:
    """p50 and p99, in milliseconds."""
    ordered = sorted(values)
    return 1000 * ordered[len(ordered) // 2], 1000 * ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))]


async def main(seconds: float) -> None:
    set_up(Log(level="error"))
    print(machine())
    print(f"{'':44}{'requests':>10}{'p50 ms':>10}{'p99 ms':>10}{'target p50':>12}")
    for rate in RATES:
        with chain(WARM_UP) as bench:
            moments, prompts, window = await measured(bench, rate, seconds)
        buying = [moments.bought[p] - moments.visible[a] for a, p in prompts.items() if a in moments.visible]
        sending = [moments.sent[a] - moments.known[p] for a, p in prompts.items()]
        for what, values, target in (
            ("account visible -> job bought", buying, 50.0),
            (f"output known -> sent (window {1000 * window:.0f} ms)", sending, 1000 * window + 50),
        ):
            p50, p99 = percentiles(values)
            print(f"{rate:>5.0f}/s  {what:36}{len(values):>10}{p50:>10.1f}{p99:>10.1f}{target:>12.0f}")


if __name__ == "__main__":
    asyncio.run(main(float(sys.argv[1]) if len(sys.argv) > 1 else 30.0))
