"""A route that works in jobs, for a client that waits: bought once, asked after in bulk, fetched in one piece.

Whoever stops waiting leaves the job to `reaper`, which knows it from the books and cancels it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from oracle.api.gateway.books import Call
from oracle.core.compute import (
    Absent,
    Compute,
    Found,
    IdempotencyKey,
    JobHandle,
    JobState,
    JobStatus,
    Output,
    Task,
    let_go,
)
from oracle.core.errors import OracleError, Verdict
from oracle.core.policy import JOB_FAILED, JOB_TIMED_OUT, PURCHASE_ABSENT, PURCHASE_UNCONFIRMED
from oracle.pipeline.batch import Batch
from oracle.pipeline.submit import CALL_SECONDS

MOST_TOGETHER = 1_000
MOST_FETCHES = 5


class Jobs:
    """The jobs of one provider. `poll_seconds` is how often it is asked after all of them at once."""

    def __init__(self, provider: Compute, poll_seconds: float) -> None:
        self._provider = provider
        self._polls: Batch[JobHandle, JobStatus | None] = Batch(
            self._ask, most=MOST_TOGETHER, window_seconds=poll_seconds
        )

    async def run(self, call: Call, task: Task, key: IdempotencyKey) -> Output:
        """The output of one new job, within `task.timeout_seconds`."""
        handle = await self._buy(task, key)
        await call.started(handle)
        try:
            async with asyncio.timeout(task.timeout_seconds):
                return await self._collect(handle, key)
        except TimeoutError:
            await self._cancel(handle)
            raise JOB_TIMED_OUT(f"{self._provider.name} job {handle.job_id}") from None

    async def _buy(self, task: Task, key: IdempotencyKey) -> JobHandle:
        try:
            async with asyncio.timeout(CALL_SECONDS):
                return await self._provider.submit(task, key)
        except TimeoutError:
            return await self._look_up(key, "no answer in time")
        except OracleError as error:
            if error.verdict is not Verdict.UNKNOWN:
                raise
            return await self._look_up(key, str(error))

    async def _look_up(self, key: IdempotencyKey, why: str) -> JobHandle:
        """The job of a purchase whose answer was lost. Whatever is not a proof of absence is none (law 5)."""
        try:
            async with asyncio.timeout(CALL_SECONDS):
                found = await self._provider.find(key)
        except (OracleError, TimeoutError) as error:
            raise PURCHASE_UNCONFIRMED(f"{self._provider.name}: {why}, then {error}") from None
        match found:
            case Found(handle):
                return handle
            case Absent():
                raise PURCHASE_ABSENT(self._provider.name)
        raise PURCHASE_UNCONFIRMED(f"{self._provider.name}: {why}")

    async def _collect(self, handle: JobHandle, key: IdempotencyKey) -> Output:
        fetches = 0
        while True:
            status = await self._polls.add(handle)
            match status.state if status else None:
                case JobState.SUCCEEDED:
                    fetches += 1
                    try:
                        output = await self._provider.fetch(handle)
                        # Where it is lost now, the client's next call buys another: nobody asks for this one again.
                        let_go(self._provider, handle)
                        return output
                    except OracleError as error:
                        # The job is done and paid for: what went wrong on the way here is no reason to buy another.
                        if error.verdict is Verdict.GIVE_UP or fetches == MOST_FETCHES:
                            raise
                case JobState.FAILED | JobState.CANCELLED:
                    assert status is not None
                    raise status.error or JOB_FAILED(status.message)
                case JobState.LOST:
                    assert status is not None
                    await self._look_up(key, status.message)

    async def _cancel(self, handle: JobHandle) -> None:
        """Another is bought only when this one is certainly not paid for any longer (law 3)."""
        try:
            async with asyncio.timeout(CALL_SECONDS):
                await self._provider.cancel(handle)
        except (OracleError, TimeoutError) as error:
            raise PURCHASE_UNCONFIRMED(f"{self._provider.name} job {handle.job_id} not cancelled: {error}") from None

    async def _ask(self, handles: Sequence[JobHandle]) -> Sequence[JobStatus | None]:
        """A provider that does not answer has said nothing about its jobs."""
        try:
            async with asyncio.timeout(CALL_SECONDS):
                statuses = await self._provider.poll(handles)
        except (OracleError, TimeoutError):
            return [None] * len(handles)
        return [statuses.get(handle) for handle in handles]
