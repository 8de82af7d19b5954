"""The shapes of a chat's answer, in one piece and as a stream (§2.5, §2.6)."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

PROVIDER = "ai.io.net"
FINGERPRINT = "vllm-0.27.1-7470d2d2"
REASONING = "We need to answer...\n"


@dataclass(frozen=True, slots=True)
class Head:
    """What every part of an answer says of itself. A model that thinks sends reasoning, and newlines first."""

    id: str
    created: int
    model: str
    thinks: bool


@dataclass(slots=True)
class Meter:
    """What an answer has used. In a stream it runs along, and is final once the model server has said so itself."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    finish_reason: str | None = None

    def usage(self) -> dict[str, Any]:
        return {
            "prompt_tokens": self.prompt_tokens,
            "total_tokens": self.prompt_tokens + self.completion_tokens,
            "completion_tokens": self.completion_tokens,
        }


def completion(head: Head, text: str, meter: Meter) -> dict[str, Any]:
    """An answer in one piece."""
    details = {
        "cached_tokens": 0,
        "cache_creation_input_tokens": meter.prompt_tokens,
        "created_cache_tokens": 0,
        "multimodal_tokens": None,
    }
    message = {
        "role": "assistant",
        "reasoning_content": REASONING if head.thinks else None,
        "content": f"\n\n{text}" if head.thinks else text,
        "refusal": None,
        "annotations": None,
        "audio": None,
        "function_call": None,
    }
    choice = {
        "index": 0,
        "message": message,
        "logprobs": None,
        "finish_reason": meter.finish_reason,
        "stop_reason": None,
        "token_ids": None,
        "routed_experts": None,
    }
    return {
        "id": head.id,
        "object": "chat.completion",
        "created": head.created,
        "model": head.model,
        "choices": [choice],
        "usage": {**meter.usage(), "prompt_tokens_details": details},
        "prompt_logprobs": None,
        "service_tier": None,
        "system_fingerprint": FINGERPRINT,
        "prompt_token_ids": None,
        "prompt_text": None,
        "kv_transfer_params": None,
        "ec_transfer_params": None,
        "metrics": None,
        "provider": PROVIDER,
    }


async def events(
    head: Head, words: AsyncGenerator[str], meter: Meter, *, with_usage: bool
) -> AsyncGenerator[dict[str, Any]]:
    """The events of a stream but the last, `[DONE]`. `words` moves `meter` as it goes.

    A word is held back until the next one is there: the last has text and `finish_reason` in the same event. Every
    event has the usage so far; only the empty one at the end has the fingerprint.
    """

    def event(delta: dict[str, str] | None, finish_reason: str | None = None) -> dict[str, Any]:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        return {
            "id": head.id,
            "object": "chat.completion.chunk",
            "created": head.created,
            "model": head.model,
            "choices": [] if delta is None else [choice],
            **({"usage": meter.usage()} if with_usage else {}),
            "provider": PROVIDER,
        }

    yield event({"role": "assistant", "content": ""})
    if head.thinks:
        yield event({"reasoning_content": REASONING})
    held = "\n\n" if head.thinks else ""
    async with aclosing(words):
        async for word in words:
            if held:
                yield event({"content": held})
            held = word
    yield event({"content": held}, meter.finish_reason)
    if with_usage:
        yield {**event(None), "system_fingerprint": FINGERPRINT}
