"""One chain and one set of providers, shared by many oracles: each with keys, queues, a database and a process."""

from __future__ import annotations

import itertools
import sqlite3
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import tomlkit
from chaos_length import IS_LONG
from chaos_networks import GPU_MODEL, NETWORKS, STUBBORN, Sold
from chaos_replaced import REPLACED
from chaos_wait import until
from solders.account import Account
from solders.compute_budget import set_compute_unit_limit
from solders.instruction import Instruction
from solders.keypair import Keypair
from solders.message import MessageV0
from solders.pubkey import Pubkey
from solders.token.state import TokenAccount, TokenAccountState
from solders.transaction import VersionedTransaction

from oracle.chain.program import idl, instructions
from oracle.chain.program.addresses import queue_address, request_address
from oracle.chain.program.body import encode_body
from oracle.chain.program.layout import QueueTerms, decode_header
from oracle.core.lifecycle import ENDED
from oracle.core.request import Body, Data, Header, Inline, Input, Params, Status
from oracle.localnet import network
from oracle.localnet.chain import Chain, Commitment, Config
from oracle.localnet.emulators.beemaps import Beemaps, MapKey
from oracle.localnet.emulators.nosana import Account as Customer
from oracle.localnet.emulators.nosana import Nosana, genesis, jobs_program
from oracle.localnet.emulators.nosana.chain_host import HOST_KEY
from oracle.localnet.emulators.nosana.emulator import PIN_TOKEN
from oracle.localnet.emulators.openai import Personality, ScriptedOpenAI
from oracle.localnet.emulators.server import Emulator
from oracle.localnet.emulators.server import serve as serve_emulator
from oracle.localnet.server import Node
from oracle.testing.crashing import Life
from oracle.testing.forked import ForkedDaemon

SLOT_SECONDS = 0.03
SOON_FINAL = Config(finalized_lag_slots=16)
"""For lives that are waited for until all is final, by the dozen."""
FUNDS_LAMPORTS = 100_000_000_000
PATIENCE_SECONDS = 400.0 if IS_LONG else 120.0
"""Long, for a machine that is busy with other things; where troubles are long, leases lapse before they are over."""

LAMPORTS_PER_SIGNATURE = 5_000
URI = "http://127.0.0.1:8787"

Books = Callable[[str], list[tuple[Any, ...]]]
"""Reads a daemon's database."""

TERMS: Mapping[str, Mapping[str, Any]] = {
    "open": {},
    "brief": {"retention_slots": 5},
    "claims": {"claim_required": True},
    "hasty": {"claim_required": True, "lease_slots": 20},
    "patient": {"max_deadline_slots": 10_000_000},
}
"""The queues of every oracle: `brief` closes its requests at once, the leases of `hasty` lapse soon, `patient` leaves
days."""


def terms(**changes: Any) -> QueueTerms:
    usual = {
        "fee_floor_lamports": 5_000,
        "min_deadline_slots": 5,
        "max_deadline_slots": 1_000_000,
        "lease_slots": 2_000,
        "retention_slots": 1_000_000,
        "max_body_len": 8_192,
        "max_output_cap": 1_024,
        "claim_required": False,
    }
    return QueueTerms(**{**usual, **changes})


@dataclass(frozen=True, slots=True)
class Asked:
    """A request that is on chain."""

    address: Pubkey
    created_slot: int
    queue: str
    model: str
    prompt: str
    ends: tuple[Status, ...]
    """How it may end, whatever crash comes in between."""
    output_cap: int = 0
    """So much room it has for its output on chain."""


