"""The signature manager as providers use it: durable before it is sent, sent once signed, signed once."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest
from signing_cluster import NOW_MS, PROGRAM, Cluster, DrivenClock, View, token_account
from solana.rpc.commitment import Commitment
from solders.instruction import AccountMeta, Instruction
from solders.keypair import Keypair
from solders.pubkey import Pubkey
from solders.transaction import VersionedTransaction

from oracle.chain.clock import SlotClock
from oracle.chain.rpc.client import Client
from oracle.chain.rpc.types import (
    SignatureHistory,
    SignatureStatus,
    TransactionFailure,
)
from oracle.chain.signer import KeypairSigner
from oracle.config import parse
from oracle.core.compute import IdempotencyKey
from oracle.core.errors import OracleError, Verdict
from oracle.core.lifecycle import State
from oracle.core.purchase import AccountState, AlreadyUsed, InFlight, Landed, NotBought, Order, Refused
from oracle.core.settlement import SignatureState
from oracle.pipeline import follow, prices
from oracle.pipeline.context import Bells, Context
from oracle.pipeline.errors import PURCHASE_IN_FLIGHT, PURCHASE_NOT_BOUGHT, TRANSACTION_NOT_LANDED
from oracle.pipeline.fees import Fees
from oracle.pipeline.orders import Orders
from oracle.pipeline.purchases import Purchases
from oracle.store import attempts, ledger, purchases, requests, settlements
from oracle.store.changes import Sighted
from oracle.store.engine import Store, upgrade
from oracle.store.errors import COMMIT_UNKNOWN
from oracle.store.rows import SignatureRow
from oracle.store.schema import SettlementState

OPERATOR = Keypair.from_seed(bytes(range(32)))
KEY = IdempotencyKey("5f0c2f8e-2a41-4f7e-9a9f-0d3c1b2a4e5f")
TOKENS = Pubkey.from_bytes(bytes([8] * 32))
CONFIG = parse({"settlement": {"poll_interval_seconds": 0.001}})
ADDRESS = str(Pubkey.from_bytes(bytes([1] * 32)))


@dataclass
class Manager:
    """The manager under test, with everything around it."""

    store: Store
    cluster: Cluster = field(default_factory=Cluster)
    view: View = field(default_factory=View)
    clock: DrivenClock = field(default_factory=DrivenClock)
    bells: Bells = field(default_factory=Bells)

    def __post_init__(self) -> None:
        signer = KeypairSigner(OPERATOR)
        rpc = cast(Client, self.cluster)
        fees = Fees(rpc, signer.public_key, CONFIG.settlement, self.clock)
        orders = Orders(rpc, signer, self.view, fees, CONFIG.settlement, self.clock)
        self.buyer = Purchases(self.store, orders, self.bells, "test")
        self.context = Context(
            config=CONFIG,
            store=self.store,
            rpc=rpc,
            program_id=PROGRAM,
            signer=signer,
            queues=(),
            providers={},
            sources={},
            routes={},
            slots=SlotClock(),
            fees=fees,
            rates=prices.live(CONFIG.rates, self.clock.monotonic),
            instance="test",
            clock=self.clock,
            bells=self.bells,
        )
        self.view.states[TOKENS] = AccountState(1, PROGRAM, token_account(100))

    async def order(self, **changes: Any) -> Order:
        job = await self.buyer.address(KEY, "job")
        accounts = [AccountMeta(job, True, True), AccountMeta(OPERATOR.pubkey(), True, True)]
        options = {"cosigners": ("job",), "contended": (TOKENS,), "detail": {"cid": "Qm"}, **changes}
        return Order((Instruction(PROGRAM, b"buy", accounts),), **options)

    async def buy(self, **changes: Any) -> Any:
        return await self.buyer.buy(KEY, await self.order(**changes))

    async def signatures(self) -> list[SignatureRow]:
        return await self.store.read(lambda c: settlements.open_signatures(c, str(OPERATOR.pubkey())))

    async def state(self) -> SettlementState:
        """Reads it as a late comer would, who withdraws."""
        found = await self.store.write(
            lambda c: purchases.withdraw(c, KEY, operator=str(OPERATOR.pubkey()), now_ms=NOW_MS)
        )
        assert found is not None
        return found.state

    async def land(self, state: SignatureState = SignatureState.CONFIRMED) -> None:
        """What `follow` does when the cluster shows it."""
        (row,) = await self.signatures()
        await follow.landed(self.context, row, 870, finalized=state is SignatureState.FINALIZED)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("template") / "oracle.sqlite"
    upgrade(f"sqlite:///{path}")
    return path


@pytest.fixture
def url(template: Path, tmp_path: Path) -> str:
    """A database of its own for each test, at head."""
    shutil.copy(template, tmp_path / "oracle.sqlite")
    return f"sqlite:///{tmp_path}/oracle.sqlite"


@pytest.fixture
async def manager(url: str) -> AsyncIterator[Manager]:
    store = await Store.open(url)
    await store.write(an_attempt)
    yield Manager(store)
    await store.close()


def an_attempt(c: Any) -> None:
    """A request that is being bought for."""
    requests.see(
        c,
        Sighted(
            operator="operator-key",
            address=ADDRESS,
            created_slot=100,
            queue="queue-1",
            requester="requester-1",
            refund_to="payer-1",
            model="m",
            fee_lamports=50_000,
            deadline_slot=9_000,
            claim_required=False,
            retention_slots=50,
            account=b"account",
            chain_status=0,
            chain_slot=101,
            now_ms=NOW_MS,
            seen_by="scan",
            state=State.ADMITTED,
        ),
    )
    (row,) = requests.take(
        c, [State.ADMITTED], operator="operator-key", owner="test", now_ms=NOW_MS, lease_ms=60_000, limit=1
    )
    attempts.intend(c, row, lane=0, provider="p", model="m", idempotency_key=KEY, quoted_lamports=1, now_ms=NOW_MS)


async def bought(manager: Manager, **changes: Any) -> Any:
    """What a purchase comes to whose transaction lands as soon as it is sent."""
    async with under_way(manager, **changes) as (task, _):
        await manager.land()
        return await task


@asynccontextmanager
async def under_way(manager: Manager, **changes: Any) -> AsyncIterator[tuple[asyncio.Task[Any], SignatureRow]]:
    """A purchase that is signed and sent, and waits for its fate."""
    task = asyncio.create_task(manager.buy(**changes))
    try:
        async with asyncio.timeout(60):
            await manager.cluster.was_sent.wait()
        (row,) = await manager.signatures()
        yield task, row
    finally:
        task.cancel()


# --- buying ---


async def test_a_purchase_is_handed_back_with_its_detail_once_it_has_landed(manager: Manager) -> None:
    assert await bought(manager) == Landed(870, {"cid": "Qm"})
    assert len(manager.cluster.sent) == 1


async def test_the_signed_bytes_are_in_the_database_before_they_are_sent(manager: Manager) -> None:
    found: list[SignatureRow] = []

    async def look() -> None:
        found.extend(await manager.signatures())

    manager.cluster.on["send"] = look
    await bought(manager)
    assert found[0].wire == manager.cluster.sent[0]
    assert found[0].state is SignatureState.SIGNED


async def test_every_key_signs_and_every_signature_is_paid_for(manager: Manager) -> None:
    manager.cluster.prices[TOKENS] = 1_000
    await bought(manager)
    transaction = VersionedTransaction.from_bytes(manager.cluster.sent[0])
    assert all(transaction.verify_with_results())
    job = await manager.buyer.address(KEY, "job")
    assert transaction.message.account_keys[:2] == [OPERATOR.pubkey(), job]
    (row,) = await manager.signatures()
    # 20,000 units, a tenth and 300 on top, at a thousandth of a lamport.
    assert row.fee_lamports == 2 * 5_000 + 23


async def test_a_lost_send_is_no_failure(manager: Manager) -> None:
    async def lost() -> None:
        manager.cluster.was_sent.set()
        raise TRANSACTION_NOT_LANDED("connection reset")

    manager.cluster.on["send"] = lost
    assert await bought(manager) == Landed(870, {"cid": "Qm"})


async def test_a_key_that_was_ever_used_buys_nothing(manager: Manager) -> None:
    job = await manager.buyer.address(KEY, "job")
    manager.view.used.add(job)
    assert await manager.buy() == AlreadyUsed(job)
    assert (manager.cluster.sent, await manager.state()) == ([], SettlementState.DROPPED)


async def test_an_account_at_the_key_buys_nothing(manager: Manager) -> None:
    job = await manager.buyer.address(KEY, "job")
    manager.view.states[job] = AccountState(1, PROGRAM, b"")
    assert await manager.buy() == AlreadyUsed(job)
    assert await manager.signatures() == []


async def test_what_the_programs_refuse_is_not_signed(manager: Manager) -> None:
    manager.cluster.failure = TransactionFailure({}, "Custom", 2, 6001)
    manager.cluster.logs = ("Error Code: MarketInWrongState.",)
    assert await manager.buy() == Refused("Custom", 6001, ("Error Code: MarketInWrongState.",))
    assert (await manager.signatures(), await manager.state()) == ([], SettlementState.DROPPED)


@pytest.mark.parametrize(("left", "is_bought"), [(60, True), (59, False), (0, False)])
async def test_no_more_tokens_leave_than_were_reckoned_with(manager: Manager, left: int, is_bought: bool) -> None:
    manager.cluster.tokens_left = left
    if is_bought:
        assert isinstance(await bought(manager, most_spent={TOKENS: 40}), Landed)
    else:
        refused = await manager.buy(most_spent={TOKENS: 40})
        assert isinstance(refused, Refused)
        assert "40" in refused.kind
        assert manager.cluster.sent == []


async def test_an_error_before_the_signature_buys_nothing_and_may_be_tried_again(manager: Manager) -> None:
    async def fail() -> None:
        raise TRANSACTION_NOT_LANDED("node behind")

    manager.cluster.on["blockhash"] = fail
    with pytest.raises(OracleError) as caught:
        await manager.buy()
    assert caught.value.verdict is Verdict.RETRY
    assert await manager.state() is SettlementState.DROPPED


async def test_a_commit_whose_answer_was_lost_may_still_land(manager: Manager, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bytes are written down, and whoever wrote them does not know: somebody else will send them."""
    record = settlements.record_signature
    write = manager.store.write

    async def lost(f: Callable[[Any], Any]) -> Any:
        recorded: list[Any] = []
        monkeypatch.setattr(settlements, "record_signature", lambda *a, **k: recorded.append(1) or record(*a, **k))
        result = await write(f)
        if recorded:
            raise COMMIT_UNKNOWN("connection lost")
        return result

    monkeypatch.setattr(manager.store, "write", lost)
    with pytest.raises(OracleError) as caught:
        await manager.buy()
    assert (caught.value.error, caught.value.verdict) == (PURCHASE_IN_FLIGHT, Verdict.UNKNOWN)
    monkeypatch.undo()
    assert len(await manager.signatures()) == 1
    assert isinstance(await manager.buyer.withdraw(KEY), InFlight)


