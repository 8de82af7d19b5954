"""admitted | claimed -> running: picks a route and buys one job on it.

The intent is committed before the call (law 4). From then on the row is `running`: if this process dies in the call,
whoever finds the attempt `intended` under a lapsed lease knows that the purchase may have happened.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import structlog
from sqlalchemy import Connection

from oracle.core import policy
from oracle.core.backoff import backoff_seconds
from oracle.core.compute import IdempotencyKey, JobHandle, Quote, Task
from oracle.core.errors import OracleError, Verdict, verdict_of
from oracle.core.identity import idempotency_key
from oracle.core.lifecycle import State
from oracle.core.policy import NO_ROUTE_LEFT
from oracle.core.request import Request
from oracle.core.routing import ModelRoutes, Route, percentile, ranked
from oracle.pipeline import inputs, recorded, worker
from oracle.pipeline.admit import affordable, candidates_of, request_of, task_of
from oracle.pipeline.budget import within_budget
from oracle.pipeline.context import Context, key_of
from oracle.pipeline.errors import UNEXPECTED
from oracle.store import attempts, recordings, requests, settlements
from oracle.store.rows import AttemptRow, RecordingRow, RequestRow
from oracle.store.schema import AttemptState

log = structlog.get_logger(__name__)

STATES = (State.ADMITTED, State.CLAIMED)
CALL_SECONDS = 60.0
"""Bound of one purchase call. The lease of the row outlives it (`daemon.lease_seconds`)."""


async def submit(context: Context, row: RequestRow) -> None:
    if row.claim_required and row.state is State.ADMITTED:
        await claim(context, row)
    else:
        await buy(context, row)


async def claim(context: Context, row: RequestRow) -> None:
    """Nothing is bought on a queue with claims before the claim is confirmed."""
    now_ms = context.clock.now_ms()

    def write(c: Connection) -> None:
        requests.move(c, row, State.CLAIMING, now_ms=now_ms, slot=context.slot())
        settlements.intend(
            c,
            request_id=row.id,
            kind="claim",
            args={},
            operator=str(context.signer.public_key),
            deadline_slot=row.deadline_slot,
            now_ms=now_ms,
        )

    await context.write(write, "settlements")


async def buy(context: Context, row: RequestRow) -> None:
    request = request_of(row)
    content, _ = await inputs.load(context, request)
    earlier = await context.store.read(lambda c: attempts.of(c, row.id)) if row.attempts_made else []
    route, quote = await choose(context, row, request, task_of(request, content), earlier)
    task = task_of(request, content, route)
    number = row.attempts_made + 1
    key = idempotency_key(key_of(row), 0, number)
    now_ms = context.clock.now_ms()

    def intend(c: Connection) -> tuple[RequestRow, AttemptRow] | RecordingRow:
        if (recording := recordings.find(c, row.address)) is not None:
            return recording
        within_budget(c, context, quote.cost_lamports, now_ms)
        intended = attempts.intend(
            c,
            row,
            lane=0,
            number=number,
            provider=route.provider,
            model=route.model,
            idempotency_key=key,
            quoted_lamports=quote.cost_lamports,
            now_ms=now_ms,
        )
        moved = requests.move(
            c,
            row,
            State.RUNNING,
            now_ms=now_ms,
            slot=context.slot(),
            detail=f"{route.provider} {route.model}",
            keep_lease=True,
        )
        return moved, intended

    intent = await context.store.write(intend)
    if isinstance(intent, RecordingRow):
        await recorded.take(context, row, request, intent)
        return
    running, intended = intent

    async def purchase(context: Context, running: RequestRow) -> None:
        await call(context, running, intended, task, key)

    # The row that we hold is another one now: with the old one a failure could not be noted.
    await worker.attempt(context, running, purchase)


async def choose(
    context: Context, row: RequestRow, request: Request, task: Task, earlier: Sequence[AttemptRow]
) -> tuple[Route, Quote]:
    """The best route that is not used up, that the fee covers and the deadline allows. Raises an ORC-POLICY code."""
    left = tuple(route for route in candidates_of(context, request) if not _is_used_up(context, route, earlier))
    if not left:
        raise NO_ROUTE_LEFT(", ".join(sorted({f"{a.provider}: {a.error_code}" for a in earlier})))
    quotes = await affordable(context, request, left, task)
    seconds = await latencies(context, left)
    strategy = context.routes.get(request.body.model, ModelRoutes(())).strategy
    margin_slots = context.terms().deadline_margin_slots
    too_late: OracleError | None = None
    for route in ranked(left, strategy, quotes, seconds):
        expected = seconds.get(route, quotes[route].expected_seconds or 0.0)
        try:
            policy.check_deadline(row.deadline_slot, context.slot(), margin_slots + context.slots.slots(expected))
        except OracleError as error:
            too_late = error
            continue
        return route, quotes[route]
    raise too_late or NO_ROUTE_LEFT("no route within its price cap")


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
        p95 = await context.latencies.get(
            (route.provider, route.model),
            lambda route=route: measured_p95(context, route),  # type: ignore[misc]
        )
        if p95 is not None:
            found[route] = p95
    return found


async def measured_p95(context: Context, route: Route) -> float | None:
    seconds = await context.store.read(lambda c: attempts.durations(c, route.provider, route.model, 100))
    return percentile(seconds, 0.95) if len(seconds) >= 5 else None


async def call(
    context: Context, row: RequestRow, attempt: AttemptRow, task: Task, key: IdempotencyKey, *, is_repeat: bool = False
) -> None:
    """The side effect itself. Only an answer that says so makes it failed; everything else leaves it unknown.

    A repetition counts as a failure of the row, so that what is lost every time does not go on for ever.
    """
    try:
        async with asyncio.timeout(CALL_SECONDS):
            handle = await context.providers[attempt.provider].submit(task, key)
    except TimeoutError:
        await unknown(context, row, attempt, "no answer in time")
    except OracleError as error:
        if error.verdict is Verdict.UNKNOWN:
            await unknown(context, row, attempt, str(error))
        else:
            await not_bought(context, row, attempt, error)
    except Exception:
        log.exception("purchase failed", provider=attempt.provider)
        await unknown(context, row, attempt, str(UNEXPECTED("submit")))
    else:
        await bought(context, row, attempt, handle, is_repeat=is_repeat)


async def bought(
    context: Context, row: RequestRow, attempt: AttemptRow, handle: JobHandle, *, is_repeat: bool = False
) -> None:
    """The job's id is a fact, written on its own: even if the row is lost, as to a requester who cancels, whoever
    cleans up needs the id to cancel what is being paid for."""
    now_ms = context.clock.now_ms()
    log.info("job bought", provider=attempt.provider, job=handle.job_id, attempt=attempt.number)
    started = await context.store.write(
        lambda c: attempts.started(c, attempt.id, handle.job_id, dict(handle.detail), now_ms)
    )
    if started.state is not AttemptState.RUNNING:
        # The attempt was given up while its call was under way: nobody waits for this job.
        await context.providers[attempt.provider].cancel(handle)
        return
    wake_at_ms = now_ms + (int(backoff_seconds(row.retries, context.clock.jitter()) * 1000) if is_repeat else 0)
    await context.write(
        lambda c: requests.postpone(c, row, now_ms=now_ms, wake_at_ms=wake_at_ms, count=is_repeat), State.RUNNING
    )


async def unknown(context: Context, row: RequestRow, attempt: AttemptRow, why: str) -> None:
    now_ms = context.clock.now_ms()
    log.warning("purchase unknown", provider=attempt.provider, attempt=attempt.number, why=why)
    await context.store.write(lambda c: attempts.unknown(c, attempt.id, now_ms, detail=why))
    await context.write(
        lambda c: requests.postpone(c, row, now_ms=now_ms, wake_at_ms=now_ms + 1_000, count=False), State.RUNNING
    )


async def not_bought(context: Context, row: RequestRow, attempt: AttemptRow, error: OracleError) -> None:
    """The provider refused, so nothing was bought: the next attempt, here or on the next route."""
    log.info("purchase refused", provider=attempt.provider, code=error.code, detail=error.detail)
    await end_attempt(context, row, attempt, error, cost_lamports=0)


async def end_attempt(
    context: Context,
    row: RequestRow,
    attempt: AttemptRow,
    error: OracleError,
    *,
    cost_lamports: int | None,
    state: str = "failed",
    **columns: Any,
) -> None:
    """The attempt is over without an answer; the request goes back to be bought for again.

    `cost_lamports` is what it cost all the same; None where the provider does not say: the quote then stays booked.
    """
    now_ms = context.clock.now_ms()
    wait = 0.0
    if error.verdict is not Verdict.GIVE_UP:
        wait = backoff_seconds(attempt.number - 1, context.clock.jitter(), told=error.retry_after_seconds)
    back = State.CLAIMED if row.claim_required else State.ADMITTED

    def write(c: Connection) -> None:
        attempts.finish(
            c,
            attempt.id,
            state,
            cost_lamports=cost_lamports,
            error_code=error.code,
            error_detail=error.detail,
            now_ms=now_ms,
        )
        requests.move(
            c,
            row,
            back,
            now_ms=now_ms,
            slot=context.slot(),
            code=error.code,
            detail=error.detail,
            wake_at_ms=now_ms + int(wait * 1000),
            **columns,
        )

    await context.write(write, State.ADMITTED)


def task_again(context: Context, request: Request, content: bytes, attempt: AttemptRow) -> Task:
    """The task of an attempt that exists, for a repetition of its very purchase."""
    routes = (r for r in candidates_of(context, request) if (r.provider, r.model) == (attempt.provider, attempt.model))
    route = next(routes, None)
    task = task_of(request, content, route)
    return task if route else replace(task, model=attempt.model)
