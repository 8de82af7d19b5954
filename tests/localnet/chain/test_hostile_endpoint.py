"""Endpoints that misbehave on the wire itself, below anything that an HTTP library would let a test say."""

from __future__ import annotations

import asyncio
import gzip
from typing import Any

import orjson
import pytest
from raw_endpoint import Behaviour, endpoint, saying
from solders.pubkey import Pubkey

from oracle.chain.rpc import errors
from oracle.chain.rpc.client import Client
from oracle.chain.rpc.pool import EndpointConfig, Pool
from oracle.chain.rpc.provider import Provider
from oracle.chain.ws import Connected, Disconnected, PubSub
from oracle.core.errors import OracleError, Verdict

pytestmark = pytest.mark.localnet


async def dripping(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n")
    while True:
        writer.write(b" ")
        await writer.drain()
        await asyncio.sleep(0.01)


async def endless(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
    while True:
        writer.write(b" " * 1_000_000)
        await writer.drain()


HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
BOMB = gzip.compress(b" " * 100_000_000)
HANGING = saying(then_hang=True)


@pytest.mark.parametrize(
    ("behave", "code"),
    [
        pytest.param(saying(), errors.ANSWER_LOST, id="closes at once"),
        pytest.param(HANGING, errors.ANSWER_LOST, id="never answers"),
        pytest.param(dripping, errors.ANSWER_LOST, id="a byte now and then"),
        pytest.param(saying(b"SSH-2.0-OpenSSH_9.2\r\n"), errors.ANSWER_LOST, id="another protocol"),
        pytest.param(saying(HEAD + b"content-length: 50\r\n\r\n{"), errors.ANSWER_LOST, id="cut in the middle"),
        pytest.param(saying(HEAD + b"content-length: x\r\n\r\n{}"), errors.ANSWER_LOST, id="a length of no number"),
        pytest.param(saying(HEAD + b"content-length: 2\r\n\r\n{}"), errors.GARBAGE, id="empty object"),
        pytest.param(
            saying(HEAD + b"content-encoding: gzip\r\ncontent-length: 3\r\n\r\nabc"), errors.ANSWER_LOST, id="no gzip"
        ),
        pytest.param(
            saying(HEAD + b"content-encoding: gzip\r\ncontent-length: %d\r\n\r\n" % len(BOMB) + BOMB),
            errors.TOO_LARGE,
            id="gzip bomb",
        ),
        pytest.param(endless, errors.TOO_LARGE, id="no end"),
    ],
)
async def test_whatever_comes_over_the_wire_is_a_coded_error_in_bounded_time_and_memory(
    behave: Behaviour, code: Any
) -> None:
    async with endpoint(behave) as host:
        # The wait for nothing must outlast the making of a connection.
        client = Client(Provider(f"http://{host}", timeout_seconds=1.0 if behave in (HANGING, dripping) else 60.0))
        async with asyncio.timeout(90.0):
            with pytest.raises(OracleError) as read:
                await client.get_slot()
            with pytest.raises(OracleError) as sent:
                await client.send_transaction(b"tx")
        await client.close()
    assert read.value.error is code
    assert sent.value.verdict is Verdict.UNKNOWN
    assert host in str(read.value)


async def test_a_closed_port_is_unreachable_and_nothing_was_sent() -> None:
    async with endpoint(saying()) as host:
        pass
    client = Client(Provider(f"http://{host}"))
    with pytest.raises(OracleError) as raised:
        await client.send_transaction(b"tx")
    assert raised.value.error is errors.UNREACHABLE
    await client.close()


async def test_a_pool_lives_with_one_such_endpoint_beside_a_good_one() -> None:
    async def good(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        genesis = str(Pubkey.default()).encode()
        while True:
            body = await reader.readuntil(b"}")
            while body.count(b"{") > body.count(b"}"):
                body += await reader.readuntil(b"}")
            result = b'"%s"' % genesis if b"getGenesisHash" in body else b"77"
            answer = b'{"jsonrpc":"2.0","id":%d,"result":%s}' % (orjson.loads(body)["id"], result)
            writer.write(HEAD + b"content-length: %d\r\n\r\n" % len(answer) + answer)
            await writer.drain()
            await reader.readuntil(b"\r\n\r\n")

    async with endpoint(HANGING) as bad_host, endpoint(good) as good_host:
        pool = Pool([EndpointConfig(f"http://{bad_host}"), EndpointConfig(f"http://{good_host}")])
        pool._providers[0]._timeout_seconds = 0.3
        assert await pool.client.get_block_height() == 77
        assert await pool.client.get_block_height() == 77
        assert [endpoint.failures for endpoint in pool.view()] == [1, 0]
        await pool.close()


@pytest.mark.parametrize(
    "behave",
    [
        pytest.param(saying(), id="closes at once"),
        pytest.param(saying(b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n"), id="refuses"),
        pytest.param(saying(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello"), id="no WebSocket"),
        pytest.param(saying(b"\x00\x01garbage\r\n\r\n"), id="garbage"),
    ],
)
async def test_a_websocket_endpoint_that_is_none_is_tried_again_and_again(behave: Behaviour) -> None:
    async with endpoint(behave) as host:
        pubsub = PubSub([f"ws://{host}/secret-key-1234"], jitter=lambda: 0.0)
        slots = pubsub.slots()
        running = asyncio.create_task(pubsub.run())
        async with asyncio.timeout(60.0):
            told = [await anext(slots) for _ in range(3)]
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    assert all(isinstance(event, Disconnected) for event in told)
    assert not any(isinstance(event, Connected) or "secret-key-1234" in event.reason for event in told)
