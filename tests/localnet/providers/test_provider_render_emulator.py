"""The Render adapter against the emulator of its compute subnet: every fault, and the real model."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

import pytest
from provider_jobs import LIVE, ended, until

from oracle.core.compute import Absent, CannotTell, Found, IdempotencyKey, JobHandle, JobState, Message, Task
from oracle.core.errors import ErrorCode, OracleError, Verdict
from oracle.localnet.emulators.openai import Personality, ScriptedOpenAI
from oracle.localnet.emulators.render import ApiKey, Hardware, Render, Timings
from oracle.localnet.emulators.server import Running, serve
from oracle.model.server import LocalModel
from oracle.providers import errors
from oracle.providers.pricing import FixedRates
from oracle.providers.registry import build
from oracle.providers.render.compute import LIST_LAG_SECONDS, RenderCompute

pytestmark = pytest.mark.localnet

MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"
TASK = Task(MODEL, (Message("user", "What is six times seven?"),), max_output_tokens=64, seed=7, timeout_seconds=600)
KEY = IdempotencyKey("5f0c2f8e-2a41-4f7e-9a9f-0d3c1b2a4e5f")
CREATE = "POST /v1/jobs"


class Clock:
    """Time that passes only when it is told to."""

    def __init__(self) -> None:
        self.seconds = 1_790_848_800.0

    def __call__(self) -> float:
        return self.seconds


@dataclass(slots=True)
class World:
    compute: RenderCompute
    emulator: Render
    running: Running
    clock: Clock
    settings: Mapping[str, Any]

    async def bought(self, key: IdempotencyKey = KEY, task: Task = TASK) -> JobHandle:
        return await self.compute.submit(task, key)

    def another(self) -> RenderCompute:
        """The adapter as a process that starts anew has it: it remembers nothing."""
        return made(self.settings, self.clock)

    def statuses(self) -> list[str]:
        return [job["status"] for job in self.emulator.books()["jobs"]]


def made(settings: Mapping[str, Any], clock: Clock) -> RenderCompute:
    compute = build("render", settings, rates=FixedRates(sol_usd=Decimal(100)), environ={})
    assert isinstance(compute, RenderCompute)
    compute.__dict__.update(_now=clock, _clock=clock)
    compute.__dict__["_api"].__dict__.update(_now=clock)
    compute.__dict__["_listing"].__dict__.update(_now=clock, _clock=clock)
    compute.__dict__["_offers"].__dict__.update(_clock=clock)
    return compute


@asynccontextmanager
async def render(
    changes: Mapping[str, Any] | None = None, *, model_url: str | None = None, **options: Any
) -> AsyncIterator[World]:
    clock = Clock()
    scripted = ScriptedOpenAI(Personality.LLAMACPP)
    async with serve(scripted) as model:
        emulator = Render(model_url or f"{model.url}/v1", now=clock, **options)
        async with serve(emulator) as running:
            settings = {
                "kind": "render",
                "base_url": running.url,
                "public_key": "pk_localnet",
                "secret_key": "sk_localnet",
                "look_seconds": 0.01,
                **(changes or {}),
            }
            compute = made(settings, clock)
            try:
                yield World(compute, emulator, running, clock, settings)
            finally:
                await compute.close()


# --- a job ---


async def test_a_container_answers_and_is_ended_once_it_is_let_go_of() -> None:
    async with render() as world:
        quote = await world.compute.quote(TASK)
        handle = await world.bought()
        assert (await ended(world.compute, handle)).state is JobState.SUCCEEDED
        output = await world.compute.fetch(handle)
        assert await world.compute.fetch(handle) == output
        assert world.statuses() == ["RUNNING"]
        world.compute.release(handle)
        await world.compute.close()
        assert world.statuses() == ["CANCELLED"]
    # Ten minutes of the cheapest GPU, at 0.31 USD an hour.
    assert quote.cost.amount == pytest.approx(0.31 / 6)
    assert output.content.decode().startswith("answer ")
    assert output.model_run == MODEL
    assert output.cost_lamports == 0


async def test_what_is_paid_is_the_time_from_start_to_answer() -> None:
    async with render(timings=Timings(assign_seconds=30, start_seconds=60, load_seconds=120)) as world:
        handle = await world.bought()
        assert (await world.compute.poll([handle]))[handle].state is JobState.QUEUED
        world.clock.seconds += 90
        assert (await until(world.compute, handle, lambda s: s.state is JobState.RUNNING)).error is None
        world.clock.seconds += 120
        assert (await ended(world.compute, handle)).state is JobState.SUCCEEDED
        output = await world.compute.fetch(handle)
        await world.compute.close()
        (job,) = world.emulator.books()["jobs"]
    assert output.cost is not None
    assert output.cost.amount == pytest.approx(120 / 3600 * 0.31)
    assert Decimal(job["cost_usd"]) == pytest.approx(Decimal(str(output.cost.amount)))


async def test_a_run_and_its_address_that_come_late_are_waited_for() -> None:
    async with render(timings=Timings(run_lag_seconds=20, address_lag_seconds=20)) as world:
        handle = await world.bought()
        for _ in range(4):
            assert (await world.compute.poll([handle]))[handle].state is JobState.RUNNING
            world.clock.seconds += 11
        assert (await ended(world.compute, handle)).state is JobState.SUCCEEDED


async def test_many_jobs_are_asked_after_with_one_question() -> None:
    async with render(timings=Timings(assign_seconds=100)) as world:
        handles = [await world.bought(IdempotencyKey(f"{n:08d}-2a41-4f7e-9a9f-0d3c1b2a4e5f")) for n in range(30)]
        before = len(world.running.calls)
        statuses = await world.compute.poll(handles)
        assert len(world.running.calls) - before == 1
    assert {status.state for status in statuses.values()} == {JobState.QUEUED}


async def test_a_process_that_starts_anew_gets_the_answer_of_the_same_container() -> None:
    async with render() as world:
        handle = await world.bought()
        other = world.another()
        assert (await ended(other, handle)).state is JobState.SUCCEEDED
        output = await other.fetch(handle)
        await other.close()
        assert len(world.statuses()) == 1
    assert output.model_run == MODEL


async def test_another_secret_does_not_open_the_container() -> None:
    """The server's own key is derived from ours: its port is open to the world."""
    keys = (ApiKey(), ApiKey("pk_other", "sk_other"))
    async with render(keys=keys) as world:
        handle = await world.bought()
        job = await world.compute.__dict__["_api"].job(handle.job_id)
        assert job.environment["LLAMA_API_KEY"] not in ("", "sk_localnet")
        theirs = build("render", {**world.settings, "secret_key": "sk_other", "public_key": "pk_other"}, environ={})
        assert (await theirs.poll([handle]))[handle].state is JobState.LOST
        await theirs.close()


