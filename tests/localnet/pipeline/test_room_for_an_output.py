"""A small answer is also written on chain, where the requester has paid for room."""

import hashlib

import pytest
from pipeline_world import PARAMS, World, until

from oracle.client import requests
from oracle.client.requests import Submitted
from oracle.core.lifecycle import State
from oracle.core.request import Body, Inline, Request
from oracle.store import settlements

pytestmark = pytest.mark.localnet


async def ask(world: World, output_cap: int) -> Submitted:
    return await requests.submit(
        world.rpc,
        world.program_id,
        queue=world.queue,
        requester=world.requester,
        body=Body("tiny", PARAMS, Inline(b"What is the capital of Japan?")),
        fee_lamports=50_000,
        ttl_slots=2_000,
        output_cap=output_cap,
    )


async def test_an_answer_that_fits_its_room_is_published_once_its_settlement_is_final(world: World) -> None:
    async with world.daemon() as daemon:
        submitted = await ask(world, 400)

        async def published() -> Request | None:
            request = await requests.read(world.rpc, submitted.address)
            return request if request.inline_output else None

        request = await until(published, "the output on chain")
        await world.reaches(daemon, submitted, State.SETTLED)
    assert hashlib.sha256(request.inline_output).digest() == request.header.output_hash


async def test_an_answer_that_does_not_fit_its_room_is_settled_all_the_same(world: World) -> None:
    async with world.daemon() as daemon:
        submitted = await ask(world, 4)
        row = await world.reaches(daemon, submitted, State.SETTLED)

        async def final() -> bool:
            found = await world.row(daemon, submitted)
            return found is not None and found.end_finalized

        await until(final, "a final end")
        made = await daemon.context.store.read(lambda c: settlements.of(c, row.id))
    assert [intent.kind for intent in made] == ["record"]
