"""The chat adapters against the emulators of IO Intelligence and of six vendors' OpenAI-compatible servers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest
from provider_jobs import ended

from oracle.core.compute import (
    Completion,
    IdempotencyKey,
    JobState,
    JobStatus,
    Message,
    Money,
    Output,
    Piece,
    Task,
)
from oracle.core.errors import ErrorCode, OracleError, Verdict
from oracle.localnet.emulators.ionet import Ionet
from oracle.localnet.emulators.ionet.catalogue import SMOLLM2_SERVED, ApiKey, ServedModel
from oracle.localnet.emulators.openai import Personality, ScriptedOpenAI
from oracle.localnet.emulators.server import serve
from oracle.model.server import LocalModel
from oracle.providers import errors
from oracle.providers.chat import ChatCompute
from oracle.providers.offers import Allowance
from oracle.providers.openai.client import OpenAIChat
from oracle.providers.pricing import FixedRates
from oracle.providers.registry import build

pytestmark = pytest.mark.localnet

MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"
TASK = Task(MODEL, (Message("user", "What is six times seven?"),), max_output_tokens=64, seed=7, timeout_seconds=20)
KEY = IdempotencyKey("5f0c2f8e-2a41-4f7e-9a9f-0d3c1b2a4e5f")
RATES = FixedRates(sol_usd=Decimal(100))
CHAT = "POST /chat/completions"


async def run(compute: ChatCompute, task: Task = TASK) -> JobStatus:
    return await ended(compute, await compute.submit(task, KEY))


async def output_of(compute: ChatCompute, task: Task = TASK) -> Any:
    handle = await compute.submit(task, KEY)
    assert (await ended(compute, handle)).state is JobState.SUCCEEDED
    return await compute.fetch(handle)


# --- io.net ---


@asynccontextmanager
async def ionet(
    prefix: str = "/api/v1",
    key: str = "io-v2-localnet",
    extra_body: dict[str, Any] | None = None,
    usage: bool = False,
    **options: Any,
) -> AsyncIterator[tuple[ChatCompute, Ionet]]:
    async with serve(ScriptedOpenAI(Personality.VLLM)) as scripted:
        emulator = Ionet(f"{scripted.url}/v1", **options)
        async with serve(emulator) as running:
            settings = {"kind": "ionet", "api_key": key, "base_url": running.url + prefix}
            settings["extra_body"] = extra_body or {}
            if usage:
                settings["usage_url"] = f"{running.url}/v1/api-keys/sub-keys/me/usage"
            compute = build("ionet", settings, rates=RATES, environ={})
            assert isinstance(compute, ChatCompute)
            try:
                yield compute, emulator
            finally:
                await compute.close()


@pytest.mark.parametrize("prefix", ["/api/v1", "/v1"])
@pytest.mark.parametrize("shape", ["live", "documented"])
async def test_a_job_on_io_net_costs_what_its_list_says(prefix: str, shape: str) -> None:
    async with ionet(prefix, models_shape=shape) as (compute, emulator):
        assert await compute.models() == (MODEL,)
        quote = await compute.quote(TASK)
        output = await output_of(compute)
        (billed,) = emulator.books()["inferences"]
    assert output.model_run == MODEL
    assert output.content
    # 1e-8 USD for an input token and 2e-8 for an output token, in either shape of the list.
    usd = output.input_tokens * Decimal("1e-8") + output.output_tokens * Decimal("2e-8")
    assert Decimal(str(output.cost.amount)) == usd
    assert billed["outcome"] == "answered"
    assert 0 < output.cost_lamports <= quote.cost_lamports


async def test_a_streamed_answer_of_io_net_is_the_same_answer() -> None:
    async with ionet() as (compute, _):
        whole = await compute.chat.complete(TASK)
        *pieces, streamed = [piece async for piece in compute.chat.stream(TASK)]
    assert "".join(piece.text for piece in pieces if isinstance(piece, Piece)) == whole.text
    assert isinstance(streamed, Completion)
    assert streamed.output_tokens == whole.output_tokens


@pytest.mark.parametrize(
    ("fault", "state", "expected"),
    [
        ({"kind": "lose_answer", "on": CHAT}, JobState.LOST, errors.NO_ANSWER),
        ({"kind": "drop", "on": CHAT}, JobState.LOST, errors.NO_ANSWER),
        ({"kind": "truncate", "on": CHAT}, JobState.LOST, errors.NO_ANSWER),
        ({"kind": "malformed", "on": CHAT}, JobState.LOST, errors.NO_ANSWER),
        ({"kind": "html", "on": CHAT, "status": 524}, JobState.LOST, errors.NO_ANSWER),
        ({"kind": "html", "on": CHAT, "status": 502}, JobState.FAILED, errors.UNAVAILABLE),
        ({"kind": "error", "on": CHAT, "status": 503}, JobState.FAILED, errors.UNAVAILABLE),
        ({"kind": "rate_limit", "on": CHAT, "retry_after": "7"}, JobState.FAILED, errors.RATE_LIMITED),
        ({"kind": "unauthorized", "on": CHAT}, JobState.FAILED, errors.CREDENTIALS_REFUSED),
        ({"kind": "out_of_credits", "on": CHAT}, JobState.FAILED, errors.OUT_OF_CREDIT),
        ({"kind": "null_content"}, JobState.FAILED, errors.ANSWER_CUT),
        ({"kind": "empty_choices"}, JobState.FAILED, errors.ANSWER_INCOMPLETE),
        ({"kind": "error_in_200"}, JobState.FAILED, errors.UNAVAILABLE),
        ({"kind": "length"}, JobState.FAILED, errors.ANSWER_CUT),
    ],
    ids=lambda value: value.get("kind") if isinstance(value, dict) else "",
)
async def test_what_goes_wrong_at_io_net_ends_the_job_with_its_error(
    fault: dict[str, Any], state: JobState, expected: ErrorCode
) -> None:
    async with ionet() as (compute, emulator):
        emulator.faults.add(**fault)
        status = await run(compute)
        assert status.error is not None
        assert (status.state, status.error.error) == (state, expected)
        assert status.error.retry_after_seconds == (7.0 if expected is errors.RATE_LIMITED else None)
        if state is JobState.LOST:
            # A lost call may be made again under its key, and then has an answer.
            assert (await output_of(compute)).content


async def test_a_streamed_answer_of_io_net_costs_what_it_is_billed() -> None:
    async with ionet() as (compute, emulator):
        *pieces, output = [piece async for piece in compute.stream(TASK)]
        (billed,) = emulator.books()["inferences"]
    assert isinstance(output, Output)
    assert output.content.decode() == "".join(piece.text for piece in pieces if isinstance(piece, Piece))
    assert (output.input_tokens, output.output_tokens) == (billed["prompt_tokens"], billed["completion_tokens"])
    assert output.cost is not None
    assert Decimal(str(output.cost.amount)) == Decimal(billed["cost_usd"])


EMBEDDER = ServedModel("org/embedder", "scripted", Decimal("5e-8"), Decimal(0), embeds=True)


@pytest.mark.parametrize("shape", ["live", "documented"])
async def test_io_net_embeds_at_the_price_of_its_other_list(shape: str) -> None:
    async with ionet(catalogue=(SMOLLM2_SERVED, EMBEDDER), models_shape=shape) as (compute, emulator):
        assert set(await compute.models()) == {MODEL, EMBEDDER.id}
        task = replace(TASK, model=EMBEDDER.id, max_output_tokens=0)
        quote = await compute.quote(task)
        found = await compute.embed(EMBEDDER.id, ["six times seven", "forty-two"], seconds=20)
        (billed,) = emulator.books()["inferences"]
    assert (len(found.vectors), found.vectors[0] == found.vectors[1]) == (2, False)
    assert (found.model, found.input_tokens) == (EMBEDDER.id, billed["prompt_tokens"])
    assert found.cost_lamports is not None
    assert 0 < found.cost_lamports <= quote.cost_lamports


async def test_a_key_that_has_spent_its_credit_asks_for_nothing_more() -> None:
    """The service would refuse it with 429; but what is lost in a refused call is a request's time."""
    key = ApiKey(credit_usd=Decimal("0.000003"), is_sub_key=True)
    async with ionet(keys=(key,), usage=True, credit_lag_seconds=0) as (compute, emulator):
        allowance = await compute.allowance()
        assert allowance == Allowance(key.credit_usd, Decimal(0), key.credit_usd, "daily")
        assert await compute.quote(TASK)
        await compute.answer(TASK)
        spent = Decimal(emulator.books()["keys"][0]["spent_usd"])
        assert await compute.balance() == Money(float(key.credit_usd - spent), "USD")
    async with ionet(keys=(replace(key, credit_usd=spent),), usage=True) as (compute, emulator):
        with pytest.raises(OracleError) as caught:
            await compute.quote(TASK)
        assert caught.value.error is errors.OUT_OF_CREDIT
        assert emulator.books()["inferences"] == []


