"""What may be spent is spent, and not a lamport more; and who waits for money goes on by himself when it is there."""

from __future__ import annotations

import pytest
from pipeline_world import DrivenClock, World
from solders.keypair import Keypair

from oracle.core.budget import DAY_MS, day_began_ms
from oracle.core.lifecycle import State
from oracle.core.policy import BUDGET_EXHAUSTED, BUDGET_TOO_SMALL
from oracle.core.request import Reason
from oracle.localnet import network
from oracle.pipeline.daemon import Daemon
from oracle.store import attempts

pytestmark = pytest.mark.localnet
PROMPT = "What is the capital of Japan?"
DEAR = 10_000.0
"""USD for a million tokens: what a job really costs is then well below its quote, but not nothing."""


async def priced(world: World) -> int:
    """The quote of a request, from a daemon that has no budget."""
    world.charge(usd_per_million_tokens=DEAR)
    async with world.daemon() as daemon:
        return await world.quote(daemon, PROMPT)


async def providers_tried(daemon: Daemon, request_id: int) -> list[str]:
    return [attempt.provider for attempt in await daemon.context.store.read(lambda c: attempts.of(c, request_id))]


async def test_a_request_over_the_budget_of_the_day_goes_on_when_the_day_turns(world: World) -> None:
    quote = await priced(world)
    clock = DrivenClock()
    limits = {"daily_budget_lamports": quote, "max_retries": 0}
    async with world.daemon(clock=clock, policy=limits) as daemon:
        first = await world.submit(PROMPT, fee_lamports=2 * quote, nonce=1, ttl_slots=100_000)
        await world.reaches(daemon, first, State.SETTLED)
        second = await world.submit(PROMPT, fee_lamports=2 * quote, nonce=2, ttl_slots=100_000)
        await world.waits(daemon, second, BUDGET_EXHAUSTED)
    async with world.daemon(clock=clock, policy=limits) as daemon:
        # A restart forgets nothing of what was spent.
        waiting = await world.waits(daemon, second, BUDGET_EXHAUSTED)
        assert waiting.attempts_made == 0
        clock.ahead_seconds = (day_began_ms(clock.now_ms()) + DAY_MS - clock.now_ms()) / 1000 + 1
        await world.reaches(daemon, second, State.SETTLED)


async def test_who_was_admitted_and_cannot_be_bought_for_at_once_waits_as_admitted(world: World) -> None:
    """It would otherwise be judged, and its settlement simulated, anew for every try."""
    quote = await priced(world)
    async with world.daemon(policy={"daily_budget_lamports": quote}) as daemon:
        first = await world.submit(PROMPT, fee_lamports=2 * quote, nonce=1)
        await world.reaches(daemon, first, State.SETTLED)
        second = await world.submit(PROMPT, fee_lamports=2 * quote, nonce=2)
        assert (await world.waits(daemon, second, BUDGET_EXHAUSTED)).state is State.ADMITTED


async def test_a_requester_that_has_used_up_its_day_waits_while_another_is_served(world: World) -> None:
    quote = await priced(world)
    stranger = Keypair()
    await network.fund(world.node, stranger.pubkey())
    async with world.daemon(policy={"requester_daily_budget_lamports": quote}) as daemon:
        first = await world.submit(PROMPT, fee_lamports=2 * quote, nonce=1)
        await world.reaches(daemon, first, State.SETTLED)
        second = await world.submit(PROMPT, fee_lamports=2 * quote, nonce=2)
        await world.waits(daemon, second, BUDGET_EXHAUSTED)
        other = await world.submit(PROMPT, fee_lamports=2 * quote, requester=stranger)
        await world.reaches(daemon, other, State.SETTLED)
        assert (await world.waits(daemon, second, BUDGET_EXHAUSTED)).attempts_made == 0


async def test_a_provider_that_has_used_up_its_day_is_followed_by_the_next(world: World) -> None:
    quote = await priced(world)
    world.settings["providers"]["other"] = dict(world.settings["providers"]["scripted"])
    world.charge(usd_per_million_tokens=DEAR, daily_budget_lamports=quote)
    world.settings["models"]["tiny"]["routes"].append({"provider": "other", "model": "tiny"})
    async with world.daemon() as daemon:
        rows = []
        for nonce in (1, 2):
            submitted = await world.submit(PROMPT, fee_lamports=2 * quote, nonce=nonce)
            rows.append(await world.reaches(daemon, submitted, State.SETTLED))
        assert [await providers_tried(daemon, row.id) for row in rows] == [["scripted"], ["other"]]


async def test_a_request_whose_own_budget_is_used_up_is_rejected_for_it(world: World) -> None:
    quote = await priced(world)
    world.model.faults.add("lose_answer", count=None)
    limits = {"request_budget_lamports": 2 * quote - 1, "max_unconfirmed_purchases": 5}
    async with world.daemon(policy=limits) as daemon:
        submitted = await world.submit(PROMPT, fee_lamports=2 * quote)
        row = await world.reaches(daemon, submitted, State.REJECTED)
        assert await providers_tried(daemon, row.id) == ["scripted"]
    assert (row.reject_reason, row.error_code) == (Reason.BUDGET_EXHAUSTED, BUDGET_TOO_SMALL.code)
