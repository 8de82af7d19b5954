"""seen | admitted | claimed -> running: picks a route and buys one job on it.

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

from oracle.core.backoff import backoff_seconds
from oracle.core.compute import IdempotencyKey, JobHandle, Quote, Task
from oracle.core.errors import OracleError, Verdict
from oracle.core.identity import idempotency_key
from oracle.core.lifecycle import State
from oracle.core.policy import BUDGET_EXHAUSTED, BUDGET_TOO_SMALL
from oracle.core.request import Request
from oracle.core.routing import Route
from oracle.pipeline import budget, choice, inputs, recorded, rehearsal, worker
from oracle.pipeline.admit import candidates_of, content_to_judge, task_of
from oracle.pipeline.context import Context, key_of
from oracle.pipeline.decoded import request_of
from oracle.pipeline.errors import UNEXPECTED
from oracle.providers.errors import NO_ANSWER
from oracle.store import attempts, recordings, requests, settlements
from oracle.store.changes import Move, Postponement, Purchase, Started
from oracle.store.rows import AttemptRow, RecordingRow, RequestRow
from oracle.store.schema import AttemptState

log = structlog.get_logger(__name__)

STATES = (State.ADMITTED, State.CLAIMED)
NO_BUDGET = (BUDGET_EXHAUSTED, BUDGET_TOO_SMALL)
CALL_SECONDS = 60.0
"""Bound of one purchase call. The lease of the row outlives it (`daemon.lease_seconds`)."""


async def submit(context: Context, row: RequestRow) -> None:
    if row.claim_required and row.state is State.ADMITTED:
        await claim(context, row)
    elif row.state is State.SEEN:
        await buy_at_once(context, row)
    else:
        await buy(context, row)


async def claim(context: Context, row: RequestRow) -> None:
    """Nothing is bought on a queue with claims before the claim is confirmed, and nothing is claimed that could not be
    bought in time now."""
    request = request_of(row)
    content = await content_to_judge(context, request)
    await choice.viable(context, row, request, task_of(request, content), await earlier_of(context, row))
    await rehearsal.rehearse_again(context, row)
    await intend_claim(context, row)


async def intend_claim(context: Context, row: RequestRow) -> None:
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


async def buy_at_once(context: Context, row: RequestRow) -> None:
    """For what has just been admitted. Where that fails, it is tried again as admitted, and not judged and simulated
    anew for each time that it is tried."""
    try:
        await buy(context, row)
    except OracleError as error:
        log.info("not bought at once", code=error.code, detail=error.detail)
        await context.move(row, State.ADMITTED)


async def buy(context: Context, row: RequestRow) -> None:
    request = request_of(row)
    content, _ = await inputs.load(context, request)
    refusals: list[OracleError] = []
    routes = await choice.viable(context, row, request, task_of(request, content), await earlier_of(context, row))
    await rehearsal.rehearse_again(context, row)
    for route, quote in routes:
        if not context.breakers.begin(route.provider):
            refusals.append(choice.paused(context, [route]))
            continue
        try:
            intent = await intend(context, row, route, quote)
        except OracleError as error:
            if error.error not in NO_BUDGET:
                raise
            refusals.append(error)
            continue
        if isinstance(intent, RecordingRow):
            await recorded.take(context, row, request, intent)
        else:
            running, attempt = intent
            # The row that we hold is another one now: with the old one a failure could not be noted.
            await worker.attempt(context, running, buying(attempt, task_of(request, content, route)))
        return
    raise next((error for error in refusals if error.verdict is Verdict.RETRY), refusals[0])


async def earlier_of(context: Context, row: RequestRow) -> list[AttemptRow]:
    return await context.store.read(lambda c: attempts.of(c, row.id)) if row.attempts_made else []


async def intend(
    context: Context, row: RequestRow, route: Route, quote: Quote
) -> tuple[RequestRow, AttemptRow] | RecordingRow:
    """Write the intent to buy, unless the answer is there already. Raises ORC-POLICY-018 or 022."""
    number = row.attempts_made + 1
    now_ms = context.clock.now_ms()

    key = idempotency_key(row.operator, key_of(row), 0, number)
    attempt = Purchase(row, 0, route.provider, route.model, key, quote.cost_lamports, now_ms, number)
    # The lease outlives the call, whatever has been waited for before it.
    columns = {"lease_until_ms": now_ms + context.lease_ms, "attempts_made": number}
    # What has been admitted just now is only `seen` in the record.
    through = State.ADMITTED if row.state is State.SEEN else None
    move = Move(
        row,
        State.RUNNING,
        now_ms,
        context.slot(),
        detail=label(route),
        keep_lease=True,
        columns=columns,
        through=through,
    )
    return await context.store.write_together(intend_all, (context, attempt, move))


def intend_all(
    c: Connection, wanted: Sequence[tuple[Context, Purchase, Move]]
) -> list[tuple[RequestRow, AttemptRow] | RecordingRow]:
    """Attempts that are about to be bought, within the budgets; where an answer of the gateway waits, that instead."""
    waiting = recordings.find_all(c, [attempt.row.address for _, attempt, _ in wanted])
    bought = [each for each in wanted if each[1].row.address not in waiting]
    for context, attempt, _ in bought:
        budget.book_purchase(c, context, attempt)
    moved = requests.move_all(c, [move for _, _, move in bought])
    intended = attempts.intend_all(c, [attempt for _, attempt, _ in bought])
    intents = iter(zip(moved, intended, strict=True))
    return [waiting.get(attempt.row.address) or next(intents) for _, attempt, _ in wanted]


def label(route: Route) -> str:
    """What the journal says of a purchase."""
    return f"{route.provider} {route.model}"


def buying(intended: AttemptRow, task: Task) -> worker.Step:
    """The step that buys what is written down as intended."""

    async def buying(context: Context, running: RequestRow) -> None:
        await call(context, running, intended, task, IdempotencyKey(intended.idempotency_key))

    return buying


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
        context.breakers.failed(attempt.provider, NO_ANSWER("no answer in time"), row.address)
        await unknown(context, row, attempt, "no answer in time")
    except OracleError as error:
        context.breakers.failed(attempt.provider, error, row.address)
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
    """The job's id is a fact, written whoever holds the row: even if that is lost, as to a requester who cancels,
    whoever cleans up needs the id to cancel what is being paid for."""
    now_ms = context.clock.now_ms()
    log.info("job bought", provider=attempt.provider, job=handle.job_id, attempt=attempt.number)
    started = Started(attempt.id, handle.job_id, dict(handle.detail), now_ms, is_anew=is_repeat)
    wake_at_ms = now_ms + (int(backoff_seconds(row.retries, context.clock.jitter()) * 1000) if is_repeat else 0)
    kept_until_ms = context.kept_until_ms(row, now_ms)
    later = Postponement(row, now_ms, wake_at_ms, is_failure=is_repeat, kept_until_ms=kept_until_ms)
    if await context.store.write_together(bought_all, (started, later)) is not AttemptState.RUNNING:
        # The attempt was given up while its call was under way: nobody waits for this job.
        await context.providers[attempt.provider].cancel(handle)
        return
    context.bells.ring(State.RUNNING)


def bought_all(c: Connection, jobs: Sequence[tuple[Started, Postponement]]) -> list[AttemptState]:
    """The state that each attempt is in now; the rows of those that run are put off, where they are held still."""
    states = attempts.started_all(c, [started for started, _ in jobs])
    running = [later for (_, later), state in zip(jobs, states, strict=True) if state is AttemptState.RUNNING]
    requests.postpone_held(c, running)
    return states


async def unknown(context: Context, row: RequestRow, attempt: AttemptRow, why: str) -> None:
    now_ms = context.clock.now_ms()
    log.warning("purchase unknown", provider=attempt.provider, attempt=attempt.number, why=why)
    kept_until_ms = context.kept_until_ms(row, now_ms)
    later = Postponement(row, now_ms, now_ms + 1_000, is_failure=False, kept_until_ms=kept_until_ms)
    await context.write(lambda c: attempts.unknown(c, attempt.id, later, detail=why), State.RUNNING)


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
    wait = await choice.pause_seconds(context, row, attempt, error)
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
        if attempts.live(c, row.id):
            # A rival of it goes on: the request is still running.
            kept_until_ms = context.kept_until_ms(row, now_ms)
            requests.postpone(
                c, row, now_ms=now_ms, wake_at_ms=now_ms, is_failure=False, kept_until_ms=kept_until_ms, **columns
            )
            return
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

    await context.write(write, State.ADMITTED, State.RUNNING)


def task_again(context: Context, request: Request, content: bytes, attempt: AttemptRow) -> Task:
    """The task of an attempt that exists, for a repetition of its very purchase."""
    routes = (r for r in candidates_of(context, request) if (r.provider, r.model) == (attempt.provider, attempt.model))
    route = next(routes, None)
    task = task_of(request, content, route)
    return task if route else replace(task, model=attempt.model)