async def test_what_is_withdrawn_while_it_is_prepared_is_not_sent(manager: Manager) -> None:
    async def withdraw() -> None:
        assert isinstance(await manager.buyer.withdraw(KEY), NotBought)

    manager.cluster.on["blockhash"] = withdraw
    with pytest.raises(OracleError) as caught:
        await manager.buy()
    assert caught.value.verdict is Verdict.UNKNOWN
    assert (manager.cluster.sent, await manager.signatures()) == ([], [])
    assert isinstance(await manager.buyer.withdraw(KEY), NotBought)


# --- what became of it ---


async def test_nothing_was_bought_where_nothing_was_ever_intended(manager: Manager) -> None:
    assert isinstance(await manager.buyer.withdraw(KEY), NotBought)
    with pytest.raises(OracleError):
        await manager.buy()
    assert isinstance(await manager.buyer.withdraw(IdempotencyKey("nobody's")), NotBought)


async def test_what_is_signed_is_in_flight_until_it_is_proven_dead_and_is_not_signed_again(manager: Manager) -> None:
    async with under_way(manager) as (task, row):
        assert isinstance(await manager.buyer.withdraw(KEY), InFlight)
        manager.cluster.history = SignatureHistory(1_300, 1_001, 0, (None,))
        await follow.look_for_the_dead(manager.context, [row])
        with pytest.raises(OracleError) as caught:
            await task
    assert caught.value.error is PURCHASE_NOT_BOUGHT
    assert isinstance(await manager.buyer.withdraw(KEY), NotBought)
    assert await manager.signatures() == []
    with pytest.raises(OracleError):
        await manager.buy()
    assert len(set(manager.cluster.sent)) == 1


