"""The scripted OpenAI-compatible server: distinct texts, and the manners of openai_compatible.md."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import orjson
import pytest
from nosana_user import loopback

from oracle.localnet.emulators.openai import Answer, Personality, ScriptedOpenAI
from oracle.localnet.emulators.server import serve

pytestmark = pytest.mark.localnet

KEY = {"authorization": "Bearer sk-test"}


@asynccontextmanager
async def served(
    personality: Personality = Personality.OPENAI, **options: Any
) -> AsyncIterator[tuple[ScriptedOpenAI, httpx.AsyncClient]]:
    server = ScriptedOpenAI(personality, **options)
    async with serve(server) as running, loopback(running) as http:
        yield server, http


def chat(content: str = "hi", **more: Any) -> dict[str, Any]:
    return {"model": "m", "messages": [{"role": "user", "content": content}], **more}


async def ask(http: httpx.AsyncClient, **more: Any) -> httpx.Response:
    return await http.post("/v1/chat/completions", json=chat(**more), headers=KEY)


async def test_a_text_belongs_to_its_prompt_and_to_no_other() -> None:
    async with served() as (_, http):
        texts = [
            (await ask(http, content=content)).json()["choices"][0]["message"]["content"] for content in ("a", "b", "a")
        ]
    assert texts[0] == texts[2] != texts[1]


async def test_2_2_an_answer_has_the_documented_shape() -> None:
    async with served() as (_, http):
        answer = (await ask(http)).json()
        cut = (await ask(http, max_completion_tokens=3)).json()
    assert answer["object"] == "chat.completion"
    assert answer["choices"][0]["finish_reason"] == "stop"
    assert (answer["service_tier"], answer["system_fingerprint"]) == ("default", "fp_44709d6fcb")
    assert cut["choices"][0]["finish_reason"] == "length"
    assert cut["usage"]["completion_tokens"] == 3


async def test_2_3_a_stream_has_the_events_of_the_fixture() -> None:
    async with served(words=2) as (_, http):
        answer = await ask(http, stream=True, stream_options={"include_usage": True})
    *events, done, rest = answer.text.split("\n\n")
    assert (done, rest) == ("data: [DONE]", "")
    parsed = [orjson.loads(event.removeprefix("data: ")) for event in events]
    deltas = [event["choices"][0]["delta"] for event in parsed[:-1]]
    assert deltas[0] == {"role": "assistant", "content": ""}
    assert deltas[-1] == {}
    assert [event["choices"][0]["finish_reason"] for event in parsed[:-1]] == [None, None, None, "stop"]
    assert [event["usage"] for event in parsed[:-1]] == [None] * 4
    assert (parsed[-1]["choices"], parsed[-1]["usage"]["completion_tokens"]) == ([], 2)


@pytest.mark.parametrize(
    ("personality", "status", "body"),
    [
        (
            Personality.OPENAI,
            401,
            {
                "error": {
                    "message": "Incorrect API key provided: sk-tes***0001. You can find your API key at "
                    "https://platform.openai.com/account/api-keys.",
                    "type": "invalid_request_error",
                    "param": None,
                    "code": "invalid_api_key",
                }
            },
        ),
        (Personality.VLLM, 401, {"error": "Unauthorized"}),
        (
            Personality.LLAMACPP,
            401,
            {"error": {"code": 401, "message": "Invalid API Key", "type": "authentication_error"}},
        ),
        (
            Personality.BEDROCK,
            403,
            {"message": "User is not authorized to perform: bedrock:InvokeModel"},
        ),
    ],
)
async def test_3_1_and_6_a_bad_key_is_refused_in_each_vendors_envelope(
    personality: Personality, status: int, body: Any
) -> None:
    async with served(personality, api_key="sk-other") as (_, http):
        answer = await ask(http)
    assert (answer.status_code, answer.json()) == (status, body)


@pytest.mark.parametrize(
    ("personality", "error"),
    [
        (
            Personality.OPENAI,
            {
                "message": "The model `m` does not exist or you do not have access to it.",
                "type": "invalid_request_error",
                "param": None,
                "code": "model_not_found",
            },
        ),
        (
            Personality.VLLM,
            {"message": "The model `m` does not exist.", "type": "NotFoundError", "param": "model", "code": 404},
        ),
        (
            Personality.OLLAMA,
            {
                "message": 'model "m" not found, try pulling it first',
                "type": "not_found_error",
                "param": None,
                "code": None,
            },
        ),
    ],
)
async def test_3_1_and_6_an_unknown_model_is_404(personality: Personality, error: dict[str, Any]) -> None:
    async with served(personality, models=("known",)) as (server, http):
        answer = await ask(http)
        assert (await http.get("/v1/models")).json()["data"][0]["id"] == "known"
    assert (answer.status_code, answer.json()) == (404, {"error": error})
    assert server.requests == []


async def test_6_5_vertex_wraps_its_errors_in_a_list() -> None:
    async with served(Personality.VERTEX) as (server, http):
        server.faults.add("rate_limit")
        answer = await ask(http)
    assert answer.status_code == 429
    assert answer.json()[0]["error"]["status"] == "RESOURCE_EXHAUSTED"


async def test_3_1_the_two_kinds_of_429_are_told_apart_by_their_code() -> None:
    async with served() as (server, http):
        server.faults.add("rate_limit", retry_after="2")
        server.faults.add("out_of_credits")
        rate, quota = await ask(http), await ask(http)
    assert (rate.status_code, rate.json()["error"]["code"], rate.headers["retry-after"]) == (
        429,
        "rate_limit_exceeded",
        "2",
    )
    assert (quota.status_code, quota.json()["error"]["code"]) == (429, "insufficient_quota")
    assert "retry-after" not in quota.headers


@pytest.mark.parametrize(
    ("personality", "status", "body"),
    [
        (Personality.VLLM, 503, b""),
        (
            Personality.LLAMACPP,
            503,
            b'{"error":{"code":503,"message":"Loading model","type":"unavailable_error"}}',
        ),
    ],
)
async def test_6_a_server_that_loads_its_model_says_so(personality: Personality, status: int, body: bytes) -> None:
    async with served(personality) as (server, http):
        server.ready = False
        answer = await http.get("/health")
        server.ready = True
        assert (await http.get("/health")).status_code == 200
    assert (answer.status_code, answer.content) == (status, body)


@pytest.mark.parametrize("body", [b"{", b"[]", b'{"messages":[]}', b'{"model":"m","messages":[]}', b'{"model":"m"}'])
async def test_a_bad_body_is_400_and_answers_nothing(body: bytes) -> None:
    async with served() as (server, http):
        answer = await http.post("/v1/chat/completions", content=body)
    assert (answer.status_code, answer.json()["error"]["type"]) == (400, "invalid_request_error")
    assert server.requests == []


@pytest.mark.parametrize(
    ("kind", "there", "not_there"),
    [
        (Answer.CUT_STREAM, b"answer", b'"finish_reason":"'),
        (Answer.NO_DONE, b'"finish_reason":"stop"', b"[DONE]"),
        (Answer.ERROR_IN_STREAM, b'data: {"error":', b'"finish_reason":"'),
        (Answer.LENGTH, b'"finish_reason":"length"', b'"finish_reason":"stop"'),
        (Answer.EMPTY_CONTENT, b'"finish_reason":"stop"', b"answer"),
    ],
)
async def test_a_stream_goes_wrong_on_demand(kind: Answer, there: bytes, not_there: bytes) -> None:
    async with served() as (server, http):
        server.faults.add(kind, on="m")
        answer = await ask(http, stream=True)
    assert answer.status_code == 200
    assert there in answer.content
    assert not_there not in answer.content


async def test_an_answer_without_choices_comes_on_demand() -> None:
    async with served() as (server, http):
        server.faults.add(Answer.EMPTY_CHOICES)
        assert (await ask(http)).json()["choices"] == []


async def test_the_books_tell_how_far_a_stream_went_before_its_reader_left() -> None:
    async with served(words=1_000, word_seconds=0.005) as (server, http):
        async with http.stream("POST", "/v1/chat/completions", json=chat(stream=True), headers=KEY) as answer:
            await anext(answer.aiter_bytes())
        async with asyncio.timeout(60):
            while server.streams[0].live:  # noqa: ASYNC110 (nothing tells when it ends)
                await asyncio.sleep(0.01)
        (stream,) = (await http.get("/_emulator/books")).json()["streams"]
    assert stream["words"] == 1_000
    assert stream["sent"] < 500
    assert not stream["finished"]
