"""What it means for a request that one of our instructions has landed, or that the account says otherwise."""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import Connection

from oracle.core.lifecycle import State
from oracle.core.request import Header, Status
from oracle.pipeline import intake
from oracle.pipeline.context import Context
from oracle.pipeline.errors import SETTLEMENT_OVERTAKEN
from oracle.store import ledger, requests, settlements
from oracle.store.rows import SettlementRow
from oracle.store.schema import LedgerKind, SettlementKind, SettlementState

_ENDS: Final = {
    SettlementKind.RECORD: (State.SETTLED, Status.FULFILLED),
    SettlementKind.REJECT: (State.REJECTED, Status.REJECTED),
    SettlementKind.EXPIRE: (State.EXPIRED, Status.EXPIRED),
}


def landed(
    c: Connection, context: Context, settlement: SettlementRow, *, slot: int, finalized: bool, now_ms: int
) -> None:
    """The instruction has taken effect at `slot`; until it is finalized a fork may still undo it."""
    state = SettlementState.FINALIZED if finalized else SettlementState.LANDED
    settlements.resolve(c, settlement.id, state, now_ms=now_ms)
    row = requests.by_id(c, settlement.request_id)
    assert row is not None
    facts: dict[str, Any] = {"now_ms": now_ms, "slot": slot, "event": settlement.kind.value}
    if settlement.kind in _ENDS:
        end, status = _ENDS[settlement.kind]
        requests.force(c, row.id, end, **facts, ended_slot=slot, chain_status=int(status))
        if finalized:
            requests.amend(c, row.id, end_finalized=True)
            if settlement.kind is SettlementKind.RECORD:
                ledger.book(
                    c,
                    LedgerKind.FEE_EARNED,
                    row.fee_lamports,
                    now_ms=now_ms,
                    request_id=row.id,
                    settlement_id=settlement.id,
                    requester=row.requester,
                )
    elif settlement.kind is SettlementKind.CLAIM:
        dear = row.fee_lamports > context.config.policy.finalize_claims_above_lamports
        if row.state is State.CLAIMING and (finalized or not dear):
            requests.force(c, row.id, State.CLAIMED, **facts, chain_status=int(Status.CLAIMED))
    elif settlement.kind is SettlementKind.CLOSE and finalized:
        requests.amend(c, row.id, closed=True)


def undone(c: Connection, settlement: SettlementRow, *, now_ms: int) -> None:
    """A confirmed transaction is gone: the fork that held it was dropped. It is in flight again, and so is the row."""
    settlements.reopen(c, settlement.id, now_ms=now_ms)
    row = requests.by_id(c, settlement.request_id)
    if row is not None and row.state in (State.SETTLED, State.REJECTED):
        requests.force(c, row.id, State.SETTLING, now_ms=now_ms, slot=None, event="undone_by_fork", ended_slot=None)


def overtaken(c: Connection, context: Context, settlement: SettlementRow, header: Header | None, now_ms: int) -> None:
    """The request is no longer what the instruction needs: the account decides how it ended.

    `header` is None where the account is gone: it ended, and was closed.
    """
    settlements.resolve(
        c, settlement.id, SettlementState.DROPPED, now_ms=now_ms, code=SETTLEMENT_OVERTAKEN.code, detail=None
    )
    row = requests.by_id(c, settlement.request_id)
    assert row is not None
    if header is None or header.created_slot != row.created_slot:
        if row.ended_slot is not None:
            requests.amend(c, row.id, closed=True, end_finalized=True)
        return
    intake.end(c, context, row.address, header, now_ms=now_ms)
