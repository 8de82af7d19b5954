"""What becomes of an intent that could not be sent: refused by the program, overdue, or put off by trouble of ours."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import structlog
from solana.rpc.commitment import Finalized
from sqlalchemy import Connection

from oracle.chain.program.layout import decode_header
from oracle.chain.rpc.types import Account
from oracle.core.backoff import backoff_seconds
from oracle.core.errors import ErrorCode, OracleError
from oracle.core.lifecycle import State
from oracle.core.request import Header, Status
from oracle.pipeline import effects
from oracle.pipeline.context import Context
from oracle.pipeline.errors import OVERDUE, SETTLEMENT_REFUSED
from oracle.pipeline.notes import noted
from oracle.pipeline.transactions import Member
from oracle.store import requests, settlements
from oracle.store.rows import RequestRow, SettlementRow
from oracle.store.schema import SettlementKind, SettlementState

log = structlog.get_logger(__name__)

BELL = "settlements"
MAX_REFUSALS = 6
LONGEST_POSTPONEMENT_SECONDS = 10.0

# Never given up: without them a request would not end, nor the money go back (law 7).
DUTIES = (SettlementKind.EXPIRE, SettlementKind.CLOSE)
ON_A_CLAIM = (SettlementKind.RECORD, SettlementKind.REJECT)


def overdue(context: Context, members: Sequence[Member]) -> list[Member]:
    """Those whose deadline is nearer than the margin: a result might land too late to be paid."""
    newest_slot = context.slot() + context.terms().deadline_margin_slots
    return [
        member
        for member in members
        if member.settlement.kind not in DUTIES and newest_slot > member.settlement.deadline_slot
    ]


async def drop_overdue(context: Context, members: Sequence[Member]) -> list[Member]:
    """Nothing is signed within the margin of a deadline."""
    late = overdue(context, members)
    for member in late:
        why = f"slot {context.slot()}, deadline {member.settlement.deadline_slot}"
        await give_up(context, member.settlement, OVERDUE, why)
    return [member for member in members if member not in late] if late else list(members)


async def refused(context: Context, member: Member, why: str) -> None:
    """An instruction that the program would refuse. Only a finalized read can say that the request has ended."""
    settlement, row = member.settlement, member.request
    log.info("settlement refused", kind=settlement.kind, request=row.address, why=why)
    read = await context.rpc.get_account(member.address, Finalized)
    header, slot, now_ms = header_in(read.value, row), read.slot, context.clock.now_ms()
    is_gone = header is None and slot > row.created_slot
    is_claimed = header is not None and is_ours(context, header)

    if is_gone or (header is not None and not is_wanted(settlement, header)):
        await held(
            context, settlement, lambda c: effects.overtaken(c, context, settlement, header, slot=slot, now_ms=now_ms)
        )
        context.bells.ring("ended")
    elif settlement.kind is SettlementKind.CLAIM and is_claimed:
        await held(
            context,
            settlement,
            lambda c: effects.landed(c, context, [effects.Landing(settlement, slot, finalized=True, now_ms=now_ms)]),
        )
        context.bells.ring(State.ADMITTED)
    elif settlement.kind in ON_A_CLAIM and header is not None and header.claim_required and not is_claimed:
        await claim_again(context, settlement, header, why)
    elif settlement.kind not in DUTIES and times(settlement, "refusals") >= MAX_REFUSALS:
        await give_up(context, settlement, SETTLEMENT_REFUSED, why)
    else:
        await wait_out(context, settlement, header, why)


async def claim_again(context: Context, settlement: SettlementRow, header: Header, why: str) -> None:
    """Without our claim there is no settlement: another's came between, a fork took it back, or none was made yet."""
    now_ms = context.clock.now_ms()

    def write(c: Connection) -> bool:
        row = effects.request_of(c, settlement)
        if row.state is not State.SETTLING or has_open_claim(c, row.id):
            return False
        settlements.release(c, settlement, wake_at_ms=now_ms)
        settlements.resolve(
            c, settlement.id, SettlementState.DROPPED, now_ms=now_ms, code=SETTLEMENT_REFUSED.code, detail=why
        )
        requests.force(c, row.id, State.CLAIMING, now_ms=now_ms, slot=context.slot(), event="claim_again", detail=why)
        settlements.intend(
            c,
            request_id=row.id,
            kind=SettlementKind.CLAIM,
            args={},
            operator=settlement.operator,
            deadline_slot=settlement.deadline_slot,
            now_ms=now_ms,
        )
        return True

    if not await context.write(write, BELL):
        await wait_out(context, settlement, header, why)


