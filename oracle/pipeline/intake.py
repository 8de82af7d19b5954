"""Writes a row for every request that the watcher sights, and ends the rows of those that the chain has ended.

The row is the memory (law 1): once it is committed, a request is followed to its end whatever happens here.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence

import structlog
from solders.pubkey import Pubkey
from sqlalchemy import Connection

from oracle.chain.program import layout
from oracle.chain.program.layout import decode_request
from oracle.chain.watcher import Known, Sighting, Vanished
from oracle.core.errors import OracleError
from oracle.core.lifecycle import State, end_of
from oracle.core.request import Header, Status
from oracle.pipeline import at_once
from oracle.pipeline.context import Context
from oracle.pipeline.decoded import request_at
from oracle.pipeline.errors import ACCOUNT_MALFORMED, ENDED_BY_ANOTHER
from oracle.pipeline.look import Look
from oracle.store import journal, requests, settlements
from oracle.store.changes import Fact
from oracle.store.rows import RequestRow

log = structlog.get_logger(__name__)

AT_ONCE = 256
ENDED_WAIT_SECONDS = 0.2
"""How long the news of an end lies, so that what has come at the same time and is to be worked on goes first. There is
as much of the one as of the other, for whatever we settle is then told to us as ended."""

_OPEN = frozenset(bytes([status]) for status in Status if status.is_open)
_STATUS = slice(layout.STATUS_OFFSET, layout.STATUS_OFFSET + 1)


async def run(context: Context, sightings: AsyncIterator[Sighting | Vanished]) -> None:
    """Until the daemon stops. Many sightings are in flight at once, so that a burst costs few commits.

    Their order does not matter: a row keeps what the newest slot said of it.
    """
    gate, resting = asyncio.Semaphore(AT_ONCE), asyncio.Semaphore(AT_ONCE // 2)

    async def step(sighting: Sighting | Vanished) -> None:
        # Of a flood of ends only so many are put off: else they would keep back what comes behind them.
        if not is_urgent(sighting) and not resting.locked():
            async with resting:
                await asyncio.sleep(ENDED_WAIT_SECONDS)
        await tried(lambda: take_in(context, sighting))

    async with asyncio.TaskGroup() as tasks:
        async for sighting in sightings:
            if context.stopping.is_set():
                return
            await gate.acquire()
            tasks.create_task(step(sighting)).add_done_callback(lambda _: gate.release())


async def tried(take: Callable[[], Awaitable[None]]) -> None:
    """Nothing is lost where it fails: the next scan finds every account that has no row, or an older one."""
    try:
        await take()
    except OracleError as error:
        log.warning("intake failed", code=error.code, detail=error.detail)
    except Exception:
        log.exception("intake failed")


def is_urgent(sighting: Sighting | Vanished) -> bool:
    """Whether the account shows a request that is open. Of one that has ended, nothing is."""
    return not isinstance(sighting, Vanished) and sighting.data[_STATUS] in _OPEN


async def take_in(context: Context, sighting: Sighting | Vanished) -> None:
    if isinstance(sighting, Vanished):
        await vanished(context, sighting)
        return
    try:
        if is_urgent(sighting):
            request = request_at(str(sighting.address), sighting.data)
        else:
            # Past the cache, which is for what is worked on: a scan may meet any number of ends.
            request = decode_request(sighting.address, sighting.data)
    except OracleError as error:
        await malformed(context, sighting, error)
        return
    look = Look(request, sighting, context.signer.public_key, context.clock.now_ms())
    may_buy = at_once.is_possible(context, look)
    if not may_buy or not context.to_buy.begin_with(lambda: tried(lambda: bought(context, look))):
        await seen(context, look)


async def bought(context: Context, look: Look) -> None:
    """Among the purchases, which are finished when the daemon stops, where intake is cut."""
    if not await at_once.buy(context, look):
        await seen(context, look)


async def seen(context: Context, look: Look) -> None:
    is_new, ended = await context.store.write_together(write_all, look)
    request = look.request
    if is_new:
        log.info("request seen", request=str(request.address), model=request.body.model, by=look.sighting.channel)
        context.bells.ring(look.first)
    if ended is not None:
        log.info("request ended", request=str(request.address), state=ended)
        context.bells.ring("ended")


def write_all(c: Connection, looks: Sequence[Look]) -> list[tuple[bool, State | None]]:
    """Of each look, whether its request is new, and the end to which it has brought a known one."""
    new = requests.see_all(c, [look.sighted() for look in looks])
    closing = [str(look.request.address) for look in looks if not look.request.header.status.is_open]
    rows = requests.of_addresses(c, closing, str(looks[0].operator)) if closing else {}
    ended_slots: dict[int, dict[str, int]] = {}
    facts: list[Fact | None] = []
    for look, is_new in zip(looks, new, strict=True):
        header = look.request.header
        row = rows.get((str(look.request.address), header.created_slot))
        fact = None
        if row is not None and is_new:
            ended_slots[row.id] = {"ended_slot": header.settled_slot}
        elif row is not None and row.chain_slot <= look.sighting.slot:
            # Else a newer look has shown it open: a fork has undone this end.
            fact = ending(row, header, look.operator, now_ms=look.now_ms)
        facts.append(fact)
    requests.amend_all(c, ended_slots)
    news = iter(requests.force_all(c, [fact for fact in facts if fact is not None]))
    ends = [fact.new if fact is not None and next(news) else None for fact in facts]
    return list(zip(new, ends, strict=True))


def ending(row: RequestRow, header: Header, operator: Pubkey, *, now_ms: int) -> Fact | None:
    """The end that the account shows; None where it is open, or the row is there already.

    Fulfilled is ours only if it says what we meant to write: the same operator key can sit on two machines.
    """
    ours = header.operator == operator and (
        header.status is not Status.FULFILLED
        or (header.output_hash.hex(), header.job_hash.hex()) == (row.output_sha256, row.job_hash)
    )
    state = end_of(header.status, settled_by_us=ours)
    if state is None or row.state == state:
        return None
    by_another = state in (State.CANCELLED, State.SUPERSEDED)
    return Fact(
        row.id,
        state,
        now_ms,
        header.settled_slot,
        "ended",
        code=ENDED_BY_ANOTHER.code if by_another else None,
        detail=header.status.name.lower() if by_another else None,
        columns={"ended_slot": header.settled_slot, "chain_status": int(header.status)},
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
