"""`Compute` on Nosana: inferences as container jobs, bought with credits, judged by what they printed."""

from __future__ import annotations

import asyncio
import math
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Final, TypeVar

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
from oracle.providers.nosana import definition
from oracle.providers.nosana.api import Job, JobPhase, NosanaApi
from oracle.providers.nosana.look_up import INDEX_LAG_SECONDS, LookUp
from oracle.providers.nosana.market_place import MarketPlace
from oracle.providers.nosana.markets import Listing
from oracle.providers.nosana.outcomes import Outcomes
from oracle.providers.nosana.pinning import pin
from oracle.providers.nosana.purchase import Purchase
from oracle.providers.nosana.templates import Template
from oracle.providers.offers import Allowance, Offer
from oracle.providers.pricing import NO_RATES, Rates, usd_quote

_T = TypeVar("_T")

SHORTEST_JOB_SECONDS: Final = 3600
"""Jobs paid with credits must ask for at least an hour; what is not used is given back (§4.3, §5)."""

# After the end of its time a job belongs to a host that has failed (§6.2).
_OVERRUN_SECONDS: Final = 600.0
_KEPT: Final = 1000
_HOUR: Final = Decimal(3600)


@dataclass(frozen=True, slots=True)
class Terms:
    """How inferences run. `models` are the names on offer; empty means any. `max_queue_seconds`: withdrawn after."""

    template: Template
    models: tuple[str, ...] = ()
    min_vram_gb: int = 8
    max_queue_seconds: float = 600.0
    expected_seconds: float = 300.0


@dataclass(frozen=True, slots=True)
class _Intent:
    """What a key buys. A repetition in this process must carry the same body, whatever prices have become."""

    cid: str
    markets: tuple[str, ...]
    timeout_seconds: int


