"""Purchases by transaction: one intent for each attempt, signed at most once, and withdrawn for good where it was not.

Signatures, their laws and their fates are those of `store.settlements`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, select, update

from oracle.store import settlements
from oracle.store.errors import ATTEMPT_OVER, ROW_MISSING
from oracle.store.rows import AttemptRow, SettlementRow
from oracle.store.schema import LIVE_ATTEMPT, SettlementKind, SettlementState, attempts, requests
from oracle.store.schema import settlements as t
from oracle.store.sql import insert_new


def intend(
    conn: Connection, key: str, *, detail: Mapping[str, Any], operator: str, owner: str, lease_ms: int, now_ms: int
) -> SettlementRow:
    """Write down that a job is about to be bought for the attempt with this idempotency key, and hold the intent.

    Raises ORC-STORE-020 where there is no such attempt, ORC-STORE-023 where the attempt has ended, or had a purchase
    before: nothing may be signed for it then.
    """
    attempt = _locked(conn, key)
    if attempt is None:
        raise ROW_MISSING(f"attempt {key}")
    if attempt.state not in LIVE_ATTEMPT or _of(conn, attempt) is not None:
        raise ATTEMPT_OVER(f"attempt {attempt.id}, {attempt.state}")
    settlement_id = _insert(
        conn,
        attempt,
        operator,
        SettlementState.PENDING,
        now_ms,
        args=dict(detail),
        lease_owner=owner,
        lease_until_ms=now_ms + lease_ms,
        fence=1,
    )
    return settlements.get(conn, settlement_id)


def drop(conn: Connection, settlement: SettlementRow, *, code: str, detail: str, now_ms: int) -> bool:
    """Give up an intent that was not signed. False where it was, or another has decided: then it may have landed."""
    dropped = conn.execute(
        update(t)
        .where(t.c.id == settlement.id, t.c.state == SettlementState.PENDING, t.c.fence == settlement.fence)
        .values(**_over(now_ms), error_code=code, error_detail=detail)
    )
    return dropped.rowcount == 1


def withdraw(conn: Connection, key: str, *, operator: str, now_ms: int) -> SettlementRow | None:
    """The purchase of an attempt, which is not signed from here on if it was not before. None: no such attempt.

    Where nothing was intended yet, a dropped intent is left behind, so that whoever comes late cannot intend it.
    """
    attempt = _locked(conn, key)
    if attempt is None:
        return None
    purchase = _of(conn, attempt)
    if purchase is None:
        return settlements.get(conn, _insert(conn, attempt, operator, SettlementState.DROPPED, now_ms, args={}))
    if purchase.state is SettlementState.PENDING:
        conn.execute(update(t).where(t.c.id == purchase.id).values(**_over(now_ms)))
        return settlements.get(conn, purchase.id)
    return purchase


def _locked(conn: Connection, key: str) -> AttemptRow | None:
    """The lock makes a late `intend` and a `withdraw` meet: whichever is second sees what the first has written."""
    query = select(attempts).where(attempts.c.idempotency_key == key).with_for_update()
    row = conn.execute(query).one_or_none()
    return None if row is None else AttemptRow(*row)


def _of(conn: Connection, attempt: AttemptRow) -> SettlementRow | None:
    query = select(t).where(t.c.attempt_id == attempt.id, t.c.kind == SettlementKind.PURCHASE)
    row = conn.execute(query).one_or_none()
    return None if row is None else SettlementRow(*row)


def _insert(
    conn: Connection, attempt: AttemptRow, operator: str, state: SettlementState, now_ms: int, **values: Any
) -> int:
    deadline = select(requests.c.deadline_slot).where(requests.c.id == attempt.request_id)
    settlement_id = insert_new(
        conn,
        t,
        request_id=attempt.request_id,
        attempt_id=attempt.id,
        operator=operator,
        kind=SettlementKind.PURCHASE,
        deadline_slot=conn.execute(deadline).scalar_one(),
        state=state,
        created_at_ms=now_ms,
        wake_at_ms=now_ms,
        **values,
    )
    return int(settlement_id)


def _over(now_ms: int) -> Mapping[str, Any]:
    return {
        "state": SettlementState.DROPPED,
        "wake_at_ms": now_ms,
        "lease_owner": None,
        "lease_until_ms": None,
        "fence": t.c.fence + 1,
    }
