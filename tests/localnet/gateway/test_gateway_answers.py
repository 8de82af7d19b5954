"""What the official client asks, and what it is answered."""

from __future__ import annotations

import base64
import struct
from typing import Any

import openai
import pytest
from gateway_world import MODEL, GatewayWorld, answer_to, ask, key_of, refusal
from openai import OpenAI

pytestmark = [pytest.mark.localnet, pytest.mark.asyncio(loop_scope="package")]


async def test_a_question_is_answered_in_one_piece(gateway: GatewayWorld) -> None:
    async with gateway.client() as client:
        answer = await client.chat.completions.create(**ask("one piece"))
    assert answer.choices[0].message.content == answer_to("one piece")
    assert answer.choices[0].finish_reason == "stop"
    assert (answer.object, answer.model) == ("chat.completion", MODEL)
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.total_tokens) == (6, 6, 12)
    assert answer.model_extra == {"oracle": {"provider": "scripted", "model_run": MODEL}}


async def test_a_stream_is_the_same_answer_piece_by_piece(gateway: GatewayWorld) -> None:
    async with gateway.client() as client:
        stream = await client.chat.completions.create(
            **ask("many pieces", stream=True, stream_options={"include_usage": True})
        )
        *chunks, usage = [chunk async for chunk in stream]
    texts = [chunk.choices[0].delta.content for chunk in chunks]
    assert chunks[0].choices[0].delta.role == "assistant"
    assert "".join(text or "" for text in texts) == answer_to("many pieces")
    assert len([text for text in texts if text]) == 6
    assert [chunk.choices[0].finish_reason for chunk in chunks] == [None] * 7 + ["stop"]
    assert len({chunk.id for chunk in [*chunks, usage]}) == 1
    assert (usage.choices, usage.usage and usage.usage.completion_tokens) == ([], 6)
    assert chunks[-1].model_extra == {"oracle": {"provider": "scripted", "model_run": MODEL}}


async def test_usage_is_streamed_only_to_those_who_ask(gateway: GatewayWorld) -> None:
    async with gateway.client() as client:
        chunks = [chunk async for chunk in await client.chat.completions.create(**ask(stream=True))]
    assert all(chunk.choices and chunk.usage is None for chunk in chunks)


async def test_the_client_that_does_not_await_is_served_too(gateway: GatewayWorld) -> None:
    def blocking() -> str | None:
        with OpenAI(base_url=gateway.url, api_key=key_of("alice"), max_retries=0) as client:
            return client.chat.completions.create(**ask("blocking")).choices[0].message.content

    import asyncio

    assert await asyncio.to_thread(blocking) == answer_to("blocking")


async def test_what_is_asked_reaches_the_provider_as_it_was_asked(gateway: GatewayWorld) -> None:
    messages = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]},
        {"role": "assistant", "content": "Yes.", "refusal": None, "annotations": [], "tool_calls": None},
        {"role": "user", "content": "And?"},
    ]
    sampling: dict[str, Any] = {"top_p": 0.5, "stop": ["x"], "presence_penalty": 0.1}
    async with gateway.client() as client:
        await client.chat.completions.create(
            model=MODEL, messages=messages, max_completion_tokens=50, temperature=0.3, seed=7, user="u", **sampling
        )
    (asked,) = gateway.model.requests
    assert asked["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "one\ntwo"},
        {"role": "assistant", "content": "Yes."},
        {"role": "user", "content": "And?"},
    ]
    assert (asked["max_tokens"], asked["temperature"], asked["seed"]) == (50, 0.3, 7)
    assert {name: asked[name] for name in sampling} == sampling


async def test_without_a_seed_two_calls_have_two_seeds_and_the_usual_temperature(gateway: GatewayWorld) -> None:
    async with gateway.client() as client:
        for _ in range(2):
            await client.chat.completions.create(**ask())
    first, second = gateway.model.requests
    assert first["seed"] != second["seed"]
    assert (first["temperature"], first["max_tokens"]) == (1.0, 1024)


async def test_an_answer_that_ends_at_the_limit_says_so(gateway: GatewayWorld) -> None:
    async with gateway.client() as client:
        whole = await client.chat.completions.create(**ask(max_tokens=3))
        *_, last = [chunk async for chunk in await client.chat.completions.create(**ask(max_tokens=3, stream=True))]
    assert whole.choices[0].finish_reason == last.choices[0].finish_reason == "length"


@pytest.mark.parametrize("encoding", ["float", "base64"])
async def test_texts_are_embedded_in_their_order(gateway: GatewayWorld, encoding: Any) -> None:
    async with gateway.client() as client:
        found = await client.embeddings.create(model=MODEL, input=["a", "b c"], encoding_format=encoding)
        alone = await client.embeddings.create(model=MODEL, input="b c")

    def floats(vector: Any) -> list[float]:
        return list(struct.unpack("<8f", base64.b64decode(vector))) if isinstance(vector, str) else vector

    first, second = (floats(item.embedding) for item in found.data)
    assert first != second
    assert second == pytest.approx(alone.data[0].embedding)
    assert (found.usage.prompt_tokens, found.usage.total_tokens) == (3, 3)


