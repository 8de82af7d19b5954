"""`Compute` on Nosana without an account: jobs listed on chain and paid with NOS from the operator's own key.

The key of the job account belongs to the purchase, so a second listing under it is refused by the program while the
account exists. A cleaned key is free again: then only the transactions that named it tell that it was used, and they
are asked before anything is signed, and before a purchase is called absent (nosana.md §6.3).
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
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
from oracle.providers.nosana.api import NosanaApi
from oracle.providers.nosana.cid import cid_of, digest_of
from oracle.providers.nosana.compute import Terms
from oracle.providers.nosana.markets import Listing
from oracle.providers.nosana.onchain_cancel import Canceller
from oracle.providers.nosana.onchain_funds import Holdings
from oracle.providers.nosana.onchain_jobs import ChainJobs
from oracle.providers.nosana.onchain_markets import NETWORK_FEE, ChainMarkets
from oracle.providers.nosana.onchain_status import ChainStatuses, addresses_of, slot_of
from oracle.providers.nosana.outcomes import Outcomes
from oracle.providers.nosana.pinning import pin
from oracle.providers.nosana.program import JobAccount, Program
from oracle.providers.pricing import NO_RATES, Rates, nos_to_usd, usd_quote

JOB_KEY: Final = "nosana-job"
RUN_KEY: Final = "nosana-run"

_HOUR: Final = Decimal(3600)


@dataclass(frozen=True, slots=True)
class Deposit:
    """What a job is listed with: the market's price for all of its time, of which the rest comes back."""

    market: Pubkey
    micro_nos_per_second: int
    seconds: int

    @property
    def micro_nos(self) -> int:
        return self.micro_nos_per_second * self.seconds

    @property
    def most_micro_nos(self) -> int:
        """With the network fee, if there is one."""
        return int(self.micro_nos * NETWORK_FEE)


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
        self._now = now
        self._sleep = sleep
        self._jobs = ChainJobs(chain.view, jobs_program)
        self._canceller = Canceller(chain, jobs_program, self._jobs)
        self._outcomes = Outcomes(api, rates, now)
        self._statuses = ChainStatuses(
            api, chain.view, self._outcomes, self._canceller, terms.max_queue_seconds, clock=clock, now=now
        )

    async def quote(self, task: Task) -> Quote:
        """The whole time that the task allows, network fee included. Only the time used is paid in the end."""
        self._check(task)
        offer = await self._markets.best()
        usd = offer.usd_per_hour * Decimal(_timeout_seconds(task)) / _HOUR
        return usd_quote(usd, self._rates, self._terms.expected_seconds)

    async def deposit(self, task: Task) -> Deposit:
        """Where a job would be listed now, and what would be laid down for it."""
        offer = await self._markets.best()
        return Deposit(offer.market, offer.price, _timeout_seconds(task))

    async def submit(self, task: Task, key: IdempotencyKey) -> JobHandle:
        """Check what can be checked for free, pin the definition, and list one job."""
        self._check(task)
        terms = self._terms
        document = definition.build(task, key, terms.template, min_vram_gb=terms.min_vram_gb)
        deposit, owner = await self.deposit(task), self._buyer.payer
        await onchain_funds.check(self._view, self._program, owner, deposit.micro_nos)
        cid = await pin(self._api, document, self._sleep)
        job, run = [await self._buyer.address(key, label) for label in (JOB_KEY, RUN_KEY)]
        listing = self._program.list_job(
            job=job,
            run=run,
            market=deposit.market,
            owner=owner,
            definition=digest_of(cid),
            timeout_seconds=deposit.seconds,
        )
        detail = {
            "key": key,
            "run": str(run),
            "cid": cid,
            "market": str(deposit.market),
            "listed_at": int(self._now()),
            "timeout_seconds": deposit.seconds,
            "max_output_tokens": task.max_output_tokens,
        }
        # The price is fixed by the program as it lists: one that was raised meanwhile shows in the simulation.
        most_spent = {self._program.nos_account(owner): deposit.most_micro_nos}
        order = Order((listing,), (JOB_KEY, RUN_KEY), (deposit.market,), most_spent, detail)
        match await self._buyer.buy(key, order):
            case Landed(slot, _):
                return self._handle(job, {**detail, **self._reserved(deposit.micro_nos), "slot": slot})
            case Refused() as refusal:
                self._markets.forget()
                raise _refused(refusal)
            case AlreadyUsed():
                return await self._adopted(key, job, run)

    async def find(self, key: IdempotencyKey) -> Found | Absent | CannotTell:
        """The job account and the transactions of its key, besides what the signature manager remembers."""
        fate = await self._buyer.withdraw(key)
        job, run = [await self._buyer.address(key, label) for label in (JOB_KEY, RUN_KEY)]
        detail = {} if isinstance(fate, NotBought) else fate.detail
        since_slot = 0 if isinstance(fate, InFlight) else fate.slot
        sighting = (await self._jobs.look([(job, run)], since_slot)).get(job)
        if sighting is not None and sighting.job is not None:
            return Found(self._handle_of(key, job, run, sighting.job, detail, since_slot))
        if await self._view.was_used(job, since_slot=since_slot):
            return Found(self._handle(job, {"key": key, "run": str(run), **detail, "slot": since_slot}))
        match fate:
            case NotBought():
                return Absent()
            case InFlight():
                return CannotTell("its transaction may still land")
            case Landed():
                return CannotTell("its transaction has landed, and the endpoint does not show the job yet")

    async def poll(self, handles: Sequence[JobHandle]) -> Mapping[JobHandle, JobStatus]:
        since_slot = max((slot_of(handle) for handle in handles), default=0)
        seen = await self._jobs.look([addresses_of(handle) for handle in handles], since_slot)
        statuses = await asyncio.gather(
            *(self._statuses.of(handle, seen.get(Pubkey.from_string(handle.job_id))) for handle in handles)
        )
        return dict(zip(handles, statuses, strict=True))

    async def fetch(self, handle: JobHandle) -> Output:
        """The output of a job that succeeded. Raises what it came to otherwise, or ORC-PROVIDER-019 while it runs."""
        outcome = self._outcomes.known(handle)
        if outcome is None:
            seen = await self._jobs.look([addresses_of(handle)], slot_of(handle))
            ended = await self._statuses.ended(handle, seen.get(Pubkey.from_string(handle.job_id)))
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
        await self._canceller.cancel(*addresses_of(handle), slot_of(handle))

    async def balance(self) -> Money | None:
        return Money((await self.holdings()).micro_nos / program.MICRO_NOS, "NOS")

    async def holdings(self) -> Holdings:
        """What the operator's wallet holds, for a person to look at."""
        return await onchain_funds.holdings(self._view, self._program, self._buyer.payer)

    async def probe(self) -> None:
        await self.holdings()

    async def models(self) -> Sequence[str]:
        return self._terms.models

    async def markets(self) -> Sequence[Listing]:
        """Where a job could run, the chosen market first."""
        return await self._markets.listings()

    async def close(self) -> None:
        await self._statuses.close()
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


def _timeout_seconds(task: Task) -> int:
    """On chain there is no shortest job."""
    return max(1, math.ceil(task.timeout_seconds))


def _refused(refusal: Refused) -> OracleError:
    """The program's own words tell the cause: its numbers are ambiguous (§2.8)."""
    said = " ".join(refusal.logs)
    if "insufficient funds" in said or "insufficient lamports" in said:
        return errors.OUT_OF_CREDIT("the wallet has too few NOS or lamports for the deposit")
    named = [line.partition("Error Code: ")[2].partition(".")[0] for line in refusal.logs if "Error Code: " in line]
    number = "" if refusal.custom is None else f" {refusal.custom}"
    return errors.LISTING_REFUSED(", ".join(named) or refusal.kind + number)