async def test_a_private_task_is_not_sent_where_everybody_on_the_way_can_read_it() -> None:
    async with render() as world:
        assert world.compute.capabilities.prompts_public
        for call in (world.compute.quote(replace(TASK, private=True)), world.bought(task=replace(TASK, private=True))):
            with pytest.raises(OracleError) as caught:
                await call
            assert caught.value.error is errors.PRIVATE_REFUSED


# --- the purchase ---


@pytest.mark.parametrize(
    ("fault", "was_made"),
    [
        ({"kind": "lose_answer"}, True),
        ({"kind": "truncate"}, True),
        ({"kind": "malformed"}, True),
        ({"kind": "twice"}, True),
        ({"kind": "drop"}, False),
        ({"kind": "html"}, False),
        ({"kind": "error", "status": 500}, False),
        ({"kind": "unauthorized"}, False),
    ],
    ids=lambda value: value["kind"] if isinstance(value, dict) else "",
)
async def test_an_unclear_purchase_is_looked_up_by_its_title(fault: dict[str, Any], was_made: bool) -> None:
    async with render() as world:
        world.emulator.faults.add(**fault, on=CREATE)
        with pytest.raises(OracleError) as caught:
            await world.bought()
        assert caught.value.verdict is Verdict.UNKNOWN
        other = world.another()
        found = await other.find(KEY)
        if was_made:
            assert isinstance(found, Found)
            assert (await ended(other, found.handle)).state is JobState.SUCCEEDED
        else:
            assert isinstance(found, CannotTell)
            world.clock.seconds += LIST_LAG_SECONDS
            assert await other.find(KEY) == Absent()
        assert len(world.statuses()) == was_made
        await other.close()


