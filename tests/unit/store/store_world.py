"""What the store's tests share: requests as the watcher would see them, and the clock that they are driven by."""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import Connection

from oracle.core.lifecycle import State
from oracle.store import requests
from oracle.store.changes import Sighted
from oracle.store.engine import Store
from oracle.store.requests import RequestRow

NOW: Final = 1_700_000_000_000
MINUTE: Final = 60_000
OWNER: Final = "daemon-1"
OTHER_OWNER: Final = "daemon-2"
OPERATOR: Final = "operator-key"


def sighting(address: str = "request-1", **changes: Any) -> Sighted:
    values: dict[str, Any] = {
        "operator": OPERATOR,
        "address": address,
        "created_slot": 100,
        "queue": "queue-1",
        "requester": "requester-1",
        "refund_to": "payer-1",
        "model": "llama",
        "fee_lamports": 5_000_000,
        "deadline_slot": 1_000,
        "claim_required": False,
        "retention_slots": 50,
        "account": b"\x00account\xff",
        "chain_status": 0,
        "chain_slot": 101,
        "now_ms": NOW,
        "seen_by": "scan",
    }
    return Sighted(**values | changes)


def see_in(conn: Connection, address: str = "request-1", **changes: Any) -> RequestRow:
    """A request with a row, in state SEEN unless `state` says otherwise."""
    sighted = sighting(address, **changes)
    requests.see(conn, sighted)
    row = requests.get(conn, sighted.address, sighted.created_slot, sighted.operator)
    assert row is not None
    return row


def take_in(conn: Connection, row: RequestRow, *, owner: str = OWNER, now_ms: int = NOW) -> RequestRow:
    """The same request, held by `owner` for a minute."""
    taken = requests.take(
        conn, [row.state], operator=row.operator, owner=owner, now_ms=now_ms, lease_ms=MINUTE, limit=1000
    )
    return next(found for found in taken if found.id == row.id)


async def see(store: Store, address: str = "request-1", **changes: Any) -> RequestRow:
    return await store.write(lambda conn: see_in(conn, address, **changes))


async def take(store: Store, row: RequestRow, *, owner: str = OWNER, now_ms: int = NOW) -> RequestRow:
    return await store.write(lambda conn: take_in(conn, row, owner=owner, now_ms=now_ms))


async def held(store: Store, address: str = "request-1", **changes: Any) -> RequestRow:
    """A request that is seen and held; in state ADMITTED unless `state` says otherwise."""
    return await take(store, await see(store, address, **({"state": State.ADMITTED} | changes)))


async def now(store: Store, row: RequestRow) -> RequestRow:
    """The request as the database has it now."""
    found = await store.read(lambda conn: requests.by_id(conn, row.id))
    assert found is not None
    return found
