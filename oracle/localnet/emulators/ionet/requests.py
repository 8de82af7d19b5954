"""Request bodies as FastAPI would check them: unknown fields pass, wrong types are 422 with a list (§2.4, §2.9)."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeVar

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.responses import JSONResponse

from oracle.localnet.emulators.ionet.refusals import Refused

DEFAULT_TEMPERATURE = 0.7


class _Body(BaseModel):
    model_config = ConfigDict(extra="allow")


class ChatMessage(_Body):
    role: Literal["developer", "system", "user", "assistant", "tool", "function"]
    content: str | list[dict[str, Any]] | None = None


class StreamOptions(_Body):
    include_usage: bool = True


class ChatRequest(_Body):
    model: str
    messages: Annotated[list[ChatMessage], Field(min_length=1)]
    temperature: float | None = DEFAULT_TEMPERATURE
    top_p: float | None = None
    seed: int | None = None
    max_completion_tokens: int | None = None
    max_tokens: int | None = None
    n: Annotated[int, Field(ge=1, le=20)] | None = 1
    stop: str | list[str] | None = None
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None

    def for_model_server(self, model: str) -> dict[str, Any]:
        """The body for the model server: what it is known to honour, with io.net's default of the temperature."""
        fields = self.model_dump(
            include={"temperature", "top_p", "seed", "stop", "frequency_penalty", "presence_penalty"},
            exclude_none=True,
        )
        messages = [message.model_dump(exclude_none=True) for message in self.messages]
        limit = self.max_completion_tokens or self.max_tokens
        return {
            **fields,
            **({} if limit is None else {"max_tokens": limit}),
            **{name: value for name, value in (self.model_extra or {}).items() if name in _PASSED_ON},
            "model": model,
            "messages": messages,
        }


_PASSED_ON = {"response_format", "top_k", "min_p", "repetition_penalty", "logit_bias", "chat_template_kwargs"}


class EmbeddingRequest(_Body):
    model: str
    input: str | list[str] | list[int] | list[list[int]]
    encoding_format: Literal["float", "base64"] | None = "float"


class ModelsQuery(_Body):
    page: Annotated[int, Field(ge=1)] = 1
    page_size: Annotated[int, Field(ge=1, le=100)] = 50
    q: str = ""


_AnyBody = TypeVar("_AnyBody", bound=BaseModel)


def parse(kind: type[_AnyBody], raw: bytes) -> _AnyBody:
    """A body. Raises Refused with 422."""
    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        complaint = {"type": "json_invalid", "loc": ["body", error.pos], "msg": "JSON decode error", "input": {}}
        raise _unprocessable([{**complaint, "ctx": {"error": error.msg}}]) from None
    return check(kind, value, "body")


def check(kind: type[_AnyBody], value: Any, where: str) -> _AnyBody:
    """Raises Refused with 422 for what does not fit."""
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        complaints = error.errors(include_url=False, include_context=False)
        raise _unprocessable(
            [
                {"type": one["type"], "loc": [where, *one["loc"]], "msg": one["msg"], "input": one["input"]}
                for one in complaints
            ]
        ) from None


def _unprocessable(detail: list[dict[str, Any]]) -> Refused:
    return Refused(JSONResponse({"detail": detail}, 422))