async def test_a_history_that_does_not_reach_back_proves_nothing(manager: Manager) -> None:
    """A job's account may have been made and deleted meanwhile, so no account can stand in for the history."""
    async with under_way(manager) as (_, row):
        manager.cluster.history = SignatureHistory(9_300, 9_001, row.signed_slot + 1, (None,))
        await follow.look_for_the_dead(manager.context, [row])
        assert isinstance(await manager.buyer.withdraw(KEY), InFlight)


async def test_a_fork_takes_a_purchase_back_and_the_same_bytes_bring_it_again(manager: Manager) -> None:
    await bought(manager)
    assert isinstance(await manager.buyer.withdraw(KEY), Landed)
    (row,) = await manager.signatures()
    await follow.undone(manager.context, row)
    assert isinstance(await manager.buyer.withdraw(KEY), InFlight)
    await manager.land(SignatureState.FINALIZED)
    assert await manager.buyer.withdraw(KEY) == Landed(870, {"cid": "Qm"})


async def test_a_purchase_that_failed_on_chain_has_cost_its_fee_and_bought_nothing(manager: Manager) -> None:
    async with under_way(manager) as (task, row):
        failure = TransactionFailure({"InstructionError": [2, {"Custom": 1}]}, "Custom", 2, 1)
        await follow.decided(manager.context, row, SignatureStatus(880, failure, Commitment("finalized")))
        with pytest.raises(OracleError) as caught:
            await task
    assert caught.value.error is PURCHASE_NOT_BOUGHT
    assert await manager.store.read(lambda c: ledger.sum(c, kind="tx_fee")) == -(row.fee_lamports or 0)
    found = await manager.store.read(lambda c: requests.latest(c, ADDRESS))
    assert found is not None
    assert found.state is State.ADMITTED


