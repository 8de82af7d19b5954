"""The embedded chain behind real sockets: HTTP, WebSocket, subscriptions, and clients that behave badly."""

import asyncio
import itertools
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import orjson
import pytest
from based58 import b58encode
from solders.account import Account
from solders.instruction import AccountMeta, Instruction
from solders.keypair import Keypair
from solders.message import MessageV0
from solders.pubkey import Pubkey
from solders.system_program import TransferParams, transfer
from solders.transaction import VersionedTransaction
from websockets.asyncio.client import ClientConnection, connect

from oracle.core.errors import OracleError
from oracle.localnet.chain import Chain, Commitment, Config
from oracle.localnet.errors import PORTS_TAKEN
from oracle.localnet.server import Node, Outbox, serve

pytestmark = pytest.mark.localnet

SOL = 10**9
MEMO_PROGRAM = Pubkey.from_string("MemoSq4gqABAXKb96qnH8TysNcWxMyWCqXgDLGmfcHr")
SYSTEM_PROGRAM = Pubkey.default()
BASE64 = {"encoding": "base64"}
PROCESSED, CONFIRMED, FINALIZED = ({"commitment": level.name.lower()} for level in Commitment)


def new_chain() -> Chain:
    return Chain(
        seed=bytes(32), now=lambda: 1_700_000_000.0, config=Config(confirmed_lag_slots=2, finalized_lag_slots=5)
    )


@pytest.fixture
def payer() -> Keypair:
    return Keypair()


@pytest.fixture
async def node(payer: Keypair) -> AsyncIterator[Node]:
    """A node whose slots pass only when the test says so; slot 11 is open."""
    chain = new_chain()
    chain.fund(payer.pubkey(), 10 * SOL)
    chain.advance(10)
    async with serve(chain, slot_seconds=None) as node:
        yield node
    chain.close()


class Subscriber:
    """A WebSocket client that keeps what it is told by subscription."""

    def __init__(self, ws: ClientConnection) -> None:
        self._ws = ws
        self._ids = itertools.count(1)

    async def call(self, method: str, *params: Any) -> Any:
        """The answer to a call; fails if a notification overtakes it."""
        identifier = next(self._ids)
        request = {"jsonrpc": "2.0", "id": identifier, "method": method, "params": list(params)}
        await self._ws.send(orjson.dumps(request).decode())
        answer = await self.receive()
        assert answer["id"] == identifier
        return answer.get("result", answer.get("error"))

    async def receive(self) -> Any:
        async with asyncio.timeout(60):
            return orjson.loads(await self._ws.recv())

    async def notified(self) -> tuple[str, Any]:
        message = await self.receive()
        return message["method"], message["params"]["result"]

    async def assert_silent(self) -> None:
        """Whatever was to come has come: a call is answered behind it."""
        assert await self.call("getHealth") == "ok"


@asynccontextmanager
async def subscriber(node: Node) -> AsyncIterator[Subscriber]:
    async with connect(node.ws_url) as ws:
        yield Subscriber(ws)


def pay(chain: Chain, payer: Keypair, to: Pubkey, lamports: int) -> str:
    instruction = transfer(TransferParams(from_pubkey=payer.pubkey(), to_pubkey=to, lamports=lamports))
    return submit(chain, payer, instruction)


def submit(chain: Chain, payer: Keypair, instruction: Instruction) -> str:
    blockhash = chain.bank(Commitment.PROCESSED).blockhash
    message = MessageV0.try_compile(payer.pubkey(), [instruction], [], blockhash)
    return str(chain.submit(VersionedTransaction(message, [payer])))


# HTTP


async def test_requests_and_batches_are_answered_over_http(node: Node) -> None:
    async with httpx.AsyncClient(base_url=node.rpc_url, timeout=60) as client:
        one = await client.post("/", json={"jsonrpc": "2.0", "id": 1, "method": "getSlot", "params": [PROCESSED]})
        assert one.json() == {"jsonrpc": "2.0", "result": 11, "id": 1}
        assert one.headers["content-type"] == "application/json"
        batch = await client.post("/", json=[{"jsonrpc": "2.0", "id": n, "method": "getHealth"} for n in range(3)])
        assert [answer["id"] for answer in batch.json()] == [0, 1, 2]
        assert (await client.post("/", content=b"{")).json()["error"]["code"] == -32700
        notification = await client.post("/", json={"jsonrpc": "2.0", "method": "getHealth"})
        assert notification.content == b""
        assert (await client.get("/health")).text == "ok"


