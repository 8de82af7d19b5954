"""A hundred thousand requests in flight at a provider that is polled in bulk: memory, stalls, calls, and a restart.

    python benchmarks/scale.py [REQUESTS] [SECONDS]

The rows are written through the store, as they are after as many purchases; their accounts are served by a node in
another process, since the embedded chain would need an hour to make them. Then the daemon is started over them, as
after a crash, and watched: how long until its first question to the provider, the longest time that its event loop was
away, its memory, and its calls a second in each half of the time.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
from bench import Instant, forget_peak, machine, peak_bytes
from scan import HEAD, accounts
from solders.keypair import Keypair
from solders.pubkey import Pubkey
from sqlalchemy import Connection

from oracle.chain.rpc.provider import Provider
from oracle.config import Log, parse
from oracle.core.compute import JobHandle, JobState, JobStatus
from oracle.core.lifecycle import State
from oracle.logs import set_up
from oracle.pipeline import interpreter
from oracle.pipeline.daemon import assembled
from oracle.store import attempts, requests
from oracle.store.changes import Move, Purchase, Sighted, Started
from oracle.store.engine import Store, upgrade

SLOT, CREATED_SLOT = 1_000, 90
ACCOUNT_BYTES = 400
TOGETHER = 2_000


class Busy(Instant):
    """A provider whose jobs all go on."""

    state = JobState.RUNNING

    def __init__(self) -> None:
        super().__init__()
        self.asked_at: list[float] = []
        self.asked_of: set[str] = set()

    async def poll(self, handles: Sequence[JobHandle]) -> Mapping[JobHandle, JobStatus]:
        self.asked_at.append(time.perf_counter())
        self.asked_of.update(handle.job_id for handle in handles)
        return await super().poll(handles)


async def serve(count: int) -> None:
    """A node on which all these requests are pending; prints its port."""
    pending = orjson.dumps([{"pubkey": a, "account": _account(cut)} for a, cut in accounts(count).items()])

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            try:
                head = await reader.readuntil(b"\r\n\r\n")
            except (asyncio.IncompleteReadError, OSError):
                writer.close()
                return
            if not head.startswith(b"POST"):
                writer.close()  # it has no WebSocket
                return
            length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
            body = orjson.loads(await reader.readexactly(length))
            result = _result(body["method"], body["params"], pending)
            answer = b'{"jsonrpc":"2.0","id":%d,"result":%b}' % (body["id"], result)
            writer.write(HEAD % len(answer) + answer)
            await writer.drain()

    server = await asyncio.start_server(converse, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


def _result(method: str, params: Any, pending: bytes) -> bytes:
    context = b'{"context":{"slot":%d},"value":' % SLOT
    match method:
        case "getProgramAccounts":
            memcmps = [f["memcmp"]["bytes"] for f in params[1]["filters"] if "memcmp" in f]
            is_scan = params[1].get("dataSlice", {}).get("length", 0) > 32 and "AQ==" not in memcmps
            value = pending if is_scan else b"[]"
            return context + value + b"}" if params[1].get("withContext") else value
        case "getGenesisHash":
            return orjson.dumps(str(Pubkey(bytes(31) + b"\1")))
        case "getRecentPerformanceSamples":
            sample = {"slot": SLOT, "numSlots": 150, "samplePeriodSecs": 60, "numTransactions": 1}
            return orjson.dumps([sample | {"numNonVoteTransactions": 1}])
        case "getSlot" | "getBlockHeight":
            return str(SLOT).encode()
        case "getMultipleAccounts":
            return context + orjson.dumps([None] * len(params[0])) + b"}"
        case "getBalance":
            return context + b"1000000000}"
        case _:
            return b"null"


def _account(cut: bytes) -> dict[str, Any]:
    return {
        "data": [base64.b64encode(cut).decode(), "base64"],
        "executable": False,
        "lamports": 5_000_000,
        "owner": str(Pubkey(bytes([7]) * 32)),
        "rentEpoch": 2**64 - 1,
        "space": ACCOUNT_BYTES,
    }


@contextmanager
def serving(count: int) -> Iterator[str]:
    """The URL of the node, in a process of its own."""
    node = subprocess.Popen([sys.executable, __file__, "--serve", str(count)], stdout=subprocess.PIPE)
    assert node.stdout is not None
    try:
        yield f"http://127.0.0.1:{int(node.stdout.readline())}"
    finally:
        node.kill()
        node.wait()
        node.stdout.close()


def seconds_to_load() -> float:
    """What a new process takes until the daemon's modules are there."""
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", "import oracle.pipeline.daemon"], check=True)
    return time.perf_counter() - began


async def fill(store: Store, operator: str, queue: str, count: int) -> None:
    """Rows as they are when a job runs for each of the requests."""
    addresses = list(accounts(count))
    for start in range(0, count, TOGETHER):
        some = addresses[start : start + TOGETHER]
        await store.write(lambda c, some=some: bought(c, operator, queue, some))  # type: ignore[misc]