async def test_a_model_of_a_higher_plan_is_not_asked_for() -> None:
    async with ionet(catalogue=(replace(SMOLLM2_SERVED, higher_tier_required=True),)) as (compute, emulator):
        with pytest.raises(OracleError) as caught:
            await compute.quote(TASK)
        assert caught.value.error is errors.NOT_PERMITTED
        assert (await compute.offers())[0].locked
        # Asked all the same, the service says so itself.
        assert (status := await run(compute)).error is not None
        assert (status.error.error, emulator.books()["inferences"]) == (errors.NOT_PERMITTED, [])


async def test_another_model_that_answers_is_told_by_its_name() -> None:
    async with ionet() as (compute, emulator):
        emulator.faults.add("wrong_model")
        assert (await output_of(compute)).model_run == "another/model"


async def test_a_model_that_vanishes_is_no_longer_quoted() -> None:
    async with ionet() as (compute, emulator):
        await compute.quote(TASK)
        emulator.withdraw(MODEL)
        status = await run(compute)
        assert status.error is not None
        assert status.error.error is errors.MODEL_UNAVAILABLE
        with pytest.raises(OracleError) as caught:
            await compute.quote(TASK)
        assert caught.value.error is errors.MODEL_UNAVAILABLE


@pytest.mark.parametrize("status", [402, 403, 429])
async def test_an_exhausted_account_is_told_from_a_limited_rate_whatever_its_status(status: int) -> None:
    poor = (ApiKey(credit_usd=Decimal(0)),)
    async with ionet(keys=poor, exhausted_status=status) as (compute, _):
        found = await run(compute)
    assert found.error is not None
    assert found.error.error is errors.OUT_OF_CREDIT


