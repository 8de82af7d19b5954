"""running -> computed: asks after jobs in bulk, fetches what is done, and finds out what became of the unknown."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Coroutine, Mapping, Sequence

import structlog
from sqlalchemy import Connection

from oracle.core import policy
from oracle.core.backoff import backoff_seconds
from oracle.core.compute import (
    Absent,
    CannotTell,
    Compute,
    Found,
    IdempotencyKey,
    JobHandle,
    JobState,
    JobStatus,
    Output,
    Recovery,
    let_go,
)
from oracle.core.errors import OracleError
from oracle.core.lifecycle import State
from oracle.core.policy import JOB_TIMED_OUT, MODEL_SUBSTITUTED, OUTPUT_EMPTY, PURCHASE_ABSENT, PURCHASE_UNCONFIRMED
from oracle.core.request import Reason
from oracle.core.routing import is_same_model
from oracle.pipeline import hedge, inputs, submit, worker
from oracle.pipeline.answer import Answer, Kept, keep_all, receipt_of
from oracle.pipeline.context import Context
from oracle.pipeline.decoded import request_of
from oracle.pipeline.errors import UNEXPECTED, UNKNOWN_PROVIDER
from oracle.pipeline.notes import noted
from oracle.pipeline.race import Race
from oracle.store import attempts, requests
from oracle.store.changes import Finish, Postponement
from oracle.store.rows import AttemptRow, GatewayJobRow, RequestRow
from oracle.store.schema import AttemptState

log = structlog.get_logger(__name__)

STATES = (State.RUNNING,)
BATCH = 2_000
AT_ONCE = 250
"""How many jobs are looked at in one turn of the event loop, and written by one statement."""

MAX_REPEATS = 2
"""How often one purchase is repeated where that is safe, before its attempt counts as failed."""

GRACE_SECONDS = 6.0
"""A provider that watches the clock itself, as `providers.chat` does to within five seconds, ends its job first, and
knows what has become of it. This is for those that do not."""

MAX_OUTPUT_BYTES = 4 * 1024 * 1024
Job = tuple[Race, AttemptRow]


async def run(context: Context) -> None:
    """Until the daemon stops: one bulk question a provider and turn, whatever the number of jobs.

    Rows under a step stay leased, so the next turn does not see them, and a slow one keeps nobody waiting.
    """
    under_way: set[asyncio.Task[None]] = set()
    try:
        while not context.stopping.is_set():
            context.pulse("poll")
            rows = await worker.take(context, STATES, BATCH, in_turn=True)
            try:
                found = await steps(context, rows)
            except OracleError as error:
                found = [worker.failed(context, row, error) for row in rows]
            for step in found:
                task = asyncio.ensure_future(step)
                under_way.add(task)
                task.add_done_callback(under_way.discard)
            if not rows:
                await context.bells.wait(State.RUNNING, await worker.nap_seconds(context, STATES))
            elif len(rows) == BATCH:
                # More are due than one question holds. To ask without a rest would take the processor from the other
                # loops, and tell nothing that the next question will not.
                await context.bells.wait("stop", context.config.daemon.poll_interval_seconds)
        if under_way:
            await asyncio.wait(under_way)
    finally:
        for task in under_way:
            task.cancel()


async def steps(context: Context, rows: Sequence[RequestRow]) -> list[Coroutine[None, None, None]]:
    """What is to be done about each row: each step leaves it moved on, or due again."""
    if not rows:
        return []
    live = await context.store.read(lambda c: attempts.live_of_all(c, [row.id for row in rows]))
    by_provider: dict[str, list[Job]] = defaultdict(list)
    found = []
    for row in rows:
        mine = live.get(row.id, [])
        if not mine:
            found.append(guarded(context, row, without_attempt(context, row)))
        elif unserved_by := [attempt for attempt in mine if attempt.provider not in context.providers]:
            found.append(guarded(context, row, unserved(unserved_by[0])))
        elif running := [attempt for attempt in mine if attempt.state is AttemptState.RUNNING]:
            race = Race(row, mine, len(running))
            for attempt in running:
                by_provider[attempt.provider].append((race, attempt))
        else:
            found.append(guarded(context, row, resolve(context, row, mine[0])))
    return found + [ask(context, context.providers[name], jobs) for name, jobs in by_provider.items()]


async def guarded(context: Context, row: RequestRow, step: Awaitable[None]) -> None:
    """One row's step; its failure is its own (law 6)."""

    async def poll(_: Context, __: RequestRow) -> None:
        await step

    await worker.attempt(context, row, poll)