def has_open_claim(c: Connection, request_id: int) -> bool:
    claims = (each for each in settlements.of(c, request_id) if each.kind is SettlementKind.CLAIM)
    signatures = (signature for claim in claims for signature in settlements.signatures_of(c, claim.id))
    return any(signature.state in settlements.OPEN_SIGNATURE for signature in signatures)


async def wait_out(context: Context, settlement: SettlementRow, header: Header | None, why: str) -> None:
    """Refused though open: another operator's lease lapses by itself, and a lagging endpoint catches up."""
    refusals = times(settlement, "refusals") + 1
    wait = backoff_seconds(refusals, context.clock.jitter())
    if settlement.kind is SettlementKind.CLAIM and header is not None and header.status is Status.CLAIMED:
        wait = max(wait, context.slots.seconds(max(0, header.claim_expires_slot + 1 - context.slot())))
        refusals = 0
    args = {**settlement.args, "refusals": refusals}
    await put_off(context, settlement, wait, SETTLEMENT_REFUSED.code, why, args)


async def give_up(context: Context, settlement: SettlementRow, error: ErrorCode, why: str) -> None:
    now_ms = context.clock.now_ms()
    log.warning("settlement given up", kind=settlement.kind, code=error.code, why=why)
    await held(
        context,
        settlement,
        lambda c: effects.given_up(c, settlement, error, why, slot=context.slot(), now_ms=now_ms),
    )


async def held(context: Context, settlement: SettlementRow, write: Callable[[Connection], None]) -> None:
    """Write about an intent that we hold. Raises ORC-STORE-016 where another has taken, or even sent, it since."""

    def guarded(c: Connection) -> None:
        settlements.release(c, settlement, wake_at_ms=settlement.wake_at_ms)
        write(c)

    await context.store.write(guarded)


async def postpone(context: Context, members: Sequence[Member], error: OracleError) -> None:
    """Due again soon, each by itself: what happened to one of them meanwhile is not the others' affair."""
    log.warning("settlement postponed", code=error.code, detail=error.detail, members=len(members))
    await asyncio.gather(*(noted(context, lambda m=m: put_off_by(context, m, error)) for m in members))  # type: ignore[misc]


async def put_off_by(context: Context, member: Member, error: OracleError) -> None:
    """It is nobody's fault as far as is known, so there is no limit to it; but it is tried more and more rarely."""
    postponed = times(member.settlement, "postponed") + 1
    wait = backoff_seconds(
        postponed, context.clock.jitter(), most=LONGEST_POSTPONEMENT_SECONDS, told=error.retry_after_seconds
    )
    args = {**member.settlement.args, "postponed": postponed}
    await put_off(context, member.settlement, wait, error.code, error.detail, args)


async def put_off(
    context: Context, settlement: SettlementRow, wait: float, code: str, detail: str, args: Mapping[str, Any]
) -> None:
    wake_at_ms = context.clock.now_ms() + int(wait * 1000)
    await context.store.write(
        lambda c: settlements.release(c, settlement, wake_at_ms=wake_at_ms, code=code, detail=detail, args=args)
    )


def times(settlement: SettlementRow, what: str) -> int:
    """How often something has happened to an intent."""
    return int(settlement.args.get(what, 0))


def is_wanted(settlement: SettlementRow, header: Header) -> bool:
    """Whether the instruction can still have its effect on this life of the request."""
    match settlement.kind:
        case SettlementKind.CLOSE:
            return not header.status.is_open
        case SettlementKind.PUBLISH:
            return header.status is Status.FULFILLED and header.output_len == 0
        case _:
            return header.status.is_open


def is_ours(context: Context, header: Header) -> bool:
    return header.status is Status.CLAIMED and header.operator == context.signer.public_key


def header_of(account: Account | None) -> Header | None:
    """The request's header; None where the account is gone, or empty and no longer the program's."""
    return None if account is None or not account.data else decode_header(account.data)


def header_in(account: Account | None, row: RequestRow) -> Header | None:
    """The header of this very request; None where the account is gone, or another request has its address since."""
    header = header_of(account)
    return header if header is not None and header.created_slot == row.created_slot else None
