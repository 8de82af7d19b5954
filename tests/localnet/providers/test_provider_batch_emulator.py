"""The batch adapter against the emulator of OpenAI's files and batches: every fault, and the real model."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

import pytest

from oracle.core.compute import Absent, CannotTell, Found, IdempotencyKey, JobHandle, JobState, JobStatus, Message, Task
from oracle.core.errors import ErrorCode, OracleError, Verdict
from oracle.localnet.emulators.openai import ScriptedOpenAI
from oracle.localnet.emulators.openai_batches import BatchTimings, OpenAIBatches
from oracle.localnet.emulators.server import Running, serve
from oracle.model.pinned import SMOLLM2
from oracle.model.server import LocalModel
from oracle.providers import errors
from oracle.providers.openai.batch import LIST_LAG_SECONDS, WINDOW_SECONDS, BatchCompute
from oracle.providers.pricing import FixedRates
from oracle.providers.registry import build

pytestmark = pytest.mark.localnet

TASK = Task("gpt-x", (Message("user", "What is six times seven?"),), max_output_tokens=64, timeout_seconds=90_000)
KEYS = [IdempotencyKey(f"{n:08d}-2a41-4f7e-9a9f-0d3c1b2a4e5f") for n in range(200)]
LATE = 700.0
"""Past the time in which files are read again."""


class Clock:
    """Time that passes only when it is told to."""

    def __init__(self) -> None:
        self.seconds = 1_789_430_000.0

    def __call__(self) -> float:
        return self.seconds


@dataclass(slots=True)
class World:
    compute: BatchCompute
    emulator: OpenAIBatches
    running: Running
    clock: Clock
    settings: Mapping[str, Any]

    async def bought(self, count: int = 1, task: Task = TASK) -> list[JobHandle]:
        return await asyncio.gather(*(self.compute.submit(task, key) for key in KEYS[:count]))

    async def polled(self, handles: Sequence[JobHandle]) -> list[JobStatus]:
        statuses = await self.compute.poll(handles)
        return [statuses[handle] for handle in handles]

    def another(self) -> BatchCompute:
        """The adapter as a process that starts anew has it: it remembers nothing."""
        return made(self.settings, self.clock)

    def batches(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.emulator.books()["batches"]
        return found


def made(settings: Mapping[str, Any], clock: Clock) -> BatchCompute:
    compute = build("batch", settings, rates=FixedRates(sol_usd=Decimal(100)), environ={})
    assert isinstance(compute, BatchCompute)
    compute.__dict__.update(_now=clock, _clock=clock)
    compute.__dict__["_batches"].__dict__.update(_now=clock, _clock=clock)
    return compute


@asynccontextmanager
async def batches(
    changes: Mapping[str, Any] | None = None, *, model_url: str | None = None, **options: Any
) -> AsyncIterator[World]:
    clock = Clock()
    async with serve(ScriptedOpenAI()) as model:
        emulator = OpenAIBatches(model_url or f"{model.url}/v1", now=clock, **options)
        async with serve(emulator) as running:
            settings = {
                "kind": "openai_batch",
                "base_url": f"{running.url}/v1",
                "api_key": "sk-localnet",
                "gather_seconds": 0.05,
                "poll_seconds": 0,
                "model_prices": {
                    "gpt-x": {"input_usd_per_million_tokens": "1.0", "output_usd_per_million_tokens": "4.0"}
                },
                **(changes or {}),
            }
            compute = made(settings, clock)
            try:
                yield World(compute, emulator, running, clock, settings)
            finally:
                await compute.close()


async def test_requests_that_come_together_share_a_batch_at_half_the_price() -> None:
    async with batches() as world:
        quote = await world.compute.quote(TASK)
        handles = await world.bought(5)
        assert {status.state for status in await world.polled(handles)} == {JobState.SUCCEEDED}
        outputs = [await world.compute.fetch(handle) for handle in handles]
        assert [batch["request_counts"]["total"] for batch in world.batches()] == [5]
    first = outputs[0]
    assert first.content.decode().startswith("answer ")
    assert first.model_run == "gpt-x"
    assert first.input_tokens is not None
    assert first.output_tokens is not None
    # A dollar for a million tokens in and four out, halved; at 100 USD a SOL.
    usd = (first.input_tokens * Decimal(1) + first.output_tokens * Decimal(4)) / 2 / 1_000_000
    assert first.cost_lamports == int(usd * 10_000_000)
    assert first.cost_lamports <= quote.cost_lamports
    assert quote.promised_seconds == WINDOW_SECONDS


async def test_each_request_gets_the_answer_to_its_own_prompt() -> None:
    async with batches() as world:
        tasks = [replace(TASK, messages=(Message("user", f"question {n}"),)) for n in range(6)]
        handles = await asyncio.gather(
            *(world.compute.submit(task, key) for task, key in zip(tasks, KEYS, strict=False))
        )
        await world.polled(handles)
        texts = [(await world.compute.fetch(handle)).content for handle in handles]
        again = world.another()
        await again.poll(handles)
        assert [(await again.fetch(handle)).content for handle in handles] == texts
        await again.close()
    assert len(set(texts)) == 6


async def test_models_do_not_share_a_batch() -> None:
    async with batches() as world:
        await asyncio.gather(
            world.compute.submit(TASK, KEYS[0]), world.compute.submit(replace(TASK, model="gpt-y"), KEYS[1])
        )
        assert len(world.batches()) == 2


async def test_a_batch_that_is_full_does_not_wait_and_the_rest_goes_into_another() -> None:
    async with batches({"gather_seconds": 20}) as world:
        first = asyncio.gather(*(world.compute.submit(TASK, key) for key in KEYS[:195]))
        await first
        assert [batch["request_counts"]["total"] for batch in world.batches()] == [195]


async def test_a_batch_moves_through_its_states() -> None:
    async with batches(timings=BatchTimings(10, 10, 10)) as world:
        (handle,) = await world.bought()
        seen = []
        for _ in range(4):
            (status,) = await world.polled([handle])
            seen.append(status.state)
            world.clock.seconds += 10
        assert seen == [JobState.QUEUED, JobState.RUNNING, JobState.RUNNING, JobState.SUCCEEDED]


async def test_a_batch_is_asked_after_once_in_a_while_however_often_its_requests_are() -> None:
    async with batches({"poll_seconds": 30}, timings=BatchTimings(run_seconds=1000)) as world:
        handles = await world.bought(10)
        before = len(world.running.calls)
        for _ in range(5):
            await world.polled(handles)
        assert len(world.running.calls) - before == 1
        world.clock.seconds += 30
        await world.polled(handles)
        assert len(world.running.calls) - before == 2


# --- the purchase ---

CREATE = "POST /batches"


@pytest.mark.parametrize(
    ("fault", "was_made"),
    [
        ({"kind": "lose_answer"}, True),
        ({"kind": "truncate"}, True),
        ({"kind": "malformed"}, True),
        ({"kind": "drop"}, False),
        ({"kind": "error", "status": 503}, False),
        ({"kind": "html"}, False),
    ],
    ids=lambda value: value["kind"] if isinstance(value, dict) else "",
)
async def test_an_unclear_purchase_is_looked_up_by_the_metadata(fault: dict[str, Any], was_made: bool) -> None:
    async with batches() as world:
        world.emulator.faults.add(**fault, on=CREATE)
        outcomes = await asyncio.gather(*(world.compute.submit(TASK, key) for key in KEYS[:3]), return_exceptions=True)
        assert [getattr(outcome, "verdict", None) for outcome in outcomes] == [Verdict.UNKNOWN] * 3
        other = world.another()
        for key in KEYS[:3]:
            found = await other.find(key)
            if was_made:
                assert isinstance(found, Found)
                assert (await other.poll([found.handle]))[found.handle].state is JobState.SUCCEEDED
            else:
                assert isinstance(found, CannotTell)
        world.clock.seconds += LIST_LAG_SECONDS
        assert isinstance(await other.find(KEYS[0]), Found if was_made else Absent)
        assert isinstance(await other.find(KEYS[9]), CannotTell)
        await other.close()


async def test_a_batch_whose_metadata_is_lost_is_found_by_its_file() -> None:
    async with batches() as world:
        world.emulator.faults.add("no_metadata")
        (handle,) = await world.bought()
        found = await world.another().find(KEYS[0])
        assert isinstance(found, Found)
        assert found.handle == handle
        assert (await world.polled([handle]))[0].state is JobState.SUCCEEDED


async def test_a_batch_that_the_list_shows_late_is_not_taken_for_absent() -> None:
    async with batches() as world:
        world.emulator.faults.add("unlisted", seconds=50)
        await world.bought()
        assert isinstance(await world.compute.find(KEYS[0]), CannotTell)
        world.clock.seconds += LIST_LAG_SECONDS
        assert isinstance(await world.compute.find(KEYS[0]), Found)


@pytest.mark.parametrize("step", ["POST /files", CREATE])
@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        ({"kind": "rate_limit", "retry_after": "7"}, errors.RATE_LIMITED),
        ({"kind": "out_of_credits"}, errors.OUT_OF_CREDIT),
        ({"kind": "unauthorized"}, errors.CREDENTIALS_REFUSED),
        ({"kind": "error", "status": 400}, errors.REQUEST_REFUSED),
    ],
    ids=lambda value: value["kind"] if isinstance(value, dict) else "",
)
async def test_a_refusal_at_either_step_has_bought_nothing(
    step: str, fault: dict[str, Any], expected: ErrorCode
) -> None:
    async with batches() as world:
        world.emulator.faults.add(**fault, on=step)
        with pytest.raises(OracleError) as caught:
            await world.bought()
        assert caught.value.error is expected
        assert world.batches() == []


async def test_who_stops_waiting_does_not_take_the_others_along() -> None:
    async with batches() as world:
        first = asyncio.create_task(world.compute.submit(TASK, KEYS[0]))
        second = asyncio.create_task(world.compute.submit(TASK, KEYS[1]))
        await asyncio.sleep(0)
        first.cancel()
        handle = await second
        assert (await world.polled([handle]))[0].state is JobState.SUCCEEDED
        assert isinstance(await world.compute.find(KEYS[0]), Found)


# --- what becomes of a batch ---


@pytest.mark.parametrize(
    ("fault", "later", "first", "second"),
    [
        ("fails", 0, errors.BATCH_FAILED, errors.BATCH_FAILED),
        ("expires", WINDOW_SECONDS, None, errors.BATCH_EXPIRED),
        ("line_fails", 0, errors.REQUEST_REFUSED, None),
        ("line_fails_in_output", 0, errors.REQUEST_REFUSED, None),
        ("missing_line", LATE, errors.ANSWER_MISSING, None),
        ("doubled_lines", 0, None, None),
        ("no_files", LATE, errors.ANSWER_MISSING, errors.ANSWER_MISSING),
    ],
)
async def test_each_request_has_an_end_of_its_own(
    fault: str, later: float, first: ErrorCode | None, second: ErrorCode | None
) -> None:
    async with batches() as world:
        world.emulator.faults.add(fault)
        handles = await world.bought(2)
        if later:
            # What is not told yet is no failure.
            assert JobState.FAILED not in {status.state for status in await world.polled(handles)}
            world.clock.seconds += later
        statuses = await world.polled(handles)
        for handle, status, expected in zip(handles, statuses, (first, second), strict=True):
            if expected is None:
                assert status.state is JobState.SUCCEEDED
                assert (await world.compute.fetch(handle)).content
            else:
                assert status.error is not None
                assert (status.state, status.error.error) == (JobState.FAILED, expected)
                with pytest.raises(OracleError) as caught:
                    await world.compute.fetch(handle)
                assert caught.value.error is expected


@pytest.mark.parametrize("kind", ["malformed", "truncate", "lose_answer", "error", "html", "rate_limit"])
@pytest.mark.parametrize("path", ["GET /files/*/content", "GET /batches/*"])
async def test_what_cannot_be_read_is_read_again(path: str, kind: str) -> None:
    async with batches() as world:
        handles = await world.bought(3)
        world.emulator.faults.add(kind, on=path)
        assert {status.state for status in await world.polled(handles)} <= {JobState.RUNNING, JobState.SUCCEEDED}
        assert {status.state for status in await world.polled(handles)} == {JobState.SUCCEEDED}


async def test_a_status_that_nobody_documents_is_no_end() -> None:
    async with batches(timings=BatchTimings(run_seconds=100)) as world:
        world.emulator.faults.add("strange_status")
        (handle,) = await world.bought()
        assert (await world.polled([handle]))[0].state is JobState.RUNNING
        world.clock.seconds += 100
        assert (await world.polled([handle]))[0].state is JobState.SUCCEEDED


async def test_a_model_that_is_not_served_is_told_by_its_line() -> None:
    async with batches(models={"other": "scripted"}) as world:
        (handle,) = await world.bought()
        (status,) = await world.polled([handle])
        assert status.error is not None
        assert status.error.error is errors.MODEL_UNAVAILABLE


async def test_a_batch_that_is_gone_is_lost_and_not_failed() -> None:
    async with batches() as world:
        (status,) = await world.polled([JobHandle("batch", f"batch_99/{KEYS[0]}")])
        assert status.state is JobState.LOST


# --- cancelling ---


async def test_a_batch_is_cancelled_once_nobody_wants_any_of_it() -> None:
    async with batches(timings=BatchTimings(run_seconds=100)) as world:
        first, second = await world.bought(2)
        await world.compute.cancel(first)
        assert world.batches()[0]["status"] == "in_progress"
        await world.compute.cancel(second)
        assert world.batches()[0]["status"] == "cancelled"


async def test_a_batch_that_is_completed_while_it_is_cancelled_still_answers() -> None:
    async with batches(timings=BatchTimings(run_seconds=100, cancel_seconds=10)) as world:
        world.emulator.faults.add("late_cancel")
        (handle,) = await world.bought()
        await world.compute.cancel(handle)
        assert world.batches()[0]["status"] == "cancelling"
        world.clock.seconds += 10
        assert (await world.polled([handle]))[0].state is JobState.SUCCEEDED


async def test_a_request_of_a_cancelled_batch_says_so() -> None:
    async with batches(timings=BatchTimings(run_seconds=100)) as world:
        (handle,) = await world.bought()
        await world.compute.cancel(handle)
        (status,) = await world.polled([handle])
        assert status.error is not None
        assert status.error.error is errors.JOB_STOPPED


async def test_a_cancellation_that_comes_too_late_is_none() -> None:
    async with batches() as world:
        (handle,) = await world.bought()
        await world.compute.cancel(handle)
        assert (await world.polled([handle]))[0].state is JobState.SUCCEEDED


async def test_a_cancellation_that_fails_is_not_taken_for_one() -> None:
    async with batches(timings=BatchTimings(run_seconds=100)) as world:
        (handle,) = await world.bought()
        world.emulator.faults.add("error", on="POST /batches/*")
        with pytest.raises(OracleError):
            await world.compute.cancel(handle)
        await world.compute.cancel(handle)
        assert world.batches()[0]["status"] == "cancelled"


# --- and for real ---


@pytest.mark.model
async def test_the_real_model_answers_a_batch(model: LocalModel) -> None:
    async with batches(model_url=model.base_url, models={"gpt-x": SMOLLM2.model_id}) as world:
        (handle,) = await world.bought(task=replace(TASK, max_output_tokens=16))
        (status,) = await world.polled([handle])
        assert status.state is JobState.SUCCEEDED
        output = await world.compute.fetch(handle)
    assert output.content.decode().strip()
