"""sent -> confirmed -> finalized: asks after every open signature until its fate is final, and resends meanwhile.

Every signature is judged by `core.settlement.judge`. Only a signature that is proven dead frees its members, and each
member only if a finalized read of its request, not older than the proof, still shows it open (law 2).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import structlog
from solana.rpc.commitment import Finalized
from solders.pubkey import Pubkey
from solders.signature import Signature
from sqlalchemy import Connection

from oracle.chain.rpc.types import Account, AtSlot, SignatureHistory, SignatureStatus
from oracle.core.backoff import backoff_seconds
from oracle.core.errors import OracleError
from oracle.core.lifecycle import State
from oracle.core.settlement import Attempted, Next, Observed, SignatureState, judge, may_sign_again
from oracle.pipeline import effects, purchases
from oracle.pipeline.context import Context
from oracle.pipeline.errors import SETTLEMENT_EXPIRED, SETTLEMENT_FAILED
from oracle.pipeline.refusals import BELL, DUTIES, header_in, is_wanted, times
from oracle.pipeline.transactions import BUDGET_INSTRUCTIONS
from oracle.store import ledger, requests, settlements
from oracle.store.changes import Judgement
from oracle.store.rows import SettlementRow, SignatureRow
from oracle.store.schema import LedgerKind, SettlementKind, SettlementState

log = structlog.get_logger(__name__)

BLOCKHASH_SLOTS = 150
"""Blocks for which a blockhash is valid; skipped slots only make it last longer, so this many slots come first."""

OUTLIVED = "no history"
"""Kept with a signature of which only the accounts could tell: it is dead, and whether it paid its fee is not known."""

SENDS_AT_ONCE = 16
MAX_FAILURES = 4
"""A failure on chain costs a fee: so many are paid for one intent, and then its request waits for a person."""


async def run(context: Context) -> None:
    """Until the daemon stops."""
    while not context.stopping.is_set():
        context.pulse("follow")
        try:
            busy = await turn(context)
        except OracleError as error:
            log.warning("signatures not followed", code=error.code, detail=error.detail)
            busy = True
        if busy:
            # Never at once after a ring: statuses are asked in bulk, at a steady rate.
            await context.bells.wait("follow", context.config.settlement.poll_interval_seconds)
        else:
            await context.bells.wait("signatures", 1.0)


async def turn(context: Context) -> bool:
    """One look at every open signature; whether there was any. What fails for one does not keep the others waiting."""
    operator = str(context.signer.public_key)
    rows = await context.store.read(lambda c: settlements.open_signatures(c, operator))
    if not rows:
        return False
    statuses = await context.rpc.get_signature_statuses([Signature.from_string(row.signature) for row in rows])
    found = list(zip(rows, statuses.value, strict=True))
    await each((row, decided(context, row, status)) for row, status in found if status is not None)
    missing = [row for row, status in found if status is None]
    await each((row, undone(context, row)) for row in missing if is_on_no_fork(row, statuses.slot))
    gate = asyncio.Semaphore(SENDS_AT_ONCE)
    await each((row, resend(context, row, gate)) for row in missing if is_due(context, row))
    slot = max(context.slot(), statuses.slot)
    await look_for_the_dead(context, [row for row in missing if slot > row.signed_slot + BLOCKHASH_SLOTS])
    return True


def is_on_no_fork(row: SignatureRow, slot: int) -> bool:
    """Whether a node that does not know a confirmed signature at `slot` says that its block is gone.

    One that has not come there yet says nothing, and one that is far beyond has forgotten: the history decides then.
    """
    return row.slot is not None and row.slot <= slot <= row.slot + BLOCKHASH_SLOTS


async def each(steps: Iterable[tuple[SignatureRow, Awaitable[None]]]) -> None:
    """All at once, so that their writes share a commit; each one's failure is its own (law 6)."""

    async def guarded(row: SignatureRow, step: Awaitable[None]) -> None:
        try:
            await step
        except OracleError as error:
            log.warning("signature not followed", signature=row.signature, code=error.code, detail=error.detail)
        except Exception:
            log.exception("signature not followed", signature=row.signature)

    await asyncio.gather(*(guarded(row, step) for row, step in steps))


async def decided(context: Context, row: SignatureRow, status: SignatureStatus) -> None:
    """A cluster that knows the signature needs no proof of absence."""
    match judge(_attempted(row), present(status)):
        case Next.SHOW if (row.state, row.slot) != (SignatureState.CONFIRMED, status.slot):
            await landed(context, row, status.slot, finalized=False)
        case Next.DONE:
            await landed(context, row, status.slot, finalized=True)
        case Next.FAILED:
            await free(context, row, SignatureState.FAILED, status, proof_slot=status.slot)
        case Next.WAIT if status.failure is not None:
            await undone(context, row)