async def unserved(attempt: AttemptRow) -> None:
    raise UNKNOWN_PROVIDER(attempt.provider)


async def without_attempt(context: Context, row: RequestRow) -> None:
    """A running row without a live attempt: nothing is under way, so it is bought for."""
    await context.move(row, State.CLAIMED if row.claim_required else State.ADMITTED)


async def ask(context: Context, provider: Compute, jobs: Sequence[Job]) -> None:
    """One bulk poll, and what follows for each job. A provider that does not answer delays only its own jobs."""
    handles = {handle_of(attempt): (race, attempt) for race, attempt in jobs}
    try:
        async with asyncio.timeout(submit.CALL_SECONDS):
            statuses: Mapping[JobHandle, JobStatus] = await provider.poll(list(handles))
    except TimeoutError:
        statuses = {}
    except OracleError as error:
        log.warning("poll failed", provider=provider.name, code=error.code, detail=error.detail, jobs=len(jobs))
        statuses = {}
    except Exception:
        # Its rows would stay leased, and nobody would look at them before that has lapsed.
        log.exception("poll failed", provider=provider.name, jobs=len(jobs))
        statuses = {}
    unchanged: list[RequestRow] = []
    begun: list[asyncio.Task[None]] = []
    try:
        for at, (handle, (race, attempt)) in enumerate(handles.items(), 1):
            status = statuses.get(handle)
            tells = is_telling(context, race.row, attempt, status)
            if race.hears(tells):
                if tells or needs_thought(context, race):
                    step = guarded(context, race.row, follow(context, provider, race, attempt, handle, status))
                    begun.append(asyncio.ensure_future(step))
                else:
                    unchanged.append(race.row)
            if at % AT_ONCE == 0:
                # The steps begin here, a few at a time: thousands in one turn of the event loop would stall the others.
                await asyncio.sleep(0)
        await asyncio.gather(look_again_at_all(context, unchanged), *begun)
    except asyncio.CancelledError:
        for task in begun:
            task.cancel()
        raise


def is_telling(context: Context, row: RequestRow, attempt: AttemptRow, status: JobStatus | None) -> bool:
    """Whether something follows from it, besides another look later."""
    is_over = status is not None and status.state not in (JobState.QUEUED, JobState.RUNNING)
    return is_over or _is_overdue(context, row, attempt)


def needs_thought(context: Context, race: Race) -> bool:
    """Whether there may be something to do for a request of whose jobs none has anything to tell."""
    return race.to_resolve(context.clock.now_ms()) is not None or hedge.is_possible(context, race.row)


async def follow(
    context: Context,
    provider: Compute,
    race: Race,
    attempt: AttemptRow,
    handle: JobHandle,
    status: JobStatus | None,
) -> None:
    row = race.row
    match status.state if status else None:
        case JobState.SUCCEEDED:
            await collect(context, row, attempt, await provider.fetch(handle))
            let_go(provider, handle)
            if len(race.live) > 1:
                # Its rivals are orphans now.
                context.bells.ring("ended")
        case JobState.FAILED | JobState.CANCELLED:
            assert status is not None
            error = status.error or policy.JOB_FAILED(status.message)
            context.breakers.failed(attempt.provider, error, row.address)
            log.info("job failed", provider=attempt.provider, job=attempt.job_id, code=error.code)
            await submit.end_attempt(context, row, attempt, error, cost_lamports=None)
        case JobState.LOST:
            assert status is not None
            if status.error is not None:
                context.breakers.failed(attempt.provider, status.error, row.address)
            await resolve(context, row, attempt, status.message)
        case _ if _is_overdue(context, row, attempt):
            await provider.cancel(handle)
            error = JOB_TIMED_OUT(f"{attempt.provider} job {attempt.job_id}")
            context.breakers.failed(attempt.provider, error, row.address)
            await submit.end_attempt(context, row, attempt, error, cost_lamports=None, state="cancelled")
        case _ if (lost := race.to_resolve(context.clock.now_ms())) is not None:
            await resolve(context, row, lost)
        case _:
            if not (hedge.is_possible(context, row) and await hedge.rival(context, row, race.live)):
                await look_again(context, row)


