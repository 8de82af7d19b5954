"""The main job on real parts: a request on chain is answered, settled, paid and verified."""

import hashlib

import pytest
from pipeline_world import World

from oracle.client.verify import verify
from oracle.core.lifecycle import State
from oracle.core.request import Status
from oracle.store import journal

pytestmark = pytest.mark.localnet


async def test_where_there_is_room_a_request_is_bought_for_as_soon_as_it_is_admitted(world: World) -> None:
    async with world.daemon() as daemon:
        row = await world.reaches(daemon, await world.submit(), State.SETTLED)
        lines = await daemon.context.store.read(lambda c: journal.of(c, row.id))
        assert [line.new_state for line in lines][:3] == [State.SEEN, State.ADMITTED, State.RUNNING]
        assert lines[1].at_ms == lines[2].at_ms


async def test_a_request_is_answered_settled_and_verified(world: World) -> None:
    async with world.daemon() as daemon:
        submitted = await world.submit()
        ended = await world.ended(submitted)
        assert ended.header.status is Status.FULFILLED
        await world.reaches(daemon, submitted, State.SETTLED)
        result = await verify(world.rpc, world.program_id, submitted.address)
    assert result.ok, [check for check in result.checks if not check.ok]
    assert result.output is not None
    assert hashlib.sha256(result.output).digest() == ended.header.output_hash
