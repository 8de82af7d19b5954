"""A requester's transaction: landed, refused, proven lost, or honestly unknown."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from pipeline_world import PARAMS, World, until
from solders.instruction import AccountMeta, Instruction
from solders.keypair import Keypair
from solders.system_program import TransferParams, transfer

from oracle.chain.rpc.client import Client
from oracle.chain.rpc.errors import BAD_URL, NO_ENDPOINT, SEND_UNCERTAIN
from oracle.client import requests
from oracle.client import transact as transacting
from oracle.client.transact import transact
from oracle.core.errors import OracleError
from oracle.core.request import Body, Inline

pytestmark = pytest.mark.localnet


class Unreliable(Client):
    """The real client, whose calls a test may make fail, before or after they have done their work."""

    def __init__(self, real: Client) -> None:
        super().__init__(real.transport)
        self.sends = 0
        self.lose_answers = 0
        self.refuse: OracleError | None = None
        self.dead_after_send = False
        self.swallow = False

    async def send_transaction(self, wire: bytes, **options: Any) -> Any:
        self.sends += 1
        if self.refuse is not None:
            raise self.refuse
        signature = None if self.swallow else await super().send_transaction(wire, **options)
        if self.lose_answers:
            self.lose_answers -= 1
            raise SEND_UNCERTAIN("the answer was lost")
        return signature

    async def get_signature_statuses(self, *arguments: Any, **options: Any) -> Any:
        if self.dead_after_send and self.sends:
            raise NO_ENDPOINT("all are down")
        return await super().get_signature_statuses(*arguments, **options)


@pytest.fixture
def rpc(world: World) -> Unreliable:
    return Unreliable(world.rpc)


def payment(world: World, to: Keypair, lamports: int = 5_000_000) -> Instruction:
    return transfer(TransferParams(from_pubkey=world.requester.pubkey(), to_pubkey=to.pubkey(), lamports=lamports))


async def sent(rpc: Unreliable, times: int) -> None:
    async def look() -> bool:
        return rpc.sends >= times

    await until(look, f"send {times}")


async def balance(world: World, key: Keypair) -> int:
    return (await world.rpc.get_balance(key.pubkey())).value


async def test_a_transaction_whose_answer_was_lost_is_waited_for(world: World, rpc: Unreliable) -> None:
    payee = Keypair()
    rpc.lose_answers = 2
    await transact(rpc, [payment(world, payee)], [world.requester])
    assert await balance(world, payee) == 5_000_000


async def test_a_transaction_that_nobody_took_is_sent_again_until_it_lands(
    world: World, rpc: Unreliable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transacting, "RESEND_EVERY", 1)
    payee = Keypair()
    rpc.swallow = True
    landing = asyncio.create_task(transact(rpc, [payment(world, payee)], [world.requester]))
    await sent(rpc, 3)
    rpc.swallow = False
    await landing
    assert await balance(world, payee) == 5_000_000


async def test_a_transaction_that_is_refused_at_once_was_never_sent(world: World, rpc: Unreliable) -> None:
    rpc.refuse = BAD_URL("refused for good")
    with pytest.raises(OracleError, match="ORC-RPC-016"):
        await transact(rpc, [payment(world, Keypair())], [world.requester])


async def test_a_transaction_is_lost_only_when_it_is_proven_not_to_land(world: World, rpc: Unreliable) -> None:
    rpc.swallow = True
    losing = asyncio.create_task(transact(rpc, [payment(world, Keypair())], [world.requester]))
    await sent(rpc, 1)
    # Its blockhash lives for 150 blocks; that they are over is not believed before they are finalized.
    await world.node.advance(151)
    with pytest.raises(OracleError, match="ORC-CLIENT-003"):
        await losing


async def test_where_nobody_can_be_asked_the_fate_is_unknown_and_the_signature_is_told(
    world: World, rpc: Unreliable
) -> None:
    payee = Keypair()
    rpc.dead_after_send = True
    with pytest.raises(OracleError) as caught:
        await transact(rpc, [payment(world, payee)], [world.requester])
    assert caught.value.code == "ORC-CLIENT-008"
    assert len(caught.value.detail.split(":")[0]) in (87, 88)


async def test_a_refusal_of_the_program_is_told_in_its_own_words(world: World) -> None:
    with pytest.raises(OracleError, match=r"ORC-CLIENT-002.*Fee\w+ \(6\d\d\d\)"):
        await world.submit(fee_lamports=1)


async def test_what_fits_no_transaction_is_told_so_without_noise(
    world: World, capfd: pytest.CaptureFixture[str]
) -> None:
    for size in (1_500, 65_536, 2_000_000):
        noted = Instruction(world.program_id, b"a" * size, [AccountMeta(Keypair().pubkey(), False, False)])
        with pytest.raises(OracleError, match="ORC-CLIENT-007"):
            await transact(world.rpc, [noted], [world.requester])
    assert "panicked" not in capfd.readouterr().err


async def test_a_prompt_that_is_too_long_is_told_where_else_to_put_it(world: World) -> None:
    with pytest.raises(OracleError, match="ORC-CLIENT-007") as caught:
        await world.submit(Inline(b"a" * 1_000))
    assert "--uri" in caught.value.error.remedy


async def test_the_address_of_a_request_is_known_before_it_is_sent(world: World) -> None:
    body = Body("tiny", PARAMS, Inline(b"What is the capital of Japan?"))
    nonce = requests.draw_nonce()
    address = requests.address_of(world.program_id, world.queue, world.requester.pubkey(), nonce, body)
    assert (await world.submit(nonce=nonce)).address == address


async def test_a_request_that_one_late_node_does_not_know_is_waited_for(world: World) -> None:
    body = Body("tiny", PARAMS, Inline(b"What is the capital of Japan?"))
    address = requests.address_of(world.program_id, world.queue, world.requester.pubkey(), 7, body)
    waiting = asyncio.create_task(requests.wait(world.rpc, address, timeout_seconds=20, overdue_slots=0))
    await asyncio.sleep(0)
    await world.submit(nonce=7, ttl_slots=20)
    await world.node.advance(40)
    assert (await waiting).address == address


async def test_a_request_that_nobody_knows_is_not_waited_for_for_ever(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(requests, "ABSENT_SECONDS", 0.1)
    with pytest.raises(OracleError, match="ORC-CLIENT-001"):
        await requests.wait(world.rpc, Keypair().pubkey(), timeout_seconds=20)


async def test_a_request_that_stays_open_is_not_waited_for_for_ever(world: World) -> None:
    submitted = await world.submit()
    with pytest.raises(OracleError, match="ORC-CLIENT-006"):
        await requests.wait(world.rpc, submitted.address, timeout_seconds=0.2)
