"""The OpenAI wire format: bodies we send, answers we read. No I/O. Source: specs/openai_compatible.md §2."""

from __future__ import annotations

import base64
import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import orjson

from oracle.core.compute import Completion, Embeddings, Piece, Task
from oracle.core.errors import OracleError
from oracle.providers import errors
from oracle.providers.failures import Complaint, error_of, read_complaint
from oracle.providers.openai.thoughts import Thoughts

TokenLimitField = Literal["max_tokens", "max_completion_tokens"]

# What servers say for "the model ended its answer". An empty or missing reason proves nothing, nor does [DONE].
_ENDED: Final = frozenset({"stop", "eos", "end_turn", "stop_sequence"})
_DECLINED: Final = frozenset({"content_filter", "tool_calls", "function_call"})
# Seeds on chain have 64 bits; llama.cpp takes 32 and reads -1 as random.
_SEED_MASK: Final = 0x7FFF_FFFF


@dataclass(frozen=True, slots=True)
class Dictation:
    """How a server wants to be asked. `extra` is merged into every chat body; only the sampling of a task wins over it.

    `by_stream` reads every answer as a stream: llama.cpp computes anything else to its end, for nobody, when its reader
    has gone away. `reasoning_tag` is that of reasoning which the server leaves in the text.
    """

    token_limit_field: TokenLimitField = "max_tokens"
    send_sampling: bool = True
    by_stream: bool = False
    reasoning_tag: str | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)


PLAIN: Final = Dictation()


def chat_body(task: Task, dictation: Dictation, *, stream: bool) -> dict[str, Any]:
    """The body of `POST /chat/completions`. Sampling is spelled out: servers default to values of their own."""
    body: dict[str, Any] = {
        "model": task.model,
        "messages": [{"role": message.role, "content": message.content} for message in task.messages],
        dictation.token_limit_field: task.max_output_tokens,
        "stream": stream,
    }
    if dictation.send_sampling:
        body |= {"temperature": task.temperature, "top_p": 1, "seed": task.seed & _SEED_MASK}
    if stream:
        body["stream_options"] = {"include_usage": True}
    return body | dict(dictation.extra) | dict(task.sampling)


def read_completion(body: Any, private: Sequence[str] = (), reasoning_tag: str | None = None) -> Completion:
    """A finished completion. Raises for what §2.2 calls REFUSED, TOOL, EMPTY, MALFORMED, and for errors sent as 200."""
    _raise_if_error(body, private)
    choice = _first_choice(body)
    message = choice.get("message") if choice else None
    if choice is None or not isinstance(message, dict):
        raise errors.ANSWER_INCOMPLETE("no choice with a message")
    thoughts = Thoughts(reasoning_tag)
    answer = _Answer(
        text=thoughts.feed(_string(message.get("content"))) + thoughts.rest(),
        refused=bool(message.get("refusal")),
        finish_reason=_string(choice.get("finish_reason")),
        model=_string(body.get("model")),
        response_id=_string(body.get("id")),
        reasoned=thoughts.found or bool(message.get("reasoning") or message.get("reasoning_content")),
    )
    answer.count(body.get("usage"))
    return answer.completed()


def check_not_cut(completion: Completion, max_output_tokens: int) -> None:
    """Raise ORC-PROVIDER-016 for an answer cut before the limit that was asked for; cut at it, it is what was asked."""
    tokens = completion.output_tokens
    if completion.finish_reason == "length" and tokens is not None and tokens < max_output_tokens:
        raise errors.ANSWER_CUT(f"{tokens} of {max_output_tokens} tokens")


class ChunkReader:
    """A streamed completion, chunk by chunk. Only a `finish_reason` proves its end."""

    def __init__(self, private: Sequence[str] = (), reasoning_tag: str | None = None) -> None:
        self._private = private
        self._thoughts = Thoughts(reasoning_tag)
        self._answer = _Answer()
        self._texts: list[str] = []

    def feed(self, data: str) -> Piece | None:
        """The piece of text in one event's data; None for a chunk without text, and for `[DONE]`."""
        text = self._text(data)
        return Piece(text, self._answer.model) if text else None

    def completed(self) -> Completion:
        """The whole completion, once the stream has ended. Raises as `read_completion` does."""
        self._answer.text = "".join(self._texts) + self._thoughts.rest()
        self._answer.reasoned = self._answer.reasoned or self._thoughts.found
        return self._answer.completed()

    def _text(self, data: str) -> str:
        if data.strip() == "[DONE]":
            return ""
        try:
            chunk = orjson.loads(data)
        except orjson.JSONDecodeError:
            raise errors.ANSWER_INCOMPLETE("a chunk of the stream is not JSON") from None
        _raise_if_error(chunk, self._private)
        answer = self._answer
        answer.model = _string(chunk.get("model")) or answer.model
        answer.response_id = answer.response_id or _string(chunk.get("id"))
        # The last usage counts: some servers send it cumulatively with every chunk.
        answer.count(chunk.get("usage"))
        choice = _first_choice(chunk)
        if choice is None:
            return ""
        answer.finish_reason = _string(choice.get("finish_reason")) or answer.finish_reason
        delta = choice.get("delta")
        if not isinstance(delta, dict):
            return ""
        answer.refused = answer.refused or bool(delta.get("refusal"))
        answer.reasoned = answer.reasoned or bool(delta.get("reasoning") or delta.get("reasoning_content"))
        text = self._thoughts.feed(_string(delta.get("content")))
        self._texts.append(text)
        return text