async def landed(context: Context, row: SignatureRow, slot: int, *, finalized: bool) -> None:
    this = Landed(context, row, slot, finalized, context.clock.now_ms())
    log.info("settlement " + this.state, signature=row.signature, slot=slot)
    await context.store.write_together(landed_all, this)
    context.bells.ring(BELL, "ended", State.ADMITTED, State.COMPUTED, purchases.BELL)


@dataclass(frozen=True, slots=True)
class Landed:
    """A signature that the cluster knows to have succeeded."""

    context: Context
    row: SignatureRow
    slot: int
    finalized: bool
    now_ms: int

    @property
    def state(self) -> SignatureState:
        return SignatureState.FINALIZED if self.finalized else SignatureState.CONFIRMED


def landed_all(c: Connection, found: Sequence[Landed]) -> list[None]:
    """Signatures whose fate is open still, and what their members have brought about."""
    states = settlements.hold_signatures(c, [this.row.id for this in found])
    left = [this for this in found if states[this.row.id] in settlements.OPEN_SIGNATURE]
    settlements.mark_signatures(c, [Judgement(this.row.id, this.state, this.slot) for this in left])
    for this in left:
        if this.finalized:
            book_fee(c, this.row, this.now_ms)
    members = settlements.members_of_all(c, [this.row.id for this in left])
    landings = [
        effects.Landing(member, this.slot, this.finalized, this.now_ms)
        for this in left
        for member in members[this.row.id]
    ]
    if left:
        effects.landed(c, left[0].context, landings)
    return [None] * len(found)


async def undone(context: Context, row: SignatureRow) -> None:
    """What was confirmed is gone, or has failed on the fork that came instead: in flight again, and shown no longer."""
    now_ms = context.clock.now_ms()
    if await context.store.write(lambda c: take_back(c, row, now_ms=now_ms)):
        log.warning("confirmed settlement is gone", signature=row.signature)


def take_back(c: Connection, row: SignatureRow, *, now_ms: int) -> bool:
    if held_state(c, row) is not SignatureState.CONFIRMED:
        return False
    settlements.mark_signature(c, row.id, SignatureState.SENT, slot=None, error=None)
    for settlement in settlements.members(c, row.id):
        effects.undone(c, settlement, now_ms=now_ms)
    return True


def is_due(context: Context, row: SignatureRow) -> bool:
    interval_ms = context.config.settlement.resend_interval_seconds * 1000
    # Either way: a clock that was set back must not keep the bytes from going out.
    return row.last_sent_at_ms is None or abs(context.clock.now_ms() - row.last_sent_at_ms) >= interval_ms


async def resend(context: Context, row: SignatureRow, gate: asyncio.Semaphore) -> None:
    """The same bytes may be sent at will."""
    try:
        async with gate:
            await context.rpc.send_transaction(row.wire)
    except OracleError as error:
        log.info("resend not acknowledged", signature=row.signature, code=error.code)
    now_ms = context.clock.now_ms()
    await context.store.write_together(settlements.sent_all, (row.id, now_ms))


async def look_for_the_dead(context: Context, rows: Sequence[SignatureRow]) -> None:
    """Height, statuses with history, and depth of history, in one exchange with one endpoint."""
    if not rows:
        return
    signatures = [Signature.from_string(row.signature) for row in rows]
    history = await context.rpc.pinned().get_signature_history(signatures)

    async def look(row: SignatureRow, status: SignatureStatus | None) -> None:
        if status is not None:
            # It left the cluster's cache of recent statuses before we looked: the history decides.
            await decided(context, row, status)
            return
        match judge(_attempted(row), absent(history)):
            case Next.EXPIRED:
                await free(context, row, SignatureState.EXPIRED, None, proof_slot=history.finalized_slot)
            case Next.OUTLIVED if await is_purchase(context, row):
                # What a job's account would tell may be deleted by now: only a longer history proves it absent.
                log.warning("history too short for a purchase", signature=row.signature, slot=row.signed_slot)
            case Next.OUTLIVED:
                log.warning("history too short for a signature", signature=row.signature, slot=row.signed_slot)
                await free(
                    context, row, SignatureState.EXPIRED, None, proof_slot=history.finalized_slot, error=OUTLIVED
                )

    await each((row, look(row, status)) for row, status in zip(rows, history.statuses, strict=True))


