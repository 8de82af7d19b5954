"""Lives that a request can have: what its requester, its network and its provider do, each as a script."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from chaos_laws import MOST_ATTEMPTS
from chaos_replaced import served_at
from chaos_town import PATIENCE_SECONDS, TERMS, Asked, Oracle, freeze, terms
from chaos_wait import until
from solders.account import Account
from solders.keypair import Keypair
from solders.signature import Signature
from solders.system_program import TransferParams, transfer
from solders.transaction import VersionedTransaction

from oracle.chain.derived import DerivedKeys
from oracle.chain.program import idl, instructions, layout
from oracle.chain.program.addresses import queue_address
from oracle.chain.signer import KeypairSigner
from oracle.core.identity import idempotency_key
from oracle.core.request import Data, RequestKey, Status, Uri
from oracle.providers.nosana.onchain import JOB_KEY


@dataclass(frozen=True, slots=True, eq=False)
class Scenario:
    """`crash_first` names a point at which an earlier life has ended: what is watched is the life after it.

    `alone` says that its script looks at, or changes, what all requests of an oracle share: it is played once on each.
    `passes` are points that it is played for: a life that does not come by them any more tests something else. It is
    killed at each of them, though other lives come by there, too.
    """

    play: Callable[[Oracle], Awaitable[None]]
    settings: Mapping[str, Any] = field(default_factory=dict)
    crash_first: str | None = None
    queue: str = "open"
    network: str | None = None
    alone: bool = False
    passes: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        bought = f" on {self.network}" if self.network else ""
        return self.play.__name__ + bought + (f" interrupted {self.crash_first}" if self.crash_first else "")


async def answered(oracle: Oracle) -> None:
    """By a server of our own, which may be asked again."""
    for _ in range(2):
        await oracle.ask("free")


async def paid(oracle: Oracle) -> None:
    """By a provider that can neither repeat nor look up: an interrupted purchase is made again once, and not twice."""
    await oracle.ask("dear", end=(Status.FULFILLED, Status.REJECTED))


async def bought_on_nosana(oracle: Oracle) -> None:
    await oracle.ask("gpu")


async def bought_on_chain(oracle: Oracle) -> None:
    """A transaction lists the job and pays for it."""
    await oracle.ask("listed")


async def bought(oracle: Oracle) -> None:
    """On a network that the oracle has to itself."""
    assert oracle.network is not None
    await oracle.ask(oracle.network, fee_lamports=FEE_LAMPORTS)


async def bought_at_chat(oracle: Oracle) -> None:
    """On one that can neither repeat nor look up."""
    assert oracle.network is not None
    await oracle.ask(oracle.network, end=(Status.FULFILLED, Status.REJECTED))


async def bought_in_a_batch(oracle: Oracle) -> None:
    """Which may take a day, and so has one."""
    await oracle.ask("batch", queue="patient", ttl_slots=5_000_000)


async def claimed(oracle: Oracle) -> None:
    await oracle.ask("free", queue="claims")


async def rejected(oracle: Oracle) -> None:
    """Nobody routes the model; and the one provider of another one refuses."""
    await oracle.ask("nobody", end=(Status.REJECTED,))
    await oracle.ask("broken", end=(Status.REJECTED,))


async def fallen_back(oracle: Oracle) -> None:
    await oracle.ask("shaky")


async def published(oracle: Oracle) -> None:
    """The requester has paid for room for the answer on chain."""
    await oracle.ask("free", output_cap=400)


async def closed(oracle: Oracle) -> None:
    """After its retention."""
    await oracle.ask("free", queue="brief")


async def expired(oracle: Oracle) -> None:
    """The fee is below what the operator takes, so nothing is done until the deadline has passed."""
    await oracle.ask("free", fee_lamports=6_000, ttl_slots=30, end=(Status.EXPIRED,))


async def fetched(oracle: Oracle) -> None:
    """The input lies behind a URI."""
    uri = f"https://inputs.example/{oracle.requester.pubkey()}"
    await oracle.ask("free", content=Uri(uri, hashlib.sha256(served_at(uri)).digest()))


async def mapped(oracle: Oracle) -> None:
    """The input is bought from a data network that can neither repeat nor look up: like a job there, it is bought again
    once, and not twice."""
    query = oracle.town.plot()
    data = Data(query, hashlib.sha256(query.encode()).digest())
    await oracle.ask("free", content=data, end=(Status.FULFILLED, Status.REJECTED))


async def mapped_later(oracle: Oracle) -> None:
    """The data network is busy at first: what it has refused costs nothing, and does not count as a fetch."""
    oracle.maps.faults.add("rate_limit", count=2)
    await mapped(oracle)


async def timed_out(oracle: Oracle) -> None:
    """The call ends itself when it takes too long."""
    await oracle.ask("tardy", end=(Status.REJECTED,))


async def frozen(oracle: Oracle) -> None:
    """Nosana's program refuses to list a job, which shows when it is simulated: the operator's NOS cannot be moved."""
    await oracle.town.node.call(lambda chain: freeze(chain, oracle.operator.pubkey(), is_frozen=True))
    await oracle.ask("listed")
    await refused(oracle)
    await oracle.town.node.call(lambda chain: freeze(chain, oracle.operator.pubkey(), is_frozen=False))


async def never_ended(oracle: Oracle) -> None:
    """A host that never comes to an end with a job: it is cancelled."""
    oracle.nosana.faults.add("never_finishes", count=None)
    await oracle.ask("idle", end=(Status.REJECTED,))


async def unconfirmed(oracle: Oracle) -> None:
    """Every answer of a provider is lost that can neither repeat nor look up."""
    await oracle.ask("leaky", end=(Status.REJECTED,))


async def answer_lost(oracle: Oracle) -> None:
    """Nosana sells the job, and its answer does not arrive: nor when it is asked for again."""
    oracle.nosana.faults.add("lose_answer", on="POST /jobs/list", count=2)
    await oracle.ask("gpu")


async def retried(oracle: Oracle) -> None:
    """A provider is out of order for longer than one try: what cannot be bought for at once is only left to be
    admitted, and put off when that fails, too."""
    oracle.nosana.faults.add("error", on="GET /markets", status=503, count=3)
    await oracle.ask("gpu")


async def paused(oracle: Oracle) -> None:
    """A provider is out of credit: what comes meanwhile is judged, and not bought for before the pause is over."""
    oracle.nosana.faults.add("out_of_credits", on="POST /jobs/list")
    await oracle.ask("gpu")
    await refused(oracle)
    await oracle.ask("gpu")


async def orphaned(oracle: Oracle) -> None:
    """The requester cancels under a job that is running, as it may once the lease has lapsed."""
    asked = await running_on_a_lapsed_lease(oracle, "stuck", end=Status.CANCELLED)
    await cancel(oracle, asked)


async def orphaned_on_chain(oracle: Oracle) -> None:
    """The same, of a job that a host on chain is slow for ever with: a transaction ends it."""
    asked = await oracle.ask("listed", queue="hasty", end=(Status.CANCELLED,))
    await hang(oracle, asked)
    await lapsed(oracle, asked)
    await cancel(oracle, asked)


async def vanished(oracle: Oracle) -> None:
    """It cancels and closes at once: the account is gone before anybody has read how it ended."""
    asked = await running_on_a_lapsed_lease(oracle, "stuck", end=Status.CANCELLED)
    close = instructions.close_request(
        idl.program_id(),
        request=asked.address,
        refund_to=oracle.requester.pubkey(),
        closer=oracle.requester.pubkey(),
    )
    await cancel(oracle, asked, close)


async def beaten(oracle: Oracle) -> None:
    """A transaction lands late and fails, because the requester has cancelled meanwhile."""
    network = Late(slots=12)
    oracle.town.deliveries[oracle.operator.pubkey()] = network
    asked = await oracle.ask("free", queue="claims", end=(Status.CANCELLED,))

    async def on_its_way() -> bool:
        return network.seen is not None

    await until(on_its_way, "the claim to be sent", PATIENCE_SECONDS)
    await cancel(oracle, asked)


async def overtaken(oracle: Oracle) -> None:
    """The requester cancels while the claim waits for company, so that its simulation is refused."""
    asked = await oracle.ask("free", queue="claims", end=(Status.CANCELLED,))
    await intended(oracle, "claim")
    await cancel(oracle, asked)


async def contested(oracle: Oracle) -> None:
    """Another operator claims first, and lets its lease lapse."""
    rival = await rival_of(oracle, "hasty")
    asked = await oracle.ask("free", queue="hasty")
    await intended(oracle, "claim")
    await claim(oracle, asked, rival)


async def supplanted(oracle: Oracle) -> None:
    """The job outlasts the lease, and another operator claims before it is done: the answer waits for a new claim."""
    rival = await rival_of(oracle, "hasty")
    oracle.nosana.faults.add("slow_run", seconds=4.0)
    asked = await running_on_a_lapsed_lease(oracle, "gpu", end=Status.FULFILLED)
    await claim(oracle, asked, rival)


async def overdue(oracle: Oracle) -> None:
    """The answer is there, but too close to the deadline to be signed for, on a busy machine with slow slots, too."""
    await oracle.ask("free", ttl_slots=80, end=(Status.EXPIRED,))


async def broke(oracle: Oracle) -> None:
    """The operator's wallet is empty until somebody fills it."""
    key = oracle.operator.pubkey()
    held = (await oracle.town.node.call(lambda chain: chain.account(key))).lamports  # type: ignore[union-attr]
    everything = TransferParams(from_pubkey=key, to_pubkey=oracle.requester.pubkey(), lamports=held - 5_000)
    await oracle.pay_for(transfer(everything))
    await oracle.ask("free")

    async def noticed() -> bool:
        return bool(oracle.select("SELECT 1 FROM settlements WHERE error_code IS NOT NULL"))

    await until(noticed, "the empty wallet to be noticed", PATIENCE_SECONDS)
    await oracle.town.fund(key)