async def test_a_sub_key_over_its_limit_is_out_of_credit_and_not_limited_in_rate() -> None:
    spent = (ApiKey(credit_usd=Decimal(0), is_sub_key=True),)
    async with ionet(keys=spent) as (compute, _):
        found = await run(compute)
    assert found.error is not None
    assert (found.error.error, found.error.verdict) == (errors.OUT_OF_CREDIT, Verdict.GIVE_UP)


async def test_a_wrong_key_is_refused() -> None:
    async with ionet(key="io-v2-wrong") as (compute, _):
        found = await run(compute)
    assert found.error is not None
    assert found.error.error is errors.CREDENTIALS_REFUSED


async def test_a_wrong_parameter_is_refused_without_repeating_what_was_sent() -> None:
    async with ionet(extra_body={"temperature": "a secret recipe"}) as (compute, _):
        found = await run(compute)
    assert found.error is not None
    assert (found.error.error, found.error.verdict) == (errors.REQUEST_REFUSED, Verdict.GIVE_UP)
    assert "body.temperature" in found.message
    assert "secret" not in found.message


@pytest.mark.parametrize("fault", ["cut_stream", "cut_character", "error_in_stream", "no_finish_reason"])
async def test_a_stream_that_does_not_end_well_is_no_answer(fault: str) -> None:
    async with ionet() as (compute, emulator):
        emulator.faults.add(fault)
        with pytest.raises(OracleError):
            _ = [piece async for piece in compute.chat.stream(TASK)]


async def test_a_stream_without_its_end_mark_is_an_answer() -> None:
    async with ionet() as (compute, emulator):
        emulator.faults.add("no_done")
        assert [piece async for piece in compute.chat.stream(TASK)]


@pytest.mark.model
async def test_the_real_model_answers_through_io_net(model: LocalModel) -> None:
    async with serve(Ionet(model.base_url)) as running:
        settings = {"kind": "ionet", "api_key": "io-v2-localnet", "base_url": f"{running.url}/api/v1"}
        compute = build("ionet", settings, rates=RATES, environ={})
        assert isinstance(compute, ChatCompute)
        output = await output_of(compute, replace(TASK, max_output_tokens=16))
        await compute.close()
    assert output.content.decode().strip()
    assert output.model_run == MODEL


