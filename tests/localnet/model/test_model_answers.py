"""The real model answers well, the same way twice, and says no clearly."""

import asyncio
import json
from collections.abc import Iterator

import httpx
import pytest
from model_slots import wait_until_busy, wait_until_free

from oracle.core.errors import OracleError
from oracle.model import errors
from oracle.model.chat import EventStream, Message, completion_of
from oracle.model.prompts import KNOWN_ANSWERS, KnownAnswer
from oracle.model.server import LocalModel

pytestmark = [pytest.mark.localnet, pytest.mark.model]

ENDLESS = "What is the capital of France?"
"""The model answers this with the same few French words again and again."""


def user(content: str) -> list[Message]:
    return [{"role": "user", "content": content}]


def cosine(a: list[float], b: list[float]) -> float:
    """Of two vectors of length 1, as the server returns them."""
    return sum(x * y for x, y in zip(a, b, strict=True))


@pytest.fixture
def http(model: LocalModel) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=model.base_url, timeout=60, trust_env=False) as client:
        yield client


@pytest.mark.parametrize("known", KNOWN_ANSWERS, ids=lambda known: known.name)
async def test_a_known_question_gets_its_fact(model: LocalModel, known: KnownAnswer) -> None:
    completion = await model.complete(user(known.prompt), max_tokens=64)

    assert known.fact in completion.text
    assert completion.finish_reason == "stop"


async def test_the_same_prompt_gives_the_same_bytes_whatever_was_asked_between(model: LocalModel) -> None:
    story = user("Write a short story about a fox.")
    first = await model.complete(story, max_tokens=64)
    await model.complete(user("Write a short story about a dog."), max_tokens=16)

    assert await model.complete(story, max_tokens=64) == first
    assert first.finish_reason == "length"
    assert first.completion_tokens == 64


def test_nothing_of_an_earlier_prompt_is_reused(http: httpx.Client) -> None:
    body = {"messages": user("What is 2 times 3?"), "max_tokens": 1}
    replies = [http.post("/chat/completions", json=body).json() for _ in range(2)]

    assert [reply["usage"]["prompt_tokens_details"]["cached_tokens"] for reply in replies] == [0, 0]


async def test_requests_at_once_get_the_answers_they_get_alone(model: LocalModel) -> None:
    prompts = [user(known.prompt) for known in KNOWN_ANSWERS[:4]]
    alone = [await model.complete(prompt) for prompt in prompts]

    assert await asyncio.gather(*(model.complete(prompt) for prompt in prompts)) == alone


async def test_a_seed_decides_where_the_temperature_lets_it(model: LocalModel) -> None:
    story = user("Write a short story about a fox.")
    texts = [(await model.complete(story, max_tokens=16, temperature=1.5, seed=seed)).text for seed in (1, 1, 2)]

    assert texts[0] == texts[1] != texts[2]


def test_a_request_that_says_nothing_is_answered_repeatably_and_ends(http: httpx.Client) -> None:
    whole = http.post("/chat/completions", json={"messages": user(ENDLESS)}).json()
    short = http.post("/chat/completions", json={"messages": user(ENDLESS), "max_tokens": 32}).json()
    texts = [reply["choices"][0]["message"]["content"] for reply in (whole, short)]

    assert whole["choices"][0]["finish_reason"] == "length"
    assert whole["usage"]["completion_tokens"] == 256
    assert texts[1]
    assert texts[0].startswith(texts[1])


def test_a_stream_carries_the_text_of_the_whole_answer(http: httpx.Client) -> None:
    body = {"messages": user("List three fruits."), "max_tokens": 64}
    whole = http.post("/chat/completions", json=body).json()
    stream, events = EventStream(), []
    streamed = {**body, "stream": True, "stream_options": {"include_usage": True}}
    with http.stream("POST", "/chat/completions", json=streamed) as response:
        for data in response.iter_bytes():
            events.extend(stream.feed(data))

    assert completion_of(events).text == whole["choices"][0]["message"]["content"]
    assert len(events) > whole["usage"]["completion_tokens"]


def test_the_answer_names_the_model_that_ran_whatever_was_asked_for(http: httpx.Client) -> None:
    reply = http.post("/chat/completions", json={"model": "gpt-9", "messages": user("Hi"), "max_tokens": 1}).json()

    assert reply["model"] == "SmolLM2-135M-Instruct"
    assert [model["id"] for model in http.get("/models").json()["data"]] == ["SmolLM2-135M-Instruct"]


async def test_a_cancelled_request_frees_the_slot(model: LocalModel) -> None:
    request = asyncio.create_task(model.complete(user(ENDLESS), max_tokens=1900))
    await wait_until_busy(model, deadline_seconds=60)
    request.cancel()

    await wait_until_free(model, deadline_seconds=5)  # to its end it takes three times that, and more
    with pytest.raises(asyncio.CancelledError):
        await request


@pytest.mark.parametrize("prompt", ["word " * 3000, "x" * 5_000_000], ids=["counted-by-llama-cpp", "too-big-to-send"])
async def test_a_prompt_longer_than_the_context_is_refused(model: LocalModel, prompt: str) -> None:
    with pytest.raises(OracleError) as caught:
        await model.complete(user(prompt))

    assert caught.value.error is errors.PROMPT_TOO_LONG
    assert "2048" in caught.value.detail.replace(",", "")


async def test_a_malformed_request_is_refused_in_llama_cpps_words(model: LocalModel) -> None:
    with pytest.raises(OracleError) as caught:
        await model.complete([{"role": "user"}])

    assert caught.value.error is errors.REQUEST_REFUSED
    assert "content" in caught.value.detail


async def test_a_proxy_of_the_environment_never_sees_a_prompt(
    model: LocalModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")

    assert (await model.complete(user("Hi"), max_tokens=1)).completion_tokens == 1


def test_embeddings_of_like_sentences_are_closer_and_repeatable(http: httpx.Client) -> None:
    sentences = ["The cat sat on the mat.", "A kitten is sitting on a rug.", "Solana validators vote on blocks."]
    replies = [http.post("/embeddings", json={"input": sentences}).json()["data"] for _ in range(2)]
    cat, kitten, validators = (item["embedding"] for item in replies[0])

    assert replies[0] == replies[1]
    assert len(cat) == 576
    assert cosine(cat, kitten) > cosine(cat, validators) + 0.1


def test_no_web_page_may_ask_this_server(http: httpx.Client) -> None:
    headers = {"Origin": "http://a-page.example", "Access-Control-Request-Method": "POST"}
    reply = http.options("/chat/completions", headers=headers)

    assert reply.headers["access-control-allow-origin"] == "http://127.0.0.1"


def test_what_is_not_json_gets_an_error_and_harms_nobody(http: httpx.Client) -> None:
    replies = [
        http.post("/chat/completions", content=content, headers={"content-type": "application/json"})
        for content in (b"", b"{", b'{"messages": 4}', b"\xff\xfe", json.dumps({"messages": [{}]}).encode())
    ]

    assert {reply.status_code for reply in replies} <= {400, 500}
    assert all("message" in reply.json()["error"] for reply in replies)
    assert http.get("/models").status_code == 200
