"""IO Intelligence, held to the captures and rules of ionet.md §2, and to each way in which an answer can be wrong."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
from nosana_user import Clock, loopback

from oracle.localnet.emulators.ionet import ApiKey, Ionet, ServedModel
from oracle.localnet.emulators.openai import ScriptedOpenAI, scripted_words
from oracle.localnet.emulators.server import Running, serve

pytestmark = pytest.mark.localnet

Model = tuple[ScriptedOpenAI, str]
CHAT = "/api/v1/chat/completions"
THINKER = ServedModel("Qwen/Qwen3.8-27B", "upstream", Decimal("3.08e-7"), Decimal("2.73e-6"), 65536, 65536, thinks=True)
PLAIN = ServedModel("openai/gpt-oss-120b", "upstream")
EMBEDDER = ServedModel("org/embedder", "upstream", embeds=True)
MESSAGES = [{"role": "user", "content": "say hello"}]
TEXT = "".join(scripted_words(MESSAGES))


class Customer:
    def __init__(self, emulator: Ionet, running: Running, http: httpx.AsyncClient) -> None:
        self.emulator, self.running, self.http = emulator, running, http
        self.headers = {"authorization": "Bearer io-v2-localnet"}

    async def chat(self, model: str = THINKER.id, **more: Any) -> httpx.Response:
        body = {"model": model, "messages": MESSAGES, **more}
        return await self.http.post(CHAT, json=body, headers=self.headers)

    async def stream(self, model: str = THINKER.id, **more: Any) -> list[dict[str, Any]]:
        """The events, which must end with `[DONE]`."""
        answer = await self.chat(model, stream=True, **more)
        assert answer.status_code == 200, answer.text
        assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
        *events, done, rest = answer.text.split("\n\n")
        assert (done, rest) == ("data: [DONE]", "")
        return [orjson.loads(event.removeprefix("data: ")) for event in events]

    async def inferences(self) -> list[dict[str, Any]]:
        return list((await self.http.get("/_emulator/books")).json()["inferences"])


@asynccontextmanager
async def served(url: str, **options: Any) -> AsyncIterator[Customer]:
    emulator = Ionet(url, **{"catalogue": (THINKER, PLAIN, EMBEDDER), **options})
    async with serve(emulator) as running, loopback(running) as http:
        yield Customer(emulator, running, http)


@pytest.fixture
async def ionet(model: Model) -> AsyncIterator[Customer]:
    async with served(model[1]) as customer:
        yield customer


def text_of(events: list[dict[str, Any]]) -> str:
    return "".join(choice["delta"].get("content") or "" for event in events for choice in event["choices"])


# --- §2.4, §2.5: a chat in one piece ---------------------------------------------------------------------------------


async def test_2_5_an_answer_has_the_captured_fields_in_their_order(ionet: Customer) -> None:
    captured = orjson.loads(
        b'{"id":"01a0a543-7f61-7c8e-9d07-5b7a3e0a1c22","object":"chat.completion","created":1789430000,"model":'
        b'"Qwen/Qwen3.8-27B","choices":[{"index":0,"message":{"role":"assistant","reasoning_content":"We need to answer'
        b'...\\n","content":"\\n\\nhello","refusal":null,"annotations":null,"audio":null,"function_call":null},"logprobs"'
        b':null,"finish_reason":"stop","stop_reason":null,"token_ids":null,"routed_experts":null}],"usage":{'
        b'"prompt_tokens":57,"completion_tokens":16,"total_tokens":73,"prompt_tokens_details":{"cached_tokens":0,'
        b'"cache_creation_input_tokens":57,"created_cache_tokens":0,"multimodal_tokens":null}},"prompt_logprobs":null,'
        b'"service_tier":null,"system_fingerprint":"vllm-0.27.1-7470d2d2","prompt_token_ids":null,"prompt_text":null,'
        b'"kv_transfer_params":null,"ec_transfer_params":null,"metrics":null,"provider":"ai.io.net"}'
    )
    answer = (await ionet.chat()).json()
    assert re.fullmatch(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", answer["id"])
    assert list(answer) == list(captured)
    changed = {"id", "created", "choices", "usage"}
    assert {k: v for k, v in answer.items() if k not in changed} == {
        k: v for k, v in captured.items() if k not in changed
    }
    (choice,), (expected,) = answer["choices"], captured["choices"]
    expected["message"]["content"] = f"\n\n{TEXT}"
    assert choice == expected
    assert answer["usage"]["prompt_tokens_details"].keys() == captured["usage"]["prompt_tokens_details"].keys()
    assert answer["usage"]["total_tokens"] == answer["usage"]["prompt_tokens"] + answer["usage"]["completion_tokens"]


async def test_2_5_headers_tell_the_request_and_nothing_of_rates(ionet: Customer) -> None:
    answer = await ionet.chat()
    assert re.fullmatch(r"[0-9a-f]{32}", answer.headers["x-request-id"])
    assert answer.headers["server"] == "cloudflare"
    assert not [name for name in answer.headers if "ratelimit" in name or name == "retry-after"]
    assert (await ionet.inferences())[0]["request_id"] == answer.headers["x-request-id"]


@pytest.mark.parametrize("base", ["/api/v1", "/v1"])
@pytest.mark.parametrize("header", [{"authorization": "Bearer io-v2-localnet"}, {"x-api-key": "io-v2-localnet"}])
async def test_2_1_both_hosts_prefixes_and_2_2_both_headers_work(
    ionet: Customer, base: str, header: dict[str, str]
) -> None:
    body = {"model": PLAIN.id, "messages": MESSAGES}
    answer = await ionet.http.post(f"{base}/chat/completions", json=body, headers=header)
    assert answer.json()["choices"][0]["message"]["content"] == TEXT


async def test_2_4_the_temperature_is_0_7_where_none_is_sent(ionet: Customer, model: Model) -> None:
    await ionet.chat()
    await ionet.chat(temperature=0, max_completion_tokens=5, misspelt=True)
    first, second = model[0].requests
    assert first["temperature"] == 0.7
    assert (second["temperature"], second["max_tokens"], second["model"]) == (0, 5, "upstream")
    assert "misspelt" not in second


async def test_2_5_a_limit_of_tokens_shows_as_length(ionet: Customer) -> None:
    assert (await ionet.chat(max_tokens=3)).json()["choices"][0]["finish_reason"] == "length"


# --- §2.6: streams ---------------------------------------------------------------------------------------------------


async def test_2_6_a_stream_has_the_captured_events(ionet: Customer) -> None:
    events = await ionet.stream()
    first, reasoning, *contents, last, trailer = events
    assert first["choices"] == [
        {"index": 0, "delta": {"role": "assistant", "content": ""}, "logprobs": None, "finish_reason": None}
    ]
    assert reasoning["choices"][0]["delta"] == {"reasoning_content": "We need to answer...\n"}
    assert all(event["choices"][0]["finish_reason"] is None for event in contents)
    assert last["choices"][0]["delta"]["content"]
    assert last["choices"][0]["finish_reason"] == "stop"
    assert trailer["choices"] == []
    assert [event for event in events if "system_fingerprint" in event] == [trailer]
    assert all(event["provider"] == "ai.io.net" and event["usage"] for event in events)
    assert re.fullmatch(r"chatcmpl-[0-9a-f-]{36}", first["id"])
    assert len({(event["id"], event["created"]) for event in events}) == 1
    counts = [event["usage"]["completion_tokens"] for event in events]
    assert counts == sorted(counts)
    assert text_of(events) == f"\n\n{TEXT}"


async def test_2_6_a_stream_and_an_answer_in_one_piece_are_the_same_text_and_usage(ionet: Customer) -> None:
    whole = (await ionet.chat(PLAIN.id)).json()
    events = await ionet.stream(PLAIN.id)
    assert text_of(events) == whole["choices"][0]["message"]["content"]
    usage = {name: whole["usage"][name] for name in ("prompt_tokens", "completion_tokens", "total_tokens")}
    assert events[-1]["usage"] == usage


async def test_2_4_usage_is_left_out_of_a_stream_only_where_asked(ionet: Customer) -> None:
    events = await ionet.stream(stream_options={"include_usage": False})
    assert not [event for event in events if "usage" in event]
    assert events[-1]["choices"][0]["finish_reason"] == "stop"


async def test_2_6_an_error_before_the_first_byte_is_an_ordinary_answer(ionet: Customer, model: Model) -> None:
    for more in ({"temperature": "hot"}, {"model": "nope"}):
        answer = await ionet.chat(**{"stream": True, **more})
        assert answer.headers["content-type"] == "application/json"
        assert answer.status_code in (400, 422)
    model[0].faults.add("error", status=500)
    answer = await ionet.chat(stream=True)
    assert (answer.status_code, answer.json()) == (503, {"detail": "Service temporarily unavailable"})
    assert await ionet.inferences() == []


async def test_2_6_a_stream_that_its_reader_leaves_is_booked_as_aborted(ionet: Customer, model: Model) -> None:
    model[0].word_seconds = 0.02
    body = {"model": PLAIN.id, "messages": MESSAGES, "stream": True}
    async with ionet.http.stream("POST", CHAT, json=body, headers=ionet.headers) as answer:
        async for line in answer.aiter_lines():
            if "answer" in line:
                break
    async with asyncio.timeout(60):
        while True:
            if inferences := await ionet.inferences():
                break
    (inference,) = inferences
    assert inference["outcome"] == "aborted"
    assert 0 < inference["completion_tokens"] < len(scripted_words(MESSAGES))


# --- §2.7, §2.8: models and embeddings -------------------------------------------------------------------------------


async def test_2_7_models_as_seen_have_prices_per_token_in_exponent_notation(ionet: Customer) -> None:
    answer = await ionet.http.get("/v1/models", headers=ionet.headers)
    assert (
        b'"input_token_price":3.08e-07,"output_token_price":2.73e-06,"cache_read_token_price":1.54e-07'
        in answer.content
    )
    listed = answer.json()
    assert listed["object"] == "list"
    assert [one["id"] for one in listed["data"]] == [THINKER.id, PLAIN.id]
    assert (listed["data"][0]["context_window"], listed["data"][0]["precision"]) == (65536, "fp8")
    embedding = (await ionet.http.get("/v1/embedding-models", headers=ionet.headers)).json()
    assert [one["id"] for one in embedding["data"]] == [EMBEDDER.id]


async def test_2_7_models_as_documented_have_prices_per_million_and_pages(model: Model) -> None:
    async with served(model[1], models_shape="documented") as ionet:
        answer = (await ionet.http.get("/api/v1/models?page=2&page_size=1", headers=ionet.headers)).json()
        found = (await ionet.http.get("/api/v1/models?q=Qwen", headers=ionet.headers)).json()
        bad = await ionet.http.get("/api/v1/models?page=0", headers=ionet.headers)
    assert answer["pagination"] == {
        "total": 2,
        "page": 2,
        "page_size": 1,
        "total_pages": 2,
        "has_next": False,
        "has_previous": True,
    }
    assert [one["name"] for one in answer["data"]] == [PLAIN.id]
    assert Decimal(found["data"][0]["metadata"]["input_token_price"]) == Decimal("0.308")
    assert (bad.status_code, bad.json()["detail"][0]["loc"]) == (422, ["query", "page"])


async def test_2_13_a_model_vanishes_and_another_gets_dearer(ionet: Customer) -> None:
    ionet.emulator.withdraw(THINKER.id)
    ionet.emulator.reprice(PLAIN.id, Decimal(3))
    (listed,) = (await ionet.http.get("/v1/models", headers=ionet.headers)).json()["data"]
    assert listed["input_token_price"] == pytest.approx(9.24e-7)
    assert (await ionet.chat(THINKER.id)).status_code == 400


async def test_2_8_embeddings_are_shaped_like_openais(ionet: Customer) -> None:
    body = {"model": EMBEDDER.id, "input": ["a b", "c"]}
    answer = (await ionet.http.post("/v1/embeddings", json=body, headers=ionet.headers)).json()
    assert [(one["object"], one["index"], len(one["embedding"])) for one in answer["data"]] == [
        ("embedding", 0, 8),
        ("embedding", 1, 8),
    ]
    assert (answer["model"], answer["usage"]) == (EMBEDDER.id, {"prompt_tokens": 3, "total_tokens": 3})
    assert (await ionet.inferences())[0]["kind"] == "embeddings"


# --- §2.9: errors ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("headers", [{}, {"authorization": "Bearer other"}, {"x-api-key": "other"}])
async def test_2_9_a_bad_key_is_refused_with_28_bytes(ionet: Customer, headers: dict[str, str], stream: bool) -> None:
    ionet.headers = headers
    answer = await ionet.chat(stream=stream)
    assert (answer.status_code, answer.content) == (401, b'{"detail":"Invalid API Key"}')
    assert len(answer.content) == 28


async def test_2_9_an_unknown_model_is_400_with_the_models_there_are(ionet: Customer) -> None:
    for model in ("nope", EMBEDDER.id):
        answer = await ionet.chat(model)
        assert answer.status_code == 400
        assert answer.json() == {
            "detail": "The requested model is not available for Chat Completions API. "
            "Available models: ['Qwen/Qwen3.8-27B', 'openai/gpt-oss-120b']"
        }


async def test_2_9_a_wrong_type_is_422_with_fastapis_words(ionet: Customer) -> None:
    answer = await ionet.chat(temperature="hot")
    assert answer.status_code == 422
    assert answer.content == (
        b'{"detail":[{"type":"float_parsing","loc":["body","temperature"],"msg":"Input should be a valid number, '
        b'unable to parse string as a number","input":"hot"}]}'
    )


@pytest.mark.parametrize(
    ("body", "kind", "where"),
    [
        (b"{", "json_invalid", ["body", 1]),
        (b"[]", "model_type", ["body"]),
        (b'{"model":"m"}', "missing", ["body", "messages"]),
        (b'{"model":"m","messages":[]}', "too_short", ["body", "messages"]),
        (b'{"model":"m","messages":[{"role":"robot"}]}', "literal_error", ["body", "messages", 0, "role"]),
        (b'{"model":"m","messages":[{"role":"user"}],"n":21}', "less_than_equal", ["body", "n"]),
    ],
)
async def test_2_9_a_bad_body_is_422_where_it_is_bad(ionet: Customer, body: bytes, kind: str, where: list[Any]) -> None:
    answer = await ionet.http.post(CHAT, content=body, headers=ionet.headers)
    assert answer.status_code == 422
    complaint = answer.json()["detail"][0]
    assert (complaint["type"], complaint["loc"]) == (kind, where)


@pytest.mark.parametrize(
    ("kind", "parameters", "status", "body"),
    [
        ("rate_limit", {}, 429, b'{"detail":"Too many requests"}'),
        ("rate_limit", {"retry_after": "3"}, 429, b'{"detail":"Too many requests"}'),
        ("out_of_credits", {}, 402, b'{"detail":"Insufficient credits"}'),
        ("out_of_credits", {"status": 429}, 429, b'{"detail":"Credit limit exceeded for this API key"}'),
        ("unauthorized", {}, 401, b'{"detail":"Invalid API Key"}'),
        ("error", {"status": 403}, 403, b'{"detail":"Model is not allowed for this API key"}'),
        ("error", {"status": 404}, 404, b'{"detail":"Not Found"}'),
        ("error", {"status": 409}, 409, b'{"detail":"Conflict"}'),
        ("error", {}, 500, b'{"detail":"Internal Server Error"}'),
        ("error", {"status": 503}, 503, b'{"detail":"Service temporarily unavailable"}'),
        (
            "html",
            {},
            502,
            b"<html><head><title>502 Bad Gateway</title></head><body><center><h1>502 Bad Gateway</h1></center>"
            b"<hr><center>cloudflare</center></body></html>",
        ),
    ],
)
async def test_2_9_the_error_fixtures_come_on_demand(
    ionet: Customer, kind: str, parameters: dict[str, Any], status: int, body: bytes
) -> None:
    ionet.emulator.faults.add(kind, **parameters)
    answer = await ionet.chat()
    assert (answer.status_code, answer.content) == (status, body)
    assert answer.headers.get("retry-after") == parameters.get("retry_after")
    assert await ionet.inferences() == []


async def test_an_unknown_route_is_404_in_the_same_envelope(ionet: Customer) -> None:
    for method, path, status in (("GET", "/v1/models/x", 404), ("POST", "/v1/completions", 404), ("GET", CHAT, 405)):
        answer = await ionet.http.request(method, path, headers=ionet.headers)
        assert (answer.status_code, list(answer.json())) == (status, ["detail"])


async def test_a_context_that_is_too_long_is_refused_in_the_model_servers_words(ionet: Customer, model: Model) -> None:
    model[0].faults.add("error", status=400, text="maximum context length is 8192 tokens")
    answer = await ionet.chat()
    assert (answer.status_code, answer.json()) == (400, {"detail": "maximum context length is 8192 tokens"})


# --- §2.10, §2.11: money and limits ----------------------------------------------------------------------------------


async def test_2_10_the_same_request_twice_is_two_inferences(ionet: Customer) -> None:
    ionet.emulator.faults.add("lose_answer")
    with pytest.raises(httpx.RemoteProtocolError):
        await ionet.chat()
    assert (await ionet.chat()).status_code == 200
    inferences = await ionet.inferences()
    assert [inference["outcome"] for inference in inferences] == ["answered", "answered"]
    assert len({inference["request_id"] for inference in inferences}) == 2


async def test_2_7_the_cost_is_tokens_times_their_price(ionet: Customer) -> None:
    usage = (await ionet.chat()).json()["usage"]
    cost = usage["prompt_tokens"] * Decimal("3.08e-7") + usage["completion_tokens"] * Decimal("2.73e-6")
    books = (await ionet.http.get("/_emulator/books")).json()
    assert Decimal(books["inferences"][0]["cost_usd"]) == cost
    assert [Decimal(key["spent_usd"]) for key in books["keys"]] == [cost]
    assert "io-v2-localnet" not in str(books)


@pytest.mark.parametrize(
    ("sub_key", "exhausted", "status", "detail"),
    [
        (False, 402, 402, "Insufficient credits"),
        (False, 403, 403, "Insufficient credits"),
        (True, 402, 429, "Credit limit exceeded for this API key"),
    ],
)
async def test_2_11_credits_run_out_late(model: Model, sub_key: bool, exhausted: int, status: int, detail: str) -> None:
    clock = Clock()
    key = ApiKey(credit_usd=Decimal("0.00001"), is_sub_key=sub_key)
    options: dict[str, Any] = {"now": clock, "credit_lag_seconds": 60, "exhausted_status": exhausted}
    async with served(model[1], keys=(key,), **options) as ionet:
        assert [(await ionet.chat()).status_code for _ in range(2)] == [200, 200]
        clock.seconds += 60
        answer = await ionet.chat()
    assert (answer.status_code, answer.json()) == (status, {"detail": detail})


async def test_2_11_a_sub_key_is_held_to_its_models_and_its_end(model: Model) -> None:
    clock = Clock()
    key = ApiKey(allowed_models=(PLAIN.id,), expires_at=clock.seconds + 10)
    async with served(model[1], keys=(key,), now=clock) as ionet:
        assert (await ionet.chat(PLAIN.id)).status_code == 200
        refused = await ionet.chat(THINKER.id)
        clock.seconds += 10
        assert (await ionet.chat(PLAIN.id)).status_code == 401
    assert (refused.status_code, refused.json()) == (403, {"detail": "Model is not allowed for this API key"})


async def test_a_rate_is_kept_for_each_minute(model: Model) -> None:
    clock = Clock()
    async with served(model[1], now=clock, requests_per_minute=2, retry_after="30") as ionet:
        statuses = [(await ionet.chat()).status_code for _ in range(2)]
        refused = await ionet.chat()
        clock.seconds += 60
        assert (await ionet.chat()).status_code == 200
    assert statuses == [200, 200]
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "30")


async def test_books_survive_a_restart(model: Model, tmp_path: Path) -> None:
    async with served(model[1], state_directory=tmp_path) as ionet:
        await ionet.chat()
        before = (await ionet.http.get("/_emulator/books")).json()
    async with served(model[1], state_directory=tmp_path) as ionet:
        assert (await ionet.http.get("/_emulator/books")).json() == before


# --- §7: answers that are wrong though their status is 200 -----------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "path", "value"),
    [
        ("null_content", ("choices", 0, "message", "content"), None),
        ("null_content", ("choices", 0, "finish_reason"), "length"),
        ("length", ("choices", 0, "finish_reason"), "length"),
        ("empty_choices", ("choices",), []),
        ("error_in_200", (), {"detail": "upstream error"}),
        ("wrong_model", ("model",), "another/model"),
        ("new_fingerprint", ("system_fingerprint",), "vllm-0.27.2-00000000"),
        ("other_text", ("choices", 0, "message", "content"), f"\n\n{TEXT} (again)"),
    ],
)
@pytest.mark.parametrize("by_header", [False, True])
async def test_an_answer_is_wrong_in_one_place(
    ionet: Customer, kind: str, path: tuple[Any, ...], value: Any, by_header: bool
) -> None:
    if by_header:
        ionet.headers["x-standin-fault"] = kind
    else:
        ionet.emulator.faults.add(kind, on=f"{THINKER.id} key-1")
    answer = await ionet.chat()
    assert answer.status_code == 200
    found = answer.json()
    for step in path:
        found = found[step]
    assert found == value
    assert len(await ionet.inferences()) == 1


@pytest.mark.parametrize(
    ("kind", "finish", "text"),
    [
        ("null_content", "length", ""),
        ("length", "length", TEXT),
        ("other_text", "stop", f"{TEXT} (again)"),
        ("no_finish_reason", None, TEXT),
        ("wrong_model", "stop", TEXT),
        ("new_fingerprint", "stop", TEXT),
        ("empty_choices", None, ""),
    ],
)
async def test_a_stream_is_wrong_in_one_place(ionet: Customer, kind: str, finish: str | None, text: str) -> None:
    ionet.emulator.faults.add(kind)
    events = await ionet.stream(PLAIN.id)
    assert text_of(events) == text
    reasons = [choice["finish_reason"] for event in events for choice in event["choices"] if choice["finish_reason"]]
    assert reasons == ([] if finish is None else [finish])
    assert (events[0]["model"] == PLAIN.id) == (kind != "wrong_model")
    assert (events[-1]["system_fingerprint"] == "vllm-0.27.1-7470d2d2") == (kind != "new_fingerprint")


async def test_a_stream_without_done_has_everything_else(ionet: Customer) -> None:
    ionet.emulator.faults.add("no_done")
    answer = await ionet.chat(PLAIN.id, stream=True)
    assert b"[DONE]" not in answer.content
    assert b'"finish_reason":"stop"' in answer.content


async def test_an_error_inside_a_stream_takes_the_place_of_the_rest(ionet: Customer) -> None:
    ionet.emulator.faults.add("error_in_stream")
    events = await ionet.stream(PLAIN.id)
    assert events[-1] == {"error": {"message": "EngineCore encountered an issue", "code": 500}}


@pytest.mark.parametrize("kind", ["cut_stream", "cut_character"])
async def test_a_stream_is_cut_in_the_middle_of_an_event_or_a_character(ionet: Customer, kind: str) -> None:
    ionet.emulator.faults.add(kind)
    received = b""
    body = {"model": PLAIN.id, "messages": MESSAGES, "stream": True}
    with pytest.raises(httpx.RemoteProtocolError):  # noqa: PT012  what came before the cut is looked at
        async with ionet.http.stream("POST", CHAT, json=body, headers=ionet.headers) as answer:
            async for data in answer.aiter_raw():
                received += data
    assert b'"finish_reason":"stop"' not in received
    assert not received.endswith(b"\n\n")
    if kind == "cut_character":
        with pytest.raises(UnicodeDecodeError, match="unexpected end of data"):
            received.decode()


async def test_a_stream_stalls_in_the_middle(ionet: Customer) -> None:
    ionet.emulator.faults.add("stall", seconds=0.05)
    assert text_of(await ionet.stream(PLAIN.id)) == TEXT
    ionet.emulator.faults.add("stall")
    received = b""
    body = {"model": PLAIN.id, "messages": MESSAGES, "stream": True}
    request = ionet.http.stream("POST", CHAT, json=body, headers=ionet.headers, timeout=httpx.Timeout(30.0, read=1.0))
    with pytest.raises(httpx.ReadTimeout):  # noqa: PT012  what came before the stall is looked at
        async with request as answer:
            async for data in answer.aiter_raw():
                received += data
    assert received.count(b"data: ") == 2
