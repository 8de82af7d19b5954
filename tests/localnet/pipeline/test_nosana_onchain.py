"""The main job with Nosana on chain: bought by transaction, run by a host, settled; and everything that goes wrong."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from nosana_world import DEPOSIT, NOS, PRICE, NosanaWorld, host_waits, is_listing, long, nosana, timings
from pipeline_world import World, until
from solders.signature import Signature
from solders.transaction import VersionedTransaction

from oracle.client.requests import Submitted
from oracle.core.lifecycle import State
from oracle.core.request import Flags, Params, Status
from oracle.localnet.emulators.nosana import genesis
from oracle.localnet.emulators.nosana.chain_host import HOST_KEY
from oracle.localnet.emulators.nosana.jobs_program import nos_account
from oracle.pipeline import checks
from oracle.pipeline.daemon import Daemon
from oracle.store.rows import AttemptRow
from oracle.store.schema import AttemptState, SettlementState

pytestmark = pytest.mark.localnet

__all__ = ["host_waits", "nosana", "timings"]

PURCHASES = "ORC-SETTLE-011"


async def answered(world: World, submitted: Submitted) -> None:
    assert (await world.ended(submitted)).header.status is Status.FULFILLED


async def rejected(world: World, submitted: Submitted) -> None:
    assert (await world.ended(submitted)).header.status is Status.REJECTED


async def attempt_that(
    nosana: NosanaWorld, daemon: Daemon, submitted: Submitted, holds: Callable[[AttemptRow], bool], what: str
) -> AttemptRow:
    async def look() -> AttemptRow | None:
        if await nosana.world.row(daemon, submitted) is None:
            return None
        found = [attempt for attempt in await nosana.attempts(daemon, submitted) if holds(attempt)]
        return found[0] if found else None

    return await until(look, what)


async def runs(nosana: NosanaWorld, daemon: Daemon, submitted: Submitted) -> AttemptRow:
    """The attempt whose job a host has begun."""
    attempt = await attempt_that(nosana, daemon, submitted, lambda a: a.job_id is not None, "a job that was bought")

    async def begun() -> bool:
        return any(job["address"] == attempt.job_id for job in nosana.nosana.books()["jobs"])

    await until(begun, "a host for it")
    return attempt


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
async def test_a_wallet_without_enough_nos_buys_nothing(world: World, nosana: NosanaWorld) -> None:
    await nosana.spend_all_but(DEPOSIT - 1)
    async with world.daemon() as daemon:
        submitted = await world.submit()
        await rejected(world, submitted)
        (attempt,) = await nosana.attempts(daemon, submitted)
        assert (attempt.error_code, attempt.cost_lamports) == ("ORC-PROVIDER-009", 0)
        assert await nosana.listings() == []
        assert await nosana.nos() == DEPOSIT - 1


async def test_a_wallet_that_is_emptied_at_the_last_moment_buys_nothing(world: World, nosana: NosanaWorld) -> None:
    """Between the look at the wallet and the simulation: the program itself refuses."""
    async with world.daemon() as daemon:
        await before_simulation(daemon, lambda: nosana.spend_all_but(0))
        submitted = await world.submit()
        await rejected(world, submitted)
        (attempt,) = await nosana.attempts(daemon, submitted)
        assert (attempt.error_code, attempt.cost_lamports) == ("ORC-PROVIDER-009", 0)
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


# --- law 2 and law 4: bought at most once ---


async def test_a_listing_that_expires_unseen_is_bought_anew_only_once_it_is_proven_dead(
    world: World, nosana: NosanaWorld
) -> None:
    await nosana.lose_listings()
    async with world.daemon() as daemon:
        submitted = await world.submit()

        async def sent() -> bool:
            return bool(nosana.lost)

        await until(sent, "a listing on its way")
        # Three times as many slots as its blockhash lives, and the finality after them.
        await world.node.advance(200)
        await nosana.lose_listings(False)
        await answered(world, submitted)
        first, second = await nosana.attempts(daemon, submitted)
        assert (first.state, first.cost_lamports) == (AttemptState.FAILED, 0)
        assert second.state is AttemptState.SUCCEEDED
        assert first.idempotency_key != second.idempotency_key
        assert len(set(nosana.lost)) == 1
        assert len(await nosana.listings()) == 1


async def test_a_daemon_that_dies_between_signing_and_sending_buys_one_job(world: World, nosana: NosanaWorld) -> None:
    async with nosana.mortal() as daemon:
        held = await hold_back_listings(daemon)
        submitted = await world.submit()
        (wire,) = await until(lambda: some(held.wires), "a signed listing")
    assert await nosana.listings() == []
    async with world.daemon() as daemon:
        await answered(world, submitted)
        (attempt,) = await nosana.attempts(daemon, submitted)
        assert attempt.state is AttemptState.SUCCEEDED
        assert await nosana.listings() == [signature_of(wire)]


async def test_a_daemon_that_dies_before_signing_buys_one_job(world: World, nosana: NosanaWorld) -> None:
    async with nosana.mortal() as daemon:
        reached = await hang_in_simulation(daemon)
        submitted = await world.submit()
        await asyncio.wait_for(reached.wait(), 20)
    async with world.daemon() as daemon:
        await answered(world, submitted)
        first, second = await nosana.attempts(daemon, submitted)
        assert (first.error_code, first.cost_lamports) == ("ORC-POLICY-017", 0)
        assert second.state is AttemptState.SUCCEEDED
        assert len(await nosana.listings()) == 1


async def test_a_daemon_that_dies_after_the_purchase_finds_its_job(world: World, nosana: NosanaWorld) -> None:
    nosana.faults.add("slow_run", seconds=1.0, count=1)
    async with nosana.mortal() as daemon:
        await forget_answers(daemon)
        submitted = await world.submit()

        async def listed() -> bool:
            return len(await nosana.listings()) == 1

        await until(listed, "the listing")
    async with world.daemon() as daemon:
        await answered(world, submitted)
        (attempt,) = await nosana.attempts(daemon, submitted)
        assert attempt.state is AttemptState.SUCCEEDED
        assert len(await nosana.listings()) == 1


async def test_a_daemon_that_has_lost_its_database_adopts_the_job_that_it_bought(
    world: World, nosana: NosanaWorld
) -> None:
    nosana.faults.add("slow_run", seconds=1.0, count=1)
    async with nosana.mortal() as daemon:
        submitted = await world.submit()
        await runs(nosana, daemon, submitted)
    world.settings["database"] = {"url": "sqlite:///empty.sqlite"}
    async with world.daemon() as daemon:
        await answered(world, submitted)
        (attempt,) = await nosana.attempts(daemon, submitted)
        assert attempt.state is AttemptState.SUCCEEDED
        assert len(await nosana.listings()) == 1


async def test_a_key_that_was_cleaned_is_not_bought_under_again(world: World, nosana: NosanaWorld) -> None:
    """Account gone, database gone: only the transactions that named the key tell of the purchase."""
    async with world.daemon() as daemon:
        await stop_settling(daemon)
        submitted = await world.submit()
        await world.reaches(daemon, submitted, State.COMPUTED, State.SETTLING)
        (attempt,) = await nosana.attempts(daemon, submitted)
    await nosana.clean(attempt)
    assert await nosana.job(attempt) is None
    world.settings["database"] = {"url": "sqlite:///empty.sqlite"}
    async with world.daemon() as daemon:
        await answered(world, submitted)
        (again,) = await nosana.attempts(daemon, submitted)
        assert again.idempotency_key == attempt.idempotency_key
        assert len(await nosana.listings()) == 1


async def test_a_fork_that_drops_the_purchase_leads_to_the_same_job(world: World, nosana: NosanaWorld) -> None:
    nosana.faults.add("slow_start", seconds=0.6, count=1)
    async with world.daemon() as daemon:
        submitted = await world.submit()
        await nosana.fork_under_the_listing()
        await answered(world, submitted)
        (attempt,) = await nosana.attempts(daemon, submitted)
        assert attempt.state is AttemptState.SUCCEEDED
        assert len(await nosana.listings()) == 1


# --- law 7: a request that ends takes its job along ---


async def test_a_request_that_expires_under_a_running_job_ends_the_job(world: World, nosana: NosanaWorld) -> None:
    nosana.faults.add("slow_run", seconds=60, count=None)
    async with world.daemon() as daemon:
        submitted = await world.submit(ttl_slots=120)
        attempt = await runs(nosana, daemon, submitted)
        assert (await world.ended(submitted)).header.status is Status.EXPIRED

        async def ended() -> bool:
            job = await nosana.job(attempt)
            return job is not None and job.state == 2

        await until(ended, "the end of the job")
        assert await nosana.in_vault() == 0
        await attempt_that(nosana, daemon, submitted, lambda a: a.state is AttemptState.CANCELLED, "its cancellation")


# --- means ---


def signature_of(wire: bytes) -> Signature:
    return VersionedTransaction.from_bytes(wire).signatures[0]


async def some(items: list[Any]) -> list[Any] | None:
    return items or None


class Held:
    """Signed listings that the daemon believes it has sent."""

    def __init__(self, send: Callable[..., Awaitable[Signature]]) -> None:
        self._send = send
        self._open = asyncio.Event()
        self.wires: list[bytes] = []

    async def send(self, wire: bytes, **options: Any) -> Signature:
        if is_listing(VersionedTransaction.from_bytes(wire)) and not self._open.is_set():
            if wire not in self.wires:
                self.wires.append(wire)
            await self._open.wait()
        return await self._send(wire, **options)

    async def let_go(self) -> None:
        self._open.set()


async def hold_back_listings(daemon: Daemon) -> Held:
    rpc: Any = daemon.context.rpc
    held = Held(rpc.send_transaction)
    rpc.send_transaction = held.send
    return held


async def before_simulation(daemon: Daemon, act: Callable[[], Awaitable[None]]) -> None:
    rpc: Any = daemon.context.rpc
    simulate = rpc.simulate_transaction

    async def acted(wire: bytes, *args: Any, **options: Any) -> Any:
        if is_listing(VersionedTransaction.from_bytes(wire)):
            await act()
        return await simulate(wire, *args, **options)

    rpc.simulate_transaction = acted


async def hang_in_simulation(daemon: Daemon) -> asyncio.Event:
    reached = asyncio.Event()

    async def hang() -> None:
        reached.set()
        await asyncio.Event().wait()

    await before_simulation(daemon, hang)
    return reached


async def forget_answers(daemon: Daemon) -> None:
    """The purchase lands, and whoever waits for it never hears of it."""
    purchases: Any = daemon.context.providers["nosana"]

    async def deaf(*_: Any) -> Any:
        await asyncio.Event().wait()

    purchases._buyer._outcome = deaf


async def stop_settling(daemon: Daemon) -> None:
    """Nothing but listings is sent."""
    rpc: Any = daemon.context.rpc
    send = rpc.send_transaction

    async def listings_only(wire: bytes, **options: Any) -> Signature:
        if is_listing(VersionedTransaction.from_bytes(wire)):
            return await send(wire, **options)
        return signature_of(wire)

    rpc.send_transaction = listings_only