async def test_a_page_of_another_origin_may_call(node: Node) -> None:
    headers = {"Origin": "http://elsewhere", "Access-Control-Request-Method": "POST"}
    async with httpx.AsyncClient(timeout=60) as client:
        answer = await client.options(node.rpc_url, headers=headers)
    assert answer.headers["access-control-allow-origin"] == "*"


async def test_subscriptions_are_for_websockets_only(node: Node) -> None:
    async with httpx.AsyncClient(timeout=60) as client:
        body = {"jsonrpc": "2.0", "id": 1, "method": "slotSubscribe"}
        assert (await client.post(node.rpc_url, json=body)).json()["error"]["code"] == -32601


async def test_the_websocket_is_on_the_port_of_the_rpc_and_on_the_next(node: Node) -> None:
    for url in (node.ws_url, node.rpc_url.replace("http", "ws")):
        async with connect(url) as ws:
            assert await Subscriber(ws).call("getSlot", PROCESSED) == 11


# Subscriptions


async def test_slots_and_roots_are_told_as_they_pass(node: Node) -> None:
    async with subscriber(node) as client:
        await client.call("slotSubscribe")
        await client.call("rootSubscribe")
        await node.advance()
        assert await client.notified() == ("slotNotification", {"slot": 12, "parent": 11, "root": 7})
        assert await client.notified() == ("rootNotification", 7)


async def test_an_account_is_told_of_once_a_slot_at_the_commitment_asked_for(node: Node, payer: Keypair) -> None:
    to = Pubkey.new_unique()
    async with subscriber(node) as client:
        await client.call("accountSubscribe", str(to), {**BASE64, **CONFIRMED})
        await node.call(lambda chain: [pay(chain, payer, to, SOL), pay(chain, payer, to, 2 * SOL)])
        await node.advance()
        await client.assert_silent()
        await node.advance()
        method, result = await client.notified()
        assert method == "accountNotification"
        assert result["context"] == {"slot": 11}
        assert result["value"]["lamports"] == 3 * SOL
        assert result["value"]["data"] == ["", "base64"]
        await node.advance(6)
        await client.assert_silent()


async def test_an_account_that_is_closed_is_told_of_with_no_lamports(node: Node, payer: Keypair) -> None:
    wallet = Keypair()
    await node.call(lambda chain: chain.fund(wallet.pubkey(), SOL))
    await node.advance(6)
    async with subscriber(node) as client:
        for level in (PROCESSED, FINALIZED):
            await client.call("accountSubscribe", str(wallet.pubkey()), {**BASE64, **level})
        await node.call(lambda chain: pay(chain, wallet, payer.pubkey(), SOL - 5_000))
        closed_in = await node.call(lambda chain: chain.slot(Commitment.PROCESSED))
        await node.advance(6)
        told = [await client.notified() for _ in range(2)]
        assert [result["value"]["lamports"] for _, result in told] == [0, 0]
        assert {result["context"]["slot"] for _, result in told} == {closed_in}


async def test_a_program_s_accounts_are_told_of_through_filters(node: Node) -> None:
    owner, wanted, unwanted = Pubkey.new_unique(), Pubkey.new_unique(), Pubkey.new_unique()
    filters = [{"memcmp": {"offset": 1, "bytes": b58encode(b"bc").decode()}}, {"dataSize": 4}]
    async with subscriber(node) as client:
        options = {**BASE64, **PROCESSED, "filters": filters, "dataSlice": {"offset": 0, "length": 2}}
        await client.call("programSubscribe", str(owner), options)
        await node.call(lambda chain: chain.set_account(unwanted, Account(SOL, b"abcde", owner)))
        await node.call(lambda chain: chain.set_account(wanted, Account(SOL, b"abcd", owner)))
        await node.advance()
        method, result = await client.notified()
        assert method == "programNotification"
        assert result["value"]["pubkey"] == str(wanted)
        assert result["value"]["account"]["data"] == ["YWI=", "base64"]
        await node.advance()
        await client.assert_silent()


async def test_an_account_too_large_for_base58_is_told_of_without_its_data(node: Node) -> None:
    owner = Pubkey.new_unique()
    async with subscriber(node) as client:
        await client.call("programSubscribe", str(owner), PROCESSED)
        await node.call(lambda chain: chain.set_account(Pubkey.new_unique(), Account(SOL, bytes(129), owner)))
        await node.advance()
        _, result = await client.notified()
        assert result["value"]["account"]["data"] == "error: data too large for bs58 encoding"
        assert result["value"]["account"]["space"] == 129


