"""A request that keeps room for an inline output is a request like any other."""

import pytest
from pipeline_world import PARAMS, World

from oracle.client import requests
from oracle.core.lifecycle import State
from oracle.core.request import Body, Inline

pytestmark = pytest.mark.localnet


async def test_a_request_with_room_for_an_output_is_settled(world: World) -> None:
    async with world.daemon() as daemon:
        submitted = await requests.submit(
            world.rpc,
            world.program_id,
            queue=world.queue,
            requester=world.requester,
            body=Body("tiny", PARAMS, Inline(b"What is the capital of Japan?")),
            fee_lamports=50_000,
            ttl_slots=2_000,
            output_cap=100,
        )
        await world.reaches(daemon, submitted, State.SETTLED)
