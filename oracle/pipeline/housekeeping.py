"""Brings every request to its end (law 7): finality of ends, expiry and closing of the overdue, orphaned jobs."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

import structlog
from solana.rpc.commitment import Finalized
from solders.pubkey import Pubkey
from sqlalchemy import Connection

from oracle.chain.rpc.types import Account
from oracle.core.compute import (
    Absent,
    CannotTell,
    Compute,
    Found,
    IdempotencyKey,
    JobHandle,
    Lingering,
    Recovery,
    let_go,
)
from oracle.core.errors import OracleError
from oracle.core.lifecycle import ENDED
from oracle.core.policy import OVERTAKEN
from oracle.pipeline import effects
from oracle.pipeline.context import Context
from oracle.pipeline.errors import ENDED_BY_ANOTHER
from oracle.pipeline.poll import handle_of
from oracle.pipeline.refusals import BELL, header_in
from oracle.pipeline.submit import CALL_SECONDS
from oracle.pipeline.transactions import NO_DEADLINE
from oracle.store import attempts, duties, results, settlements
from oracle.store.errors import SETTLEMENT_EXISTS
from oracle.store.rows import AttemptRow, GatewayJobRow, RequestRow
from oracle.store.schema import AttemptState, SettlementKind

log = structlog.get_logger(__name__)

TURN_SECONDS = 2.0
BATCH = 500
PRUNE_SECONDS = 3_600.0
LINGERING_MS = 3_600_000
"""How long ago a job may have answered to be let go of at a start: long after that its own limit has ended it."""


async def run(context: Context) -> None:
    """Until the daemon stops: one look at each duty; none keeps another from its turn."""
    pruned_at = context.clock.monotonic()
    await tried(context, let_go_of_ended)
    all_duties: list[Callable[[Context], Awaitable[None]]] = [cancel_orphans, finalize_ends]
    if context.config.daemon.expire_overdue:
        all_duties.append(expire_overdue)
    if context.config.daemon.close_ended:
        all_duties.append(close_ended)
    while not context.stopping.is_set():
        context.pulse("housekeeping")
        for duty in all_duties:
            await tried(context, duty)
        if context.clock.monotonic() - pruned_at > PRUNE_SECONDS:
            pruned_at = context.clock.monotonic()
            await tried(context, prune)
        await context.bells.wait("ended", TURN_SECONDS)
        # Ends come in bursts: what a burst rings for is done in one look.
        await asyncio.sleep(0.1)


async def tried(context: Context, duty: Callable[[Context], Awaitable[None]]) -> None:
    try:
        await duty(context)
    except OracleError as error:
        log.warning("duty postponed", duty=duty.__name__, code=error.code, detail=error.detail)
    except Exception:
        log.exception("duty failed", duty=duty.__name__)


async def expire_overdue(context: Context) -> None:
    """Anyone may expire; the daemon does it for its queues, whatever kept it from answering in time."""
    await intend(context, SettlementKind.EXPIRE, duties.overdue)


async def close_ended(context: Context) -> None:
    """After its retention anyone may close: fee and rent go back to the payer, whoever pays for the transaction."""
    await intend(context, SettlementKind.CLOSE, duties.closable)


class _Find(Protocol):
    def __call__(self, conn: Connection, *, operator: str, slot: int, limit: int) -> Sequence[RequestRow]: ...


async def intend(context: Context, kind: SettlementKind, find: _Find) -> None:
    """An intent for every request that `find` finds, in the transaction that found it."""
    slot, now_ms, operator = context.slot(), context.clock.now_ms(), context.operator

    def write(c: Connection) -> int:
        rows = find(c, operator=operator, slot=slot, limit=BATCH)
        made = 0
        for row in rows:
            try:
                settlements.intend(
                    c,
                    request_id=row.id,
                    kind=kind,
                    args={},
                    operator=operator,
                    deadline_slot=NO_DEADLINE,
                    now_ms=now_ms,
                )
            except OracleError as error:
                # Another daemon of our key has just done the same.
                if error.error is not SETTLEMENT_EXISTS:
                    raise
            else:
                made += 1
        return made

    if await context.store.write(write):
        context.bells.ring(BELL)


async def finalize_ends(context: Context) -> None:
    """An end that was seen at `confirmed` is final when a finalized read shows it; a fork may have undone it."""
    rows = await context.store.read(lambda c: duties.unfinalized(c, operator=context.operator, limit=BATCH))
    if not rows:
        return
    addresses = [Pubkey.from_string(row.address) for row in rows]
    read = await context.rpc.get_multiple_accounts(addresses, Finalized)
    now_ms = context.clock.now_ms()

    def write(c: Connection) -> list[RequestRow]:
        undone = []
        for row, account in zip(rows, read.value, strict=True):
            if row.ended_slot is not None and read.slot >= row.ended_slot:
                moved = judge_end(c, context, row, account, read.slot, now_ms)
                undone += [moved] if moved else []
        return undone

    for row in await context.store.write(write):
        log.warning("end undone by a fork", request=row.address, state=row.state)
        context.bells.ring(row.state)


def judge_end(
    c: Connection, context: Context, row: RequestRow, account: Account | None, slot: int, now_ms: int
) -> RequestRow | None:
    """Mark the end final, as the chain has it now, or take the row back to work where the chain knows of none."""
    if settlements.is_under_way(c, row.id):
        # Ours: its signature is followed to its fate, and takes the row along.
        return None
    header = header_in(account, row)
    if header is None:
        effects.gone(c, row, slot=slot, now_ms=now_ms)
    elif header.status.is_open:
        return effects.open_after_all(c, row, header, slot=slot, now_ms=now_ms)
    else:
        effects.ended(c, context, row, header, now_ms=now_ms)
    return None


async def let_go_of_ended(context: Context) -> None:
    """A process that dies as soon as an answer is durable, or refused, leaves the job running where jobs linger."""
    names = [name for name, provider in context.providers.items() if isinstance(provider, Lingering)]
    since_ms = context.clock.now_ms() - LINGERING_MS
    for name in names:
        for attempt in await context.store.read(
            lambda c, name=name: attempts.ended_since(c, name, since_ms, limit=BATCH)  # type: ignore[misc]
        ):
            let_go(context.providers[name], handle_of(attempt))


async def cancel_orphans(context: Context) -> None:
    """A job whose request was ended by another's hand: cancelled, and its cost booked (law 7)."""
    orphans = await context.store.read(lambda c: duties.orphans(c, operator=context.operator, limit=BATCH))
    await asyncio.gather(*(cancel(context, row, attempt) for row, attempt in orphans))