async def test_the_blockhash_is_read_once_the_signer_is_ready(
    manager: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A remote signer may take longer than a blockhash lives."""
    steps: list[str] = []

    async def ready(_: KeypairSigner) -> None:
        steps.append("ready")

    async def read() -> None:
        steps.append("blockhash")

    monkeypatch.setattr(KeypairSigner, "ready", ready)
    manager.cluster.on["blockhash"] = read
    buying = asyncio.create_task(manager.buy())
    await manager.cluster.was_sent.wait()
    await manager.land()
    await buying
    assert steps[-2:] == ["ready", "blockhash"]


# --- what may be repeated ---


async def test_a_transaction_that_may_be_repeated_is_done_when_it_is_confirmed(manager: Manager) -> None:
    manager.cluster.status = SignatureStatus(880, None, Commitment("confirmed"))
    assert await manager.buyer.perform(Order(an_end())) is None
    assert await manager.store.read(lambda c: ledger.sum(c, kind="tx_fee")) == -5_000


async def test_a_transaction_that_is_refused_is_not_sent(manager: Manager) -> None:
    manager.cluster.failure = TransactionFailure({}, "Custom", 2, 6001)
    assert await manager.buyer.perform(Order(an_end())) == Refused("Custom", 6001)
    assert manager.cluster.sent == []


async def test_a_transaction_that_does_not_land_in_time_may_be_made_anew(manager: Manager) -> None:
    with pytest.raises(OracleError) as caught:
        await manager.buyer.perform(Order(an_end()))
    assert (caught.value.error, caught.value.verdict) == (TRANSACTION_NOT_LANDED, Verdict.RETRY)
    assert len(set(manager.cluster.sent)) == 1


def an_end() -> tuple[Instruction, ...]:
    return (Instruction(PROGRAM, b"end", [AccountMeta(OPERATOR.pubkey(), True, True)]),)