async def strange(oracle: Oracle) -> None:
    """A stranger's queue names our key, and an account of ours makes no sense."""
    stranger = oracle.requester
    queue = queue_address(idl.program_id(), stranger.pubkey(), "strange")
    steps = [
        instructions.create_queue(
            idl.program_id(), authority=stranger.pubkey(), name="strange", terms=terms(**TERMS["open"])
        ),
        instructions.add_operator(
            idl.program_id(),
            queue=queue,
            authority=stranger.pubkey(),
            operator_key=oracle.operator.pubkey(),
            uri="http://s",
        ),
    ]
    await oracle.town.transact(steps, stranger)
    garbage = layout.REQUEST_DISCRIMINATOR + b"\xff" * 8 + bytes(oracle.queue("open")) + b"\xff" * 600
    await oracle.town.place(Keypair().pubkey(), Account(10_000_000, garbage, idl.program_id()))
    await oracle.ask("free")


async def lost(oracle: Oracle) -> None:
    """The network loses the first transaction for good: it is signed anew once it is proven dead."""
    oracle.town.deliveries[oracle.operator.pubkey()] = FirstLost()
    await oracle.ask("free")


async def running_on_a_lapsed_lease(oracle: Oracle, model: str, *, end: Status) -> Asked:
    asked = await oracle.ask(model, queue="hasty", end=(end,))
    await lapsed(oracle, asked)
    return asked


