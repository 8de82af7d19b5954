"""A host that works on chain: jobs listed by a customer's own transactions, without any adapter of ours."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import pytest
from nosana_template import SPEC_EXAMPLE
from nosana_user import NosanaUser, served_nosana
from solders.keypair import Keypair
from solders.pubkey import Pubkey

from oracle.chain.rpc.client import Client
from oracle.chain.rpc.pool import connect
from oracle.chain.rpc.types import Memcmp
from oracle.client.transact import transact
from oracle.localnet import network
from oracle.localnet.emulators.nosana import genesis, jobs_program
from oracle.localnet.emulators.nosana.chain_host import HOST_KEY
from oracle.localnet.emulators.nosana.ipfs import cid_of_digest, digest_of
from oracle.localnet.emulators.nosana.jobs_program import JobAccount, nos_account
from oracle.localnet.server import Node

pytestmark = pytest.mark.localnet

T = TypeVar("T")
MARKET = Pubkey.from_string("7AtiXMSH6R1jjBxrcYjehCkkSF7zvYWte63gwEDBcGHq")
REWARDS = jobs_program.REWARDS_PROGRAM


@dataclass
class Customer:
    """Lists jobs, and reads what became of them."""

    node: Node
    rpc: Client
    user: NosanaUser
    key: Keypair = field(default_factory=Keypair)

    async def list(self, definition: Any, timeout_seconds: int = 60) -> Pubkey:
        cid = await self.user.pin(definition)
        job, run, owner = Keypair(), Keypair(), self.key.pubkey()
        accounts = {
            "job": job.pubkey(),
            "market": MARKET,
            "run": run.pubkey(),
            "user": nos_account(owner),
            "vault": jobs_program.vault_of(MARKET)[0],
            "payer": owner,
            "rewards_reflection": Pubkey.find_program_address([b"reflection"], REWARDS)[0],
            "rewards_vault": Pubkey.find_program_address([bytes(jobs_program.NOS_MINT)], REWARDS)[0],
            "authority": owner,
        }
        listing = jobs_program.instruction("list", accounts, ipfs_job=digest_of(cid), timeout=timeout_seconds)
        await transact(self.rpc, [listing], [self.key, job, run], unit_limit=200_000)
        return job.pubkey()

    async def end(self, job: Pubkey) -> None:
        owner = self.key.pubkey()
        filters = [Memcmp(0, jobs_program.RUN), Memcmp(8, bytes(job))]
        (run,) = (await self.rpc.get_program_accounts(jobs_program.PROGRAM, filters)).value.addresses
        accounts = {
            "job": job,
            "market": MARKET,
            "run": Pubkey.from_string(run),
            "deposit": nos_account(owner),
            "user": nos_account(HOST_KEY.pubkey()),
            "vault": jobs_program.vault_of(MARKET)[0],
            "payer": HOST_KEY.pubkey(),
            "authority": owner,
        }
        await transact(self.rpc, [jobs_program.instruction("end", accounts)], [self.key], unit_limit=200_000)

    async def job(self, address: Pubkey) -> JobAccount:
        account = (await self.rpc.get_account(address)).value
        assert account is not None
        return jobs_program.read_job(account.data)

    async def ended(self, address: Pubkey) -> JobAccount:
        async def look() -> JobAccount | None:
            job = await self.job(address)
            return job if job.state >= 2 else None

        return await until(look)

    async def document(self, job: JobAccount) -> dict[str, Any]:
        answer = await self.user.http.get(f"/ipfs/{cid_of_digest(job.ipfs_result)}")
        assert answer.status_code == 200
        return dict(answer.json())

    async def runs(self, address: Pubkey) -> None:
        async def look() -> bool:
            answer = await self.user.http.get(f"/jobs/{address}")
            return answer.status_code == 200 and answer.json()["state"] == 1

        await until(look)


async def until(look: Callable[[], Awaitable[T | None]]) -> T:
    async with asyncio.timeout(60):
        while True:
            if found := await look():
                return found
            await asyncio.sleep(0.02)


@asynccontextmanager
async def customer_of(model_url: str, **options: Any) -> AsyncIterator[Customer]:
    async with network.running(slot_seconds=0.02) as node:
        customer = Keypair()
        await node.call(lambda chain: genesis.place(chain, job_expiration_seconds=0))
        for key in (HOST_KEY, customer):
            await node.call(lambda chain, key=key: chain.fund(key.pubkey(), 10**9))  # type: ignore[misc]
        await node.call(lambda chain: genesis.grant_nos(chain, customer.pubkey(), jobs_program.MICRO_NOS))
        async with served_nosana(model_url, rpc_url=node.rpc_url, **options) as user:
            rpc = connect(node.rpc_url)
            yield Customer(node, rpc, user, customer)
            await rpc.close()


@pytest.fixture
async def customer(model: tuple[Any, str]) -> AsyncIterator[Customer]:
    async with customer_of(model[1]) as made:
        yield made


async def test_a_job_from_the_queue_is_run_pinned_and_finished(customer: Customer) -> None:
    job = await customer.ended(await customer.list(SPEC_EXAMPLE))
    assert (job.state, job.node) == (2, HOST_KEY.pubkey())
    document = await customer.document(job)
    assert document["status"] == "success"
    assert document["opStates"][0]["results"] == {"answer": ["RESULT 42", "42"]}


async def test_a_host_in_line_is_handed_the_job_as_it_is_listed(model: tuple[Any, str]) -> None:
    async with customer_of(model[1], host_waits=True) as customer:

        async def in_line() -> bool:
            account = (await customer.rpc.get_account(MARKET)).value
            return account is not None and HOST_KEY.pubkey() in jobs_program.read_market(account.data).waiting

        await until(in_line)
        job = await customer.ended(await customer.list(SPEC_EXAMPLE))
        assert (await customer.document(job))["status"] == "success"


async def test_a_job_past_its_time_looks_like_a_success_with_a_tell_tale(customer: Customer) -> None:
    customer.user.emulator.faults.add("hangs")
    job = await customer.ended(await customer.list(SPEC_EXAMPLE, timeout_seconds=2))
    document = await customer.document(job)
    operation = document["opStates"][0]
    assert (document["status"], operation["status"], operation["exitCode"]) == ("success", "success", 0)
    assert operation["diagnostics"]["reason"]["jobExpired"]
    # In whole seconds of a clock that moves with the slots: two may look like one.
    assert job.time_end - job.time_start >= 1


async def test_a_host_completes_the_job_that_its_owner_has_ended(customer: Customer) -> None:
    customer.user.emulator.faults.add("slow_run", seconds=30)
    address = await customer.list(SPEC_EXAMPLE)
    await customer.runs(address)
    await customer.end(address)

    async def completed() -> JobAccount | None:
        job = await customer.job(address)
        return job if any(job.ipfs_result) else None

    job = await until(completed)
    assert job.state == 2
    assert (await customer.document(job))["status"] == "stopped"


@pytest.mark.parametrize(
    ("fault", "status", "operation"),
    [
        ("operation_fails", "success", ("failed", 1)),
        ("image_missing", "success", ("failed", 2)),
        ("out_of_memory", "success", ("failed", 137)),
        ("host_shuts_down", "failed", ("failed", 143)),
    ],
)
async def test_every_ending_leaves_the_document_of_the_specification(
    customer: Customer, fault: str, status: str, operation: tuple[str, int]
) -> None:
    customer.user.emulator.faults.add(fault)
    job = await customer.ended(await customer.list(SPEC_EXAMPLE))
    document = await customer.document(job)
    (found,) = document["opStates"]
    assert job.state == 2
    assert (document["status"], (found["status"], found["exitCode"])) == (status, operation)


async def test_a_definition_that_hosts_refuse_ends_with_a_validation_error(customer: Customer) -> None:
    job = await customer.ended(await customer.list({**SPEC_EXAMPLE, "unknown": 1}))
    document = await customer.document(job)
    assert (document["status"], document["opStates"]) == ("validation-error", [])


async def test_a_host_that_cannot_read_the_definition_quits(customer: Customer) -> None:
    user = customer.user
    pin = user.pin

    async def unpinned(document: Any) -> str:
        await pin(document)
        return "QmUNLLsPACCz1vLxQVkXqqLX5R1X345qqfHbsf67hvA3Nn"

    user.pin = unpinned  # type: ignore[method-assign]
    assert (await customer.ended(await customer.list(SPEC_EXAMPLE))).state == 3


async def test_the_indexer_knows_of_jobs_on_chain_and_rest_hosts_leave_them_alone(customer: Customer) -> None:
    address = await customer.list(SPEC_EXAMPLE)
    job = await customer.ended(address)

    async def indexed() -> dict[str, Any] | None:
        shown = (await customer.user.http.get(f"/jobs/{address}")).json()
        return shown if shown["state"] == 2 else None

    shown = await until(indexed)
    assert shown["ipfsResult"] == cid_of_digest(job.ipfs_result)
    assert shown["project"] == str(customer.key.pubkey())
    books = await customer.user.books()
    assert [account["settled_micro_usd"] for account in books["accounts"]] == [0]