# --- OpenAI and its like ---


@asynccontextmanager
async def openai(
    personality: Personality, *, key: str = "sk-right", **options: Any
) -> AsyncIterator[tuple[ChatCompute, ScriptedOpenAI]]:
    emulator = ScriptedOpenAI(personality, api_key="sk-right", **options)
    async with serve(emulator) as running:
        settings = {"kind": "openai", "base_url": f"{running.url}/v1", "api_key": key, "free": True}
        servers = {"vllm", "ollama", "llamacpp", "openai"}
        settings["server"] = personality.value if personality.value in servers else "other"
        compute = build("openai", settings, environ={})
        assert isinstance(compute, ChatCompute)
        try:
            yield compute, emulator
        finally:
            await compute.close()


@pytest.mark.parametrize("personality", list(Personality))
async def test_a_job_runs_on_every_kind_of_server(personality: Personality) -> None:
    async with openai(personality) as (compute, _):
        output = await output_of(compute)
        assert isinstance(compute.chat, OpenAIChat)
        *pieces, whole = [piece async for piece in compute.chat.stream(TASK)]
    assert isinstance(whole, Completion)
    assert output.content.decode() == whole.text == "".join(piece.text for piece in pieces if isinstance(piece, Piece))
    assert output.model_run == MODEL
    assert output.output_tokens == whole.output_tokens


@pytest.mark.parametrize("personality", list(Personality))
@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        ("rate_limit", errors.RATE_LIMITED),
        ("error", errors.UNAVAILABLE),
        ("html", errors.UNAVAILABLE),
    ],
)
async def test_every_envelope_of_every_server_is_understood(
    personality: Personality, fault: str, expected: ErrorCode
) -> None:
    async with openai(personality) as (compute, emulator):
        emulator.faults.add(fault, on=CHAT)
        found = await run(compute)
    assert found.error is not None
    assert found.error.error is expected


@pytest.mark.parametrize("personality", list(Personality))
async def test_every_refusal_of_a_key_is_understood(personality: Personality) -> None:
    async with openai(personality, key="sk-wrong-key-1234") as (compute, emulator):
        # Ollama takes any key; AWS answers 403 to a wrong one, as to one without the right (§6.4).
        emulator.faults.add("unauthorized", on=CHAT)
        found = await run(compute)
    assert found.error is not None
    expected = errors.NOT_PERMITTED if personality is Personality.BEDROCK else errors.CREDENTIALS_REFUSED
    assert found.error.error is expected
    assert "sk-wrong" not in found.message


@pytest.mark.parametrize(
    "personality", [p for p in Personality if p not in (Personality.LLAMACPP, Personality.BEDROCK)]
)
async def test_every_refusal_of_a_model_is_understood(personality: Personality) -> None:
    async with openai(personality, models=("other",)) as (compute, _):
        found = await run(compute)
    assert found.error is not None
    assert found.error.error is errors.MODEL_UNAVAILABLE


async def test_out_of_quota_is_not_a_limited_rate() -> None:
    async with openai(Personality.OPENAI) as (compute, emulator):
        emulator.faults.add("out_of_credits", on=CHAT)
        found = await run(compute)
    assert found.error is not None
    assert (found.error.error, found.error.verdict) == (errors.OUT_OF_CREDIT, Verdict.GIVE_UP)


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        ("empty_content", errors.ANSWER_EMPTY),
        ("empty_choices", errors.ANSWER_INCOMPLETE),
        ("length", errors.ANSWER_CUT),
    ],
)
async def test_an_answer_that_is_none_is_refused(fault: str, expected: ErrorCode) -> None:
    async with openai(Personality.OPENAI) as (compute, emulator):
        emulator.faults.add(fault)
        found = await run(compute)
    assert found.error is not None
    assert found.error.error is expected


@pytest.mark.parametrize("fault", ["cut_stream", "error_in_stream"])
async def test_a_stream_of_llama_cpp_that_breaks_is_no_answer(fault: str) -> None:
    async with openai(Personality.LLAMACPP) as (compute, emulator):
        emulator.faults.add(fault)
        found = await run(compute)
    assert found.state in (JobState.LOST, JobState.FAILED)