def bought(c: Connection, operator: str, queue: str, addresses: Sequence[str]) -> None:
    now_ms = time.time_ns() // 1_000_000
    seen = [
        Sighted(
            operator=operator,
            address=address,
            created_slot=CREATED_SLOT,
            queue=queue,
            requester=address,
            refund_to=address,
            model="bench",
            fee_lamports=100_000,
            deadline_slot=SLOT + 1_000_000,
            claim_required=False,
            retention_slots=50,
            account=bytes(ACCOUNT_BYTES),
            chain_status=0,
            chain_slot=SLOT - 10,
            now_ms=now_ms,
            seen_by="scan",
            state=State.ADMITTED,
        )
        for address in addresses
    ]
    requests.see_all(c, seen)
    rows = requests.take(
        c, [State.ADMITTED], operator=operator, owner="earlier", now_ms=now_ms, lease_ms=90_000, limit=len(seen)
    )
    keys = [hashlib.sha256(row.address.encode()).hexdigest() for row in rows]
    jobs = attempts.intend_all(
        c, [Purchase(row, 0, "instant", "bench", key, 0, now_ms, 1) for row, key in zip(rows, keys, strict=True)]
    )
    requests.move_all(c, [Move(row, State.RUNNING, now_ms, SLOT, columns={"attempts_made": 1}) for row in rows])
    attempts.started_all(c, [Started(job.id, job.idempotency_key, {}, now_ms) for job in jobs])


@dataclass(frozen=True)
class Stall:
    """Seconds that the event loop was away, and for how many of them its thread, and the process, ran at all.

    On a machine that others use, the loop is away while they are served: that shows in the first figure alone.
    """

    wall: float
    thread: float
    process: float


async def beat(stalls: list[Stall]) -> None:
    """Measure, again and again."""
    while True:
        before = time.perf_counter(), time.thread_time(), time.process_time()
        await asyncio.sleep(0.005)
        after = time.perf_counter(), time.thread_time(), time.process_time()
        wall, thread, process = (b - a for a, b in zip(before, after, strict=True))
        stalls.append(Stall(wall - 0.005, thread, min(wall - 0.005, process)))


async def watched(directory: Path, url: str, count: int, seconds: float) -> None:
    key = Keypair()
    (directory / "operator.json").touch(mode=0o600)
    (directory / "operator.json").write_text(key.to_json())
    queue = str(Pubkey.new_unique())
    config = parse(
        {
            "cluster": {"rpc": [url]},
            "operator": {"keypair": "operator.json", "queues": [queue], "base_uri": "http://127.0.0.1:1"},
            "providers": {"instant": {"kind": "openai", "base_url": "http://127.0.0.1:1/v1", "free": True}},
            "models": {"bench": {"routes": [{"provider": "instant", "model": "bench", "timeout_seconds": 3600}]}},
        },
        base=directory,
    )
    await asyncio.to_thread(upgrade, config.database.url)
    store = await Store.open(config.database.url)
    began = time.perf_counter()
    await fill(store, str(key.pubkey()), queue, count)
    await store.close()
    print(f"{count:,} requests in flight, written in {time.perf_counter() - began:.0f} s")

    calls: list[float] = []
    call = Provider._call

    async def counted(self: Provider, this: Any) -> Any:
        calls.append(time.perf_counter())
        return await call(self, this)

    Provider._call = counted  # type: ignore[method-assign]
    provider, stalls = Busy(), list[Stall]()
    loading_seconds = seconds_to_load()
    forget_peak()
    began = time.perf_counter()
    async with assembled(config) as daemon:
        daemon.context.providers = {"instant": provider}
        interpreter.prepare()  # as `oracle run` does
        task, heart = asyncio.create_task(daemon.run()), asyncio.create_task(beat(stalls))
        cpu = time.process_time()
        await asyncio.sleep(seconds)
        cpu = time.process_time() - cpu
        heart.cancel()
        halves = began + seconds / 2
        first_seconds = loading_seconds + provider.asked_at[0] - began
        print(f"  restart to the first question                {first_seconds:8.2f} s   (target 5)")
        print(f"  of it interpreter and imports                {loading_seconds:8.2f} s")
        print(f"  jobs asked after                             {len(provider.asked_of):8,}")
        print(f"  memory, at its peak                          {peak_bytes() / 1e6:8.0f} MB  (target 500)")
        for name, lengths in (
            ("", [stall.wall for stall in stalls]),
            (", running", [stall.process for stall in stalls]),
            (", its thread running", [stall.thread for stall in stalls]),
        ):
            print(f"  {'longest stall of the loop' + name:45}{1000 * max(lengths):8.0f} ms  (target 50)")
            print(f"  {'stalls of more than 50 ms' + name:45}{sum(each > 0.05 for each in lengths):8}     (target 0)")
        print(f"  processor time                               {100 * cpu / seconds:8.0f} % of one processor")
        for name, moments in (("RPC", calls), ("provider", provider.asked_at)):
            early = sum(at < halves for at in moments)
            rates = early / (seconds / 2), (len(moments) - early) / (seconds / 2)
            print(f"  {name + ' calls a second, by halves':45}{rates[0]:8.1f} {rates[1]:8.1f}")
        daemon.stop()
        await task


def main(count: int, seconds: float) -> None:
    set_up(Log(level="error"))
    print(machine())
    with tempfile.TemporaryDirectory(prefix=".benchmark-", dir=Path.cwd()) as directory, serving(count) as url:
        asyncio.run(watched(Path(directory), url, count, seconds))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        asyncio.run(serve(int(sys.argv[2])))
    else:
        numbers = [float(argument) for argument in sys.argv[1:]]
        main(int(numbers[0]) if numbers else 100_000, numbers[1] if numbers[1:] else 60.0)