async def lapsed(oracle: Oracle, asked: Asked) -> None:
    """Wait until a job is bought, and the lease has lapsed."""

    async def look() -> bool:
        header = await oracle.header(asked)
        assert header is not None
        bought = bool(oracle.select("SELECT 1 FROM attempts WHERE state IN ('unknown', 'running')"))
        slot = await oracle.town.slot()
        return bought and header.status is Status.CLAIMED and slot > header.claim_expires_slot

    await until(look, "the lease to lapse", PATIENCE_SECONDS)


async def hang(oracle: Oracle, asked: Asked) -> None:
    """No job that is listed on chain for this request comes to an end by itself."""
    assert oracle.town.host is not None
    keys, request = DerivedKeys(KeypairSigner(oracle.operator)), RequestKey(str(asked.address), asked.created_slot)
    for number in range(1, MOST_ATTEMPTS):
        job = await keys.keypair(JOB_KEY, idempotency_key(str(oracle.operator.pubkey()), request, 0, number))
        oracle.town.host.faults.add("slow_run", on=f"* chain {job.pubkey()}", seconds=600.0)


async def refused(oracle: Oracle) -> None:
    async def look() -> bool:
        return bool(oracle.select("SELECT 1 FROM attempts WHERE state = 'failed'"))

    await until(look, "a purchase to be refused", PATIENCE_SECONDS)


