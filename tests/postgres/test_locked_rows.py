"""Who takes work waits for nobody: a row that another transaction has locked is passed over."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
import pytest
from postgres_server import Server
from sqlalchemy import Connection, make_url, text
from store_world import MINUTE, NOW, OPERATOR, OWNER, see

from oracle.core.lifecycle import State
from oracle.store import requests, settlements
from oracle.store.engine import Store
from oracle.store.requests import RequestRow
from oracle.store.settlements import SettlementRow

pytestmark = pytest.mark.postgres


async def test_requests_are_taken_around_one_that_another_transaction_has_locked(
    url: str, store: Store, server: Server
) -> None:
    first, second, _ = [await see(store, f"request-{number}") for number in range(3)]

    def take(conn: Connection) -> list[RequestRow]:
        wait_for_nobody(conn)
        return requests.take(conn, [State.SEEN], operator=OPERATOR, owner=OWNER, now_ms=NOW, lease_ms=MINUTE, limit=1)

    async with locked(server, url, "requests", first.id):
        assert [row.id for row in await store.write(take)] == [second.id]


async def test_intents_are_taken_around_one_that_another_transaction_has_locked(
    url: str, store: Store, server: Server
) -> None:
    first, second, _ = [await intend(store, f"request-{number}") for number in range(3)]

    def take(conn: Connection) -> list[SettlementRow]:
        wait_for_nobody(conn)
        return settlements.take_pending(conn, owner=OWNER, now_ms=NOW, lease_ms=MINUTE, limit=1)

    async with locked(server, url, "settlements", first.id):
        assert [intent.id for intent in await store.write(take)] == [second.id]


def wait_for_nobody(conn: Connection) -> None:
    """Fail where it would wait for a lock, which is not given back before."""
    conn.execute(text("SET LOCAL lock_timeout = '100ms'"))


async def intend(store: Store, address: str) -> SettlementRow:
    row = await see(store, address)
    return await store.write(
        lambda c: settlements.intend(
            c, request_id=row.id, kind="record", args={}, operator=OPERATOR, deadline_slot=1_000, now_ms=NOW
        )
    )


@asynccontextmanager
async def locked(server: Server, url: str, table: str, row_id: int) -> AsyncIterator[None]:
    """A transaction of another session's, open as long as the block, has locked a row."""
    connection = await asyncpg.connect(user="postgres", database=make_url(url).database, host=server.directory)
    try:
        await connection.execute(f"BEGIN; SELECT FROM {table} WHERE id = {row_id} FOR UPDATE")
        yield
    finally:
        await connection.close()
