"""Where jobs are, read from the chain in bulk: waiting, running, ended, quit, or gone (nosana.md §2.5)."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from solders.pubkey import Pubkey

from oracle.core.errors import OracleError
from oracle.core.purchase import AccountState, ChainView
from oracle.providers.nosana import program
from oracle.providers.nosana.program import JobAccount, JobState, Program, RunAccount

_KEPT: Final = 1000


@dataclass(frozen=True, slots=True)
class Run:
    """A host at work, and the account that says so."""

    address: Pubkey
    account: RunAccount


@dataclass(frozen=True, slots=True)
class Sighting:
    """A job as it was seen. `job` is None where there is no account; then nothing else is known of it.

    `run` is None where no host has it; `is_waiting` says that it stands in its market's queue. Neither is a race
    between two reads, or an orphan. `is_certain` is false where the endpoint would not search for runs.
    """

    job: JobAccount | None
    run: Run | None = None
    is_waiting: bool = False
    is_certain: bool = True


class ChainJobs:
    """Looks at many jobs in a few calls, and remembers where their runs are."""

    def __init__(self, view: ChainView, jobs_program: Program) -> None:
        self._view = view
        self._program = jobs_program
        self._runs: OrderedDict[Pubkey, Pubkey] = OrderedDict()

    async def look(self, jobs: Sequence[tuple[Pubkey, Pubkey]], since_slot: int) -> dict[Pubkey, Sighting]:
        """Jobs as of `since_slot` or later. One whose account cannot be read is left out.

        With each job comes the address of its run if a host was waiting when it was listed: others choose their own.
        Read in the order of a job's life, so that one that moves on meanwhile is met in the next place, not in none:
        its account and the run where it was last seen, then the queue, then a search for its run.
        """
        runs = [self._runs.get(job, run) for job, run in jobs]
        found = await self._view.accounts([*(job for job, _ in jobs), *runs], since_slot=since_slot)
        sightings: dict[Pubkey, Sighting] = {}
        undecided: list[tuple[Pubkey, JobAccount]] = []
        for (job, _), run, account, held in zip(jobs, runs, found, found[len(jobs) :], strict=False):
            # Anyone can send lamports to the address of a job that is gone: that makes an account, but no job.
            is_job = account is not None and account.owner == self._program.id
            try:
                seen = program.read_job(account.data) if account is not None and is_job else None
            except OracleError:
                continue
            here = self._run_of(job, run, held)
            sightings[job] = Sighting(seen, here)
            if seen is not None and seen.state is not JobState.DONE and here is None:
                undecided.append((job, seen))
        return sightings | (await self._decide(undecided) if undecided else {})

    async def _decide(self, jobs: Sequence[tuple[Pubkey, JobAccount]]) -> dict[Pubkey, Sighting]:
        waiting = await self._waiting({account.market for _, account in jobs if account.state is JobState.QUEUED})
        found = {job: Sighting(account, is_waiting=True) for job, account in jobs if job in waiting}
        rest = [(job, account) for job, account in jobs if job not in waiting]
        searched = await asyncio.gather(*(self._search(job, account) for job, account in rest))
        return found | {job: sighting for (job, _), sighting in zip(rest, searched, strict=True)}

    async def _waiting(self, markets: set[Pubkey]) -> set[Pubkey]:
        accounts = await self._view.accounts(sorted(markets, key=bytes))
        read = [program.read_market(account.data) for account in accounts if account is not None]
        return {job for market in read if market.holds_jobs for job in market.waiting}

    async def _search(self, job: Pubkey, account: JobAccount) -> Sighting:
        """A host that took the job from the queue keeps its run at a key of its own."""
        contents = {0: program.RUN, program.RUN_JOB_OFFSET: bytes(job)}
        try:
            found = await self._view.accounts_of(self._program.id, contents)
        except OracleError:
            return Sighting(account, is_certain=False)
        for address, data in found.items():
            self._runs[job] = address
            if len(self._runs) > _KEPT:
                self._runs.popitem(last=False)
            return Sighting(account, Run(address, program.read_run(data)))
        return Sighting(account)

    def _run_of(self, job: Pubkey, address: Pubkey, account: AccountState | None) -> Run | None:
        if account is None or account.owner != self._program.id:
            return None
        try:
            run = program.read_run(account.data)
        except OracleError:
            return None
        return Run(address, run) if run.job == job else None