@dataclass(slots=True)
class Town:
    """`minted_lamports` is all the money that was ever made here."""

    node: Node
    directory: Path
    gpu_url: str
    models: dict[str, ScriptedOpenAI]
    providers: dict[str, dict[str, Any]]
    minted_lamports: int
    stack: AsyncExitStack
    oracles: list[Oracle] = field(default_factory=list)
    host: Nosana | None = None
    """Nosana, as those see it who buy on chain, and where it is."""
    host_url: str | None = None
    deliveries: dict[Pubkey, Callable[[VersionedTransaction], int | None]] = field(default_factory=dict)
    """How the network treats the transactions of a fee payer."""
    plots: Iterator[int] = field(default_factory=itertools.count)

    def plot(self) -> str:
        """A query for the map of a place that nobody else asks for: so its books tell who has paid how often."""
        west = 11.574 + next(self.plots) / 10_000_000
        return f"data://maps/features?box={west:.7f},48.136,11.576,48.138&ask=What%20stands%20there?"

    def deliver(self, tx: VersionedTransaction) -> int | None:
        treat = self.deliveries.get(tx.message.account_keys[0])
        return 0 if treat is None else treat(tx)

    async def fund(self, address: Pubkey) -> None:
        self.minted_lamports += FUNDS_LAMPORTS
        await self.node.call(lambda chain: chain.fund(address, FUNDS_LAMPORTS))

    async def slot(self) -> int:
        return await self.node.call(lambda chain: chain.slot(Commitment.PROCESSED))

    async def place(self, address: Pubkey, account: Account) -> None:
        """Put an account on chain, whatever the rules."""
        self.minted_lamports += account.lamports
        await self.node.call(lambda chain: chain.set_account(address, account))

    async def transact(self, steps: list[Instruction], *signers: Keypair) -> int:
        """The slot in which it landed; the first signer pays."""

        def send(chain: Chain) -> tuple[int, Any] | None:
            budget = set_compute_unit_limit(200_000)
            # No fork may drop the block that it is of: the transaction could not come back.
            blockhash = chain.bank(Commitment.CONFIRMED).blockhash
            message = MessageV0.try_compile(signers[0].pubkey(), [budget, *steps], [], blockhash)
            return chain.status(chain.submit(VersionedTransaction(message, list(signers))))

        landed = await self.node.call(send)
        assert landed is not None, "dropped"
        slot, error = landed
        assert error is None, error
        return slot

    async def oracle(
        self,
        name: str,
        *,
        queues: Sequence[str] = ("open",),
        network: str | None = None,
        books: Books | None = None,
        **settings: Any,
    ) -> Oracle:
        """An operator on queues of its own, with a requester beside it; its daemon is not started yet.

        It has the `network` to itself. `books` reads its database where that is not the usual file.
        """
        # Nosana counts calls by address, and all oracles of this town would share one: each gets its own.
        nosana = Nosana(self.gpu_url)
        oracle = Oracle(self, name, nosana, Keypair(), Keypair(), self.directory / name.replace("/", "_"))
        oracle.books = books
        oracle.directory.mkdir(exist_ok=True)
        for key in (oracle.operator, oracle.requester):
            await self.fund(key.pubkey())
        if self.host_url is not None:
            granted = await self.node.call(lambda chain: grant(chain, oracle.operator.pubkey()))
            self.minted_lamports += granted
        for queue in queues:
            await oracle.pay_for(
                instructions.create_queue(
                    idl.program_id(), authority=oracle.operator.pubkey(), name=queue, terms=terms(**TERMS[queue])
                ),
                instructions.add_operator(
                    idl.program_id(),
                    queue=oracle.queue(queue),
                    authority=oracle.operator.pubkey(),
                    operator_key=oracle.operator.pubkey(),
                    uri=URI,
                ),
            )
        oracle.nosana_url = (await self.stack.enter_async_context(serve_emulator(oracle.nosana))).url
        oracle.maps_url = (await self.stack.enter_async_context(serve_emulator(oracle.maps))).url
        if network is not None:
            emulator = NETWORKS[network].emulator(self.gpu_url)
            url = (await self.stack.enter_async_context(serve_emulator(emulator))).url
            oracle.network, oracle.emulator = network, emulator
            settings |= {
                "providers": {network: NETWORKS[network].provider(url)},
                "models": NETWORKS[network].models(network),
            }
        oracle.write_config(queues, settings, oracle.nosana_url)
        self.oracles.append(oracle)
        return oracle


