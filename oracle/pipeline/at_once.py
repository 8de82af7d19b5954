"""What has just come into view and can be bought for at once: judged in memory, and written down for the first time
as what it has become, a request with a job that is about to be bought. One commit, where the loops take three.

Whatever speaks against it, or takes long, leaves the request to the loops, which begin with it from the start: nothing
that is found out here is kept, so nothing here has to be tried again. Until its row is written nobody has done
anything for it, and the next scan finds its account (law 1).
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import NamedTuple

import structlog
from sqlalchemy import Connection

from oracle.core import policy
from oracle.core.compute import Quote, Task
from oracle.core.errors import OracleError
from oracle.core.identity import idempotency_key
from oracle.core.lifecycle import State
from oracle.core.policy import BUDGET_EXHAUSTED, BUDGET_TOO_SMALL, TOO_MANY_OPEN, Facts
from oracle.core.routing import Route
from oracle.pipeline import budget, choice, inputs, rehearsal, submit, worker
from oracle.pipeline.admit import task_of
from oracle.pipeline.context import Context, key_of
from oracle.pipeline.look import Look
from oracle.store import attempts, recordings, requests
from oracle.store.changes import Purchase, Sighted
from oracle.store.errors import CONFLICT
from oracle.store.rows import AttemptRow, RequestRow

log = structlog.get_logger(__name__)

JUDGE_SECONDS = 1.0
"""What takes longer to be judged, as when the cluster or a provider does not answer, gets its row first."""

PASSED_OVER_SECONDS = 5.0
"""How long nothing is judged here for a requester who may have no more open, or for whom no budget has room: the loops
ask that first, and a flood must not cost a simulation for each request (law 6)."""

MOST_PASSED_OVER = 10_000
NO_ROOM = (BUDGET_EXHAUSTED, BUDGET_TOO_SMALL, TOO_MANY_OPEN)


class Wish(NamedTuple):
    """A row that is to be made, with the job that is to be bought for it. `purchase` has the row as it is not kept
    yet."""

    context: Context
    sighted: Sighted
    purchase: Purchase


async def buy(context: Context, look: Look) -> bool:
    """Write the row and buy. False where it is left to the loops: nothing has happened then."""
    try:
        intent = await intended(context, look)
    except (OracleError, TimeoutError) as error:
        log.info("not bought at once", request=str(look.request.address), why=str(error) or "takes long")
        if isinstance(error, OracleError) and error.error in NO_ROOM:
            pass_over(context, look)
        return False
    except Exception:
        log.exception("not bought at once", request=str(look.request.address))
        return False
    if intent is not None:
        await worker.attempt(context, *intent)
    return intent is not None


def is_possible(context: Context, look: Look) -> bool:
    """What must be claimed, fetched or bought first takes long, and has its own ways of being tried again. Nothing
    overtakes what waits to be admitted."""
    header = look.request.header
    is_simple = not header.claim_required and inputs.is_at_hand(look.request)
    is_passed_over = context.passed_over.get(header.requester, 0.0) > context.clock.monotonic()
    return look.first is State.SEEN and is_simple and context.to_admit.is_free and not is_passed_over


def pass_over(context: Context, look: Look) -> None:
    if len(context.passed_over) >= MOST_PASSED_OVER:
        context.passed_over.clear()
    context.passed_over[look.request.header.requester] = context.clock.monotonic() + PASSED_OVER_SECONDS


async def intended(context: Context, look: Look) -> tuple[RequestRow, worker.Step] | None:
    """The row that is written, and the step that buys. None where it is known; raises what else is in the way."""
    request, sighted = look.request, look.sighted()
    row = requests.unkept(sighted)
    content, _ = await inputs.load(context, request)
    async with asyncio.timeout(JUDGE_SECONDS):
        route, quote = await judged(context, look, row, task_of(request, content))
    # A probe is for a request that is sure to be bought for.
    if (pause := context.breakers.why(route.provider)) is not None:
        raise pause
    now_ms, slot = context.clock.now_ms(), context.slot()
    begun = sighted._replace(
        state=State.RUNNING,
        through=(State.SEEN, State.ADMITTED),
        since=(now_ms, slot),
        detail=submit.label(route),
        attempts_made=1,
        lease_owner=context.instance,
        lease_until_ms=now_ms + context.lease_ms,
    )
    key = idempotency_key(row.operator, key_of(row), 0, 1)
    purchase = Purchase(row, 0, route.provider, route.model, key, quote.cost_lamports, now_ms, 1)
    written = await context.store.write_together(intend_all, Wish(context, begun, purchase))
    if isinstance(written, OracleError):
        raise written
    if written is None:
        return None
    running, attempt = written
    log.info("request seen", request=row.address, model=row.model, by=row.seen_by)
    return running, submit.buying(attempt, task_of(request, content, route))


async def judged(context: Context, look: Look, row: RequestRow, task: Task) -> tuple[Route, Quote]:
    """The route to buy on. Raises whatever speaks against it, of what admission and purchase ask for (law 8)."""
    policy.check(look.request, context.terms(), Facts(context.slot(), None))
    routes = await choice.viable(context, row, look.request, task, ())
    if context.config.policy.simulate_before_buying:
        await rehearsal.rehearse(context, row)
    return routes[0]


def intend_all(c: Connection, wishes: Sequence[Wish]) -> list[tuple[RequestRow, AttemptRow] | OracleError | None]:
    """Of each wish its row and its attempt. None where the request has a row already, or an answer of the gateway waits
    for it; ORC-POLICY-002 where its requester has as many open as he may. Raises where a budget has no room.

    Daemons that write to one PostgreSQL in the same moment do not count each other's rows: a cap may be passed by a
    burst, a budget never is.
    """
    operator, addresses = wishes[0].sighted.operator, [wish.sighted.address for wish in wishes]
    open_counts = requests.open_counts_of(c, {wish.sighted.requester for wish in wishes}, operator)
    answered, known = recordings.find_all(c, addresses), requests.known_among(c, addresses, operator)
    results: list[tuple[RequestRow, AttemptRow] | OracleError | None] = [None] * len(wishes)
    allowed = []
    for at, wish in enumerate(wishes):
        requester, key = wish.sighted.requester, (wish.sighted.address, wish.sighted.created_slot)
        most_open = wish.context.config.policy.max_open_per_requester
        if key in known or wish.sighted.address in answered:
            continue
        if most_open is not None and open_counts[requester] >= most_open:
            results[at] = TOO_MANY_OPEN(f"{open_counts[requester]} open, at most {most_open}")
            continue
        open_counts[requester] += 1
        known.add(key)
        allowed.append(at)
    for at in allowed:
        # Before the rows are made: whoever books locks the budgets first.
        budget.book_purchase(c, wishes[at].context, wishes[at].purchase)
    rows = requests.add_all(c, [wishes[at].sighted for at in allowed])
    if None in rows:
        # Another daemon has just made one of them: what is booked here must not stay.
        raise CONFLICT("a request that another daemon has seen as well")
    begun = [row for row in rows if row is not None]
    purchases = [wishes[at].purchase._replace(row=row) for at, row in zip(allowed, begun, strict=True)]
    for at, row, attempt in zip(allowed, begun, attempts.intend_all(c, purchases), strict=True):
        results[at] = row, attempt
    return results
