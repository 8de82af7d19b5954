"""IO Intelligence: its two lists of models, its envelope, its two kinds of 429, and what it is asked."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import httpx
import pytest
from provider_wire import TASK, Wire, answer

from oracle.core.compute import IdempotencyKey, JobState, JobStatus, Money, Recovery, Task
from oracle.core.errors import ErrorCode, OracleError
from oracle.providers import errors
from oracle.providers.chat import ChatCompute
from oracle.providers.ionet.catalogue import read_page, remaining_usd
from oracle.providers.ionet.client import IoNetChat
from oracle.providers.pricing import Rates, TokenPrice
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


def built(wire: Wire, **settings: Any) -> ChatCompute:
    compute = build(
        "ionet",
        {"kind": "ionet", "api_key": "io-v2-secret", **settings},
        rates=Rates(sol_usd=Decimal(100)),
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
    assert read_page(LIVE) == ({"Qwen/Qwen3.8-27B": PRICE}, False)


def test_the_documented_price_is_per_million_and_an_inactive_model_is_not_offered() -> None:
    assert read_page(httpx.Response(200, json=DOCUMENTED).content) == ({"Qwen/Qwen3.8-27B": PRICE}, False)


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
    assert read_page(LIVE.replace(b"3.08e-07", price)) == ({"Qwen/Qwen3.8-27B": found}, False)


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
    assert wire.requests == []


async def test_every_page_of_the_list_is_read() -> None:
    first = {**DOCUMENTED, "pagination": {"has_next": True}}
    second = {"data": [{"name": "org/other", "metadata": {}}], "pagination": {"has_next": False}}
    wire = Wire(answer(first), answer(second))
    assert await built(wire).models() == ("Qwen/Qwen3.8-27B", "org/other")


async def test_a_list_without_end_is_left_after_twenty_pages() -> None:
    wire = Wire(answer({**DOCUMENTED, "pagination": {"has_next": True}}))
    await built(wire).models()
    assert len(wire.requests) == 20


async def test_a_model_that_is_not_listed_is_not_bought() -> None:
    with pytest.raises(OracleError) as caught:
        await built(Wire(answer(LIVE))).quote(TASK)
    assert caught.value.error is errors.MODEL_UNAVAILABLE


async def test_a_model_that_has_vanished_makes_the_list_stale() -> None:
    gone = {"detail": "The requested model is not available for Chat Completions API. Available models: ['x']"}
    wire = Wire(answer(LIVE), answer(gone, 400), answer({"object": "list", "data": []}))
    compute = built(wire)
    await compute.quote(QWEN)
    status = await ended(compute)
    assert status.error is not None
    assert status.error.error is errors.MODEL_UNAVAILABLE
    with pytest.raises(OracleError):
        await compute.quote(QWEN)


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


@pytest.mark.parametrize("body", [{}, [], None, {"data": {"credit_limit": 5}}, {"data": {"remaining_credit": "much"}}])
def test_a_credit_that_is_not_told_is_not_known(body: Any) -> None:
    assert remaining_usd(body) is None


async def test_without_a_usage_address_the_balance_is_not_known() -> None:
    compute = built(Wire(answer({})))
    assert isinstance(compute.chat, IoNetChat)
    assert await compute.balance() is None
    await compute.close()
