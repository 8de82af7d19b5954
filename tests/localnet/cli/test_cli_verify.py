"""`oracle verify` and `oracle close`, from the requester's side."""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from command import oracle, wallet_file
from pipeline_world import World
from solders.keypair import Keypair

from oracle.client.requests import Submitted
from oracle.core.lifecycle import State

pytestmark = pytest.mark.localnet


@dataclass(frozen=True)
class Live:
    world: World
    done: Submitted

    @property
    def on(self) -> tuple[str, str]:
        return ("-u", self.world.node.rpc_url)


@pytest.fixture
async def live(world: World) -> AsyncIterator[Live]:
    """A daemon that has answered one request, and still serves."""
    async with world.daemon() as daemon:
        done = await world.submit()
        await world.reaches(daemon, done, State.SETTLED)
        yield Live(world, done)


async def test_a_good_answer_is_verified_in_words_and_in_json(live: Live, tmp_path: Path) -> None:
    written = tmp_path / "answer.txt"
    ran = await oracle("verify", *live.on, live.done.address, "-o", written)
    assert ran.status == 0, ran.out
    lines = ran.out.splitlines()
    assert lines[-1] == "verified"
    assert {line.split()[0] for line in lines[:-2]} == {"yes"}
    as_json = await oracle("verify", *live.on, live.done.address, "--json")
    document = as_json.document
    assert document["verified"] is True
    assert document["output"].encode() == written.read_bytes()
    assert hashlib.sha256(written.read_bytes()).hexdigest() == document["receipt"]["output_hash"]
    assert all(check["ok"] for check in document["checks"])
    final = await oracle("verify", *live.on, live.done.address, "--finalized", "--json")
    assert final.status in (0, 1)


async def test_what_cannot_be_verified_is_a_no_and_writes_nothing(live: Live, tmp_path: Path) -> None:
    written = tmp_path / "answer.txt"
    elsewhere = await oracle("verify", *live.on, live.done.address, "--uri", "http://127.0.0.1:9", "-o", written)
    assert elsewhere.status == 1
    assert elsewhere.out.splitlines()[-1] == "NOT verified"
    assert "NO   output and receipt are served" in elsewhere.out
    assert not written.exists()
    as_json = await oracle("verify", *live.on, live.done.address, "--uri", "http://127.0.0.1:9", "--json")
    assert (as_json.status, as_json.document["verified"], as_json.document["output"]) == (1, False, None)


async def test_what_is_no_request_is_told(live: Live) -> None:
    unknown = await oracle("verify", *live.on, Keypair().pubkey())
    assert (unknown.status, unknown.out, unknown.refusal) == (1, "", "ORC-CLIENT-001")
    other = await oracle("verify", *live.on, live.world.queue, "--json")
    assert other.status == 1
    assert json.loads(other.err)["code"] == "ORC-CHAIN-101"
    assert (await oracle("verify", *live.on, "nonsense")).status == 2
    nowhere = await oracle("verify", *live.on, live.done.address, "-o", "/no/such/directory/answer")
    assert (nowhere.status, nowhere.refusal) == (1, "ORC-CLI-004")


async def test_an_ended_request_gives_back_its_rent_to_whoever_paid_it(live: Live, wallet: str) -> None:
    world = live.world
    held = (await world.rpc.get_balance(live.done.address)).value
    stranger = Keypair()
    await world.node.call(lambda chain: chain.fund(stranger.pubkey(), 10_000_000_000))
    thief = wallet_file(world.directory / "thief.json", stranger)
    stolen = await oracle("close", *live.on, "-k", thief, live.done.address)
    assert (stolen.status, stolen.refusal) == (1, "ORC-CLIENT-002")
    before = (await world.rpc.get_balance(world.requester.pubkey())).value
    closed = await oracle("close", *live.on, "-k", wallet, live.done.address, "--json")
    assert closed.status == 0, closed.err
    assert (closed.document["status"], closed.document["returned"]) == ("fulfilled", held)
    assert (await world.rpc.get_balance(world.requester.pubkey())).value == before + held - 5_000
    gone = await oracle("close", *live.on, "-k", wallet, live.done.address)
    assert (gone.status, gone.refusal) == (1, "ORC-CLIENT-001")
    # What the program logged remains.
    assert (await oracle("verify", *live.on, live.done.address)).status == 0


async def test_a_request_that_may_yet_be_answered_is_not_closed_and_an_overdue_one_is_expired(
    world: World, wallet: str
) -> None:
    at = ("-u", world.node.rpc_url, "-k", wallet)
    submitted = await world.submit(ttl_slots=2_000)
    early = await oracle("close", *at, submitted.address)
    assert (early.status, early.refusal) == (1, "ORC-CLI-005")
    await world.node.advance(2_050)
    late = await oracle("close", *at, submitted.address, "--json")
    assert late.status == 0, late.err
    assert late.document["status"] == "expired"
    assert late.document["returned"] > 50_000
