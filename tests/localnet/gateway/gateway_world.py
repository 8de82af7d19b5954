"""A gateway in front of scripted upstreams, and OpenAI clients of it."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import openai
from openai import AsyncOpenAI
from pipeline_world import World
from solders.keypair import Keypair

from oracle.api.gateway.server import open_gateway
from oracle.localnet import network
from oracle.localnet.emulators.openai import ScriptedOpenAI, scripted_words
from oracle.pipeline.context import Context

ALICE = "alice-key-0123456789"
BOB = "bob-key-0123456789abc"
MODEL = "tiny"


def sha256(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


KEYS: Mapping[str, dict[str, Any]] = {
    "alice": {"sha256": sha256(ALICE), "concurrent": 10_000, "requests_per_minute": 100_000},
    "bob": {"sha256": sha256(BOB)},
}


@dataclass
class GatewayWorld:
    """A running gateway. `model` is the upstream of `tiny`; its books say what was bought."""

    context: Context
    url: str
    world: World
    payer: Keypair

    @property
    def model(self) -> ScriptedOpenAI:
        return self.world.model

    def client(self, key: str = ALICE, **options: Any) -> AsyncOpenAI:
        return AsyncOpenAI(base_url=self.url, api_key=key, **({"max_retries": 0} | options))


@asynccontextmanager
async def open_gateway_world(world: World, **changes: Any) -> AsyncIterator[GatewayWorld]:
    """A daemon with its gateway until the block ends. `changes` are laid over sections of the configuration."""
    payer = await wallet(world)
    gateway = {"port": 0, "keypair": "gateway.json", "keys": dict(KEYS), **changes.pop("gateway", {})}
    async with world.daemon(gateway=gateway, **changes) as daemon, open_gateway(daemon.context) as url:
        yield GatewayWorld(daemon.context, url, world, payer)


async def wallet(world: World) -> Keypair:
    """The gateway's own key, with money."""
    path: Path = world.directory / "gateway.json"
    if not path.exists():
        await network.fund(world.node, network.wallet(path).pubkey())
    return network.wallet(path)


def ask(content: str = "What is the capital of Japan?", **more: Any) -> dict[str, Any]:
    return {"model": MODEL, "messages": [{"role": "user", "content": content}], **more}


def answer_to(content: str, words: int = 6) -> str:
    """What the scripted upstream answers to this question alone."""
    return "".join(scripted_words([{"role": "user", "content": content}], words))


async def refusal(call: Any) -> openai.APIStatusError:
    """The error of a call that must be refused."""
    try:
        await call
    except openai.APIStatusError as error:
        return error
    raise AssertionError("the call was not refused")
