"""sent -> confirmed -> finalized: asks after every open signature until its fate is final, and resends meanwhile.

Every signature is judged by `core.settlement.judge`. Only a signature that is proven dead frees its members, and each
member only if a finalized read of its request, not older than the proof, still shows it open (law 2).
"""

from __future__ import annotations

from collections.abc import Sequence

import structlog
from solana.rpc.commitment import Finalized
from solders.pubkey import Pubkey
from solders.signature import Signature
from sqlalchemy import Connection

from oracle.chain.rpc.types import Account, AtSlot, SignatureStatus
from oracle.core.errors import ErrorCode, OracleError
from oracle.core.settlement import Attempted, Next, Observed, SignatureState, judge
from oracle.pipeline import effects
from oracle.pipeline.context import Context
from oracle.pipeline.errors import SETTLEMENT_EXPIRED, SETTLEMENT_FAILED
from oracle.pipeline.settle import BELL, header_of
from oracle.pipeline.transactions import BUDGET_INSTRUCTIONS
from oracle.store import ledger, requests, settlements
from oracle.store.rows import RequestRow, SettlementRow, SignatureRow
from oracle.store.schema import LedgerKind

log = structlog.get_logger(__name__)

BLOCKHASH_SLOTS = 150
"""Blocks for which a blockhash is valid; skipped slots only make it last longer, so this many slots come first."""


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
    """One look at every open signature; whether there was any."""
    operator = str(context.signer.public_key)
    rows = await context.store.read(lambda c: settlements.open_signatures(c, operator))
    if not rows:
        return False
    signatures = [Signature.from_string(row.signature) for row in rows]
    statuses = await context.rpc.get_signature_statuses(signatures)
    missing = []
    for row, status in zip(rows, statuses.value, strict=True):
        if status is None:
            missing.append(row)
        else:
            await decided(context, row, status)
    await resend(context, missing)
    await look_for_the_dead(context, [row for row in missing if _may_be_dead(context, row)])
    return True


async def decided(context: Context, row: SignatureRow, status: SignatureStatus) -> None:
    """A cluster that knows the signature needs no proof of absence."""
    observed = Observed(str(status.commitment), status.failure is not None, None, None, False)
    match judge(_attempted(row), observed):
        case Next.SHOW if row.state is not SignatureState.CONFIRMED:
            await landed(context, row, status.slot, finalized=False)
        case Next.DONE:
            await landed(context, row, status.slot, finalized=True)
        case Next.FAILED:
            assert status.failure is not None
            proof = await context.rpc.get_slot(Finalized, min_context_slot=status.slot)
            await free(context, row, SignatureState.FAILED, status, proof)


async def landed(context: Context, row: SignatureRow, slot: int, *, finalized: bool) -> None:
    now_ms = context.clock.now_ms()
    state = SignatureState.FINALIZED if finalized else SignatureState.CONFIRMED

    def write(c: Connection) -> None:
        settlements.mark_signature(c, row.id, state, slot=slot, error=None)
        for settlement in settlements.members(c, row.id):
            effects.landed(c, context, settlement, slot=slot, finalized=finalized, now_ms=now_ms)
        if finalized:
            book_fee(c, row, now_ms)

    log.info("settlement " + state, signature=row.signature, slot=slot)
    await context.write(write, "ended", "claimed")
    context.bells.ring("admitted")


async def resend(context: Context, rows: Sequence[SignatureRow]) -> None:
    """The same bytes may be sent at will; a confirmed one that is gone was on a fork, and is in flight again."""
    interval_ms = context.config.settlement.resend_interval_seconds * 1000
    for row in rows:
        now_ms = context.clock.now_ms()
        if row.state is SignatureState.CONFIRMED:
            await undone(context, row, now_ms)
        elif row.last_sent_at_ms is not None and now_ms - row.last_sent_at_ms < interval_ms:
            continue
        try:
            await context.rpc.send_transaction(row.wire)
        except OracleError as error:
            log.info("resend not acknowledged", signature=row.signature, code=error.code)
        await context.store.write(lambda c, row=row, now_ms=now_ms: settlements.sent(c, row.id, now_ms))  # type: ignore[misc]


