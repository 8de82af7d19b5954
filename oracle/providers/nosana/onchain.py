"""`Compute` on Nosana without an account: jobs listed on chain and paid with NOS from the operator's own key.

The key of the job account belongs to the purchase, so a second listing under it is refused by the program while the
account exists. A cleaned key is free again: then only the transactions that named it tell that it was used, and they
are asked before anything is signed, and before a purchase is called absent (nosana.md §6.3).
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from decimal import Decimal
from typing import Any, Final

from solders.pubkey import Pubkey

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
from oracle.core.purchase import AlreadyUsed, ChainAccess, InFlight, Landed, NotBought, Order, Refused
from oracle.providers import errors
from oracle.providers.nosana import definition, onchain_funds, program
from oracle.providers.nosana.api import Job, JobPhase, NosanaApi
from oracle.providers.nosana.cid import cid_of, digest_of
from oracle.providers.nosana.compute import Terms
from oracle.providers.nosana.onchain_cancel import Canceller
from oracle.providers.nosana.onchain_funds import Holdings
from oracle.providers.nosana.onchain_jobs import ChainJobs, Sighting
from oracle.providers.nosana.onchain_markets import ChainMarkets
from oracle.providers.nosana.outcomes import Outcomes
from oracle.providers.nosana.pinning import pin
from oracle.providers.nosana.program import JobAccount, Program
from oracle.providers.pricing import NO_RATES, Rates, nos_to_usd, usd_quote

JOB_KEY: Final = "nosana-job"
RUN_KEY: Final = "nosana-run"

# After the end of its time a job belongs to a host that has failed (§6.2).
_OVERRUN_SECONDS: Final = 600.0
# In no queue and with no host for so long, and seen so again and again: it is in nobody's hands (§2.5, point 7).
_ORPHANED_SECONDS: Final = 120.0
_KEPT: Final = 1000
_HOUR: Final = Decimal(3600)


class NosanaOnChain:
    """Implements `Compute`. Every purchase is a transaction of the signature manager that it is given."""

    capabilities = Capabilities(recovery=Recovery.LOOK_UP, cancel=True, prompts_public=True)

    def __init__(
        self,
        name: str,
        api: NosanaApi,
        chain: ChainAccess,
        jobs_program: Program,
        terms: Terms,
        chain_markets: ChainMarkets,
        *,
        rates: Rates = NO_RATES,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.name = name
        self._api = api
        self._buyer = chain.buyer
        self._view = chain.view
        self._program = jobs_program
        self._terms = terms
        self._markets = chain_markets
        self._rates = rates
        self._clock = clock
        self._now = now
        self._sleep = sleep
        self._jobs = ChainJobs(chain.view, jobs_program)
        self._canceller = Canceller(chain, jobs_program, self._jobs)
        self._outcomes = Outcomes(api, rates, now)
        self._adrift: OrderedDict[str, float] = OrderedDict()

    async def quote(self, task: Task) -> Quote:
        """The whole time that the task allows, network fee included. Only the time used is paid in the end."""
        self._check(task)
        offer = await self._markets.best()
        usd = offer.usd_per_hour * Decimal(_timeout_seconds(task)) / _HOUR
        return usd_quote(usd, self._rates, self._terms.expected_seconds)

    async def submit(self, task: Task, key: IdempotencyKey) -> JobHandle:
        """Check what can be checked for free, pin the definition, and list one job."""
        self._check(task)
        terms = self._terms
        document = definition.build(task, key, engine=terms.engine, image=terms.image, min_vram_gb=terms.min_vram_gb)
        offer = await self._markets.best()
        timeout_seconds = _timeout_seconds(task)
        await onchain_funds.check(self._view, self._program, self._buyer.payer, offer.price * timeout_seconds)
        cid = await pin(self._api, document, self._sleep)
        job, run = [await self._buyer.address(key, label) for label in (JOB_KEY, RUN_KEY)]
        listing = self._program.list_job(
            job=job,
            run=run,
            market=offer.market,
            owner=self._buyer.payer,
            definition=digest_of(cid),
            timeout_seconds=timeout_seconds,
        )
        detail = {
            "key": key,
            "run": str(run),
            "cid": cid,
            "market": str(offer.market),
            "listed_at": int(self._now()),
            "timeout_seconds": timeout_seconds,
            "max_output_tokens": task.max_output_tokens,
        }
        order = Order((listing,), (JOB_KEY, RUN_KEY), (offer.market,), detail)
        match await self._buyer.buy(key, order):
            case Landed(slot, _):
                return self._handle(job, {**detail, **self._reserved(offer.price * timeout_seconds), "slot": slot})
            case Refused() as refusal:
                raise _refused(refusal)
            case AlreadyUsed():
                return await self._adopted(key, job, run)

    async def find(self, key: IdempotencyKey) -> Found | Absent | CannotTell:
        """The job account and the transactions of its key, besides what the signature manager remembers."""
        fate = await self._buyer.withdraw(key)
        job, run = [await self._buyer.address(key, label) for label in (JOB_KEY, RUN_KEY)]
        detail = {} if isinstance(fate, NotBought) else fate.detail
        since_slot = fate.slot if isinstance(fate, Landed) else 0
        sighting = (await self._jobs.look([(job, run)], since_slot)).get(job)
        if sighting is not None and sighting.job is not None:
            return Found(self._handle_of(key, job, run, sighting.job, detail, since_slot))
        if await self._view.was_used(job):
            return Found(self._handle(job, {"key": key, "run": str(run), **detail, "slot": since_slot}))
        match fate:
            case NotBought():
                return Absent()
            case InFlight():
                return CannotTell("its transaction may still land")
            case Landed():
                return CannotTell("its transaction has landed, and the endpoint does not show the job yet")

    async def poll(self, handles: Sequence[JobHandle]) -> Mapping[JobHandle, JobStatus]:
        since_slot = max((_slot(handle) for handle in handles), default=0)
        seen = await self._jobs.look([_addresses(handle) for handle in handles], since_slot)
        statuses = await asyncio.gather(
            *(self._status(handle, seen.get(Pubkey.from_string(handle.job_id))) for handle in handles)
        )
        return dict(zip(handles, statuses, strict=True))

    async def fetch(self, handle: JobHandle) -> Output:
        """The output of a job that succeeded. Raises what it came to otherwise, or ORC-PROVIDER-019 while it runs."""
        outcome = self._outcomes.known(handle)
        if outcome is None:
            seen = await self._jobs.look([_addresses(handle)], _slot(handle))
            ended = await self._ended_job(handle, seen.get(Pubkey.from_string(handle.job_id)))
            if ended is None:
                raise errors.JOB_UNKNOWN(f"job {handle.job_id} has not ended")
            outcome = await self._outcomes.of(handle, ended)
        if outcome is None:
            raise errors.UNREADABLE_ANSWER(f"the result of job {handle.job_id} cannot be read yet")
        if isinstance(outcome, OracleError):
            raise outcome
        return outcome

    async def cancel(self, handle: JobHandle) -> None:
        """Withdraw the job, end it, or take back what a host has quit; one that has ended stays as it is."""
        await self._canceller.cancel(*_addresses(handle), _slot(handle))

    async def balance(self) -> Money | None:
        return Money((await self.holdings()).micro_nos / program.MICRO_NOS, "NOS")

    async def holdings(self) -> Holdings:
        """What the operator's wallet holds, for a person to look at."""
        return await onchain_funds.holdings(self._view, self._program, self._buyer.payer)

    async def models(self) -> Sequence[str]:
        return self._terms.models

    async def close(self) -> None:
        await self._api.close()

    def _check(self, task: Task) -> None:
        if task.private:
            raise errors.PRIVATE_REFUSED(f"{self.name} publishes prompts on IPFS")
        if self._terms.models and task.model not in self._terms.models:
            raise errors.MODEL_UNAVAILABLE(f"{self.name} is not configured for {task.model!r}")

    async def _adopted(self, key: IdempotencyKey, job: Pubkey, run: Pubkey) -> JobHandle:
        """A daemon whose memory is lost has listed this very job: nobody else has its key."""
        seen = (await self._jobs.look([(job, run)], 0)).get(job)
        if seen is None or seen.job is None:
            return self._handle(job, {"key": key, "run": str(run)})
        return self._handle_of(key, job, run, seen.job, {}, 0)

    async def _status(self, handle: JobHandle, seen: Sighting | None) -> JobStatus:
        if seen is None:
            return JobStatus(JobState.RUNNING, message="its account cannot be read")
        job = seen.job
        if job is None:
            return await self._gone(handle)
        if job.state is program.JobState.DONE:
            return await self._ended(handle, _as_job(handle, job))
        if seen.run is not None:
            self._adrift.pop(handle.job_id, None)
            if self._now() > seen.run.account.started_at + job.timeout_seconds + _OVERRUN_SECONDS:
                return await self._abandon(handle, errors.HOST_FAILED("it never ended the job"), JobState.RUNNING)
            return JobStatus(JobState.RUNNING)
        if not seen.is_certain:
            return JobStatus(JobState.RUNNING, message="the endpoint does not search for its host")
        if job.state is program.JobState.STOPPED:
            # Another host may still claim it and be paid, so the deposit is taken back before another is bought.
            return await self._abandon(handle, errors.HOST_FAILED("it left the job"), JobState.RUNNING)
        if seen.is_waiting:
            self._adrift.pop(handle.job_id, None)
            if self._age_seconds(handle) > self._terms.max_queue_seconds:
                return await self._abandon(handle, errors.NOT_STARTED(f"market {job.market}"), JobState.QUEUED)
            return JobStatus(JobState.QUEUED)
        return self._nowhere(handle)

    async def _gone(self, handle: JobHandle) -> JobStatus:
        """Ended and cleaned, withdrawn, recovered; or never there: the transactions that named it tell."""
        job = Pubkey.from_string(handle.job_id)
        try:
            if not await self._view.was_used(job):
                return JobStatus(JobState.LOST, message="not on chain")
            remembered = await self._api.job(handle.job_id)
        except OracleError as error:
            return JobStatus(JobState.RUNNING, message=f"its account is gone, and cannot be looked up: {error}")
        if remembered is not None and remembered.phase is JobPhase.COMPLETED:
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
        """Give a job up. It has failed once it is stopped, for only then may another be bought."""
        try:
            await self.cancel(handle)
        except OracleError as failure:
            return JobStatus(otherwise, message=f"{error}; not stopped yet: {failure}")
        return JobStatus(JobState.FAILED, error, str(error))

    async def _ended_job(self, handle: JobHandle, seen: Sighting | None) -> Job | None:
        if seen is not None and seen.job is not None:
            return _as_job(handle, seen.job) if seen.job.state is program.JobState.DONE else None
        remembered = await self._api.job(handle.job_id)
        return remembered if remembered is not None and remembered.phase is JobPhase.COMPLETED else None

    def _handle_of(
        self,
        key: IdempotencyKey,
        job: Pubkey,
        run: Pubkey,
        account: JobAccount,
        detail: Mapping[str, Any],
        slot: int,
    ) -> JobHandle:
        known = {
            "key": key,
            "run": str(run),
            "cid": cid_of(account.definition),
            "market": str(account.market),
            "listed_at": int(self._now()),
            "timeout_seconds": account.timeout_seconds,
        }
        reserved = self._reserved(account.price * account.timeout_seconds)
        return self._handle(job, {**known, **detail, **reserved, "slot": slot})

    def _handle(self, job: Pubkey, detail: Mapping[str, Any]) -> JobHandle:
        return JobHandle(self.name, str(job), detail)

    def _reserved(self, micro_nos: int) -> dict[str, str]:
        """The deposit in USD, of which the used part is the cost. A network fee, if there is one, is not in it."""
        try:
            return {"reserved_usd": str(nos_to_usd(Decimal(micro_nos) / program.MICRO_NOS, self._rates))}
        except OracleError:
            return {}

    def _age_seconds(self, handle: JobHandle) -> float:
        return self._now() - float(handle.detail.get("listed_at", 0))


def _timeout_seconds(task: Task) -> int:
    """On chain there is no shortest job."""
    return max(1, math.ceil(task.timeout_seconds))


def _addresses(handle: JobHandle) -> tuple[Pubkey, Pubkey]:
    job = Pubkey.from_string(handle.job_id)
    run = handle.detail.get("run")
    return job, Pubkey.from_string(run) if isinstance(run, str) else job


def _slot(handle: JobHandle) -> int:
    """Where its listing landed: an endpoint that is behind it cannot know of the job."""
    return int(handle.detail.get("slot", 0))


def _as_job(handle: JobHandle, account: JobAccount) -> Job:
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


def _refused(refusal: Refused) -> OracleError:
    """The program's own words tell the cause: its numbers are ambiguous (§2.8)."""
    said = " ".join(refusal.logs)
    if "insufficient funds" in said or "insufficient lamports" in said:
        return errors.OUT_OF_CREDIT("the wallet has too few NOS or lamports for the deposit")
    named = [line.partition("Error Code: ")[2].partition(".")[0] for line in refusal.logs if "Error Code: " in line]
    return errors.LISTING_REFUSED(", ".join(named) or f"{refusal.kind} {refusal.custom}")