async def test_a_job_that_the_list_shows_late_is_not_taken_for_absent() -> None:
    async with render() as world:
        world.emulator.faults.add("unlisted", seconds=50)
        world.emulator.faults.add("lose_answer", on=CREATE)
        with pytest.raises(OracleError):
            await world.bought()
        assert isinstance(await world.compute.find(KEY), CannotTell)
        world.clock.seconds += LIST_LAG_SECONDS
        assert isinstance(await world.compute.find(KEY), Found)


async def test_a_list_that_cannot_be_read_proves_nothing() -> None:
    async with render() as world:
        world.emulator.faults.add("malformed", on="GET /v1/jobs", count=None)
        for _ in range(2):
            with pytest.raises(OracleError) as caught:
                await world.compute.find(KEY)
            assert caught.value.error is errors.UNREADABLE_ANSWER
            world.clock.seconds += LIST_LAG_SECONDS


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        ({"kind": "rate_limit", "retry_after": "7"}, errors.RATE_LIMITED),
        ({"kind": "out_of_credits"}, errors.OUT_OF_CREDIT),
        ({"kind": "out_of_credits", "status": 403}, errors.OUT_OF_CREDIT),
        ({"kind": "error", "status": 403}, errors.NOT_PERMITTED),
        ({"kind": "error", "status": 400}, errors.REQUEST_REFUSED),
        ({"kind": "error", "status": 422}, errors.REQUEST_REFUSED),
    ],
    ids=lambda value: f"{value['kind']} {value.get('status', '')}" if isinstance(value, dict) else "",
)
async def test_a_purchase_that_is_refused_has_bought_nothing(fault: dict[str, Any], expected: ErrorCode) -> None:
    async with render() as world:
        world.emulator.faults.add(**fault, on=CREATE)
        with pytest.raises(OracleError) as caught:
            await world.bought()
        assert caught.value.error is expected
        assert caught.value.retry_after_seconds == (7.0 if expected is errors.RATE_LIMITED else None)
        assert world.statuses() == []


async def test_a_wrong_key_is_refused_and_not_shown() -> None:
    async with render({"secret_key": "sk_wrong_secret"}) as world:
        with pytest.raises(OracleError) as caught:
            await world.bought()
    assert caught.value.error is errors.CREDENTIALS_REFUSED
    assert "sk_wrong" not in str(caught.value)


async def test_a_clock_that_is_off_is_set_by_the_server_s() -> None:
    async with render() as world:
        ours = Clock()
        ours.seconds = world.clock.seconds - 3600
        compute = made(world.settings, ours)
        handle = await compute.submit(TASK, KEY)
        assert len([call for call in world.running.calls if call.status == 401]) == 1
        assert (await ended(compute, handle)).state is JobState.SUCCEEDED
        await compute.close()


async def test_hardware_above_the_price_cap_is_not_taken() -> None:
    dear = (Hardware("gpu-1", "NVIDIA H100", Decimal(3), 80), Hardware("gpu-6", "six", Decimal("0.1"), 32, gpu_count=6))
    async with render(hardware=dear) as world:
        with pytest.raises(OracleError) as caught:
            await world.compute.quote(TASK)
    assert caught.value.error is errors.NO_MARKET


# --- what becomes of a job ---