async def test_a_signature_is_told_of_once_and_then_forgotten(node: Node, payer: Keypair) -> None:
    to = Pubkey.new_unique()
    async with subscriber(node) as client:
        signature = await node.call(lambda chain: pay(chain, payer, to, SOL))
        identifier = await client.call("signatureSubscribe", signature, CONFIRMED)
        await node.advance()
        await client.assert_silent()
        await node.advance()
        assert await client.notified() == ("signatureNotification", {"context": {"slot": 11}, "value": {"err": None}})
        await node.advance(5)
        assert (await client.call("signatureUnsubscribe", identifier))["code"] == -32602


async def test_a_signature_that_landed_long_ago_is_told_of_at_the_next_slot(node: Node, payer: Keypair) -> None:
    signature = await node.call(lambda chain: pay(chain, payer, Pubkey.new_unique(), 11 * SOL))
    await node.advance(20)
    async with subscriber(node) as client:
        await client.call("signatureSubscribe", signature)
        await node.advance()
        _, result = await client.notified()
        assert result["value"] == {"err": {"InstructionError": [0, {"Custom": 1}]}}


async def test_logs_are_told_to_those_whom_they_mention(node: Node, payer: Keypair) -> None:
    mentioned = Pubkey.new_unique()
    async with subscriber(node) as client:
        await client.call("logsSubscribe", {"mentions": [str(mentioned)]}, PROCESSED)
        memo = Instruction(MEMO_PROGRAM, b"hello", [])
        both = [
            await node.call(lambda chain: pay(chain, payer, mentioned, SOL)),
            await node.call(lambda chain: submit(chain, payer, memo)),
        ]
        await node.advance()
        _, first = await client.notified()
        assert first["value"]["signature"] == both[0]
        await client.assert_silent()
        await client.call("logsSubscribe", "all", PROCESSED)
        last = await node.call(lambda chain: submit(chain, payer, memo))
        await node.advance()
        method, result = await client.notified()
        assert method == "logsNotification"
        assert result["value"]["signature"] == last
        assert result["value"]["err"] is None
        assert 'Program log: Memo (len 5): "hello"' in result["value"]["logs"]


async def test_what_a_fork_took_back_was_told_as_processed_and_is_never_told_as_confirmed(
    node: Node, payer: Keypair
) -> None:
    to = Pubkey.new_unique()
    async with subscriber(node) as client:
        await client.call("accountSubscribe", str(to), {**BASE64, **PROCESSED})
        await client.call("accountSubscribe", str(to), {**BASE64, **CONFIRMED})
        await node.call(lambda chain: chain.submit(_paying(chain, payer, to), max_retries=0))
        await node.advance()
        _, result = await client.notified()
        assert result["value"]["lamports"] == SOL
        assert len(await node.fork(2)) == 1
        await node.advance(8)
        await client.assert_silent()


def _paying(chain: Chain, payer: Keypair, to: Pubkey) -> VersionedTransaction:
    instruction = transfer(TransferParams(from_pubkey=payer.pubkey(), to_pubkey=to, lamports=SOL))
    blockhash = chain.bank(Commitment.PROCESSED).blockhash
    return VersionedTransaction(MessageV0.try_compile(payer.pubkey(), [instruction], [], blockhash), [payer])


async def test_after_unsubscribing_nothing_is_told(node: Node) -> None:
    async with subscriber(node) as client:
        identifier = await client.call("slotSubscribe")
        assert await client.call("slotUnsubscribe", identifier) is True
        await node.advance(2)
        await client.assert_silent()
        assert await client.call("slotUnsubscribe", identifier) == {
            "code": -32602,
            "message": "Invalid subscription id.",
        }


@pytest.mark.parametrize(
    ("method", "params"),
    [
        ("accountSubscribe", []),
        ("accountSubscribe", ["nonsense"]),
        ("programSubscribe", [str(MEMO_PROGRAM), {"filters": [{"dataSize": 1}] * 5}]),
        ("signatureSubscribe", ["nonsense"]),
        ("logsSubscribe", [{"mentions": []}]),
        ("logsSubscribe", [{"mentions": [str(MEMO_PROGRAM)] * 2}]),
        ("logsSubscribe", ["some"]),
        ("slotUnsubscribe", ["one"]),
    ],
)
async def test_a_bad_subscription_is_refused(node: Node, method: str, params: list[Any]) -> None:
    async with subscriber(node) as client:
        assert (await client.call(method, *params))["code"] == -32602


async def test_each_client_is_told_what_it_asked_for(node: Node) -> None:
    async with subscriber(node) as one, subscriber(node) as other:
        first, second = await one.call("slotSubscribe"), await other.call("rootSubscribe")
        assert first != second
        await node.advance()
        assert (await one.notified())[0] == "slotNotification"
        assert (await other.notified())[0] == "rootNotification"
        await one.assert_silent()


# Bad behaviour


