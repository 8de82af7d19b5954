"""Inputs behind a URI: the content that was hashed is what is asked, and what is not is declined at no cost."""

from __future__ import annotations

import asyncio
import functools
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from pipeline_world import World, until
from solders.keypair import Keypair
from test_fetch_server import Host, listening, ok, status
from throwaway_ca import ThrowawayCA

from oracle.client import requests, verify
from oracle.core.compute import Dataset
from oracle.core.dataquery import DataQuery
from oracle.core.lifecycle import State
from oracle.core.request import Data, Status, Uri
from oracle.localnet import network
from oracle.pipeline import inputs
from oracle.pipeline.daemon import assembled
from oracle.store import attempts
from oracle.store import requests as rows

pytestmark = pytest.mark.localnet

PROMPT = b"What is the capital of Japan?"


@pytest.fixture
async def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Host]:
    """An https host that the daemon takes for one of the internet."""
    authority = ThrowawayCA(tmp_path)
    async with listening(authority.server("input.example")) as host:

        async def names(_: str, __: int) -> list[str]:
            return ["127.0.0.1"]

        reaching = functools.partial(
            inputs.fetch,
            resolve=names,
            is_allowed=lambda address: address == "127.0.0.1",
            ports=(host.port,),
            ssl_context=authority.trusting(),
        )
        monkeypatch.setattr(inputs, "fetch", reaching)
        yield host


async def test_what_was_hashed_is_what_is_asked_and_it_is_fetched_once(world: World, host: Host) -> None:
    host.answers["/prompt"] = ok(PROMPT)
    uri = f"{host.uri}/prompt"
    async with world.daemon() as daemon:
        submitted = await world.submit(Uri(uri, hashlib.sha256(PROMPT).digest()))
        await world.reaches(daemon, submitted, State.SETTLED)
        result = await verify.verify(world.rpc, world.program_id, submitted.address)
    assert result.ok
    assert result.receipt["input_hash"] == hashlib.sha256(PROMPT).hexdigest()
    assert result.receipt["input_origin"] == uri
    assert world.model.requests[0]["messages"][0]["content"] == PROMPT.decode()
    assert host.paths == ["/prompt"]


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (ok(b"something else"), "ORC-INPUT-005"),
        (ok(b"a" * 300_000), "ORC-PIPE-010"),
        (status(404), "ORC-PIPE-013"),
        (status(302, "Location: https://10.0.0.1/"), "ORC-PIPE-009"),
    ],
)
async def test_what_is_not_what_was_hashed_is_declined_and_nothing_is_bought(
    world: World, host: Host, answer: bytes, code: str
) -> None:
    host.answers["/prompt"] = answer
    async with world.daemon() as daemon:
        submitted = await world.submit(Uri(f"{host.uri}/prompt", hashlib.sha256(PROMPT).digest()))
        good = await world.submit("And this one goes on.")
        row = await world.reaches(daemon, submitted, State.DECLINED)
        assert (await world.ended(good)).header.status is Status.FULFILLED
        bought = await daemon.context.store.read(lambda c: attempts.of(c, row.id))
    assert (row.error_code, bought) == (code, [])


async def test_a_host_that_is_busy_is_asked_again(world: World, host: Host) -> None:
    host.answers["/prompt"] = status(503)
    async with world.daemon() as daemon:
        submitted = await world.submit(Uri(f"{host.uri}/prompt", hashlib.sha256(PROMPT).digest()))

        async def asked() -> bool:
            return bool(host.paths)

        await until(asked, "the first question")
        host.answers["/prompt"] = ok(PROMPT)
        await world.reaches(daemon, submitted, State.SETTLED)


class Weather:
    """A data network that says something else each time it is asked."""

    name = "weather"
    max_bytes = 1000

    def __init__(self) -> None:
        self.asked = 0

    def cost_lamports(self, query: DataQuery) -> int:
        return 0

    async def close(self) -> None:
        return None

    async def probe(self) -> str:
        return "rains"

    async def fetch(self, query: DataQuery) -> Dataset:
        self.asked += 1
        content = f"{query}: rain, reading {self.asked}".encode()
        return Dataset(content, hashlib.sha256(content).digest(), "https://weather.example/")


QUERY = "data://weather/tokyo"


async def test_data_is_fetched_once_a_request(world: World) -> None:
    question = Data(QUERY, hashlib.sha256(QUERY.encode()).digest())
    first, second = await world.submit(question, nonce=1), await world.submit(question, nonce=2)
    async with assembled(world.config()) as daemon:
        daemon.context.sources = {"weather": Weather()}
        one, other = [await requests.read(world.rpc, submitted.address) for submitted in (first, second)]
        content, origin = await inputs.load(daemon.context, one)
        assert await inputs.load(daemon.context, one) == (content, origin)
        assert await inputs.load(daemon.context, other) != (content, origin)
    assert content.endswith(b"reading 1")


async def test_nobody_can_put_words_of_his_own_in_the_place_of_data(world: World, host: Host) -> None:
    """Fetched inputs are kept by hash, data by request: no content that a stranger chooses may reach the latter."""
    asked = await world.submit(Data(QUERY, hashlib.sha256(QUERY.encode()).digest()))
    victim = await requests.read(world.rpc, asked.address)
    words = f"{victim.key}/{QUERY}".encode()
    host.answers["/words"] = ok(words)
    planted = await world.submit(Uri(f"{host.uri}/words", hashlib.sha256(words).digest()))
    async with assembled(world.config()) as daemon:
        daemon.context.sources = {"weather": Weather()}
        await inputs.load(daemon.context, await requests.read(world.rpc, planted.address))
        content, _ = await inputs.load(daemon.context, victim)
    assert content.startswith(b"data://weather/tokyo: rain")


async def test_hosts_that_are_slow_on_purpose_delay_nobody_else(world: World, host: Host) -> None:
    """Law 6: more of them than the daemon has hands, and each for as long as it may."""

    async def silence(_: asyncio.StreamWriter) -> None:
        await asyncio.Event().wait()

    host.answers["/slow"], host.answers["/prompt"] = silence, ok(PROMPT)
    stranger = Keypair()
    await network.fund(world.node, stranger.pubkey())
    for nonce in range(12):
        slow = Uri(f"{host.uri}/slow", hashlib.sha256(b"%d" % nonce).digest())
        await world.submit(slow, requester=stranger, nonce=nonce, ttl_slots=4_000)
    changes = {"daemon": {"concurrency": 8, "drain_seconds": 0.1}, "input": {"timeout_seconds": 60.0}}
    async with world.daemon(**changes) as daemon:

        async def slow_begun() -> bool:
            return "/slow" in host.paths

        await until(slow_begun, "the first slow fetch")
        inline = await world.submit("And this one goes on.", ttl_slots=8_000)
        fetched = await world.submit(Uri(f"{host.uri}/prompt", hashlib.sha256(PROMPT).digest()), ttl_slots=8_000)
        await world.reaches(daemon, inline, State.SETTLED)
        await world.reaches(daemon, fetched, State.SETTLED)
        # One of the stranger's is being fetched, one in eight; none of the others has failed, or counts as failed.
        assert host.paths.count("/slow") == 1
        waiting = await daemon.context.store.read(lambda c: rows.listing(c, states=[State.SEEN]))
        assert len(waiting) == 12
        assert {row.retries for row in waiting} == {0}
        assert {row.error_code for row in waiting} == {None, "ORC-PIPE-014"}
