"""A gateway in front of scripted upstreams, and OpenAI clients of it."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import openai
from openai import AsyncOpenAI
from pipeline_world import World, open_world, until
from solders.keypair import Keypair

from oracle.api.gateway.server import open_gateway
from oracle.core.breaker import Breaker
from oracle.localnet import network
from oracle.localnet.emulators.nosana import Account, Nosana
from oracle.localnet.emulators.nosana.emulator import PIN_TOKEN
from oracle.localnet.emulators.openai import ScriptedOpenAI, scripted_words
from oracle.localnet.emulators.server import Running
from oracle.localnet.emulators.server import serve as serve_emulator
from oracle.localnet.network import LOCAL_TERMS
from oracle.pipeline.context import Context
from oracle.store import calls
from oracle.store.calls import Used

MODEL = "tiny"
GPU_MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"
DAY_LAMPORTS = 1_000_000_000
UNLIMITED = {"concurrent": 10_000, "requests_per_minute": 100_000}


def key_of(name: str) -> str:
    return f"{name}-key-0123456789"


def client_settings(name: str, **limits: Any) -> dict[str, Any]:
    return {"sha256": hashlib.sha256(key_of(name).encode()).hexdigest(), **UNLIMITED, **limits}


CLIENTS: Mapping[str, dict[str, Any]] = {
    "alice": client_settings("alice"),
    "scribe": client_settings("scribe", record=True, lamports_per_day=DAY_LAMPORTS),
}


@dataclass
class GatewayWorld:
    """A running gateway. `model` and `spare` are upstreams, `network` is Nosana: their books say what was bought."""

    context: Context
    url: str
    world: World
    payer: Keypair
    spare: ScriptedOpenAI | None = None
    spare_url: Running | None = None
    network: Nosana | None = None

    @property
    def model(self) -> ScriptedOpenAI:
        return self.world.model

    def client(self, name: str = "alice", **options: Any) -> AsyncOpenAI:
        return AsyncOpenAI(base_url=self.url, **({"api_key": key_of(name), "max_retries": 0} | options))

    async def get(self, path: str, name: str = "alice") -> httpx.Response:
        async with httpx.AsyncClient(trust_env=False, timeout=60) as http:
            return await http.get(f"{self.url}{path}", headers={"Authorization": f"Bearer {key_of(name)}"})

    async def post(self, path: str, body: bytes, name: str = "alice") -> httpx.Response:
        async with httpx.AsyncClient(trust_env=False, timeout=60) as http:
            headers = {"Authorization": f"Bearer {key_of(name)}"}
            return await http.post(f"{self.url}{path}", content=body, headers=headers)

    async def used(self, name: str = "alice") -> Used:
        return await self.context.store.read(lambda c: calls.used(c, name, 0))

    def forgive(self) -> None:
        """Close every breaker: tests make these providers fail, and none may be kept from the next."""
        self.context.breakers.by_provider = {name: Breaker() for name in self.context.providers}

    def reset(self) -> None:
        self.forgive()
        for emulator in (self.model, self.spare):
            if emulator is not None:
                emulator.faults.clear()
                emulator.requests.clear()
                emulator.streams.clear()
                emulator.flowing.set()
                emulator.words, emulator.word_seconds = 6, 0.0


@asynccontextmanager
async def open_gateway_world(world: World, **changes: Any) -> AsyncIterator[GatewayWorld]:
    """A daemon with its gateway until the block ends. `changes` are laid over sections of the configuration."""
    payer = await wallet(world)
    gateway = {"port": 0, "keypair": "gateway.json", "keys": dict(CLIENTS), **changes.pop("gateway", {})}
    async with world.daemon(gateway=gateway, **changes) as daemon, open_gateway(daemon.context) as url:
        yield GatewayWorld(daemon.context, url, world, payer)


async def wallet(world: World) -> Keypair:
    """The gateway's own key, with money."""
    key = network.wallet(world.directory / "gateway.json")
    await network.fund(world.node, key.pubkey())
    return key


