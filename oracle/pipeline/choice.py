"""Which routes a job may be bought on now, best first."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from oracle.core import policy
from oracle.core.backoff import backoff_seconds
from oracle.core.compute import Quote, Task
from oracle.core.errors import OracleError
from oracle.core.policy import NO_ROUTE_LEFT, PROVIDER_PAUSED
from oracle.core.request import Request
from oracle.core.routing import ModelRoutes, Route, percentile, ranked
from oracle.pipeline.admit import affordable, candidates_of
from oracle.pipeline.context import Context
from oracle.pipeline.decoded import request_of
from oracle.pipeline.fallback import Next, after
from oracle.store import attempts
from oracle.store.rows import AttemptRow, RequestRow

MEASURED_JOBS = 100
FEWEST_JOBS = 5
"""A percentile of fewer would be one of chance."""
REMEMBERED_MS = 3_600_000


async def viable(
    context: Context,
    row: RequestRow,
    request: Request,
    task: Task,
    earlier: Sequence[AttemptRow],
    *,
    also_lamports: int = 0,
) -> list[tuple[Route, Quote]]:
    """The routes that are not used up, that the fee covers and the deadline allows. Raises an ORC-POLICY code.

    `also_lamports` is what jobs that run already are quoted at.
    """
    left = tuple(route for route in candidates_of(context, request) if not _is_used_up(context, route, earlier))
    if not left:
        raise NO_ROUTE_LEFT(", ".join(sorted({f"{a.provider}: {a.error_code}" for a in earlier})))
    open_to_us = tuple(route for route in left if context.breakers.allows(route.provider))
    if not open_to_us:
        raise paused(context, left)
    left = open_to_us
    quotes = await affordable(context, request, left, task, also_lamports=also_lamports)
    seconds, settling = await latencies(context, left), await settling_seconds(context)
    strategy = context.routes.get(request.body.model, ModelRoutes(())).strategy
    found: list[tuple[Route, Quote]] = []
    too_late: OracleError | None = None
    moves = _moves(earlier)
    # Who has just been gone away from comes after those who have not, whatever the strategy says.
    for route in sorted(ranked(left, strategy, quotes, seconds), key=lambda r: moves[r.provider, r.model]):
        quote = quotes[route]
        least = max(quote.starting_seconds, quote.promised_seconds or 0.0)
        expected = max(seconds.get(route, quote.expected_seconds or 0.0), least) + settling
        try:
            policy.check_deadline(
                row.deadline_slot, context.slot(), context.terms().deadline_margin_slots + context.slots.slots(expected)
            )
        except OracleError as error:
            too_late = error
        else:
            found.append((route, quotes[route]))
    if not found:
        raise too_late or NO_ROUTE_LEFT("no route within its price cap")
    return found


def _is_used_up(context: Context, route: Route, earlier: Sequence[AttemptRow]) -> bool:
    """A route ends with an error that no repetition can mend, or with its number of purchases.

    A refusal that cost nothing, as of a busy provider, is no purchase: it has the longer budget of retries.
    """
    mine = [
        (a, after(a.error_code) if a.error_code else None)
        for a in earlier
        if (a.provider, a.model) == (route.provider, route.model)
    ]
    if any(step is Next.GIVE_UP for _, step in mine):
        return True
    mine = [(a, step) for a, step in mine if step is not Next.PAUSE]
    refused = sum(a.cost_lamports == 0 for a, _ in mine)
    return len(mine) - refused >= route.max_attempts or refused > context.config.policy.max_retries


def _moves(earlier: Sequence[AttemptRow]) -> Counter[tuple[str, str]]:
    """How often each route was left for the next one."""
    return Counter((a.provider, a.model) for a in earlier if a.error_code and after(a.error_code) is Next.NEXT_ROUTE)


async def pause_seconds(context: Context, row: RequestRow, attempt: AttemptRow, error: OracleError) -> float:
    """How long a request waits after an attempt has failed: not at all where another route can be taken."""
    step = after(error.error)
    if step in (Next.GIVE_UP, Next.PAUSE):
        return 0.0
    if step is Next.NEXT_ROUTE:
        earlier = await context.store.read(lambda c: attempts.of(c, row.id))
        moves, mine = _moves(earlier), (attempt.provider, attempt.model)
        for route in candidates_of(context, request_of(row)):
            is_fresher = moves[route.provider, route.model] <= moves[mine] and (route.provider, route.model) != mine
            if is_fresher and context.breakers.allows(route.provider) and not _is_used_up(context, route, earlier):
                return 0.0
    return backoff_seconds(attempt.number - 1, context.clock.jitter(), told=error.retry_after_seconds)


def paused(context: Context, routes: Sequence[Route]) -> OracleError:
    """Nothing is bought on any of these routes now: why, and when to ask again."""
    providers = sorted({route.provider for route in routes})
    reasons = [error for name in providers if (error := context.breakers.why(name)) is not None]
    # Not all at once: the first that comes is the probe, and the others would ask in vain.
    seconds = max(1.0, context.breakers.seconds_left(providers)) * (1 + context.clock.jitter() / 2)
    return PROVIDER_PAUSED("; ".join(error.detail for error in reasons), retry_after_seconds=seconds)


async def latencies(context: Context, routes: Sequence[Route]) -> dict[Route, float]:
    """Measured p95 in seconds of the routes that have run at least five jobs; a few seconds old at most."""
    found = {}
    for route in routes:
        seconds = await measured(context, route.provider, route.model)
        if (p95 := percentile(seconds, 0.95)) is not None:
            found[route] = p95
    return found


async def settling_seconds(context: Context) -> float:
    """How long an answer takes to land on chain: the flush window, and what was measured where that is longer.

    A window longer than the margin is no promise to be that late: it counts once it has been measured.
    """
    known = percentile(await measured_settling(context), 0.95)
    config = context.config
    window = min(config.settlement.flush_window_seconds, config.policy.deadline_margin_seconds)
    return max(known or 0.0, window)


async def measured_settling(context: Context) -> Sequence[float]:
    """Seconds from the answer to the landed settlement; none where they are too few to judge by.

    Only of the last hour: a cluster that stood still must not keep us from ever finding out that it moves again.
    """
    routes = {(route.provider, route.model) for model in context.routes.values() for route in model.routes}
    since_ms, slot_seconds = context.clock.now_ms() - REMEMBERED_MS, context.slots.slot_seconds

    async def look() -> Sequence[float]:
        seconds = await context.store.read(
            lambda c: attempts.settling(c, sorted(routes), since_ms, slot_seconds, MEASURED_JOBS)
        )
        return seconds if len(seconds) >= FEWEST_JOBS else ()

    return await context.latencies.get("settling", look)


async def measured(context: Context, provider: str, model: str) -> Sequence[float]:
    """Seconds of the newest jobs, from the purchase to the answer; none where they are too few to judge by.

    What is said to have taken twice as long as its routes allow, a clock that was set meanwhile says, or a daemon that
    was away: believed, it would keep us from ever finding out how long they take.
    """

    async def look() -> Sequence[float]:
        routes = [route for model_routes in context.routes.values() for route in model_routes.routes]
        allowed = [route.timeout_seconds for route in routes if (route.provider, route.model) == (provider, model)]
        most_seconds = 2 * max(allowed, default=math.inf)
        newest = await context.store.read(lambda c: attempts.durations(c, provider, model, MEASURED_JOBS))
        seconds = [each for each in newest if each <= most_seconds]
        return seconds if len(seconds) >= FEWEST_JOBS else ()

    return await context.latencies.get((provider, model), look)
