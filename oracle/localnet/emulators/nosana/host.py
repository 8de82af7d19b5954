"""The hosts of the network: they take jobs from the queues, run them, and leave a result (§2.5, §3.7)."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping
from enum import StrEnum
from typing import Any

import orjson

from oracle.localnet.emulators.ionet.containers import Served
from oracle.localnet.emulators.nosana import index
from oracle.localnet.emulators.nosana.definition import validate
from oracle.localnet.emulators.nosana.flow import BLANK, Ending, Flow, Mishap, validation_error
from oracle.localnet.emulators.nosana.jobs import Job, JobState
from oracle.localnet.emulators.nosana.world import World


class JobFault(StrEnum):
    """What can be made to happen to a job, besides the mishaps of its operations (`flow.Mishap`).

    The subject of these faults is `<market slug> <user id> <idempotency key, or ->`.
    """

    TRANSACTION_EXPIRES = "transaction_expires"
    """The listing fails with 500 and its idempotency key is dead: repeated, it is answered EXPIRED."""
    NEVER_STARTS = "never_starts"
    SLOW_START = "slow_start"
    """Queued for `seconds` more."""
    SLOW_RUN = "slow_run"
    """Runs for `seconds` more, before the container starts."""
    NEVER_FINISHES = "never_finishes"
    """The host crashes: the job runs past its timeout and nothing comes."""
    HOST_QUITS = "host_quits"
    """State 3, no document."""
    HOST_SHUTS_DOWN = "host_shuts_down"
    EXPIRES = "expires"
    """Reaches its timeout at once: everything says success but `jobExpired`, and there is no output."""
    BLANK_RESULT = "blank_result"


JOB_KINDS = (*JobFault, *Mishap)
HOST = "2Zqh2jyHWKtqxGy4zMjicNRFq6EPa5JMkhxKTkyVP2yJ"
"""The address that every emulated host has (§7)."""

ENDED_EARLY: Mapping[str | None, Ending] = {
    JobFault.HOST_SHUTS_DOWN: Ending.QUIT,
    JobFault.EXPIRES: Ending.EXPIRED,
}


class Hosts:
    """One task for each job that has not ended."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._slots = {market.address: asyncio.Semaphore(market.hosts) for market in world.markets}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._all_tasks: set[asyncio.Task[None]] = set()
        self._flows: dict[str, Flow] = {}

    def start(self) -> None:
        """Takes up what has not ended; what had been running is run again."""
        for job in self._world.jobs:
            if not job.state.ended and not job.delisted and job.user_id != index.NOBODYS:
                self.take(job)

    async def close(self) -> None:
        for task in self._all_tasks:
            task.cancel()
        await asyncio.gather(*self._all_tasks, return_exceptions=True)

    def take(self, job: Job) -> None:
        self._spawn(job.address, self._live(job.address))

    def server_of(self, job: Job, operation_id: str) -> Served | None:
        """The model server behind the exposed port of an operation, while it runs."""
        flow = self._flows.get(job.address)
        return None if flow is None else flow.servers.get(operation_id)

    def delist(self, job: Job) -> None:
        """Takes a queued job out of its queue; everything that was reserved is free again."""
        self._world.jobs.change(job.address, delisted=True, reserved_micro_usd=0)
        self._cancel(job)

    def stop(self, job: Job) -> None:
        """Ends a running job for its owner. The result comes later, once the host has noticed."""
        flow = self._flows.get(job.address)
        self._cancel(job)
        self._end(job, JobState.COMPLETED, stopped_by_owner=True)
        if flow is not None:
            self._spawn(job.address, self._complete_later(job.address, flow.end(Ending.STOPPED)))

    def _spawn(self, address: str, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks[address] = task
        self._all_tasks.add(task)
        task.add_done_callback(lambda done: self._forget(address, done))

    def _forget(self, address: str, task: asyncio.Task[None]) -> None:
        self._all_tasks.discard(task)
        if self._tasks.get(address) is task:
            del self._tasks[address]
            self._flows.pop(address, None)

    def _cancel(self, job: Job) -> None:
        if (task := self._tasks.pop(job.address, None)) is not None:
            task.cancel()
        self._flows.pop(job.address, None)

    async def _live(self, address: str) -> None:
        world = self._world
        job = _job(world, address)
        fault = job.fault or {}
        kind = fault.get("kind")
        if job.state is JobState.QUEUED:
            await asyncio.sleep(world.timings.queue_seconds + (fault["seconds"] if kind == JobFault.SLOW_START else 0))
            if kind == JobFault.NEVER_STARTS:
                return
        async with self._slots[job.market]:
            if job.state is JobState.QUEUED:
                node = job.requested_node or HOST
                world.jobs.change(address, state=JobState.RUNNING, node=node, time_start=world.now())
            await self._run(_job(world, address), fault)

    async def _run(self, job: Job, fault: Mapping[str, Any]) -> None:
        world, kind = self._world, fault.get("kind")
        slow = fault["seconds"] if kind == JobFault.SLOW_RUN else 0
        definition = self._definition(job)
        if definition is None or kind == JobFault.HOST_QUITS:
            # What a host does that cannot read the definition is unverified; here it gives up.
            self._end(job, JobState.STOPPED)
        elif kind == JobFault.NEVER_FINISHES:
            await asyncio.Event().wait()
        elif kind == JobFault.BLANK_RESULT:
            self._finish(job, BLANK)
        elif refusals := validate(definition):
            self._finish(job, validation_error(refusals, world.now()))
        else:
            flow = self._flows[job.address] = self._flow(definition, fault)
            work = asyncio.create_task(self._work(flow, world.timings.start_seconds + slow))
            try:
                ending = await self._watch(job.address, flow, work, kind)
            finally:
                work.cancel()
                await asyncio.wait({work})
            self._finish(_job(world, job.address), flow.document() if ending is None else flow.end(ending))

    def _flow(self, definition: dict[str, Any], fault: Mapping[str, Any]) -> Flow:
        world, kind = self._world, fault.get("kind")
        mishap = Mishap.HANGS if kind in ENDED_EARLY else Mishap(kind) if kind in set(Mishap) else None
        return Flow(
            definition,
            world.models,
            world.now,
            world.entropy(6).hex(),
            pace=world.timings.pace,
            mishap=mishap,
            stderr=fault.get("text", ""),
            exit_code=fault.get("exit_code", 1),
        )

    async def _work(self, flow: Flow, seconds: float) -> None:
        await asyncio.sleep(seconds)
        await flow.run()

    async def _watch(self, address: str, flow: Flow, work: asyncio.Task[None], kind: str | None) -> Ending | None:
        """Waits for the work, or for the job's deadline, which an extension may move meanwhile."""
        world = self._world
        if kind in ENDED_EARLY:
            await flow.begun.wait()
            if kind == JobFault.EXPIRES:
                job = _job(world, address)
                earlier = world.now() - job.timeout_seconds
                world.jobs.change(address, time_start=earlier, listed_at=min(earlier, job.listed_at))
            return ENDED_EARLY[kind]
        while (left := _job(world, address).deadline - world.now()) > 0:
            # `now` is not asyncio's clock, and the deadline may move: look again now and then.
            done, _ = await asyncio.wait({work}, timeout=min(left, 0.2))
            if done:
                work.result()
                return None
        return Ending.EXPIRED

    def _definition(self, job: Job) -> dict[str, Any] | None:
        document = self._world.pinned(job.ipfs_job)
        try:
            return None if document is None else orjson.loads(document)
        except orjson.JSONDecodeError:
            return None

    def _finish(self, job: Job, document: Mapping[str, Any]) -> None:
        result = self._world.pin(orjson.dumps(document))
        self._end(job, JobState.COMPLETED, ipfs_result=result, result_at=self._world.now())

    async def _complete_later(self, address: str, document: Mapping[str, Any]) -> None:
        await asyncio.sleep(self._world.timings.stop_lag_seconds)
        result = self._world.pin(orjson.dumps(document))
        self._world.jobs.change(address, ipfs_result=result, result_at=self._world.now())

    def _end(self, job: Job, state: JobState, **changes: Any) -> None:
        """Settles the seconds that were used and frees the rest. After a host quit nothing is charged (unverified)."""
        world = self._world
        now = world.now()
        market = world.market(job.market)
        assert market is not None
        charged = 0
        if state is JobState.COMPLETED:
            changes["time_end"] = now
            used = min(now - job.time_start, job.timeout_seconds)
            charged = min(market.settlement_micro_usd(used), job.reserved_micro_usd)
        world.jobs.change(job.address, state=state, reserved_micro_usd=0, settled_micro_usd=charged, **changes)


def _job(world: World, address: str) -> Job:
    job = world.jobs.get(address)
    assert job is not None
    return job