def _is_overdue(context: Context, row: RequestRow, attempt: AttemptRow) -> bool:
    routes = context.routes.get(row.model)
    limits = [
        route.timeout_seconds
        for route in (routes.routes if routes else ())
        if (route.provider, route.model) == (attempt.provider, attempt.model)
    ]
    began_ms = attempt.started_at_ms or attempt.intended_at_ms
    limit_seconds = limits[0] if limits else 3600.0
    return context.clock.now_ms() - began_ms > (limit_seconds + GRACE_SECONDS) * 1000


async def look_again(context: Context, row: RequestRow) -> None:
    await context.store.write_together(requests.postpone_all, later(context, row))


async def look_again_at_all(context: Context, rows: Sequence[RequestRow]) -> None:
    """`look_again` for the many of which there is nothing new: a write for hundreds of them, in place of a step each.

    A row that is held no more is in other hands, and those look at it.
    """
    for start in range(0, len(rows), AT_ONCE):
        some = rows[start : start + AT_ONCE]

        async def note(some: Sequence[RequestRow] = some) -> None:
            put_off = [later(context, row) for row in some]
            await context.store.write(lambda c: requests.postpone_held(c, put_off))

        await noted(context, note)


def later(context: Context, row: RequestRow) -> Postponement:
    """Another look after the interval; nothing has failed."""
    now_ms = context.clock.now_ms()
    wake_at_ms = now_ms + int(context.config.daemon.poll_interval_seconds * 1000)
    kept_until_ms = context.kept_until_ms(row, now_ms)
    return Postponement(row, now_ms, wake_at_ms, is_failure=False, kept_until_ms=kept_until_ms)


async def collect(context: Context, row: RequestRow, attempt: AttemptRow, output: Output) -> None:
    """The answer, its receipt and the new state in one transaction: from here on nothing is bought again."""
    request = request_of(row)
    problem = unfit(context, row, attempt, output)
    if problem is not None:
        log.warning("output refused", provider=attempt.provider, code=problem.code, detail=problem.detail)
        await submit.end_attempt(context, row, attempt, problem, cost_lamports=output.cost_lamports)
        return
    context.breakers.succeeded(attempt.provider)
    content, origin = await inputs.load(context, request)
    now_ms = context.clock.now_ms()
    answer = Answer(
        content=output.content,
        media_type=output.media_type,
        model_run=output.model_run,
        provider=attempt.provider,
        provider_job_id=attempt.job_id or "",
        submitted_at=attempt.intended_at_ms // 1000,
        completed_at=now_ms // 1000,
    )
    receipt = receipt_of(context, row, request, content, origin, answer)

    end = Finish(attempt.id, AttemptState.SUCCEEDED, output.cost_lamports, now_ms)
    log.info(
        "answer computed",
        provider=attempt.provider,
        model=output.model_run,
        output_hash=answer.sha256,
        **({"output": output.content.decode(errors="replace")} if context.config.log.show_content else {}),
    )
    await context.store.write_together(collect_all, (end, Kept(row, answer, receipt, now_ms, context.slot())))
    context.bells.ring(State.COMPUTED)


def collect_all(c: Connection, collected: Sequence[tuple[Finish, Kept]]) -> list[None]:
    attempts.finish_all(c, [end for end, _ in collected])
    keep_all(c, [kept for _, kept in collected])
    return [None] * len(collected)


def unfit(context: Context, row: RequestRow, attempt: AttemptRow, output: Output) -> OracleError | None:
    """Why an output may not be settled, or None."""
    if not output.content.strip() or len(output.content) > MAX_OUTPUT_BYTES:
        return OUTPUT_EMPTY(f"{len(output.content)} bytes from {attempt.provider}")
    if not is_same_model(attempt.model, output.model_run) and not policy.allows_any_model(request_of(row)):
        return MODEL_SUBSTITUTED(f"{attempt.provider} ran {output.model_run!r} instead of {attempt.model!r}")
    return None


async def resolve(context: Context, row: RequestRow, attempt: AttemptRow, lost_because: str = "") -> None:
    """What became of a purchase whose answer was lost, or of a job that its provider has lost (laws 4 and 5)."""
    provider = context.providers[attempt.provider]
    key = IdempotencyKey(attempt.idempotency_key)
    found = await looked_up(provider, key)
    log.info("purchase looked up", provider=attempt.provider, attempt=attempt.number, found=type(found).__name__)
    match found:
        case Found(handle):
            await submit.bought(context, row, attempt, handle)
        case Absent():
            await submit.end_attempt(context, row, attempt, PURCHASE_ABSENT(attempt.provider), cost_lamports=0)
        case CannotTell(why):
            await cannot_tell(context, provider, row, attempt, key, lost_because or attempt.error_detail or why)


