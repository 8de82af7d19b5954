"""The client against Surfpool, an RPC server that shares no line with ours."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from client_contract import CONTRACT, funded, payment

from oracle.chain.rpc.client import Client
from oracle.chain.rpc.pool import connect
from oracle.chain.ws import Connected, PubSub, SignatureNotice, SlotNotice
from oracle.testing.surfpool import Surfpool, running_surfpool

pytestmark = pytest.mark.validator


@pytest.fixture
async def client(surfpool: Surfpool) -> AsyncIterator[Client]:
    client = connect(surfpool.rpc_url)
    yield client
    await client.close()


@pytest.mark.parametrize("contract", CONTRACT, ids=lambda contract: contract.__name__)
async def test_the_client_and_surfpool_agree(client: Client, contract: Callable[[Client], Awaitable[None]]) -> None:
    await contract(client)


@pytest.mark.usefixtures("surfpool")  # skips where there is none
def test_the_block_height_of_a_surfpool_that_has_just_started_never_falls() -> None:
    with running_surfpool() as fresh:
        confirmed = {"commitment": "confirmed"}
        first, height = fresh.call("getSlot", confirmed), 0
        while fresh.call("getSlot", confirmed) < first + 2:
            last, height = height, fresh.call("getBlockHeight", confirmed)
            assert height >= last


async def test_slots_and_signatures_are_told_by_surfpool(surfpool: Surfpool, client: Client) -> None:
    pubsub = PubSub([surfpool.ws_url])
    running = asyncio.create_task(pubsub.run())
    async with asyncio.timeout(30.0):
        slots = pubsub.slots()
        assert await anext(slots) == Connected()
        first, second = await anext(slots), await anext(slots)
        assert isinstance(first, SlotNotice)
        assert isinstance(second, SlotNotice)
        assert second.slot > first.slot
        payer = await funded(client)
        transaction = await payment(client, payer, payer.pubkey(), 1)
        with pubsub.signature(transaction.signatures[0]) as told:
            assert await anext(told) == Connected()
            await client.send_transaction(bytes(transaction))
            notice = await anext(told)
        assert isinstance(notice, SignatureNotice)
        assert notice.failure is None
    assert pubsub.garbled == 0
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
