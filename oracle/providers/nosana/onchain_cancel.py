"""Ends a job wherever it is, so that no more is paid for it: withdrawn, ended, or its deposit taken back."""

from __future__ import annotations

from typing import Final

from solders.pubkey import Pubkey

from oracle.core.purchase import ChainAccess, Order
from oracle.providers import errors
from oracle.providers.nosana.onchain_jobs import ChainJobs, Run
from oracle.providers.nosana.program import JobAccount, JobState, Program

_TRIES: Final = 3


class Canceller:
    """Every transaction may be repeated: the program refuses a second effect."""

    def __init__(self, chain: ChainAccess, jobs_program: Program, jobs: ChainJobs) -> None:
        self._buyer = chain.buyer
        self._view = chain.view
        self._program = jobs_program
        self._jobs = jobs

    async def cancel(self, job: Pubkey, run: Pubkey, since_slot: int) -> None:
        """One that has ended stays as it is. Raises ORC-PROVIDER-002 where it could not be ended yet.

        It may move on between the look and the transaction: then the program refuses, and it is looked at again.
        """
        for _ in range(_TRIES):
            seen = (await self._jobs.look([(job, run)], since_slot)).get(job)
            if seen is None:
                raise errors.UNAVAILABLE(f"job {job} cannot be read")
            if seen.job is None:
                if await self._view.was_used(job):
                    return
                raise errors.UNAVAILABLE(f"job {job} is not on chain yet, and its listing may still land")
            if seen.job.state is JobState.DONE:
                return
            if seen.run is None and not seen.is_certain:
                raise errors.UNAVAILABLE(f"the endpoint does not search for the host of job {job}")
            if await self._buyer.perform(await self._ending(job, seen.job, seen.run)) is None:
                return
        raise errors.UNAVAILABLE(f"job {job} was refused every way to end it")

    async def _ending(self, job: Pubkey, account: JobAccount, run: Run | None) -> Order:
        owner, ours = self._buyer.payer, self._program
        if run is not None:
            end = ours.end(job, account, run.address, run.account, owner)
            (theirs,) = await self._view.accounts([ours.nos_account(run.account.node)])
            first = () if theirs is not None else (ours.create_nos_account(run.account.node, owner),)
            return Order((*first, end))
        if account.state is JobState.STOPPED:
            return Order((ours.recover(job, account, owner),))
        return Order((ours.delist(job, account, owner),), contended=(account.market,))
