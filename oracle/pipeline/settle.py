"""computed | refused -> settling -> sent: packs what waits, simulates, signs, commits the bytes, and sends them.

What becomes of a signature is `pipeline.follow`'s affair; whether a second one may be made is `core.settlement`'s.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import structlog
from solders.hash import Hash
from solders.pubkey import Pubkey
from sqlalchemy import Connection

from oracle.chain.program.errors import explain
from oracle.chain.program.layout import decode_header
from oracle.chain.rpc.types import Account, Simulation
from oracle.core.backoff import backoff_seconds
from oracle.core.errors import ErrorCode, OracleError
from oracle.core.lifecycle import State
from oracle.core.packing import MAX_COMPUTE_UNITS, pack
from oracle.core.request import Header
from oracle.core.settlement import compute_unit_limit
from oracle.pipeline import effects, worker
from oracle.pipeline.context import Context
from oracle.pipeline.errors import OPERATOR_BROKE, OVERDUE, SETTLEMENT_REFUSED
from oracle.pipeline.transactions import (
    BUDGET_INSTRUCTIONS,
    Member,
    RequestParties,
    fee_lamports,
    member_of,
    message_of,
    signed,
    unsigned,
)
from oracle.store import requests, settlements
from oracle.store.rows import RequestRow, SettlementRow
from oracle.store.schema import SettlementKind, SettlementState

log = structlog.get_logger(__name__)

STATES = (State.COMPUTED, State.REFUSED)
BELL = "settlements"
BATCH = 512
PACKS_AT_ONCE = 8
MAX_REFUSALS = 6


async def prepare(context: Context) -> None:
    """Until the daemon stops: an intent for every request whose outcome is known."""
    while not context.stopping.is_set():
        context.pulse("prepare")
        rows = await worker.take(context, STATES, BATCH)
        if rows:
            await intend_all(context, rows)
        else:
            await context.bells.wait(State.COMPUTED, await worker.nap_seconds(context, STATES))


async def intend_all(context: Context, rows: Sequence[RequestRow]) -> None:
    """One durable write for all of them; a row that cannot be written alone fails alone."""

    async def one(row: RequestRow) -> None:
        await worker.attempt(context, row, intend)

    await asyncio.gather(*(one(row) for row in rows))
    context.bells.ring(BELL)


async def intend(context: Context, row: RequestRow) -> None:
    now_ms = context.clock.now_ms()
    if row.state is State.COMPUTED:
        kind = SettlementKind.RECORD
        args = {"output_hash": row.output_sha256, "job_hash": row.job_hash, "completed_at": row.completed_at}
    else:
        kind = SettlementKind.REJECT
        args = {"reason": row.reject_reason}

    def write(c: Connection) -> None:
        requests.move(c, row, State.SETTLING, now_ms=now_ms, slot=context.slot())
        settlements.intend(
            c,
            request_id=row.id,
            kind=kind,
            args=args,
            operator=str(context.signer.public_key),
            deadline_slot=row.deadline_slot,
            now_ms=now_ms,
        )

    await context.store.write(write)


async def send(context: Context) -> None:
    """Until the daemon stops: every flush window, what waits is packed and sent, several packs at once."""
    gate = asyncio.Semaphore(PACKS_AT_ONCE)
    under_way: set[asyncio.Task[None]] = set()
    try:
        while not context.stopping.is_set():
            context.pulse("send")
            await context.bells.wait(BELL, worker.LONGEST_NAP_SECONDS)
            await asyncio.sleep(context.config.settlement.flush_window_seconds)
            for members in await gather(context):
                await gate.acquire()
                task = asyncio.create_task(send_pack(context, members))
                under_way.add(task)
                task.add_done_callback(under_way.discard)
                task.add_done_callback(lambda _: gate.release())
        if under_way:
            await asyncio.wait(under_way)
    finally:
        for task in under_way:
            task.cancel()


async def gather(context: Context) -> list[list[Member]]:
    """The intents that are due, as packs: most urgent first."""
    now_ms = context.clock.now_ms()
    operator = str(context.signer.public_key)

    def take(c: Connection) -> list[tuple[SettlementRow, RequestRow]]:
        taken = settlements.take_pending(
            c, operator=operator, owner=context.instance, now_ms=now_ms, lease_ms=context.lease_ms, limit=BATCH
        )
        rows = requests.by_ids(c, [settlement.request_id for settlement in taken])
        return [(settlement, rows[settlement.request_id]) for settlement in taken]

    taken = await context.store.write(take)
    if len(taken) == BATCH:
        context.bells.ring(BELL)
    members = {}
    for settlement, row in taken:
        parties = RequestParties(Pubkey.from_string(row.address), row.queue, Pubkey.from_string(row.refund_to))
        members[settlement.id] = member_of(context, settlement, parties)
    packs = pack((member.item for member in members.values()), str(context.signer.public_key))
    return [[members[item.id] for item in items] for items in packs]


async def send_pack(context: Context, members: list[Member]) -> None:
    """Simulate, drop what is refused, send the rest at once. Never raises: an intent that was not sent stays due."""
    try:
        while members:
            members = await drop_overdue(context, members)
            if not members:
                return
            simulation = await simulate(context, members)
            if simulation.failure is None:
                await sign_and_send(context, members, simulation)
                return
            culprit = (simulation.failure.instruction or 0) - BUDGET_INSTRUCTIONS
            if simulation.failure.instruction is None or not 0 <= culprit < len(members):
                raise OPERATOR_BROKE(simulation.failure.kind)
            await refused(context, members.pop(culprit), simulation)
    except OracleError as error:
        log.warning("settlement postponed", code=error.code, detail=error.detail, members=len(members))
        await postpone(context, members, error)
    except Exception:
        log.exception("settlement failed", members=len(members))


async def drop_overdue(context: Context, members: list[Member]) -> list[Member]:
    """Nothing is signed within the margin of a deadline, where a result might land too late to be paid."""
    slot, margin = context.slot(), context.terms().deadline_margin_slots
    late = [m for m in members if _has_deadline(m.settlement) and slot + margin > m.settlement.deadline_slot]
    for member in late:
        await give_up(context, member, OVERDUE, f"slot {slot}, deadline {member.settlement.deadline_slot}")
    return [m for m in members if m not in late]


def _has_deadline(settlement: SettlementRow) -> bool:
    return settlement.kind in (SettlementKind.CLAIM, SettlementKind.RECORD, SettlementKind.REJECT)


async def simulate(context: Context, members: Sequence[Member]) -> Simulation:
    message = message_of(
        context.signer.public_key,
        [member.instruction for member in members],
        Hash.default(),
        unit_limit=MAX_COMPUTE_UNITS,
        micro_lamports=0,
    )
    return await context.rpc.simulate_transaction(bytes(unsigned(message)), replace_blockhash=True)


async def sign_and_send(context: Context, members: Sequence[Member], simulation: Simulation) -> None:
    """The signed bytes are durable before they are sent (law 4); from then on only `follow` may free the members."""
    units = compute_unit_limit(
        simulation.units_consumed or MAX_COMPUTE_UNITS, margin=context.config.settlement.compute_margin
    )
    price = await context.fees.price()
    # A remote signer may take longer than a blockhash lives, so the blockhash comes after it is ready.
    await context.signer.ready()
    blockhash = await context.rpc.get_latest_blockhash()
    message = message_of(
        context.signer.public_key,
        [member.instruction for member in members],
        blockhash.blockhash,
        unit_limit=units,
        micro_lamports=price,
    )
    transaction = await signed(context.signer, message)
    wire, now_ms = bytes(transaction), context.clock.now_ms()
    signature = transaction.signatures[0]
    row = await context.store.write(
        lambda c: settlements.record_signature(
            c,
            signature=str(signature),
            wire=wire,
            blockhash=str(blockhash.blockhash),
            last_valid_block_height=blockhash.last_valid_block_height,
            signed_slot=blockhash.slot,
            fee_lamports=fee_lamports(units, price),
            settlement_ids=[member.settlement.id for member in members],
            fences={member.settlement.id: member.settlement.fence for member in members},
            now_ms=now_ms,
        )
    )
    log.info("settlement sent", signature=str(signature), members=len(members), units=units, price=price)
    try:
        await context.rpc.send_transaction(wire)
    except OracleError as error:
        # It may have gone out or not: `follow` sends the same bytes again until its fate is known.
        log.info("send not acknowledged", signature=str(signature), code=error.code, detail=error.detail)
    await context.write(lambda c: settlements.sent(c, row.id, context.clock.now_ms()), "signatures")


async def refused(context: Context, member: Member, simulation: Simulation) -> None:
    """An instruction that the program would refuse: the account says whether the request has ended."""
    failure = simulation.failure
    assert failure is not None
    why = failure.kind if failure.custom is None else str(explain(failure.custom))
    address = member.instruction.accounts[0].pubkey
    read = await context.rpc.get_account(address, min_context_slot=simulation.slot)
    header = header_of(read.value)
    if header is None or not header.status.is_open or member.settlement.kind is SettlementKind.CLOSE:
        now_ms = context.clock.now_ms()
        log.info("settlement overtaken", kind=member.settlement.kind, request=str(address), why=why)
        await context.write(lambda c: effects.overtaken(c, context, member.settlement, header, now_ms), "ended")
    elif int(member.settlement.args.get("refusals", 0)) >= MAX_REFUSALS:
        await give_up(context, member, SETTLEMENT_REFUSED, why)
    else:
        await wait_out(context, member, header, why)


async def wait_out(context: Context, member: Member, header: Header, why: str) -> None:
    """Refused though open: another operator's lease lapses by itself, and a lagging endpoint catches up."""
    refusals = int(member.settlement.args.get("refusals", 0)) + 1
    wait = backoff_seconds(refusals, context.clock.jitter())
    if member.settlement.kind is SettlementKind.CLAIM and header.operator != context.signer.public_key:
        wait = max(wait, context.slots.seconds(max(0, header.claim_expires_slot + 1 - context.slot())))
        refusals = 0
    log.info("settlement refused", kind=member.settlement.kind, why=why, in_seconds=round(wait, 1))
    now_ms = context.clock.now_ms()
    await context.store.write(
        lambda c: settlements.release(
            c,
            member.settlement,
            wake_at_ms=now_ms + int(wait * 1000),
            code=SETTLEMENT_REFUSED.code,
            detail=why,
            args={**member.settlement.args, "refusals": refusals},
        )
    )


