"""A rival for a job that is slow: a second paid job of the same request, where every route concerned allows it (law 3).

The rival has a lane of its own, so the database still holds one live attempt for each. Whichever job answers first is
taken, in the one write that also ends the race; the others are then orphans, and housekeeping cancels them.
"""

from __future__ import annotations

from collections.abc import Sequence

import structlog
from sqlalchemy import Connection

from oracle.core.compute import IdempotencyKey, Quote
from oracle.core.errors import OracleError
from oracle.core.identity import idempotency_key
from oracle.core.routing import Route, is_slow, may_hedge
from oracle.pipeline import budget, choice, inputs, rehearsal, submit
from oracle.pipeline.admit import candidates_of, task_of
from oracle.pipeline.context import Context, key_of
from oracle.pipeline.decoded import request_of
from oracle.store import attempts, journal, requests
from oracle.store.rows import AttemptRow, RequestRow
from oracle.store.schema import AttemptState

log = structlog.get_logger(__name__)
AGAIN_SECONDS = 5.0
MOST_REMEMBERED = 10_000


def is_possible(context: Context, row: RequestRow) -> bool:
    """Whether any route of the model allows a second job. Asked for every job at every turn, so it asks nobody."""
    model = context.routes.get(row.model)
    return model is not None and any(route.max_parallel_jobs > 1 for route in model.routes)


async def rival(context: Context, row: RequestRow, live: Sequence[AttemptRow]) -> bool:
    """Buy one more job beside those that run, where they are slow and it may be bought. False: nothing was done.

    An attempt of which nobody knows whether it runs keeps its rivals waiting: it may be a job already. And a request
    that has lost a purchase for good has had the job that it may cost besides.
    """
    if row.unconfirmed_purchases or not context.may_buy:
        return False
    request = request_of(row)
    routes = {(route.provider, route.model): route for route in candidates_of(context, request)}
    mine = [routes.get((attempt.provider, attempt.model)) for attempt in live]
    running = [route for route in mine if route is not None]
    if len(running) < len(live) or any(attempt.state is not AttemptState.RUNNING for attempt in live):
        return False
    newest = max(live, key=lambda attempt: attempt.intended_at_ms)
    route = routes[newest.provider, newest.model]
    seconds = (context.clock.now_ms() - newest.intended_at_ms) / 1000
    if not any(may_hedge(running, each) for each in routes.values()):
        return False
    if not is_slow(route, seconds, await choice.measured(context, newest.provider, newest.model)):
        return False
    now = context.clock.monotonic()
    if now < context.without_rival.get(row.id, 0.0):
        return False
    is_bought = await _buy(context, row, live, running)
    if not is_bought:
        # What speaks against it now will do so for a while: the question is put now and then, not at every turn.
        if len(context.without_rival) >= MOST_REMEMBERED:
            context.without_rival.clear()
        context.without_rival[row.id] = now + AGAIN_SECONDS
    return is_bought


async def _buy(context: Context, row: RequestRow, live: Sequence[AttemptRow], running: Sequence[Route]) -> bool:
    request = request_of(row)
    try:
        content, _ = await inputs.load(context, request)
        earlier = await context.store.read(lambda c: attempts.of(c, row.id))
        spent = sum(attempt.quoted_lamports for attempt in live)
        found = await choice.viable(context, row, request, task_of(request, content), earlier, also_lamports=spent)
        await rehearsal.rehearse_again(context, row)
    except OracleError as error:
        log.info("no rival", code=error.code, detail=error.detail)
        return False
    # Another route first: what slows one job may slow the next beside it.
    for route, quote in sorted(found, key=lambda each: each[0] in running):
        if not may_hedge(running, route) or not context.breakers.begin(route.provider):
            continue
        try:
            held, intended = await _intend(context, row, live, route, quote)
        except OracleError as error:
            if error.error not in submit.NO_BUDGET:
                raise
            continue
        log.info("rival bought", provider=route.provider, model=route.model, lane=intended.lane)
        task = task_of(request, content, route)
        await submit.call(context, held, intended, task, IdempotencyKey(intended.idempotency_key))
        return True
    return False


async def _intend(
    context: Context, row: RequestRow, live: Sequence[AttemptRow], route: Route, quote: Quote
) -> tuple[RequestRow, AttemptRow]:
    taken = {attempt.lane for attempt in live}
    lane = next(lane for lane in range(len(live) + 1) if lane not in taken)
    number, now_ms = row.attempts_made + 1, context.clock.now_ms()

    def write(c: Connection) -> tuple[RequestRow, AttemptRow]:
        budget.book(
            c,
            context,
            quote.cost_lamports,
            now_ms,
            provider=route.provider,
            requester=row.requester,
            request_id=row.id,
        )
        journal.note(
            c,
            row.id,
            "rival",
            now_ms=now_ms,
            slot=context.slot(),
            old_state=row.state,
            detail=f"{route.provider} {route.model}",
        )
        # The lease outlives the call, whatever has been waited for before it.
        held = requests.renew(c, row, now_ms, context.lease_ms)
        return held, attempts.intend(
            c,
            held,
            lane=lane,
            number=number,
            provider=route.provider,
            model=route.model,
            idempotency_key=idempotency_key(row.operator, key_of(row), lane, number),
            quoted_lamports=quote.cost_lamports,
            now_ms=now_ms,
        )

    return await context.store.write(write)
