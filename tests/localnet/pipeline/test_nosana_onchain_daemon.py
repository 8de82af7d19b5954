"""The main job with Nosana on chain: bought by transaction, run by a host, settled; and what can go wrong."""

from __future__ import annotations

import pytest
from nosana_daemon import (
    answered,
    attempt_that,
    before_simulation,
    hold_back_listings,
    rejected,
    runs,
    signature_of,
    some,
)
from nosana_world import DEPOSIT, NOS, PRICE, NosanaWorld, host_waits, long, nosana, timings
from pipeline_world import World, until

from oracle.core.lifecycle import State
from oracle.core.request import Flags, Params, Status
from oracle.localnet.emulators.nosana import genesis
from oracle.localnet.emulators.nosana.chain_host import HOST_KEY
from oracle.localnet.emulators.nosana.jobs_program import nos_account
from oracle.pipeline import checks
from oracle.store.schema import AttemptState, SettlementState

pytestmark = pytest.mark.localnet

__all__ = ["host_waits", "nosana", "timings"]

PURCHASES = "ORC-SETTLE-011"


# --- the job itself ---


async def test_a_request_is_answered_by_a_job_that_was_bought_on_chain(world: World, nosana: NosanaWorld) -> None:
    async with world.daemon() as daemon:
        submitted = await world.submit()
        await answered(world, submitted)
        (attempt,) = await nosana.attempts(daemon, submitted)
        job = await nosana.job(attempt)
        assert job is not None
        assert (job.state, job.project, job.payer) == (2, nosana.operator, nosana.operator)
        assert attempt.job_id == str((await nosana.job_key(attempt)).pubkey())
        assert await nosana.nos() == NOS - PRICE * (job.time_end - job.time_start)
        assert await nosana.in_vault() == 0
        assert len(await nosana.listings()) == 1

        async def final() -> bool:
            (purchase,) = await nosana.purchases(daemon, submitted)
            return purchase.state is SettlementState.FINALIZED

        await until(final, "the purchase, finalized")


@pytest.mark.parametrize("host_waits", [True])
async def test_a_job_is_handed_to_a_host_that_waits_in_line(world: World, nosana: NosanaWorld) -> None:
    async def stands_in_line() -> bool:
        return HOST_KEY.pubkey() in await nosana.waiting()

    await until(stands_in_line, "a host in line")
    async with world.daemon() as daemon:
        submitted = await world.submit()
        await answered(world, submitted)
        (attempt,) = await nosana.attempts(daemon, submitted)
        assert attempt.state is AttemptState.SUCCEEDED


@long
async def test_many_requests_have_a_job_each_and_none_is_mixed_up(world: World, nosana: NosanaWorld) -> None:
    async with world.daemon() as daemon:
        submitted = [await world.submit(f"question {number}", nonce=number) for number in range(5)]
        for each in submitted:
            await answered(world, each)
        jobs = [(await nosana.attempts(daemon, each))[0].job_id for each in submitted]
        assert len(set(jobs)) == 5
        assert len(await nosana.listings()) == 5
        rows = [await world.row(daemon, each) for each in submitted]
        assert len({row.output_sha256 for row in rows if row is not None}) == 5


@long
async def test_a_private_request_never_gets_near_the_open_ipfs(world: World, nosana: NosanaWorld) -> None:
    async with world.daemon() as daemon:
        submitted = await world.submit(params=Params(64, flags=Flags.PRIVATE))
        await world.reaches(daemon, submitted, State.DECLINED, State.REFUSED, State.SETTLING, State.REJECTED)
        assert nosana.pins() == 0
        assert await nosana.listings() == []


async def test_the_doctor_tells_what_the_wallet_holds(world: World, nosana: NosanaWorld) -> None:
    found = {result.name: result for result in await checks.all_of(world.config())}
    assert found["provider nosana"].health is checks.Health.OK
    assert "wallet 1 NOS (0 more staked)" in found["provider nosana"].detail


# --- what goes wrong on the network ---