def read_models(body: Any) -> tuple[str, ...] | None:
    """Model ids of `GET /models`; None where the body is not such a list."""
    data = body.get("data") if isinstance(body, dict) else None
    if not isinstance(data, list):
        return None
    return tuple(item["id"] for item in data if isinstance(item, dict) and isinstance(item.get("id"), str))


def read_embeddings(body: Any, texts: int) -> Embeddings | None:
    """Vectors of `POST /embeddings`, put in the order of the texts; None where one is missing or not a vector."""
    data = body.get("data") if isinstance(body, dict) else None
    if not isinstance(data, list):
        return None
    found: dict[int, tuple[float, ...]] = {}
    for item in data:
        vector = _vector(item.get("embedding")) if isinstance(item, dict) else None
        at = _whole(item.get("index")) if vector else None
        if vector is None or at is None:
            return None
        found[at] = vector
    if set(found) != set(range(texts)):
        return None
    usage = body.get("usage")
    tokens = _whole(usage.get("prompt_tokens")) if isinstance(usage, dict) else None
    return Embeddings(tuple(found[at] for at in range(texts)), _string(body.get("model")), tokens)


@dataclass(slots=True)
class _Answer:
    """What has been read of an answer so far. Reasoning is noticed, never merged into the text."""

    text: str = ""
    refused: bool = False
    finish_reason: str = ""
    model: str = ""
    response_id: str = ""
    reasoned: bool = False
    input_tokens: int | None = None
    output_tokens: int | None = None

    def count(self, usage: Any) -> None:
        if not isinstance(usage, dict):
            return
        self.input_tokens = _whole(usage.get("prompt_tokens"), self.input_tokens)
        self.output_tokens = _whole(usage.get("completion_tokens"), self.output_tokens)

    def completed(self) -> Completion:
        if self.refused or self.finish_reason in _DECLINED:
            raise errors.ANSWER_REFUSED(f"finish_reason {self.finish_reason}" if not self.refused else "refusal")
        if self.finish_reason != "length" and self.finish_reason not in _ENDED:
            raise errors.ANSWER_INCOMPLETE(f"finish_reason {self.finish_reason[:32]!r}")
        if not self.text:
            if self.finish_reason == "length":
                raise errors.ANSWER_CUT("reasoning used all tokens" if self.reasoned else "no text within the limit")
            raise errors.ANSWER_EMPTY(f"finish_reason {self.finish_reason}")
        return Completion(
            text=self.text,
            model=self.model,
            finish_reason=self.finish_reason,
            input_tokens=self.input_tokens,
            output_tokens=self.output_tokens,
            response_id=self.response_id,
        )


def _raise_if_error(body: Any, private: Sequence[str]) -> None:
    """Raise for a body that is no completion; servers also send errors with HTTP 200, above all inside streams."""
    if not isinstance(body, dict):
        raise errors.ANSWER_INCOMPLETE("not a JSON object")
    if body.get("error") or ("detail" in body and "choices" not in body):
        raise _error_sent_as_success(body, private)


def _error_sent_as_success(body: dict[str, Any], private: Sequence[str]) -> OracleError:
    complaint: Complaint = read_complaint(orjson.dumps(body))
    status = int(complaint.code) if complaint.code.isdigit() and 400 <= int(complaint.code) < 600 else 500
    return error_of(status, {}, orjson.dumps(body), repeatable=False, now=0.0, private=private)


def _first_choice(body: dict[str, Any]) -> dict[str, Any] | None:
    choices = body.get("choices")
    if not isinstance(choices, list):
        return None
    return next((choice for choice in choices if isinstance(choice, dict) and choice.get("index", 0) == 0), None)


def _vector(value: Any) -> tuple[float, ...] | None:
    """Numbers, or base64 of 32-bit floats, little-endian. None where that is no vector of finite numbers."""
    if isinstance(value, str):
        try:
            raw = base64.b64decode(value, validate=True)
            vector = struct.unpack(f"<{len(raw) // 4}f", raw)
        except (ValueError, struct.error):
            return None
    elif isinstance(value, list) and all(isinstance(x, int | float) for x in value):
        vector = tuple(float(x) for x in value)
    else:
        return None
    return vector if vector and all(map(math.isfinite, vector)) else None


def _string(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _whole(value: Any, otherwise: int | None = None) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else otherwise
