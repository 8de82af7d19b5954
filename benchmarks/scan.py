"""How long a scan of all open requests takes, and how long it stops everything else.

    python benchmarks/scan.py [ACCOUNTS ...]

A node in another process serves that many request accounts, all of them on record. The stall is the longest time that
the event loop was away while the scan ran: deadlines, heartbeats and settlements wait so long. The baseline parses the
same answer with solana-py on the loop. Best of three, since other programs stall a loop too.
"""

from __future__ import annotations

import asyncio
import base64
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from random import Random
from typing import Any

import orjson
from solana.rpc.async_api import AsyncClient
from solana.rpc.types import DataSliceOpts, MemcmpOpts
from solders.pubkey import Pubkey

from oracle.chain.rpc.pool import connect
from oracle.chain.watcher import Known, Layout, Watcher

PROGRAM, QUEUE = Pubkey(bytes([7]) * 32), Pubkey(bytes([8]) * 32)
CREATED_SLOT, SLOT = 90, 100
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"


def accounts(count: int) -> dict[str, bytes]:
    """Addresses and slices of pending requests; the same for the same count."""
    random = Random(count)
    sliced = {}
    for _ in range(count):
        cut = bytearray(random.randbytes(120))
        cut[1], cut[96:104] = 0, CREATED_SLOT.to_bytes(8, "little")
        sliced[str(Pubkey(random.randbytes(32)))] = bytes(cut)
    return sliced


async def serve(count: int) -> None:
    """A node with these accounts and nothing else; prints its port."""
    items = [
        {
            "pubkey": address,
            "account": {
                "data": [base64.b64encode(cut).decode(), "base64"],
                "executable": False,
                "lamports": 5_000_000,
                "owner": str(PROGRAM),
                "rentEpoch": 2**64 - 1,
                "space": 600,
            },
        }
        for address, cut in accounts(count).items()
    ]
    context = {"slot": SLOT}
    everything, nothing = (orjson.dumps({"context": context, "value": value}) for value in (items, []))
    bare = orjson.dumps(items)

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            try:
                head = await reader.readuntil(b"\r\n\r\n")
            except (asyncio.IncompleteReadError, OSError):
                writer.close()
                return
            length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
            body = orjson.loads(await reader.readexactly(length))
            match body["method"]:
                case "getProgramAccounts":
                    config = body["params"][1]
                    claimed = any(f["memcmp"]["bytes"] == "AQ==" for f in config["filters"])
                    result = nothing if claimed else everything if config.get("withContext") else bare
                case "getGenesisHash":
                    result = orjson.dumps(str(PROGRAM))
                case _:
                    result = orjson.dumps(SLOT)
            answer = b'{"jsonrpc":"2.0","result":%s,"id":%s}' % (result, orjson.dumps(body["id"]))
            writer.write(HEAD % len(answer) + answer)
            await writer.drain()

    server = await asyncio.start_server(converse, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


async def measured(work: Callable[[], Awaitable[Any]]) -> tuple[float, float]:
    """Seconds that `work` took, and the longest that the event loop was away meanwhile."""
    worst, done = 0.0, asyncio.Event()

    async def beat() -> None:
        nonlocal worst
        last = time.perf_counter()
        while not done.is_set():
            await asyncio.sleep(0)
            now = time.perf_counter()
            worst, last = max(worst, now - last), now

    beating = asyncio.create_task(beat())
    began = time.perf_counter()
    await work()
    took = time.perf_counter() - began
    done.set()
    await beating
    return took, worst


async def compared(url: str, count: int) -> tuple[tuple[float, float], tuple[float, float]]:
    """(seconds, stall) of the watcher's scan and of the baseline, each the best of three."""
    record = {address: Known(CREATED_SLOT, 0, SLOT - 10) for address in accounts(count)}

    async def known() -> dict[str, Known]:
        return record

    client = connect(url, timeout_seconds=60.0)
    watcher = Watcher(client, None, program=PROGRAM, queues=[QUEUE], layout=Layout(b"\0" * 8), known=known)

    async def scan() -> None:
        assert await watcher.scan(sweep=False) == []
        assert watcher.stats.accounts == count

    solana = AsyncClient(url, timeout=60.0)

    async def baseline() -> None:
        filters = [MemcmpOpts(9, "1")]
        answer = await solana.get_program_accounts(PROGRAM, None, "base64", DataSliceOpts(8, 120), filters)
        assert len(answer.value) == count

    ours = [await measured(scan) for _ in range(3)]
    theirs = [await measured(baseline) for _ in range(3)]
    await client.close()
    await solana.close()
    return min(ours, key=lambda m: m[1]), min(theirs, key=lambda m: m[1])


@contextmanager
def serving(count: int) -> Iterator[str]:
    """The URL of a node in another process."""
    node = subprocess.Popen([sys.executable, __file__, "--serve", str(count)], stdout=subprocess.PIPE)
    assert node.stdout is not None
    try:
        yield f"http://127.0.0.1:{int(node.stdout.readline())}"
    finally:
        node.kill()
        node.wait()
        node.stdout.close()


def main(counts: list[int]) -> None:
    print(f"{'accounts':>9} {'scan':>9} {'stall':>9} {'baseline':>9} {'stall':>9}")
    for count in counts:
        with serving(count) as url:
            (seconds, stall), (base_seconds, base_stall) = asyncio.run(compared(url, count))
        ours = f"{seconds:>8.2f}s {stall * 1000:>6.0f} ms"
        print(f"{count:>9,} {ours} {base_seconds:>8.2f}s {base_stall * 1000:>6.0f} ms")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        asyncio.run(serve(int(sys.argv[2])))
    else:
        main([int(argument) for argument in sys.argv[1:]] or [1_000, 10_000, 50_000])
