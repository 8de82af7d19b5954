"""The OpenAI wire format from the server's side: what a client may ask. No I/O.

What cannot be honoured is refused, never dropped: a client that asks for tools or two choices must not believe it was
heard. Fields that change nothing about the answer are let pass.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

import orjson

from oracle.api.gateway.errors import PARAMETER_UNSUPPORTED, REQUEST_INVALID
from oracle.core.compute import Message
from oracle.core.prompt import messages_of
from oracle.core.request import Flags

MOST_TEXTS: Final = 2048
RECORD: Final = "oracle_record"
"""The body's own way to ask for a recording, for clients that set no headers (`extra_body`)."""

# Sent on to chat APIs as they are.
_SAMPLING: Final = frozenset(
    {
        "top_p",
        "top_k",
        "min_p",
        "stop",
        "frequency_penalty",
        "presence_penalty",
        "repetition_penalty",
        "logit_bias",
        "response_format",
        "reasoning_effort",
    }
)
_WITHOUT_EFFECT: Final = frozenset(
    {"user", "metadata", "safety_identifier", "prompt_cache_key", "parallel_tool_calls", "verbosity"}
)
# Allowed with the value that asks for nothing.
_ASKS_NOTHING: Final[Mapping[str, tuple[Any, ...]]] = {
    "n": (1,),
    "logprobs": (False,),
    "top_logprobs": (0,),
    "store": (False,),
    "service_tier": ("auto", "default"),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "functions": ([],),
    "modalities": (["text"],),
}
_READ: Final = frozenset(
    {
        "model",
        "messages",
        "stream",
        "stream_options",
        "max_tokens",
        "max_completion_tokens",
        "temperature",
        "seed",
        RECORD,
    }
)
_ROLES: Final[Mapping[str, Literal["system", "user", "assistant"]]] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
}


@dataclass(frozen=True, slots=True)
class ChatAsk:
    """What a client asks of a chat model. `content` are the messages as the bytes of a request on chain."""

    model: str
    messages: tuple[Message, ...]
    content: bytes
    max_output_tokens: int
    temperature: float
    seed: int | None
    sampling: Mapping[str, Any]
    stream: bool
    include_usage: bool
    record: bool


@dataclass(frozen=True, slots=True)
class EmbeddingsAsk:
    model: str
    texts: tuple[str, ...]
    as_base64: bool


def read_chat(body: Any, default_output_tokens: int) -> ChatAsk:
    """Raises ORC-GATEWAY-005 or 006 with the parameter in backticks, and the ORC-INPUT codes for what is no prompt."""
    fields = _fields(body)
    _refuse_what_is_not_known(fields)
    messages, content = _messages(fields.get("messages"))
    stream = _flag(fields, "stream")
    options = fields.get("stream_options")
    if not isinstance(options, dict | None):
        raise REQUEST_INVALID("`stream_options` must be an object")
    return ChatAsk(
        model=_model(fields),
        messages=messages,
        content=content,
        max_output_tokens=_output_tokens(fields, default_output_tokens),
        temperature=_temperature(fields.get("temperature")),
        seed=_seed(fields.get("seed")),
        sampling={name: value for name, value in fields.items() if name in _SAMPLING},
        stream=stream,
        include_usage=stream and _flag(options or {}, "include_usage"),
        record=_flag(fields, RECORD),
    )


def read_embeddings(body: Any) -> EmbeddingsAsk:
    """Raises ORC-GATEWAY-005 or 006."""
    fields = _fields(body)
    for name in fields.keys() - {"model", "input", "encoding_format", "user"}:
        raise PARAMETER_UNSUPPORTED(f"`{name}` is not passed on")
    encoding = fields.get("encoding_format", "float")
    if encoding not in ("float", "base64"):
        raise REQUEST_INVALID("`encoding_format` must be float or base64")
    asked = fields.get("input")
    texts = [asked] if isinstance(asked, str) else asked
    if not isinstance(texts, list) or not 1 <= len(texts) <= MOST_TEXTS:
        raise REQUEST_INVALID(f"`input` must be a text, or an array of 1 to {MOST_TEXTS} texts")
    if not all(isinstance(text, str) and text for text in texts):
        raise REQUEST_INVALID("`input` must hold texts that are not empty; arrays of tokens are not supported")
    return EmbeddingsAsk(_model(fields), tuple(texts), encoding == "base64")