async def free(
    context: Context,
    row: SignatureRow,
    state: SignatureState,
    status: SignatureStatus | None,
    *,
    proof_slot: int,
    error: str | None = None,
) -> None:
    """A dead signature: its members whose requests are still open may be signed for anew, the others are resolved."""

    def addresses_of(c: Connection) -> list[Pubkey]:
        members = settlements.members(c, row.id)
        rows = requests.by_ids(c, [member.request_id for member in members])
        return [Pubkey.from_string(rows[member.request_id].address) for member in members]

    addresses = await context.store.read(addresses_of)
    read = await context.rpc.get_multiple_accounts(addresses, Finalized, min_context_slot=proof_slot)
    failure = status.failure if status else None
    culprit = None if failure is None or failure.instruction is None else failure.instruction - BUDGET_INSTRUCTIONS
    now_ms = context.clock.now_ms()

    def write(c: Connection) -> None:
        if not is_open(c, row):
            return
        take_back(c, row, now_ms=now_ms)
        settlements.mark_signature(
            c, row.id, state, slot=status.slot if status else None, error=failure.raw if failure else error
        )
        if state is SignatureState.FAILED:
            book_fee(c, row, now_ms)
        for position, (member, account) in enumerate(zip(settlements.members(c, row.id), read.value, strict=True)):
            # Where the culprit is not named, each goes alone: one bad instruction must not fail its company twice.
            has_failed = state is SignatureState.FAILED and culprit in (None, position)
            freed(c, context, member, AtSlot(read.slot, account), state, proof_slot, has_failed=has_failed)

    log.warning("settlement dead", signature=row.signature, state=state, members=len(addresses))
    await context.write(write, BELL, "ended", purchases.BELL)


def freed(
    c: Connection,
    context: Context,
    member: SettlementRow,
    read: AtSlot[Account | None],
    state: SignatureState,
    proof_slot: int,
    *,
    has_failed: bool,
) -> None:
    """One member of a dead signature: due again, if its account says that there is still something to be done."""
    now_ms = context.clock.now_ms()
    error = SETTLEMENT_FAILED if state is SignatureState.FAILED else SETTLEMENT_EXPIRED
    if member.kind is SettlementKind.PURCHASE:
        # Nothing was bought, and nothing is signed again: the next attempt of the request is a purchase of its own.
        settlements.resolve(c, member.id, SettlementState.FAILED, now_ms=now_ms, code=error.code)
        return
    row = effects.request_of(c, member)
    header = header_in(read.value, row)
    wanted = header is not None and is_wanted(member, header)
    if not may_sign_again([state], request_is_open=wanted, read_slot=read.slot, proof_slot=proof_slot):
        effects.overtaken(c, context, member, header, slot=read.slot, now_ms=now_ms)
        return
    assert header is not None
    effects.open_after_all(c, row, header, slot=read.slot, now_ms=now_ms)
    if member.state is SettlementState.LANDED:
        # A claim that a fork took back while the settlement that rests on it waits: that one asks for a new claim.
        settlements.resolve(c, member.id, SettlementState.DROPPED, now_ms=now_ms, code=error.code)
        return
    args: dict[str, Any] = dict(member.args)
    wait = 0.0
    if has_failed:
        failures = times(member, "failures") + 1
        if failures > MAX_FAILURES and member.kind not in DUTIES:
            effects.given_up(c, member, error, f"failed {failures} times", slot=read.slot, now_ms=now_ms)
            return
        args |= {"alone": True, "failures": failures}
        wait = backoff_seconds(failures, context.clock.jitter(), most=3_600.0)
    elif state is SignatureState.EXPIRED:
        args["expiries"] = times(member, "expiries") + 1
    settlements.release(c, member, wake_at_ms=now_ms + int(wait * 1000), code=error.code, detail=None, args=args)


async def is_purchase(context: Context, row: SignatureRow) -> bool:
    members = await context.store.read(lambda c: settlements.members(c, row.id))
    return any(member.kind is SettlementKind.PURCHASE for member in members)


def is_open(c: Connection, row: SignatureRow) -> bool:
    """Whether its fate is not final yet: another turn, or another daemon, may have found it out meanwhile."""
    return held_state(c, row) in settlements.OPEN_SIGNATURE


def held_state(c: Connection, row: SignatureRow) -> SignatureState:
    """Its state as it is now, and stays until this transaction ends."""
    return settlements.hold_signatures(c, [row.id])[row.id]


def book_fee(c: Connection, row: SignatureRow, now_ms: int) -> None:
    """A transaction that landed has paid its fee, whether it succeeded or not."""
    ledger.book(c, LedgerKind.TX_FEE, -(row.fee_lamports or 0), now_ms=now_ms, signature_id=row.id)


def present(status: SignatureStatus) -> Observed:
    """A signature that an endpoint knows."""
    return Observed(str(status.commitment), status.failure is not None, None, None, False)


def absent(history: SignatureHistory) -> Observed:
    """One that is missing in a history, which may not reach far enough to prove anything."""
    return Observed(None, False, history.finalized_block_height, history.first_available_slot, searched_history=True)


def _attempted(row: SignatureRow) -> Attempted:
    return Attempted(row.state, row.last_valid_block_height, row.signed_slot)
