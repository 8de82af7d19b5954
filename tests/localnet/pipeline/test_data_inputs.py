"""Data as input: fetched once, told in the receipt, and where it costs money, paid for by the fee and never twice."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import orjson
import pytest
from pipeline_world import World
from solders.account import Account
from solders.pubkey import Pubkey
from solders.token import ID as TOKEN_PROGRAM
from solders.token.state import Mint

from oracle.chain.program.layout import QueueTerms
from oracle.client.verify import verify
from oracle.core.lifecycle import State
from oracle.core.policy import BUDGET_EXHAUSTED
from oracle.core.request import Data, Flags, Params, Reason, Status
from oracle.localnet.emulators.beemaps import Beemaps
from oracle.localnet.emulators.helium import HOTSPOTS, Helium
from oracle.localnet.emulators.server import Running, serve
from oracle.localnet.network import LOCAL_TERMS
from oracle.pipeline.daemon import Daemon
from oracle.providers.sources.helium import MINTS
from oracle.store import attempts, journal, ledger
from oracle.store.rows import RequestRow

pytestmark = pytest.mark.localnet

SIGNS = "data://beemaps/features?at=11.575,48.137&radius=100&class=speed-sign&fields=class,properties"
QUESTION = "&ask=What%20is%20the%20speed%20limit?"
DATA = b'{"features":[{"class":"speed-sign","properties":{"speedLimit":30,"unit":"kmh"}}]}'
HOTSPOT = f"data://helium/hotspot/{HOTSPOTS[0]['key_to_asset_key']}?fields=name&ask=What%20is%20its%20name?"
COST = 2_000_000  # 0.30 USD at 150 USD for one SOL
FEE = 5_000_000


def asking(query: str) -> Data:
    return Data(query, hashlib.sha256(query.encode()).digest())


@dataclass
class Networks:
    """Both emulators, and the sections of a configuration that names them."""

    beemaps: Beemaps
    beemaps_url: Running
    helium: Helium
    helium_url: Running
    options: dict[str, Any] = field(default_factory=dict)

    def settings(self, **changes: Any) -> dict[str, Any]:
        beemaps = {"kind": "beemaps", "base_url": self.beemaps_url.url, "api_key": "bee_localnet", **self.options}
        return {
            "sources": {
                "beemaps": {**beemaps, "requests_per_second": 1000},
                "helium": {"kind": "helium", "base_url": self.helium_url.url, **changes.pop("helium", {})},
            },
            "rates": {"sol_usd": 150},
            **changes,
        }

    @property
    def fetches(self) -> int:
        return sum(call.path == "/map-data" for call in self.beemaps_url.calls)


@pytest.fixture
async def networks() -> AsyncIterator[Networks]:
    beemaps, helium = Beemaps(), Helium()
    async with serve(beemaps) as beemaps_url, serve(helium) as helium_url:
        yield Networks(beemaps, beemaps_url, helium, helium_url)


async def booked(daemon: Daemon, row: RequestRow) -> list[int]:
    """What was booked for data, in lamports."""
    entries = await daemon.context.store.read(lambda c: ledger.of(c, row.id))
    return [entry.lamports for entry in entries if entry.note == "data"]


async def test_data_is_asked_about_and_the_receipt_says_what_it_was_and_whence(
    world: World, networks: Networks
) -> None:
    async with world.daemon(**networks.settings()) as daemon:
        submitted = await world.submit(asking(SIGNS + QUESTION), fee_lamports=FEE)
        ended = await world.ended(submitted)
        row = await world.reaches(daemon, submitted, State.SETTLED)
        result = await verify(world.rpc, world.program_id, submitted.address)
        assert await booked(daemon, row) == [-COST]
    assert ended.header.status is Status.FULFILLED
    assert result.ok, [check for check in result.checks if not check.ok]
    assert result.receipt["input_hash"] == hashlib.sha256(DATA).hexdigest()
    assert result.receipt["input_origin"] == f"{networks.beemaps_url.url}/map-data"
    (asked,) = world.model.requests
    assert asked["messages"] == [{"role": "user", "content": f"{DATA.decode()}\n\nWhat is the speed limit?"}]
    assert networks.fetches == 1


async def test_nothing_is_fetched_for_a_fee_that_does_not_cover_it(world: World, networks: Networks) -> None:
    async with world.daemon(**networks.settings()) as daemon:
        submitted = await world.submit(asking(SIGNS), fee_lamports=COST)
        row = await world.reaches(daemon, submitted, State.DECLINED)
    assert (row.error_code, networks.fetches) == ("ORC-POLICY-004", 0)


UNANSWERABLE = {
    "data://beemaps": "ORC-DATA-001",
    "data://beemaps/features?at=11.5,48.1&radius=5&ask=a+b": "ORC-DATA-001",
    "data://beemaps/devices": "ORC-DATA-002",
    "data://beemaps/features?at=11.5,48.1&radius=9000": "ORC-DATA-003",
    "data://weather/tokyo": "ORC-PIPE-011",
}


async def test_a_query_that_nobody_can_answer_is_declined(world: World, networks: Networks) -> None:
    async with world.daemon(**networks.settings()) as daemon:
        submitted = [await world.submit(asking(query), fee_lamports=FEE) for query in UNANSWERABLE]
        rows = [await world.reaches(daemon, one, State.DECLINED) for one in submitted]
    assert [row.error_code for row in rows] == list(UNANSWERABLE.values())
    assert networks.fetches == 0


async def test_data_is_no_list_of_chat_messages(world: World, networks: Networks) -> None:
    async with world.daemon(**networks.settings()) as daemon:
        submitted = await world.submit(asking(SIGNS), fee_lamports=FEE, params=Params(64, flags=Flags.CHAT))
        row = await world.reaches(daemon, submitted, State.DECLINED)
    assert (row.error_code, networks.fetches) == ("ORC-INPUT-004", 0)


async def test_a_key_that_the_network_refuses_frees_the_fee_at_once(world: World, networks: Networks) -> None:
    networks.options["api_key"] = "wrong"
    async with world.daemon(**networks.settings()) as daemon:
        submitted = await world.submit(asking(SIGNS), fee_lamports=FEE)
        row = await world.reaches(daemon, submitted, State.REJECTED)
        assert await booked(daemon, row) == [-COST, COST]
    assert (row.reject_reason, networks.fetches) == (Reason.INPUT_UNAVAILABLE, 1)
    assert "ORC-PROVIDER-007" in (row.error_detail or "")
    assert "wrong" not in (row.error_detail or "")


async def test_an_answer_that_was_lost_is_bought_once_more(world: World, networks: Networks) -> None:
    networks.beemaps.faults.add("lose_answer")
    async with world.daemon(**networks.settings()) as daemon:
        submitted = await world.submit(asking(SIGNS), fee_lamports=FEE)
        row = await world.reaches(daemon, submitted, State.SETTLED)
        assert await booked(daemon, row) == [-COST, -COST]
    assert (networks.fetches, networks.beemaps.books()["spent"]["bee_localnet"]) == (2, 6)


async def test_answers_that_are_always_lost_are_not_bought_for_ever(world: World, networks: Networks) -> None:
    networks.beemaps.faults.add("lose_answer", count=None)
    async with world.daemon(**networks.settings()) as daemon:
        submitted = await world.submit(asking(SIGNS), fee_lamports=FEE)
        row = await world.reaches(daemon, submitted, State.REJECTED)
        bought = await daemon.context.store.read(lambda c: attempts.of(c, row.id))
    assert (row.reject_reason, networks.fetches, bought) == (Reason.PURCHASE_UNCONFIRMED, 2, [])


async def test_a_network_that_is_down_costs_nothing_and_is_asked_again(world: World, networks: Networks) -> None:
    networks.beemaps.faults.add("error", count=2)
    async with world.daemon(**networks.settings()) as daemon:
        submitted = await world.submit(asking(SIGNS), fee_lamports=FEE)
        row = await world.reaches(daemon, submitted, State.SETTLED)
        assert sum(await booked(daemon, row)) == -COST
    assert networks.fetches == 3


async def test_data_counts_in_the_budget_of_the_day(world: World, networks: Networks) -> None:
    policy = {"daily_budget_lamports": 3 * COST // 2, "max_retries": 0}
    async with world.daemon(**networks.settings(policy=policy)) as daemon:
        first = await world.submit(asking(SIGNS), fee_lamports=FEE, nonce=1)
        await world.reaches(daemon, first, State.SETTLED)
        second = await world.submit(asking(SIGNS), fee_lamports=FEE, nonce=2)
        row = await world.waits(daemon, second, BUDGET_EXHAUSTED)
        assert await booked(daemon, row) == []
    assert networks.fetches == 1


async def test_data_that_is_there_is_not_fetched_again_after_a_restart(world: World, networks: Networks) -> None:
    world.model.faults.add("hang", on="POST /chat/completions", count=None)
    async with world.daemon(**networks.settings()) as daemon:
        submitted = await world.submit(asking(SIGNS + QUESTION), fee_lamports=FEE)
        await world.reaches(daemon, submitted, State.RUNNING)
    world.model.faults.clear()
    # By now the network would say something else.
    networks.beemaps.faults.add("empty", count=None)
    async with world.daemon(**networks.settings()) as daemon:
        await world.reaches(daemon, submitted, State.SETTLED)
        result = await verify(world.rpc, world.program_id, submitted.address)
    assert result.receipt["input_hash"] == hashlib.sha256(DATA).hexdigest()
    assert networks.fetches == 1


async def test_a_network_that_hangs_holds_up_no_request_of_another_kind(world: World, networks: Networks) -> None:
    networks.helium.faults.add("hang", count=None)
    policy = {**world.settings["policy"], "max_retries": 100}
    few = {**world.settings["daemon"], "concurrency": 4, "drain_seconds": 0.1}
    async with world.daemon(**networks.settings(policy=policy, daemon=few, helium={"timeout_seconds": 45})) as daemon:
        stuck = [await world.submit(asking(HOTSPOT)) for _ in range(6)]
        good = await world.submit("And this one goes on.")
        await world.reaches(daemon, good, State.SETTLED)
        assert [(await world.row(daemon, one)).state for one in stuck] == [State.SEEN] * 6  # type: ignore[union-attr]
        assert daemon.context.fetching["helium"] == 1


async def test_free_data_needs_no_rates_and_no_fee_of_its_own(world: World, networks: Networks) -> None:
    networks.options["usd_per_fetch"] = 0
    async with world.daemon(**networks.settings(rates={})) as daemon:
        submitted = await world.submit(asking(HOTSPOT))
        row = await world.reaches(daemon, submitted, State.SETTLED)
        result = await verify(world.rpc, world.program_id, submitted.address)
        assert await booked(daemon, row) == []
    assert result.ok
    assert result.receipt["input_origin"].endswith(f"/v2/hotspot/{HOTSPOTS[0]['key_to_asset_key']}")
    asked = world.model.requests[0]["messages"][0]["content"]
    assert asked == '{"name":"rapid-teal-otter"}\n\nWhat is its name?'


async def test_a_token_supply_is_read_from_the_chain(world: World, networks: Networks) -> None:
    mint = Mint(mint_authority=None, supply=22_300_000_000_000_000, decimals=8)
    account = Account(1_461_600, bytes(mint), TOKEN_PROGRAM)
    await world.node.call(lambda chain: chain.set_account(Pubkey.from_string(MINTS["HNT"]), account))
    async with world.daemon(**networks.settings(helium={"rpc_url": world.node.rpc_url})) as daemon:
        supply = await world.submit(asking("data://helium/supply/HNT"))
        missing = await world.submit(asking("data://helium/supply/IOT"))
        await world.reaches(daemon, supply, State.SETTLED)
        row = await world.reaches(daemon, missing, State.DECLINED)
    assert row.error_code == "ORC-DATA-004"
    shown = orjson.loads(world.model.requests[0]["messages"][0]["content"])
    assert shown == {"token": "HNT", "mint": MINTS["HNT"], "supply": "22300000000000000", "decimals": 8}


class TestWithClaims:
    @pytest.fixture
    def terms(self) -> QueueTerms:
        others = {name: getattr(LOCAL_TERMS, name) for name in QueueTerms.__slots__ if name != "claim_required"}
        return QueueTerms(**others, claim_required=True)

    async def test_data_is_bought_after_the_claim(self, world: World, networks: Networks) -> None:
        async with world.daemon(**networks.settings()) as daemon:
            submitted = await world.submit(asking(SIGNS), fee_lamports=FEE)
            row = await world.reaches(daemon, submitted, State.SETTLED)
            lines = await daemon.context.store.read(lambda c: journal.of(c, row.id))
            (entry,) = [one for one in await daemon.context.store.read(lambda c: ledger.of(c, row.id)) if one.note]
        claimed = next(line for line in lines if line.new_state == State.CLAIMED)
        running = next(line for line in lines if line.new_state == State.RUNNING)
        assert claimed.at_ms <= entry.at_ms <= running.at_ms
        assert networks.fetches == 1