def _fields(body: Any) -> dict[str, Any]:
    """What is null was not said."""
    if not isinstance(body, dict):
        raise REQUEST_INVALID("the body must be a JSON object")
    return {name: value for name, value in body.items() if value is not None}


def _refuse_what_is_not_known(fields: Mapping[str, Any]) -> None:
    for name, value in fields.items():
        if name in _ASKS_NOTHING:
            if value not in _ASKS_NOTHING[name]:
                raise PARAMETER_UNSUPPORTED(f"`{name}` is not passed on")
        elif name not in _READ | _SAMPLING | _WITHOUT_EFFECT:
            raise PARAMETER_UNSUPPORTED(f"`{name}` is not known" if name.isidentifier() else "a field is not known")


def _messages(items: Any) -> tuple[tuple[Message, ...], bytes]:
    if not isinstance(items, list) or not items:
        raise REQUEST_INVALID("`messages` must be an array of messages")
    plain = [_message(item, at) for at, item in enumerate(items)]
    try:
        content = orjson.dumps(plain)
    except orjson.JSONEncodeError:
        raise REQUEST_INVALID("`messages` holds text that is not Unicode") from None
    return messages_of(content, Flags.CHAT), content


def _message(item: Any, at: int) -> dict[str, str]:
    where = f"messages[{at}]"
    if not isinstance(item, dict):
        raise REQUEST_INVALID(f"`{where}` must be an object")
    role = _ROLES.get(str(item.get("role")))
    if role is None:
        raise PARAMETER_UNSUPPORTED(f"`{where}.role` must be one of {', '.join(_ROLES)}")
    # What an answer carries beside its text is sent back by clients that keep a history; empty, it says nothing.
    for name in item.keys() - {"role", "content", "name"}:
        if item[name] not in (None, [], ""):
            raise PARAMETER_UNSUPPORTED(f"`{where}.{name}` is not passed on" if name.isidentifier() else f"`{where}`")
    return {"role": role, "content": _content(item.get("content"), where)}


def _content(content: Any, where: str) -> str:
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise REQUEST_INVALID(f"`{where}.content` must be a text or an array of text parts")
    if not all(isinstance(part, dict) and part.get("type") == "text" for part in content):
        raise PARAMETER_UNSUPPORTED(f"`{where}.content` may hold text parts only")
    if not all(isinstance(part.get("text"), str) for part in content):
        raise REQUEST_INVALID(f"`{where}.content` has a part without text")
    return "\n".join(part["text"] for part in content)


def _model(fields: Mapping[str, Any]) -> str:
    model = fields.get("model")
    if not isinstance(model, str) or not model:
        raise REQUEST_INVALID("`model` must be the name of a model")
    return model


def _output_tokens(fields: Mapping[str, Any], default: int) -> int:
    for name in ("max_completion_tokens", "max_tokens"):
        if name in fields:
            value = fields[name]
            if type(value) is not int or not 1 <= value < 2**31:
                raise REQUEST_INVALID(f"`{name}` must be a positive whole number")
            return value
    return default


def _temperature(value: Any) -> float:
    if value is None:
        return 1.0
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 2:
        raise REQUEST_INVALID("`temperature` must be a number from 0 to 2")
    return float(value)


def _seed(value: Any) -> int | None:
    if value is not None and (type(value) is not int or not -(2**63) <= value < 2**63):
        raise REQUEST_INVALID("`seed` must be a whole number of 64 bits")
    return None if value is None else value % 2**63


def _flag(fields: Mapping[str, Any], name: str) -> bool:
    value = fields.get(name, False)
    if not isinstance(value, bool):
        raise REQUEST_INVALID(f"`{name}` must be true or false")
    return value
