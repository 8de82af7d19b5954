"""The OpenAI wire format: golden bodies, every ending of an answer, and streams as they are met in the wild."""

from __future__ import annotations

import copy
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import httpx
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from provider_wire import COMPLETION, STREAM, TASK, Pieces, Wire, answer, http

from oracle.core.compute import Completion, Message, Piece, Task
from oracle.core.errors import ErrorCode, OracleError, Verdict
from oracle.providers import errors, sse
from oracle.providers.offers import Allowance, Offer
from oracle.providers.openai.client import OpenAIChat
from oracle.providers.openai.wire import PLAIN, Dictation, chat_body, read_completion

# ionet.md §2.6
IONET_STREAM = b"""data: {"id":"chatcmpl-5d1c0b6e","object":"chat.completion.chunk","created":1789430000,"model":"Qwen/Qwen3.8-27B","choices":[{"index":0,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}],"usage":{"prompt_tokens":57,"total_tokens":57,"completion_tokens":0},"provider":"ai.io.net"}

data: {"id":"chatcmpl-5d1c0b6e","object":"chat.completion.chunk","created":1789430000,"model":"Qwen/Qwen3.8-27B","choices":[{"index":0,"delta":{"reasoning_content":"User wants hello."},"finish_reason":null}],"usage":{"prompt_tokens":57,"total_tokens":64,"completion_tokens":7},"provider":"ai.io.net"}

data: {"id":"chatcmpl-5d1c0b6e","object":"chat.completion.chunk","created":1789430000,"model":"Qwen/Qwen3.8-27B","choices":[{"index":0,"delta":{"content":"\\n\\nhello"},"finish_reason":"stop"}],"usage":{"prompt_tokens":57,"total_tokens":73,"completion_tokens":16},"provider":"ai.io.net"}

data: {"id":"chatcmpl-5d1c0b6e","object":"chat.completion.chunk","created":1789430000,"model":"Qwen/Qwen3.8-27B","choices":[],"usage":{"prompt_tokens":57,"total_tokens":73,"completion_tokens":16},"system_fingerprint":"vllm-0.27.1-7470d2d2","provider":"ai.io.net"}

data: [DONE]

"""  # noqa: E501


def completion(**changes: Any) -> dict[str, Any]:
    """The golden completion with a changed choice: `message__content=None` changes `choices[0].message.content`."""
    body = copy.deepcopy(COMPLETION)
    for path, value in changes.items():
        *way, last = path.split("__")
        target = body["choices"][0]
        for step in way:
            target = target[step]
        target[last] = value
    return body


def refused(body: Any) -> OracleError:
    with pytest.raises(OracleError) as caught:
        read_completion(body)
    return caught.value


def test_a_request_is_spelled_out_to_the_last_parameter() -> None:
    assert chat_body(TASK, PLAIN, stream=False) == {
        "model": "gpt-x",
        "messages": [{"role": "user", "content": "What is six times seven?"}],
        "max_tokens": 32,
        "stream": False,
        "temperature": 0.0,
        "top_p": 1,
        "seed": 7,
    }


def test_a_reasoning_model_is_asked_without_sampling_and_with_its_own_limit() -> None:
    body = chat_body(TASK, Dictation("max_completion_tokens", send_sampling=False, extra={"store": False}), stream=True)
    assert body == {
        "model": "gpt-x",
        "messages": [{"role": "user", "content": "What is six times seven?"}],
        "max_completion_tokens": 32,
        "stream": True,
        "stream_options": {"include_usage": True},
        "store": False,
    }


def test_a_seed_of_64_bits_is_folded_to_one_that_every_server_takes() -> None:
    task = Task("m", (Message("user", "x"),), 1, seed=2**64 - 1)
    assert chat_body(task, PLAIN, stream=False)["seed"] == 2**31 - 1


def test_a_completion_is_read_with_the_model_that_ran() -> None:
    assert read_completion(COMPLETION) == Completion(
        text="42",
        model="gpt-x-2026-08-01",
        finish_reason="stop",
        input_tokens=12,
        output_tokens=5,
        response_id="chatcmpl-abc",
    )


def test_text_is_kept_as_received_down_to_its_leading_newlines() -> None:
    assert read_completion(completion(message__content="\n\nhello ")).text == "\n\nhello "