@dataclass(slots=True)
class Oracle:
    """One operator, its daemon, its requester, and what was asked of it."""

    town: Town
    name: str
    nosana: Nosana
    operator: Keypair
    requester: Keypair
    directory: Path
    nosana_url: str = ""
    maps: Beemaps = field(default_factory=Beemaps)
    """The data network, as it sells to this oracle alone."""
    maps_url: str = ""
    asked: list[Asked] = field(default_factory=list)
    nonces: Iterator[int] = field(default_factory=itertools.count)
    other_fees_lamports: int = 0
    """Fees of the operator's transactions that its daemon did not make."""
    doubled: Counter[str] = field(default_factory=Counter)
    """How often the network itself, not the daemon, has repeated a purchase, by prompt."""
    replaced: tuple[tuple[str, Any], ...] = REPLACED
    """What is replaced in every life of its daemon."""
    books: Books | None = None
    network: str | None = None
    emulator: Emulator | None = None
    """The network that it has to itself, if it has one."""
    daemon: ForkedDaemon = field(init=False)
    second: ForkedDaemon = field(init=False)
    """Another one of the same configuration, where the database can be shared."""

    def __post_init__(self) -> None:
        self.daemon = ForkedDaemon(self.directory / "daemon.log", self.directory)
        self.second = ForkedDaemon(self.directory / "second.log", self.directory)

    @property
    def daemons(self) -> tuple[ForkedDaemon, ForkedDaemon]:
        return self.daemon, self.second

    @property
    def database(self) -> Path:
        return self.directory / "oracle.sqlite"

    def queue(self, name: str) -> Pubkey:
        return queue_address(idl.program_id(), self.operator.pubkey(), name)

    async def pay_for(self, *steps: Instruction) -> None:
        """A transaction of the operator's that is not its daemon's."""
        self.other_fees_lamports += LAMPORTS_PER_SIGNATURE
        await self.town.transact(list(steps), self.operator)

    def write_config(self, queues: Sequence[str], changes: Mapping[str, Any], nosana_url: str) -> None:
        keypair = self.directory / "operator.json"
        keypair.write_text(self.operator.to_json())
        keypair.chmod(0o600)
        document = _settings(self, queues, nosana_url)
        for section, values in changes.items():
            document[section] = {**document.get(section, {}), **values}
        (self.directory / "oracle.toml").write_text(tomlkit.dumps(document))

    def launch(
        self, *, daemon: ForkedDaemon | None = None, also_replaced: tuple[tuple[str, Any], ...] = (), **life: Any
    ) -> None:
        """Start the daemon, or the one that is named, and return at once; `life` are fields of `Life`, such as
        `crash_at`."""
        replaced = (*self.replaced, *also_replaced)
        (daemon or self.daemon).launch(Life(self.directory / "oracle.toml", replaced=replaced, **life))

    async def ask(
        self,
        model: str,
        *,
        queue: str = "open",
        fee_lamports: int = 400_000,
        ttl_slots: int = 8_000,
        end: tuple[Status, ...] = (Status.FULFILLED,),
        content: Input | None = None,
        output_cap: int = 0,
    ) -> Asked:
        """Put a request on chain; no two have the same prompt."""
        nonce = next(self.nonces)
        prompt = content.query if isinstance(content, Data) else f"{self.name} asks {model} number {nonce}"
        body = Body(model, Params(64), content or Inline(prompt.encode()))
        key, place = self.requester, self.queue(queue)
        step = instructions.submit_request(
            idl.program_id(),
            queue=place,
            requester=key.pubkey(),
            payer=key.pubkey(),
            nonce=nonce,
            fee_lamports=fee_lamports,
            ttl_slots=ttl_slots,
            output_cap=output_cap,
            body=body,
        )
        slot = await self.town.transact([step], key)
        address = request_address(idl.program_id(), place, key.pubkey(), nonce, sha256(encode_body(body)).digest())
        asked = Asked(address, slot, queue, model, prompt, end, output_cap)
        self.asked.append(asked)
        return asked

    async def header(self, asked: Asked) -> Header | None:
        """What the open slot shows of the request; None once it is closed."""
        account = await self.town.node.call(lambda chain: chain.account(asked.address))
        return None if account is None or not account.data else decode_header(account.data)

    def unfinished(self) -> list[str]:
        """What the daemon's own database still has to do; nothing once every request is at rest for good."""
        rows = self.select("SELECT address, state, closed, end_finalized FROM requests")
        known = {address: (state, closed, final) for address, state, closed, final in rows}
        left = []
        for asked in self.asked:
            state, closed, final = known.get(str(asked.address), ("unseen", 0, 0))
            if state not in ENDED or not (closed or (final and asked.queue != "brief")):
                left.append(f"{asked.address} of {asked.model} is {state}, closed {closed}, final {final}")
        for table, states in (
            ("attempts", LIVE_ATTEMPT),
            ("settlements", LIVE_SETTLEMENT),
            ("signatures", OPEN_SIGNATURE),
        ):
            for (found,) in self.select(f"SELECT state FROM {table} WHERE state IN ({states})"):
                left.append(f"{table}: one is {found}")
        return left + [f"a {self.network} runs" for each in self.sold() if each.ended is None]

    def sold(self) -> Sequence[Sold]:
        """What its own network has sold to it, by the books of that."""
        if self.network is None or self.emulator is None:
            return ()
        return NETWORKS[self.network].sold(self.emulator.books())

    def select(self, query: str) -> list[tuple[Any, ...]]:
        """Rows of the daemon's database; none where it does not exist yet."""
        if self.books is not None:
            return self.books(query)
        if not self.database.exists():
            return []
        connection = sqlite3.connect(f"file:{self.database}?mode=ro", uri=True, timeout=10)
        try:
            return connection.execute(query).fetchall()
        except sqlite3.OperationalError as error:
            # A daemon that died in its first writes leaves what only the next one, which may write, can read.
            if "no such table" in str(error) or "readonly database" in str(error):
                return []
            raise
        finally:
            connection.close()

    async def at_rest(self, seconds: float = PATIENCE_SECONDS) -> None:
        """Until every request has ended for good, on chain and in the books."""

        async def look() -> bool:
            assert any(daemon.alive for daemon in self.daemons), f"the daemon is dead: {self.tail()}"
            return not self.unfinished()

        try:
            await until(look, f"{self.name} at rest", seconds, pause_seconds=0.1)
        except AssertionError as error:
            raise AssertionError(f"{error}: {self.unfinished()}\n{self.tail()}") from None

    def tail(self) -> str:
        logs = (daemon.log for daemon in self.daemons if daemon.log.exists())
        return "\n".join(f"{log.name}: {log.read_text()[-3_000:]}" for log in logs) or "no log"


