"""What is bought for as soon as it is seen: written down once, and left to the loops wherever anything is in the way.

What is judged is the affair of the whole daemon (`tests/localnet`): here it is what each test says.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any, Final

import kept_answers
import pytest
from settlement_world import ADDRESSES, OURS, Memory, World
from structlog.testing import capture_logs

from oracle.chain.program.layout import decode_request
from oracle.chain.sightings import Sighting
from oracle.core.compute import Money, Quote
from oracle.core.lifecycle import State
from oracle.core.policy import NOT_NOW
from oracle.core.request import ZERO_HASH, Inline, Uri
from oracle.core.routing import Route
from oracle.pipeline import at_once, intake, submit
from oracle.pipeline.handover import Step
from oracle.pipeline.look import Look
from oracle.store import attempts, journal, ledger
from oracle.store.rows import RequestRow
from oracle.store.schema import AttemptState

ROUTE: Final = Route("bought", "model")
QUOTE: Final = Quote(1_000, Money(0.0, "USD"))


class Judge:
    """Says what every request is worth; or raises, or never answers."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.says: Callable[[], Awaitable[tuple[Route, Quote]]] = self.yes

    async def yes(self) -> tuple[Route, Quote]:
        return ROUTE, QUOTE

    async def judged(self, context: Any, look: Look, row: RequestRow, task: Any) -> tuple[Route, Quote]:
        self.asked.append(row.address)
        return await self.says()


@pytest.fixture
def judge(monkeypatch: pytest.MonkeyPatch) -> Judge:
    made = Judge()
    monkeypatch.setattr(at_once, "judged", made.judged)
    return made


class Loops:
    """Those of admission and purchase, with so many places. Of each row that is begun, the step."""

    def __init__(self, world: World, places: int = 256) -> None:
        self.begun: list[tuple[RequestRow, Step | None]] = []
        world.context.to_admit.open(lambda: places, lambda row, step: None)
        world.context.to_buy.open(lambda: places - len(self.begun), lambda row, step: self.begun.append((row, step)))

    @property
    def rows(self) -> list[RequestRow]:
        return [row for row, _ in self.begun]


async def states(world: World, *numbers: int) -> list[State]:
    """What becomes of these new requests, which are seen at once."""
    for n in numbers:
        world.submit(n)
    world.advance(40)
    read = await world.rpc.get_multiple_accounts([ADDRESSES[n] for n in numbers])
    sightings = [
        Sighting(ADDRESSES[n], account.data, read.slot, "push")
        for n, account in zip(numbers, read.value, strict=True)
        if account is not None
    ]
    await asyncio.gather(*(intake.take_in(world.context, sighting) for sighting in sightings))
    return [(await world.row(n)).state for n in numbers]


async def test_it_is_written_down_once_with_its_purchase_and_begun_where_purchases_are_made(
    database: Memory, judge: Judge
) -> None:
    world = World(database)
    loops, before = Loops(world), world.store.commits
    assert await states(world, 0) == [State.RUNNING]
    assert world.store.commits == before + 1
    row = await world.row()
    assert loops.rows == [row]
    assert (row.attempts_made, row.lease_owner) == (1, world.context.instance)
    (attempt,) = await world.store.read(lambda c: attempts.of(c, row.id))
    assert (attempt.state, attempt.number, attempt.provider) == (AttemptState.INTENDED, 1, "bought")
    assert [line.event for line in await world.store.read(lambda c: journal.of(c, row.id))] == [
        "seen",
        "admitted",
        "running",
    ]
    assert [entry.lamports for entry in await world.store.read(lambda c: ledger.of(c, row.id))] == [-1_000]


async def test_those_that_come_together_are_written_together(database: Memory, judge: Judge) -> None:
    world = World(database)
    loops, before = Loops(world), world.store.commits
    assert await states(world, 0, 1, 2) == [State.RUNNING] * 3
    assert world.store.commits == before + 1
    assert len({row.id for row in loops.rows}) == 3


async def test_its_lease_is_counted_from_its_intent(database: Memory, judge: Judge) -> None:
    world = World(database)

    async def slowly() -> tuple[Route, Quote]:
        world.clock.pass_by(60)
        return ROUTE, QUOTE

    judge.says = slowly
    Loops(world)
    await states(world, 0)
    assert (await world.row()).lease_until_ms == world.clock.now_ms() + world.context.lease_ms


@pytest.mark.parametrize("where", ["to_admit", "to_buy"])
async def test_nothing_overtakes_what_waits_for_a_loop(database: Memory, judge: Judge, where: str) -> None:
    world = World(database)
    loops = Loops(world)
    getattr(world.context, where).open(lambda: 0, lambda row, step: None)
    assert await states(world, 0) == [State.SEEN]
    assert (judge.asked, loops.begun) == ([], [])