class NosanaCompute:
    """Implements `Compute`. A lost answer is asked for again under the same key at once, and looked up after a crash.

    Repeating the call would do after a crash too, but only as long as Nosana remembers the key, which it does not
    promise (§6.4). The account's jobs it keeps for ever.
    """

    capabilities = Capabilities(recovery=Recovery.LOOK_UP, cancel=True, prompts_public=True)

    def __init__(
        self,
        name: str,
        api: NosanaApi,
        terms: Terms,
        market_place: MarketPlace,
        look_up: LookUp,
        purchase: Purchase,
        *,
        rates: Rates = NO_RATES,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.name = name
        self._api = api
        self._terms = terms
        self._market_place = market_place
        self._look_up = look_up
        self._purchase = purchase
        self._rates = rates
        self._clock = clock
        self._now = now
        self._sleep = sleep
        self._intents: OrderedDict[str, _Intent] = OrderedDict()
        self._outcomes = Outcomes(api, rates, now)
        self._asked_at: OrderedDict[str, float] = OrderedDict()
        self._stopped: OrderedDict[str, bool] = OrderedDict()

    async def quote(self, task: Task) -> Quote:
        """The cost of the whole time that the task allows. An hour is reserved; only the time used is paid."""
        self._check(task)
        (offer, *_) = await self._market_place.offers()
        usd = offer.usd_per_hour * Decimal(str(task.timeout_seconds)) / _HOUR
        return usd_quote(usd, self._rates, self._terms.expected_seconds)

    async def submit(self, task: Task, key: IdempotencyKey) -> JobHandle:
        """Pin the definition, see that hosts can read it, and buy one job."""
        self._check(task)
        intent = self._intents.get(key)
        if intent is None:
            intent = await self._intend(task, key)
            _keep(self._intents, key, intent)
        self._asked_at.pop(key, None)
        try:
            posted, market = await self._purchase.buy(intent.cid, intent.markets, intent.timeout_seconds, key)
        except OracleError as error:
            if error.error is errors.MARKET_REFUSED:
                self._market_place.refuse(intent.markets[0])
                del self._intents[key]
            raise
        self._look_up.learn(posted.project)
        detail = {
            "cid": intent.cid,
            "market": market,
            "listed_at": int(self._now()),
            "timeout_seconds": intent.timeout_seconds,
            "max_output_tokens": task.max_output_tokens,
            "reserved_usd": None if posted.cost_usd is None else str(posted.cost_usd),
            "project": posted.project,
        }
        return JobHandle(self.name, posted.job, detail)

    async def find(self, key: IdempotencyKey) -> Found | Absent | CannotTell:
        """Search the account's jobs. Absence is proof only after the indexer has had time to learn of the job.

        Raises, rather than answers, where the search is not complete: nothing may be bought before it is.
        """
        asked_at = self._asked_at.get(key)
        if asked_at is None:
            asked_at = self._clock()
            _keep(self._asked_at, key, asked_at)
        snapshot = await self._look_up.snapshot()
        intent = self._intents.get(key)
        job = snapshot.by_key.get(key) or (snapshot.by_cid.get(intent.cid) if intent else None)
        if job is not None:
            return Found(self._handle(job))
        if snapshot.ours and snapshot.began_at - asked_at >= INDEX_LAG_SECONDS:
            return Absent()
        return CannotTell("no such job is listed, which proves nothing before the indexer has caught up")

    async def poll(self, handles: Sequence[JobHandle]) -> Mapping[JobHandle, JobStatus]:
        for handle in handles:
            # A restart forgets which account the jobs belong to; the jobs that it left behind say so.
            self._look_up.learn(handle.detail.get("project"))
        jobs = await self._api.jobs([handle.job_id for handle in handles])
        statuses = await asyncio.gather(*(self._status(handle, jobs.get(handle.job_id)) for handle in handles))
        return dict(zip(handles, statuses, strict=True))

    async def fetch(self, handle: JobHandle) -> Output:
        """The output of a job that succeeded. Raises what it came to otherwise, or ORC-PROVIDER-019 while it runs."""
        outcome = self._outcomes.known(handle)
        if outcome is None:
            job = await self._api.job(handle.job_id)
            if job is None or job.phase is not JobPhase.COMPLETED:
                raise errors.JOB_UNKNOWN(f"job {handle.job_id} has not ended")
            outcome = await self._outcomes.of(handle, job)
        if outcome is None:
            raise errors.UNREADABLE_ANSWER(f"the result of job {handle.job_id} cannot be read yet")
        if isinstance(outcome, OracleError):
            raise outcome
        return outcome

    async def cancel(self, handle: JobHandle) -> None:
        """Withdraw or end the job; the time it ran is paid. One that has ended stays as it is."""
        if handle.job_id in self._stopped:
            return
        if not await self._api.stop(handle.job_id) and self._age_seconds(handle) < INDEX_LAG_SECONDS:
            raise errors.UNAVAILABLE(f"job {handle.job_id} is not known yet and cannot be stopped")
        _keep(self._stopped, handle.job_id, True)

    async def balance(self) -> Money | None:
        return Money(float(await self._api.available_usd()), "USD")

    async def models(self) -> Sequence[str]:
        return self._terms.models

    async def offers(self) -> Sequence[Offer]:
        """The models. They have no price of their own: a job pays for time."""
        return tuple(Offer(model) for model in self._terms.models)

    async def probe(self) -> None:
        await self._api.credits()

    async def allowance(self) -> Allowance:
        credits = await self._api.credits()
        used = credits.settled_usd + credits.reserved_usd
        return Allowance(credits.available_usd, used, credits.assigned_usd)

    async def markets(self) -> Sequence[Listing]:
        """Where a job could run, the chosen market first."""
        return await self._market_place.listings()

    async def close(self) -> None:
        await self._api.close()

    def _check(self, task: Task) -> None:
        if task.private:
            raise errors.PRIVATE_REFUSED(f"{self.name} publishes prompts on IPFS")
        if self._terms.models and task.model not in self._terms.models:
            raise errors.MODEL_UNAVAILABLE(f"{self.name} is not configured for {task.model!r}")

    async def _intend(self, task: Task, key: IdempotencyKey) -> _Intent:
        """Everything that costs nothing: a definition that is valid, pinned and readable, and a market for it."""
        terms = self._terms
        document = definition.build(task, key, terms.template, min_vram_gb=terms.min_vram_gb)
        offers = await self._market_place.offers()
        cid = await pin(self._api, document, self._sleep)
        timeout_seconds = max(SHORTEST_JOB_SECONDS, math.ceil(task.timeout_seconds))
        return _Intent(cid, tuple(offer.market.address for offer in offers), timeout_seconds)

    async def _status(self, handle: JobHandle, job: Job | None) -> JobStatus:
        if job is None:
            return await self._unlisted(handle)
        match job.phase:
            case JobPhase.QUEUED:
                if self._age_seconds(handle) > self._terms.max_queue_seconds:
                    return await self._abandon(handle, errors.NOT_STARTED(f"market {job.market}"), JobState.QUEUED)
                return JobStatus(JobState.QUEUED)
            case JobPhase.RUNNING:
                end = job.started_at + job.timeout_seconds + _OVERRUN_SECONDS
                if job.started_at and self._now() > end:
                    return await self._abandon(handle, errors.HOST_FAILED("it never ended the job"), JobState.RUNNING)
                return JobStatus(JobState.RUNNING)
            case JobPhase.STOPPED:
                # Another host may still claim it and be paid, so it is ended before another is bought.
                return await self._abandon(handle, errors.HOST_FAILED("it left the job"), JobState.RUNNING)
            case JobPhase.COMPLETED:
                return await self._ended(handle, job)

    async def _unlisted(self, handle: JobHandle) -> JobStatus:
        """Not indexed yet, or withdrawn from its queue, which deletes it and gives the money back (§4.4)."""
        if handle.job_id in self._stopped:
            return JobStatus(JobState.CANCELLED)
        if self._age_seconds(handle) < INDEX_LAG_SECONDS:
            return JobStatus(JobState.QUEUED, message="not indexed yet")
        try:
            job = await self._api.job(handle.job_id)
        except OracleError as error:
            return JobStatus(JobState.RUNNING, message=f"cannot be read: {error}")
        if job is None:
            return JobStatus(JobState.CANCELLED, errors.JOB_STOPPED("withdrawn from its queue"))
        return await self._status(handle, job)

    async def _ended(self, handle: JobHandle, job: Job) -> JobStatus:
        match await self._outcomes.of(handle, job):
            case None:
                return JobStatus(JobState.RUNNING, message="ended; its result cannot be read yet")
            case OracleError() as error:
                return JobStatus(JobState.FAILED, error, str(error))
            case Output():
                return JobStatus(JobState.SUCCEEDED)

    async def _abandon(self, handle: JobHandle, error: OracleError, otherwise: JobState) -> JobStatus:
        """Give a job up. It has failed once it is stopped, for only then may another be bought."""
        try:
            await self.cancel(handle)
        except OracleError as failure:
            return JobStatus(otherwise, message=f"{error}; not stopped yet: {failure}")
        return JobStatus(JobState.FAILED, error, str(error))

    def _handle(self, job: Job) -> JobHandle:
        detail = {
            "cid": job.definition_cid,
            "market": job.market,
            "listed_at": job.listed_at or int(self._now()),
            "timeout_seconds": job.timeout_seconds,
        }
        return JobHandle(self.name, job.address, detail)

    def _age_seconds(self, handle: JobHandle) -> float:
        return self._now() - float(handle.detail.get("listed_at", 0))


def _keep(kept: OrderedDict[str, _T], key: str, value: _T) -> None:
    """Remember, but not without bound."""
    kept[key] = value
    if len(kept) > _KEPT:
        kept.popitem(last=False)
