"""What it means for a request that one of our instructions has landed or is gone, or that its account says so."""

from __future__ import annotations

from typing import Final

from sqlalchemy import Connection

from oracle.chain.program.layout import decode_header
from oracle.core.errors import ErrorCode
from oracle.core.lifecycle import ENDED, State
from oracle.core.request import Header, Status
from oracle.pipeline import intake
from oracle.pipeline.context import Context
from oracle.pipeline.errors import SETTLEMENT_OVERTAKEN
from oracle.pipeline.transactions import MOST_PUBLISHED_BYTES, NO_DEADLINE
from oracle.store import ledger, requests, results, settlements
from oracle.store.rows import RequestRow, SettlementRow
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
    row = request_of(c, settlement)
    if settlement.kind in _ENDS:
        end, status = _ENDS[settlement.kind]
        requests.force(c, row.id, end, now_ms=now_ms, slot=slot, event=settlement.kind.value)
        # Beside the move: it may have landed before, in another slot of another fork.
        requests.amend(c, row.id, ended_slot=slot, chain_status=int(status))
        if finalized:
            finalize(c, settlement, row, now_ms=now_ms)
    elif settlement.kind is SettlementKind.CLAIM:
        dear = row.fee_lamports > context.config.policy.finalize_claims_above_lamports
        if row.state is State.CLAIMING and (finalized or not dear):
            claimed(c, row, slot=slot, now_ms=now_ms)
    elif settlement.kind is SettlementKind.CLOSE and finalized:
        requests.amend(c, row.id, closed=True)


def finalize(c: Connection, settlement: SettlementRow, row: RequestRow, *, now_ms: int) -> None:
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
        publish(c, settlement, row, now_ms=now_ms)


def publish(c: Connection, settlement: SettlementRow, row: RequestRow, *, now_ms: int) -> None:
    """A small answer is written into the room that the requester has paid for; the program checks it by its hash."""
    room = decode_header(row.account).output_cap
    output = results.get_output(c, row.output_sha256) if room and row.output_sha256 else None
    if output is None or output.content is None or len(output.content) > min(room, MOST_PUBLISHED_BYTES):
        return
    if settlements.live_of(c, row.id) is not None:
        return
    settlements.intend(
        c,
        request_id=row.id,
        kind=SettlementKind.PUBLISH,
        args={"output": output.content.hex()},
        operator=settlement.operator,
        deadline_slot=NO_DEADLINE,
        now_ms=now_ms,
    )


def claimed(c: Connection, row: RequestRow, *, slot: int, now_ms: int) -> None:
    """Ours to work on; where the outcome is there already, since the claim is made anew, to settle."""
    if row.output_sha256 is not None:
        state = State.COMPUTED
    elif row.reject_reason is not None:
        state = State.REFUSED
    else:
        state = State.CLAIMED
    requests.force(c, row.id, state, now_ms=now_ms, slot=slot, event="claim", chain_status=int(Status.CLAIMED))


def undone(c: Connection, settlement: SettlementRow, *, now_ms: int) -> None:
    """A confirmed transaction is gone: the fork that held it was dropped. It is in flight again, and so is the row."""
    if settlement.state is not SettlementState.LANDED:
        return
    if settlement.kind is SettlementKind.PURCHASE or settlements.live_of(c, settlement.request_id) is None:
        settlements.reopen(c, settlement.id, now_ms=now_ms)
    # Else it is a claim, and the settlement that rests on it is under way: the same bytes may still bring it back.
    row = request_of(c, settlement)
    if settlement.kind in _ENDS and row.state is _ENDS[settlement.kind][0]:
        requests.force(
            c,
            row.id,
            State.SETTLING,
            now_ms=now_ms,
            slot=None,
            event="undone_by_fork",
            ended_slot=None,
            end_finalized=False,
            chain_status=int(Status.PENDING),
        )


def overtaken(
    c: Connection, context: Context, settlement: SettlementRow, header: Header | None, *, slot: int, now_ms: int
) -> None:
    """A finalized read at `slot` shows that the request has ended: the account decides how.

    `header` is None where the account is gone, or lives anew: it ended, and was closed.
    """
    row = request_of(c, settlement)
    settlements.resolve(
        c, settlement.id, SettlementState.DROPPED, now_ms=now_ms, code=SETTLEMENT_OVERTAKEN.code, detail=None
    )
    if header is None:
        if row.state not in ENDED:
            requests.force(
                c,
                row.id,
                State.VANISHED,
                now_ms=now_ms,
                slot=slot,
                event="vanished",
                code=SETTLEMENT_OVERTAKEN.code,
                detail="the account is gone",
                ended_slot=slot,
            )
        requests.amend(c, row.id, closed=True, end_finalized=True)
        return
    intake.end(c, context, row.address, header, now_ms=now_ms)
    requests.amend(c, row.id, ended_slot=header.settled_slot, end_finalized=True, chain_status=int(header.status))
    ended = request_of(c, settlement)
    if settlement.kind is SettlementKind.RECORD and ended.state is State.SETTLED:
        # It says what we meant to write, so an earlier signature of this intent wrote it.
        landed(c, context, settlement, slot=header.settled_slot, finalized=True, now_ms=now_ms)


def given_up(
    c: Connection, settlement: SettlementRow, error: ErrorCode, detail: str, *, slot: int | None, now_ms: int
) -> None:
    """The intent fails, and its request waits for a person, or for its deadline."""
    settlements.resolve(c, settlement.id, SettlementState.FAILED, now_ms=now_ms, code=error.code, detail=detail)
    row = request_of(c, settlement)
    if row.state in (State.SETTLING, State.CLAIMING):
        requests.force(
            c, row.id, State.PARKED, now_ms=now_ms, slot=slot, event="parked", code=error.code, detail=detail
        )


def request_of(c: Connection, settlement: SettlementRow) -> RequestRow:
    row = requests.by_id(c, settlement.request_id)
    assert row is not None
    return row