async def test_only_as_many_are_on_their_way_as_there_are_places(database: Memory, judge: Judge) -> None:
    world = World(database)
    Loops(world, places=2)
    assert sorted(await states(world, 0, 1, 2, 3)) == [State.RUNNING] * 2 + [State.SEEN] * 2
    assert len(judge.asked) == 2


@pytest.mark.parametrize(
    ("error", "errors"),
    [(NOT_NOW("paused", retry_after_seconds=5.0), []), (ZeroDivisionError(), ["not bought at once"])],
)
async def test_what_is_in_the_way_leaves_the_request_to_the_loops(
    database: Memory, judge: Judge, error: Exception, errors: list[str]
) -> None:
    world = World(database)

    async def no() -> tuple[Route, Quote]:
        raise error

    judge.says = no
    loops = Loops(world)
    with capture_logs() as entries:
        assert await states(world, 0) == [State.SEEN]
    assert [entry["event"] for entry in entries] == errors
    row = await world.row()
    assert (row.lease_owner, row.error_code, row.retries) == (None, None, 0)
    assert loops.begun == []
    judge.says = judge.yes
    assert await states(world, 1) == [State.RUNNING]


async def test_what_takes_long_to_be_judged_gets_its_row_first(
    database: Memory, judge: Judge, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(database)

    async def never() -> tuple[Route, Quote]:
        await asyncio.Event().wait()
        raise AssertionError

    judge.says = never
    monkeypatch.setattr(at_once, "JUDGE_SECONDS", 0.001)
    Loops(world)
    assert await states(world, 0) == [State.SEEN]


async def test_a_request_that_has_its_row_is_not_bought_for_a_second_time(database: Memory, judge: Judge) -> None:
    world = World(database)
    loops = Loops(world)
    assert await states(world, 0, 0) == [State.RUNNING] * 2
    assert len(loops.begun) == 1
    world.context.to_buy.close()
    assert await states(world, 1) == [State.SEEN]
    Loops(world)
    assert await states(world, 1) == [State.SEEN]
    assert not await world.store.read(lambda c: attempts.of(c, 2))


async def test_a_requester_has_no_more_open_than_he_may(database: Memory, judge: Judge) -> None:
    world = World(database)
    policy = world.context.config.policy.model_copy(update={"max_open_per_requester": 2})
    world.context.config = world.context.config.model_copy(update={"policy": policy})
    Loops(world)
    assert await states(world, 0) == [State.RUNNING]
    assert sorted(await states(world, 1, 2)) == [State.RUNNING, State.SEEN]


async def test_an_answer_of_the_gateway_is_not_bought_again(database: Memory, judge: Judge) -> None:
    world = World(database)
    await world.store.write(lambda c: kept_answers.put(c, str(ADDRESSES[1])))
    Loops(world)
    assert await states(world, 0, 1) == [State.RUNNING, State.SEEN]


async def test_a_purchase_that_no_budget_has_room_for_spoils_nobody_elses(database: Memory, judge: Judge) -> None:
    world = World(database)
    policy = world.context.config.policy.model_copy(update={"daily_budget_lamports": 2_500})
    world.context.config = world.context.config.model_copy(update={"policy": policy})
    loops = Loops(world)
    assert sorted(await states(world, 0, 1, 2)) == [State.RUNNING] * 2 + [State.SEEN]
    assert len(loops.begun) == 2


async def test_what_is_intended_is_bought_though_the_loop_has_been_told_to_stop(
    database: Memory, judge: Judge, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(database)
    called: list[str] = []

    def buying(attempt: Any, task: Any) -> Step:
        async def step(context: Any, row: RequestRow) -> None:
            called.append(row.address)

        return step

    async def as_the_daemon_stops() -> tuple[Route, Quote]:
        world.context.to_buy.close()
        return ROUTE, QUOTE

    monkeypatch.setattr(submit, "buying", buying)
    judge.says = as_the_daemon_stops
    loops = Loops(world)
    assert await states(world, 0) == [State.RUNNING]
    assert (called, loops.begun) == ([str(ADDRESSES[0])], [])


async def test_what_must_be_claimed_or_fetched_first_is_left_to_the_loops(database: Memory, judge: Judge) -> None:
    world = World(database)
    world.submit()
    world.advance(40)
    read = await world.rpc.get_multiple_accounts(ADDRESSES[:1])
    (account,) = read.value
    assert account is not None
    request = decode_request(ADDRESSES[0], account.data)
    look = Look(request, Sighting(ADDRESSES[0], account.data, read.slot, "push"), OURS, 0)
    assert at_once.is_for_here(look)
    for other in (
        replace(request, header=replace(request.header, claim_required=True)),
        replace(request, body=replace(request.body, input=Uri("https://a.example/", ZERO_HASH))),
    ):
        assert not at_once.is_for_here(replace(look, request=other))
    assert isinstance(request.body.input, Inline)