async def looked_up(provider: Compute, key: IdempotencyKey) -> Found | Absent | CannotTell:
    """A look-up that fails, for whatever reason, cannot tell: it is no verdict on what may have been bought (law 5)."""
    try:
        async with asyncio.timeout(submit.CALL_SECONDS):
            return await provider.find(key)
    except OracleError as error:
        return CannotTell(str(error))
    except TimeoutError:
        return CannotTell(f"no answer within {submit.CALL_SECONDS:g} s")
    except Exception:
        log.exception("look-up failed", provider=provider.name)
        return CannotTell(str(UNEXPECTED("find")))


async def cannot_tell(
    context: Context, provider: Compute, row: RequestRow, attempt: AttemptRow, key: IdempotencyKey, why: str
) -> None:
    match provider.capabilities.recovery:
        case Recovery.REPEAT if row.retries >= MAX_REPEATS:
            error = PURCHASE_UNCONFIRMED(f"{attempt.provider} attempt {attempt.number}: {why}")
            await submit.end_attempt(context, row, attempt, error, cost_lamports=None)
        case Recovery.REPEAT:
            request = request_of(row)
            content, _ = await inputs.load(context, request)
            now_ms = context.clock.now_ms()
            # The lease outlives the call, as it did the first time.
            held = await context.store.write(lambda c: requests.renew(c, row, now_ms, context.lease_ms))
            await submit.call(
                context, held, attempt, submit.task_again(context, request, content, attempt), key, is_repeat=True
            )
        case Recovery.LOOK_UP:
            await wait_for_certainty(context, row, attempt, why)
        case Recovery.NEITHER:
            await unconfirmed(context, row, attempt, why)


async def wait_for_certainty(context: Context, row: RequestRow, attempt: AttemptRow, why: str) -> None:
    now_ms = context.clock.now_ms()
    wake_at_ms = now_ms + int(backoff_seconds(row.retries, context.clock.jitter()) * 1000)
    soon_ms = now_ms + int(context.config.daemon.poll_interval_seconds * 1000)

    def write(c: Connection) -> None:
        has_rivals = len(attempts.live(c, row.id)) > 1
        attempts.postpone(c, attempt.id, wake_at_ms)
        requests.postpone(
            c,
            row,
            now_ms=now_ms,
            # Its rivals are looked at as before.
            wake_at_ms=soon_ms if has_rivals else wake_at_ms,
            code=PURCHASE_UNCONFIRMED.code,
            detail=why,
            kept_until_ms=context.kept_until_ms(row, now_ms),
        )

    await context.store.write(write)


async def unconfirmed(context: Context, row: RequestRow, attempt: AttemptRow, why: str) -> None:
    """It may have been paid, and nobody can say: its cost stays booked, and it is repeated within its bound."""
    error = PURCHASE_UNCONFIRMED(f"{attempt.provider} attempt {attempt.number}: {why}")
    rivals = await context.store.read(lambda c: len(attempts.live(c, row.id)) - 1)
    if rivals > 0 or row.unconfirmed_purchases < context.config.policy.max_unconfirmed_purchases:
        await submit.end_attempt(
            context, row, attempt, error, cost_lamports=None, unconfirmed_purchases=row.unconfirmed_purchases + 1
        )
        return
    now_ms = context.clock.now_ms()

    def write(c: Connection) -> None:
        attempts.finish(
            c,
            attempt.id,
            "failed",
            cost_lamports=None,
            error_code=error.code,
            error_detail=error.detail,
            now_ms=now_ms,
        )
        requests.move(
            c,
            row,
            State.REFUSED,
            now_ms=now_ms,
            slot=context.slot(),
            code=error.code,
            detail=error.detail,
            reject_reason=int(Reason.PURCHASE_UNCONFIRMED),
        )

    await context.write(write, State.COMPUTED)


def handle_of(attempt: AttemptRow | GatewayJobRow) -> JobHandle:
    assert attempt.job_id is not None
    return JobHandle(attempt.provider, attempt.job_id, attempt.job_detail or {})
