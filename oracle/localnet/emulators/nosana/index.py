"""What Nosana's indexer remembers of jobs on chain, for ever, while their accounts are cleaned away (§4.4)."""

from __future__ import annotations

from typing import Final

from solders.pubkey import Pubkey

from oracle.localnet.emulators.nosana.ipfs import cid_of_digest
from oracle.localnet.emulators.nosana.jobs import Job, JobState
from oracle.localnet.emulators.nosana.jobs_program import JobAccount, RunAccount
from oracle.localnet.emulators.nosana.markets import Market
from oracle.localnet.emulators.nosana.world import World

NOBODYS: Final = "chain"
"""Stands where a job that was bought with credits has its user."""


def taken(world: World, market: Market, run: RunAccount, job: JobAccount) -> None:
    """A host has the job. It is shown from here on: how soon one that waits is shown is not emulated."""
    address = str(run.job)
    if world.jobs.get(address) is None:
        number = 47_000_000 + len(world.jobs)
        world.jobs.put(
            Job(
                number=number,
                address=address,
                run="",
                tx="",
                user_id=NOBODYS,
                project=str(job.project),
                market=str(job.market),
                ipfs_job=cid_of_digest(job.ipfs_job),
                timeout_seconds=job.timeout,
                price_micro_nos_per_second=job.price,
                usd_per_hour=market.job_usd_per_hour,
                reserved_micro_usd=0,
                listed_at=run.time,
                reservation_id="",
            )
        )
    world.jobs.change(address, state=JobState.RUNNING, node=str(run.node), time_start=run.time)


def ended(world: World, job: Pubkey, result: str | None, *, quit: bool = False) -> None:
    now = world.now()
    state = JobState.STOPPED if quit else JobState.COMPLETED
    world.jobs.change(str(job), state=state, time_end=0 if quit else now, ipfs_result=result, result_at=now)