async def test_a_client_that_sends_nonsense_is_answered_and_keeps_its_subscriptions(node: Node) -> None:
    async with connect(node.ws_url) as ws:
        client = Subscriber(ws)
        await client.call("slotSubscribe")
        for nonsense in ("", "{", "[]", "\x00", '{"jsonrpc":"2.0","id":1,"method":"nope"}'):
            await ws.send(nonsense)
            assert (await client.receive())["error"]["code"] in (-32700, -32600, -32601)
        await ws.send(b'{"jsonrpc":"2.0","id":1,"method":"getHealth"}')
        assert (await client.receive())["result"] == "ok"
        await node.advance()
        assert (await client.notified())[0] == "slotNotification"


async def test_clients_that_vanish_do_not_stop_the_chain(node: Node) -> None:
    for _ in range(3):
        async with subscriber(node) as client:
            await client.call("slotSubscribe")
            client._ws.transport.abort()
    await node.advance(3)
    async with subscriber(node) as client:
        assert await client.call("getSlot", PROCESSED) == 14


async def test_a_client_that_does_not_read_is_given_up() -> None:
    outbox = Outbox(asyncio.get_running_loop(), limit=3)
    for _ in range(5):
        outbox.post(b"message")
    await asyncio.sleep(0)
    assert await outbox.get() is None


async def test_a_node_stops_at_once_with_clients_connected(payer: Keypair) -> None:
    chain = new_chain()
    async with serve(chain, slot_seconds=0.01) as node:
        ws = await connect(node.ws_url)
        client = Subscriber(ws)
        await client.call("slotSubscribe")
        http = httpx.AsyncClient(timeout=60)
        await http.post(node.rpc_url, json={"jsonrpc": "2.0", "id": 1, "method": "getHealth"})
        leaving = time.monotonic()
    assert time.monotonic() - leaving < 9  # a close frame that nobody answers would be waited for longer
    await http.aclose()
    await ws.close()
    with pytest.raises(OSError, match="refused"):
        socket.create_connection((node.host, node.port), timeout=1)
    chain.close()


async def test_slots_pass_by_the_clock(payer: Keypair) -> None:
    chain = new_chain()
    async with serve(chain, slot_seconds=0.01) as node, subscriber(node) as client:
        await client.call("slotSubscribe")
        slots = [(await client.notified())[1]["slot"] for _ in range(5)]
        assert slots == list(range(slots[0], slots[0] + 5))
    chain.close()


async def test_ports_that_are_taken_are_named(node: Node) -> None:
    chain = new_chain()
    with pytest.raises(OracleError) as refused:
        async with serve(chain, port=node.port):
            pass
    assert refused.value.error is PORTS_TAKEN
    assert str(node.port) in refused.value.detail
    chain.close()


async def test_what_goes_wrong_in_the_block_comes_out_as_it_is() -> None:
    chain = new_chain()
    with pytest.raises(ZeroDivisionError):
        async with serve(chain, slot_seconds=0.01):
            raise ZeroDivisionError
    chain.close()


async def test_a_chain_whose_slots_stopped_says_why_when_it_is_left() -> None:
    chain = new_chain()
    loop, broken = asyncio.get_running_loop(), asyncio.Event()

    def break_down(_: object) -> None:
        loop.call_soon_threadsafe(broken.set)
        raise ZeroDivisionError

    async def serve_until_broken() -> None:
        async with serve(chain, slot_seconds=0.01) as node:
            await node.call(lambda chain: setattr(chain, "on_progress", break_down))
            await broken.wait()
            await node.call(lambda _: None)  # comes back after the failure has

    with pytest.raises(ZeroDivisionError):
        await asyncio.wait_for(serve_until_broken(), 60)
    chain.close()


async def test_a_call_that_fails_is_told_to_its_caller_and_the_chain_goes_on(node: Node) -> None:
    with pytest.raises(ZeroDivisionError):
        await node.call(lambda _: 1 / 0)
    await node.advance()
    assert await node.call(lambda chain: chain.slot(Commitment.PROCESSED)) == 12


async def test_a_program_is_called_with_accounts_that_came_over_the_wire(node: Node, payer: Keypair) -> None:
    memo = await node.call(lambda chain: chain.account(MEMO_PROGRAM))
    assert memo is not None
    program = Pubkey.new_unique()
    await node.call(lambda chain: chain.load_program(program, memo.data))
    instruction = Instruction(program, b"hi", [AccountMeta(payer.pubkey(), True, False)])
    signature = await node.call(lambda chain: submit(chain, payer, instruction))
    async with subscriber(node) as client:
        statuses = await client.call("getSignatureStatuses", [signature])
        assert statuses["value"][0]["err"] is None
