"""A whole oracle in one process: the embedded chain, a scripted model server, the daemon, a requester."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import pytest
from solders.keypair import Keypair
from solders.pubkey import Pubkey
from solders.transaction import VersionedTransaction

from oracle.api.app import app
from oracle.api.server import serving
from oracle.chain.program import idl
from oracle.chain.program.layout import QueueTerms
from oracle.chain.rpc.client import Client
from oracle.chain.rpc.pool import connect
from oracle.client import requests
from oracle.client.requests import Submitted
from oracle.config import Config, parse
from oracle.core.compute import Message, Task
from oracle.core.errors import ErrorCode
from oracle.core.lifecycle import ENDED, State
from oracle.core.request import Body, Inline, Input, Params, Request
from oracle.localnet import network
from oracle.localnet.chain import Chain, Commitment
from oracle.localnet.emulators.openai import ScriptedOpenAI
from oracle.localnet.emulators.server import Running
from oracle.localnet.emulators.server import serve as serve_emulator
from oracle.localnet.network import LOCAL_TERMS
from oracle.localnet.ports import free_port
from oracle.localnet.server import Node
from oracle.pipeline import inputs, submit
from oracle.pipeline.clock import Clock
from oracle.pipeline.context import Context
from oracle.pipeline.daemon import Daemon, assembled
from oracle.store import migrate
from oracle.store import requests as rows
from oracle.store.rows import RequestRow

T = TypeVar("T")
SLOT_SECONDS = 0.05
PRICES = ("input_usd_per_million_tokens", "output_usd_per_million_tokens")
PATIENCE_SECONDS = 60.0
PARAMS = Params(64)


@dataclass
class World:
    """What a test holds. `daemon()` runs one over the same database and chain, as often as wanted."""

    node: Node
    rpc: Client
    program_id: Pubkey
    queue: Pubkey
    authority: Keypair
    requester: Keypair
    model: ScriptedOpenAI
    model_url: Running
    settings: dict[str, Any]
    directory: Path
    running: list[Daemon] = field(default_factory=list)

    def config(self, **changes: Any) -> Config:
        document = {**self.settings}
        for section, values in changes.items():
            document[section] = {**document.get(section, {}), **values}
        return parse(document, base=self.directory)

    @asynccontextmanager
    async def daemon(self, *, clock: Clock | None = None, **changes: Any) -> AsyncIterator[Daemon]:
        """A daemon that works until the block ends, and then drains."""
        config = self.config(**changes)
        async with assembled(config, clock) as daemon, serving(app(daemon.context), config.api.host, config.api.port):
            task = asyncio.create_task(daemon.run())
            self.running.append(daemon)
            try:
                yield daemon
            finally:
                self.running.remove(daemon)
                daemon.stop()
                await task

    async def submit(
        self,
        prompt: str | bytes | Input = "What is the capital of Japan?",
        *,
        model: str = "tiny",
        fee_lamports: int = 50_000,
        ttl_slots: int = 2_000,
        params: Params = PARAMS,
        requester: Keypair | None = None,
        nonce: int | None = None,
    ) -> Submitted:
        content = prompt.encode() if isinstance(prompt, str) else prompt
        return await requests.submit(
            self.rpc,
            self.program_id,
            queue=self.queue,
            requester=requester or self.requester,
            body=Body(model, params, Inline(content) if isinstance(content, bytes) else content),
            fee_lamports=fee_lamports,
            ttl_slots=ttl_slots,
            nonce=nonce,
        )

    async def ended(self, submitted: Submitted) -> Request:
        return await requests.wait(self.rpc, submitted.address, timeout_seconds=PATIENCE_SECONDS)

    async def row(self, daemon: Daemon, submitted: Submitted) -> RequestRow | None:
        return await daemon.context.store.read(lambda c: rows.latest(c, str(submitted.address)))

    async def reaches(self, daemon: Daemon, submitted: Submitted, *states: State) -> RequestRow:
        async def look() -> RequestRow | None:
            row = await self.row(daemon, submitted)
            return row if row is not None and row.state in states else None

        return await until(look, f"state {' or '.join(states)}")

    async def waits(self, daemon: Daemon, submitted: Submitted, error: ErrorCode) -> RequestRow:
        """The row, once it is put off because of an error."""

        async def look() -> RequestRow | None:
            row = await self.row(daemon, submitted)
            return row if row is not None and row.error_code == error.code and row.state not in ENDED else None

        return await until(look, f"a wait because of {error.code}")

    def charge(self, *, usd_per_million_tokens: float = 1.0, provider: str = "scripted", **settings: Any) -> None:
        """The provider costs money from now on, at 100 USD for a SOL."""
        price = dict.fromkeys(PRICES, usd_per_million_tokens)
        self.settings["providers"][provider] |= {"free": False, "model_prices": {"tiny": price}, **settings}
        self.settings["rates"] = {"sol_usd": 100.0}

    async def quote(self, daemon: Daemon, prompt: str, provider: str = "scripted") -> int:
        task = Task("tiny", (Message("user", prompt),), PARAMS.max_output_tokens)
        return (await daemon.context.providers[provider].quote(task)).cost_lamports


@dataclass
class DrivenClock(Clock):
    """Real time, and what a test has added to it."""

    ahead_seconds: float = 0.0

    def __post_init__(self) -> None:
        super().__init__(wall_ns=lambda: time.time_ns() + int(self.ahead_seconds * 1e9))


def leases_at_slow_calls(monkeypatch: pytest.MonkeyPatch, clock: DrivenClock) -> list[int]:
    """For how long, in milliseconds, a row is still held when its job is bought, where to load its input takes long."""
    left_ms: list[int] = []
    load, call = inputs.load, submit.call

    async def slow_load(*arguments: Any) -> Any:
        clock.ahead_seconds += 20
        return await load(*arguments)

    async def watched_call(context: Context, row: RequestRow, *more: Any, **named: Any) -> None:
        assert row.lease_until_ms is not None
        left_ms.append(row.lease_until_ms - clock.now_ms())
        await call(context, row, *more, **named)

    monkeypatch.setattr(inputs, "load", slow_load)
    monkeypatch.setattr(submit, "call", watched_call)
    return left_ms


async def until(look: Callable[[], Awaitable[T | None]], what: str, seconds: float = PATIENCE_SECONDS) -> T:
    """What `look` finds, once it finds something."""
    try:
        async with asyncio.timeout(seconds):
            while True:
                if found := await look():
                    return found
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise AssertionError(f"{what} was not reached in {seconds:.0f} s") from None


@asynccontextmanager
async def confirming_late(node: Node) -> AsyncIterator[None]:
    """The cluster confirms 30 slots behind, so that nobody has to hurry to catch what is not confirmed yet."""

    def lag(slots: int) -> Callable[[Chain], None]:
        return lambda chain: setattr(chain, "config", replace(chain.config, confirmed_lag_slots=slots))

    await node.call(lag(30))
    yield
    await node.call(lag(2))


async def dropped_with_a_fork(node: Node, instruction: bytes) -> None:
    """Wait for a transaction with an instruction that is not confirmed yet, and drop the slots since it landed."""

    def drop(chain: Chain) -> bool:
        for record in chain.ledger.transactions_after(chain.slot(Commitment.CONFIRMED)):
            instructions = VersionedTransaction.from_bytes(record.wire).message.instructions
            if any(bytes(each.data).startswith(instruction) for each in instructions):
                chain.fork(chain.slot(Commitment.PROCESSED) - record.slot + 1)
                return True
        return False

    async def look() -> bool:
        return await node.call(drop)

    await until(look, "a transaction to drop with a fork")


@pytest.fixture
def terms() -> QueueTerms:
    return LOCAL_TERMS


@pytest.fixture
async def world(tmp_path: Path, terms: QueueTerms, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    async with open_world(tmp_path, terms) as world:
        yield world


@asynccontextmanager
async def open_world(tmp_path: Path, terms: QueueTerms) -> AsyncIterator[World]:
    model = ScriptedOpenAI(words=6)
    async with network.running(slot_seconds=SLOT_SECONDS) as node, serve_emulator(model) as model_url:
        rpc = connect(node.rpc_url)
        authority, requester = network.wallet(tmp_path / "operator.json"), Keypair()
        for key in (authority, requester):
            await network.fund(node, key.pubkey())
        port = free_port()
        uri = f"http://127.0.0.1:{port}"
        queue = await network.create_queue(
            rpc, idl.program_id(), authority, operator=authority.pubkey(), uri=uri, terms=terms
        )
        settings = {
            "cluster": {"rpc": [node.rpc_url], "scan_interval_seconds": 2.0},
            "operator": {"keypair": "operator.json", "queues": [str(queue)], "base_uri": uri},
            "database": {"url": "sqlite:///oracle.sqlite"},
            "api": {"port": port},
            "policy": {"deadline_margin_seconds": 0.5},
            "daemon": {"poll_interval_seconds": 0.05, "drain_seconds": 5},
            "settlement": {"flush_window_seconds": 0.02, "poll_interval_seconds": 0.1},
            "providers": {
                "scripted": {
                    "kind": "openai",
                    "base_url": f"{model_url.url}/v1",
                    "free": True,
                    "max_concurrent_jobs": 64,
                }
            },
            "models": {"tiny": {"routes": [{"provider": "scripted", "model": "tiny", "timeout_seconds": 10}]}},
        }
        migrate.upgrade(f"sqlite:///{tmp_path / 'oracle.sqlite'}")
        yield World(node, rpc, idl.program_id(), queue, authority, requester, model, model_url, settings, tmp_path)
        await rpc.close()
