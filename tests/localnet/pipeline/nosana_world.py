"""A whole oracle that buys its jobs on chain: Nosana's program and markets on the chain, and a host at work."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from pipeline_world import World, until
from solders.account import Account
from solders.keypair import Keypair
from solders.pubkey import Pubkey
from solders.signature import Signature
from solders.token import ID as TOKEN_PROGRAM
from solders.token.state import TokenAccount, TokenAccountState
from solders.transaction import VersionedTransaction

from oracle.chain.derived import DerivedKeys
from oracle.chain.rpc.types import Memcmp
from oracle.chain.signer import KeypairSigner
from oracle.client.requests import Submitted
from oracle.client.transact import transact
from oracle.core.errors import OracleError
from oracle.localnet.chain import Chain
from oracle.localnet.emulators.nosana import Nosana, genesis, jobs_program
from oracle.localnet.emulators.nosana.chain_host import HOST_KEY
from oracle.localnet.emulators.nosana.emulator import PIN_TOKEN
from oracle.localnet.emulators.nosana.jobs_program import JobAccount, nos_account
from oracle.localnet.emulators.nosana.timings import Timings
from oracle.localnet.emulators.server import serve
from oracle.pipeline.daemon import Daemon, assembled
from oracle.providers.nosana.onchain import JOB_KEY
from oracle.store import attempts, settlements
from oracle.store.rows import AttemptRow, SettlementRow
from oracle.store.schema import SettlementKind

MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"
MARKET = Pubkey.from_string("7AtiXMSH6R1jjBxrcYjehCkkSF7zvYWte63gwEDBcGHq")
LISTING = bytes.fromhex("36aec14311298426")
NOS = jobs_program.MICRO_NOS
PRICE = 48
TIMEOUT_SECONDS = 60
DEPOSIT = PRICE * TIMEOUT_SECONDS


@dataclass
class NosanaWorld:
    """A `World` whose only provider is `nosana_onchain`; the operator begins with 1 NOS."""

    world: World
    nosana: Nosana
    url: str
    lost: list[bytes] = field(default_factory=list)

    @property
    def operator(self) -> Pubkey:
        return self.world.authority.pubkey()

    @property
    def faults(self) -> Any:
        return self.nosana.faults

    async def nos(self, owner: Pubkey | None = None) -> int:
        """In millionths."""
        address = nos_account(owner or self.operator)
        (account,) = (await self.world.rpc.get_multiple_accounts([address])).value
        return 0 if account is None else int.from_bytes(account.data[64:72], "little")

    async def in_vault(self) -> int:
        (account,) = (await self.world.rpc.get_multiple_accounts([jobs_program.vault_of(MARKET)[0]])).value
        assert account is not None
        return int.from_bytes(account.data[64:72], "little")

    async def waiting(self) -> tuple[Pubkey, ...]:
        (account,) = (await self.world.rpc.get_multiple_accounts([MARKET])).value
        assert account is not None
        return jobs_program.read_market(account.data).waiting

    async def job_key(self, attempt: AttemptRow) -> Keypair:
        """The key of the job account that an attempt creates."""
        return await DerivedKeys(KeypairSigner(self.world.authority)).keypair(JOB_KEY, attempt.idempotency_key)

    async def job(self, attempt: AttemptRow) -> JobAccount | None:
        address = (await self.job_key(attempt)).pubkey()
        account = (await self.world.rpc.get_account(address)).value
        return None if account is None else jobs_program.read_job(account.data)

    async def attempts(self, daemon: Daemon, submitted: Submitted) -> list[AttemptRow]:
        row = await self.world.row(daemon, submitted)
        assert row is not None
        return await daemon.context.store.read(lambda c: attempts.of(c, row.id))

    async def purchases(self, daemon: Daemon, submitted: Submitted) -> list[SettlementRow]:
        row = await self.world.row(daemon, submitted)
        if row is None:
            return []
        found = await daemon.context.store.read(lambda c: settlements.of(c, row.id))
        return [each for each in found if each.kind is SettlementKind.PURCHASE]

    async def listings(self) -> list[Signature]:
        """Every listing of the operator that the chain has taken, failed ones left out."""
        found = await self.world.rpc.get_signatures_for_address(MARKET)
        return [info.signature for info in found if info.failure is None and await self._is_listing(info.signature)]

    async def _is_listing(self, signature: Signature) -> bool:
        record = await self.world.node.call(lambda chain: chain.ledger.transaction(signature))
        return record is not None and is_listing(VersionedTransaction.from_bytes(record.wire))

    def pins(self) -> int:
        """How many documents lie on the emulated IPFS."""
        return int(self.nosana.books()["pins"])

    async def spend_all_but(self, micro_nos: int) -> None:
        """What is left on the operator's NOS account."""
        held = TokenAccount(
            jobs_program.NOS_MINT, self.operator, micro_nos, None, TokenAccountState.Initialized, None, 0, None
        )

        def spend(chain: Chain) -> None:
            lamports = chain.vm.minimum_balance(len(bytes(held)))
            chain.set_account(nos_account(self.operator), Account(lamports, bytes(held), TOKEN_PROGRAM))

        await self.world.node.call(spend)

    async def set_price(self, price: int) -> None:
        """In millionths of a NOS per second, as the market's authority would."""

        def write(chain: Chain) -> None:
            account = chain.account(MARKET)
            assert account is not None
            market = replace(jobs_program.read_market(account.data), price=price)
            chain.set_account(MARKET, Account(account.lamports, jobs_program.write_market(market), account.owner))

        await self.world.node.call(write)

    async def end(self, attempt: AttemptRow) -> None:
        """By the operator's own hand, beside the daemon."""
        job = (await self.job_key(attempt)).pubkey()
        filters = [Memcmp(0, jobs_program.RUN), Memcmp(8, bytes(job))]
        (found,) = (await self.world.rpc.get_program_accounts(jobs_program.PROGRAM, filters)).value.addresses
        accounts = {
            "job": job,
            "market": MARKET,
            "run": Pubkey.from_string(found),
            "deposit": nos_account(self.operator),
            "user": nos_account(HOST_KEY.pubkey()),
            "vault": jobs_program.vault_of(MARKET)[0],
            "payer": HOST_KEY.pubkey(),
            "authority": self.operator,
        }
        end = jobs_program.instruction("end", accounts)
        await transact(self.world.rpc, [end], [self.world.authority], unit_limit=200_000)

    async def clean(self, attempt: AttemptRow) -> None:
        """By anyone, once the job's end is a second old."""
        accounts = {"job": (await self.job_key(attempt)).pubkey(), "market": MARKET, "payer": self.operator}
        clean = jobs_program.instruction("clean", accounts)

        async def cleaned() -> bool:
            with contextlib.suppress(OracleError):
                await transact(self.world.rpc, [clean], [self.world.requester], unit_limit=200_000)
            return await self.job(attempt) is None

        await until(cleaned, "the account, cleaned")

    async def lose_listings(self, lose: bool = True) -> None:
        """The network drops listings on their way to the leader, or delivers everything again."""

        def delivery(tx: VersionedTransaction) -> int | None:
            if not is_listing(tx):
                return 0
            self.lost.append(bytes(tx))
            return None

        def set_to(chain: Chain) -> None:
            chain.delivery = delivery if lose else lambda _: 0

        await self.world.node.call(set_to)

    @asynccontextmanager
    async def mortal(self, **changes: Any) -> AsyncIterator[Daemon]:
        """A daemon that dies at the end of the block without finishing anything, as by `kill -9`."""
        async with assembled(self.world.config(**changes)) as daemon:
            task = asyncio.create_task(daemon.run())
            try:
                yield daemon
            finally:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task