async def undone(context: Context, row: SignatureRow, now_ms: int) -> None:
    log.warning("confirmed settlement is gone", signature=row.signature)

    def write(c: Connection) -> None:
        settlements.mark_signature(c, row.id, SignatureState.SENT, slot=None, error=None)
        for settlement in settlements.members(c, row.id):
            effects.undone(c, settlement, now_ms=now_ms)

    await context.store.write(write)


def _may_be_dead(context: Context, row: SignatureRow) -> bool:
    """Cheap: spares the proof while the blockhash certainly lives."""
    return context.slot() > row.signed_slot + BLOCKHASH_SLOTS


async def look_for_the_dead(context: Context, rows: Sequence[SignatureRow]) -> None:
    """Height, statuses with history, and depth of history, in one exchange with one endpoint."""
    if not rows:
        return
    signatures = [Signature.from_string(row.signature) for row in rows]
    history = await context.rpc.pinned().get_signature_history(signatures)
    for row, status in zip(rows, history.statuses, strict=True):
        if status is not None:
            # It left the cluster's cache of recent statuses before we looked: the history decides.
            await decided(context, row, status)
            continue
        observed = Observed(
            None, False, history.finalized_block_height, history.first_available_slot, searched_history=True
        )
        if judge(_attempted(row), observed) is Next.EXPIRED:
            await free(context, row, SignatureState.EXPIRED, None, history.finalized_slot)


async def free(
    context: Context, row: SignatureRow, state: SignatureState, status: SignatureStatus | None, proof_slot: int
) -> None:
    """A dead signature: its members whose requests are still open may be signed for anew, the others are resolved."""
    members = await context.store.read(lambda c: settlements.members(c, row.id))
    rows = await context.store.read(lambda c: requests.by_ids(c, [member.request_id for member in members]))
    addresses = [Pubkey.from_string(rows[member.request_id].address) for member in members]
    read = await context.rpc.get_multiple_accounts(addresses, Finalized, min_context_slot=proof_slot)
    error = SETTLEMENT_EXPIRED if state is SignatureState.EXPIRED else SETTLEMENT_FAILED
    failure = status.failure if status else None
    culprit = None if failure is None or failure.instruction is None else failure.instruction - BUDGET_INSTRUCTIONS
    now_ms = context.clock.now_ms()

    def write(c: Connection) -> None:
        settlements.mark_signature(
            c, row.id, state, slot=status.slot if status else None, error=failure.raw if failure else None
        )
        if state is SignatureState.FAILED:
            book_fee(c, row, now_ms)
        for position, member in enumerate(members):
            # Where the culprit is not named, each goes alone: one bad instruction must not fail its company twice.
            alone = state is SignatureState.FAILED and culprit in (None, position)
            freed(c, context, member, rows[member.request_id], read, position, error, alone=alone, now_ms=now_ms)

    log.warning("settlement dead", signature=row.signature, code=error.code, members=len(members))
    await context.write(write, BELL, "ended")


def freed(
    c: Connection,
    context: Context,
    member: SettlementRow,
    row: RequestRow,
    read: AtSlot[list[Account | None]],
    position: int,
    error: ErrorCode,
    *,
    alone: bool,
    now_ms: int,
) -> None:
    header = header_of(read.value[position])
    is_same = header is not None and header.created_slot == row.created_slot
    wanted = is_same and header is not None and (header.status.is_open or member.kind == "close")
    if not wanted:
        effects.overtaken(c, context, member, header, now_ms)
        return
    args = {**member.args, "alone": True} if alone else dict(member.args)
    settlements.release(c, member, wake_at_ms=now_ms, code=error.code, detail=None, args=args)


def book_fee(c: Connection, row: SignatureRow, now_ms: int) -> None:
    """A transaction that landed has paid its fee, whether it succeeded or not."""
    ledger.book(c, LedgerKind.TX_FEE, -(row.fee_lamports or 0), now_ms=now_ms, signature_id=row.id)


def _attempted(row: SignatureRow) -> Attempted:
    return Attempted(row.state, row.last_valid_block_height, row.signed_slot)