def grant(chain: Chain, owner: Pubkey) -> int:
    """A NOS account with some NOS on it; the lamports that it holds."""
    genesis.grant_nos(chain, owner, jobs_program.MICRO_NOS)
    account = chain.account(jobs_program.nos_account(owner))
    assert account is not None
    return account.lamports


def freeze(chain: Chain, owner: Pubkey, *, is_frozen: bool) -> None:
    """The NOS of `owner`, or let them go again."""
    address = jobs_program.nos_account(owner)
    account = chain.account(address)
    assert account is not None
    token = TokenAccount.from_bytes(account.data)
    state = TokenAccountState.Frozen if is_frozen else TokenAccountState.Initialized
    data = bytes(TokenAccount(token.mint, token.owner, token.amount, None, state, None, 0, None))
    chain.set_account(address, Account(account.lamports, data, account.owner))


LIVE_ATTEMPT = "'intended', 'unknown', 'running'"
LIVE_SETTLEMENT = "'pending', 'sent', 'landed'"
OPEN_SIGNATURE = "'signed', 'sent', 'confirmed'"


def _settings(oracle: Oracle, queues: Sequence[str], nosana_url: str) -> dict[str, Any]:
    providers = {name: dict(settings) for name, settings in oracle.town.providers.items()}
    providers["nosana"] = {
        "kind": "nosana",
        "base_url": nosana_url,
        "pinning_url": nosana_url,
        "gateway_url": nosana_url,
        "api_key": Customer().api_key,
        "project": Customer().address,
        "pinata_jwt": PIN_TOKEN,
        "expected_seconds": 1.0,
    }
    if oracle.town.host_url is not None:
        providers["onchain"] = {
            "kind": "nosana_onchain",
            **dict.fromkeys(("base_url", "pinning_url", "gateway_url"), oracle.town.host_url),
            "pinata_jwt": PIN_TOKEN,
            "models": [GPU_MODEL],
            "max_queue_seconds": 600,
            "expected_seconds": 1,
        }
    route = {"model": "tiny", "timeout_seconds": 30}
    hedged = {"max_parallel_jobs": 2, "hedge_after_seconds": 0.3}
    listed = (
        [{"provider": "onchain", "model": GPU_MODEL, "timeout_seconds": 60, **STUBBORN}] if oracle.town.host_url else []
    )
    return {
        "cluster": {"rpc": [oracle.town.node.rpc_url], "scan_interval_seconds": 2.0},
        "operator": {
            "keypair": "operator.json",
            "queues": [str(oracle.queue(name)) for name in queues],
            "base_uri": URI,
        },
        "database": {"url": "sqlite:///oracle.sqlite"},
        "api": {"port": 0},
        "sources": {
            "maps": {
                "kind": "beemaps",
                "base_url": oracle.maps_url,
                "api_key": MapKey().value,
                "usd_per_fetch": "0.01",
                "requests_per_second": 1_000,
            }
        },
        "rates": {"sol_usd": "100", "nos_usd": "0.3"},
        "policy": {"deadline_margin_seconds": 0.2},
        "daemon": {"poll_interval_seconds": 0.1, "drain_seconds": 5},
        # A provider that loses every answer is left alone for less time than these tests are patient.
        "breaker": {"open_seconds": 1.0, "longest_open_seconds": 5.0},
        "settlement": {"flush_window_seconds": 0.02, "poll_interval_seconds": 0.2, "resend_interval_seconds": 0.5},
        "log": {"format": "json"},
        "providers": providers,
        "models": {
            "free": {"routes": [{"provider": "free", **route}]},
            "dear": {"routes": [{"provider": "dear", **route}]},
            "gpu": {"routes": [{"provider": "nosana", "model": GPU_MODEL, "timeout_seconds": 60, **STUBBORN}]},
            "idle": {"routes": [{"provider": "nosana", "model": GPU_MODEL, "timeout_seconds": 1.0, **STUBBORN}]},
            **({"listed": {"routes": listed}} if listed else {}),
            "leaky": {"routes": [{"provider": "leaky", **route}]},
            "raced": {
                "routes": [{"provider": "nosana", "model": GPU_MODEL, "timeout_seconds": 60, **hedged}],
            },
            "doubled": {
                "routes": [
                    {"provider": "slow", **route, "max_attempts": 1, **hedged},
                    {"provider": "dear", **route, **hedged},
                ]
            },
            "broken": {"routes": [{"provider": "broken", **route}]},
            "shaky": {"routes": [{"provider": "broken", **route}, {"provider": "free", **route}]},
            "stuck": {"routes": [{"provider": "stuck", **route}]},
            "tardy": {"routes": [{"provider": "stuck", **route, "timeout_seconds": 1.0, "max_attempts": 1}]},
        },
    }