async def intended(oracle: Oracle, kind: str) -> None:
    async def look() -> bool:
        return bool(oracle.select(f"SELECT 1 FROM settlements WHERE kind = '{kind}'"))

    await until(look, f"an intent to {kind}", PATIENCE_SECONDS)


async def rival_of(oracle: Oracle, queue: str) -> Keypair:
    """Another operator of the queue."""
    rival = Keypair()
    await oracle.town.fund(rival.pubkey())
    step = instructions.add_operator(
        idl.program_id(),
        queue=oracle.queue(queue),
        authority=oracle.operator.pubkey(),
        operator_key=rival.pubkey(),
        uri="http://r",
    )
    await oracle.pay_for(step)
    return rival


async def claim(oracle: Oracle, asked: Asked, operator: Keypair) -> None:
    queue = oracle.queue(asked.queue)
    step = instructions.claim_request(
        idl.program_id(),
        request=asked.address,
        operator_key=operator.pubkey(),
        operator=instructions.operator_address(idl.program_id(), queue, operator.pubkey()),
        queue=queue,
    )
    await oracle.town.transact([step], operator)


async def cancel(oracle: Oracle, asked: Asked, *more: Any) -> None:
    step = instructions.cancel_request(idl.program_id(), request=asked.address, requester=oracle.requester.pubkey())
    await oracle.town.transact([step, *more], oracle.requester)


@dataclass(slots=True)
class Late:
    """Lets a transaction land so many slots late."""

    slots: int
    seen: Signature | None = None

    def __call__(self, tx: VersionedTransaction) -> int | None:
        self.seen = tx.signatures[0]
        return self.slots


@dataclass(slots=True)
class FirstLost:
    """Loses one transaction, however often it is sent."""

    first: Signature | None = None

    def __call__(self, tx: VersionedTransaction) -> int | None:
        self.first = self.first or tx.signatures[0]
        return None if tx.signatures[0] == self.first else 0


FEE_LAMPORTS = 10_000_000
"""So much that it pays for an hour of a server."""
OF_SETTLING = tuple(
    f"{side} {step}"
    for step in (
        "store.write settle.gather take",
        "rpc.simulateTransaction settle.simulate",
        "signer.sign transactions.signed",
        "store.write settle.sign_and_send record_signatures",
        "rpc.sendTransaction settle.sign_and_send",
        "store.write settle.sign_and_send sent_all",
        "rpc.getSignatureStatuses follow.turn",
        "store.write follow.landed landed_all",
    )
    for side in ("before", "after")
)
OF_DATA = tuple(
    f"{side} {step}"
    for step in ("store.write data.booked book", "http.POST maps /map-data", "store.write data.load results.put_input")
    for side in ("before", "after")
)
OF_FREE_DATA = ("before store.write data.bought _book_back.name", "after store.write data.bought _book_back.name")
OF_A_NEW_CLAIM = ("before store.write refusals.claim_again write", "after store.write refusals.claim_again write")
OF_A_REFUSAL = (
    "before store.write purchases.Purchases._drop purchases.drop",
    "after store.write purchases.Purchases._drop purchases.drop",
)
OF_AN_END = (
    "before store.write purchases.Purchases._book ledger.book",
    "after store.write purchases.Purchases._book ledger.book",
)
OF_A_PAUSE = tuple(
    f"{side} store.write {step}"
    for step in ("submit.buy_at_once move_all", "treasury.wake write")
    for side in ("before", "after")
)
_PAUSED: Mapping[str, Any] = {"breaker": {"open_seconds": 2.0}, "daemon": {"balance_interval_seconds": 0.2}}
_PATIENT: Mapping[str, Any] = {"settlement": {"flush_window_seconds": 0.7}}