@pytest.mark.parametrize(
    ("fault", "later", "expected"),
    [
        ({"kind": "never_assigned"}, 601, errors.NOT_STARTED),
        ({"kind": "start_fails"}, 0, errors.JOB_FAILED),
        ({"kind": "exits", "exit_code": 137}, 0, errors.JOB_FAILED),
        ({"kind": "exits", "exit_code": 0}, 0, errors.HOST_FAILED),
        ({"kind": "node_lost"}, 0, errors.JOB_FAILED),
        ({"kind": "dear"}, 0, errors.RATE_ABOVE_CAP),
        ({"kind": "never_healthy"}, 601, errors.JOB_TIMED_OUT),
    ],
    ids=lambda value: f"{value['kind']} {value.get('exit_code', '')}" if isinstance(value, dict) else "",
)
async def test_a_job_that_fails_says_why_and_costs_nothing_more(
    fault: dict[str, Any], later: float, expected: ErrorCode
) -> None:
    async with render() as world:
        world.emulator.faults.add(**fault)
        handle = await world.bought()
        if later:
            assert (await world.compute.poll([handle]))[handle].state in LIVE
            world.clock.seconds += later
        status = await ended(world.compute, handle)
        assert status.error is not None
        assert (status.state, status.error.error) == (JobState.FAILED, expected)
        assert status.error.verdict is Verdict.RETRY
        assert set(world.statuses()) <= {"FAILED", "COMPLETED", "CANCELLED"}
        with pytest.raises(OracleError) as caught:
            await world.compute.fetch(handle)
        assert caught.value.error is expected


@pytest.mark.parametrize("fault", ["no_runs", "no_address"])
async def test_a_container_that_nobody_can_reach_is_given_up(fault: str) -> None:
    settings = {"job_kind": "PERSISTENT", "max_start_seconds": 300, "max_queue_seconds": 300}
    async with render(settings) as world:
        world.emulator.faults.add(fault)
        handle = await world.bought()
        assert (await world.compute.poll([handle]))[handle].state is JobState.RUNNING
        world.clock.seconds += 601
        status = await ended(world.compute, handle)
        assert status.error is not None
        assert status.error.error is errors.NEVER_SERVED
        assert world.statuses() == ["CANCELLED"]


async def test_a_status_that_nobody_documents_is_no_end() -> None:
    async with render() as world:
        world.emulator.faults.add("strange_status")
        assert (await ended(world.compute, await world.bought())).state is JobState.SUCCEEDED


async def test_an_answer_without_a_rate_has_no_final_cost() -> None:
    async with render() as world:
        world.emulator.faults.add("no_rate")
        handle = await world.bought()
        await ended(world.compute, handle)
        assert (await world.compute.fetch(handle)).cost_lamports is None


async def test_a_wrong_model_ends_the_container() -> None:
    async with render() as world:
        handle = await world.bought(task=replace(TASK, model="nobody/nothing"))
        status = await ended(world.compute, handle)
        assert status.error is not None
        assert status.error.error is errors.JOB_FAILED


async def test_an_image_that_needs_arguments_fails() -> None:
    async with render({"image": "vllm/vllm-openai", "tag": "v0.9.2"}) as world:
        status = await ended(world.compute, await world.bought())
        assert status.error is not None
        assert "code 2" in status.message


@pytest.mark.parametrize("kind", ["lose_answer", "error", "html", "malformed", "rate_limit"])
async def test_a_poll_that_fails_says_nothing_about_the_job(kind: str) -> None:
    async with render(timings=Timings(assign_seconds=1000)) as world:
        world.emulator.faults.add("unlisted", seconds=100)
        handle = await world.bought()
        world.emulator.faults.add(kind, on="GET /v1/jobs")
        with pytest.raises(OracleError) as caught:
            await world.compute.poll([handle])
        assert caught.value.verdict is Verdict.RETRY
        # It is not in the list yet, and its own page cannot be read either.
        world.emulator.faults.add(kind, on="GET /v1/jobs/*")
        status = (await world.compute.poll([handle]))[handle]
        assert status.state is JobState.RUNNING
        assert "cannot be asked after" in status.message
        assert (await world.compute.poll([handle]))[handle].state is JobState.QUEUED


@pytest.mark.parametrize("kind", ["lose_answer", "error", "html", "drop", "rate_limit"])
async def test_a_question_after_runs_that_fails_is_asked_again(kind: str) -> None:
    async with render() as world:
        world.emulator.faults.add(kind, on="GET /v1/job-runs")
        assert (await ended(world.compute, await world.bought())).state is JobState.SUCCEEDED


