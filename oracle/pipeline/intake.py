"""Writes a row for every request that the watcher sights, and ends the rows of those that the chain has ended.

The row is the memory (law 1): once `see` has committed, a request is followed to its end whatever happens here.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping

import structlog
from solders.pubkey import Pubkey
from sqlalchemy import Connection

from oracle.chain.program.layout import decode_request
from oracle.chain.watcher import Known, Sighting, Vanished
from oracle.core.errors import OracleError
from oracle.core.lifecycle import State, end_of
from oracle.core.request import Header, Request, Status
from oracle.pipeline.context import Context
from oracle.pipeline.errors import ACCOUNT_MALFORMED, ENDED_BY_ANOTHER
from oracle.store import journal, requests, settlements
from oracle.store.rows import RequestRow

log = structlog.get_logger(__name__)

AT_ONCE = 256


async def run(context: Context, sightings: AsyncIterator[Sighting | Vanished]) -> None:
    """Until the daemon stops. Many sightings are in flight at once, so that a burst costs few commits.

    Their order does not matter: a row keeps what the newest slot said of it.
    """
    gate = asyncio.Semaphore(AT_ONCE)
    async with asyncio.TaskGroup() as tasks:
        async for sighting in sightings:
            if context.stopping.is_set():
                return
            await gate.acquire()
            tasks.create_task(tried(context, sighting)).add_done_callback(lambda _: gate.release())


async def tried(context: Context, sighting: Sighting | Vanished) -> None:
    """Nothing is lost where it fails: the next scan finds every account that has no row, or an older one."""
    try:
        await take_in(context, sighting)
    except OracleError as error:
        log.warning("intake failed", code=error.code, detail=error.detail)
    except Exception:
        log.exception("intake failed")


async def take_in(context: Context, sighting: Sighting | Vanished) -> None:
    if isinstance(sighting, Vanished):
        await vanished(context, sighting)
        return
    try:
        request = decode_request(sighting.address, sighting.data)
    except OracleError as error:
        await malformed(context, sighting, error)
        return
    await seen(context, request, sighting)


async def seen(context: Context, request: Request, sighting: Sighting) -> None:
    header = request.header
    now_ms = context.clock.now_ms()
    # A request that had ended before we first saw it is nobody's work, but is still closed when due.
    first = end_of(header.status, settled_by_us=False) or State.SEEN

    def write(c: Connection) -> tuple[bool, RequestRow | None]:
        new = requests.see(
            c,
            operator=context.operator,
            address=str(request.address),
            created_slot=header.created_slot,
            queue=str(header.queue),
            requester=str(header.requester),
            refund_to=str(header.refund_to),
            model=request.body.model,
            fee_lamports=header.fee_lamports,
            deadline_slot=header.deadline_slot,
            claim_required=header.claim_required,
            retention_slots=header.retention_slots,
            account=sighting.data,
            chain_status=int(header.status),
            chain_slot=sighting.slot,
            now_ms=now_ms,
            seen_by=sighting.channel,
            state=first,
        )
        if new and first is not State.SEEN:
            row = requests.get(c, str(request.address), header.created_slot, context.operator)
            assert row is not None
            requests.amend(c, row.id, ended_slot=header.settled_slot)
        ended = None if new else end(c, context, str(request.address), header, now_ms=now_ms)
        return new, ended

    new, ended = await context.store.write(write)
    if new:
        log.info("request seen", request=str(request.address), model=request.body.model, by=sighting.channel)
        context.bells.ring(first)
    if ended is not None:
        log.info("request ended", request=ended.address, state=ended.state)
        context.bells.ring("ended")


def end(c: Connection, context: Context, address: str, header: Header, *, now_ms: int) -> RequestRow | None:
    """Bring the row to the end that the account shows; None where it is open or was there already.

    Fulfilled is ours only if it says what we meant to write: the same operator key can sit on two machines.
    """
    row = requests.get(c, address, header.created_slot, context.operator)
    if row is None or header.status.is_open:
        return None
    ours = header.operator == context.signer.public_key and (
        header.status is not Status.FULFILLED
        or (header.output_hash.hex(), header.job_hash.hex()) == (row.output_sha256, row.job_hash)
    )
    state = end_of(header.status, settled_by_us=ours)
    assert state is not None
    if row.state == state:
        return None
    by_another = state in (State.CANCELLED, State.SUPERSEDED)
    return requests.force(
        c,
        row.id,
        state,
        now_ms=now_ms,
        slot=header.settled_slot,
        event="ended",
        code=ENDED_BY_ANOTHER.code if by_another else None,
        detail=header.status.name.lower() if by_another else None,
        ended_slot=header.settled_slot,
        chain_status=int(header.status),
    )


async def vanished(context: Context, sighting: Vanished) -> None:
    """The account is gone at finalized. A settlement of ours that may still be judged keeps its row waiting."""
    now_ms = context.clock.now_ms()

    def write(c: Connection) -> RequestRow | None:
        row = requests.get(c, sighting.key.address, sighting.key.created_slot, context.operator)
        if row is None or row.closed:
            return None
        if row.ended_slot is not None:
            requests.amend(c, row.id, closed=True, end_finalized=True)
            return None
        if settlements.live_of(c, row.id) is not None:
            return None
        return requests.force(
            c,
            row.id,
            State.VANISHED,
            now_ms=now_ms,
            slot=sighting.slot,
            event="vanished",
            code=ENDED_BY_ANOTHER.code,
            detail="the account is gone",
            closed=True,
            end_finalized=True,
            ended_slot=sighting.slot,
        )

    if (row := await context.store.write(write)) is not None:
        log.warning("request vanished", request=row.address)
        context.bells.ring("ended")


async def malformed(context: Context, sighting: Sighting, error: OracleError) -> None:
    """Journalled once an address and slot: a scan meets the same account again and again."""
    now_ms = context.clock.now_ms()
    detail = {"address": str(sighting.address), "error": str(error)}
    noted = await context.store.write(
        lambda c: journal.note_once(
            c, None, ACCOUNT_MALFORMED.code, str(sighting.address), now_ms=now_ms, slot=sighting.slot, detail=detail
        )
    )
    if noted:
        log.error("malformed account", code=ACCOUNT_MALFORMED.code, address=str(sighting.address), detail=str(error))


async def known(context: Context) -> Mapping[str, Known]:
    """Rows whose account may still exist, for the watcher's scans."""
    queues = [str(queue) for queue in context.queues]

    def read(c: Connection) -> dict[str, Known]:
        return {
            row.address: Known(row.created_slot, row.chain_status, row.chain_slot)
            for row in requests.known(c, queues, context.operator)
        }

    return await context.store.read(read)


def address_of(row: RequestRow) -> Pubkey:
    return Pubkey.from_string(row.address)