async def test_a_failed_operation_is_paid_for_and_another_job_is_bought(world: World, nosana: NosanaWorld) -> None:
    nosana.faults.add("operation_fails", count=1)
    async with world.daemon() as daemon:
        submitted = await world.submit()
        await answered(world, submitted)
        first, second = await nosana.attempts(daemon, submitted)
        assert (first.state, first.error_code) == (AttemptState.FAILED, "ORC-PROVIDER-031")
        assert second.state is AttemptState.SUCCEEDED
        assert first.job_id != second.job_id
        assert len(await nosana.listings()) == 2


async def test_a_job_that_no_host_takes_is_withdrawn_and_its_deposit_comes_back(
    world: World, nosana: NosanaWorld
) -> None:
    nosana.faults.add("never_starts", count=None)
    world.settings["providers"]["nosana"]["max_queue_seconds"] = 1
    world.settings["models"]["tiny"]["routes"][0]["max_attempts"] = 1
    async with world.daemon() as daemon:
        submitted = await world.submit()
        await rejected(world, submitted)
        (attempt,) = await nosana.attempts(daemon, submitted)
        assert attempt.error_code == "ORC-PROVIDER-030"
        assert await nosana.job(attempt) is None
        assert (await nosana.nos(), await nosana.in_vault()) == (NOS, 0)
        assert await nosana.waiting() == ()


@long
async def test_a_host_that_quits_gives_the_deposit_back_before_another_job_is_bought(
    world: World, nosana: NosanaWorld
) -> None:
    nosana.faults.add("host_quits", count=1)
    async with world.daemon() as daemon:
        submitted = await world.submit()
        await answered(world, submitted)
        first, second = await nosana.attempts(daemon, submitted)
        assert first.error_code == "ORC-PROVIDER-032"
        assert await nosana.job(first) is None
        job = await nosana.job(second)
        assert job is not None
        assert await nosana.nos() == NOS - PRICE * (job.time_end - job.time_start)


@long
async def test_a_job_that_its_owner_ends_by_hand_is_replaced(world: World, nosana: NosanaWorld) -> None:
    nosana.faults.add("slow_run", seconds=30, count=1)
    async with world.daemon() as daemon:
        submitted = await world.submit()
        attempt = await runs(nosana, daemon, submitted)
        await nosana.end(attempt)
        await answered(world, submitted)
        first, second = await nosana.attempts(daemon, submitted)
        assert (first.error_code, second.state) == ("ORC-PROVIDER-034", AttemptState.SUCCEEDED)


@long
async def test_a_route_that_takes_too_long_is_ended_and_the_rest_of_the_deposit_comes_back(
    world: World, nosana: NosanaWorld
) -> None:
    nosana.faults.add("never_finishes", count=None)
    world.settings["models"]["tiny"]["routes"][0] |= {"timeout_seconds": 3, "max_attempts": 1}
    async with world.daemon() as daemon:
        submitted = await world.submit()
        await rejected(world, submitted)
        (attempt,) = await nosana.attempts(daemon, submitted)
        assert attempt.state is AttemptState.CANCELLED
        job = await nosana.job(attempt)
        assert job is not None
        assert job.state == 2
        assert await nosana.in_vault() == 0
        assert await nosana.nos(HOST_KEY.pubkey()) == PRICE * min(3, job.time_end - job.time_start)


@long
async def test_a_result_that_was_cleaned_from_the_chain_is_read_from_the_indexer(
    world: World, nosana: NosanaWorld
) -> None:
    """The daemon was down while the job ended, and Nosana's cleaner was faster."""
    nosana.faults.add("slow_run", seconds=0.5, count=1)
    async with nosana.mortal() as daemon:
        submitted = await world.submit()
        attempt = await runs(nosana, daemon, submitted)

    async def done() -> bool:
        job = await nosana.job(attempt)
        return job is not None and job.state == 2

    await until(done, "the end of the job")
    await nosana.clean(attempt)
    assert await nosana.job(attempt) is None
    async with world.daemon() as daemon:
        await answered(world, submitted)
        (attempt,) = await nosana.attempts(daemon, submitted)
        assert attempt.state is AttemptState.SUCCEEDED
        assert len(await nosana.listings()) == 1


# --- money ---