# --- ending what costs ---


async def test_a_job_is_cancelled_and_stays_so() -> None:
    async with render(timings=Timings(assign_seconds=100)) as world:
        handle = await world.bought()
        await world.compute.cancel(handle)
        await world.compute.cancel(handle)
        status = (await world.compute.poll([handle]))[handle]
        assert world.statuses() == ["CANCELLED"]
    assert status.error is not None
    assert (status.state, status.error.error) == (JobState.CANCELLED, errors.JOB_STOPPED)


async def test_a_slow_cancellation_is_one() -> None:
    async with render(timings=Timings(assign_seconds=100)) as world:
        world.emulator.faults.add("slow_cancel", seconds=60)
        handle = await world.bought()
        await world.compute.cancel(handle)
        assert world.statuses() == ["CANCELLING"]
        assert (await world.compute.poll([handle]))[handle].state is JobState.CANCELLED


@pytest.mark.parametrize("kind", ["lose_answer", "error", "html", "drop"])
async def test_a_container_that_has_answered_is_ended_though_the_first_try_fails(kind: str) -> None:
    async with render() as world:
        world.emulator.faults.add(kind, on="PUT /v1/jobs/*")
        handle = await world.bought()
        assert (await ended(world.compute, handle)).state is JobState.SUCCEEDED
        world.compute.release(handle)
        await until(world.compute, handle, lambda _: world.statuses() == ["CANCELLED"])


async def test_an_answer_that_was_lost_with_its_process_is_asked_for_again() -> None:
    async with render() as world:
        handle = await world.bought()
        assert (await ended(world.compute, handle)).state is JobState.SUCCEEDED
        lost = await world.compute.fetch(handle)
        newcomer = world.another()
        assert (await ended(newcomer, handle)).state is JobState.SUCCEEDED
        assert (await newcomer.fetch(handle)).content == lost.content
        await newcomer.close()
    assert len(world.statuses()) == 1


async def test_a_job_is_not_called_failed_before_it_is_being_ended() -> None:
    """Else another would be bought while this one still costs."""
    async with render() as world:
        world.emulator.faults.add("dear")
        world.emulator.faults.add("error", on="PUT /v1/jobs/*", count=2)
        handle = await world.bought()
        for _ in range(2):
            assert (await world.compute.poll([handle]))[handle].state is JobState.RUNNING
            assert world.statuses() == ["RUNNING"]
        assert (await world.compute.poll([handle]))[handle].state is JobState.FAILED
        assert world.statuses() == ["CANCELLED"]


async def test_the_other_job_of_a_doubled_purchase_is_ended() -> None:
    async with render(timings=Timings(assign_seconds=100)) as world:
        handle = await world.bought()
        await world.another().submit(TASK, KEY)
        assert (await world.compute.poll([handle]))[handle].state is JobState.QUEUED
        assert sorted(world.statuses()) == ["CANCELLED", "PENDING"]


async def test_a_forgotten_container_is_ended_when_its_time_is_over() -> None:
    settings = {"job_kind": "PERSISTENT", "max_queue_seconds": 300}
    async with render(settings) as world:
        await world.bought()
        world.clock.seconds += 601
        newcomer = world.another()
        await newcomer.quote(TASK)
        assert world.statuses() == ["RUNNING"]
        world.clock.seconds += 301
        await newcomer.quote(TASK)
        assert world.statuses() == ["CANCELLED"]
        await newcomer.close()


# --- and for real ---


@pytest.mark.model
async def test_the_real_model_answers_in_a_container(model: LocalModel) -> None:
    async with render(model_url=model.base_url) as world:
        handle = await world.bought(task=replace(TASK, max_output_tokens=16))
        assert (await ended(world.compute, handle)).state is JobState.SUCCEEDED
        output = await world.compute.fetch(handle)
    assert output.content.decode().strip()
    assert output.model_run == MODEL
