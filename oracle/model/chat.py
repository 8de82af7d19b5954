"""Reads and writes the part of llama.cpp's chat API that the local model needs; opens no sockets."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from oracle.core.errors import OracleError
from oracle.model.errors import ANSWER_BROKEN, NOT_RUNNING, PROMPT_TOO_LONG, REQUEST_REFUSED
from oracle.model.pinned import LONGEST_TOKEN_BYTES

Message = Mapping[str, str]
"""`{"role": "system" | "user" | "assistant", "content": ...}`."""

_DONE: Final = b"[DONE]"

_RANDOM_SEED: Final = 2**32 - 1
"""llama.cpp takes this one for "any", and keeps the low 32 bits of a larger one: an answer nobody could repeat."""


@dataclass(frozen=True, slots=True)
class Completion:
    """An answer. `finish_reason` is `stop`, or `length` where a limit cut it off."""

    text: str
    finish_reason: str
    prompt_tokens: int
    completion_tokens: int


def request_body(
    messages: Sequence[Message], *, max_tokens: int, temperature: float, seed: int, context_tokens: int
) -> dict[str, Any]:
    """The body of `POST /chat/completions`. Raises ORC-MODEL-009 for what JSON or llama.cpp cannot take.

    Raises ORC-MODEL-008 for a prompt that cannot fit, without counting tokens: llama.cpp would say so too, but only
    after it has tokenized all of it, which takes 6 s and 1 GB for 5 MB.
    """
    if max_tokens < 1:  # llama.cpp reads -1 as no limit, and 0 as 1
        raise REQUEST_REFUSED(f"max_tokens is {max_tokens}")
    if not 0 <= temperature < math.inf:
        raise REQUEST_REFUSED(f"temperature is {temperature}")
    if not 0 <= seed < _RANDOM_SEED:
        raise REQUEST_REFUSED(f"seed is {seed}, not one of 0 to {_RANDOM_SEED - 1}")
    try:
        content_bytes = sum(len(message.get("content", "").encode()) for message in messages)
    except UnicodeEncodeError as error:
        raise REQUEST_REFUSED("a message holds half a surrogate pair") from error
    if content_bytes > context_tokens * LONGEST_TOKEN_BYTES:
        raise PROMPT_TOO_LONG(f"{content_bytes:,} bytes cannot be {context_tokens:,} tokens")
    return {
        "messages": list(messages),
        "max_tokens": min(max_tokens, context_tokens),  # llama.cpp keeps the low 32 bits of a larger one
        "temperature": temperature,
        "seed": seed,
        # Only a stream is stopped when its reader goes away. Any other request is computed to its end, for nobody.
        "stream": True,
        "stream_options": {"include_usage": True},
    }


class EventStream:
    """Cuts a body of server-sent events into the JSON objects it carries.

    Lines end at a line feed and nowhere else: llama.cpp leaves U+2028 and its like unescaped, and a decoder that splits
    where `str.splitlines` does, as httpx's does, tears such an answer apart.
    """

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> Iterator[dict[str, Any]]:
        """The events that are complete with `data`. Raises ORC-MODEL-010 for what is not JSON."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            field, _, value = line.partition(b":")  # an empty field is a comment: llama.cpp's keep-alive
            if field in (b"data", b"error") and value.strip() != _DONE:
                yield _object(value)


def completion_of(events: Iterable[Mapping[str, Any]]) -> Completion:
    """Puts the pieces of a stream together. Raises ORC-MODEL-010 unless the stream says that and why it ended."""
    text: list[str] = []
    finish_reason = None
    usage: Mapping[str, Any] | None = None
    for event in events:
        if "choices" not in event:
            raise ANSWER_BROKEN(_error_message(event))
        usage = event.get("usage") or usage
        for choice in event["choices"]:
            text.append(choice["delta"].get("content") or "")
            finish_reason = choice.get("finish_reason") or finish_reason
    if finish_reason is None or usage is None:
        raise ANSWER_BROKEN("the stream broke off")
    return Completion("".join(text), finish_reason, usage["prompt_tokens"], usage["completion_tokens"])


def refusal(status: int, body: bytes) -> OracleError:
    """What a reply other than 200 means."""
    try:
        error = json.loads(body)["error"]
        kind, message = error["type"], error["message"]
    except (ValueError, LookupError, TypeError):
        kind, message = "", f"HTTP {status}"
    if kind == "exceed_context_size_error":
        return PROMPT_TOO_LONG(message)
    return REQUEST_REFUSED(message) if status < 500 else NOT_RUNNING(message)


def _object(text: bytes) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise ANSWER_BROKEN("an event is not JSON") from error
    if not isinstance(value, dict):
        raise ANSWER_BROKEN("an event is not an object")
    return value


def _error_message(event: Mapping[str, Any]) -> str:
    error = event.get("error", event)
    return str(error.get("message", "an event of an unknown kind")) if isinstance(error, dict) else str(error)
