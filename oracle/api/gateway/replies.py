"""The OpenAI wire format from the server's side: what a client is answered. No I/O."""

from __future__ import annotations

import base64
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from oracle.core.compute import Embeddings

DONE = b"data: [DONE]\n\n"
KEEP_ALIVE = b": the job is under way\n\n"
"""A comment: a reader skips it, and no proxy takes the silence of a long job for a dead connection."""


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one call; where the provider did not count them, they are estimated from the bytes."""

    input_tokens: int
    output_tokens: int

    def json(self) -> dict[str, int]:
        return {
            "prompt_tokens": self.input_tokens,
            "completion_tokens": self.output_tokens,
            "total_tokens": self.input_tokens + self.output_tokens,
        }


@dataclass(frozen=True, slots=True)
class Ended:
    """The end of an answer. `oracle` says who ran which model, and where the answer is recorded."""

    text: str
    finish_reason: str
    usage: Usage
    oracle: Mapping[str, Any]


def completion(call_id: str, created: int, model: str, ended: Ended) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": ended.text, "refusal": None, "annotations": []}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": ended.finish_reason}
    return {
        "id": call_id,
        "object": "chat.completion",
        "created": created,
        "model": model,
        "choices": [choice],
        "usage": ended.usage.json(),
        "oracle": ended.oracle,
    }


class Chunks:
    """The events of one streamed answer, in the order of its methods."""

    def __init__(self, call_id: str, created: int, model: str, *, include_usage: bool) -> None:
        self._head = {"id": call_id, "object": "chat.completion.chunk", "created": created, "model": model}
        self._include_usage = include_usage

    def role(self) -> bytes:
        return self._chunk({"role": "assistant", "content": ""})

    def text(self, text: str) -> bytes:
        return self._chunk({"content": text})

    def end(self, ended: Ended) -> Iterable[bytes]:
        yield self._chunk({}, ended.finish_reason, oracle=ended.oracle)
        if self._include_usage:
            yield event({**self._head, "choices": [], "usage": ended.usage.json()})
        yield DONE

    def _chunk(self, delta: Mapping[str, Any], finish_reason: str | None = None, **more: Any) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        usage = {"usage": None} if self._include_usage else {}
        return event({**self._head, "choices": [choice], **usage, **more})


def event(value: Any) -> bytes:
    return b"data: " + orjson.dumps(value) + b"\n\n"


def embeddings(model: str, found: Embeddings, usage: Usage, oracle: Mapping[str, Any], *, as_base64: bool) -> Any:
    data = [
        {"object": "embedding", "index": at, "embedding": _base64(vector) if as_base64 else vector}
        for at, vector in enumerate(found.vectors)
    ]
    counted = {"prompt_tokens": usage.input_tokens, "total_tokens": usage.input_tokens}
    return {"object": "list", "data": data, "model": model, "usage": counted, "oracle": oracle}


def _base64(vector: tuple[float, ...]) -> str:
    """32-bit floats, little-endian: what the official client asks for unless told otherwise."""
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()


def model(name: str, created: int) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": created, "owned_by": "oracle"}
