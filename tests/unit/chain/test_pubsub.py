"""Subscriptions that live through everything a connection can do."""

from __future__ import annotations

import asyncio
import base64
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pubsub_wire import Exchange, running, until
from solders.pubkey import Pubkey
from solders.signature import Signature

from oracle.chain.rpc.errors import BAD_URL
from oracle.chain.rpc.types import Memcmp
from oracle.chain.subscriptions import Connection
from oracle.chain.ws import (
    Connected,
    Disconnected,
    ProgramNotice,
    PubSub,
    SignatureNotice,
    SlotNotice,
    Subscription,
    websocket_url,
)
from oracle.core.errors import OracleError

PROGRAM, ADDRESS = Pubkey.new_unique(), Pubkey.new_unique()
SIGNATURE = Signature.new_unique()
SLOT = {"slot": 10, "parent": 9, "root": 1}


def change(slot: int, data: bytes = b"data") -> dict[str, Any]:
    account = {
        "lamports": 1,
        "owner": str(PROGRAM),
        "data": [base64.b64encode(data).decode(), "base64"],
        "executable": False,
    }
    return {"context": {"slot": slot}, "value": {"pubkey": str(ADDRESS), "account": account}}


async def following(subscription: Subscription[Any]) -> Any:
    async with asyncio.timeout(60.0):
        return await anext(subscription)


async def test_a_subscriber_hears_that_it_is_live_and_then_what_changes() -> None:
    exchange = Exchange()
    pubsub = exchange.pubsub()
    changes = pubsub.program(PROGRAM, [Memcmp(16, b"queue")])
    async with running(pubsub.run()):
        assert await following(changes) == Connected()
        assert pubsub.connected
        line = exchange.lines[0]
        config = {
            "commitment": "confirmed",
            "encoding": "base64",
            "filters": [{"memcmp": {"offset": 16, "bytes": "cXVldWU=", "encoding": "base64"}}],
        }
        assert [asked[1:] for asked in line.asked] == [
            ("slotSubscribe", []),
            ("programSubscribe", [str(PROGRAM), config]),
        ]
        line.notify("program", change(77, b"abc"))
        notice = await following(changes)
        assert isinstance(notice, ProgramNotice)
        assert (notice.slot, notice.address, notice.account.data) == (77, ADDRESS, b"abc")


async def test_a_cut_connection_is_made_anew_with_all_its_subscriptions() -> None:
    exchange = Exchange()
    pubsub = exchange.pubsub()
    changes, slots = pubsub.program(PROGRAM), pubsub.slots()
    async with running(pubsub.run()):
        await until(lambda: pubsub.connected)
        exchange.lines[0].cut()
        await until(lambda: len(exchange.lines) == 2 and pubsub.connected)
        assert sorted(exchange.lines[1].methods()) == ["programSubscribe", "slotSubscribe"]
        for subscription in (changes, slots):
            events = [await following(subscription) for _ in range(3)]
            assert [type(event) for event in events] == [Connected, Disconnected, Connected]


async def test_a_connection_that_falls_silent_is_given_up() -> None:
    exchange = Exchange()
    pubsub = exchange.pubsub(silence_seconds=0.5)
    slots = pubsub.slots()
    async with running(pubsub.run()):
        await until(lambda: len(exchange.lines) >= 2)
        assert await following(slots) == Connected()
        event = await following(slots)
        assert isinstance(event, Disconnected)
        assert "silent" in event.reason


async def test_a_node_that_sends_but_does_not_acknowledge_is_given_up() -> None:
    clock = [0.0]
    exchange = Exchange(acknowledge=False)
    pubsub = exchange.pubsub(ack_seconds=15.0, now=lambda: clock[0])
    async with running(pubsub.run()):
        await until(lambda: bool(exchange.lines and exchange.lines[0].asked))
        clock[0] = 15.5
        exchange.lines[0].notify("slot", SLOT, 1)
        await until(lambda: len(exchange.lines) == 2)
        assert not pubsub.connected


