"""What a settlement costs: transaction fees as the daemon books them, packed and alone.

    python benchmarks/cost.py

The chain charges what a cluster does: 5,000 lamports a signature, and the priority fee that the transaction offers.
On a quiet chain the daemon offers none, so that the figures compare base fees and packing. Beside it what the two
public Solana LLM oracles pay by their source: fixed limits and prices, a transaction for each answer.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from bench import Bench, Instant, chain, document, machine
from sqlalchemy import Connection, func, select

from oracle.config import Log, parse
from oracle.core.lifecycle import State
from oracle.logs import set_up
from oracle.pipeline.daemon import assembled
from oracle.store import requests
from oracle.store.schema import signature_members, signatures

# anchors.md: 5,000 + 300,000 CU at 1 lamport; 5,000 + 300,000 CU at 0.2 lamports.
PUBLIC = (("MagicBlock Solana AI oracle", 305_000), ("solana-llm-oracle", 65_000))


@dataclass(frozen=True)
class Cost:
    settlements: int
    transactions: int
    lamports: int

    @property
    def each(self) -> float:
        return self.lamports / self.settlements


async def cost(bench: Bench, count: int, *, packed: bool) -> Cost:
    settings = document(bench)
    if not packed:
        settings["settlement"] = {"flush_window_seconds": 0}
    config = parse(settings, base=bench.directory)
    async with assembled(config) as daemon:
        daemon.context.providers = {"instant": Instant()}
        task = asyncio.create_task(daemon.run())
        if not packed:
            for done in range(count):
                bench.submit(1, 1)
                await settled(daemon.context.store, done + 1)
        await settled(daemon.context.store, count)
        booked = await daemon.context.store.read(booked_in)
        daemon.stop()
        await task
    return booked


def booked_in(c: Connection) -> Cost:
    transactions, lamports = c.execute(select(func.count(), func.sum(signatures.c.fee_lamports))).one()
    return Cost(c.execute(select(func.count()).select_from(signature_members)).scalar_one(), transactions, lamports)


async def settled(store: object, count: int) -> None:
    while True:
        if (await store.read(requests.counts))[State.SETTLED] >= count:  # type: ignore[attr-defined]
            return
        await asyncio.sleep(0.1)


async def main() -> None:
    set_up(Log(level="error"))
    print(machine())
    rows = []
    for name, count, packed in (("packed", 400, True), ("alone", 10, False)):
        with chain(count if packed else 0) as bench:
            found = await cost(bench, count, packed=packed)
        rows.append((f"this oracle, {name}", found.settlements, found.transactions, found.each))
    print(f"{'':32}{'settlements':>12}{'transactions':>14}{'lamports each':>15}")
    for label, settlements, transactions, lamports in rows:
        print(f"{label:32}{settlements:>12}{transactions:>14}{lamports:>15,.0f}")
    for label, lamports in PUBLIC:
        print(f"{label:32}{1:>12}{1:>14}{lamports:>15,}")


if __name__ == "__main__":
    asyncio.run(main())