@asynccontextmanager
async def town(
    directory: Path, *, slot_seconds: float = SLOT_SECONDS, config: Config | None = None, host: bool = False
) -> AsyncIterator[Town]:
    """Chain and providers, served until the block ends; with `host`, Nosana's program and one of its hosts, too."""
    async with AsyncExitStack() as stack:
        node = await stack.enter_async_context(network.running(slot_seconds=slot_seconds, config=config))
        models = {
            name: ScriptedOpenAI(words=4, word_seconds=0.05)
            for name in ("free", "dear", "leaky", "broken", "stuck", "slow")
        }
        models["broken"].faults.add("error", status=400, text="no such thing", count=None)
        models["leaky"].faults.add("lose_answer", count=None)
        models["stuck"].faults.add("hang", count=None)
        models["slow"].faults.add("hang", count=None)
        gpu = ScriptedOpenAI(Personality.VLLM, words=4)
        urls = {name: (await stack.enter_async_context(serve_emulator(model))).url for name, model in models.items()}
        models["gpu"] = gpu
        gpu_url = (await stack.enter_async_context(serve_emulator(gpu))).url
        chat = {"kind": "openai", "free": True, "max_concurrent_jobs": 64}
        providers: dict[str, dict[str, Any]] = {name: {**chat, "base_url": f"{url}/v1"} for name, url in urls.items()}
        price = {"input_usd_per_million_tokens": "1.0", "output_usd_per_million_tokens": "1.0"}
        for name in ("dear", "leaky", "slow"):
            providers[name] |= {"free": False, "model_prices": {"tiny": price}}
        nosana, host_url = None, None
        if host:
            await node.call(lambda chain: genesis.place(chain, job_expiration_seconds=0))
            await node.call(lambda chain: chain.fund(HOST_KEY.pubkey(), FUNDS_LAMPORTS))
            nosana = Nosana(f"{gpu_url}/v1", rpc_url=node.rpc_url)
            host_url = (await stack.enter_async_context(serve_emulator(nosana))).url
        minted = await node.call(lambda chain: sum(account.lamports for _, account in chain.ledger.all_accounts(2**62)))
        made = Town(node, directory, f"{gpu_url}/v1", models, providers, minted, stack, host=nosana, host_url=host_url)
        await node.call(lambda chain: setattr(chain, "delivery", made.deliver))
        try:
            yield made
        finally:
            for daemon in (daemon for oracle in made.oracles for daemon in oracle.daemons):
                await daemon.kill()
