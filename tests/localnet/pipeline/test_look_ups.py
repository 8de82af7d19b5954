"""A look-up of a lost purchase is no verdict on it: what it cannot tell is asked again (law 5)."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from pipeline_world import DrivenClock, World, leases_at_slow_calls, until

from oracle.core.compute import CannotTell
from oracle.core.request import Status
from oracle.pipeline import submit
from oracle.providers import errors

pytestmark = pytest.mark.localnet


@pytest.mark.parametrize("trouble", ["is refused", "does not end", "breaks"])
async def test_a_look_up_that_is_refused_or_does_not_end_cannot_tell(
    world: World, trouble: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(submit, "CALL_SECONDS", 2.0)
    world.model.faults.add("lose_answer", on="POST *")
    looked_up: list[str] = []

    async def find(_: Any) -> CannotTell:
        looked_up.append(trouble)
        if trouble == "is refused":
            raise errors.NOT_PERMITTED("HTTP 403")
        if trouble == "breaks":
            raise KeyError("a field that was always there")
        await asyncio.Event().wait()
        raise AssertionError("nobody sets it")

    async with world.daemon(policy={"max_retries": 0}) as daemon:
        monkeypatch.setattr(daemon.context.providers["scripted"], "find", find)
        submitted = await world.submit()

        async def asked() -> bool:
            return bool(looked_up)

        await until(asked, "a look-up")
        assert (await world.ended(submitted)).header.status is Status.FULFILLED


async def test_the_lease_outlives_the_call_that_repeats_a_lost_purchase(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.model.faults.add("lose_answer", on="POST *")
    async with world.daemon(clock=(clock := DrivenClock())) as daemon:
        left_ms = leases_at_slow_calls(monkeypatch, clock)
        submitted = await world.submit()
        assert (await world.ended(submitted)).header.status is Status.FULFILLED
        assert [daemon.context.lease_ms - left < 10_000 for left in left_ms] == [True, True]
