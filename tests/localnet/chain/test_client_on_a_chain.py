"""The client against the embedded chain."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from client_contract import CONTRACT

from oracle.chain.rpc import errors
from oracle.chain.rpc.client import Client
from oracle.chain.rpc.pool import EndpointConfig, Pool, connect
from oracle.core.endpoints import Health
from oracle.core.errors import OracleError
from oracle.localnet import network
from oracle.localnet.server import Node

pytestmark = pytest.mark.localnet


@pytest.fixture
async def node() -> AsyncIterator[Node]:
    async with network.running(slot_seconds=0.02) as node:
        yield node


@pytest.fixture
async def client(node: Node) -> AsyncIterator[Client]:
    client = connect(node.rpc_url)
    yield client
    await client.close()


@pytest.mark.parametrize("contract", CONTRACT, ids=lambda contract: contract.__name__)
async def test_the_client_and_the_embedded_chain_agree(
    client: Client, contract: Callable[[Client], Awaitable[None]]
) -> None:
    await contract(client)


async def test_a_pool_tells_two_clusters_apart(node: Node) -> None:
    async with network.running(slot_seconds=0.02, seed=os.urandom(32)) as other:
        pool = Pool([EndpointConfig(node.rpc_url), EndpointConfig(other.rpc_url)])
        await pool.check()
        assert pool.health() == (Health.ALIVE, Health.WRONG_GENESIS)
        await pool.close()


async def test_a_pool_outlives_an_endpoint_that_goes_away(node: Node) -> None:
    async with network.running(slot_seconds=0.02) as other:
        # A chain that has just begun has confirmed nothing yet.
        for each in (node, other):
            await each.advance(5)
        pool = Pool([EndpointConfig(other.rpc_url), EndpointConfig(node.rpc_url)])
        await pool.check()
        assert await pool.client.get_slot() > 0
    for _ in range(5):
        assert await pool.client.get_slot() > 0
    assert pool.health()[1] is Health.ALIVE
    await pool.close()


async def test_an_endpoint_that_stays_behind_a_slot_says_so(node: Node) -> None:
    pool = Pool([EndpointConfig(node.rpc_url)], patience_seconds=0.5)
    with pytest.raises(OracleError) as raised:
        await pool.client.get_slot(min_context_slot=10**9)
    assert raised.value.error is errors.BEHIND
    await pool.close()