@asynccontextmanager
async def shared_gateway(directory: Path) -> AsyncIterator[GatewayWorld]:
    """Clients with every kind of limit, and models with every kind of route."""
    spare = ScriptedOpenAI(words=6)
    async with open_world(directory, LOCAL_TERMS) as world, serve_emulator(spare) as spare_url:
        nosana = Nosana(f"{world.model_url.url}/v1")
        async with serve_emulator(nosana) as nosana_url:
            free = {"kind": "openai", "free": True, "max_concurrent_jobs": 100}
            priced = {"input_usd_per_million_tokens": "1", "output_usd_per_million_tokens": "10"}
            changes: dict[str, Any] = {
                "rates": {"sol_usd": 100, "nos_usd": 0.3},
                "providers": {
                    "spare": {**free, "base_url": f"{spare_url.url}/v1"},
                    # A provider that was told to wait waits, whoever asks it next.
                    "limited": {**free, "base_url": f"{world.model_url.url}/v1"},
                    "dear": {
                        "kind": "openai",
                        "base_url": f"{world.model_url.url}/v1",
                        "model_prices": {MODEL: priced},
                    },
                    "nosana": {
                        "kind": "nosana",
                        "base_url": nosana_url.url,
                        "pinning_url": nosana_url.url,
                        "gateway_url": nosana_url.url,
                        "api_key": Account().api_key,
                        "project": Account().address,
                        "pinata_jwt": PIN_TOKEN,
                        "expected_seconds": 1.0,
                    },
                },
                "models": {
                    "pair": {"routes": [route("scripted"), route("spare")]},
                    "limited": {"routes": [route("limited")]},
                    "limited-pair": {"routes": [route("limited"), route("spare")]},
                    "dear": {"routes": [route("dear", max_attempts=1)]},
                    "dear-pair": {"routes": [route("dear", max_attempts=1), route("spare")]},
                    "hasty": {"routes": [route("dear", timeout_seconds=0.5), route("spare")]},
                    "capped": {"routes": [route("dear", max_cost_lamports=1)]},
                    "gpu": {"routes": [route("nosana", model=GPU_MODEL, timeout_seconds=30)]},
                    "gpu-first": {"routes": [route("nosana", model=GPU_MODEL), route("spare")]},
                },
                "gateway": {
                    "max_body_bytes": 20_000,
                    "keys": {
                        **CLIENTS,
                        "slow": client_settings("slow", requests_per_minute=2),
                        "narrow": client_settings("narrow", concurrent=1),
                        "frugal": client_settings("frugal", tokens_per_day=150),
                        "poor": client_settings("poor", lamports_per_day=15_000),
                        "picky": client_settings("picky", models=["pair"]),
                        "miser": client_settings("miser", record=True, lamports_per_day=100_000),
                        "secret": client_settings("secret", private=True),
                    },
                },
            }
            async with open_gateway_world(world, **changes) as gateway:
                gateway.spare, gateway.spare_url, gateway.network = spare, spare_url, nosana
                yield gateway


def route(provider: str, model: str = MODEL, **more: Any) -> dict[str, Any]:
    return {"provider": provider, "model": model, "timeout_seconds": 10, **more}


def ask(content: str = "What is the capital of Japan?", **more: Any) -> dict[str, Any]:
    return {"model": MODEL, "messages": [{"role": "user", "content": content}], **more}


def answer_to(content: str, words: int = 6) -> str:
    """What the scripted upstream answers to this question alone."""
    return "".join(scripted_words([{"role": "user", "content": content}], words))


async def refusal(call: Awaitable[Any]) -> openai.APIStatusError:
    """The error of a call that must be refused."""
    try:
        await call
    except openai.APIStatusError as error:
        return error
    raise AssertionError("the call was not refused")


async def holds(condition: Callable[[], bool], what: str) -> None:
    """Until it does."""

    async def look() -> bool:
        return condition()

    await until(look, what)