async def test_a_connection_that_keeps_failing_is_tried_ever_more_slowly_at_every_url() -> None:
    exchange = Exchange()
    exchange.refusals = [ConnectionRefusedError("no"), TimeoutError(), OSError("tls"), EOFError()]
    pubsub = exchange.pubsub("ws://one", "ws://two")
    async with running(pubsub.run()):
        await until(lambda: pubsub.connected)
    assert exchange.slept == [0.125, 0.25, 0.5, 1.0]
    assert exchange.lines[0].url == "ws://one"


@pytest.mark.parametrize(
    "nonsense",
    [
        "not json",
        "[]",
        "null",
        "7",
        b"\xff",
        {"params": {"subscription": 101}},
        {"params": {"subscription": 101, "result": {"context": {"slot": 1}, "value": {"pubkey": "?"}}}},
        {"params": {"subscription": 101, "result": {"context": {}, "value": None}}},
        {"params": {"subscription": [1], "result": {}}},
    ],
    ids=repr,
)
async def test_a_message_that_makes_no_sense_is_counted_and_costs_nothing_else(nonsense: Any) -> None:
    exchange = Exchange()
    pubsub = exchange.pubsub()
    changes = pubsub.program(PROGRAM)
    async with running(pubsub.run()):
        assert await following(changes) == Connected()
        exchange.lines[0].say(nonsense)
        exchange.lines[0].notify("program", change(5))
        notice = await following(changes)
        assert isinstance(notice, ProgramNotice)
        assert pubsub.garbled == 1
        assert len(exchange.lines) == 1


async def test_notices_for_nobody_and_answers_to_nothing_are_passed_over() -> None:
    exchange = Exchange()
    pubsub = exchange.pubsub()
    slots = pubsub.slots()
    async with running(pubsub.run()):
        assert await following(slots) == Connected()
        for message in ({"params": {"subscription": 999, "result": 1}}, {"id": 999, "result": 1}, {"method": "x"}, {}):
            exchange.lines[0].say(message)
        exchange.lines[0].notify("slot", SLOT)
        assert await following(slots) == SlotNotice(10, 9, 1)
        assert pubsub.garbled == 0


async def test_two_who_ask_the_same_share_one_subscription_because_the_node_would_tell_only_one() -> None:
    exchange = Exchange()
    pubsub = exchange.pubsub()
    async with running(pubsub.run()):
        await until(lambda: pubsub.connected)
        first, second = pubsub.slots(), pubsub.slots()
        line = exchange.lines[0]
        assert line.methods() == ["slotSubscribe"]
        assert await following(first) == await following(second) == Connected()
        first.close()
        line.notify("slot", SLOT)
        assert await following(second) == SlotNotice(10, 9, 1)
        assert line.methods() == ["slotSubscribe"]


async def test_the_last_to_leave_tells_the_node() -> None:
    exchange = Exchange()
    pubsub = exchange.pubsub()
    async with running(pubsub.run()):
        with pubsub.program(PROGRAM) as one, pubsub.program(PROGRAM) as other:
            assert await following(one) == await following(other) == Connected()
            line = exchange.lines[0]
        await until(lambda: "programUnsubscribe" in line.methods())
        assert line.asked[-1][2] == [line.ids[line.asked[1][1] + repr(line.asked[1][2])]]
        line.cut()
        await until(lambda: len(exchange.lines) == 2 and pubsub.connected)
        assert exchange.lines[1].methods() == ["slotSubscribe"]


async def test_leaving_before_the_acknowledgement_does_not_take_the_subscription_from_the_next_who_asks() -> None:
    exchange = Exchange(acknowledge=False)
    pubsub = exchange.pubsub()
    async with running(pubsub.run()):
        await until(lambda: bool(exchange.lines and exchange.lines[0].asked))
        line = exchange.lines[0]
        line.ack(0)
        pubsub.program(PROGRAM).close()
        stays = pubsub.program(PROGRAM)
        await until(lambda: len(line.asked) == 3)
        line.ack(1)
        line.ack(2)
        assert await following(stays) == Connected()
        assert "programUnsubscribe" not in line.methods()
        line.notify("program", change(5))
        assert isinstance(await following(stays), ProgramNotice)


