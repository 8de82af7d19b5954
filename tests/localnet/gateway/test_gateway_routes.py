"""Routes that fail before they have said a word are followed by the next; what was bought is told to nobody twice."""

from __future__ import annotations

import asyncio
from typing import Any

import openai
import pytest
from gateway_world import MODEL, GatewayWorld, answer_to, ask, refusal
from pipeline_world import until

from oracle.store import calls
from oracle.store.rows import CallRow, GatewayJobRow
from oracle.store.schema import AttemptState, CallState

pytestmark = [pytest.mark.localnet, pytest.mark.asyncio(loop_scope="package")]

STREAMED = [pytest.param(False, id="whole"), pytest.param(True, id="stream")]


async def text_of(client: openai.AsyncOpenAI, *, stream: bool, **question: Any) -> str:
    answer: Any = await client.chat.completions.create(**question, stream=stream)
    if not stream:
        return answer.choices[0].message.content
    return "".join([chunk.choices[0].delta.content or "" async for chunk in answer])


async def newest(gateway: GatewayWorld) -> tuple[CallRow, list[GatewayJobRow]]:
    """The call that began last, and its jobs."""

    def read(c: Any) -> tuple[CallRow, list[GatewayJobRow]]:
        row = c.exec_driver_sql("SELECT id FROM gateway_calls ORDER BY rowid DESC LIMIT 1").one()
        return calls.get(c, row[0]), calls.jobs_of(c, row[0])

    return await gateway.context.store.read(read)


@pytest.mark.parametrize("stream", STREAMED)
@pytest.mark.parametrize(
    "fault",
    [
        {"kind": "error", "status": 500},
        {"kind": "error", "status": 503},
        {"kind": "unauthorized"},
        {"kind": "out_of_credits"},
        {"kind": "error", "status": 400, "text": "no such parameter"},
        {"kind": "drop"},
        {"kind": "empty_content"},
    ],
    ids=lambda fault: f"{fault['kind']}{fault.get('status', '')}",
)
async def test_the_next_route_answers_where_the_first_one_fails(
    gateway: GatewayWorld, fault: dict[str, Any], stream: bool
) -> None:
    gateway.model.faults.add(**fault, count=None)
    async with gateway.client() as client:
        assert await text_of(client, stream=stream, **ask("fall back") | {"model": "pair"}) == answer_to("fall back")
    assert gateway.spare is not None
    assert len(gateway.spare.requests) == 1
    call, jobs = await newest(gateway)
    assert (call.state, call.provider) == (CallState.SUCCEEDED, "spare")
    assert [job.state for job in jobs] == [AttemptState.FAILED, AttemptState.SUCCEEDED]


async def test_embeddings_fall_back_too(gateway: GatewayWorld) -> None:
    gateway.model.faults.add("error", status=500, count=None)
    async with gateway.client() as client:
        found = await client.embeddings.create(model="pair", input="x")
    assert found.model_extra == {"oracle": {"provider": "spare", "model_run": MODEL}}


@pytest.mark.parametrize("stream", STREAMED)
async def test_a_hiccup_of_the_only_route_is_tried_again(gateway: GatewayWorld, stream: bool) -> None:
    gateway.model.faults.add("error", status=503, count=1)
    async with gateway.client() as client:
        assert await text_of(client, stream=stream, **ask("again")) == answer_to("again")


@pytest.mark.parametrize(
    ("fault", "kind", "status", "code"),
    [
        ({"kind": "error", "status": 500}, openai.InternalServerError, 503, "server_is_overloaded"),
        ({"kind": "unauthorized"}, openai.InternalServerError, 502, "upstream_error"),
        ({"kind": "error", "status": 400, "text": "too long"}, openai.BadRequestError, 400, "upstream_refused"),
    ],
)
async def test_when_every_route_has_failed_the_client_is_told_what_it_can_use(
    gateway: GatewayWorld, fault: dict[str, Any], kind: type[openai.APIStatusError], status: int, code: str
) -> None:
    assert gateway.spare is not None
    for upstream in (gateway.model, gateway.spare):
        upstream.faults.add(**fault, count=None)
    async with gateway.client() as client:
        for stream in (False, True):
            gateway.forgive()
            error = await refusal(client.chat.completions.create(**ask(stream=stream) | {"model": "pair"}))
            assert isinstance(error, kind)
            assert (error.status_code, error.code) == (status, code)
    call, jobs = await newest(gateway)
    assert (call.state, call.output_tokens, {job.cost_lamports for job in jobs}) == (CallState.FAILED, 0, {0})


async def test_an_upstream_that_asks_to_wait_is_left_alone_and_the_next_route_answers_at_once(
    gateway: GatewayWorld,
) -> None:
    gateway.model.faults.add("rate_limit", retry_after="59")
    async with gateway.client() as client:
        for n in range(3):
            answer = await client.chat.completions.create(**ask(str(n)) | {"model": "limited-pair"})
            assert answer.choices[0].message.content == answer_to(str(n))
        error = await refusal(client.chat.completions.create(**ask() | {"model": "limited"}))
    assert gateway.world.model_url.calls[-1].status == 429
    assert error.status_code == 503
    assert 10 <= int(error.response.headers["retry-after"]) <= 59


async def test_words_of_the_operators_account_reach_no_client(gateway: GatewayWorld) -> None:
    gateway.model.faults.add("unauthorized", count=None)
    async with gateway.client() as client:
        error = await refusal(client.chat.completions.create(**ask()))
    assert "sk-" not in error.response.text
    assert "scripted" not in error.response.text


