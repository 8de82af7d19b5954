"""computed | refused -> settling -> sent: packs what waits, simulates, signs, commits the bytes, and sends them.

What becomes of an intent that is refused is told in `pipeline.refusals`; of a signature, in `pipeline.follow`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import structlog
from solders.hash import Hash
from sqlalchemy import Connection

from oracle.chain.program.errors import explain
from oracle.chain.rpc.errors import BEHIND
from oracle.chain.rpc.types import Simulation, TransactionFailure
from oracle.chain.signing.errors import SIGNED_TOO_LATE
from oracle.core.errors import OracleError
from oracle.core.lifecycle import State
from oracle.core.packing import MAX_COMPUTE_UNITS, bisect, pack
from oracle.core.settlement import compute_unit_limit
from oracle.pipeline import worker
from oracle.pipeline.context import Context
from oracle.pipeline.errors import OPERATOR_BROKE, SETTLEMENT_REFUSED, UNEXPECTED
from oracle.pipeline.notes import noted
from oracle.pipeline.refusals import BELL, drop_overdue, give_up, overdue, postpone, refused, times
from oracle.pipeline.transactions import (
    BUDGET_INSTRUCTIONS,
    Member,
    fee_lamports,
    is_of_wallet,
    member_of,
    message_of,
    signed,
    unsigned,
)
from oracle.store import requests, settlements
from oracle.store.changes import Intent, Move, Postponement, Signing
from oracle.store.errors import LEASE_LOST, SIGNATURE_OPEN
from oracle.store.rows import RequestRow, SettlementRow
from oracle.store.schema import SettlementKind

log = structlog.get_logger(__name__)

STATES = (State.COMPUTED, State.REFUSED)
BATCH = 512
PACKS_AT_ONCE = 32
LIVE_ONE_SECONDS = 1.0

# What one member can bring upon a whole pack: then each half is tried, down to the one whose fault it is.
_SOMEBODYS_FAULT = (SETTLEMENT_REFUSED, BEHIND, LEASE_LOST, SIGNATURE_OPEN)


async def prepare(context: Context) -> None:
    """Until the daemon stops: an intent for every request whose outcome is known."""
    while not context.stopping.is_set():
        context.pulse("prepare")
        if not await prepare_turn(context):
            await context.bells.wait(State.COMPUTED, await worker.nap_seconds(context, STATES))


async def prepare_turn(context: Context) -> int:
    """One durable write for all that is due; a row that cannot be written fails alone. How many there were."""
    rows = await worker.take(context, STATES, BATCH)
    if rows:
        await asyncio.gather(*(worker.attempt(context, row, intend) for row in rows))
        context.bells.ring(BELL)
    return len(rows)


async def intend(context: Context, row: RequestRow) -> None:
    now_ms = context.clock.now_ms()
    if row.state is State.COMPUTED:
        kind = SettlementKind.RECORD
        args = {"output_hash": row.output_sha256, "job_hash": row.job_hash, "completed_at": row.completed_at}
    else:
        kind = SettlementKind.REJECT
        args = {"reason": row.reject_reason}

    operator = str(context.signer.public_key)
    intent = Intent(row.id, kind, args, operator, row.deadline_slot, now_ms)
    await context.store.write_together(intend_all, (Move(row, State.SETTLING, now_ms, context.slot()), intent))


def intend_all(c: Connection, wanted: Sequence[tuple[Move, Intent]]) -> list[None]:
    live = settlements.live_of_all(c, [move.row.id for move, _ in wanted])
    # A claim that a fork took back, or an expiry: the answer waits until its fate is known.
    waiting = [move for move, _ in wanted if move.row.id in live]
    wait_ms = int(LIVE_ONE_SECONDS * 1000)
    requests.postpone_all(c, [Postponement(m.row, m.now_ms, m.now_ms + wait_ms, is_failure=False) for m in waiting])
    free = [each for each in wanted if each[0].row.id not in live]
    requests.move_all(c, [move for move, _ in free])
    settlements.intend_all(c, [intent for _, intent in free])
    return [None] * len(wanted)


async def send(context: Context) -> None:
    """Until the daemon stops: every flush window, what waits is packed and sent, several packs at once."""
    gate = asyncio.Semaphore(PACKS_AT_ONCE)
    under_way: set[asyncio.Task[None]] = set()
    try:
        while not context.stopping.is_set():
            context.pulse("send")
            await context.bells.wait(BELL, worker.LONGEST_NAP_SECONDS)
            await asyncio.sleep(context.config.settlement.flush_window_seconds)
            try:
                packs = await gather(context)
            except OracleError as error:
                # The loop must not die of it: packs under way would be cut.
                log.warning("no settlements taken", code=error.code, detail=error.detail)
                continue
            for members in packs:
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

    def take(c: Connection) -> tuple[list[tuple[SettlementRow, RequestRow]], dict[str, int]]:
        taken = settlements.take_pending(
            c, operator=operator, owner=context.instance, now_ms=now_ms, lease_ms=context.lease_ms, limit=BATCH
        )
        rows = requests.by_ids(c, [settlement.request_id for settlement in taken])
        return [(each, rows[each.request_id]) for each in taken], requests.newest_lives(c, rows.values())

    taken, newest = await context.store.write(take)
    if len(taken) == BATCH:
        context.bells.ring(BELL)
    members = {}
    for settlement, request in taken:
        try:
            member = member_of(context, settlement, request)
        except Exception:
            # One intent that makes no instruction must not keep every other from being packed (law 6).
            log.exception("no instruction for a settlement", kind=settlement.kind, request=request.address)
            await noted(context, lambda s=settlement: give_up(context, s, UNEXPECTED, "no instruction"))  # type: ignore[misc]
            continue
        if newest.get(request.address, 0) > request.created_slot:
            # It would land on the other one: what is computed for this one, in a receipt that names this one.
            await noted(context, lambda m=member: refused(context, m, "another request has its address"))  # type: ignore[misc]
        else:
            members[settlement.id] = member
    packs = pack((member.item for member in members.values()), operator)
    return [[members[item.id] for item in items] for items in packs]


async def send_pack(context: Context, members: Sequence[Member]) -> None:
    """Simulate, drop what is refused, send the rest at once. Never raises: an intent that was not sent stays due."""
    left = list(members)
    try:
        while left := await drop_overdue(context, left):
            simulation = await simulate(context, left)
            if simulation.failure is None:
                await sign_and_send(context, left, simulation)
                return
            at = culprit(simulation.failure, left)
            await refused(context, left[at], why(simulation.failure))
            del left[at]
    except OracleError as error:
        if len(left) > 1 and error.error in _SOMEBODYS_FAULT:
            for half in bisect(left):
                await send_pack(context, half)
        else:
            await postpone(context, left, error)
    except Exception:
        log.exception("settlement failed", members=len(left))
        await postpone(context, left, UNEXPECTED("send_pack"))


async def simulate(context: Context, members: Sequence[Member]) -> Simulation:
    """As of a slot at which each request had been seen: an endpoint that is behind would refuse a new one."""
    message = message_of(
        context.signer.public_key,
        [member.instruction for member in members],
        Hash.default(),
        unit_limit=MAX_COMPUTE_UNITS,
        micro_lamports=0,
    )
    seen_slot = max(member.request.chain_slot for member in members)
    wire = bytes(unsigned(message))
    return await context.rpc.simulate_transaction(wire, replace_blockhash=True, min_context_slot=seen_slot)


def why(failure: TransactionFailure) -> str:
    return failure.kind if failure.custom is None else str(explain(failure.custom))


def culprit(failure: TransactionFailure, members: Sequence[Member]) -> int:
    """The position of the member that was refused. Raises where the wallet is at fault, or nobody is named."""
    if failure.instruction is not None and 0 <= failure.instruction - BUDGET_INSTRUCTIONS < len(members):
        return failure.instruction - BUDGET_INSTRUCTIONS
    if is_of_wallet(failure):
        raise OPERATOR_BROKE(failure.kind)
    raise SETTLEMENT_REFUSED(failure.kind)


async def sign_and_send(context: Context, members: Sequence[Member], simulation: Simulation) -> None:
    """The signed bytes are durable before they are sent (law 4); from then on only `follow` may free the members."""
    units = compute_unit_limit(
        simulation.units_consumed or MAX_COMPUTE_UNITS, margin=context.config.settlement.compute_margin
    )
    written = [meta.pubkey for member in members for meta in member.instruction.accounts if meta.is_writable]
    price = await context.fees.price(written, escalation=max(times(m.settlement, "expiries") for m in members))
    # A remote signer may take longer than a blockhash lives, so the blockhash comes after it is ready.
    await context.signer.ready()
    blockhash = await context.blockhashes.get(min_context_slot=simulation.slot)
    members = await drop_overdue(context, members)
    if not members:
        return
    message = message_of(
        context.signer.public_key,
        [member.instruction for member in members],
        blockhash.blockhash,
        unit_limit=units,
        micro_lamports=price,
    )
    transaction = await signed(context.signer, message)
    if late := overdue(context, members):
        # Nobody has seen it, and nobody will: what is thrown away here can never land.
        raise SIGNED_TOO_LATE(f"{len(late)} of {len(members)} members")
    wire, now_ms = bytes(transaction), context.clock.now_ms()
    signature = transaction.signatures[0]
    signing = Signing(
        signature=str(signature),
        wire=wire,
        blockhash=str(blockhash.blockhash),
        last_valid_block_height=blockhash.last_valid_block_height,
        signed_slot=blockhash.slot,
        fee_lamports=fee_lamports(units, price),
        fences={member.settlement.id: member.settlement.fence for member in members},
        now_ms=now_ms,
    )
    signature_id = await context.store.write_together(settlements.record_signatures, signing)
    log.info("settlement sent", signature=str(signature), members=len(members), units=units, price=price)
    try:
        await context.rpc.send_transaction(wire)
    except OracleError as error:
        # It may have gone out or not: `follow` sends the same bytes again until its fate is known.
        log.info("send not acknowledged", signature=str(signature), code=error.code, detail=error.detail)
    await context.store.write_together(settlements.sent_all, (signature_id, context.clock.now_ms()))
    context.bells.ring("signatures")
