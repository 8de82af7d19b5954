"""A trial buys once, whatever its provider does, and leaves nothing running that it was told to leave."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pytest

from oracle.config import Config
from oracle.core.compute import (
    Absent,
    CannotTell,
    Capabilities,
    Found,
    IdempotencyKey,
    JobHandle,
    JobState,
    JobStatus,
    Message,
    Money,
    Output,
    Quote,
    Recovery,
    Task,
)
from oracle.core.errors import OracleError
from oracle.core.policy import JOB_TIMED_OUT, PURCHASE_ABSENT, PURCHASE_UNCONFIRMED
from oracle.pipeline import trial
from oracle.pipeline.errors import TRIAL_NOT_FOUND, TRIAL_TOO_DEAR
from oracle.pipeline.trial import Books, Trial, quoted
from oracle.providers import errors

TASK = Task("m", (Message("user", "hello"),), max_output_tokens=8, timeout_seconds=30)
QUOTE = Quote(10, Money(0.1, "USD"))
HANDLE = JobHandle("fake", "job-1")
RUNNING, SUCCEEDED = JobStatus(JobState.RUNNING), JobStatus(JobState.SUCCEEDED)
LOST = errors.NO_ANSWER("cut")


@dataclass
class Fake:
    """Says what it is told to say, one thing after another and the last for ever. An exception is raised."""

    recovery: Recovery = Recovery.LOOK_UP
    can_cancel: bool = True
    submits: list[object] = field(default_factory=lambda: [HANDLE])
    finds: list[object] = field(default_factory=lambda: [Found(HANDLE)])
    polls: list[object] = field(default_factory=lambda: [RUNNING, SUCCEEDED])
    fetches: list[object] = field(default_factory=lambda: [Output(b"yes", "m")])
    asked: asyncio.Event = field(default_factory=asyncio.Event)
    gate: asyncio.Event | None = None
    cancel_fails: OracleError | None = None
    name: str = "fake"
    submitted: int = 0
    cancelled: list[JobHandle] = field(default_factory=list)

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(self.recovery, cancel=self.can_cancel)

    async def quote(self, task: Task) -> Quote:
        return QUOTE

    async def submit(self, task: Task, key: IdempotencyKey) -> JobHandle:
        self.submitted += 1
        self.asked.set()
        if self.gate is not None:
            await self.gate.wait()
        return said(self.submits)  # type: ignore[return-value]

    async def find(self, key: IdempotencyKey) -> Found | Absent | CannotTell:
        return said(self.finds)  # type: ignore[return-value]

    async def poll(self, handles: Sequence[JobHandle]) -> Mapping[JobHandle, JobStatus]:
        return {HANDLE: said(self.polls)}  # type: ignore[dict-item]

    async def fetch(self, handle: JobHandle) -> Output:
        return said(self.fetches)  # type: ignore[return-value]

    async def cancel(self, handle: JobHandle) -> None:
        if self.cancel_fails is not None:
            raise self.cancel_fails
        self.cancelled.append(handle)


def said(answers: list[object]) -> object:
    answer = answers.pop(0) if len(answers) > 1 else answers[0]
    if isinstance(answer, Exception):
        raise answer
    return answer


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "LOOK_SECONDS", 0.0)


def trial_of(fake: Fake, told: list[str] | None = None, task: Task = TASK) -> Trial:
    steps = [] if told is None else told
    books = Books(Config(), None)
    return Trial(fake, task, IdempotencyKey("k"), books, 0.0, lambda what, _: steps.append(what))  # type: ignore[arg-type]


async def test_every_change_of_state_is_told_once() -> None:
    told: list[str] = []
    output = await trial_of(Fake(polls=[JobStatus(JobState.QUEUED), RUNNING, RUNNING, SUCCEEDED]), told).run(QUOTE)
    assert output.content == b"yes"
    assert told == ["job", "queued", "running", "succeeded"]


async def test_a_quote_above_the_limit_is_refused() -> None:
    assert await quoted(Fake(), TASK, 10) == QUOTE  # type: ignore[arg-type]
    with pytest.raises(OracleError) as caught:
        await quoted(Fake(), TASK, 9)  # type: ignore[arg-type]
    assert caught.value.error is TRIAL_TOO_DEAR


@pytest.mark.parametrize("failure", [LOST, ValueError("prompt")], ids=["lost", "broken"])
async def test_a_purchase_that_is_unclear_is_looked_up_until_somebody_can_tell(failure: Exception) -> None:
    fake = Fake(submits=[failure], finds=[CannotTell("not yet"), errors.UNREACHABLE("away"), Found(HANDLE)])
    told: list[str] = []
    assert (await trial_of(fake, told).run(QUOTE)).content == b"yes"
    assert (fake.submitted, told[0]) == (1, "unclear")


async def test_a_purchase_that_is_proven_absent_is_not_made_again() -> None:
    fake = Fake(submits=[LOST], finds=[Absent()])
    with pytest.raises(OracleError) as caught:
        await trial_of(fake).run(QUOTE)
    assert (caught.value.error, fake.submitted) == (PURCHASE_ABSENT, 1)


@pytest.mark.parametrize(("recovery", "purchases"), [(Recovery.NEITHER, 1), (Recovery.REPEAT, 3)])
async def test_only_what_costs_nothing_twice_is_asked_for_again(recovery: Recovery, purchases: int) -> None:
    fake = Fake(recovery, submits=[LOST], finds=[CannotTell("no look-up")])
    with pytest.raises(OracleError) as caught:
        await trial_of(fake).run(QUOTE)
    assert (caught.value.error, fake.submitted) == (PURCHASE_UNCONFIRMED, purchases)


async def test_polls_and_fetches_that_break_are_made_again_and_nothing_is_bought_twice() -> None:
    fake = Fake(polls=[LOST, KeyError("?"), SUCCEEDED], fetches=[LOST, ValueError("?"), Output(b"yes", "m")])
    assert (await trial_of(fake).run(QUOTE)).content == b"yes"
    assert fake.submitted == 1


async def test_a_job_that_outlives_its_time_is_called_off() -> None:
    fake = Fake(polls=[RUNNING])
    task = Task("m", TASK.messages, max_output_tokens=8, timeout_seconds=0.05)
    with pytest.raises(OracleError) as caught:
        await trial_of(fake, task=task).run(QUOTE)
    assert (caught.value.error, fake.cancelled) == (JOB_TIMED_OUT, [HANDLE])


@pytest.mark.parametrize("can_cancel", [True, False])
async def test_an_interruption_in_the_middle_of_a_purchase_waits_for_its_answer_and_calls_the_job_off(
    can_cancel: bool,
) -> None:
    fake = Fake(can_cancel=can_cancel)
    what, _ = await interrupted_while_buying(fake)
    assert fake.cancelled == ([HANDLE] if can_cancel else [])
    assert what == ("called off" if can_cancel else "runs on")


@pytest.mark.parametrize(
    ("failure", "outcome"), [(LOST, "not known"), (errors.OUT_OF_CREDIT("nothing left"), "not bought")]
)
async def test_an_interruption_tells_apart_what_was_not_bought_and_what_nobody_knows(
    failure: OracleError, outcome: str
) -> None:
    fake = Fake(Recovery.NEITHER, submits=[failure], finds=[CannotTell("no look-up")])
    assert (await interrupted_while_buying(fake))[0] == outcome


async def test_a_job_that_cannot_be_called_off_is_told_with_the_key_that_finds_it() -> None:
    what, detail = await interrupted_while_buying(Fake(cancel_fails=errors.UNREACHABLE("away")))
    assert (what, "--key k" in detail) == ("not called off", True)


async def interrupted_while_buying(fake: Fake) -> tuple[str, str]:
    """What is told last."""
    fake.gate = gate = asyncio.Event()
    interrupted = asyncio.Event()
    told: list[tuple[str, str]] = []

    def tell(what: str, detail: str) -> None:
        told.append((what, detail))
        if what == "interrupted":
            interrupted.set()

    trying = Trial(fake, TASK, IdempotencyKey("k"), Books(Config(), None), 0.0, tell)  # type: ignore[arg-type]
    running = asyncio.create_task(trying.run(QUOTE))
    await fake.asked.wait()
    running.cancel()
    await interrupted.wait()
    gate.set()
    with pytest.raises(asyncio.CancelledError):
        await running
    return told[-1]


async def test_an_earlier_job_is_followed_and_one_that_is_not_there_is_not_bought() -> None:
    fake = Fake()
    assert (await trial_of(fake).resume()).content == b"yes"
    with pytest.raises(OracleError) as caught:
        await trial_of(Fake(finds=[Absent()])).resume()
    assert (caught.value.error, fake.submitted) == (TRIAL_NOT_FOUND, 0)


async def test_an_earlier_job_of_which_nobody_can_tell_yet_is_not_called_absent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(trial, "LOOK_UP_SECONDS", 0.0)
    with pytest.raises(OracleError) as caught:
        await trial_of(Fake(finds=[CannotTell("its transaction may still land")])).resume()
    assert caught.value.error is PURCHASE_UNCONFIRMED
