"""From settings to a provider with an OpenAI-compatible API."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from oracle.core.compute import Recovery
from oracle.providers import errors
from oracle.providers.chat import ChatCompute, Limits
from oracle.providers.openai.batch import BatchCompute, BatchTerms
from oracle.providers.openai.batch_api import BatchApi
from oracle.providers.openai.batch_list import BatchList
from oracle.providers.openai.client import OpenAIChat
from oracle.providers.openai.wire import Dictation
from oracle.providers.pricing import FREE, PriceOf, TokenPrice
from oracle.providers.settings import ChattingSettings, ModelPrice, OpenAIBatchSettings, OpenAISettings
from oracle.providers.site import Site, bearer

UNDO_DEFAULTS: Final[Mapping[str, Mapping[str, Any]]] = {
    "vllm": {"top_k": -1, "min_p": 0, "repetition_penalty": 1, "presence_penalty": 0, "frequency_penalty": 0},
    "llamacpp": {"top_k": 0, "min_p": 0, "repeat_penalty": 1, "cache_prompt": False},
}
"""What a server would otherwise take from its own defaults or the model's files (openai_compatible.md §6)."""


def openai(site: Site, settings: OpenAISettings) -> ChatCompute:
    key = site.secret(settings, "api_key")
    owner = {"OpenAI-Organization": settings.organization, "OpenAI-Project": settings.project}
    http = site.http(settings.base_url, settings, {**bearer(key), **owner}, key)
    by_server: dict[str, Any] = {"openai": "max_completion_tokens"}
    dictation = Dictation(
        token_limit_field=settings.token_limit_field or by_server.get(settings.server, "max_tokens"),
        send_sampling=settings.send_sampling,
        by_stream=settings.server == "llamacpp",
        reasoning_tag=settings.reasoning_tag,
        extra={**UNDO_DEFAULTS.get(settings.server, {}), **settings.extra_body},
    )
    return ChatCompute(
        site.name,
        OpenAIChat(http, dictation),
        recovery=Recovery.REPEAT if settings.free else Recovery.NEITHER,
        price_of=FREE if settings.free else listed(settings.model_prices),
        rates=site.rates,
        limits=limits_of(settings),
    )


def openai_batch(site: Site, settings: OpenAIBatchSettings) -> BatchCompute:
    key = site.secret(settings, "api_key")
    owner = {"OpenAI-Organization": settings.organization, "OpenAI-Project": settings.project}
    api = BatchApi(site.http(settings.base_url, settings, {**bearer(key), **owner}, key))
    return BatchCompute(
        site.name,
        api,
        BatchList(api, horizon_seconds=settings.look_up_seconds),
        listed(settings.model_prices),
        terms=BatchTerms(
            discount=settings.discount,
            gather_seconds=settings.gather_seconds,
            poll_seconds=settings.poll_seconds,
            expected_seconds=settings.expected_seconds,
        ),
        dictation=Dictation(
            token_limit_field=settings.token_limit_field,
            send_sampling=settings.send_sampling,
            extra=settings.extra_body,
        ),
        rates=site.rates,
    )


def limits_of(settings: ChattingSettings) -> Limits:
    return Limits(concurrent_jobs=settings.max_concurrent_jobs, kept_jobs=settings.max_kept_jobs)


def listed(prices: Mapping[str, ModelPrice]) -> PriceOf:
    """Prices as configured. A model that is not listed has none: nothing is bought at a price nobody knows."""

    async def price_of(model: str) -> TokenPrice:
        price = prices.get(model)
        if price is None:
            raise errors.PRICE_UNKNOWN(f"model {model!r} is not under model_prices")
        return TokenPrice(price.input_usd_per_million_tokens, price.output_usd_per_million_tokens)

    return price_of