async def test_a_large_batch_is_embedded_in_one_call(gateway: GatewayWorld) -> None:
    texts = [f"text {at}" for at in range(1_000)]
    async with gateway.client() as client:
        found = await client.embeddings.create(model=MODEL, input=texts)
        alone = await client.embeddings.create(model=MODEL, input=texts[-1])
    assert [item.index for item in found.data] == list(range(1_000))
    assert found.data[-1].embedding == pytest.approx(alone.data[0].embedding)


async def test_the_models_of_the_configuration_are_listed(gateway: GatewayWorld) -> None:
    async with gateway.client() as client:
        names = [model.id for model in (await client.models.list()).data]
        one = await client.models.retrieve("pair")
        error = await refusal(client.models.retrieve("gpt-nothing"))
    assert {"tiny", "pair", "gpu"} <= set(names)
    assert (one.id, one.object, error.status_code) == ("pair", "model", 404)


@pytest.mark.parametrize("key", ["", "alice-key", "alice-key-01234567890"])
async def test_who_has_no_key_learns_nothing(gateway: GatewayWorld, key: str) -> None:
    async with gateway.client(api_key=key or "x") as client:
        for call in (client.models.list(), client.chat.completions.create(**ask())):
            error = await refusal(call)
            assert isinstance(error, openai.AuthenticationError)
            assert (error.status_code, error.code, error.type) == (401, "invalid_api_key", "invalid_request_error")
    assert gateway.model.requests == []


async def test_a_model_that_nobody_routes_is_not_found(gateway: GatewayWorld) -> None:
    async with gateway.client() as client:
        error = await refusal(client.chat.completions.create(**ask() | {"model": "gpt-nothing"}))
    assert isinstance(error, openai.NotFoundError)
    assert error.code == "model_not_found"


@pytest.mark.parametrize(
    ("wrong", "param", "code"),
    [
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools", "unsupported_parameter"),
        ({"n": 2}, "n", "unsupported_parameter"),
        ({"logprobs": True}, "logprobs", "unsupported_parameter"),
        ({"surprise": 1}, "surprise", "unsupported_parameter"),
        ({"temperature": 3}, "temperature", "invalid_value"),
        ({"max_tokens": 0}, "max_tokens", "invalid_value"),
        ({"max_tokens": 5_000}, "max_tokens", "invalid_value"),
        ({"seed": "x"}, "seed", "invalid_value"),
        ({"stream": "yes"}, "stream", "invalid_value"),
        ({"stream_options": []}, "stream_options", "invalid_value"),
        ({"messages": []}, "messages", "invalid_value"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].role", "unsupported_parameter"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content", "invalid_value"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
            "messages[0].content",
            "unsupported_parameter",
        ),
        ({"messages": [{"role": "user", "content": " "}]}, None, "invalid_value"),
        ({"messages": [{"role": "user", "content": "bell \x07"}]}, None, "invalid_value"),
        ({"model": ""}, "model", "invalid_value"),
    ],
)
async def test_what_cannot_be_honoured_is_refused_by_its_name(
    gateway: GatewayWorld, wrong: dict[str, Any], param: str | None, code: str
) -> None:
    async with gateway.client() as client:
        error = await refusal(client.post("/chat/completions", body=ask() | wrong, cast_to=object))
    assert isinstance(error, openai.BadRequestError)
    assert (error.param, error.code) == (param, code)
    assert gateway.model.requests == []


@pytest.mark.parametrize(
    ("body", "status"),
    [(b"", 400), (b"{", 400), (b"[]", 400), (b"null", 400), (b"\xff", 400), (b'"' + b"x" * 20_001 + b'"', 413)],
)
async def test_what_is_no_request_is_refused(gateway: GatewayWorld, body: bytes, status: int) -> None:
    for path in ("/chat/completions", "/embeddings"):
        answer = await gateway.post(path, body)
        assert answer.status_code == status
        assert answer.json()["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    "wrong",
    [
        {"input": []},
        {"input": ""},
        {"input": ["a", ""]},
        {"input": ["a", 5]},
        {"input": ["x"] * 2049},
        {"input": [[1, 2]]},
        {"input": 5},
        {"dimensions": 4},
        {"encoding_format": "x"},
    ],
)
async def test_what_cannot_be_embedded_is_refused(gateway: GatewayWorld, wrong: dict[str, Any]) -> None:
    async with gateway.client() as client:
        error = await refusal(client.post("/embeddings", body={"model": MODEL, "input": "x"} | wrong, cast_to=object))
    assert error.status_code == 400


@pytest.mark.parametrize("path", ["/", "/nothing", "/chat/completions", "/completions"])
async def test_an_address_that_serves_nothing_says_so_in_the_same_words(gateway: GatewayWorld, path: str) -> None:
    answer = await gateway.get(path)
    assert answer.status_code in (404, 405)
    assert answer.json()["error"]["oracle_code"] == "ORC-GATEWAY-016"