async def give_up(context: Context, member: Member, error: ErrorCode, why: str) -> None:
    """The intent fails, and the row waits for a person, or for its deadline."""
    now_ms = context.clock.now_ms()
    settlement = member.settlement
    log.warning("settlement given up", kind=settlement.kind, code=error.code, why=why)

    def write(c: Connection) -> None:
        settlements.resolve(c, settlement.id, SettlementState.FAILED, now_ms=now_ms, code=error.code, detail=why)
        row = requests.by_id(c, settlement.request_id)
        if row is not None and row.state in (State.SETTLING, State.CLAIMING):
            requests.force(
                c, row.id, State.PARKED, now_ms=now_ms, slot=context.slot(), event="parked", code=error.code, detail=why
            )

    await context.store.write(write)


async def postpone(context: Context, members: Sequence[Member], error: OracleError) -> None:
    now_ms = context.clock.now_ms()
    wait = backoff_seconds(1, context.clock.jitter(), told=error.retry_after_seconds)

    def write(c: Connection) -> None:
        for member in members:
            settlements.release(
                c,
                member.settlement,
                wake_at_ms=now_ms + int(wait * 1000),
                code=error.code,
                detail=error.detail,
            )

    try:
        await context.store.write(write)
    except OracleError as lost:
        log.warning("could not postpone settlements", code=lost.code, detail=lost.detail)


def header_of(account: Account | None) -> Header | None:
    """The request's header; None where the account is gone, or empty and no longer the program's."""
    return None if account is None or not account.data else decode_header(account.data)
