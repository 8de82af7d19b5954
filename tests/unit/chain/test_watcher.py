"""A request is never forgotten, and nothing older follows something newer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from ledger_wire import CLAIMED, DISCRIMINATOR, FULFILLED, PENDING, PROGRAM, QUEUE, Ledger, request_data
from pubsub_wire import Exchange, running, until
from rpc_wire import Clock, NodeError, http_answer, pool_of
from solders.pubkey import Pubkey

from oracle.chain.rpc.http import NotSent
from oracle.chain.watcher import Known, Layout, Sighting, Vanished, Watcher
from oracle.core.request import RequestKey

SYSTEM = Pubkey.from_string("1" * 32)


class World:
    """A ledger, a record of requests as the daemon keeps one, and a watcher between them."""

    def __init__(
        self, *, exchange: Exchange | None = None, queues: tuple[Pubkey, ...] = (QUEUE,), **options: Any
    ) -> None:
        self.ledger = Ledger()
        self.record: dict[str, Known] = {}
        self.clock = Clock()
        self.pool = pool_of(self.ledger.node, clock=self.clock, patience_seconds=1.0)
        self.pubsub = exchange.pubsub() if exchange else None
        self.watcher = Watcher(
            self.pool.client,
            self.pubsub,
            program=PROGRAM,
            queues=queues,
            layout=Layout(DISCRIMINATOR),
            known=self._known,
            **options,
        )

    async def _known(self) -> dict[str, Known]:
        return dict(self.record)

    def keep(self, address: Pubkey, status: int, created_slot: int, slot: int) -> None:
        self.record[str(address)] = Known(created_slot, status, slot)

    def take_in(self, event: Sighting | Vanished) -> None:
        """As the pipeline does: a row for every request, updated by newer sightings only."""
        if isinstance(event, Vanished):
            del self.record[event.key.address]
            return
        created_slot = int.from_bytes(event.data[104:112], "little")
        row = self.record.get(str(event.address))
        if row is None or row.slot <= event.slot:
            self.keep(event.address, event.data[9], created_slot, event.slot)

    async def scan(self, *, sweep: bool = False) -> list[Sighting | Vanished]:
        events = await self.watcher.scan(sweep=sweep)
        for event in events:
            self.take_in(event)
        return events


async def test_a_scan_sights_what_is_not_on_record_and_reads_it_whole() -> None:
    world, address = World(), Pubkey.new_unique()
    data = request_data(PENDING, 90, tail=b"a body")
    world.ledger.put(address, data, 90)
    assert await world.scan() == [Sighting(address, data, 100, "scan")]
    (config,) = [params[1] for method, params in world.ledger.node.calls if method == "getMultipleAccounts"]
    assert (config["minContextSlot"], "dataSlice" in config) == (100, False)


async def test_what_is_on_record_as_it_stands_is_not_read_again() -> None:
    world = World()
    for status in (PENDING, FULFILLED):
        world.ledger.put(Pubkey.new_unique(), request_data(status, 90), 90)
    assert len(await world.scan(sweep=True)) == 2
    assert await world.scan() == []
    assert await world.scan(sweep=True) == []
    assert world.ledger.node.asked("getMultipleAccounts") == 1


async def test_a_row_that_was_lost_is_found_again_by_the_next_scan() -> None:
    world, address = World(), Pubkey.new_unique()
    world.ledger.put(address, request_data(PENDING, 90), 90)
    await world.scan()
    world.record.clear()
    assert [type(event) for event in await world.scan()] == [Sighting]


async def test_a_request_that_ended_while_nobody_looked_is_read_as_it_ended() -> None:
    world, address = World(), Pubkey.new_unique()
    world.keep(address, PENDING, 90, 91)
    world.ledger.put(address, request_data(FULFILLED, 90), 95)
    (event,) = await world.scan()
    assert isinstance(event, Sighting)
    assert event.data[9] == FULFILLED


async def test_ended_requests_are_read_by_a_sweep_only() -> None:
    world, address = World(), Pubkey.new_unique()
    world.ledger.put(address, request_data(FULFILLED, 90), 95)
    assert await world.scan() == []
    assert len(await world.scan(sweep=True)) == 1


async def test_a_claim_that_passes_to_another_operator_is_a_change() -> None:
    world, address = World(), Pubkey.new_unique()
    world.ledger.put(address, request_data(CLAIMED, 90, operator=b"A" * 32), 95)
    assert len(await world.scan()) == 1
    assert await world.scan() == []
    world.ledger.put(address, request_data(CLAIMED, 90, operator=b"B" * 32), 98)
    assert len(await world.scan()) == 1
    assert await world.scan() == []


async def test_a_claim_on_record_from_an_earlier_run_is_read_once_because_its_holder_may_have_changed() -> None:
    world, address = World(), Pubkey.new_unique()
    world.keep(address, CLAIMED, 90, 95)
    world.ledger.put(address, request_data(CLAIMED, 90, operator=b"B" * 32), 95)
    assert len(await world.scan()) == 1
    assert await world.scan() == []


async def test_a_record_newer_than_the_read_is_left_alone() -> None:
    world, address = World(), Pubkey.new_unique()
    world.ledger.put(address, request_data(PENDING, 90), 90)
    world.keep(address, FULFILLED, 90, 101)
    other = Pubkey.new_unique()
    world.keep(other, PENDING, 101, 101)
    assert await world.scan() == []
    assert world.ledger.node.asked("getMultipleAccounts") == 0


async def test_a_request_claimed_between_the_two_reads_of_a_scan_is_in_one_of_them() -> None:
    world, address = World(), Pubkey.new_unique()
    world.ledger.put(address, request_data(PENDING, 90), 90)
    read = world.ledger._program_accounts

    def claim_after_the_first_read(program: str, config: dict[str, Any]) -> Any:
        answer = read(program, config)
        world.ledger.put(address, request_data(CLAIMED, 90), 101)
        world.ledger.confirmed = 101
        return answer

    world.ledger.node.script["getProgramAccounts"] = claim_after_the_first_read
    (event,) = await world.scan()
    assert isinstance(event, Sighting)
    assert (event.data[9], event.slot) == (CLAIMED, 101)


async def test_the_second_read_of_a_scan_is_never_older_than_the_first() -> None:
    world = World()
    read = world.ledger._program_accounts
    slots = iter([100, 99])

    def older_each_time(program: str, config: dict[str, Any]) -> Any:
        world.ledger.confirmed = next(slots, 99)
        return read(program, config)

    world.ledger.node.script["getProgramAccounts"] = older_each_time
    with pytest.raises(Exception, match="ORC-RPC-007"):
        await world.scan()


async def test_absence_in_a_read_that_is_not_finalized_proves_nothing() -> None:
    world, address = World(), Pubkey.new_unique()
    world.keep(address, PENDING, 90, 95)
    assert await world.scan() == []
    world.ledger.confirmed, world.ledger.finalized = 127, 95
    assert await world.scan() == []
    world.ledger.finalized = 96
    assert await world.scan() == [Vanished(RequestKey(str(address), 90), 96)]


async def test_a_request_that_finalized_still_shows_has_not_vanished() -> None:
    world, address = World(), Pubkey.new_unique()
    world.keep(address, PENDING, 90, 95)
    world.ledger.finalized = 96
    world.ledger.put(address, request_data(PENDING, 90), 90)
    world.ledger.put(address, None, 97)
    assert await world.scan() == []
    assert await world.watcher.prove_absent({RequestKey(str(address), 90): 95}) == {}
    world.ledger.finalized = 97
    assert await world.scan() == [Vanished(RequestKey(str(address), 90), 97)]


@pytest.mark.parametrize(
    ("data", "owner"),
    [(b"", SYSTEM), (request_data(PENDING, 90), SYSTEM), (b"OtherAcc" + bytes(400), PROGRAM), (b"", PROGRAM)],
)
async def test_an_account_that_is_no_request_any_more_has_vanished(data: bytes, owner: Pubkey) -> None:
    world, address = World(), Pubkey.new_unique()
    world.keep(address, PENDING, 90, 60)
    world.ledger.put(address, data, 62, owner)
    assert await world.scan() == [Vanished(RequestKey(str(address), 90), 68)]


async def test_a_second_life_at_an_address_is_another_request_and_the_first_has_vanished() -> None:
    world, address = World(), Pubkey.new_unique()
    world.keep(address, PENDING, 50, 60)
    world.ledger.put(address, request_data(PENDING, 65), 65)
    assert [type(event) for event in await world.watcher.scan(sweep=False)] == [Sighting, Vanished]
    world.ledger.finalized = 64
    assert await world.watcher.prove_absent({RequestKey(str(address), 50): 60}) == {RequestKey(str(address), 50): 64}


async def test_requests_of_other_queues_are_nobody_s_business_here() -> None:
    world = World()
    world.ledger.put(Pubkey.new_unique(), request_data(PENDING, 90, queue=Pubkey.new_unique()), 90)
    assert await world.scan(sweep=True) == []


async def test_every_configured_queue_is_scanned() -> None:
    queues = (Pubkey.new_unique(), Pubkey.new_unique())
    world = World(queues=queues)
    for queue in queues:
        world.ledger.put(Pubkey.new_unique(), request_data(PENDING, 90, queue=queue), 90)
    assert len(await world.scan()) == 2


async def test_more_requests_than_one_call_takes_are_all_sighted() -> None:
    world = World()
    addresses = {Pubkey.new_unique() for _ in range(250)}
    for address in addresses:
        world.ledger.put(address, request_data(PENDING, 90), 90)
    assert {event.address for event in await world.scan() if isinstance(event, Sighting)} == addresses


@asynccontextmanager
async def watching(world: World) -> AsyncIterator[asyncio.Queue[Sighting | Vanished]]:
    events: asyncio.Queue[Sighting | Vanished] = asyncio.Queue()

    async def take() -> None:
        async for event in world.watcher.watch():
            world.take_in(event)
            events.put_nowait(event)

    async with running(take()):
        yield events


async def following(events: asyncio.Queue[Any]) -> Any:
    async with asyncio.timeout(60.0):
        return await events.get()


def pushed(world: World, address: Pubkey, data: bytes, slot: int) -> dict[str, Any]:
    account = world.ledger.account_json(data, PROGRAM, {})
    return {"context": {"slot": slot}, "value": {"pubkey": str(address), "account": account}}


def new_slot(slot: int) -> dict[str, int]:
    return {"slot": slot, "parent": slot - 1, "root": slot - 32}


async def test_a_push_is_a_sighting_before_any_scan_and_an_older_one_never_follows_it() -> None:
    exchange = Exchange()
    world, address = World(exchange=exchange), Pubkey.new_unique()
    assert world.pubsub is not None
    async with running(world.pubsub.run()), watching(world) as events:
        await until(lambda: world.pubsub.connected and world.watcher.stats.scans == 1)
        line = exchange.lines[0]
        line.notify("slot", new_slot(103))
        line.notify("program", pushed(world, address, request_data(CLAIMED, 99), 102))
        line.notify("program", pushed(world, address, request_data(PENDING, 99), 101))
        line.notify("program", pushed(world, address, request_data(FULFILLED, 99), 103))
        first, second = await following(events), await following(events)
        assert (first.slot, first.data[9], first.channel, first.lag_slots) == (102, CLAIMED, "push", 1)
        assert (second.slot, second.data[9]) == (103, FULFILLED)
        stats = world.watcher.stats
        assert (stats.sightings["push"], stats.push_is_live, stats.push_slot) == (2, True, 103)


async def test_a_scan_that_was_overtaken_by_a_push_does_not_undo_it() -> None:
    exchange = Exchange()
    world, address = World(exchange=exchange), Pubkey.new_unique()
    world.ledger.put(address, request_data(PENDING, 90), 90)
    assert world.pubsub is not None
    async with running(world.pubsub.run()), watching(world) as events:
        assert (await following(events)).slot == 100
        await until(lambda: world.pubsub.connected)
        exchange.lines[0].notify("program", pushed(world, address, request_data(FULFILLED, 90), 105))
        assert (await following(events)).data[9] == FULFILLED
        world.record.clear()
        assert await world.watcher.scan(sweep=False) == []


async def test_pushes_of_other_accounts_of_the_program_are_passed_over() -> None:
    exchange = Exchange()
    world, address = World(exchange=exchange), Pubkey.new_unique()
    assert world.pubsub is not None
    async with running(world.pubsub.run()), watching(world) as events:
        await until(lambda: world.pubsub.connected)
        line = exchange.lines[0]
        for data in (b"OtherAcc" + bytes(400), DISCRIMINATOR, request_data(PENDING, 99, queue=Pubkey.new_unique())):
            line.notify("program", pushed(world, Pubkey.new_unique(), data, 101))
        line.notify("program", pushed(world, address, request_data(PENDING, 99), 102))
        assert (await following(events)).address == address


async def test_what_happened_while_the_socket_was_down_is_found_by_the_scan_after_it() -> None:
    exchange = Exchange()
    world, address = World(exchange=exchange, scan_seconds=3600.0), Pubkey.new_unique()
    assert world.pubsub is not None
    async with running(world.pubsub.run()), watching(world) as events:
        await until(lambda: world.pubsub.connected)
        exchange.lines[0].notify("slot", new_slot(100))
        await until(lambda: world.watcher.stats.scans == 2)
        exchange.lines[0].cut()
        world.ledger.put(address, request_data(PENDING, 110), 110)
        world.ledger.confirmed = 111
        await until(lambda: len(exchange.lines) == 2 and world.pubsub.connected)
        exchange.lines[1].notify("slot", new_slot(111))
        sighting = await following(events)
        assert (sighting.address, sighting.slot, sighting.channel) == (address, 111, "scan")


async def test_the_scan_that_closes_a_gap_is_not_older_than_the_subscription() -> None:
    exchange = Exchange()
    world, address = World(exchange=exchange, scan_seconds=3600.0), Pubkey.new_unique()
    assert world.pubsub is not None

    async def sleep(seconds: float) -> None:
        world.clock.now += seconds
        world.ledger.confirmed += 1
        await asyncio.sleep(0)

    world.pool._sleep = sleep
    world.ledger.put(address, request_data(PENDING, 102), 102)
    async with running(world.pubsub.run()), watching(world) as events:
        await until(lambda: world.pubsub.connected and world.watcher.stats.scans == 1)
        exchange.lines[0].notify("slot", new_slot(103))
        sighting = await following(events)
        assert sighting.slot >= 103


async def test_a_slot_that_a_websocket_invents_does_not_stop_the_scans() -> None:
    exchange = Exchange()
    world, address = World(exchange=exchange, scan_seconds=3600.0), Pubkey.new_unique()
    assert world.pubsub is not None
    async with running(world.pubsub.run()), watching(world) as events:
        await until(lambda: world.pubsub.connected and world.watcher.stats.scans == 1)
        world.ledger.put(address, request_data(PENDING, 99), 99)
        exchange.lines[0].notify("slot", new_slot(10**15))
        assert (await following(events)).address == address


async def test_a_scan_that_fails_is_tried_again_until_it_succeeds() -> None:
    world, address = World(scan_seconds=0.01), Pubkey.new_unique()
    world.ledger.put(address, request_data(PENDING, 90), 90)
    read = world.ledger.node.script["getProgramAccounts"]
    troubles = iter([NotSent("refused"), http_answer(200, text="<html>"), NodeError(-32602, "no")] * 3)

    def troubled(*params: Any) -> Any:
        return next(troubles, None) or read(*params)

    world.ledger.node.script["getProgramAccounts"] = troubled
    async with watching(world) as events:
        assert (await following(events)).address == address
        assert world.watcher.stats.scan_failures >= 1


async def test_scans_go_on_by_the_timer_with_a_sweep_now_and_then() -> None:
    world = World(scan_seconds=0.001, sweep_every=3)
    async with watching(world):
        await until(lambda: world.watcher.stats.scans >= 5)
    filters = [
        len(params[1]["filters"]) for method, params in world.ledger.node.calls if method == "getProgramAccounts"
    ]
    assert filters[:7] == [2, 3, 3, 3, 3, 2, 3]


async def test_what_the_record_raises_is_raised() -> None:
    world = World()

    async def broken() -> dict[str, Known]:
        raise RuntimeError("the database is gone")

    world.watcher._known = broken
    with pytest.raises(RuntimeError, match="the database is gone"):
        async for _ in world.watcher.watch():
            pass


async def test_a_request_that_only_a_scan_found_while_pushes_were_live_is_counted() -> None:
    exchange = Exchange()
    world = World(exchange=exchange, scan_seconds=3600.0)
    assert world.pubsub is not None
    async with running(world.pubsub.run()), watching(world) as events:
        await until(lambda: world.pubsub.connected and world.watcher.stats.scans == 1)
        exchange.lines[0].notify("slot", new_slot(100))
        await until(lambda: world.watcher.stats.scans == 2)
        world.ledger.put(Pubkey.new_unique(), request_data(PENDING, 101), 101)
        world.ledger.put(Pubkey.new_unique(), request_data(PENDING, 130), 130)
        world.ledger.confirmed = 140
        for event in await world.watcher.scan(sweep=False):
            events.put_nowait(event)
        assert {(await following(events)).lag_slots for _ in range(2)} == {39, 10}
        assert world.watcher.stats.missed_pushes == 1


async def test_how_old_the_newest_news_of_each_channel_was_is_told() -> None:
    exchange = Exchange()
    world = World(exchange=exchange, scan_seconds=3600.0)
    assert world.pubsub is not None
    async with running(world.pubsub.run()), watching(world) as events:
        await until(lambda: world.pubsub.connected and world.watcher.stats.scans == 1)
        exchange.lines[0].notify("slot", new_slot(103))
        await until(lambda: world.watcher.stats.push_slot == 103)
        exchange.lines[0].notify("program", pushed(world, Pubkey.new_unique(), request_data(PENDING, 98), 98))
        await following(events)
        world.ledger.put(Pubkey.new_unique(), request_data(PENDING, 130), 130)
        world.ledger.confirmed = 140
        await world.watcher.scan(sweep=False)
        assert world.watcher.stats.lag_seconds == {"push": pytest.approx(5 * 0.4), "scan": pytest.approx(10 * 0.4)}


async def test_what_is_remembered_of_closed_requests_is_forgotten() -> None:
    world, address = World(), Pubkey.new_unique()
    world.ledger.put(address, request_data(PENDING, 50), 50)
    await world.scan()
    assert world.watcher._sighted
    world.ledger.put(address, None, 105)
    world.ledger.confirmed, world.ledger.finalized = 140, 106
    assert [type(event) for event in await world.scan()] == [Vanished]
    await world.scan(sweep=True)
    assert not world.watcher._sighted
