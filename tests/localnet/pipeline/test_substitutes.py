"""No model passes for another (law 9), from the configuration to the receipt."""

from __future__ import annotations

import pytest
from pipeline_world import PARAMS, World

from oracle.client.verify import verify
from oracle.core.lifecycle import State
from oracle.core.request import Flags, Params, Reason

pytestmark = pytest.mark.localnet


async def test_a_substitute_runs_only_where_the_request_allows_it_and_the_receipt_says_which_model_ran(
    world: World,
) -> None:
    route = {"provider": "scripted", "model": "tiny", "timeout_seconds": 10, "substitute": True}
    world.settings["models"]["big"] = {"routes": [route]}
    async with world.daemon() as daemon:
        strict = await world.submit(model="big", nonce=1)
        row = await world.reaches(daemon, strict, State.REJECTED)
        assert (row.reject_reason, row.attempts_made) == (Reason.MODEL_UNAVAILABLE, 0)
        liberal = await world.submit(
            model="big", nonce=2, params=Params(PARAMS.max_output_tokens, flags=Flags.ANY_MODEL)
        )
        await world.reaches(daemon, liberal, State.SETTLED)
        receipt = (await verify(world.rpc, world.program_id, liberal.address)).receipt
    assert (receipt["model_asked"], receipt["model_run"]) == ("big", "tiny")