async def test_a_notice_that_overtakes_its_acknowledgement_is_not_lost() -> None:
    exchange = Exchange(acknowledge=False)
    pubsub = exchange.pubsub()
    changes = pubsub.program(PROGRAM)
    async with running(pubsub.run()):
        await until(lambda: bool(exchange.lines and len(exchange.lines[0].asked) == 2))
        line = exchange.lines[0]
        line.notify("program", change(5), 100)
        line.ack(1)
        assert await following(changes) == Connected()
        assert isinstance(await following(changes), ProgramNotice)


async def test_a_signature_is_told_once_and_its_stream_ends() -> None:
    exchange = Exchange()
    pubsub = exchange.pubsub()
    async with running(pubsub.run()):
        await until(lambda: pubsub.connected)
        told = pubsub.signature(SIGNATURE)
        assert await following(told) == Connected()
        exchange.lines[0].notify("signature", {"context": {"slot": 8}, "value": {"err": None}})
        assert [event async for event in told] == [SignatureNotice(8, None)]
        assert exchange.lines[0].methods() == ["slotSubscribe", "signatureSubscribe"]
        exchange.lines[0].cut()
        await until(lambda: len(exchange.lines) == 2 and pubsub.connected)
        assert exchange.lines[1].methods() == ["slotSubscribe"]


async def test_a_refused_signature_costs_its_own_stream_and_a_refused_program_the_connection() -> None:
    exchange = Exchange(acknowledge=False)
    pubsub = exchange.pubsub()
    told = pubsub.signature(SIGNATURE)
    refusal = {"code": -32601, "message": "Method not found"}
    async with running(pubsub.run()):
        await until(lambda: bool(exchange.lines and len(exchange.lines[0].asked) == 2))
        line = exchange.lines[0]
        line.say({"id": line.asked[1][0], "error": refusal})
        assert [type(event) async for event in told] == [Disconnected]
        changes = pubsub.program(PROGRAM)
        await until(lambda: len(line.asked) == 3)
        line.say({"id": line.asked[2][0], "error": refusal})
        event = await following(changes)
        assert isinstance(event, Disconnected)
        assert "refused" in event.reason
        await until(lambda: len(exchange.lines) == 2)


async def test_a_reader_that_falls_behind_is_told_that_it_missed_something() -> None:
    exchange = Exchange()
    pubsub = exchange.pubsub()
    slots = pubsub.slots()
    async with running(pubsub.run()):
        assert await following(slots) == Connected()
        for n in range(4097):
            exchange.lines[0].notify("slot", {"slot": n, "parent": 0, "root": 0})
        await until(lambda: exchange.lines[0]._incoming.empty())
        assert [type(await following(slots)) for _ in range(3)] == [Disconnected, Connected, SlotNotice]


FIELDS = st.sampled_from(["id", "result", "error", "params", "subscription", "method"])
SCALARS = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.text(st.characters(codec="utf-8"))


@given(st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(FIELDS, inner)))
def test_whatever_json_arrives_is_heard_or_refused_as_nonsense(message: Any) -> None:
    connection = Connection(lambda _: None, ack_seconds=1.0)
    try:
        connection.hear(orjson.dumps(message))
    except (ValueError, TypeError, AttributeError):
        return


@pytest.mark.parametrize(
    ("rpc", "expected"),
    [
        ("http://127.0.0.1:8899", "ws://127.0.0.1:8900"),
        ("https://api.mainnet-beta.solana.com", "wss://api.mainnet-beta.solana.com"),
        ("https://u:p@rpc.example.com:443/v2/key?api-key=x#y", "wss://u:p@rpc.example.com:443/v2/key?api-key=x"),
    ],
)
def test_the_websocket_url_follows_from_the_rpc_url(rpc: str, expected: str) -> None:
    assert websocket_url(rpc) == expected


@pytest.mark.parametrize("urls", [[], ["http://node"], ["node"]])
def test_what_is_no_websocket_url_is_refused(urls: list[str]) -> None:
    with pytest.raises(OracleError) as raised:
        PubSub(urls)
    assert raised.value.error is BAD_URL