def long(test: Callable[..., Awaitable[None]]) -> Any:
    """Runs in `make test-all` only: tests without sockets hold the adapter to the same in `make test`."""
    is_short = os.environ.get("ORACLE_TEST_LENGTH") != "long"
    return pytest.mark.long(pytest.mark.skipif(is_short, reason="`make test-all`")(test))


def is_listing(tx: VersionedTransaction) -> bool:
    return any(bytes(instruction.data).startswith(LISTING) for instruction in tx.message.instructions)


@asynccontextmanager
async def nosana_around(
    world: World, *, timings: Timings | None = None, host_waits: bool = False, expiration_seconds: int = 0
) -> AsyncIterator[NosanaWorld]:
    await world.node.call(lambda chain: genesis.place(chain, job_expiration_seconds=expiration_seconds))
    await world.node.call(lambda chain: genesis.grant_nos(chain, world.authority.pubkey(), NOS))
    await world.node.call(lambda chain: chain.fund(HOST_KEY.pubkey(), 10**9))
    emulator = Nosana(f"{world.model_url.url}/v1", timings=timings, rpc_url=world.node.rpc_url, host_waits=host_waits)
    async with serve(emulator) as running:
        world.settings["settlement"]["resend_interval_seconds"] = 0.3
        world.settings["rates"] = {"sol_usd": 100, "nos_usd": 0.28}
        world.settings["providers"] = {
            "nosana": {
                "kind": "nosana_onchain",
                "base_url": running.url,
                "pinning_url": running.url,
                "gateway_url": running.url,
                "pinata_jwt": PIN_TOKEN,
                "models": [MODEL],
                "max_queue_seconds": 20,
                "expected_seconds": 1,
            }
        }
        route = {"provider": "nosana", "model": MODEL, "timeout_seconds": TIMEOUT_SECONDS}
        world.settings["models"] = {"tiny": {"routes": [route]}}
        yield NosanaWorld(world, emulator, running.url)


@pytest.fixture
def timings() -> Timings:
    return Timings()


@pytest.fixture
def host_waits() -> bool:
    return False


@pytest.fixture
async def nosana(world: World, timings: Timings, host_waits: bool) -> AsyncIterator[NosanaWorld]:
    async with nosana_around(world, timings=timings, host_waits=host_waits) as made:
        yield made