LIVES = (
    Scenario(answered),
    Scenario(claimed, queue="claims"),
    Scenario(paid),
    Scenario(rejected),
    Scenario(fallen_back),
    Scenario(fetched),
    Scenario(mapped, passes=OF_DATA),
    Scenario(mapped_later, passes=OF_FREE_DATA),
    Scenario(strange, alone=True),
    Scenario(unconfirmed),
    Scenario(expired),
    Scenario(closed, queue="brief"),
    Scenario(paid, crash_first="after http.POST dear /v1/chat/completions"),
    Scenario(answered, crash_first="before http.POST free /v1/chat/completions"),
    Scenario(answered, crash_first="before rpc.sendTransaction settle.sign_and_send"),
    Scenario(mapped, crash_first="after http.POST maps /map-data", passes=OF_DATA),
    # The second to be signed is the output: from there on what is settled is that.
    Scenario(published, crash_first="before store.write settle.sign_and_send record_signatures:2", passes=OF_SETTLING),
    Scenario(overtaken, queue="claims", settings=_PATIENT, alone=True),
    Scenario(broke, settings={"policy": {"simulate_before_buying": False, "min_wallet_lamports": 0}}, alone=True),
    Scenario(timed_out),
    Scenario(overdue, settings={"settlement": {"flush_window_seconds": 12.0}}),
    Scenario(beaten, queue="claims", alone=True),
    Scenario(contested, queue="hasty", settings=_PATIENT, alone=True),
    Scenario(orphaned, queue="hasty", alone=True),
    Scenario(vanished, queue="hasty", alone=True),
    Scenario(supplanted, queue="hasty", alone=True, passes=OF_A_NEW_CLAIM),
    Scenario(lost, alone=True, passes=("before rpc.sendTransaction follow.resend",)),
)
"""Of a request, whoever is paid for it, the quickest first."""

PURCHASES = (
    Scenario(bought_on_nosana),
    Scenario(bought_on_chain),
    Scenario(bought, network="container"),
    Scenario(bought, network="cloud"),
    Scenario(bought, network="deployment"),
    Scenario(bought_in_a_batch, network="batch", queue="patient"),
    Scenario(bought_at_chat, network="intelligence"),
    Scenario(retried, passes=("after store.write worker.try_later postpone_all",)),
    Scenario(never_ended, passes=("after provider.cancel nosana poll.follow",)),
    Scenario(bought_on_nosana, crash_first="after http.POST nosana /jobs/list"),
    Scenario(bought_on_nosana, crash_first="before provider.submit nosana submit.call"),
    Scenario(bought_on_chain, crash_first="after rpc.sendTransaction orders.Orders.send"),
    Scenario(bought, network="container", crash_first="after http.POST container /v1/jobs"),
    Scenario(bought, network="cloud", crash_first="after http.POST cloud /enterprise/v1/io-cloud/caas/deploy"),
    Scenario(bought, network="deployment", crash_first="after http.POST deployment /deployments/create"),
    Scenario(bought_in_a_batch, network="batch", queue="patient", crash_first="after http.POST batch /v1/batches"),
    Scenario(answer_lost, alone=True),
    Scenario(orphaned_on_chain, queue="hasty", alone=True, passes=OF_AN_END),
    Scenario(frozen, alone=True, passes=OF_A_REFUSAL),
    Scenario(paused, settings=_PAUSED, alone=True, passes=OF_A_PAUSE),
)
"""On networks."""

QUICK = LIVES[:4]
SCENARIOS = LIVES + PURCHASES
