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
from oracle.core.policy import Facts
from oracle.core.routing import Route
from oracle.pipeline import budget, choice, inputs, rehearsal, submit, worker
from oracle.pipeline.admit import task_of
from oracle.pipeline.context import Context, key_of
from oracle.pipeline.look import Look
from oracle.store import attempts, recordings, requests
from oracle.store.changes import Purchase, Sighted
from oracle.store.rows import AttemptRow, RequestRow

log = structlog.get_logger(__name__)

JUDGE_SECONDS = 1.0
"""What takes longer to be judged, as when the cluster or a provider does not answer, gets its row first."""


class Wish(NamedTuple):
    """A row that is to be made, with the job that is to be bought for it."""

    context: Context
    sighted: Sighted
    purchase: Purchase


async def buy(context: Context, look: Look) -> bool:
    """Write the row and buy. False where it is left to the loops: nothing has happened then."""
    try:
        intent = await intended(context, look)
    except (OracleError, TimeoutError) as error:
        log.info("not bought at once", request=str(look.request.address), why=str(error) or "takes long")
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
    is_simple = not look.request.header.claim_required and inputs.is_at_hand(look.request)
    return look.first is State.SEEN and is_simple and context.to_admit.is_free


async def intended(context: Context, look: Look) -> tuple[RequestRow, worker.Step] | None:
    """The row that is written, and the step that buys. None where what the store knows speaks against it."""
    request, sighted = look.request, look.sighted()
    row = requests.unkept(sighted)
    content, _ = await inputs.load(context, request)
    async with asyncio.timeout(JUDGE_SECONDS):
        route, quote = await judged(context, look, row, task_of(request, content))
    if not context.breakers.begin(route.provider):
        return None
    now_ms = context.clock.now_ms()
    begun = sighted._replace(
        state=State.RUNNING,
        through=(State.SEEN, State.ADMITTED),
        detail=submit.label(route),
        attempts_made=1,
        lease_owner=context.instance,
        lease_until_ms=now_ms + context.lease_ms,
    )
    key = idempotency_key(row.operator, key_of(row), 0, 1)
    purchase = Purchase(row, 0, route.provider, route.model, key, quote.cost_lamports, now_ms, 1)
    written = await context.store.write_together(intend_all, Wish(context, begun, purchase))
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


def intend_all(c: Connection, wishes: Sequence[Wish]) -> list[tuple[RequestRow, AttemptRow] | None]:
    """Of each wish its row and its attempt; None where the request has a row, an answer of the gateway waits for it, or
    its requester has as many open as he may.

    Daemons that write to one PostgreSQL in the same moment do not count each other's rows: a cap may be passed by a
    burst, a budget never is.
    """
    operator = wishes[0].sighted.operator
    open_counts = requests.open_counts_of(c, {wish.sighted.requester for wish in wishes}, operator)
    answered = recordings.find_all(c, [wish.sighted.address for wish in wishes])
    allowed = []
    for wish in wishes:
        requester = wish.sighted.requester
        is_within_cap = open_counts[requester] < wish.context.config.policy.max_open_per_requester
        if is_within_cap and wish.sighted.address not in answered:
            open_counts[requester] += 1
            allowed.append(wish)
    made = zip(allowed, requests.add_all(c, [wish.sighted for wish in allowed]), strict=True)
    begun = [(wish, row) for wish, row in made if row is not None]
    purchases = [wish.purchase._replace(row=row) for wish, row in begun]
    for wish, row in begun:
        budget.book(
            c,
            wish.context,
            wish.purchase.quoted_lamports,
            wish.purchase.now_ms,
            provider=wish.purchase.provider,
            requester=row.requester,
            request_id=row.id,
        )
    intents = {
        id(wish): (row, attempt) for (wish, row), attempt in zip(begun, attempts.intend_all(c, purchases), strict=True)
    }
    return [intents.get(id(wish)) for wish in wishes]
