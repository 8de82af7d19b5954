"""Each fault of the proxy does what it says, before the embedded chain and before a provider."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest
from solana.rpc.commitment import Confirmed, Finalized, Processed
from solders.keypair import Keypair
from solders.message import MessageV0
from solders.pubkey import Pubkey
from solders.system_program import TransferParams, transfer
from solders.transaction import VersionedTransaction
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosedError

from oracle.chain.rpc import errors
from oracle.chain.rpc.client import Client
from oracle.chain.rpc.provider import Provider
from oracle.core.errors import ErrorCode, OracleError
from oracle.localnet.chain import Chain, Commitment, Config
from oracle.localnet.emulators.openai import ScriptedOpenAI
from oracle.localnet.emulators.server import serve
from oracle.localnet.server import Node
from oracle.localnet.server import serve as serve_chain
from oracle.testing.fault_proxy import FaultProxy, fault_proxy
from oracle.testing.storm import CallFault, PushFault, Storm

pytestmark = pytest.mark.localnet

SOL = 10**9
SLOTS = '{"jsonrpc":"2.0","id":1,"method":"slotSubscribe"}'


class World:
    """A chain that moves when told, a client that sees it through the proxy, and a wallet."""

    def __init__(self, node: Node, proxy: FaultProxy) -> None:
        self.node, self.proxy, self.wallet, self.receiver = node, proxy, Keypair(), Pubkey.new_unique()
        self.client = Client(Provider(proxy.url, timeout_seconds=60.0))
        self.sent = 0

    async def payment(self) -> VersionedTransaction:
        """No two are the same; its blockhash is as the proxy tells it."""
        self.sent += 1
        blockhash = await self.client.get_latest_blockhash()
        step = transfer(
            TransferParams(from_pubkey=self.wallet.pubkey(), to_pubkey=self.receiver, lamports=1_000_000 + self.sent)
        )
        message = MessageV0.try_compile(self.wallet.pubkey(), [step], [], blockhash.blockhash)
        return VersionedTransaction(message, [self.wallet])

    async def has_landed(self, tx: VersionedTransaction) -> bool:
        return await self.node.call(lambda chain: chain.status(tx.signatures[0])) is not None

    async def slot(self) -> int:
        return await self.node.call(lambda chain: chain.slot(Commitment.PROCESSED))


@pytest.fixture
async def world() -> AsyncIterator[World]:
    chain = Chain(seed=bytes(32), now=lambda: 1_700_000_000.0, config=Config(kept_slots=50))
    async with serve_chain(chain, slot_seconds=None) as node, fault_proxy(node) as proxy:
        world = World(node, proxy)
        await node.call(lambda chain: chain.fund(world.wallet.pubkey(), 100 * SOL))
        await node.advance(40)
        yield world
        await world.client.close()
    chain.close()


async def something_struck(world: World) -> None:
    async with asyncio.timeout(60):
        while not world.proxy.struck:  # noqa: ASYNC110 - a wire has no event
            await asyncio.sleep(0.001)


async def refusal(world: World) -> ErrorCode:
    with pytest.raises(OracleError) as raised:
        await world.client.get_slot()
    return raised.value.error


async def test_without_a_fault_everything_is_as_without_the_proxy(world: World) -> None:
    tx = await world.payment()
    assert await world.client.send_transaction(bytes(tx)) == tx.signatures[0]
    assert await world.has_landed(tx)
    assert await world.client.get_slot(Processed) == await world.slot()
    assert not world.proxy.struck


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (CallFault.DROP, errors.ANSWER_LOST),
        (CallFault.LOSE_ANSWER, errors.ANSWER_LOST),
        (CallFault.TRUNCATE, errors.ANSWER_LOST),
        (CallFault.MALFORMED, errors.GARBAGE),
        (CallFault.HTML, errors.SERVER_ERROR),
        (CallFault.RATE_LIMIT, errors.RATE_LIMITED),
    ],
)
async def test_a_call_is_spoilt_once_and_the_next_is_not(world: World, kind: CallFault, code: ErrorCode) -> None:
    world.proxy.calls.add(kind, on="getSlot")
    await world.client.get_block_height()
    assert await refusal(world) is code
    await world.client.get_slot()
    assert world.proxy.struck == {(kind, "getSlot"): 1}


@pytest.mark.parametrize(("kind", "lands"), [(CallFault.DROP, False), (CallFault.LOSE_ANSWER, True)])
async def test_a_send_without_an_answer_has_gone_nowhere_or_has_landed(
    world: World, kind: CallFault, lands: bool
) -> None:
    tx = await world.payment()
    world.proxy.calls.add(kind, on="sendTransaction")
    with pytest.raises(OracleError) as raised:
        await world.client.send_transaction(bytes(tx))
    assert raised.value.error is errors.SEND_UNCERTAIN
    assert await world.has_landed(tx) is lands


async def test_a_rate_limit_says_how_long_to_wait_or_does_not(world: World) -> None:
    told = []
    for retry_after in (None, "7"):
        world.proxy.calls.add("rate_limit", on="getSlot", retry_after=retry_after)
        with pytest.raises(OracleError) as raised:
            await world.client.get_slot()
        told.append(raised.value.retry_after_seconds)
    assert told == [None, 7.0]


async def test_a_call_that_hangs_holds_no_other(world: World) -> None:
    world.proxy.calls.add("hang", on="getSlot")
    hanging = asyncio.create_task(world.client.get_slot())
    await world.client.get_block_height()
    assert not hanging.done()
    hanging.cancel()
    await asyncio.gather(hanging, return_exceptions=True)


async def test_a_late_answer_is_overtaken_by_a_later_one(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("oracle.testing.fault_proxy.LATE_SECONDS", 60.0)
    world.proxy.calls.add("late", on="getSlot")
    done: list[str] = []
    late = asyncio.create_task(world.client.get_slot())
    late.add_done_callback(lambda _: done.append("first"))
    await something_struck(world)
    await world.client.get_block_height()
    done.append("second")
    await late
    assert done == ["second", "first"]


async def test_a_swallowed_transaction_is_acknowledged_and_never_lands(world: World) -> None:
    lost, kept = await world.payment(), await world.payment()
    world.proxy.calls.add("swallow", on="sendTransaction")
    for _ in range(2):
        assert await world.client.send_transaction(bytes(lost)) == lost.signatures[0]
    await world.client.send_transaction(bytes(kept))
    await world.node.advance(3)
    assert [await world.has_landed(tx) for tx in (lost, kept)] == [False, True]


async def test_an_old_blockhash_has_expired_and_its_height_says_so(world: World) -> None:
    await world.node.advance(160)
    world.proxy.calls.add("old_blockhash", on="getLatestBlockhash")
    old = await world.client.get_latest_blockhash()
    assert old.last_valid_block_height < await world.client.get_block_height(Processed)
    assert not await world.node.call(lambda chain: chain.is_blockhash_valid(old.blockhash, Commitment.PROCESSED))
    world.proxy.calls.add("old_blockhash", on="getLatestBlockhash")
    tx = await world.payment()
    await world.client.send_transaction(bytes(tx))
    assert not await world.has_landed(tx)


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        (CallFault.STATUS_FORGOTTEN, [None, None]),
        (CallFault.STATUS_EARLY, [(Confirmed, False)] * 2),
        (CallFault.STATUS_FAILED, [(Confirmed, True)] * 2),
    ],
)
async def test_statuses_are_lied_about(world: World, kind: CallFault, told: list[object]) -> None:
    landed, unsent = await world.payment(), await world.payment()
    await world.client.send_transaction(bytes(landed))
    signatures = [landed.signatures[0], unsent.signatures[0]]
    world.proxy.calls.add(kind, on="getSignatureStatuses")
    read = await world.client.get_signature_statuses(signatures)
    assert [each and (each.commitment, each.failure is not None) for each in read.value] == told
    truth = await world.client.get_signature_statuses(signatures)
    assert [each and (each.commitment, each.failure) for each in truth.value] == [(Processed, None), None]


async def test_a_fork_comes_between_a_send_and_its_answer(world: World) -> None:
    tx = await world.payment()
    world.proxy.calls.add("fork", on="sendTransaction")
    await world.client.send_transaction(bytes(tx))
    assert not await world.has_landed(tx)
    await world.client.send_transaction(bytes(tx))
    assert await world.has_landed(tx)


async def test_an_endpoint_that_is_behind_knows_nothing_of_what_came_later(world: World) -> None:
    tx = await world.payment()
    await world.client.send_transaction(bytes(tx))
    before = {level: await world.client.get_slot(level) for level in (Processed, Confirmed, Finalized)}
    held = (await world.client.get_balance(world.receiver, Processed)).value
    await world.node.advance(5)
    world.proxy.slots_behind = 6
    for level, slot in before.items():
        assert await world.client.get_slot(level) == slot - 1
    (status,) = (await world.client.get_signature_statuses(tx.signatures, search_history=True)).value
    assert status is None
    assert held > 0
    for level in before:
        assert (await world.client.get_balance(world.receiver, level)).value == 0
    blockhash = await world.client.get_latest_blockhash(Finalized)
    world.proxy.slots_behind = 0
    assert (await world.client.get_balance(world.receiver, Processed)).value == held
    assert (
        blockhash.last_valid_block_height < (await world.client.get_latest_blockhash(Finalized)).last_valid_block_height
    )


async def test_an_endpoint_that_is_behind_still_sends_on(world: World) -> None:
    tx = await world.payment()
    world.proxy.slots_behind = 10
    await world.client.send_transaction(bytes(tx))
    assert await world.has_landed(tx)
    await world.client.send_transaction(bytes(tx))
    assert await world.node.call(lambda chain: len(chain.ledger.transactions_after(0))) == 1


async def test_an_endpoint_cannot_be_further_behind_than_the_chain_remembers(world: World) -> None:
    with pytest.raises(ValueError, match="kept_slots=51"):
        world.proxy.slots_behind = 51


@asynccontextmanager
async def slots_told(world: World) -> AsyncIterator[asyncio.Queue[object]]:
    """The messages of a subscription to slots, as they come; an exception where the socket ends."""
    told: asyncio.Queue[object] = asyncio.Queue()

    async def listen() -> None:
        try:
            async with connect(world.proxy.ws_url) as socket:
                await socket.send(SLOTS)
                async for message in socket:
                    told.put_nowait(message)
        except (OSError, EOFError, ConnectionClosedError) as error:
            told.put_nowait(error)

    listening = asyncio.create_task(listen())
    yield told
    listening.cancel()
    await asyncio.gather(listening, return_exceptions=True)


async def slots(world: World, told: asyncio.Queue[object], count: int) -> list[int]:
    """Numbers of the next slots that are told of, counted from the first that could have been."""
    first = await world.slot()
    await world.node.advance(5)
    found = []
    for _ in range(count):
        message = await asyncio.wait_for(told.get(), 60)
        assert isinstance(message, str)
        found.append(int(message.partition('"slot":')[2].partition(",")[0]) - first)
    return found


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (PushFault.DROP, [1, 3, 4, 5]),
        (PushFault.TWICE, [1, 2, 2, 3, 4, 5]),
        (PushFault.LATE, [1, 3, 2, 4, 5]),
    ],
)
async def test_what_is_pushed_is_dropped_doubled_or_told_out_of_order(
    world: World, kind: PushFault, expected: list[int]
) -> None:
    async with slots_told(world) as told:
        assert "result" in str(await told.get())
        world.proxy.pushes.add(kind, on="slotNotification", skip=1)
        assert await slots(world, told, len(expected)) == expected


async def test_a_socket_is_cut_without_a_close_frame(world: World) -> None:
    async with slots_told(world) as told:
        await told.get()
        world.proxy.pushes.add("cut", on="slotNotification")
        await world.node.advance(2)
        ended = await asyncio.wait_for(told.get(), 60)
    assert isinstance(ended, ConnectionClosedError)
    assert ended.rcvd is None


async def test_a_connection_is_refused_and_the_next_one_is_not(world: World) -> None:
    world.proxy.pushes.add("cut", on="connect")
    async with slots_told(world) as told:
        assert isinstance(await asyncio.wait_for(told.get(), 60), Exception)
    async with slots_told(world) as told:
        assert "result" in str(await asyncio.wait_for(told.get(), 60))


async def test_a_socket_that_falls_silent_stays_open(world: World) -> None:
    async with slots_told(world) as told:
        await told.get()
        world.proxy.pushes.add("silence", on="slotNotification", skip=2)
        assert await slots(world, told, 2) == [1, 2]
        await something_struck(world)
        assert told.empty()


async def test_a_garbled_message_arrives_by_half(world: World) -> None:
    async with slots_told(world) as told:
        await told.get()
        world.proxy.pushes.add("garble", on="slotNotification")
        await world.node.advance()
        assert not str(await asyncio.wait_for(told.get(), 60)).endswith("}")


async def test_the_socket_of_an_endpoint_that_is_behind_tells_late(world: World) -> None:
    async with slots_told(world) as told:
        await told.get()
        world.proxy.slots_behind = 3
        assert await slots(world, told, 2) == [1, 2]
        assert told.empty()


async def test_a_provider_is_reached_streams_included_and_paid_calls_can_be_doubled() -> None:
    model = ScriptedOpenAI(words=4)
    body = {"model": "tiny", "messages": [{"role": "user", "content": "hello"}]}
    async with (
        serve(model) as running,
        fault_proxy(running.url) as proxy,
        httpx.AsyncClient(trust_env=False, timeout=60) as http,
    ):
        url = f"{proxy.url}/v1/chat/completions"
        direct = (await http.post(f"{running.url}/v1/chat/completions", json=body)).json()
        assert (await http.post(url, json=body)).json()["choices"] == direct["choices"]
        streamed = await http.post(url, json={**body, "stream": True})
        assert streamed.text.rstrip().endswith("[DONE]")
        asked = len(model.requests)
        proxy.calls.add("twice", on="POST /v1/chat/*")
        await http.post(url, json=body)
        assert len(model.requests) == asked + 2
        proxy.calls.add("html", on="GET *", status=503)
        page = await http.get(f"{proxy.url}/v1/models")
    assert page.status_code == 503
    assert page.headers["content-type"].startswith("text/html")


async def test_a_provider_that_is_away_is_a_connection_that_ends() -> None:
    async with serve(ScriptedOpenAI()) as running:
        pass
    async with fault_proxy(running.url) as proxy, httpx.AsyncClient(trust_env=False, timeout=60) as http:
        with pytest.raises(httpx.RemoteProtocolError):
            await http.get(f"{proxy.url}/v1/models")


async def test_one_seed_brings_one_weather(world: World) -> None:
    async def weather(seed: int) -> list[str]:
        world.proxy.storm = Storm(
            seed, 0.5, calls=[kind for kind in Storm(seed).calls if kind != "late"], most_seconds=0.0
        )
        world.proxy._seen.clear()
        outcomes = []
        for _ in range(30):
            try:
                await world.client.get_block_height()
                outcomes.append("well")
            except OracleError as error:
                outcomes.append(error.code)
        return outcomes

    first, second, other = await weather(3), await weather(3), await weather(4)
    assert first == second != other
    assert len(set(first)) > 3