@pytest.mark.parametrize("field", ["reasoning", "reasoning_content"])
def test_reasoning_is_never_part_of_the_answer(field: str) -> None:
    assert read_completion(completion(**{f"message__{field}": "let me think"})).text == "42"


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (completion(finish_reason="content_filter"), errors.ANSWER_REFUSED),
        (completion(message__refusal="I cannot help with that."), errors.ANSWER_REFUSED),
        (completion(finish_reason="tool_calls", message__content=None), errors.ANSWER_REFUSED),
        (completion(message__content=""), errors.ANSWER_EMPTY),
        (completion(message__content=None), errors.ANSWER_EMPTY),
        (completion(message__content=[{"type": "text", "text": "42"}]), errors.ANSWER_EMPTY),
        (completion(message__content=None, finish_reason="length"), errors.ANSWER_CUT),
        (completion(finish_reason=None), errors.ANSWER_INCOMPLETE),
        (completion(finish_reason=""), errors.ANSWER_INCOMPLETE),
        (completion(finish_reason="abort"), errors.ANSWER_INCOMPLETE),
        (completion(message=None), errors.ANSWER_INCOMPLETE),
        ({**COMPLETION, "choices": []}, errors.ANSWER_INCOMPLETE),
        ({**COMPLETION, "choices": None}, errors.ANSWER_INCOMPLETE),
        ({**COMPLETION, "choices": ["x"]}, errors.ANSWER_INCOMPLETE),
        ([], errors.ANSWER_INCOMPLETE),
        ("hello", errors.ANSWER_INCOMPLETE),
        (None, errors.ANSWER_INCOMPLETE),
        ({"detail": "upstream error"}, errors.UNAVAILABLE),
        ({"error": {"message": "boom", "code": 500}}, errors.UNAVAILABLE),
        ({"error": {"message": "too long", "type": "BadRequestError", "code": 400}}, errors.REQUEST_REFUSED),
    ],
)
def test_an_answer_that_is_not_finished_and_whole_is_no_answer(body: Any, expected: ErrorCode) -> None:
    assert refused(body).error is expected


def test_an_answer_cut_at_its_limit_says_so() -> None:
    assert read_completion(completion(finish_reason="length")).finish_reason == "length"


@pytest.mark.parametrize("usage", [None, {}, {"prompt_tokens": 3}, {"prompt_tokens": -1}, {"prompt_tokens": True}, 7])
def test_a_missing_or_odd_token_count_is_no_count(usage: Any) -> None:
    found = read_completion({**COMPLETION, "usage": usage})
    assert found.output_tokens is None
    assert found.input_tokens == (3 if usage == {"prompt_tokens": 3} else None)


def chat_over(wire: Wire, **options: Any) -> OpenAIChat:
    return OpenAIChat(http(wire, **options))


async def test_a_call_goes_out_as_documented() -> None:
    wire = Wire(answer(COMPLETION))
    found = await chat_over(wire, headers={"Authorization": "Bearer sk-x"}).complete(TASK)
    request = wire.requests[0]
    assert (request.method, str(request.url)) == ("POST", "https://api.example/v1/chat/completions")
    assert request.headers["authorization"] == "Bearer sk-x"
    assert wire.body() == chat_body(TASK, PLAIN, stream=False)
    assert found.text == "42"


async def test_a_refusal_that_repeats_the_prompt_does_not_reach_the_error() -> None:
    body = {"error": {"message": f"bad input: {TASK.messages[0].content}", "type": "t", "param": None, "code": None}}
    with pytest.raises(OracleError) as caught:
        await chat_over(Wire(answer(body, 400))).complete(TASK)
    assert "six times" not in str(caught.value)


async def test_models_are_listed() -> None:
    listing = {"object": "list", "data": [{"id": "a", "object": "model"}, {"id": 7}, "x", {"id": "b"}]}
    assert await chat_over(Wire(answer(listing))).models() == ("a", "b")


@pytest.mark.parametrize("body", [{}, [], {"data": None}, "x"])
async def test_a_listing_of_another_shape_is_unreadable(body: Any) -> None:
    with pytest.raises(OracleError) as caught:
        await chat_over(Wire(answer(body))).models()
    assert caught.value.error is errors.UNREADABLE_ANSWER


async def test_what_is_left_of_the_rate_is_told_once_an_answer_has_told_it() -> None:
    headers = {"x_ratelimit_remaining_requests": "59", "x_ratelimit_remaining_tokens": "149984"}
    wire = Wire(answer({"data": [{"id": "gpt-x"}]}), answer(COMPLETION, **headers), answer(COMPLETION))
    chat = chat_over(wire)
    assert await chat.offers() == (Offer("gpt-x"),)
    assert await chat.allowance() is None
    for _ in range(2):  # the second answer says nothing of it
        await chat.complete(TASK)
        assert await chat.allowance() == Allowance(requests_left=59, tokens_left=149_984)


