"""What a durable step of a request costs: each committed by itself, and in groups as the daemon does it.

    python benchmarks/group_commit.py [--rows 2000] [--url postgresql+asyncpg://…]

One step is what a loop does to a request: a fenced update and a line of the journal. Every commit survives a power
failure (`synchronous=FULL`, `synchronous_commit=on`). The baseline is the same step through SQLAlchemy and aiosqlite,
one transaction for each, as an asyncio application usually does it. Without `--url` it runs on SQLite, in a temporary
directory of the current one, so that the disk measured is the disk here. A PostgreSQL database must be empty.
"""

from __future__ import annotations

import argparse
import asyncio
import platform
import sqlite3
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table
from sqlalchemy import Connection, event, insert, update
from sqlalchemy.ext.asyncio import create_async_engine

from oracle.core.lifecycle import State
from oracle.store import requests, schema
from oracle.store.changes import Sighted
from oracle.store.engine import Store, upgrade
from oracle.store.requests import RequestRow

NOW_MS = 1_700_000_000_000
WAITERS = (1, 8, 64, 512)


@dataclass(frozen=True, slots=True)
class Figure:
    what: str
    rows: int
    seconds: float
    commits: int

    @property
    def rows_per_second(self) -> float:
        return self.rows / self.seconds


async def main() -> None:
    here = Path.cwd()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=2_000, help="steps in each line of the table")
    parser.add_argument("--url", help="an empty PostgreSQL database to measure instead of SQLite")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=here, prefix=".benchmark-") as directory:
        url = arguments.url or f"sqlite:///{directory}/oracle.sqlite"
        await asyncio.to_thread(upgrade, url)
        figures = [] if arguments.url else [await baseline(url, arguments.rows)]
        store = await Store.open(url)
        figures += [await grouped(store, arguments.rows, waiters) for waiters in WAITERS]
        engine = await store.read(version)
        await store.close()
    show(figures, f"{engine}, Python {platform.python_version()}, {platform.machine()}, one run")


async def baseline(url: str, rows: int) -> Figure:
    """SQLAlchemy and aiosqlite with the same durability, a transaction for each step."""
    engine = create_async_engine(url.replace("sqlite:", "sqlite+aiosqlite:"))

    @event.listens_for(engine.sync_engine, "connect")
    def _connected(connection: sqlite3.Connection, _: object) -> None:
        for pragma in ("journal_mode=WAL", "synchronous=FULL"):
            connection.execute(f"PRAGMA {pragma}")

    async def step(row: RequestRow) -> None:
        async with engine.begin() as conn:
            values = {"state": State.RUNNING, "state_since_ms": NOW_MS, "wake_at_ms": NOW_MS, "retries": 0}
            free = {"lease_owner": None, "lease_until_ms": None}
            is_held = (schema.requests.c.id == row.id, schema.requests.c.fence == row.fence)
            done = await conn.execute(update(schema.requests).where(*is_held).values(**values, **free))
            assert done.rowcount == 1
            fact = {"request_id": row.id, "at_ms": NOW_MS, "event": "running", "old_state": row.state}
            await conn.execute(insert(schema.journal).values(**fact, new_state=State.RUNNING))

    store = await Store.open(url)
    held = await store.write(lambda c: hold(c, "baseline", rows))
    await store.close()
    try:
        seconds = await timed(held, 1, step)
    finally:
        await engine.dispose()
    return Figure("SQLAlchemy + aiosqlite, a commit each", rows, seconds, rows)


async def grouped(store: Store, rows: int, waiters: int) -> Figure:
    """The store, with so many loops that write at once."""
    held = await store.write(lambda c: hold(c, f"waiters-{waiters}", rows))
    before = store.commits
    seconds = await timed(held, waiters, lambda row: store.write(lambda c: move(c, row)))
    name = "this store, a commit each" if waiters == 1 else f"this store, {waiters} writers at once"
    return Figure(name, rows, seconds, store.commits - before)


def hold(conn: Connection, prefix: str, rows: int) -> list[RequestRow]:
    for number in range(rows):
        requests.see(
            conn,
            Sighted(
                operator="operator",
                address=f"{prefix}-{number}",
                created_slot=1,
                queue="queue",
                requester="requester",
                refund_to="payer",
                model="model",
                fee_lamports=5_000_000,
                deadline_slot=1_000,
                claim_required=False,
                retention_slots=50,
                account=bytes(600),
                chain_status=0,
                chain_slot=1,
                now_ms=NOW_MS,
                seen_by="scan",
                state=State.ADMITTED,
            ),
        )
    return requests.take(
        conn, [State.ADMITTED], operator="operator", owner="benchmark", now_ms=NOW_MS, lease_ms=60_000, limit=rows
    )


def move(conn: Connection, row: RequestRow) -> RequestRow:
    return requests.move(conn, row, State.RUNNING, now_ms=NOW_MS)


async def timed(held: list[RequestRow], waiters: int, step: Callable[[RequestRow], Awaitable[object]]) -> float:
    left = iter(held)

    async def loop() -> None:
        for row in left:
            await step(row)

    began = time.perf_counter()
    await asyncio.gather(*(loop() for _ in range(waiters)))
    return time.perf_counter() - began


def version(conn: Connection) -> str:
    if conn.dialect.name == "sqlite":
        return f"SQLite {sqlite3.sqlite_version}, WAL, synchronous=FULL"
    settings = [conn.exec_driver_sql(f"SHOW {name}").scalar_one() for name in ("server_version", "synchronous_commit")]
    return "PostgreSQL {}, synchronous_commit={}".format(*settings)


def show(figures: list[Figure], title: str) -> None:
    table = Table(title=title, title_justify="left")
    table.add_column("how")
    for heading in ("rows/s", "times", "commits", "rows per commit", "ms per row"):
        table.add_column(heading, justify="right")
    for figure in figures:
        table.add_row(
            figure.what,
            f"{figure.rows_per_second:,.0f}",
            f"{figure.rows_per_second / figures[0].rows_per_second:.1f}",
            f"{figure.commits:,}",
            f"{figure.rows / figure.commits:.1f}",
            f"{1000 * figure.seconds / figure.rows:.3f}",
        )
    Console(width=110).print(table)


if __name__ == "__main__":
    asyncio.run(main())
