"""The signature manager of a trial: one transaction for a key, and nothing is called absent that may still land."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, cast

import pytest
from signing_cluster import PROGRAM, Cluster, DrivenClock, View
from solana.rpc.commitment import Commitment
from solders.instruction import AccountMeta, Instruction
from solders.keypair import Keypair

from oracle.chain.rpc.client import Client
from oracle.chain.rpc.errors import BEHIND, UNREACHABLE
from oracle.chain.rpc.types import EpochInfo, SignatureHistory, SignatureStatus
from oracle.chain.signer import KeypairSigner
from oracle.config import parse
from oracle.core.compute import IdempotencyKey
from oracle.core.endpoints import MAX_LAG_SLOTS
from oracle.core.errors import OracleError, Verdict
from oracle.core.purchase import InFlight, Landed, NotBought, Order
from oracle.pipeline.errors import PURCHASE_IN_FLIGHT, PURCHASE_NOT_BOUGHT
from oracle.pipeline.fees import Fees
from oracle.pipeline.orders import Orders
from oracle.pipeline.trial_purchases import DEAD_AFTER_BLOCKS, TrialPurchases
from oracle.store.engine import Store
from oracle.store.errors import COMMIT_UNKNOWN

OPERATOR = Keypair.from_seed(bytes(range(32)))
KEY = IdempotencyKey("5f0c2f8e-2a41-4f7e-9a9f-0d3c1b2a4e5f")
CONFIG = parse({"settlement": {"poll_interval_seconds": 0.001}})
CONFIRMED = SignatureStatus(870, None, Commitment("confirmed"))
SIGNED_SLOT, LAST_VALID_HEIGHT = 850, 1_000


@dataclass
class Books:
    """Counts what is written, or loses it."""

    writes: int = 0
    is_lost: bool = False

    async def write(self, f: Callable[[Any], Any]) -> None:
        self.writes += 1
        if self.is_lost:
            raise COMMIT_UNKNOWN("connection lost")


@dataclass
class Manager:
    cluster: Cluster = field(default_factory=Cluster)
    books: Books = field(default_factory=Books)
    told: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        rpc, signer, clock = cast(Client, self.cluster), KeypairSigner(OPERATOR), DrivenClock()
        fees = Fees(rpc, OPERATOR.pubkey(), CONFIG.settlement, clock)
        orders = Orders(rpc, signer, View(), fees, CONFIG.settlement, clock)
        self.buyer = TrialPurchases(orders, cast(Store, self.books), lambda what, _: self.told.append(what))

    async def buy(self) -> Any:
        job = await self.buyer.address(KEY, "job")
        accounts = [AccountMeta(job, True, True), AccountMeta(OPERATOR.pubkey(), True, True)]
        order = Order((Instruction(PROGRAM, b"buy", accounts),), cosigners=("job",), detail={"cid": "Qm"})
        return await self.buyer.buy(KEY, order)

    async def give_up(self) -> None:
        """Buy, and lose patience once the bytes are out."""
        task = asyncio.create_task(self.buy())
        await self.cluster.was_sent.wait()
        task.cancel()
        await asyncio.wait({task})

    def outlive(self, first_available_slot: int) -> None:
        """The blockhash is dead, and a history that begins at this slot does not have the signature."""
        self.cluster.slot = SIGNED_SLOT + 200
        self.cluster.history = SignatureHistory(1_190, LAST_VALID_HEIGHT + 1, first_available_slot, (None,))


@pytest.fixture
def manager() -> Manager:
    return Manager()


async def test_what_is_withdrawn_before_it_is_signed_is_never_sent(manager: Manager) -> None:
    manager.cluster.tips["processed"] = EpochInfo(0, 900, 850)

    async def withdraw() -> None:
        assert await manager.buyer.withdraw(KEY) == InFlight()

    manager.cluster.on["blockhash"] = withdraw
    with pytest.raises(OracleError) as caught:
        await manager.buy()
    assert (caught.value.error, manager.cluster.sent) == (PURCHASE_NOT_BOUGHT, [])


async def test_a_key_that_has_bought_sends_nothing_new(manager: Manager) -> None:
    manager.cluster.status = CONFIRMED
    assert await manager.buy() == Landed(870, {"cid": "Qm"})
    with pytest.raises(OracleError) as caught:
        await manager.buy()
    assert (caught.value.error, caught.value.verdict) == (PURCHASE_IN_FLIGHT, Verdict.UNKNOWN)
    assert len(set(manager.cluster.sent)) == 1


async def test_the_same_bytes_go_on_after_the_caller_has_lost_patience(manager: Manager) -> None:
    await manager.give_up()
    assert await manager.buyer.withdraw(KEY) == InFlight({"cid": "Qm"})
    assert await manager.buyer.withdraw(KEY) == InFlight({"cid": "Qm"})
    manager.cluster.status = CONFIRMED
    assert await manager.buyer.withdraw(KEY) == Landed(870, {"cid": "Qm"})
    assert len(manager.cluster.sent) > 1
    assert len(set(manager.cluster.sent)) == 1


async def test_only_a_history_that_reaches_back_proves_it_dead(manager: Manager) -> None:
    await manager.give_up()
    manager.outlive(first_available_slot=SIGNED_SLOT + 1)
    assert await manager.buyer.withdraw(KEY) == InFlight({"cid": "Qm"})
    manager.outlive(first_available_slot=SIGNED_SLOT)
    dead = await manager.buyer.withdraw(KEY)
    assert isinstance(dead, NotBought)
    assert dead.slot == 1_190
    assert manager.books.writes == 0
    manager.cluster.status = CONFIRMED
    assert await manager.buyer.withdraw(KEY) == dead


async def test_a_fork_takes_it_back_and_its_fee_is_booked_once(manager: Manager) -> None:
    manager.cluster.status = CONFIRMED
    await manager.buy()
    manager.cluster.status = None
    assert isinstance(await manager.buyer.withdraw(KEY), InFlight)
    manager.cluster.status = CONFIRMED
    assert isinstance(await manager.buyer.withdraw(KEY), Landed)
    assert manager.books.writes == 1


async def test_a_fee_that_cannot_be_booked_does_not_lose_the_purchase(manager: Manager) -> None:
    manager.cluster.status, manager.books.is_lost = CONFIRMED, True
    assert await manager.buy() == Landed(870, {"cid": "Qm"})
    assert manager.told == ["signed", "landed", "not booked"]


async def test_a_key_of_an_earlier_process_is_absent_only_once_its_blockhash_is_dead(manager: Manager) -> None:
    async def away() -> None:
        raise UNREACHABLE("no route")

    tips = manager.cluster.tips
    manager.cluster.on["epoch"] = away
    with pytest.raises(OracleError):
        await manager.buyer.withdraw(KEY)
    del manager.cluster.on["epoch"]
    tips["processed"] = EpochInfo(0, 1_000, 900)
    assert await manager.buyer.withdraw(KEY) == InFlight()
    tips["finalized"] = EpochInfo(0, 1_190, 900 + DEAD_AFTER_BLOCKS)
    assert await manager.buyer.withdraw(KEY) == InFlight()
    tips["finalized"] = EpochInfo(0, 1_191, 901 + DEAD_AFTER_BLOCKS)
    absent = await manager.buyer.withdraw(KEY)
    assert isinstance(absent, NotBought)
    assert absent.slot == 1_191


async def test_an_endpoint_that_lags_is_not_believed_about_when_a_blockhash_is_dead(manager: Manager) -> None:
    manager.cluster.tip_slot = 1_000 + MAX_LAG_SLOTS
    manager.cluster.tips["processed"] = EpochInfo(0, 999, 899)
    with pytest.raises(OracleError) as caught:
        await manager.buyer.withdraw(KEY)
    assert caught.value.error is BEHIND
    manager.cluster.tips["processed"] = EpochInfo(0, 1_000, 900)
    assert await manager.buyer.withdraw(KEY) == InFlight()
