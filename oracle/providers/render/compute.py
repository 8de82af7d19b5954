"""`Compute` on Render's compute subnet: a container with a model server for each inference, ended once it has answered.

What tells everything is at Dispersed: the purchase's key is the job's title, and the task lies in its environment. So a
process that starts anew goes on with the same container. Answers are in memory alone, until `release` says otherwise.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from decimal import Decimal
from typing import Final, TypeVar

import structlog

from oracle.core.compute import (
    Absent,
    CannotTell,
    Capabilities,
    Found,
    IdempotencyKey,
    JobHandle,
    JobState,
    JobStatus,
    Money,
    Output,
    Quote,
    Recovery,
    Task,
)
from oracle.core.errors import OracleError
from oracle.providers import errors
from oracle.providers.failures import quotable
from oracle.providers.pricing import NO_RATES, Rates, usd_quote, usd_to_lamports
from oracle.providers.render import container
from oracle.providers.render.api import DispersedApi, Job, Phase, Run
from oracle.providers.render.container import Terms
from oracle.providers.render.listing import Listing, Snapshot
from oracle.providers.render.offers import Offers
from oracle.providers.render.server import Server, answer_of

log = structlog.get_logger(__name__)

_T = TypeVar("_T")

LIST_LAG_SECONDS: Final = 60.0
"""How long a job that exists may be missing from the list. Nothing is documented; a stalled control plane is known."""

_KEPT: Final = 1000
_HOUR: Final = Decimal(3600)
_SWEEP_SECONDS: Final = 300.0
_END_TRIES: Final = 10
_CLOSING_SECONDS: Final = 5.0
"""So long `close` waits for containers to be ended. What is not ended by then is ended by the next daemon."""


class RenderCompute:
    """Implements `Compute` and `Lingering`.

    `serve` connects to a container's address with the key that its server asks for.
    """

    # The container is reached over plain HTTP (§6): whoever is on the way can read, and so it counts as public.
    capabilities = Capabilities(recovery=Recovery.LOOK_UP, cancel=True, prompts_public=True)

    def __init__(
        self,
        name: str,
        api: DispersedApi,
        terms: Terms,
        offers: Offers,
        listing: Listing,
        serve: Callable[[str, str], Server],
        *,
        secret: str,
        rates: Rates = NO_RATES,
        look_seconds: float = 5.0,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.name = name
        self._api = api
        self._terms = terms
        self._offers = offers
        self._listing = listing
        self._serve = serve
        self._secret = secret
        self._rates = rates
        self._look_seconds = look_seconds
        self._clock = clock
        self._now = now
        self._sleep = sleep
        self._asked_at: OrderedDict[str, float] = OrderedDict()
        self._asking: dict[str, asyncio.Task[Output | OracleError]] = {}
        self._outputs: OrderedDict[str, Output] = OrderedDict()
        self._condemned: OrderedDict[str, OracleError] = OrderedDict()
        self._ending: set[asyncio.Task[None]] = set()
        self._swept_at: float | None = None

    async def quote(self, task: Task) -> Quote:
        """The cost of the whole time that the task allows; only the time until the answer is paid."""
        self._check(task)
        await self._sweep()
        offer = await self._offers.best()
        usd = offer.usd_per_hour * Decimal(str(task.timeout_seconds)) / _HOUR
        return usd_quote(usd, self._rates, self._terms.expected_seconds)

    async def submit(self, task: Task, key: IdempotencyKey) -> JobHandle:
        self._check(task)
        offer = await self._offers.best()
        body = container.order(
            task,
            key,
            self._terms,
            gpu_registry_uuid=offer.gpu_registry_uuid,
            gpu_name=offer.gpu_name,
            secret=self._secret,
            now=self._now(),
        )
        self._asked_at.pop(key, None)
        private = tuple(message.content for message in task.messages)
        return self._handle(await self._api.create(body, private))

    async def find(self, key: IdempotencyKey) -> Found | Absent | CannotTell:
        """Search the account's jobs for the title. Absence is proof only once the list has had time to learn of it."""
        asked_at = self._asked_at.get(key)
        if asked_at is None:
            asked_at = self._clock()
            _keep(self._asked_at, key, asked_at)
        snapshot = await self._listing.snapshot()
        if (job := _first(snapshot, container.title_of(key))) is not None:
            return Found(self._handle(job))
        if snapshot.began_at - asked_at >= LIST_LAG_SECONDS:
            return Absent()
        return CannotTell("no job has this title yet")

    async def poll(self, handles: Sequence[JobHandle]) -> Mapping[JobHandle, JobStatus]:
        listed = await self._listing.among_the_newest([handle.job_id for handle in handles])
        await self._end_doubles(handles, listed)
        statuses = await asyncio.gather(*(self._status_of(handle, listed) for handle in handles))
        return dict(zip(handles, statuses, strict=True))

    async def fetch(self, handle: JobHandle) -> Output:
        output = self._outputs.get(handle.job_id)
        if output is None:
            raise self._condemned.get(handle.job_id) or errors.JOB_UNKNOWN(f"no answer of job {handle.job_id} is here")
        return output

    async def cancel(self, handle: JobHandle) -> None:
        """End the container; the time it ran is paid. Raises where it may still be running."""
        self._forget(handle.job_id)
        if not await self._api.cancel(handle.job_id):
            job = await self._api.job(handle.job_id)
            if job is not None and not job.phase.has_ended and job.phase is not Phase.ENDING:
                raise errors.UNAVAILABLE(f"job {handle.job_id} was not cancelled and has not ended")

    def release(self, handle: JobHandle) -> None:
        """Not before: a process that dies with the answer in its memory must find the container, and ask it again."""
        ending = asyncio.create_task(self._end(handle.job_id), name=f"{self.name} end {handle.job_id}")
        self._ending.add(ending)
        ending.add_done_callback(self._ending.discard)

    async def balance(self) -> Money | None:
        """Not known: the ledger's rows are documented nowhere (§3)."""
        return None

    async def probe(self) -> None:
        await self._api.jobs(1)

    async def models(self) -> Sequence[str]:
        return self._terms.models

    async def close(self) -> None:
        """Stop asking, and let the containers that have answered be ended."""
        for asking in self._asking.values():
            asking.cancel()
        await asyncio.gather(*self._asking.values(), return_exceptions=True)
        if self._ending:
            await asyncio.wait(self._ending, timeout=_CLOSING_SECONDS)
        for ending in list(self._ending):
            ending.cancel()
        await asyncio.gather(*self._ending, return_exceptions=True)
        await self._api.close()

    def _check(self, task: Task) -> None:
        if task.private:
            raise errors.PRIVATE_REFUSED(f"{self.name} is reached over plain HTTP")
        if self._terms.models and task.model not in self._terms.models:
            raise errors.MODEL_UNAVAILABLE(f"{self.name} is not configured for {task.model!r}")

    async def _status_of(self, handle: JobHandle, listed: Mapping[str, Job]) -> JobStatus:
        """One job's status; what goes wrong while it is asked for says nothing about the job."""
        if handle.job_id in self._outputs:
            return JobStatus(JobState.SUCCEEDED)
        try:
            job = listed.get(handle.job_id) or await self._api.job(handle.job_id)
            if job is None:
                lost = errors.JOB_UNKNOWN(f"the account has no job {handle.job_id}")
                return JobStatus(JobState.LOST, lost, str(lost))
            if job.phase.has_ended or job.phase is Phase.ENDING:
                return self._ended(handle, job)
            if (error := self._condemned.get(handle.job_id)) is not None:
                return await self._abandon(handle, error)
            if job.phase is Phase.WAITING:
                return await self._waiting(handle, job)
            return await self._running(handle, job)
        except OracleError as error:
            return JobStatus(JobState.RUNNING, message=f"cannot be asked after: {error}")

    async def _waiting(self, handle: JobHandle, job: Job) -> JobStatus:
        # Dispersed itself gives up after the same time; this is for when it does not.
        if self._age_seconds(job) > self._terms.max_queue_seconds + LIST_LAG_SECONDS:
            return await self._abandon(handle, errors.NOT_STARTED("no node took it"))
        return JobStatus(JobState.QUEUED)

    async def _running(self, handle: JobHandle, job: Job) -> JobStatus:
        asking = self._asking.get(job.uuid)
        if asking is None:
            runs = await self._api.runs(job.uuid)
            run = next((run for run in runs if not run.phase.has_ended), None)
            if run is not None and run.usd_per_hour is not None and run.usd_per_hour > self._offers.max_usd_per_hour:
                return await self._abandon(handle, errors.RATE_ABOVE_CAP(f"{run.usd_per_hour} USD an hour"))
            address = run.addresses.get(str(self._terms.port)) if run else None
            if run is not None and address is not None:
                await self._ask(job, run, address)
        elif asking.done():
            return await self._answered(handle, asking.result())
        if job.uuid not in self._asking and self._age_seconds(job) > self._time_to_serve():
            return await self._abandon(handle, errors.NEVER_SERVED("no address"))
        return JobStatus(JobState.RUNNING)

    async def _ask(self, job: Job, run: Run, address: str) -> None:
        whole = job if job.environment is not None else await self._api.job(job.uuid)
        task = container.task_in(whole.environment if whole else None)
        key = container.key_in(job.title)
        if task is None or key is None:
            _keep(self._condemned, job.uuid, errors.OUTPUT_DAMAGED(f"job {job.uuid} does not hold its task"))
            return
        server = self._serve(address, container.server_key(key, self._secret))
        limit = max(1.0, job.created_at + self._time_to_serve() + task.timeout_seconds - self._now())
        self._asking[job.uuid] = asyncio.create_task(
            self._answer(job, run, server, task, limit), name=f"{self.name} {job.uuid}"
        )

    async def _answer(self, job: Job, run: Run, server: Server, task: Task, limit: float) -> Output | OracleError:
        """What the container says, or why it says nothing. Nothing escapes."""
        asked_at = self._now()
        try:
            async with asyncio.timeout(limit):
                said = await answer_of(server, task, look_seconds=self._look_seconds, sleep=self._sleep)
        except TimeoutError:
            return errors.NEVER_SERVED(f"no answer in {limit:.0f} s")
        except OracleError as error:
            return error
        except Exception as error:
            # The type alone is told: a message could hold the prompt.
            return errors.HOST_FAILED(f"unexpected {type(error).__name__}")
        seconds = self._now() - (run.started_at or job.created_at or asked_at)
        usd = None if run.usd_per_hour is None else run.usd_per_hour * Decimal(str(max(0.0, seconds))) / _HOUR
        return Output(
            content=said.text.encode(),
            model_run=said.model,
            cost=None if usd is None else Money(float(usd), "USD"),
            cost_lamports=self._lamports(usd),
            input_tokens=said.input_tokens,
            output_tokens=said.output_tokens,
            started_at=asked_at,
            finished_at=self._now(),
            finish_reason="length" if said.finish_reason == "length" else "stop",
        )

    async def _answered(self, handle: JobHandle, outcome: Output | OracleError) -> JobStatus:
        del self._asking[handle.job_id]
        if isinstance(outcome, OracleError):
            return await self._abandon(handle, outcome)
        _keep(self._outputs, handle.job_id, outcome)
        return JobStatus(JobState.SUCCEEDED)

    def _ended(self, handle: JobHandle, job: Job) -> JobStatus:
        """A job that is over, or on its way there, without an answer that we have read."""
        asking = self._asking.get(job.uuid)
        if asking is not None and asking.done() and isinstance(output := asking.result(), Output):
            del self._asking[job.uuid]
            _keep(self._outputs, job.uuid, output)
            return JobStatus(JobState.SUCCEEDED)
        error = self._condemned.get(job.uuid) or _why(job)
        self._forget(job.uuid)
        _keep(self._condemned, job.uuid, error)
        state = JobState.CANCELLED if error.error is errors.JOB_STOPPED else JobState.FAILED
        return JobStatus(state, error, str(error))

    async def _abandon(self, handle: JobHandle, error: OracleError) -> JobStatus:
        """Give a job up. It has failed once it is being ended, for only then may another be bought (law 3)."""
        self._forget(handle.job_id)
        _keep(self._condemned, handle.job_id, error)
        try:
            await self.cancel(handle)
        except OracleError as failure:
            return JobStatus(JobState.RUNNING, message=f"{error}; not ended yet: {failure}")
        return JobStatus(JobState.FAILED, error, str(error))

    async def _end(self, uuid: str) -> None:
        """End a container whose answer is in. The request must not wait for it, but each minute of it costs."""
        for number in range(_END_TRIES):
            try:
                await self.cancel(JobHandle(self.name, uuid))
            except OracleError as error:
                log.warning("container not ended yet", provider=self.name, job=uuid, code=error.code)
                await self._sleep(self._look_seconds * (number + 1))
            else:
                return

    async def _end_doubles(self, handles: Sequence[JobHandle], listed: Mapping[str, Job]) -> None:
        """A purchase that somebody on the way has sent twice made two jobs under one title: the other is ended."""
        ours = {handle.job_id for handle in handles}
        titles = {listed[uuid].title for uuid in ours if uuid in listed}
        for job in listed.values():
            if (
                job.title in titles
                and job.uuid not in ours
                and not job.phase.has_ended
                and job.phase is not Phase.ENDING
            ):
                log.warning("double job ended", provider=self.name, job=job.uuid)
                with contextlib.suppress(OracleError):
                    await self._api.cancel(job.uuid)

    async def _sweep(self) -> None:
        """End what nobody can want any longer: jobs of ours that have outlived what they say themselves (§9)."""
        if self._swept_at is not None and self._clock() - self._swept_at < _SWEEP_SECONDS:
            return
        self._swept_at = self._clock()
        try:
            for job in (await self._listing.snapshot()).jobs:
                if not job.phase.has_ended and container.is_overdue(job.title, job.description, self._now()):
                    log.warning("forgotten container ended", provider=self.name, job=job.uuid)
                    await self._api.cancel(job.uuid)
        except OracleError as error:
            log.warning("forgotten containers not looked for", provider=self.name, code=error.code)

    def _forget(self, uuid: str) -> None:
        asking = self._asking.pop(uuid, None)
        if asking is not None:
            asking.cancel()

    def _handle(self, job: Job) -> JobHandle:
        return JobHandle(self.name, job.uuid, {"title": job.title})

    def _age_seconds(self, job: Job) -> float:
        return self._now() - job.created_at if job.created_at else 0.0

    def _time_to_serve(self) -> float:
        return self._terms.max_queue_seconds + self._terms.max_start_seconds

    def _lamports(self, usd: Decimal | None) -> int | None:
        """None where it cannot be told: the answer is paid for, and a missing price must not lose it."""
        try:
            return None if usd is None else usd_to_lamports(usd, self._rates)
        except OracleError:
            return None


def _first(snapshot: Snapshot, title: str) -> Job | None:
    """The job of this title: a live one before one that has ended, where a purchase was doubled on the way."""
    same = [job for job in snapshot.jobs if job.title == title]
    return min(same, key=lambda job: job.phase.has_ended, default=None)


def _why(job: Job) -> OracleError:
    """Why a job ended without an answer. Which status a time-out ends in is not known, so its reason decides."""
    reason = quotable(job.reason, ())
    if "timed out" in reason.lower():
        is_unassigned = "assign" in reason.lower()
        return errors.NOT_STARTED("no node took it") if is_unassigned else errors.JOB_TIMED_OUT(reason)
    match job.phase:
        case Phase.COMPLETED:
            return errors.HOST_FAILED("the container ended before it answered")
        case Phase.FAILED:
            return errors.JOB_FAILED(reason)
    return errors.JOB_STOPPED(reason)


def _keep(kept: OrderedDict[str, _T], key: str, value: _T) -> None:
    """Remember, but not without bound."""
    kept[key] = value
    if len(kept) > _KEPT:
        kept.popitem(last=False)
