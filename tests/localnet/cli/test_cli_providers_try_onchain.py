"""`oracle providers try` at a network that is paid on chain: one transaction at most, and the chain tells its fate."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, TypeVar

import pytest
import settings_file
from command import Ran, oracle
from nosana_daemon import answered
from nosana_world import DEPOSIT, MARKET, NOS, PRICE, NosanaWorld, host_waits, is_listing, long, nosana, timings
from pipeline_world import World, until
from solders.pubkey import Pubkey
from solders.signature import Signature
from solders.transaction import VersionedTransaction

from oracle.chain.rpc.client import Client
from oracle.chain.rpc.errors import SEND_UNCERTAIN, UNREACHABLE
from oracle.localnet.emulators.nosana import jobs_program
from oracle.pipeline import trial
from oracle.store.engine import Store
from oracle.store.rows import LedgerRow
from oracle.store.schema import LedgerKind, ledger

pytestmark = pytest.mark.localnet

__all__ = ["host_waits", "nosana", "timings"]

KEY: Final = "8a2b6d3e-6a0f-4c55-9f5c-0d1f7c3f2b11"

T = TypeVar("T")


@pytest.fixture(autouse=True)
def _look_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "LOOK_SECONDS", 0.05)


def written(world: World) -> str:
    return str(settings_file.write(world.directory / "oracle.toml", world.settings))


async def tried(world: World, *arguments: str) -> Ran:
    return await oracle("providers", "try", "nosana", "--yes", "--json", *arguments, "-c", written(world))


async def booked(world: World, kind: LedgerKind) -> list[LedgerRow]:
    store = await Store.open(world.config().database.url)
    try:
        rows = await store.read(lambda c: [LedgerRow(*row) for row in c.execute(ledger.select())])
    finally:
        await store.close()
    return [row for row in rows if row.kind == kind]


async def wallet_lamports(nosana: NosanaWorld) -> int:
    return (await nosana.world.rpc.get_balance(nosana.operator)).value


async def job_at(nosana: NosanaWorld, address: str) -> jobs_program.JobAccount | None:
    account = (await nosana.world.rpc.get_account(Pubkey.from_string(address))).value
    return None if account is None else jobs_program.read_job(account.data)


async def hurried(world: World, running: Awaitable[T], sent: Sequence[bytes] | None = None) -> T:
    """Blockhashes die while this is waited for; where something is to be sent under one, from then on."""
    task = asyncio.ensure_future(running)

    async def begins() -> bool:
        return sent is None or bool(sent) or task.done()

    await until(begins, "a transaction that was sent")
    while not task.done():
        await world.node.advance(40)
        await asyncio.wait({task}, timeout=0.05)
    return await task


def steps(ran: Ran, step: str) -> list[str]:
    return [each["detail"] for each in ran.document["steps"] if each["step"] == step]


def on_send(monkeypatch: pytest.MonkeyPatch, act: Callable[[Client, bytes], Awaitable[Signature]]) -> None:
    """What happens in place of sending a listing."""
    send = Client.send_transaction

    async def sent(self: Client, wire: bytes, **options: Any) -> Signature:
        if is_listing(VersionedTransaction.from_bytes(wire)):
            return await act(self, wire)
        return await send(self, wire, **options)

    monkeypatch.setattr(Client, "send_transaction", sent)


async def test_a_job_that_is_bought_on_chain_runs_end_to_end_and_every_step_is_told(
    world: World, nosana: NosanaWorld
) -> None:
    ran = await tried(world)
    assert ran.status == 0, ran.err
    told = [step["step"] for step in ran.document["steps"]]
    wanted = [
        "asked",
        "public",
        "quoted",
        "deposit",
        "signed",
        "landed",
        "job",
        "succeeded",
        "answer",
        "model run",
        "cost",
    ]
    assert [step for step in told if step in wanted] == wanted
    (deposit,) = steps(ran, "deposit")
    assert f"{DEPOSIT / NOS:.6f} NOS" in deposit
    assert str(MARKET) in deposit
    (listing,) = await nosana.listings()
    assert all(detail.startswith(str(listing)) for step in ("signed", "landed") for detail in steps(ran, step))
    job = await job_at(nosana, *steps(ran, "job"))
    assert job is not None
    assert await nosana.nos() == NOS - PRICE * (job.time_end - job.time_start)
    assert await nosana.in_vault() == 0
    (entry,) = await booked(world, LedgerKind.JOB)
    assert entry.lamports == -ran.document["cost_lamports"]
    assert (entry.requester, ran.document["key"] in (entry.note or "")) == ("trial", True)
    (fee,) = await booked(world, LedgerKind.TX_FEE)
    record = await world.rpc.get_transaction(listing)
    assert record is not None
    assert (fee.lamports, fee.note) == (-record.fee_lamports, str(listing))


async def test_beside_a_daemon_of_the_same_key_each_buys_its_own_job(world: World, nosana: NosanaWorld) -> None:
    async with world.daemon() as daemon:
        submitted = await world.submit()
        ran, _ = await asyncio.gather(tried(world), answered(world, submitted))
        assert ran.status == 0, ran.err
        (attempt,) = await nosana.attempts(daemon, submitted)
        assert attempt.job_id not in steps(ran, "job")
        assert len(await nosana.listings()) == 2
    assert len(await booked(world, LedgerKind.JOB)) == 2


async def test_a_send_whose_answer_is_lost_buys_one_job(
    world: World, nosana: NosanaWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    send, lost = Client.send_transaction, []

    async def answer_lost(client: Client, wire: bytes) -> Signature:
        lost.append(await send(client, wire))
        raise SEND_UNCERTAIN("connection reset")

    on_send(monkeypatch, answer_lost)
    ran = await tried(world)
    assert ran.status == 0, ran.err
    assert await nosana.listings() == lost[:1]
    assert len(set(lost)) == 1


@long
async def test_a_cluster_that_falls_silent_in_the_middle_is_asked_again_and_nothing_is_signed_twice(
    world: World, nosana: NosanaWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    send, ask = Client.send_transaction, Client.get_signature_statuses
    sent: list[Signature] = []
    silent: list[Signature] = []

    async def noted(client: Client, wire: bytes) -> Signature:
        sent.append(await send(client, wire))
        return sent[-1]

    async def silent_at_first(self: Client, signatures: Sequence[Signature], **options: Any) -> Any:
        if signatures[0] in sent and len(silent) < 3:
            silent.append(signatures[0])
            raise UNREACHABLE("no route")
        return await ask(self, signatures, **options)

    on_send(monkeypatch, noted)
    monkeypatch.setattr(Client, "get_signature_statuses", silent_at_first)
    ran = await tried(world)
    assert ran.status == 0, ran.err
    assert (len(silent), len(steps(ran, "signed")), await nosana.listings()) == (3, 1, sent[:1])


async def test_a_transaction_that_never_lands_is_proven_dead_and_has_bought_nothing(
    world: World, nosana: NosanaWorld
) -> None:
    await nosana.lose_listings()
    ran = await hurried(world, tried(world), nosana.lost)
    assert (ran.status, '"ORC-SETTLE-011"' in ran.err) == (1, True), ran.err
    assert len(set(nosana.lost)) == 1
    await nosana.lose_listings(False)
    await world.node.advance(2)
    assert (await nosana.listings(), await nosana.nos()) == ([], NOS)
    assert [entry.lamports for entry in await booked(world, LedgerKind.JOB)] == [0]
    assert await booked(world, LedgerKind.TX_FEE) == []


async def test_a_transaction_that_fails_on_chain_costs_its_fee_and_buys_nothing(
    world: World, nosana: NosanaWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    send = Client.send_transaction
    sent: list[bytes] = []

    async def after_the_wallet_is_drained(client: Client, wire: bytes) -> Signature:
        if not sent:
            await nosana.spend_all_but(0)
        signature = await send(client, wire)
        sent.append(wire)
        return signature

    on_send(monkeypatch, after_the_wallet_is_drained)
    ran = await hurried(world, tried(world), sent)
    assert (ran.status, '"ORC-SETTLE-011"' in ran.err) == (1, True), ran.err
    assert (len(set(sent)), await nosana.listings()) == (1, [])
    assert [entry.lamports for entry in await booked(world, LedgerKind.JOB)] == [0]
    assert len(await booked(world, LedgerKind.TX_FEE)) == 1


async def test_a_drained_wallet_buys_nothing(world: World, nosana: NosanaWorld) -> None:
    await nosana.spend_all_but(DEPOSIT - 1)
    before = await wallet_lamports(nosana)
    ran = await tried(world)
    assert (ran.status, '"ORC-PROVIDER-009"' in ran.err) == (1, True), ran.err
    assert (nosana.pins(), await wallet_lamports(nosana)) == (0, before)
    assert [entry.lamports for entry in await booked(world, LedgerKind.JOB)] == [0]


@long
async def test_a_wallet_that_is_drained_before_the_simulation_signs_nothing(
    world: World, nosana: NosanaWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    simulate = Client.simulate_transaction

    async def drained(self: Client, wire: bytes, **options: Any) -> Any:
        if is_listing(VersionedTransaction.from_bytes(wire)):
            await nosana.spend_all_but(0)
        return await simulate(self, wire, **options)

    monkeypatch.setattr(Client, "simulate_transaction", drained)
    before = await wallet_lamports(nosana)
    ran = await tried(world)
    assert (ran.status, '"ORC-PROVIDER-009"' in ran.err) == (1, True), ran.err
    assert (nosana.pins(), await wallet_lamports(nosana)) == (1, before)
    assert [entry.lamports for entry in await booked(world, LedgerKind.JOB)] == [0]


async def test_the_spend_policy_of_the_key_holds_for_a_trial(world: World, nosana: NosanaWorld) -> None:
    world.settings["spending"] = {"max_micro_nos_per_transaction": DEPOSIT}
    before = await wallet_lamports(nosana)
    ran = await tried(world)
    assert (ran.status, '"ORC-SIGNER-011"' in ran.err) == (1, True), ran.err
    assert (await nosana.listings(), await wallet_lamports(nosana)) == ([], before)


async def test_a_key_that_never_bought_is_told_so_once_nothing_of_it_can_land(
    world: World, nosana: NosanaWorld
) -> None:
    began = await world.rpc.get_block_height()
    ran = await hurried(world, tried(world, "--key", KEY))
    assert (ran.status, '"ORC-PIPE-034"' in ran.err, "ORC-POLICY-017" in ran.err) == (1, True, True), ran.err
    assert await world.rpc.get_block_height() > began + 150
    assert await nosana.listings() == []


async def process(world: World) -> tuple[asyncio.subprocess.Process, list[str]]:
    started = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "oracle", "providers", "try", "nosana", "--yes", "-c", written(world)),
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "COLUMNS": "300"},
    )
    return started, []


async def read_until(running: asyncio.subprocess.Process, lines: list[str], word: str) -> str:
    assert running.stdout is not None
    async with asyncio.timeout(60):
        async for line in running.stdout:
            lines.append(line.decode())
            if word in lines[-1]:
                return lines[-1]
    raise AssertionError(f"{word!r} was not told: {lines}")


async def test_interrupted_while_it_waits_for_a_host_the_job_is_withdrawn_and_the_deposit_comes_back(
    world: World, nosana: NosanaWorld
) -> None:
    nosana.faults.add("never_starts", count=None)
    running, lines = await process(world)
    await read_until(running, lines, "queued")
    assert await nosana.nos() == NOS - DEPOSIT
    running.send_signal(signal.SIGINT)
    await read_until(running, lines, "called off")
    assert await running.wait() == 130
    assert (await nosana.nos(), await nosana.in_vault(), await nosana.waiting()) == (NOS, 0, ())
    (listing,) = await nosana.listings()
    signatures = [detail for line in lines if (detail := re.search(r"landed\s+(\w+)", line))]
    assert [found[1] == str(listing) for found in signatures] == [True, False]
    assert len(await booked(world, LedgerKind.TX_FEE)) == 2


async def test_the_job_of_a_trial_that_was_killed_is_found_by_its_key(world: World, nosana: NosanaWorld) -> None:
    nosana.faults.add("slow_run", seconds=1, count=1)
    running, lines = await process(world)
    key = (await read_until(running, lines, "asked")).split()[-1]

    async def listed() -> list[Signature]:
        return await nosana.listings()

    await until(listed, "the listing, on chain")
    running.kill()
    await running.wait()
    (quote,) = await booked(world, LedgerKind.JOB)
    ran = await tried(world, "--key", key)
    assert ran.status == 0, ran.err
    assert ran.document["answer"]
    assert len(await nosana.listings()) == 1
    (cost,) = await booked(world, LedgerKind.JOB)
    assert (cost.id, cost.lamports) == (quote.id, -ran.document["cost_lamports"])


@long
async def test_what_a_killed_trial_has_signed_is_dead_before_its_key_is_called_absent(
    world: World, nosana: NosanaWorld
) -> None:
    await nosana.lose_listings()
    running, lines = await process(world)
    key = (await read_until(running, lines, "asked")).split()[-1]

    async def sent() -> bool:
        return bool(nosana.lost)

    await until(sent, "a listing that was sent, and lost")
    running.kill()
    await running.wait()
    ran = await hurried(world, tried(world, "--key", key))
    assert (ran.status, '"ORC-PIPE-034"' in ran.err, "ORC-POLICY-017" in ran.err) == (1, True, True), ran.err
    await nosana.lose_listings(False)
    await world.rpc.send_transaction(nosana.lost[0])
    await world.node.advance(3)
    assert (await nosana.listings(), await nosana.nos()) == ([], NOS)
    (quote,) = await booked(world, LedgerKind.JOB)
    assert quote.lamports < 0
