"""Takes due rows of some states, or is handed them, and runs one step on each; no row delays another (law 6)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import structlog

from oracle.chain.rpc.errors import ENDPOINT_TROUBLE
from oracle.core.backoff import backoff_seconds
from oracle.core.errors import OracleError, Verdict
from oracle.core.lifecycle import State
from oracle.core.policy import BALANCE_LOW, BUDGET_EXHAUSTED, NOT_NOW, PROVIDER_PAUSED, RETRIES_EXHAUSTED, disposition
from oracle.core.request import Reason
from oracle.pipeline.context import Context
from oracle.pipeline.errors import INPUT_UNREACHABLE, INPUT_WAITING, OPERATOR_BROKE, UNEXPECTED
from oracle.pipeline.handover import Handover, Work
from oracle.pipeline.notes import noted
from oracle.providers.errors import PRICE_STALE
from oracle.store import requests
from oracle.store.changes import Postponement
from oracle.store.errors import ENGINE_TROUBLE, LEASE_LOST
from oracle.store.rows import RequestRow

log = structlog.get_logger(__name__)
Step = Callable[[Context, RequestRow], Coroutine[Any, Any, None]]

# Nothing of the request has failed: it waits for others, for our own database, or for our endpoints. A revoked API key
# must not cost a requester the answer.
_UNCOUNTED = frozenset(
    error.code
    for error in (
        NOT_NOW,
        BUDGET_EXHAUSTED,
        PROVIDER_PAUSED,
        BALANCE_LOW,
        INPUT_WAITING,
        PRICE_STALE,
        OPERATOR_BROKE,
        *ENGINE_TROUBLE,
        *ENDPOINT_TROUBLE,
    )
)

# Bells wake a loop at once; this bounds how late it notices work that another process left.
LONGEST_NAP_SECONDS = 1.0

# What is due by our clock and not by that of the database we cannot have: it must not be asked for without a pause.
SHORTEST_NAP_SECONDS = 0.02


async def run(
    context: Context,
    states: Sequence[State],
    step: Step,
    handover: Handover,
    *,
    is_paused: Callable[[], bool] = lambda: False,
) -> None:
    """Until the daemon stops: keep up to `concurrency` steps under way; on stopping, wait for those begun.

    Rows are taken, or handed over by the loop before, as long as none waits to be taken; where both come in the same
    moment, there may be more for as long as these take. While paused, none is begun.
    """
    limit = context.config.daemon.concurrency
    bell = states[0]
    under_way: set[asyncio.Task[None]] = set()
    # Until a take comes back with fewer than it asked for, what is handed over might overtake something more urgent.
    is_behind = True

    def free() -> int:
        return 0 if context.stopping.is_set() or is_paused() or is_behind else limit - len(under_way)

    def start(work: Work) -> None:
        task = asyncio.create_task(work)
        under_way.add(task)
        task.add_done_callback(under_way.discard)

    handover.open(free, start, lambda row: attempt(context, row, step))
    try:
        while not context.stopping.is_set():
            context.pulse(bell)
            wanted = 0 if is_paused() else limit - len(under_way)
            rows = await take(context, states, wanted) if wanted > 0 else []
            is_behind = len(rows) >= wanted
            for row in rows:
                start(attempt(context, row, step))
            if len(under_way) >= limit:
                await asyncio.wait(under_way, return_when=asyncio.FIRST_COMPLETED)
            elif not rows:
                await context.bells.wait(bell, await nap_seconds(context, states))
        handover.close()
        if under_way:
            await asyncio.wait(under_way)
    finally:
        handover.close()
        for task in under_way:
            task.cancel()


async def take(context: Context, states: Sequence[State], limit: int, *, in_turn: bool = False) -> list[RequestRow]:
    """Due rows under a lease of ours, earliest deadline first, or in turn; none where the database does not let us.

    A loop must not die of it: its steps under way would be cut, in the middle of a purchase.
    """
    now_ms = context.clock.now_ms()
    try:
        return await context.store.write(
            lambda c: requests.take(
                c,
                states,
                operator=context.operator,
                owner=context.instance,
                now_ms=now_ms,
                lease_ms=context.lease_ms,
                limit=limit,
                in_turn=in_turn,
            )
        )
    except OracleError as error:
        log.warning("no rows taken", states=list(states), code=error.code, detail=error.detail)
        await context.bells.wait("stop", LONGEST_NAP_SECONDS)
        return []


async def nap_seconds(context: Context, states: Sequence[State]) -> float:
    """How long nothing of these states is due, at most a second."""
    try:
        wake_ms = await context.store.read(
            lambda c: requests.next_wake_ms(c, states, context.operator, context.instance)
        )
    except OracleError:
        return LONGEST_NAP_SECONDS
    if wake_ms is None:
        return LONGEST_NAP_SECONDS
    return min(LONGEST_NAP_SECONDS, max(SHORTEST_NAP_SECONDS, (wake_ms - context.clock.now_ms()) / 1000))


async def attempt(context: Context, row: RequestRow, step: Step) -> None:
    """One step on one row; whatever goes wrong is that row's own affair."""
    bound = structlog.contextvars.bind_contextvars(request=row.address, created_slot=row.created_slot)
    try:
        await step(context, row)
    except OracleError as error:
        await failed(context, row, error)
    except Exception:
        log.exception("step failed", step=step.__name__, state=row.state)
        await failed(context, row, UNEXPECTED(step.__name__))
    finally:
        structlog.contextvars.reset_contextvars(**bound)


async def failed(context: Context, row: RequestRow, error: OracleError) -> None:
    """Try the step again later, or end the request as its error says."""
    if error.code == LEASE_LOST.code:
        log.info("lease lost", state=row.state)
        return
    await noted(context, lambda: decide(context, row, error))


async def decide(context: Context, row: RequestRow, error: OracleError) -> None:
    if error.code in _UNCOUNTED:
        await try_later(context, row, error, is_failure=False)
    elif error.verdict is Verdict.GIVE_UP:
        await give_up(context, row, error)
    elif row.retries >= context.config.policy.max_retries:
        # An input that stays out of reach is the requester's own fault, and costs the operator nothing.
        exhausted = error if error.code == INPUT_UNREACHABLE.code else RETRIES_EXHAUSTED(str(error))
        await give_up(context, row, exhausted)
    else:
        await try_later(context, row, error)


async def try_later(context: Context, row: RequestRow, error: OracleError, *, is_failure: bool = True) -> None:
    wait = backoff_seconds(row.retries, context.clock.jitter(), told=error.retry_after_seconds)
    now_ms = context.clock.now_ms()
    log.info("will try again", code=error.code, detail=error.detail, in_seconds=round(wait, 2), state=row.state)
    later = Postponement(
        row,
        now_ms,
        now_ms + int(wait * 1000),
        code=error.code,
        detail=error.detail,
        is_failure=is_failure,
        kept_until_ms=context.kept_until_ms(row, now_ms),
    )
    await context.store.write_together(requests.postpone_all, later)


async def give_up(context: Context, row: RequestRow, error: OracleError) -> None:
    """Reject on chain where the operator cannot do it; decline at no cost where it is the requester's fault."""
    reason = disposition(error)
    if reason is None:
        log.info("declined", code=error.code, detail=error.detail)
        await context.move(row, State.DECLINED, code=error.code, detail=error.detail)
    else:
        await refuse(context, row, reason, error)


async def refuse(context: Context, row: RequestRow, reason: Reason, error: OracleError) -> None:
    log.info("refused", reason=reason.name, code=error.code, detail=error.detail)
    await context.move(row, State.REFUSED, code=error.code, detail=error.detail, reject_reason=int(reason))
