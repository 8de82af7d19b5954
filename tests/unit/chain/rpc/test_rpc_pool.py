"""Several endpoints behave as one good one."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from rpc_wire import GENESIS, Clock, Node, NodeError, http_answer, in_context, pool_of
from solders.hash import Hash
from solders.pubkey import Pubkey
from solders.signature import Signature

from oracle.chain.rpc import errors
from oracle.chain.rpc.connection import Lost
from oracle.chain.rpc.http import NotSent
from oracle.core.endpoints import Health
from oracle.core.errors import OracleError, Verdict

ADDRESS = Pubkey.new_unique()
SIGNATURE = Signature.new_unique()
OTHER_GENESIS = str(Hash.new_unique())


def preflight(kind: Any) -> NodeError:
    return NodeError(-32002, "Transaction simulation failed", {"err": kind, "logs": []})


async def test_an_endpoint_of_another_cluster_is_asked_nothing_else() -> None:
    stranger, ours = Node(getGenesisHash=OTHER_GENESIS), Node(getBlockHeight=5)
    pool = pool_of(stranger, ours, genesis=Hash.from_string(GENESIS))
    assert await pool.client.get_block_height() == 5
    assert stranger.asked("getBlockHeight") == 0
    assert pool.health()[0] is Health.WRONG_GENESIS


async def test_without_a_known_genesis_the_first_endpoint_says_which_cluster_is_meant() -> None:
    pool = pool_of(Node(), Node(getGenesisHash=OTHER_GENESIS))
    await pool.check()
    assert pool.health() == (Health.ALIVE, Health.WRONG_GENESIS)


async def test_only_endpoints_of_another_cluster_is_an_error_of_configuration() -> None:
    pool = pool_of(Node(getGenesisHash=OTHER_GENESIS), genesis=Hash.from_string(GENESIS))
    with pytest.raises(OracleError) as raised:
        await pool.client.get_slot()
    assert raised.value.error is errors.WRONG_GENESIS


async def test_an_endpoint_that_came_back_as_another_cluster_is_found_out() -> None:
    clock, node, other = Clock(), Node(getBlockHeight=5), Node(getBlockHeight=6)
    pool = pool_of(node, other, clock=clock)
    await pool.check()
    node.script["getSlot"] = NotSent("refused")
    await pool.check()
    assert pool.health()[0] is Health.UNREACHABLE
    node.script |= {"getSlot": 9, "getGenesisHash": OTHER_GENESIS}
    clock.now += 60
    await pool.check()
    assert pool.health() == (Health.WRONG_GENESIS, Health.ALIVE)


@pytest.mark.parametrize(
    "problem",
    [
        NotSent("refused"),
        Lost("slow"),
        http_answer(503),
        http_answer(429),
        http_answer(403),
        http_answer(200, text="<html>"),
        NodeError(-32005, "behind", {"numSlotsBehind": 100}),
        NodeError(-32601, "Method not found"),
        "not a height",
    ],
)
async def test_what_one_endpoint_cannot_answer_another_does(problem: Any) -> None:
    clock = Clock()
    pool = pool_of(Node(getBlockHeight=problem), Node(getBlockHeight=5), clock=clock)
    await pool.check()
    assert await pool.client.get_block_height() == 5
    assert not clock.slept


async def test_an_error_about_the_call_itself_is_not_asked_twice() -> None:
    other = Node()
    pool = pool_of(Node(getBlockHeight=NodeError(-32602, "Invalid params")), other)
    await pool.check()
    with pytest.raises(OracleError) as raised:
        await pool.client.get_block_height()
    assert raised.value.error is errors.NODE_ERROR
    assert other.asked("getBlockHeight") == 0


async def test_a_single_endpoint_is_waited_for_as_long_as_it_asked() -> None:
    clock = Clock()
    answers = iter([http_answer(429, headers={"retry-after": "7"}), 5])
    pool = pool_of(Node(getBlockHeight=lambda _: next(answers)), clock=clock)
    assert await pool.client.get_block_height() == 5
    assert clock.slept == [7.0]


async def test_a_refusal_is_not_the_last_word_while_another_endpoint_pauses() -> None:
    clock = Clock()
    answers = iter([http_answer(429, headers={"retry-after": "7"}), 5, 6])
    pool = pool_of(Node(getBlockHeight=lambda _: next(answers)), Node(getBlockHeight=http_answer(403)), clock=clock)
    await pool.check()
    assert await pool.client.get_block_height() == 5
    assert sum(clock.slept) == pytest.approx(7.0, abs=0.5)


async def test_what_every_endpoint_refuses_is_refused_at_once() -> None:
    clock = Clock()
    pool = pool_of(*(Node(getBlockHeight=http_answer(403)) for _ in range(2)), clock=clock)
    with pytest.raises(OracleError) as raised:
        await pool.client.get_block_height()
    assert raised.value.error is errors.REFUSED
    assert not clock.slept


async def test_a_wait_longer_than_the_patience_is_handed_to_the_caller() -> None:
    clock = Clock()
    pool = pool_of(Node(getBlockHeight=http_answer(429, headers={"retry-after": "200"})), clock=clock)
    with pytest.raises(OracleError) as raised:
        await pool.client.get_block_height()
    assert raised.value.error is errors.RATE_LIMITED
    assert raised.value.retry_after_seconds == 200.0
    with pytest.raises(OracleError) as raised:
        await pool.client.get_block_height()
    assert raised.value.error is errors.NO_ENDPOINT
    assert raised.value.retry_after_seconds == 200.0
    assert not clock.slept


async def test_dead_endpoints_are_tried_less_and_less_and_given_up_after_the_patience() -> None:
    clock, node = Clock(), Node(getBlockHeight=NotSent("refused"))
    pool = pool_of(node, clock=clock, patience_seconds=15.0)
    with pytest.raises(OracleError) as raised:
        await pool.client.get_block_height()
    assert raised.value.error is errors.UNREACHABLE
    assert clock.slept == sorted(clock.slept)
    assert sum(clock.slept) <= 15.0
    assert node.asked("getBlockHeight") == len(clock.slept) + 1


async def test_a_read_at_a_slot_never_goes_to_an_endpoint_behind_it() -> None:
    behind = Node(getSlot=100, getAccountInfo=in_context(100, None))
    ahead = Node(getSlot=105, getAccountInfo=in_context(105, None))
    pool = pool_of(behind, ahead)
    await pool.check()
    assert (await pool.client.get_account(ADDRESS, min_context_slot=103)).slot == 105
    assert behind.asked("getAccountInfo") == 0


async def test_a_slot_nobody_has_reached_is_waited_for() -> None:
    clock = Clock()
    node = Node(
        getSlot=lambda _: int(clock.now - 900), getAccountInfo=lambda *_: in_context(int(clock.now - 900), None)
    )
    pool = pool_of(node, clock=clock)
    await pool.check()
    assert (await pool.client.get_account(ADDRESS, min_context_slot=103)).slot == 103
    assert node.asked("getAccountInfo") == 1


async def test_a_slot_that_does_not_come_is_an_error_not_an_old_answer() -> None:
    node = Node(getAccountInfo=in_context(100, None))
    pool = pool_of(node)
    with pytest.raises(OracleError) as raised:
        await pool.client.get_account(ADDRESS, min_context_slot=101)
    assert raised.value.error is errors.BEHIND
    assert node.asked("getAccountInfo") == 0


async def test_reads_go_to_the_fastest_endpoint_that_does_not_lag() -> None:
    clock = Clock()

    def slot(seconds: float, slot: int) -> Any:
        async def answer() -> int:
            clock.now += seconds
            return slot

        return lambda _: answer()

    slow = Node(getSlot=slot(0.5, 1000), getBlockHeight=1)
    fast = Node(getSlot=slot(0.01, 1000), getBlockHeight=2)
    fast_but_old = Node(getSlot=slot(0.001, 900), getBlockHeight=3)
    pool = pool_of(slow, fast, fast_but_old, clock=clock)
    await pool.check()
    assert pool.health() == (Health.ALIVE, Health.ALIVE, Health.LAGGING)
    assert await pool.client.get_block_height() == 2


async def test_a_send_goes_to_every_healthy_endpoint_and_returns_at_the_first_success() -> None:
    released = asyncio.Event()

    async def slow() -> str:
        await released.wait()
        return str(SIGNATURE)

    hanging = Node(sendTransaction=lambda *_: slow())
    lagging = Node(getSlot=1, sendTransaction=str(SIGNATURE))
    refusing = Node(sendTransaction=NotSent("refused"))
    pool = pool_of(refusing, hanging, lagging)
    await pool.check()
    assert await pool.client.send_transaction(b"tx") == SIGNATURE
    assert [node.asked("sendTransaction") for node in (refusing, hanging, lagging)] == [1, 1, 1]
    released.set()
    await pool.close()


async def test_of_failed_sends_one_that_leaves_doubt_outweighs_the_rest() -> None:
    nodes = [
        Node(sendTransaction=preflight("AccountNotFound")),
        Node(sendTransaction=Lost("slow")),
        Node(sendTransaction=NotSent("refused")),
    ]
    pool = pool_of(*nodes)
    with pytest.raises(OracleError) as raised:
        await pool.client.send_transaction(b"tx")
    assert raised.value.verdict is Verdict.UNKNOWN
    await pool.close()


@pytest.mark.parametrize(
    ("refusal", "contradictions"),
    [
        (preflight({"InstructionError": [0, {"Custom": 1}]}), 1),
        (NodeError(-32003, "Transaction signature verification failure"), 1),
        (preflight("AlreadyProcessed"), 0),
        (preflight("BlockhashNotFound"), 0),
        (http_answer(503), 0),
        (NodeError(-32005, "busy"), 0),
    ],
)
async def test_an_endpoint_that_refuses_for_good_what_another_took_is_counted(
    refusal: Any, contradictions: int
) -> None:
    pool = pool_of(Node(sendTransaction=str(SIGNATURE)), Node(sendTransaction=refusal))
    await pool.client.send_transaction(b"tx")
    await asyncio.gather(*pool._sending, return_exceptions=True)
    assert [endpoint.contradictions for endpoint in pool.view()] == [0, contradictions]


async def test_an_airdrop_is_not_asked_for_again_when_its_answer_is_lost() -> None:
    first, second = Node(requestAirdrop=Lost("slow")), Node(requestAirdrop=str(SIGNATURE))
    with pytest.raises(OracleError) as raised:
        await pool_of(first, second).client.request_airdrop(ADDRESS, 1)
    assert raised.value.verdict is Verdict.UNKNOWN
    assert second.asked("requestAirdrop") == 0


async def test_a_pinned_client_stays_with_one_endpoint_and_raises_what_fails_there() -> None:
    node = Node(
        getEpochInfo={"epoch": 0, "absoluteSlot": 90, "blockHeight": 80},
        getSignatureStatuses=in_context(100, [None]),
        getFirstAvailableBlock=Lost("slow"),
    )
    other = Node(getFirstAvailableBlock=0)
    pool = pool_of(node, other)
    await pool.check()
    with pytest.raises(OracleError) as raised:
        await pool.client.get_signature_history([SIGNATURE])
    assert raised.value.error is errors.ANSWER_LOST
    assert other.asked("getFirstAvailableBlock") == 0
    other.script |= node.script | {"getFirstAvailableBlock": 0}
    assert (await pool.client.get_signature_history([SIGNATURE])).first_available_slot == 0
    assert other.asked("getEpochInfo") == 1


async def test_the_state_of_endpoints_is_told_by_host_alone() -> None:
    pool = pool_of(Node(), Node(getGenesisHash=NotSent("refused")))
    await pool.check()
    assert [endpoint.name for endpoint in pool.view()] == ["127.0.0.1:8899", "127.0.0.2:8899"]
    assert pool.view()[0].slot == 100
    assert pool.health() == (Health.ALIVE, Health.UNREACHABLE)
    assert pool.client.name == "127.0.0.1:8899, 127.0.0.2:8899"


async def test_each_endpoint_is_timed_by_method_and_its_failures_are_counted_by_code() -> None:
    clock = Clock()

    async def slow(*_: Any) -> int:
        await clock.sleep(0.3)
        return 5

    ill, well = Node(getBlockHeight=http_answer(500)), Node(getBlockHeight=slow)
    pool = pool_of(ill, well, clock=clock)
    assert await pool.client.get_block_height() == 5
    of_ill, of_well = pool.meters()
    assert of_ill.errors == {("getBlockHeight", errors.SERVER_ERROR.code): 1}
    assert not of_well.errors
    assert of_well.timings["getBlockHeight"].sum_seconds == pytest.approx(0.3)
    buckets = dict(of_well.timings["getBlockHeight"].cumulative())
    assert (buckets["0.25"], buckets["0.5"], buckets["+Inf"]) == (0, 1, 1)
