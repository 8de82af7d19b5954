"""A chain in memory, and a buyer on it, for tests of the adapter that lists jobs on chain."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any

from nosana_wire import KEY, MODEL, NOW, Clock, Network, api_of
from solders.keypair import Keypair
from solders.pubkey import Pubkey
from solders.token import ID as TOKEN_PROGRAM
from solders.token.state import TokenAccount, TokenAccountState

from oracle.core.compute import IdempotencyKey, JobHandle
from oracle.core.errors import OracleError
from oracle.core.purchase import (
    AccountState,
    AlreadyUsed,
    ChainAccess,
    Fate,
    Landed,
    NotBought,
    Order,
    Refused,
)
from oracle.providers import errors
from oracle.providers.nosana import program
from oracle.providers.nosana.compute import Terms
from oracle.providers.nosana.markets import Wanted
from oracle.providers.nosana.onchain import NosanaOnChain
from oracle.providers.nosana.onchain_markets import ChainMarkets
from oracle.providers.nosana.program import JobAccount, JobState, Program, RunAccount
from oracle.providers.nosana.templates import built_in
from oracle.providers.pricing import FixedRates

NOSANA = Program()
OWNER = Keypair.from_seed(bytes(range(32))).pubkey()
JOB = Keypair.from_seed(bytes(range(32, 64))).pubkey()
RUN = Keypair.from_seed(bytes(range(64, 96))).pubkey()
HOST = Keypair.from_seed(bytes(range(96, 128))).pubkey()
OTHER_RUN = Keypair.from_seed(bytes([7] * 32)).pubkey()
CHEAP = Pubkey.from_string("7AtiXMSH6R1jjBxrcYjehCkkSF7zvYWte63gwEDBcGHq")
DEAR = Pubkey.from_string("Dcwz62TisNbWuto6KJM2EGYGVKnHbdZGVGmgLASzsXy8")
WANTED = Wanted(max_usd_per_hour=Decimal("0.5"), min_vram_gb=8, max_queued_jobs=5)
RATES = FixedRates(sol_usd=Decimal(100), nos_usd=Decimal("0.28"))
SLOT = 1_000


@dataclass
class MemoryChain:
    """Implements `ChainView`. `searches` is false for an endpoint that refuses `getProgramAccounts`."""

    states: dict[Pubkey, AccountState] = field(default_factory=dict)
    used: set[Pubkey] = field(default_factory=set)
    searches: bool = True
    asked_since: list[int] = field(default_factory=list)

    async def accounts(self, addresses: Sequence[Pubkey], *, since_slot: int = 0) -> list[AccountState | None]:
        self.asked_since.append(since_slot)
        return [self.states.get(address) for address in addresses]

    async def accounts_of(self, owner: Pubkey, contents: Mapping[int, bytes]) -> dict[Pubkey, bytes]:
        if not self.searches:
            raise errors.NOT_PERMITTED("getProgramAccounts")
        return {
            address: state.data
            for address, state in self.states.items()
            if state.owner == owner
            and all(state.data[at : at + len(wanted)] == wanted for at, wanted in contents.items())
        }

    async def was_used(self, address: Pubkey, *, since_slot: int = 0) -> bool:
        return address in self.used

    def put(self, address: Pubkey, data: bytes, owner: Pubkey = NOSANA.id, lamports: int = 1) -> None:
        self.states[address] = AccountState(lamports, owner, data)

    def put_market(self, address: Pubkey, price: int, *waiting: Pubkey, holds_jobs: bool = True) -> None:
        self.put(address, a_market(price, *waiting, holds_jobs=holds_jobs))

    def put_wallet(self, nos: float = 100.0, sol: float = 1.0) -> None:
        held = TokenAccount(NOSANA.mint, OWNER, int(nos * 1e6), None, TokenAccountState.Initialized, None, 0, None)
        self.put(NOSANA.nos_account(OWNER), bytes(held), TOKEN_PROGRAM)
        self.put(OWNER, b"", Pubkey.default(), int(sol * 1e9))

    def put_job(self, **changes: Any) -> None:
        self.put(JOB, job_bytes(replace(A_JOB, **changes)))
        self.used.add(JOB)

    def put_run(self, address: Pubkey = RUN, started_at: int = NOW, job: Pubkey = JOB) -> None:
        self.put(address, run_bytes(RunAccount(job, HOST, HOST, started_at)))


@dataclass
class MemoryBuyer:
    """Implements `TransactionBuyer`: answers as told, keeps the orders, and performs them on the chain by name."""

    chain: MemoryChain
    answer: Landed | Refused | AlreadyUsed | OracleError = field(default_factory=lambda: Landed(SLOT))
    fate: Fate = field(default_factory=NotBought)
    refusals: list[Refused] = field(default_factory=list)
    orders: list[Order] = field(default_factory=list)
    performed: list[Order] = field(default_factory=list)
    withdrawn: list[IdempotencyKey] = field(default_factory=list)
    payer: Pubkey = OWNER

    async def address(self, key: IdempotencyKey, label: str) -> Pubkey:
        return {"nosana-job": JOB, "nosana-run": RUN}[label]

    async def buy(self, key: IdempotencyKey, order: Order) -> Landed | Refused | AlreadyUsed:
        self.orders.append(order)
        if isinstance(self.answer, OracleError):
            raise self.answer
        return self.answer

    async def withdraw(self, key: IdempotencyKey) -> Fate:
        self.withdrawn.append(key)
        return self.fate

    async def perform(self, order: Order) -> Refused | None:
        self.performed.append(order)
        return self.refusals.pop(0) if self.refusals else None


@dataclass
class Ground:
    """An adapter over a network and a chain in memory, with two markets and a full wallet."""

    network: Network = field(default_factory=Network)
    chain: MemoryChain = field(default_factory=MemoryChain)
    clock: Clock = field(default_factory=Clock)
    buyer: MemoryBuyer = field(init=False)

    def __post_init__(self) -> None:
        self.buyer = MemoryBuyer(self.chain)
        self.chain.put_market(CHEAP, 48)
        self.chain.put_market(DEAR, 216)
        self.chain.put_wallet()

    def compute(self, *, wanted: Wanted = WANTED, rates: FixedRates = RATES, **terms: Any) -> NosanaOnChain:
        api = api_of(self.network)
        markets = ChainMarkets(api, self.chain, wanted, rates, clock=self.clock)
        options: dict[str, Any] = {"template": built_in("vllm"), "models": (MODEL,)}
        return NosanaOnChain(
            "nosana",
            api,
            ChainAccess(self.buyer, self.chain),
            NOSANA,
            Terms(**(options | terms)),
            markets,
            rates=rates,
            clock=self.clock,
            now=self.clock,
            sleep=self.clock.sleep,
        )


A_JOB = JobAccount(
    definition=bytes(range(32)),
    result=None,
    market=CHEAP,
    payer=OWNER,
    price=48,
    project=OWNER,
    state=JobState.QUEUED,
    ended_at=0,
    started_at=0,
    timeout_seconds=120,
)
A_HANDLE = JobHandle(
    "nosana",
    str(JOB),
    {"key": str(KEY), "run": str(RUN), "listed_at": NOW, "timeout_seconds": 120, "slot": SLOT, "max_output_tokens": 32},
)


def job_bytes(job: JobAccount) -> bytes:
    keys = [job.market, Pubkey.default(), job.payer]
    head = program.JOB + job.definition + (job.result or bytes(32)) + b"".join(map(bytes, keys))
    times = struct.pack("<Bqqq", job.state, job.ended_at, job.started_at, job.timeout_seconds)
    return (head + struct.pack("<Q", job.price) + bytes(job.project) + times).ljust(240, b"\0")


def run_bytes(run: RunAccount) -> bytes:
    keys = b"".join(map(bytes, (run.job, run.node, run.payer)))
    return (program.RUN + keys + b"\0" + struct.pack("<q", run.started_at)).ljust(120, b"\0")


def a_market(price: int, *waiting: Pubkey, holds_jobs: bool = True) -> bytes:
    kind = 255 if not waiting else 0 if holds_jobs else 1
    head = program.MARKET + bytes(32) + struct.pack("<qQqB", 86_400, price, 7200, 4) + bytes(32 + 1 + 32 + 16)
    return head + struct.pack("<BI", kind, len(waiting)) + b"".join(map(bytes, waiting)) + bytes(64)