async def test_what_goes_wrong_in_the_middle_ends_the_stream_with_an_error(gateway: GatewayWorld) -> None:
    """The other route is not asked: half of one answer and all of another would be no answer."""
    assert gateway.spare is not None
    for fault in ("error_in_stream", "cut_stream"):
        gateway.model.faults.add(fault, count=1)
        heard = ""
        async with gateway.client() as client:
            stream = await client.chat.completions.create(**ask("half", stream=True) | {"model": "pair"})
            failure = None
            try:
                async for chunk in stream:
                    heard += chunk.choices[0].delta.content or ""
            except openai.APIError as error:
                failure = error
        assert failure is not None
        assert heard
        assert answer_to("half").startswith(heard)
        call, (job,) = await newest(gateway)
        assert (call.state, job.state, job.cost_lamports) == (CallState.FAILED, AttemptState.FAILED, None)
        assert call.output_tokens > 0
    assert gateway.spare.requests == []


async def test_an_answer_that_was_lost_is_bought_again_once_and_both_are_booked(gateway: GatewayWorld) -> None:
    gateway.model.faults.add("lose_answer", count=None)
    async with gateway.client() as client:
        await client.chat.completions.create(**ask(max_tokens=50) | {"model": "dear-pair"})
    call, jobs = await newest(gateway)
    assert [(job.provider, job.state, job.cost_lamports) for job in jobs] == [
        ("dear", AttemptState.FAILED, None),
        ("spare", AttemptState.SUCCEEDED, 0),
    ]
    assert call.job_lamports == jobs[0].quoted_lamports > 0


async def test_a_client_does_not_repeat_by_itself_what_may_have_been_paid_for(gateway: GatewayWorld) -> None:
    gateway.model.faults.add("lose_answer", count=None)
    async with gateway.client(max_retries=5) as client:
        error = await refusal(client.chat.completions.create(**ask() | {"model": "dear"}))
    assert (error.status_code, error.code) == (504, "upstream_timeout")
    assert len(gateway.model.requests) == 1


async def test_a_route_that_takes_too_long_is_given_up_for_the_next(gateway: GatewayWorld) -> None:
    gateway.model.faults.add("hang", count=None)
    async with gateway.client() as client:
        answer = await client.chat.completions.create(**ask("hurry") | {"model": "hasty"})
    assert answer.choices[0].message.content == answer_to("hurry")


async def test_a_route_above_its_price_cap_is_not_taken(gateway: GatewayWorld) -> None:
    async with gateway.client() as client:
        error = await refusal(client.chat.completions.create(**ask() | {"model": "capped"}))
    assert error.status_code == 502
    assert gateway.model.requests == []


async def test_a_network_that_works_in_jobs_answers_in_one_piece(gateway: GatewayWorld) -> None:
    async with gateway.client() as client:
        for stream in (False, True):
            text = await text_of(client, stream=stream, **ask(f"job {stream}", max_tokens=40) | {"model": "gpu"})
            assert text == answer_to(f"job {stream}")
    call, (job,) = await newest(gateway)
    assert (call.provider, job.state, job.quoted_lamports > 0) == ("nosana", AttemptState.SUCCEEDED, True)
    assert job.job_id is not None


async def test_a_job_whose_client_leaves_is_cancelled_at_the_network(gateway: GatewayWorld) -> None:
    assert gateway.network is not None
    gateway.model.word_seconds = 5.0
    async with gateway.client() as client:
        asking = asyncio.ensure_future(client.chat.completions.create(**ask(max_tokens=40) | {"model": "gpu"}))

        async def bought() -> bool:
            _, jobs = await newest(gateway)
            return bool(jobs) and jobs[-1].state is AttemptState.RUNNING

        await until(bought, "the job")
        asking.cancel()

    async def cancelled() -> GatewayJobRow | None:
        call, (job,) = await newest(gateway)
        return job if (call.state, job.state) == (CallState.CANCELLED, AttemptState.CANCELLED) else None

    job = await until(cancelled, "the cancelled job")
    assert stopped(gateway)[str(job.job_id)] is True


def stopped(gateway: GatewayWorld) -> dict[str, bool]:
    """What the network's books say of each job: whether we have stopped it."""
    assert gateway.network is not None
    return {job["address"]: job["stopped_by_owner"] for job in gateway.network.books()["jobs"]}


async def test_a_private_client_never_reaches_a_network_that_publishes_prompts(gateway: GatewayWorld) -> None:
    before = len(stopped(gateway))
    async with gateway.client("secret") as client:
        assert "gpu" not in [model.id for model in (await client.models.list()).data]
        error = await refusal(client.chat.completions.create(**ask() | {"model": "gpu"}))
        answer = await client.chat.completions.create(**ask("hush") | {"model": "gpu-first"})
    assert (error.status_code, error.code) == (404, "no_private_route")
    assert answer.model_extra is not None
    assert answer.model_extra["oracle"]["provider"] == "spare"
    assert len(stopped(gateway)) == before


async def test_what_only_a_chat_api_can_honour_goes_to_none_that_works_in_jobs(gateway: GatewayWorld) -> None:
    async with gateway.client() as client:
        error = await refusal(client.chat.completions.create(**ask(top_p=0.5) | {"model": "gpu"}))
        answer = await client.chat.completions.create(**ask(top_p=0.5) | {"model": "gpu-first"})
    assert (error.status_code, error.param) == (400, "top_p")
    assert answer.model_extra is not None
    assert answer.model_extra["oracle"]["provider"] == "spare"
