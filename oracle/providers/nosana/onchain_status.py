"""What a job on chain has come to, from where it was seen (nosana.md §2.5); one that leads nowhere is given up."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from solders.pubkey import Pubkey

from oracle.core.compute import JobHandle, JobState, JobStatus, Output
from oracle.core.errors import OracleError
from oracle.core.purchase import ChainView
from oracle.providers import errors
from oracle.providers.nosana import definition, program
from oracle.providers.nosana.api import Job, JobPhase, NosanaApi
from oracle.providers.nosana.cid import cid_of
from oracle.providers.nosana.onchain_cancel import Canceller
from oracle.providers.nosana.onchain_jobs import Sighting
from oracle.providers.nosana.outcomes import Outcomes
from oracle.providers.nosana.program import JobAccount

# After the end of its time a job belongs to a host that has failed (§6.2).
_OVERRUN_SECONDS: Final = 600.0
# In no queue and with no host for so long, and seen so again and again: it is in nobody's hands (§2.5, point 7).
_ORPHANED_SECONDS: Final = 120.0
_PATIENCE_SECONDS: Final = 2.0
_KEPT: Final = 1000


class ChainStatuses:
    """`max_queue_seconds`: how long a job may wait for a host before it is withdrawn."""

    def __init__(
        self,
        api: NosanaApi,
        view: ChainView,
        outcomes: Outcomes,
        canceller: Canceller,
        max_queue_seconds: float,
        *,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._api = api
        self._view = view
        self._outcomes = outcomes
        self._canceller = canceller
        self._max_queue_seconds = max_queue_seconds
        self._clock = clock
        self._now = now
        self._adrift: OrderedDict[str, float] = OrderedDict()
        self._stopping: dict[str, asyncio.Task[None]] = {}

    async def of(self, handle: JobHandle, seen: Sighting | None) -> JobStatus:
        """The status of a job. `seen` is None where its account could not be read."""
        if seen is None:
            return JobStatus(JobState.RUNNING, message="its account cannot be read")
        job = seen.job
        if job is None:
            return await self._gone(handle)
        if job.state is program.JobState.DONE:
            return await self._ended(handle, as_job(handle, job))
        if seen.run is not None:
            self._adrift.pop(handle.job_id, None)
            if self._now() > seen.run.account.started_at + job.timeout_seconds + _OVERRUN_SECONDS:
                return await self._abandon(handle, errors.HOST_FAILED("it never ended the job"), JobState.RUNNING)
            return JobStatus(JobState.RUNNING)
        if seen.is_waiting:
            self._adrift.pop(handle.job_id, None)
            if self._now() - float(handle.detail.get("listed_at", 0)) > self._max_queue_seconds:
                return await self._abandon(handle, errors.NOT_STARTED(f"market {job.market}"), JobState.QUEUED)
            return JobStatus(JobState.QUEUED)
        if not seen.is_certain:
            return JobStatus(JobState.RUNNING, message="the endpoint does not search for its host")
        if job.state is program.JobState.STOPPED:
            # Another host may still claim it and be paid, so the deposit is taken back before another is bought.
            return await self._abandon(handle, errors.HOST_FAILED("it left the job"), JobState.RUNNING)
        return self._nowhere(handle)

    async def ended(self, handle: JobHandle, seen: Sighting | None) -> Job | None:
        """The job, if it has ended: from its account, or from the indexer, which keeps what the chain deletes."""
        if seen is not None and seen.job is not None:
            return as_job(handle, seen.job) if seen.job.state is program.JobState.DONE else None
        remembered = await self._api.job(handle.job_id)
        return remembered if remembered is not None and remembered.phase is JobPhase.COMPLETED else None

    async def _gone(self, handle: JobHandle) -> JobStatus:
        """Ended and cleaned, withdrawn, recovered; or never there: the transactions that named it tell."""
        try:
            if not await self._view.was_used(Pubkey.from_string(handle.job_id)):
                return JobStatus(JobState.LOST, message="not on chain")
            remembered = await self.ended(handle, None)
        except OracleError as error:
            return JobStatus(JobState.RUNNING, message=f"its account is gone, and cannot be looked up: {error}")
        if remembered is not None:
            return await self._ended(handle, remembered)
        return JobStatus(JobState.FAILED, errors.JOB_STOPPED("its account is gone without a result"))

    async def _ended(self, handle: JobHandle, job: Job) -> JobStatus:
        match await self._outcomes.of(handle, job):
            case None:
                return JobStatus(JobState.RUNNING, message="ended; its result cannot be read yet")
            case OracleError() as error:
                return JobStatus(JobState.FAILED, error, str(error))
            case Output():
                return JobStatus(JobState.SUCCEEDED)

    def _nowhere(self, handle: JobHandle) -> JobStatus:
        """In no queue and with no host: between two reads, or an orphan, which only Nosana's admin can close."""
        since = self._adrift.setdefault(handle.job_id, self._clock())
        if len(self._adrift) > _KEPT:
            self._adrift.popitem(last=False)
        if self._clock() - since < _ORPHANED_SECONDS:
            return JobStatus(JobState.QUEUED, message="between its queue and a host")
        return JobStatus(JobState.FAILED, errors.HOST_FAILED("the job is in no queue and with no host"))

    async def _abandon(self, handle: JobHandle, error: OracleError, otherwise: JobState) -> JobStatus:
        """Give a job up. It has failed once it is stopped, for only then may another be bought.

        A transaction may take its time, and all jobs are polled together: what takes longer goes on by itself.
        """
        stopping = self._stopping.get(handle.job_id)
        if stopping is None:
            cancel = self._canceller.cancel(*addresses_of(handle), slot_of(handle))
            stopping = self._stopping[handle.job_id] = asyncio.create_task(cancel)
        done, _ = await asyncio.wait({stopping}, timeout=_PATIENCE_SECONDS)
        if not done:
            return JobStatus(otherwise, message=f"{error}; being stopped")
        del self._stopping[handle.job_id]
        try:
            stopping.result()
        except OracleError as failure:
            return JobStatus(otherwise, message=f"{error}; not stopped yet: {failure}")
        return JobStatus(JobState.FAILED, error, str(error))

    async def close(self) -> None:
        for stopping in self._stopping.values():
            stopping.cancel()
        await asyncio.gather(*self._stopping.values(), return_exceptions=True)


def addresses_of(handle: JobHandle) -> tuple[Pubkey, Pubkey]:
    """The job, and where its run lies if a host was waiting."""
    job = Pubkey.from_string(handle.job_id)
    run = handle.detail.get("run")
    return job, Pubkey.from_string(run) if isinstance(run, str) else job


def slot_of(handle: JobHandle) -> int:
    """Where its listing landed: an endpoint that is behind it cannot know of the job."""
    return int(handle.detail.get("slot", 0))


def as_job(handle: JobHandle, account: JobAccount) -> Job:
    """A job that has ended, as REST would tell it: what it came to is judged in one place."""
    return Job(
        address=handle.job_id,
        phase=JobPhase.COMPLETED,
        market=str(account.market),
        definition_cid=cid_of(account.definition),
        result_cid=None if account.result is None else cid_of(account.result),
        kind=definition.TRIGGER,
        definition=None,
        result=None,
        started_at=account.started_at,
        ended_at=account.ended_at,
        listed_at=0,
        timeout_seconds=account.timeout_seconds,
        usd_reward_per_hour=None,
    )
