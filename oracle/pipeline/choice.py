"""Which routes a job may be bought on now, best first."""

from __future__ import annotations

from collections.abc import Sequence

from oracle.core import policy
from oracle.core.compute import Quote, Task
from oracle.core.errors import OracleError, Verdict, verdict_of
from oracle.core.policy import NO_ROUTE_LEFT
from oracle.core.request import Request
from oracle.core.routing import ModelRoutes, Route, percentile, ranked
from oracle.pipeline.admit import affordable, candidates_of
from oracle.pipeline.context import Context
from oracle.store import attempts
from oracle.store.rows import AttemptRow, RequestRow

MEASURED_JOBS = 100
FEWEST_JOBS = 5
"""A percentile of fewer would be one of chance."""


async def viable(
    context: Context, row: RequestRow, request: Request, task: Task, earlier: Sequence[AttemptRow]
) -> list[tuple[Route, Quote]]:
    """The routes that are not used up, that the fee covers and the deadline allows. Raises an ORC-POLICY code."""
    left = tuple(route for route in candidates_of(context, request) if not _is_used_up(context, route, earlier))
    if not left:
        raise NO_ROUTE_LEFT(", ".join(sorted({f"{a.provider}: {a.error_code}" for a in earlier})))
    quotes = await affordable(context, request, left, task)
    seconds = await latencies(context, left)
    strategy = context.routes.get(request.body.model, ModelRoutes(())).strategy
    found: list[tuple[Route, Quote]] = []
    too_late: OracleError | None = None
    for route in ranked(left, strategy, quotes, seconds):
        quote = quotes[route]
        least = max(quote.starting_seconds, quote.promised_seconds or 0.0)
        expected = max(seconds.get(route, quote.expected_seconds or 0.0), least)
        try:
            policy.check_deadline(row.deadline_slot, context.slot(), slots_needed(context, expected))
        except OracleError as error:
            too_late = error
        else:
            found.append((route, quotes[route]))
    if not found:
        raise too_late or NO_ROUTE_LEFT("no route within its price cap")
    return found


def slots_needed(context: Context, job_seconds: float) -> int:
    """From the purchase to the settlement: the job, the wait for company, and the margin in which nothing is signed."""
    seconds = job_seconds + context.config.settlement.flush_window_seconds
    return context.terms().deadline_margin_slots + context.slots.slots(seconds)


def _is_used_up(context: Context, route: Route, earlier: Sequence[AttemptRow]) -> bool:
    """A route ends with an error that no repetition can mend, or with its number of purchases.

    A refusal that cost nothing, as of a busy provider, is no purchase: it has the longer budget of retries.
    """
    mine = [a for a in earlier if (a.provider, a.model) == (route.provider, route.model)]
    if any(a.error_code is not None and verdict_of(a.error_code) is Verdict.GIVE_UP for a in mine):
        return True
    refused = sum(a.cost_lamports == 0 for a in mine)
    return len(mine) - refused >= route.max_attempts or refused > context.config.policy.max_retries


async def latencies(context: Context, routes: Sequence[Route]) -> dict[Route, float]:
    """Measured p95 in seconds of the routes that have run at least five jobs; a few seconds old at most."""
    found = {}
    for route in routes:
        seconds = await measured(context, route.provider, route.model)
        if (p95 := percentile(seconds, 0.95)) is not None:
            found[route] = p95
    return found


async def measured(context: Context, provider: str, model: str) -> Sequence[float]:
    """Seconds of the newest jobs, from the purchase to the answer; none where they are too few to judge by."""

    async def look() -> Sequence[float]:
        seconds = await context.store.read(lambda c: attempts.durations(c, provider, model, MEASURED_JOBS))
        return seconds if len(seconds) >= FEWEST_JOBS else ()

    return await context.latencies.get((provider, model), look)
