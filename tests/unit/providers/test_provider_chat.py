"""A durable attempt made of a single chat call: what is bought once, what is lost, what is kept."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest
from provider_wire import TASK

from oracle.core.compute import (
    CannotTell,
    Completion,
    Embeddings,
    Found,
    IdempotencyKey,
    JobHandle,
    JobState,
    JobStatus,
    Money,
    Output,
    Piece,
    Recovery,
    Synchronous,
    Task,
)
from oracle.core.errors import OracleError, Verdict
from oracle.providers import errors
from oracle.providers.chat import ChatCompute, Limits
from oracle.providers.pricing import FixedRates, TokenPrice, fixed

KEY = IdempotencyKey("11111111-2222-3333-4444-555555555555")
DONE = Completion("42", "gpt-x", "stop", input_tokens=12, output_tokens=5)


class ScriptedChat:
    """Answers each call with the next of `replies`: a completion, an exception, or a coroutine function of the task."""

    def __init__(self, *replies: Any) -> None:
        self.calls: list[Task] = []
        self.started = asyncio.Event()
        self.closed = False
        self.closed_streams = 0
        self._replies = list(replies)

    async def complete(self, task: Task) -> Completion:
        self.calls.append(task)
        self.started.set()
        reply = self._replies.pop(0) if len(self._replies) > 1 else self._replies[0]
        if isinstance(reply, BaseException):
            raise reply
        if isinstance(reply, Completion):
            return reply
        return await reply(task)

    async def stream(self, task: Task) -> AsyncGenerator[Piece | Completion, None]:
        try:
            yield Piece("4", "gpt-x")
            yield Piece("2", "gpt-x")
            yield await self.complete(task)
        finally:
            self.closed_streams += 1

    async def embed(self, model: str, texts: Sequence[str], *, seconds: float) -> Embeddings:
        return Embeddings(tuple((float(len(text)),) for text in texts), model, input_tokens=12)

    async def models(self) -> Sequence[str]:
        return ("gpt-x",)

    async def close(self) -> None:
        self.closed = True


async def for_ever(task: Task) -> Completion:
    await asyncio.Event().wait()
    raise AssertionError


async def ended(compute: ChatCompute, handle: JobHandle) -> JobStatus:
    async with asyncio.timeout(60):
        while True:
            status = (await compute.poll([handle]))[handle]
            if status.state not in (JobState.QUEUED, JobState.RUNNING):
                return status
            await asyncio.sleep(0)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110 (nothing tells when it holds)
            await asyncio.sleep(0)


async def test_a_job_is_submitted_polled_and_fetched() -> None:
    times = iter([1000.0, 1002.0])
    price = fixed(TokenPrice(Decimal(1), Decimal(10)))
    compute = ChatCompute(
        "example", ScriptedChat(DONE), price_of=price, rates=FixedRates(sol_usd=Decimal(100)), now=lambda: next(times)
    )
    handle = await compute.submit(TASK, KEY)
    assert (await ended(compute, handle)) == JobStatus(JobState.SUCCEEDED)
    output = await compute.fetch(handle)
    assert output.content == b"42"
    assert output.model_run == "gpt-x"
    assert (output.input_tokens, output.output_tokens) == (12, 5)
    assert (output.started_at, output.finished_at) == (1000.0, 1002.0)
    # 12 input tokens at 1 USD and 5 output tokens at 10 USD a million, at 100 USD for a SOL.
    assert output.cost == Money(0.000062, "USD")
    assert output.cost_lamports == 620


async def test_submit_returns_before_the_answer_comes() -> None:
    chat = ScriptedChat(for_ever)
    compute = ChatCompute("example", chat)
    handle = await compute.submit(TASK, KEY)
    await chat.started.wait()
    assert (await compute.poll([handle]))[handle].state is JobState.RUNNING
    await compute.close()


async def test_the_same_key_is_the_same_call_while_it_runs_and_after_it_ended() -> None:
    chat = ScriptedChat(DONE)
    compute = ChatCompute("example", chat)
    first = await compute.submit(TASK, KEY)
    second = await compute.submit(TASK, KEY)
    await ended(compute, first)
    third = await compute.submit(TASK, KEY)
    assert first == second == third
    assert len(chat.calls) == 1


async def test_a_call_that_failed_is_not_made_again_under_its_key() -> None:
    chat = ScriptedChat(errors.REQUEST_REFUSED("no"))
    compute = ChatCompute("example", chat)
    handle = await compute.submit(TASK, KEY)
    assert (await ended(compute, handle)).state is JobState.FAILED
    await compute.submit(TASK, KEY)
    assert (await ended(compute, handle)).state is JobState.FAILED
    assert len(chat.calls) == 1


async def test_a_lost_call_may_be_made_again_under_its_key() -> None:
    chat = ScriptedChat(errors.NO_ANSWER("cut"), DONE)
    compute = ChatCompute("example", chat)
    handle = await compute.submit(TASK, KEY)
    assert (await ended(compute, handle)).state is JobState.LOST
    assert isinstance(await compute.find(KEY), CannotTell)
    again = await compute.submit(TASK, KEY)
    assert (await ended(compute, again)).state is JobState.SUCCEEDED


async def test_a_handle_from_before_a_restart_is_lost_and_not_failed() -> None:
    compute = ChatCompute("example", ScriptedChat(DONE))
    stranger = JobHandle("example", "a job of an earlier process")
    status = (await compute.poll([stranger]))[stranger]
    assert status.state is JobState.LOST
    assert status.error is not None
    assert status.error.verdict is Verdict.UNKNOWN
    with pytest.raises(OracleError) as caught:
        await compute.fetch(stranger)
    assert caught.value.verdict is Verdict.UNKNOWN


async def test_a_look_up_finds_what_this_process_started_and_cannot_tell_of_the_rest() -> None:
    compute = ChatCompute("example", ScriptedChat(DONE))
    assert isinstance(await compute.find(KEY), CannotTell)
    handle = await compute.submit(TASK, KEY)
    assert await compute.find(KEY) == Found(handle)


@pytest.mark.parametrize(
    ("error", "state"),
    [
        (errors.RATE_LIMITED("slow down", retry_after_seconds=3.0), JobState.FAILED),
        (errors.CREDENTIALS_REFUSED(), JobState.FAILED),
        (errors.NO_ANSWER(), JobState.LOST),
    ],
)
async def test_an_error_keeps_its_verdict(error: OracleError, state: JobState) -> None:
    compute = ChatCompute("example", ScriptedChat(error))
    status = await ended(compute, await compute.submit(TASK, KEY))
    assert (status.state, status.error) == (state, error)


async def test_an_exception_nobody_foresaw_is_a_lost_call_and_shows_nothing_of_the_prompt() -> None:
    compute = ChatCompute("example", ScriptedChat(ValueError("six times seven")))
    status = await ended(compute, await compute.submit(TASK, KEY))
    assert status.state is JobState.LOST
    assert "six" not in status.message
    assert "ValueError" in status.message


async def test_the_model_that_answered_is_reported_as_the_server_names_it() -> None:
    compute = ChatCompute("example", ScriptedChat(replace(DONE, model="house-model")))
    handle = await compute.submit(TASK, KEY)
    await ended(compute, handle)
    assert (await compute.fetch(handle)).model_run == "house-model"


async def test_an_answer_cut_at_the_limit_that_was_asked_for_is_an_answer() -> None:
    compute = ChatCompute("example", ScriptedChat(replace(DONE, finish_reason="length", output_tokens=32)))
    assert (await ended(compute, await compute.submit(TASK, KEY))).state is JobState.SUCCEEDED


async def test_an_answer_cut_before_the_limit_that_was_asked_for_is_refused() -> None:
    compute = ChatCompute("example", ScriptedChat(replace(DONE, finish_reason="length", output_tokens=31)))
    status = await ended(compute, await compute.submit(TASK, KEY))
    assert status.error is not None
    assert status.error.error is errors.ANSWER_CUT


async def test_no_more_calls_run_than_allowed_and_the_others_wait_their_turn() -> None:
    release = asyncio.Event()

    async def held(task: Task) -> Completion:
        await release.wait()
        return DONE

    chat = ScriptedChat(held)
    compute = ChatCompute("example", chat, limits=Limits(concurrent_jobs=2))
    handles = [await compute.submit(TASK, IdempotencyKey(str(number))) for number in range(3)]
    await until(lambda: len(chat.calls) == 2)
    states = [status.state for status in (await compute.poll(handles)).values()]
    assert states == [JobState.RUNNING, JobState.RUNNING, JobState.QUEUED]
    release.set()
    assert {(await ended(compute, handle)).state for handle in handles} == {JobState.SUCCEEDED}


async def test_a_job_whose_time_ran_out_in_the_queue_was_never_sent() -> None:
    chat = ScriptedChat(for_ever)
    compute = ChatCompute("example", chat, limits=Limits(concurrent_jobs=1))
    await compute.submit(TASK, IdempotencyKey("first"))
    status = await ended(compute, await compute.submit(replace(TASK, timeout_seconds=0.01), KEY))
    assert status.error is not None
    assert (status.state, status.error.error) == (JobState.FAILED, errors.NOT_SENT)
    assert len(chat.calls) == 1
    await compute.close()


async def test_a_chat_api_that_does_not_keep_the_time_is_cut_and_its_call_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("oracle.providers.chat._GRACE_SECONDS", 0.0)
    compute = ChatCompute("example", ScriptedChat(for_ever))
    status = await ended(compute, await compute.submit(replace(TASK, timeout_seconds=0.01), KEY))
    assert status.state is JobState.LOST


async def test_time_spent_in_the_queue_is_taken_from_the_call() -> None:
    clock = [0.0]
    release = asyncio.Event()

    async def held(task: Task) -> Completion:
        await release.wait()
        clock[0] += 50.0
        return DONE

    chat = ScriptedChat(held, DONE)
    compute = ChatCompute("example", chat, limits=Limits(concurrent_jobs=1), clock=lambda: clock[0])
    await compute.submit(TASK, IdempotencyKey("first"))
    await chat.started.wait()
    handle = await compute.submit(TASK, KEY)
    await until(lambda: len(compute._turns._waiters or ()) == 1)
    release.set()
    await ended(compute, handle)
    assert [call.timeout_seconds for call in chat.calls] == [120.0, 70.0]


async def test_cancel_cuts_the_call_and_frees_its_place() -> None:
    chat = ScriptedChat(for_ever, DONE)
    compute = ChatCompute("example", chat, limits=Limits(concurrent_jobs=1))
    handle = await compute.submit(TASK, KEY)
    await chat.started.wait()
    await compute.cancel(handle)
    assert (await compute.poll([handle]))[handle].state is JobState.CANCELLED
    other = await compute.submit(TASK, IdempotencyKey("other"))
    assert (await ended(compute, other)).state is JobState.SUCCEEDED


async def test_a_job_cancelled_before_its_first_step_is_cancelled() -> None:
    chat = ScriptedChat(DONE)
    compute = ChatCompute("example", chat)
    handle = await compute.submit(TASK, KEY)
    await compute.cancel(handle)
    assert (await compute.poll([handle]))[handle].state is JobState.CANCELLED
    assert chat.calls == []


async def test_cancel_changes_nothing_that_has_ended_or_is_not_known() -> None:
    compute = ChatCompute("example", ScriptedChat(DONE))
    handle = await compute.submit(TASK, KEY)
    await ended(compute, handle)
    await compute.cancel(handle)
    await compute.cancel(JobHandle("example", "unknown"))
    assert (await compute.fetch(handle)).content == b"42"


async def test_close_cuts_every_call_and_closes_the_api() -> None:
    chat = ScriptedChat(for_ever)
    compute = ChatCompute("example", chat)
    handles = [await compute.submit(TASK, IdempotencyKey(str(number))) for number in range(3)]
    await compute.close()
    assert chat.closed
    assert {status.state for status in (await compute.poll(handles)).values()} == {JobState.CANCELLED}


async def test_an_answer_can_be_fetched_again_until_its_place_is_needed() -> None:
    compute = ChatCompute("example", ScriptedChat(DONE), limits=Limits(kept_jobs=2))
    handles = [await compute.submit(TASK, IdempotencyKey(str(number))) for number in range(2)]
    for handle in handles:
        await ended(compute, handle)
    await compute.fetch(handles[0])
    assert (await compute.fetch(handles[0])).content == b"42"
    await compute.submit(TASK, KEY)
    assert (await compute.poll([handles[0]]))[handles[0]].state is JobState.LOST
    assert (await compute.fetch(handles[1])).content == b"42"


async def test_an_answer_nobody_has_fetched_is_kept_and_new_work_waits() -> None:
    clock = [0.0]
    compute = ChatCompute(
        "example", ScriptedChat(DONE), limits=Limits(kept_jobs=1, keep_seconds=60.0), clock=lambda: clock[0]
    )
    handle = await compute.submit(TASK, IdempotencyKey("first"))
    await ended(compute, handle)
    with pytest.raises(OracleError) as caught:
        await compute.submit(TASK, KEY)
    assert (caught.value.error, caught.value.verdict) == (errors.BUSY, Verdict.RETRY)
    assert (await compute.fetch(handle)).content == b"42"
    clock[0] = 61.0
    await compute.submit(TASK, KEY)


async def test_a_failure_nobody_has_heard_of_is_kept_too() -> None:
    compute = ChatCompute("example", ScriptedChat(errors.REQUEST_REFUSED()), limits=Limits(kept_jobs=1))
    handle = await compute.submit(TASK, IdempotencyKey("first"))
    await until(lambda: compute._jobs["first"].ended_at is not None)
    with pytest.raises(OracleError):
        await compute.submit(TASK, KEY)
    assert (await compute.poll([handle]))[handle].state is JobState.FAILED
    await compute.submit(TASK, KEY)


async def test_memory_is_bounded_in_bytes() -> None:
    big = replace(DONE, text="x" * 1000)
    compute = ChatCompute("example", ScriptedChat(big), limits=Limits(kept_bytes=1500))
    for number in range(10):
        handle = await compute.submit(TASK, IdempotencyKey(str(number)))
        await ended(compute, handle)
        await compute.fetch(handle)
    assert compute._kept_bytes() <= 2000


async def test_a_quote_counts_every_output_token_and_rounds_up() -> None:
    price = fixed(TokenPrice(Decimal(0), Decimal(3)))
    compute = ChatCompute("example", ScriptedChat(DONE), price_of=price, rates=FixedRates(sol_usd=Decimal(7)))
    quote = await compute.quote(TASK)
    # 32 tokens at 3 USD a million are 0.000096 USD; at 7 USD for a SOL that is 13,714.28 lamports.
    assert (quote.cost_lamports, quote.cost) == (13_715, Money(0.000096, "USD"))


async def test_a_price_that_is_lost_afterwards_does_not_lose_the_answer() -> None:
    async def price_of(model: str) -> TokenPrice:
        raise errors.PRICE_UNKNOWN()

    compute = ChatCompute("example", ScriptedChat(DONE), price_of=price_of)
    handle = await compute.submit(TASK, KEY)
    await ended(compute, handle)
    assert (await compute.fetch(handle)).cost is None


PRICED = {"price_of": fixed(TokenPrice(Decimal(1), Decimal(10))), "rates": FixedRates(sol_usd=Decimal(100))}


async def test_a_stream_ends_with_the_output_and_what_it_cost() -> None:
    compute = ChatCompute("example", ScriptedChat(DONE), **PRICED)
    *pieces, output = [piece async for piece in compute.stream(TASK)]
    assert pieces == [Piece("4", "gpt-x"), Piece("2", "gpt-x")]
    assert isinstance(output, Output)
    assert (output.content, output.cost_lamports, output.finish_reason) == (b"42", 620, "stop")


async def test_a_stream_that_is_closed_is_cut_and_gives_its_place_back() -> None:
    chat = ScriptedChat(DONE)
    compute = ChatCompute("example", chat, limits=Limits(concurrent_jobs=1))
    for _ in range(2):
        stream = compute.stream(TASK)
        await anext(stream)
        await stream.aclose()
    assert chat.closed_streams == 2


async def test_answers_and_streams_share_the_places_of_jobs() -> None:
    compute = ChatCompute("example", ScriptedChat(for_ever), limits=Limits(concurrent_jobs=1))
    await compute.submit(TASK, KEY)
    await asyncio.sleep(0)
    for waiting in (compute.answer(replace(TASK, timeout_seconds=0.01)), compute.embed("m", ["a"], seconds=0.01)):
        with pytest.raises(OracleError) as caught:
            await waiting
        assert caught.value.error is errors.NOT_SENT
    await compute.close()


async def test_a_stream_cut_before_the_limit_that_was_asked_for_is_no_answer() -> None:
    compute = ChatCompute("example", ScriptedChat(replace(DONE, finish_reason="length")))
    with pytest.raises(OracleError) as caught:
        _ = [piece async for piece in compute.stream(TASK)]
    assert caught.value.error is errors.ANSWER_CUT


async def test_an_offer_has_the_price_at_which_it_is_booked() -> None:
    compute = ChatCompute("example", ScriptedChat(DONE), price_of=fixed(TokenPrice(Decimal(1), Decimal(2))))
    assert {offer.price for offer in await compute.offers()} == {TokenPrice(Decimal(1), Decimal(2))}
    assert await compute.allowance() is None


async def test_embeddings_cost_their_input() -> None:
    compute = ChatCompute("example", ScriptedChat(DONE), **PRICED)
    found = await compute.embed("m", ["a", "bb"], seconds=1)
    assert (found.vectors, found.cost_lamports) == (((1.0,), (2.0,)), 120)


async def test_what_it_can_do_is_declared() -> None:
    compute = ChatCompute("example", ScriptedChat(DONE), recovery=Recovery.REPEAT)
    assert compute.capabilities.recovery is Recovery.REPEAT
    assert compute.capabilities.cancel
    assert isinstance(compute, Synchronous)
    assert not compute.capabilities.prompts_public
    assert await compute.models() == ("gpt-x",)
    assert await compute.balance() is None
