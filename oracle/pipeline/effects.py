"""What it means for a request that one of our instructions has landed or is gone, or that its account says so."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
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
from oracle.store.changes import Fact
from oracle.store.rows import RequestRow, SettlementRow
from oracle.store.schema import LedgerKind, SettlementKind, SettlementState

_ENDS: Final = {
    SettlementKind.RECORD: (State.SETTLED, Status.FULFILLED),
    SettlementKind.REJECT: (State.REJECTED, Status.REJECTED),
    SettlementKind.EXPIRE: (State.EXPIRED, Status.EXPIRED),
}


_AT_ONCE: Final = frozenset({SettlementKind.CLAIM})
_FINAL: Final = frozenset({SettlementKind.CLAIM, SettlementKind.RECORD, SettlementKind.CLOSE})
"""Of what kind is an instruction from which more follows than the end of its request: as soon as it has landed, and
once that is final."""


@dataclass(frozen=True, slots=True)
class Landing:
    """An instruction that has taken effect at `slot`; until it is finalized a fork may still undo it."""

    settlement: SettlementRow
    slot: int
    finalized: bool
    now_ms: int


def landed(c: Connection, context: Context, landings: Sequence[Landing]) -> None:
    """Bring intents and their requests to where the chain has them, in the order given."""
    together: dict[int, Landing] = {}
    for this in landings:
        if this.settlement.request_id in together:
            # What the one does to the request decides what the other does, such as a claim and the record on it.
            _landed_apart(c, context, list(together.values()))
            together.clear()
        together[this.settlement.request_id] = this
    _landed_apart(c, context, list(together.values()))


def _landed_apart(c: Connection, context: Context, landings: Sequence[Landing]) -> None:
    """Landings of as many requests."""
    for finalized, state in ((False, SettlementState.LANDED), (True, SettlementState.FINALIZED)):
        if these := [this for this in landings if this.finalized is finalized]:
            ids = [this.settlement.id for this in these]
            settlements.resolve_all(c, ids, state, now_ms=these[0].now_ms)
    consequential = [this for this in landings if this.settlement.kind in (_FINAL if this.finalized else _AT_ONCE)]
    rows = requests.by_ids(c, {this.settlement.request_id for this in consequential})
    settled = [this for this in landings if this.settlement.kind in _ENDS]
    requests.force_all(c, [_fact(this) for this in settled])
    # Beside the move: it may have landed before, in another slot of another fork.
    requests.amend_all(c, {this.settlement.request_id: _end(this) for this in settled})
    for this in consequential:
        row = rows[this.settlement.request_id]
        match this.settlement.kind:
            case SettlementKind.RECORD:
                earned(c, this, row)
                publish(c, this.settlement, row, now_ms=this.now_ms)
            case SettlementKind.CLAIM:
                dear = row.fee_lamports > context.config.policy.finalize_claims_above_lamports
                if row.state is State.CLAIMING and (this.finalized or not dear):
                    claimed(c, row, slot=this.slot, now_ms=this.now_ms)
            case SettlementKind.CLOSE:
                requests.amend(c, row.id, closed=True)


def _fact(this: Landing) -> Fact:
    end, _ = _ENDS[this.settlement.kind]
    return Fact(this.settlement.request_id, end, this.now_ms, this.slot, event=this.settlement.kind.value)


def _end(this: Landing) -> dict[str, int | bool]:
    _, status = _ENDS[this.settlement.kind]
    end: dict[str, int | bool] = {"ended_slot": this.slot, "chain_status": int(status)}
    return end | ({"end_finalized": True} if this.finalized else {})


def earned(c: Connection, this: Landing, row: RequestRow) -> None:
    ledger.book(
        c,
        LedgerKind.FEE_EARNED,
        row.fee_lamports,
        now_ms=this.now_ms,
        request_id=row.id,
        settlement_id=this.settlement.id,
        requester=row.requester,
    )


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
        reopened(c, row, slot=None, now_ms=now_ms)


def open_after_all(c: Connection, row: RequestRow, header: Header, *, slot: int, now_ms: int) -> RequestRow | None:
    """A finalized read at `slot` shows a request open whose end was seen before: a fork has undone the end."""
    is_undone = header.status.is_open and row.state in ENDED and row.ended_slot is not None and row.ended_slot <= slot
    return reopened(c, row, slot=slot, now_ms=now_ms) if is_undone else None


def reopened(c: Connection, row: RequestRow, *, slot: int | None, now_ms: int) -> RequestRow | None:
    """Back to work with what is at hand: nothing is bought twice because a fork came between."""
    if (live := settlements.live_of(c, row.id)) is not None:
        state = State.CLAIMING if live.kind is SettlementKind.CLAIM else State.SETTLING
    elif row.output_sha256 is not None:
        state = State.COMPUTED
    elif row.reject_reason is not None:
        state = State.REFUSED
    else:
        state = State.SEEN
    return requests.force(
        c,
        row.id,
        state,
        now_ms=now_ms,
        slot=slot,
        event="undone_by_fork",
        ended_slot=None,
        end_finalized=False,
        chain_status=int(Status.PENDING),
    )


def overtaken(
    c: Connection, context: Context, settlement: SettlementRow, header: Header | None, *, slot: int, now_ms: int
) -> None:
    """A finalized read at `slot` shows that there is nothing left to do for the instruction: the account decides why.

    `header` is None where the account is gone, or lives anew: the request ended, and was closed.
    """
    row = request_of(c, settlement)
    settlements.resolve(
        c, settlement.id, SettlementState.DROPPED, now_ms=now_ms, code=SETTLEMENT_OVERTAKEN.code, detail=None
    )
    if header is None:
        gone(c, row, slot=slot, now_ms=now_ms)
    elif header.status.is_open:
        open_after_all(c, row, header, slot=slot, now_ms=now_ms)
    elif ended(c, context, row, header, now_ms=now_ms) is State.SETTLED and settlement.kind is SettlementKind.RECORD:
        # It says what we meant to write, so an earlier signature of this intent wrote it.
        landed(c, context, [Landing(settlement, header.settled_slot, finalized=True, now_ms=now_ms)])


def gone(c: Connection, row: RequestRow, *, slot: int, now_ms: int) -> None:
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


def ended(c: Connection, context: Context, row: RequestRow, header: Header, *, now_ms: int) -> State:
    """The end that a finalized read shows, whatever was seen of another fork before."""
    fact = intake.ending(row, header, context.signer.public_key, now_ms=now_ms)
    requests.force_all(c, [fact] if fact else [])
    facts = {"ended_slot": header.settled_slot, "chain_status": int(header.status), "end_finalized": True}
    return requests.amend(c, row.id, **facts).state


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
