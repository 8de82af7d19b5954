"""What the tests of providers against servers share: following a job to its end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from oracle.core.compute import Compute, JobHandle, JobState, JobStatus

LIVE = (JobState.QUEUED, JobState.RUNNING)


async def until(
    compute: Compute, handle: JobHandle, holds: Callable[[JobStatus], bool], seconds: float = 60.0
) -> JobStatus:
    """The status of the job once `holds` of it."""
    async with asyncio.timeout(seconds):
        while True:
            status = (await compute.poll([handle]))[handle]
            if holds(status):
                return status
            await asyncio.sleep(0.01)


async def ended(compute: Compute, handle: JobHandle, seconds: float = 60.0) -> JobStatus:
    return await until(compute, handle, lambda status: status.state not in LIVE, seconds)
