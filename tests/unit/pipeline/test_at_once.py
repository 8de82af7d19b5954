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
from settlement_world import ADDRESSES, OURS, Memory, World, until
from structlog.testing import capture_logs

from oracle.chain.program.layout import decode_request
from oracle.chain.sightings import Sighting
from oracle.core.compute import Money, Quote
from oracle.core.lifecycle import State
from oracle.core.policy import NOT_NOW
from oracle.core.request import ZERO_HASH, Uri
from oracle.core.routing import Route
from oracle.pipeline import at_once, intake, submit, worker
from oracle.pipeline.handover import Work
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
def loops(database: Memory, monkeypatch: pytest.MonkeyPatch) -> Loops:
    return Loops(World(database), monkeypatch)


@pytest.fixture
def judge(monkeypatch: pytest.MonkeyPatch) -> Judge:
    made = Judge()
    monkeypatch.setattr(at_once, "judged", made.judged)
    return made


class Loops:
    """Those of admission and purchase, with so many places; the rows that are bought for."""

    def __init__(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        self.world = world
        self.places = 256
        self.bought: list[RequestRow] = []
        self.work: set[asyncio.Task[None]] = set()
        monkeypatch.setattr(submit, "buying", self.buying)
        world.context.to_admit.open(lambda: self.places, self.start, self.step)
        world.context.to_buy.open(lambda: self.places - len(self.work), self.start, self.step)

    def start(self, work: Work) -> None:
        self.work.add(asyncio.create_task(work))

    async def step(self, row: RequestRow) -> None:
        raise AssertionError("nothing is handed over that has its row")

    def buying(self, attempt: Any, task: Any) -> worker.Step:
        async def buy(context: Any, row: RequestRow) -> None:
            self.bought.append(row)

        return buy

    async def end(self) -> None:
        if self.work:
            await asyncio.gather(*self.work)
            self.work.clear()


async def sighting(world: World, n: int) -> Sighting:
    """Of a new request, or of the one that is there."""
    world.submit(n)
    world.advance(40)
    read = await world.rpc.get_multiple_accounts([ADDRESSES[n]])
    (account,) = read.value
    assert account is not None
    return Sighting(ADDRESSES[n], account.data, read.slot, "push")


async def states(loops: Loops, *numbers: int) -> list[State]:
    """What becomes of these requests, which are seen at once."""
    world = loops.world
    sightings = [await sighting(world, n) for n in numbers]
    await asyncio.gather(*(intake.take_in(world.context, sighting) for sighting in sightings))
    await loops.end()
    return [(await world.row(n)).state for n in numbers]


async def test_it_is_written_down_once_with_its_purchase_and_begun_where_purchases_are_made(
    loops: Loops, judge: Judge
) -> None:
    world = loops.world
    before = world.store.commits
    assert await states(loops, 0) == [State.RUNNING]
    assert world.store.commits == before + 1
    row = await world.row()
    assert loops.bought == [row]
    assert (row.attempts_made, row.lease_owner) == (1, world.context.instance)
    (attempt,) = await world.store.read(lambda c: attempts.of(c, row.id))
    assert (attempt.state, attempt.number, attempt.provider) == (AttemptState.INTENDED, 1, "bought")
    assert [line.event for line in await world.store.read(lambda c: journal.of(c, row.id))] == [
        "seen",
        "admitted",
        "running",
    ]
    assert [entry.lamports for entry in await world.store.read(lambda c: ledger.of(c, row.id))] == [-1_000]


async def test_those_that_come_together_are_written_together(loops: Loops, judge: Judge) -> None:
    world = loops.world
    before = world.store.commits
    assert await states(loops, 0, 1, 2) == [State.RUNNING] * 3
    assert world.store.commits == before + 1
    assert len({row.id for row in loops.bought}) == 3


async def test_its_lease_is_counted_from_its_intent(loops: Loops, judge: Judge) -> None:
    world = loops.world

    async def slowly() -> tuple[Route, Quote]:
        world.clock.pass_by(60)
        return ROUTE, QUOTE

    judge.says = slowly
    await states(loops, 0)
    row = await world.row()
    assert row.lease_until_ms == world.clock.now_ms() + world.context.lease_ms
    assert row.state_since_ms == row.seen_at_ms + 60_000
    seen, *later = await world.store.read(lambda c: journal.of(c, row.id))
    assert (seen.at_ms, seen.slot) == (row.seen_at_ms, row.chain_slot)
    assert {(line.at_ms, line.slot) for line in later} == {(row.state_since_ms, world.context.slot())}


@pytest.mark.parametrize("where", ["to_admit", "to_buy"])
async def test_nothing_overtakes_what_waits_for_a_loop(loops: Loops, judge: Judge, where: str) -> None:
    world = loops.world
    getattr(world.context, where).close()
    assert await states(loops, 0) == [State.SEEN]
    assert (judge.asked, loops.bought) == ([], [])


async def test_only_as_many_are_on_their_way_as_there_are_places(loops: Loops, judge: Judge) -> None:
    loops.places = 2
    assert sorted(await states(loops, 0, 1, 2, 3)) == [State.RUNNING] * 2 + [State.SEEN] * 2
    assert len(judge.asked) == 2


@pytest.mark.parametrize(
    ("error", "errors"),
    [(NOT_NOW("paused", retry_after_seconds=5.0), []), (ZeroDivisionError(), ["not bought at once"])],
)
async def test_what_is_in_the_way_leaves_the_request_to_the_loops(
    loops: Loops, judge: Judge, error: Exception, errors: list[str]
) -> None:
    world = loops.world

    async def no() -> tuple[Route, Quote]:
        raise error

    judge.says = no
    with capture_logs() as entries:
        assert await states(loops, 0) == [State.SEEN]
    assert [entry["event"] for entry in entries] == errors
    row = await world.row()
    assert (row.lease_owner, row.error_code, row.retries) == (None, None, 0)
    assert loops.bought == []
    judge.says = judge.yes
    assert await states(loops, 1) == [State.RUNNING]


async def test_what_takes_long_to_be_judged_gets_its_row_first(
    loops: Loops, judge: Judge, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def never() -> tuple[Route, Quote]:
        await asyncio.Event().wait()
        raise AssertionError

    judge.says = never
    monkeypatch.setattr(at_once, "JUDGE_SECONDS", 0.001)
    assert await states(loops, 0) == [State.SEEN]


async def test_a_request_that_has_its_row_is_not_bought_for_a_second_time(loops: Loops, judge: Judge) -> None:
    world = loops.world
    assert await states(loops, 0, 0) == [State.RUNNING] * 2
    assert await states(loops, 0) == [State.RUNNING]
    assert len(loops.bought) == 1
    loops.places = 0
    assert await states(loops, 1) == [State.SEEN]
    loops.places = 1
    assert await states(loops, 1) == [State.SEEN]
    assert not await world.store.read(lambda c: attempts.of(c, 2))


async def test_a_requester_has_no_more_open_than_he_may_and_a_flood_of_his_is_not_judged(
    loops: Loops, judge: Judge
) -> None:
    world = loops.world
    policy = world.context.config.policy.model_copy(update={"max_open_per_requester": 2})
    world.context.config = world.context.config.model_copy(update={"policy": policy})
    seen = await sighting(world, 3)
    assert await states(loops, 0) == [State.RUNNING]
    assert sorted(await states(loops, 1, 2)) == [State.RUNNING, State.SEEN]
    assert len(judge.asked) == 3
    await intake.take_in(world.context, seen)
    assert (len(judge.asked), (await world.row(3)).state) == (3, State.SEEN)
    world.clock.pass_by(at_once.PASSED_OVER_SECONDS)
    assert at_once.is_possible(world.context, Look(decode_request(seen.address, seen.data), seen, OURS, 0))


async def test_a_probe_of_a_paused_provider_is_left_to_the_loops(loops: Loops, judge: Judge) -> None:
    breakers = loops.world.context.breakers
    breakers.hold("bought", NOT_NOW("paused"))
    assert await states(loops, 0) == [State.SEEN]
    assert len(judge.asked) == 1


async def test_an_answer_of_the_gateway_is_not_bought_again(loops: Loops, judge: Judge) -> None:
    world = loops.world
    await world.store.write(lambda c: kept_answers.put(c, str(ADDRESSES[1])))
    assert await states(loops, 0, 1) == [State.RUNNING, State.SEEN]


async def test_a_purchase_that_no_budget_has_room_for_spoils_nobody_elses(loops: Loops, judge: Judge) -> None:
    world = loops.world
    policy = world.context.config.policy.model_copy(update={"daily_budget_lamports": 2_500})
    world.context.config = world.context.config.model_copy(update={"policy": policy})
    assert sorted(await states(loops, 0, 1, 2)) == [State.RUNNING] * 2 + [State.SEEN]
    assert len(loops.bought) == 2


async def test_a_daemon_that_stops_buys_what_it_is_about_to_buy(loops: Loops, judge: Judge) -> None:
    context, is_asked, may_say = loops.world.context, asyncio.Event(), asyncio.Event()
    loop = asyncio.create_task(worker.run(context, submit.STATES, submit.submit, context.to_buy))

    async def while_it_stops() -> tuple[Route, Quote]:
        is_asked.set()
        await may_say.wait()
        return ROUTE, QUOTE

    judge.says = while_it_stops
    await until(lambda: context.to_buy.is_free)
    await intake.take_in(context, await sighting(loops.world, 0))
    await is_asked.wait()
    context.stopping.set()
    context.bells.ring_all()
    await until(lambda: not context.to_buy.is_free)
    may_say.set()
    await loop
    assert loops.bought == [await loops.world.row()]
    assert loops.bought[0].state is State.RUNNING


async def test_what_must_be_claimed_or_fetched_first_is_left_to_the_loops(loops: Loops) -> None:
    seen = await sighting(loops.world, 0)
    request = decode_request(seen.address, seen.data)
    assert at_once.is_possible(loops.world.context, Look(request, seen, OURS, 0))
    for other in (
        replace(request, header=replace(request.header, claim_required=True)),
        replace(request, body=replace(request.body, input=Uri("https://a.example/", ZERO_HASH))),
    ):
        assert not at_once.is_possible(loops.world.context, Look(other, seen, OURS, 0))