# 1.0 and 2.0, and 3.0 and 4.5, as 32-bit floats.
BASE64 = ["AACAPwAAAEA=", "AABAQAAAkEA="]


@pytest.mark.parametrize("vectors", [[[1.0, 2.0], [3, 4.5]], BASE64], ids=["float", "base64"])
async def test_embeddings_come_in_the_order_of_the_texts(vectors: list[Any]) -> None:
    data = [{"index": 1, "embedding": vectors[1]}, {"index": 0, "embedding": vectors[0]}]
    wire = Wire(
        answer({"object": "list", "data": data, "model": "e", "usage": {"prompt_tokens": 4, "total_tokens": 4}})
    )
    found = await chat_over(wire).embed("e", ["a", "b"])
    assert (found.vectors, found.model, found.input_tokens) == (((1.0, 2.0), (3.0, 4.5)), "e", 4)
    assert wire.body() == {"model": "e", "input": ["a", "b"], "encoding_format": "base64"}


async def test_a_large_batch_has_room_for_all_of_its_vectors() -> None:
    data = [{"index": at, "embedding": [0.123456789] * 1000} for at in range(9)]
    small = http(Wire(answer({"data": data, "model": "e"})), max_answer_bytes=1024)
    found = await OpenAIChat(small).embed("e", ["x"] * 9)
    assert [len(vector) for vector in found.vectors] == [1000] * 9


@pytest.mark.parametrize(
    "data",
    [
        None,
        [],
        [{"index": 0, "embedding": []}],
        [{"index": 1, "embedding": [1.0]}],
        [{"index": 0, "embedding": "AAAA"}],
        [{"index": 0, "embedding": "AACAP?AAAEA="}],
        [{"index": 0, "embedding": ""}],
        [{"index": 0, "embedding": "AADAfw=="}],  # not a number
        [{"index": None, "embedding": [1.0]}],
        [{"index": [], "embedding": [1.0]}],
        [{"index": 0, "embedding": [1.0]}, {"index": 1, "embedding": [1.0]}],
        [None],
    ],
)
async def test_embeddings_that_are_not_one_vector_per_text_are_refused(data: Any) -> None:
    with pytest.raises(OracleError):
        await chat_over(Wire(answer({"data": data}))).embed("e", ["a"])


def streaming(*pieces: bytes, then: Exception | None = None, **options: Any) -> OpenAIChat:
    wire = Wire(lambda request: httpx.Response(200, stream=Pieces(*pieces, then=then)))
    return chat_over(wire, **options)


async def collected(chat: OpenAIChat) -> tuple[list[str], Completion]:
    *pieces, whole = [piece async for piece in chat.stream(TASK)]
    assert isinstance(whole, Completion)
    return [piece.text for piece in pieces if isinstance(piece, Piece)], whole


async def test_a_stream_gives_its_pieces_and_then_the_whole() -> None:
    texts, whole = await collected(streaming(STREAM))
    assert texts == ["42"]
    assert whole == Completion("42", "m", "stop", 5, 1, "chatcmpl-1")


async def test_a_stream_of_io_net_counts_its_last_usage_and_leaves_reasoning_out() -> None:
    texts, whole = await collected(streaming(IONET_STREAM))
    assert texts == ["\n\nhello"]
    assert (whole.input_tokens, whole.output_tokens, whole.finish_reason) == (57, 16, "stop")


@pytest.mark.parametrize("step", [1, 2, 7, 64])
async def test_a_stream_may_be_cut_anywhere_even_inside_a_character(step: int) -> None:
    body = STREAM.replace(b'"42"', '"żółw 🐢"'.encode())
    texts, _ = await collected(streaming(*(body[at : at + step] for at in range(0, len(body), step))))
    assert texts == ["żółw 🐢"]


@pytest.mark.parametrize("end", [b"\r\n", b"\r"])
async def test_every_line_end_is_understood(end: bytes) -> None:
    texts, _ = await collected(streaming(STREAM.replace(b"\n", end)))
    assert texts == ["42"]


async def test_pings_and_other_fields_are_skipped() -> None:
    texts, _ = await collected(streaming(b": ping\n\nevent: chunk\nid: 1\nretry: 3\n" + STREAM))
    assert texts == ["42"]


