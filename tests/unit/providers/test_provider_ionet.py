"""IO Intelligence: its two lists of models, its envelope, its two kinds of 429, and what it is asked."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from decimal import Decimal
from typing import Any

import httpx
import pytest
from provider_wire import TASK, Wire, answer

from oracle.core.compute import Chat, IdempotencyKey, JobState, JobStatus, Money, Recovery, Task
from oracle.core.errors import ErrorCode, OracleError, Verdict
from oracle.providers import errors
from oracle.providers.chat import ChatCompute
from oracle.providers.ionet.catalogue import read_page, read_usage
from oracle.providers.ionet.client import IoNetChat
from oracle.providers.offers import Allowance, Describing, Offer
from oracle.providers.pricing import FixedRates, TokenPrice
from oracle.providers.registry import build

QWEN = Task("Qwen/Qwen3.8-27B", TASK.messages, max_output_tokens=32, seed=7)

# ionet.md §2.7, the live shape.
LIVE = b"""{"object":"list","data":[{
  "id":"Qwen/Qwen3.8-27B","name":"Example Model","object":"model","created":1760000000,
  "owned_by":"io-intelligence","root":null,"parent":null,"max_model_len":null,"permission":[],
  "max_tokens":65536,"context_window":65536,"supports_reasoning":true,"supports_prompt_cache":true,
  "input_token_price":3.08e-07,"output_token_price":2.73e-06,"cache_read_token_price":1.54e-07,
  "precision":"fp8","avg_latency_ms_per_day":812.0,"supports_attestation":false}]}"""

# The documented shape: another key for the name, prices in strings, per million.
DOCUMENTED = {
    "data": [
        {
            "model_id": "1f0c",
            "name": "Qwen/Qwen3.8-27B",
            "status": "active",
            "metadata": {"context_window": 65536, "input_token_price": "0.308", "output_token_price": "2.73"},
        },
        {"model_id": "2f0c", "name": "org/retired", "status": "inactive", "metadata": {}},
    ],
    "pagination": {"total": 2, "page": 1, "page_size": 100, "total_pages": 1, "has_next": False, "has_previous": False},
}

# ionet.md §2.5
COMPLETION: dict[str, Any] = {
    "id": "01a0a543-7f61-7c8e-9d07-5b7a3e0a1c22",
    "object": "chat.completion",
    "created": 1789430000,
    "model": "Qwen/Qwen3.8-27B",
    "choices": [
        {
            "index": 0,
            "message": {
                "role": "assistant",
                "reasoning_content": "We need to answer...\n",
                "content": "\n\nhello",
                "refusal": None,
                "annotations": None,
                "audio": None,
                "function_call": None,
            },
            "logprobs": None,
            "finish_reason": "stop",
            "stop_reason": None,
            "token_ids": None,
            "routed_experts": None,
        }
    ],
    "usage": {"prompt_tokens": 57, "completion_tokens": 16, "total_tokens": 73},
    "system_fingerprint": "vllm-0.27.1-7470d2d2",
    "provider": "ai.io.net",
}

PRICE = TokenPrice(Decimal("0.308"), Decimal("2.73"))
OFFER = Offer("Qwen/Qwen3.8-27B", PRICE, context_tokens=65536, max_output_tokens=65536)
USAGE_URL = "https://api.intelligence.io.solutions/v1/api-keys/sub-keys/me/usage"


def built(wire: Wire, **settings: Any) -> ChatCompute:
    compute = build(
        "ionet",
        {"kind": "ionet", "api_key": "io-v2-secret", **settings},
        rates=FixedRates(sol_usd=Decimal(100)),
        transport=wire.transport,
        environ={},
    )
    assert isinstance(compute, ChatCompute)
    return compute


async def ended(compute: ChatCompute, task: Task = QWEN) -> JobStatus:
    handle = await compute.submit(task, IdempotencyKey("k"))
    runner = compute._jobs["k"].runner
    assert runner is not None
    await runner
    return (await compute.poll([handle]))[handle]


def test_the_live_price_is_per_token_and_read_without_rounding() -> None:
    assert read_page(LIVE) == ({"Qwen/Qwen3.8-27B": OFFER}, False)


def test_the_documented_price_is_per_million_and_an_inactive_model_is_not_offered() -> None:
    offer = replace(OFFER, max_output_tokens=None)
    assert read_page(httpx.Response(200, json=DOCUMENTED).content) == ({"Qwen/Qwen3.8-27B": offer}, False)


@pytest.mark.parametrize(
    ("price", "found"),
    [
        (b"0.308", None),  # a price per million where one per token belongs
        (b"3.08e-13", None),  # and the other way round
        (b"-1e-7", None),
        (b'"x"', None),
        (b"true", None),
        (b"null", None),
        (b'"3.08e-07"', PRICE),
    ],
)
def test_a_price_that_cannot_be_right_is_no_price(price: bytes, found: TokenPrice | None) -> None:
    page = read_page(LIVE.replace(b"3.08e-07", price))
    assert page == ({"Qwen/Qwen3.8-27B": replace(OFFER, price=found)}, False)


@pytest.mark.parametrize("output", [b"0", b"null", b"2.73e-06"])
def test_an_embedding_model_has_a_price_of_its_input_alone(output: bytes) -> None:
    page = read_page(LIVE.replace(b"2.73e-06", output), embeds=True)
    assert page is not None
    assert page[0]["Qwen/Qwen3.8-27B"] == Offer(
        "Qwen/Qwen3.8-27B", TokenPrice(Decimal("0.308")), context_tokens=65536, embeds=True
    )


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b'{"data":{}}', b'{"detail":"x"}', b"[" * 100_000])
def test_what_is_no_list_of_models_is_not_taken_for_an_empty_one(body: bytes) -> None:
    assert read_page(body) is None


async def test_a_call_goes_to_the_prefix_with_every_default_spelled_out() -> None:
    wire = Wire(answer(COMPLETION))
    await built(wire).chat.complete(QWEN)
    request = wire.requests[0]
    assert str(request.url) == "https://api.intelligence.io.solutions/api/v1/chat/completions"
    assert request.headers["authorization"] == "Bearer io-v2-secret"
    assert wire.body() == {
        "model": "Qwen/Qwen3.8-27B",
        "messages": [{"role": "user", "content": "What is six times seven?"}],
        "max_completion_tokens": 32,
        "stream": False,
        "temperature": 0.0,
        "top_p": 1,
        "seed": 7,
        "n": 1,
        "frequency_penalty": 0,
        "presence_penalty": 0,
    }


async def test_a_job_is_paid_at_the_price_of_the_list_and_its_reasoning_left_out() -> None:
    wire = Wire(lambda r: (answer(COMPLETION) if r.method == "POST" else answer(LIVE))(r))
    compute = built(wire)
    assert (await ended(compute)).state is JobState.SUCCEEDED
    output = await compute.fetch((await compute.find(IdempotencyKey("k"))).handle)  # type: ignore[union-attr]
    assert output.content == b"\n\nhello"
    assert output.model_run == "Qwen/Qwen3.8-27B"
    # 57 tokens at 0.308 and 16 at 2.73 USD a million.
    assert output.cost == Money(0.000061236, "USD")
    assert output.cost_lamports == 613


async def test_a_quote_uses_the_live_price_and_asks_for_it_once() -> None:
    wire = Wire(answer(LIVE))
    compute = built(wire)
    first = await compute.quote(QWEN)
    assert await compute.quote(QWEN) == first
    assert len(wire.requests) == 1
    assert str(wire.requests[0].url).endswith("/api/v1/models?page=1&page_size=100")


async def test_a_configured_price_wins_over_the_list() -> None:
    wire = Wire(answer(LIVE))
    price = {"input_usd_per_million_tokens": 0, "output_usd_per_million_tokens": 100}
    quote = await built(wire, model_prices={QWEN.model: price}).quote(QWEN)
    assert quote.cost == Money(0.0032, "USD")
    # The list is asked all the same: its limits hold whoever states the price.
    assert len(wire.requests) == 1


async def test_every_page_of_the_list_is_read() -> None:
    first = {**DOCUMENTED, "pagination": {"has_next": True}}
    second = {"data": [{"name": "org/other", "metadata": {}}], "pagination": {"has_next": False}}
    wire = Wire(answer(first), answer(second), answer({"detail": "Not Found"}, 404))
    assert await built(wire).models() == ("Qwen/Qwen3.8-27B", "org/other")


async def test_a_list_without_end_is_left_after_twenty_pages() -> None:
    wire = Wire(answer({**DOCUMENTED, "pagination": {"has_next": True}}))
    await built(wire).quote(QWEN)
    assert len(wire.requests) == 20


async def test_a_model_that_is_not_listed_is_not_bought() -> None:
    with pytest.raises(OracleError) as caught:
        await built(Wire(answer(LIVE))).quote(TASK)
    assert caught.value.error is errors.MODEL_UNAVAILABLE


GONE = {"detail": "The requested model is not available for Chat Completions API. Available models: ['x']"}


async def stream(chat: Chat) -> None:
    async for _ in chat.stream(QWEN):
        pass


@pytest.mark.parametrize(
    "ask",
    [lambda chat: chat.complete(QWEN), stream, lambda chat: chat.embed(QWEN.model, ["a"], seconds=1)],
    ids=["complete", "stream", "embed"],
)
async def test_a_model_that_has_vanished_makes_the_list_stale(ask: Callable[[Chat], Awaitable[object]]) -> None:
    wire = Wire(answer(LIVE), answer(GONE, 400), answer({"object": "list", "data": []}))
    compute = built(wire)
    await compute.quote(QWEN)
    for call in (ask(compute.chat), compute.quote(QWEN)):
        with pytest.raises(OracleError) as caught:
            await call
        assert caught.value.error is errors.MODEL_UNAVAILABLE


# --- what the key may do, before it is asked for ---


@pytest.mark.parametrize(
    ("change", "tokens", "expected"),
    [
        ((b'"max_tokens":65536', b'"max_tokens":31'), 32, errors.REQUEST_REFUSED),
        ((b'"context_window":65536', b'"context_window":31'), 32, errors.REQUEST_REFUSED),
        ((b'"precision"', b'"higher_tier_required":true,"precision"'), 32, errors.NOT_PERMITTED),
    ],
)
async def test_what_the_list_rules_out_is_refused_unsent(
    change: tuple[bytes, bytes], tokens: int, expected: ErrorCode
) -> None:
    with pytest.raises(OracleError) as caught:
        await built(Wire(answer(LIVE.replace(*change)))).quote(replace(QWEN, max_output_tokens=tokens))
    assert caught.value.error is expected
    assert (await built(Wire(answer(LIVE))).quote(QWEN)).cost_lamports > 0


def listing_and(usage: Any) -> Wire:
    return Wire(lambda r: answer(usage if str(r.url) == USAGE_URL else LIVE)(r))


async def test_nothing_is_quoted_that_the_credit_left_does_not_cover() -> None:
    # 32 output tokens at 2.73 and some twenty of input at 0.308 USD a million are 0.0000936 USD.
    for left, enough in (("0.0001", True), ("0.00009", False), ("0", False)):
        wire = listing_and({"status": "succeeded", "data": {"remaining_credit": left}})
        compute = built(wire, usage_url=USAGE_URL)
        if enough:
            assert await compute.quote(QWEN)
            continue
        with pytest.raises(OracleError) as caught:
            await compute.quote(QWEN)
        assert (caught.value.error, caught.value.verdict) == (errors.OUT_OF_CREDIT, Verdict.GIVE_UP)


@pytest.mark.parametrize("usage", [b"<html>", {"data": {}}, None])
async def test_where_the_credit_left_is_not_told_the_service_has_the_last_word(usage: Any) -> None:
    assert await built(listing_and(usage), usage_url=USAGE_URL).quote(QWEN)


async def test_the_credit_left_is_asked_no_oftener_than_it_is_counted() -> None:
    wire = listing_and({"data": {"remaining_credit": 5}})
    compute = built(wire, usage_url=USAGE_URL)
    for _ in range(3):
        await compute.quote(QWEN)
    assert sum(str(request.url) == USAGE_URL for request in wire.requests) == 1


async def test_a_key_learns_its_models_their_limits_and_what_it_may_spend() -> None:
    wire = listing_and({"data": {"credit_limit": 5, "used_credit": "1.5", "remaining_credit": 3.5}})
    compute = built(wire, usage_url=USAGE_URL)
    assert isinstance(compute, Describing)
    assert await compute.offers() == (OFFER,)
    assert await compute.allowance() == Allowance(Decimal("3.5"), Decimal("1.5"), Decimal(5))


@pytest.mark.parametrize(
    ("status", "body", "expected", "state"),
    [
        (401, {"detail": "Invalid API Key"}, errors.CREDENTIALS_REFUSED, JobState.FAILED),
        (402, {"detail": "Insufficient credits"}, errors.OUT_OF_CREDIT, JobState.FAILED),
        (429, {"detail": "Too many requests"}, errors.RATE_LIMITED, JobState.FAILED),
        (429, {"detail": "Credit limit exceeded for this API key"}, errors.OUT_OF_CREDIT, JobState.FAILED),
        (502, b"<html><head><title>502 Bad Gateway</title></head></html>", errors.UNAVAILABLE, JobState.FAILED),
        (524, b"<html>cloudflare</html>", errors.NO_ANSWER, JobState.LOST),
        (200, b'{"id":"01a0a543","object":"chat.completion","choices":[{"ind', errors.NO_ANSWER, JobState.LOST),
        (200, {"detail": "upstream error"}, errors.UNAVAILABLE, JobState.FAILED),
        (200, {"id": "x", "choices": [], "usage": None}, errors.ANSWER_INCOMPLETE, JobState.FAILED),
    ],
)
async def test_a_refusal_ends_the_job_with_its_error(
    status: int, body: Any, expected: ErrorCode, state: JobState
) -> None:
    found = await ended(built(Wire(answer(body, status))))
    assert found.error is not None
    assert (found.error.error, found.state) == (expected, state)
    assert "io-v2-secret" not in found.message


async def test_a_call_can_be_neither_repeated_nor_looked_up() -> None:
    assert built(Wire(answer(LIVE))).capabilities.recovery is Recovery.NEITHER


async def test_the_credit_left_is_asked_with_the_sub_key() -> None:
    wire = Wire(answer({"status": "succeeded", "data": {"key_id": "k", "remaining_credit": "12.5"}}))
    compute = built(wire, usage_url="https://api.intelligence.io.solutions/v1/api-keys/sub-keys/me/usage")
    assert await compute.balance() == Money(12.5, "USD")
    request = wire.requests[0]
    assert str(request.url) == "https://api.intelligence.io.solutions/v1/api-keys/sub-keys/me/usage"
    assert request.headers["x-api-key"] == "io-v2-secret"
    assert "authorization" not in request.headers


@pytest.mark.parametrize(
    "body", [b"<html>", b"{}", b"[]", b"null", b'{"data":{"credit_limit":5}}', b'{"data":{"remaining_credit":"much"}}']
)
def test_a_credit_that_is_not_told_is_not_known(body: bytes) -> None:
    allowance = read_usage(body)
    assert allowance is None or allowance.remaining_usd is None


async def test_without_a_usage_address_the_balance_is_not_known() -> None:
    compute = built(Wire(answer({})))
    assert isinstance(compute.chat, IoNetChat)
    assert await compute.balance() is None
    await compute.close()
