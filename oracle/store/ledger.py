"""The ledger: what was paid and earned, in lamports; money out is negative. Nothing is booked twice."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, bindparam, func, select, update

from oracle.store import spending
from oracle.store.rows import LedgerRow as LedgerRow
from oracle.store.schema import LedgerKind, ledger, settlements, signature_members
from oracle.store.sql import append, fetch_one, update_each

_BY_ID: Final = select(ledger).where(ledger.c.id == bindparam("wanted_id")).with_for_update()
_JOB_OF: Final = (
    select(ledger)
    .where(ledger.c.attempt_id == bindparam("of_attempt"), ledger.c.kind == LedgerKind.JOB)
    .with_for_update()
)
_CORRECTED: Final = update(ledger).where(ledger.c.id == bindparam("wanted_id"))


def book(
    conn: Connection,
    kind: str,
    lamports: int,
    *,
    now_ms: int,
    request_id: int | None = None,
    attempt_id: int | None = None,
    settlement_id: int | None = None,
    signature_id: int | None = None,
    provider: str | None = None,
    requester: str | None = None,
    note: str | None = None,
) -> None:
    """Book an amount, unless it was booked before; in a group of writes at its end, when all of them have read.

    There is one `tx_fee` for each signature, one `fee_earned` for each request, and one `job` for each attempt, to be
    corrected when that has cost something else.
    """
    append(
        conn,
        ledger,
        at_ms=now_ms,
        request_id=request_id,
        attempt_id=attempt_id,
        settlement_id=settlement_id,
        signature_id=signature_id,
        kind=kind,
        lamports=lamports,
        provider=provider,
        requester=requester,
        note=note,
    )


def correct(
    conn: Connection, cost_lamports: int, *, attempt_id: int | None = None, ledger_id: int | None = None
) -> None:
    """A job has cost something else than its quote, which stands in the ledger: there, and in the day's budgets."""
    found = (
        fetch_one(conn, _BY_ID, {"wanted_id": ledger_id})
        if attempt_id is None
        else fetch_one(conn, _JOB_OF, {"of_attempt": attempt_id})
    )
    entry = None if found is None else LedgerRow(*found)
    if entry is None or entry.lamports == -cost_lamports:
        return
    update_each(conn, _CORRECTED, [{"wanted_id": entry.id, "lamports": -cost_lamports}])
    more = cost_lamports + entry.lamports
    spending.correct(conn, entry.at_ms, more, provider=entry.provider, requester=entry.requester)


def sum(conn: Connection, *, kind: str | None = None, since_ms: int = 0, request_id: int | None = None) -> int:
    """Lamports booked since then: of one kind, of one request, or of all."""
    query = select(func.coalesce(func.sum(ledger.c.lamports), 0)).where(ledger.c.at_ms >= since_ms)
    if kind is not None:
        query = query.where(ledger.c.kind == LedgerKind(kind))
    if request_id is not None:
        query = query.where(ledger.c.request_id == request_id)
    return int(conn.execute(query).scalar_one())


def of(conn: Connection, request_id: int) -> list[LedgerRow]:
    """Every booking of a request, oldest first."""
    query = select(ledger).where(ledger.c.request_id == request_id).order_by(ledger.c.id)
    return [LedgerRow(*row) for row in conn.execute(query)]


@dataclass(frozen=True, slots=True)
class SharedFee:
    """What a transaction cost, and how many settlements it carried."""

    lamports: int
    settlements: int


def transaction_fees(conn: Connection, request_id: int) -> list[SharedFee]:
    """The fees of the transactions that a request was settled with, oldest first. They are booked by signature, since
    a transaction may carry the settlements of several requests."""
    ours = (
        select(signature_members.c.signature_id)
        .join(settlements, settlements.c.id == signature_members.c.settlement_id)
        .where(settlements.c.request_id == request_id)
    )
    query = (
        select(ledger.c.lamports, func.count(signature_members.c.settlement_id))
        .join(signature_members, signature_members.c.signature_id == ledger.c.signature_id)
        .where(ledger.c.kind == LedgerKind.TX_FEE, ledger.c.signature_id.in_(ours))
        .group_by(ledger.c.id, ledger.c.lamports)
        .order_by(ledger.c.id)
    )
    return [SharedFee(lamports, count) for lamports, count in conn.execute(query)]