async def cancel(context: Context, row: RequestRow, attempt: AttemptRow) -> None:
    provider = context.providers.get(attempt.provider)
    if provider is None:
        return
    try:
        async with asyncio.timeout(CALL_SECONDS):
            handle = await handle_to_cancel(context, provider, attempt)
            if isinstance(handle, JobHandle):
                await provider.cancel(handle)
    except (OracleError, TimeoutError) as error:
        log.warning("job not cancelled yet", request=row.address, provider=attempt.provider, error=str(error))
        return
    if isinstance(handle, CannotTell):
        return
    now_ms = context.clock.now_ms()
    why = ENDED_BY_ANOTHER if row.state in ENDED else OVERTAKEN
    log.info("job cancelled", request=row.address, provider=attempt.provider, job=attempt.job_id)
    await context.store.write(
        lambda c: attempts.finish(
            c,
            attempt.id,
            AttemptState.CANCELLED,
            cost_lamports=0 if handle == Absent() else None,
            error_code=why.code,
            error_detail=row.state,
            now_ms=now_ms,
        )
    )


async def handle_to_cancel(
    context: Context, provider: Compute, attempt: AttemptRow | GatewayJobRow
) -> JobHandle | Absent | CannotTell | None:
    """The job of an attempt, which may have been bought without our hearing of it; None where it must be let go."""
    if attempt.job_id is not None:
        return handle_of(attempt)
    if context.clock.now_ms() - attempt.intended_at_ms < CALL_SECONDS * 1000:
        # The purchase may be in its call at this moment: its own answer comes first.
        return CannotTell("the call may still be under way")
    found = await provider.find(IdempotencyKey(attempt.idempotency_key))
    match found:
        case Found(handle):
            return handle
        case CannotTell() if provider.capabilities.recovery is Recovery.LOOK_UP:
            return found
        case CannotTell():
            return None
        case Absent():
            return found


async def prune(context: Context) -> None:
    """Outputs and receipts are served for their documented period, and then forgotten; the chain keeps the hashes."""
    older_than_ms = context.clock.now_ms() - int(context.config.api.retention_days * 86_400_000)
    await context.store.write(lambda c: results.prune(c, older_than_ms))
