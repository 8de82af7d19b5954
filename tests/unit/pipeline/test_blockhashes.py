"""Packs that are signed in the same moment share one blockhash, and never an old one."""

from __future__ import annotations

import asyncio
from typing import cast

from settlement_world import DrivenClock
from solders.hash import Hash

from oracle.chain.rpc.client import Client
from oracle.chain.rpc.types import Blockhash
from oracle.pipeline.blockhashes import FRESH_SECONDS, Blockhashes


class Node:
    """Counts what it is asked, and is at a slot."""

    def __init__(self) -> None:
        self.asked = 0
        self.slot = 100

    async def get_latest_blockhash(self, *, min_context_slot: int) -> Blockhash:
        self.asked += 1
        await asyncio.sleep(0)
        return Blockhash(Hash.new_unique(), self.slot + 150, self.slot)


def blockhashes() -> tuple[Blockhashes, Node, DrivenClock]:
    node, clock = Node(), DrivenClock()
    return Blockhashes(cast("Client", node), clock), node, clock


async def test_packs_that_are_signed_at_once_are_signed_on_one_read() -> None:
    hashes, node, _ = blockhashes()
    assert len({each.blockhash for each in await asyncio.gather(*(hashes.get(100) for _ in range(8)))}) == 1
    assert node.asked == 1


async def test_a_blockhash_is_read_anew_after_a_second() -> None:
    hashes, node, clock = blockhashes()
    first = await hashes.get(100)
    clock.pass_by(FRESH_SECONDS)
    assert await hashes.get(100) != first
    assert node.asked == 2


async def test_a_blockhash_of_before_the_simulation_is_not_used() -> None:
    hashes, node, _ = blockhashes()
    await hashes.get(100)
    node.slot = 101
    assert (await hashes.get(101)).slot == 101
    assert node.asked == 2
