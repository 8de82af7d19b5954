"""The watcher against the embedded chain and the real program, over connections that break in the worst ways."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from cable import Cable, cable
from solders.keypair import Keypair
from solders.pubkey import Pubkey

from oracle.chain.program import idl, instructions
from oracle.chain.program.layout import REQUEST_DISCRIMINATOR, decode_request
from oracle.chain.rpc.client import Client
from oracle.chain.rpc.pool import connect
from oracle.chain.watcher import Known, Layout, Sighting, Vanished, Watcher
from oracle.chain.ws import PubSub
from oracle.client import requests
from oracle.client.transact import transact
from oracle.core.request import Body, Inline, Params, RequestKey, Status
from oracle.localnet import network
from oracle.localnet.server import Node

pytestmark = pytest.mark.localnet

PROGRAM = idl.program_id()


@dataclass
class World:
    """A chain with a queue, a requester, and a record of what a watcher told."""

    node: Node
    rpc: Client
    line: Cable
    queue: Pubkey
    requester: Keypair
    record: dict[str, Known] = field(default_factory=dict)
    events: list[Sighting | Vanished] = field(default_factory=list)

    def watcher(self, *, silence_seconds: float = 30.0, **options: Any) -> tuple[Watcher, PubSub]:
        pubsub = PubSub([self.line.url], silence_seconds=silence_seconds, jitter=lambda: 0.0)
        watcher = Watcher(
            self.rpc,
            pubsub,
            program=PROGRAM,
            queues=[self.queue],
            layout=Layout(REQUEST_DISCRIMINATOR),
            known=self._known,
            **options,
        )
        return watcher, pubsub

    async def _known(self) -> dict[str, Known]:
        return dict(self.record)

    async def request(self) -> Pubkey:
        submitted = await requests.submit(
            self.rpc,
            PROGRAM,
            queue=self.queue,
            requester=self.requester,
            body=Body("tiny", Params(16), Inline(os.urandom(8))),
            fee_lamports=50_000,
            ttl_slots=2_000,
        )
        return submitted.address

    @asynccontextmanager
    async def watching(self, watcher: Watcher, pubsub: PubSub) -> AsyncIterator[None]:
        async def take() -> None:
            async for event in watcher.watch():
                self.events.append(event)
                if isinstance(event, Vanished):
                    self.record.pop(event.key.address)
                else:
                    header = decode_request(event.address, event.data).header
                    self.record[str(event.address)] = Known(header.created_slot, header.status, event.slot)

        tasks = [asyncio.create_task(pubsub.run()), asyncio.create_task(take())]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            outcomes = await asyncio.gather(*tasks, return_exceptions=True)
            assert all(isinstance(outcome, asyncio.CancelledError) for outcome in outcomes), outcomes

    def sighted(self, address: Pubkey) -> list[Sighting]:
        return [event for event in self.events if isinstance(event, Sighting) and event.address == address]


@pytest.fixture
async def world(tmp_path: Any) -> AsyncIterator[World]:
    async with network.running(slot_seconds=0.02) as node, cable(node.host, node.port + 1) as line:
        rpc = connect(node.rpc_url)
        authority, requester = Keypair(), Keypair()
        for key in (authority, requester):
            await network.fund(node, key.pubkey())
        queue = await network.create_queue(
            rpc, PROGRAM, authority, operator=authority.pubkey(), uri="http://127.0.0.1:1", terms=network.LOCAL_TERMS
        )
        yield World(node, rpc, line, queue, requester)
        await rpc.close()


async def until(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - a condition of any kind has no event
            await asyncio.sleep(0.005)


async def test_a_request_is_pushed_when_it_is_made_and_when_it_changes(world: World) -> None:
    watcher, pubsub = world.watcher(scan_seconds=3600.0)
    async with world.watching(watcher, pubsub):
        await until(lambda: pubsub.connected and watcher.stats.scans >= 2)
        address = await world.request()
        await until(lambda: bool(world.sighted(address)))
        sighting = world.sighted(address)[0]
        request = decode_request(address, sighting.data)
        assert sighting.channel == "push"
        assert (request.header.status, request.header.queue) == (Status.PENDING, world.queue)
        assert request.body_is_authentic
        await world.node.call(lambda chain: chain.advance(2_001))
        await transact(world.rpc, [instructions.expire_request(PROGRAM, request=address)], [world.requester])
        await until(lambda: len(world.sighted(address)) >= 2)
        assert decode_request(address, world.sighted(address)[-1].data).header.status is Status.EXPIRED
        assert watcher.stats.missed_pushes == 0


async def test_requests_made_while_the_socket_was_cut_are_found_by_the_scan_after_it(world: World) -> None:
    watcher, pubsub = world.watcher(scan_seconds=3600.0)
    async with world.watching(watcher, pubsub):
        await until(lambda: pubsub.connected and watcher.stats.scans >= 2)
        world.line.plugged = False
        world.line.cut()
        await until(lambda: not pubsub.connected)
        addresses = [await world.request() for _ in range(3)]
        assert not any(world.sighted(address) for address in addresses)
        world.line.plugged = True
        await until(lambda: all(world.sighted(address) for address in addresses))
        assert {world.sighted(address)[0].channel for address in addresses} == {"scan"}
        later = await world.request()
        await until(lambda: bool(world.sighted(later)))
        assert world.sighted(later)[0].channel == "push"


async def test_a_connection_that_goes_dead_without_a_word_is_replaced(world: World) -> None:
    watcher, pubsub = world.watcher(scan_seconds=3600.0, silence_seconds=0.5)
    async with world.watching(watcher, pubsub):
        await until(lambda: pubsub.connected and watcher.stats.scans >= 2)
        world.line.freeze()
        address = await world.request()
        await until(lambda: not pubsub.connected)
        assert not world.sighted(address)
        world.line.thaw()
        await until(lambda: bool(world.sighted(address)))
        assert world.line.connections >= 2


async def test_without_any_socket_the_timer_alone_finds_everything(world: World) -> None:
    world.line.plugged = False
    watcher, pubsub = world.watcher(scan_seconds=0.05)
    async with world.watching(watcher, pubsub):
        address = await world.request()
        await until(lambda: bool(world.sighted(address)))
        assert world.sighted(address)[0].channel == "scan"


async def test_a_closed_request_vanishes_when_its_end_is_finalized_and_not_before(world: World) -> None:
    watcher, pubsub = world.watcher(scan_seconds=0.05, sweep_every=2)
    async with world.watching(watcher, pubsub):
        address = await world.request()
        await until(lambda: bool(world.sighted(address)))
        created_slot = decode_request(address, world.sighted(address)[0].data).header.created_slot
        await world.node.call(lambda chain: chain.advance(2_001))
        await transact(world.rpc, [instructions.expire_request(PROGRAM, request=address)], [world.requester])
        expired = await requests.read(world.rpc, address)
        await requests.close(world.rpc, PROGRAM, expired, world.requester)
        await until(lambda: any(isinstance(event, Vanished) for event in world.events))
        (vanished,) = [event for event in world.events if isinstance(event, Vanished)]
        assert vanished.key == RequestKey(str(address), created_slot)
        assert vanished.slot > world.sighted(address)[-1].slot


async def test_a_request_on_record_that_no_finalized_slot_ever_held_vanishes(world: World) -> None:
    ghost = RequestKey(str(Pubkey.new_unique()), await world.rpc.get_slot())
    world.record[ghost.address] = Known(ghost.created_slot, Status.PENDING, ghost.created_slot)
    watcher, pubsub = world.watcher(scan_seconds=0.05)
    async with world.watching(watcher, pubsub):
        await until(lambda: bool(world.events))
        (event,) = world.events
        assert isinstance(event, Vanished)
        assert event.key == ghost
        assert event.slot > ghost.created_slot


async def test_a_daemon_that_slept_through_everything_finds_it_all_at_its_start(world: World) -> None:
    addresses = [await world.request() for _ in range(5)]
    watcher, _ = world.watcher()
    found = await watcher.scan(sweep=False)
    assert {event.address for event in found if isinstance(event, Sighting)} == set(addresses)