@long
async def test_a_wallet_without_enough_nos_buys_nothing_until_it_has(world: World, nosana: NosanaWorld) -> None:
    await nosana.spend_all_but(DEPOSIT - 1)
    async with world.daemon(breaker={"open_seconds": 1, "longest_open_seconds": 1}) as daemon:
        submitted = await world.submit()
        short = await attempt_that(nosana, daemon, submitted, lambda a: a.error_code is not None, "the refusal")
        assert (short.error_code, short.cost_lamports) == ("ORC-PROVIDER-009", 0)
        await world.reaches(daemon, submitted, State.ADMITTED)
        assert (await nosana.listings(), await nosana.nos()) == ([], DEPOSIT - 1)
        await world.node.call(lambda chain: genesis.grant_nos(chain, nosana.operator, NOS))
        await answered(world, submitted)
        assert len(await nosana.listings()) == 1


async def test_a_wallet_that_is_emptied_at_the_last_moment_buys_nothing(world: World, nosana: NosanaWorld) -> None:
    """Between the look at the wallet and the simulation: the program itself refuses. The request waits for money."""
    async with world.daemon() as daemon:
        await before_simulation(daemon, lambda: nosana.spend_all_but(0))
        submitted = await world.submit()
        attempt = await attempt_that(nosana, daemon, submitted, lambda a: a.error_code is not None, "the refusal")
        assert (attempt.error_code, attempt.cost_lamports) == ("ORC-PROVIDER-009", 0)
        await world.reaches(daemon, submitted, State.ADMITTED)
        assert await nosana.listings() == []
        (purchase,) = await nosana.purchases(daemon, submitted)
        assert purchase.state is SettlementState.DROPPED


async def test_a_price_that_was_raised_at_the_last_moment_is_not_paid(world: World, nosana: NosanaWorld) -> None:
    async with world.daemon() as daemon:
        await before_simulation(daemon, lambda: nosana.set_price(4 * PRICE))
        submitted = await world.submit(fee_lamports=100_000)
        await answered(world, submitted)
        first, second = await nosana.attempts(daemon, submitted)
        assert (first.error_code, first.cost_lamports) == ("ORC-PROVIDER-040", 0)
        job = await nosana.job(second)
        assert job is not None
        assert job.price == 4 * PRICE
        assert second.quoted_lamports == pytest.approx(4 * first.quoted_lamports, rel=0.01)
        assert len(await nosana.listings()) == 1


async def test_a_listing_that_fails_on_chain_costs_its_fee_and_is_tried_anew(world: World, nosana: NosanaWorld) -> None:
    """The wallet is emptied between the simulation and the leader, and filled again."""
    async with world.daemon() as daemon:
        held = await hold_back_listings(daemon)
        submitted = await world.submit()
        (wire,) = await until(lambda: some(held.wires), "a signed listing")
        await nosana.spend_all_but(0)
        await held.let_go()

        async def failed() -> bool:
            known = await world.rpc.get_signatures_for_address(nos_account(nosana.operator))
            return any(info.signature == signature_of(wire) and info.failure is not None for info in known)

        await until(failed, "the failure on chain")
        await world.node.call(lambda chain: genesis.grant_nos(chain, nosana.operator, NOS))
        await answered(world, submitted)
        first, second = await nosana.attempts(daemon, submitted)
        assert (first.state, first.error_code, first.cost_lamports) == (AttemptState.FAILED, PURCHASES, 0)
        assert second.state is AttemptState.SUCCEEDED
        assert len(await nosana.listings()) == 1


# --- law 7: a request that ends takes its job along ---


async def test_a_request_that_expires_under_a_running_job_ends_the_job(world: World, nosana: NosanaWorld) -> None:
    nosana.faults.add("slow_run", seconds=60, count=None)
    async with world.daemon() as daemon:
        submitted = await world.submit(ttl_slots=2_000)
        attempt = await runs(nosana, daemon, submitted)
        await world.node.advance(2_000)
        assert (await world.ended(submitted)).header.status is Status.EXPIRED

        async def ended() -> bool:
            job = await nosana.job(attempt)
            return job is not None and job.state == 2

        await until(ended, "the end of the job")
        assert await nosana.in_vault() == 0
        await attempt_that(nosana, daemon, submitted, lambda a: a.state is AttemptState.CANCELLED, "its cancellation")