async def test_several_data_lines_are_one_event() -> None:
    split = STREAM.replace(b'"created":1,"model"', b'"created":1,\ndata: "model"')
    assert (await collected(streaming(split)))[0] == ["42"]


async def test_a_stream_without_its_end_mark_is_whole_if_it_said_why_it_finished() -> None:
    without = STREAM.replace(b"data: [DONE]\n\n", b"").rstrip(b"\n")
    assert (await collected(streaming(without)))[1].text == "42"


async def test_an_end_mark_alone_proves_nothing() -> None:
    unfinished = STREAM.replace(b'"finish_reason":"stop"', b'"finish_reason":null')
    with pytest.raises(OracleError) as caught:
        await collected(streaming(unfinished))
    assert caught.value.error is errors.ANSWER_INCOMPLETE


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        (b'data: {"error":{"message":"engine dead","type":"InternalServerError","code":500}}\n\n', errors.UNAVAILABLE),
        (b'{"error":{"message":"no prefix","type":"x","code":503}}\n', errors.UNAVAILABLE),
        (b'data: {"detail":"upstream error"}\n\n', errors.UNAVAILABLE),
        (b"data: nonsense\n\n", errors.ANSWER_INCOMPLETE),
        (b"data: \xff\n\n", errors.NO_ANSWER),
    ],
)
async def test_an_error_inside_a_stream_ends_it(event: bytes, expected: ErrorCode) -> None:
    first = STREAM.split(b"\n\n")[1] + b"\n\n"
    with pytest.raises(OracleError) as caught:
        await collected(streaming(first + event + b"data: [DONE]\n\n"))
    assert caught.value.error is expected


async def test_a_stream_that_breaks_may_have_been_paid_for() -> None:
    with pytest.raises(OracleError) as caught:
        await collected(streaming(STREAM[:200], then=httpx.ReadError("cut")))
    assert caught.value.verdict is Verdict.UNKNOWN


async def test_a_stream_without_end_is_cut_at_the_limit() -> None:
    with pytest.raises(OracleError) as caught:
        await collected(streaming(*[STREAM] * 1000, max_answer_bytes=10_000))
    assert caught.value.error is errors.ANSWER_TOO_LARGE


async def test_a_line_without_end_is_cut_at_the_limit() -> None:
    async def pieces() -> AsyncIterator[bytes]:
        while True:
            yield b"x" * 65_536

    with pytest.raises(OracleError) as caught:
        _ = [data async for data in sse.events(pieces())]
    assert caught.value.error is errors.ANSWER_TOO_LARGE


async def test_a_refused_stream_is_a_refused_call() -> None:
    chat = chat_over(Wire(answer({"detail": "Invalid API Key"}, 401)))
    with pytest.raises(OracleError) as caught:
        _ = [piece async for piece in chat.stream(TASK)]
    assert caught.value.error is errors.CREDENTIALS_REFUSED


async def test_a_server_that_computes_for_readers_long_gone_is_read_as_a_stream() -> None:
    wire = Wire(answer(STREAM))
    found = await OpenAIChat(http(wire), Dictation(by_stream=True)).complete(TASK)
    assert (found.text, found.output_tokens) == ("42", 1)
    assert wire.body()["stream"] is True


async def test_a_piece_names_the_model_that_is_said_to_run() -> None:
    first = await anext(streaming(STREAM).stream(TASK))
    assert first == Piece("42", "m")


async def test_sampling_that_the_caller_spells_out_wins_over_the_defaults_that_undo_a_server() -> None:
    wire = Wire(answer(STREAM))
    chat = OpenAIChat(http(wire), Dictation(by_stream=True, extra={"top_k": 0, "min_p": 0}))
    await chat.complete(replace(TASK, sampling={"top_k": 5, "stop": ["x"]}))
    assert (wire.body()["top_k"], wire.body()["min_p"], wire.body()["stop"]) == (5, 0, ["x"])


@given(
    texts=st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), max_size=6), step=st.integers(1, 40)
)
async def test_any_text_survives_any_cutting(texts: list[str], step: int) -> None:
    body = b"".join(b"data: " + orjson.dumps({"t": text}) + b"\n\n" for text in texts)

    async def pieces() -> AsyncIterator[bytes]:
        for at in range(0, len(body), step):
            yield body[at : at + step]

    assert [orjson.loads(data)["t"] async for data in sse.events(pieces())] == texts
