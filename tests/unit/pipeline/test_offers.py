"""What a settlement is signed with: the compute limit, the price, and the blockhash."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from settlement_world import ADDRESSES, CONFIG, OURS, Memory, World
from simulated_rpc import UNITS
from solders.pubkey import Pubkey
from solders.transaction import VersionedTransaction
from test_settlement_faults import SlowSigner, computed

from oracle.chain.rpc.types import PriorityFee
from oracle.core.packing import MAX_COMPUTE_UNITS
from oracle.core.settlement import compute_unit_limit

SETTINGS = CONFIG.settlement


class Offers:
    """The recent fees that an endpoint tells, what it was asked, and the transactions that went out."""

    def __init__(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        self.world = world
        self.recent: list[int] = [0]
        self.asked: list[list[Pubkey]] = []
        self.seen_slots: list[int | None] = []
        self.sent: list[VersionedTransaction] = []
        send, simulate = world.rpc.send_transaction, world.rpc.simulate_transaction

        async def fees(addresses: Sequence[Pubkey] = ()) -> list[PriorityFee]:
            self.asked.append(list(addresses))
            return [PriorityFee(1, price) for price in self.recent]

        async def sending(wire: bytes, **options: Any) -> Any:
            self.sent.append(VersionedTransaction.from_bytes(wire))
            return await send(wire, **options)

        async def simulating(wire: bytes, **options: Any) -> Any:
            self.seen_slots.append(options.get("min_context_slot"))
            return await simulate(wire, **options)

        monkeypatch.setattr(world.rpc, "get_recent_prioritization_fees", fees)
        monkeypatch.setattr(world.rpc, "send_transaction", sending)
        monkeypatch.setattr(world.rpc, "simulate_transaction", simulating)

    async def offered(self) -> tuple[int, int]:
        """The compute limit, and the price of a unit in micro-lamports, of the pack that goes out now."""
        await self.world.run(self.world.send)
        limit, price, *_ = (instruction.data for instruction in self.sent[-1].message.instructions)
        return int.from_bytes(limit[1:], "little"), int.from_bytes(price[1:], "little")


async def offers(database: Memory, monkeypatch: pytest.MonkeyPatch, count: int = 1) -> Offers:
    return Offers(await computed(database, count), monkeypatch)


async def test_the_compute_limit_is_what_the_simulation_used_with_a_margin(
    database: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit, _ = await (await offers(database, monkeypatch, 3)).offered()
    assert limit == compute_unit_limit(3 * UNITS, margin=SETTINGS.compute_margin) < MAX_COMPUTE_UNITS


async def test_the_price_is_that_of_what_lately_wrote_the_accounts_that_are_written(
    database: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = await offers(database, monkeypatch, 2)
    told.recent = [7_000] * 20
    assert (await told.offered())[1] == 7_000
    assert [set(asked) for asked in told.asked] == [{OURS, *ADDRESSES[:2]}]


async def test_the_price_has_a_cap(database: Memory, monkeypatch: pytest.MonkeyPatch) -> None:
    told = await offers(database, monkeypatch)
    told.recent = [10**12] * 20
    assert (await told.offered())[1] == SETTINGS.max_priority_micro_lamports


async def test_prices_are_asked_for_again_after_ten_seconds(database: Memory, monkeypatch: pytest.MonkeyPatch) -> None:
    told = await offers(database, monkeypatch)
    world = told.world
    await told.offered()
    for slots, questions in ((10, 1), (20, 2)):
        world.submit(questions)
        world.advance(slots)
        for loop in (world.watch, world.work, world.prepare):
            await world.run(loop)
        await told.offered()
        assert len(told.asked) == questions


async def test_the_blockhash_is_read_once_the_signer_is_ready(
    database: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = await offers(database, monkeypatch)
    world = told.world

    async def ready() -> None:
        world.advance(50)

    world.context.signer = SlowSigner(world.context.signer, ready)  # type: ignore[assignment]
    await told.offered()
    ages = [block.blockhash for block in reversed(world.chain.blocks)].index(told.sent[0].message.recent_blockhash)
    assert ages < 50


async def test_a_simulation_is_as_of_the_slot_at_which_each_request_was_seen(
    database: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = await offers(database, monkeypatch, 2)
    await told.offered()
    assert told.seen_slots == [max(row.chain_slot for row in await told.world.rows())]
