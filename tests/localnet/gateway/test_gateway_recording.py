"""Answers that are recorded on chain: given once, bought once, settled once, and verified by anyone."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections import Counter
from typing import Any

import httpx
import pytest
from gateway_world import (
    MODEL,
    GatewayWorld,
    answer_to,
    ask,
    holds,
    open_gateway_world,
    refusal,
)
from pipeline_world import World, confirming_late, dropped_with_a_fork, until
from solders.pubkey import Pubkey
from solders.transaction import VersionedTransaction
from sqlalchemy import Connection, or_, select

from oracle.chain.program import instructions
from oracle.chain.program.events import RequestSubmitted, read_events
from oracle.chain.program.layout import decode_request
from oracle.client.verify import Verification, verify
from oracle.core.errors import OracleError
from oracle.core.request import Request, Status, Uri
from oracle.core.settlement import SignatureState
from oracle.localnet import network
from oracle.localnet.chain import Chain
from oracle.store import attempts, calls, recordings, requests, settlements
from oracle.store import schema as tables
from oracle.store.rows import RecordingRow, RequestRow
from oracle.store.schema import LedgerKind, RecordingState

pytestmark = [pytest.mark.localnet, pytest.mark.asyncio(loop_scope="package")]

RECORD = {"X-Oracle-Record": "true"}


async def recording(gateway: GatewayWorld, address: str, *states: RecordingState) -> RecordingRow:
    async def look() -> RecordingRow | None:
        row = await gateway.context.store.read(lambda c: recordings.find(c, address))
        return row if row is not None and row.state in states else None

    return await until(look, f"the recording in {states}")


async def request_row(gateway: GatewayWorld, address: str) -> RequestRow:
    row = await gateway.context.store.read(lambda c: requests.latest(c, address))
    assert row is not None
    return row


async def verified(world: World, address: str) -> Verification:
    async def look() -> Verification | None:
        with contextlib.suppress(OracleError):
            found = await verify(world.rpc, world.program_id, Pubkey.from_string(address))
            return found if found.ok else None
        return None

    return await until(look, "the verified answer")


async def test_a_recorded_answer_is_settled_once_verified_and_never_bought_again(gateway: GatewayWorld) -> None:
    world = gateway.world
    async with gateway.client("scribe") as client:
        raw = await client.chat.completions.with_raw_response.create(**ask("on chain"), extra_headers=RECORD)
        answer = raw.parse()
        assert answer.model_extra is not None
        address = answer.model_extra["oracle"]["request"]
        assert raw.headers["x-oracle-request"] == address
        await recording(gateway, address, RecordingState.ENDED)

        found = await verify(world.rpc, world.program_id, Pubkey.from_string(address))
        assert found.ok, found.checks
        assert found.output == (answer.choices[0].message.content or "").encode()
        assert found.output == answer_to("on chain").encode()
        assert (found.receipt["provider"], found.receipt["model_asked"]) == ("scripted", MODEL)

        row = await request_row(gateway, address)
        assert len(world.model.requests) == 1
        assert await gateway.context.store.read(lambda c: attempts.of(c, row.id)) == []
        assert row.fee_lamports == 10_000
        (told,) = ((await gateway.get(f"/recordings/{address}", "scribe")).json(),)
        assert (told["state"], told["request_state"]) == ("ended", "settled")
        assert told["output_hash"] == hashlib.sha256(found.output).hexdigest()
        assert (await gateway.get(f"/recordings/{address}", "alice")).status_code == 404


async def test_a_streamed_answer_names_its_request_from_the_first_byte_on(gateway: GatewayWorld) -> None:
    world = gateway.world
    async with gateway.client("scribe") as client:
        question = ask("streamed", stream=True)
        async with client.chat.completions.with_streaming_response.create(
            **question, extra_body={"oracle_record": True}
        ) as response:
            address = response.headers["x-oracle-request"]
            chunks = [chunk async for chunk in await response.parse()]
        assert chunks[-1].model_extra["oracle"]["request"] == address
        text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
        assert (await verified(world, address)).output == text.encode()


async def test_the_gateways_own_key_pays_and_every_lamport_is_in_the_books(gateway: GatewayWorld) -> None:
    world = gateway.world
    async with gateway.client("scribe") as client:
        payer = gateway.payer.pubkey()
        before = (await world.rpc.get_balance(payer)).value
        answer = await client.chat.completions.create(**ask("who pays"), extra_headers=RECORD)
        address = answer.model_extra["oracle"]["request"]  # type: ignore[index]
        row = await recording(gateway, address, RecordingState.ENDED)
        account = (await world.rpc.get_account(Pubkey.from_string(address))).value
        assert account is not None
        header = decode_request(Pubkey.from_string(address), account.data).header
        assert (header.requester, header.refund_to, header.status) == (payer, payer, Status.FULFILLED)
        paid = before - (await world.rpc.get_balance(payer)).value
        rent = account.lamports
        call = await gateway.context.store.read(lambda c: calls.get(c, row.call_id))

        async def all_booked() -> bool:
            return await gateway.context.store.read(lambda c: booked(c, address)) == [
                (LedgerKind.REQUEST_FEE, -10_000),
                (LedgerKind.FEE_EARNED, 10_000),
            ]

        await until(all_booked, "the fee, paid and earned")
        assert paid == 10_000 + rent + 5_000
        assert paid <= call.chain_lamports <= paid + 12_000


def booked(c: Connection, address: str) -> list[tuple[LedgerKind, int]]:
    """What the gateway has paid for a request, and what the operator has earned by it."""
    row = requests.latest(c, address)
    assert row is not None
    mine = or_(tables.ledger.c.note == address, tables.ledger.c.request_id == row.id)
    query = select(tables.ledger.c.kind, tables.ledger.c.lamports).where(mine).order_by(tables.ledger.c.lamports)
    return [(kind, lamports) for kind, lamports in c.execute(query)]


async def test_who_asks_again_under_the_same_name_gets_the_same_answer_unbought(
    gateway: GatewayWorld,
) -> None:
    world = gateway.world
    async with gateway.client("scribe") as client:
        headers = {**RECORD, "Idempotency-Key": "order-17"}
        question = ask("once")
        first = await client.chat.completions.create(**question, extra_headers=headers)
        again = await client.chat.completions.create(**question, extra_headers=headers)
        stream = await client.chat.completions.create(**question, stream=True, extra_headers=headers)
        chunks = [chunk async for chunk in stream]
        other = await client.chat.completions.create(**question, extra_headers={**headers, "Idempotency-Key": "18"})
        assert first.choices == again.choices
        assert first.usage == again.usage
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == first.choices[0].message.content
        addresses = [answer.model_extra["oracle"]["request"] for answer in (first, again, chunks[-1], other)]  # type: ignore[index]
        assert addresses[0] == addresses[1] == addresses[2] != addresses[3]
        assert len(world.model.requests) == 2


async def test_the_same_call_twice_at_once_is_answered_once(gateway: GatewayWorld) -> None:
    world = gateway.world
    world.model.word_seconds = 0.1
    async with gateway.client("scribe", max_retries=30) as client:
        headers = {**RECORD, "Idempotency-Key": "order-19"}
        answers = await asyncio.gather(
            *(client.chat.completions.create(**ask("twice"), extra_headers=headers) for _ in range(2))
        )
        assert answers[0].choices == answers[1].choices
        assert len(world.model.requests) == 1


@pytest.mark.parametrize(
    ("name", "question", "headers", "status", "code"),
    [
        ("alice", ask(), RECORD, 403, "recording_forbidden"),
        ("secret", ask(), RECORD, 403, "recording_forbidden"),
        ("miser", ask(), RECORD, 429, "insufficient_quota"),
        ("scribe", ask(top_p=0.5), RECORD, 400, "recording_unsuitable"),
        ("scribe", ask(temperature=0.12345), RECORD, 400, "recording_unsuitable"),
        ("scribe", ask("long " * 300), RECORD, 400, "recording_unsuitable"),
        ("scribe", ask(), {"X-Oracle-Record": "perhaps"}, 400, "invalid_value"),
        ("scribe", ask(), {**RECORD, "Idempotency-Key": "x" * 256}, 400, "invalid_value"),
    ],
)
async def test_what_cannot_be_recorded_is_refused_before_anything_is_bought(
    gateway: GatewayWorld, name: str, question: dict[str, Any], headers: dict[str, str], status: int, code: str
) -> None:
    async with gateway.client(name) as client:
        error = await refusal(client.chat.completions.create(**question, extra_headers=headers))
    assert (error.status_code, error.code) == (status, code), error.response.text
    assert gateway.model.requests == []


@pytest.mark.asyncio(loop_scope="function")
async def test_a_prompt_too_long_for_a_transaction_is_named_by_its_hash_and_served(world: World) -> None:
    """The program takes https addresses alone, so the public address of this operator is one that nobody serves."""
    question = "Tell me a long story. " * 100
    operator = {"base_uri": "https://oracle.example"}
    async with open_gateway_world(world, operator=operator) as gateway, gateway.client("scribe") as client:
        answer = await client.chat.completions.create(**ask(question), extra_headers=RECORD)
        address = Pubkey.from_string(answer.model_extra["oracle"]["request"])  # type: ignore[index]
        ended = await asked_on_chain(world, address)
        asked = ended.body.input
        assert isinstance(asked, Uri)
        served = world.settings["operator"]["base_uri"]

        async def is_settled() -> bool:
            return (await verify(world.rpc, world.program_id, address, base_uri=served)).ok

        await until(is_settled, "the verified answer")
        async with httpx.AsyncClient(trust_env=False, timeout=60) as http:
            prompt = await http.get(asked.uri.replace("https://oracle.example", served))
            unknown = await http.get(f"{served}/v1/inputs/{'0' * 64}")
    assert hashlib.sha256(prompt.content).digest() == asked.sha256
    assert prompt.json() == [{"role": "user", "content": question}]
    assert (unknown.status_code, len(world.model.requests)) == (404, 1)


async def test_a_second_transaction_is_made_only_when_the_first_can_no_longer_land(gateway: GatewayWorld) -> None:
    world = gateway.world
    async with gateway.client("scribe") as client:
        payer, lost = gateway.payer.pubkey(), []

        def deliver(tx: VersionedTransaction) -> int | None:
            if tx.message.account_keys[0] != payer:
                return 0
            lost.append(tx.signatures[0])
            return None

        await world.node.call(lambda chain: setattr(chain, "delivery", deliver))
        answer = await client.chat.completions.create(**ask("lost on the way"), extra_headers=RECORD)
        address = answer.model_extra["oracle"]["request"]  # type: ignore[index]
        first = await recording(gateway, address, RecordingState.SENT)
        await until(lambda: resent(lost), "the same bytes again")
        assert len(set(lost)) == 1
        await world.node.call(lambda chain: chain.advance(200))
        await world.node.call(lambda chain: setattr(chain, "delivery", lambda tx: 0))
        last = await recording(gateway, address, RecordingState.ENDED)
        assert last.signature_id != first.signature_id
        dead = await gateway.context.store.read(lambda c: settlements.signature_by_id(c, first.signature_id or 0))
        assert dead.state is SignatureState.EXPIRED
        assert (await submissions(world))[address] == 1


async def resent(lost: list[Any]) -> bool:
    return len(lost) > 1


async def test_a_request_on_a_fork_that_is_dropped_is_made_again_by_the_same_bytes(gateway: GatewayWorld) -> None:
    world = gateway.world
    async with gateway.client("scribe") as client:
        async with confirming_late(world.node):
            answer = await client.chat.completions.create(**ask("forked"), extra_headers=RECORD)
            await dropped_with_a_fork(world.node, instructions.SUBMIT_REQUEST)
        address = answer.model_extra["oracle"]["request"]  # type: ignore[index]
        assert (await verified(world, address)).output == answer_to("forked").encode()
        assert len(world.model.requests) == 1


async def test_an_answer_that_cannot_be_recorded_yet_is_recorded_when_it_can(gateway: GatewayWorld) -> None:
    world = gateway.world
    async with gateway.client("scribe") as client:
        world.model.flowing.clear()
        asking = asyncio.ensure_future(client.chat.completions.create(**ask("broke meanwhile"), extra_headers=RECORD))
        await holds(lambda: len(world.model.requests) == 1, "the purchase")
        await world.node.call(lambda chain: chain.set_account(gateway.payer.pubkey(), None))
        world.model.flowing.set()
        address = (await asking).model_extra["oracle"]["request"]  # type: ignore[index]

        async def refused() -> bool:
            row = await gateway.context.store.read(lambda c: recordings.find(c, address))
            return row is not None and row.error_code == "ORC-GATEWAY-013"

        await until(refused, "the refusal")
        await network.fund(world.node, gateway.payer.pubkey())
        await verified(world, address)
        await world.node.call(lambda chain: chain.set_account(gateway.payer.pubkey(), None))
        error = await refusal(client.chat.completions.create(**ask("broke"), extra_headers=RECORD))
        await network.fund(world.node, gateway.payer.pubkey())
        assert (error.status_code, error.code) == (503, "recording_impossible")
        assert len(world.model.requests) == 1


async def asked_on_chain(world: World, address: Pubkey) -> Request:
    async def look() -> Request | None:
        account = (await world.rpc.get_account(address)).value
        return None if account is None else decode_request(address, account.data)

    return await until(look, "the request on chain")


async def submissions(world: World) -> Counter[str]:
    """How often each request was made, as the chain's own history tells."""

    def read(chain: Chain) -> Counter[str]:
        records = [record for record in chain.ledger.transactions_after(0) if record.err is None]
        events = [event for each in records for event in read_events(world.program_id, each.meta["logMessages"])]
        return Counter(str(event.request) for event in events if isinstance(event, RequestSubmitted))

    return await world.node.call(read)
