"""A scripted OpenAI-compatible server: distinct texts without a model, in the manners of six vendors.

For load tests, and as the model server behind the other emulators where a real model would be too slow. The text is
derived from the SHA-256 of the messages, so the same request gets the same answer and two requests never the same.
Shapes and errors from specs/openai_compatible.md §2, §3.1 and §6.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import itertools
import math
import struct
from collections.abc import AsyncIterator, Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route, Router
from starlette.types import ASGIApp

from oracle.localnet.emulators.faults import Fault, Faults, Wire, wire_kinds

CREATED = 1789430000


class Personality(StrEnum):
    """Whose manners: the error envelope, the fingerprint, the word for reasoning, what `/health` says."""

    OPENAI = "openai"
    VLLM = "vllm"
    OLLAMA = "ollama"
    LLAMACPP = "llamacpp"
    BEDROCK = "bedrock"
    VERTEX = "vertex"


class Answer(StrEnum):
    """What can go wrong with an answer that is sent with status 200 (§2.2, §2.3)."""

    CUT_STREAM = "cut_stream"
    """The stream ends in the middle, without `finish_reason` and `[DONE]`."""
    NO_DONE = "no_done"
    ERROR_IN_STREAM = "error_in_stream"
    EMPTY_CONTENT = "empty_content"
    EMPTY_CHOICES = "empty_choices"
    LENGTH = "length"
    """`finish_reason` says that the answer was cut short."""


@dataclass(slots=True)
class Streamed:
    """One streamed answer: how many of its words went out, whether it still goes on, and whether it came to its end."""

    words: int
    sent: int = 0
    live: bool = True
    finished: bool = False


class ScriptedOpenAI:
    """`POST /v1/chat/completions` and `/v1/embeddings`, `GET /v1/models` and `/health`.

    `api_key` None leaves the server open. `word_seconds` is the pause between two words of a stream (and their sum
    before an answer in one piece). `models` None serves whatever model is asked for. While `flowing` is clear, answers
    that have begun wait: a stream before its next word, one in one piece as a whole.
    """

    def __init__(
        self,
        personality: Personality = Personality.OPENAI,
        *,
        api_key: str | None = None,
        models: tuple[str, ...] | None = None,
        words: int = 24,
        word_seconds: float = 0.0,
    ) -> None:
        self.faults = Faults(wire_kinds(("answer", Answer)))
        self.ready = True
        self.flowing = asyncio.Event()
        self.flowing.set()
        self.requests: list[dict[str, Any]] = []
        self.streams: list[Streamed] = []
        self._personality = personality
        self._api_key = api_key
        self._models = models
        self.words = words
        self.word_seconds = word_seconds
        self._numbers = itertools.count(1)

    def routes(self) -> ASGIApp:
        return Router(
            [
                Route("/chat/completions", self._chat, methods=["POST"]),
                Route("/embeddings", self._embeddings, methods=["POST"]),
                Route("/models", self._list_models),
                Route("/health", self._health),
            ],
            redirect_slashes=False,
        )

    def canonical_path(self, path: str) -> str:
        return path.removeprefix("/v1").rstrip("/") or "/"

    def books(self) -> Mapping[str, Any]:
        return {"requests": self.requests, "streams": [asdict(stream) for stream in self.streams]}

    def refusal(self, fault: Fault) -> Response:
        match fault.kind:
            case Wire.RATE_LIMIT:
                headers = {} if fault.retry_after is None else {"retry-after": fault.retry_after}
                text = fault.text or "Rate limit reached for requests"
                return self._error(429, text, "requests", "rate_limit_exceeded", headers=headers)
            case Wire.OUT_OF_CREDITS:
                text = fault.text or "You exceeded your current quota, please check your plan and billing details."
                return self._error(fault.status or 429, text, "insufficient_quota", "insufficient_quota")
            case Wire.UNAUTHORIZED:
                return self._unauthorized()
        status = fault.status or 500
        return self._error(
            status, fault.text or "The server had an error while processing your request.", "server_error", None
        )

    async def start(self) -> None:
        return None

    async def close(self) -> None:
        return None

    async def _chat(self, request: Request) -> Response:
        body = await self._body(request)
        if isinstance(body, Response):
            return body
        messages = body.get("messages")
        if not isinstance(messages, list) or not messages:
            return self._error(400, "messages must not be empty", "invalid_request_error", "invalid_value", "messages")
        for name in ("max_tokens", "max_completion_tokens"):
            if not (body.get(name) is None or (type(body[name]) is int and body[name] >= 1)):
                return self._error(400, f"Invalid '{name}'", "invalid_request_error", "invalid_value", name)
        if not isinstance(body.get("stream_options"), dict | None):
            return self._error(400, "Invalid 'stream_options'", "invalid_request_error", "invalid_type")
        self.requests.append(body)
        fault = self.faults.take("answer", str(body["model"]))
        kind = None if fault is None else Answer(fault.kind)
        words, finish = self._script(body, kind)
        usage = {"prompt_tokens": _count_tokens(messages), "completion_tokens": len(words)}
        usage["total_tokens"] = sum(usage.values())
        head = {"id": f"chatcmpl-{next(self._numbers)}", "created": CREATED, "model": body["model"]}
        if body.get("stream"):
            with_usage = bool((body.get("stream_options") or {}).get("include_usage"))
            events = self._events(head, words, finish, usage if with_usage else None, kind)
            return StreamingResponse(self._booked(events, len(words)), media_type="text/event-stream")
        await asyncio.sleep(self.word_seconds * len(words))
        await self.flowing.wait()
        message: dict[str, Any] = {"role": "assistant", "content": "".join(words), "refusal": None, "annotations": []}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": finish}
        choices = [] if kind is Answer.EMPTY_CHOICES else [choice]
        answer = {**head, "object": "chat.completion", "choices": choices, "usage": usage, **self._fingerprint()}
        return JSONResponse(answer)

    async def _booked(self, events: AsyncIterator[bytes], words: int) -> AsyncIterator[bytes]:
        """The events, with a note of how far they went: a reader that goes away stops them."""
        stream = Streamed(words)
        self.streams.append(stream)
        try:
            async for event in events:
                yield event
                stream.sent += b'"delta":{"content":' in event
            stream.finished = True
        finally:
            stream.live = False

    async def _events(
        self, head: dict[str, Any], words: list[str], finish: str, usage: dict[str, int] | None, kind: Answer | None
    ) -> AsyncIterator[bytes]:
        def event(delta: dict[str, Any], finish_reason: str | None = None) -> bytes:
            choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
            trailer = {} if usage is None else {"usage": None}
            return _sse({**head, "object": "chat.completion.chunk", "choices": [choice], **trailer})

        yield event({"role": "assistant", "content": ""})
        for n, word in enumerate(words):
            if n == len(words) // 2 and kind is Answer.CUT_STREAM:
                return
            if n == len(words) // 2 and kind is Answer.ERROR_IN_STREAM:
                yield _sse(self._envelope(500, "EngineCore encountered an issue", "InternalServerError", None, None))
                yield b"data: [DONE]\n\n"
                return
            await asyncio.sleep(self.word_seconds)
            await self.flowing.wait()
            yield event({"content": word})
        yield event({}, finish)
        if usage is not None:
            chunk = {**head, "object": "chat.completion.chunk", "choices": [], "usage": usage, **self._fingerprint()}
            yield _sse(chunk)
        if kind is not Answer.NO_DONE:
            yield b"data: [DONE]\n\n"

    def _script(self, body: dict[str, Any], kind: Answer | None) -> tuple[list[str], str]:
        """The words of the answer, each a token to this server, and the finish reason."""
        if kind is Answer.EMPTY_CONTENT:
            return [], "stop"
        words = scripted_words(body["messages"], self.words)
        limit = body.get("max_completion_tokens") or body.get("max_tokens") or math.inf
        if kind is Answer.LENGTH or len(words) > limit:
            return words[: int(min(limit, len(words) - 1))], "length"
        return words, "stop"

    async def _embeddings(self, request: Request) -> Response:
        body = await self._body(request)
        if isinstance(body, Response):
            return body
        inputs = body["input"] if isinstance(body.get("input"), list) else [body.get("input")]
        as_base64 = body.get("encoding_format") == "base64"
        data = [
            {"object": "embedding", "index": n, "embedding": _base64(_vector(item)) if as_base64 else _vector(item)}
            for n, item in enumerate(inputs)
        ]
        tokens = sum(len(str(item).split()) for item in inputs)
        usage = {"prompt_tokens": tokens, "total_tokens": tokens}
        return JSONResponse({"object": "list", "data": data, "model": body["model"], "usage": usage})

    async def _list_models(self, request: Request) -> Response:
        if (refused := self._refuse_key(request)) is not None:
            return refused
        data = [
            {"id": model, "object": "model", "created": CREATED, "owned_by": "scripted"}
            for model in self._models or ("scripted",)
        ]
        return JSONResponse({"object": "list", "data": data})

    async def _health(self, request: Request) -> Response:
        if self.ready:
            return JSONResponse({"status": "ok"}) if self._personality is Personality.LLAMACPP else Response()
        if self._personality is Personality.LLAMACPP:
            return self._error(503, "Loading model", "unavailable_error", None)
        return Response(status_code=503)

    async def _body(self, request: Request) -> dict[str, Any] | Response:
        if (refused := self._refuse_key(request)) is not None:
            return refused
        try:
            body = orjson.loads(await request.body())
        except orjson.JSONDecodeError:
            return self._error(400, "We could not parse the JSON body of your request.", "invalid_request_error", None)
        if not isinstance(body, dict) or not isinstance(body.get("model"), str):
            return self._error(400, "you must provide a model parameter", "invalid_request_error", None, "model")
        if self._models is not None and body["model"] not in self._models:
            return self._unknown_model(body["model"])
        return body

    def _refuse_key(self, request: Request) -> Response | None:
        if self._api_key is None or request.headers.get("authorization") == f"Bearer {self._api_key}":
            return None
        return self._unauthorized()

    def _unauthorized(self) -> Response:
        if self._personality is Personality.VLLM:
            return JSONResponse({"error": "Unauthorized"}, 401)
        if self._personality is Personality.LLAMACPP:
            return self._error(401, "Invalid API Key", "authentication_error", None)
        if self._personality is Personality.BEDROCK:
            return self._error(403, "User is not authorized to perform: bedrock:InvokeModel", "", None)
        text = "Incorrect API key provided: sk-tes***0001. You can find your API key at https://platform.openai.com/account/api-keys."
        return self._error(401, text, "invalid_request_error", "invalid_api_key")

    def _unknown_model(self, model: str) -> Response:
        if self._personality is Personality.VLLM:
            return self._error(404, f"The model `{model}` does not exist.", "NotFoundError", None, "model")
        if self._personality is Personality.OLLAMA:
            return self._error(404, f'model "{model}" not found, try pulling it first', "not_found_error", None)
        text = f"The model `{model}` does not exist or you do not have access to it."
        return self._error(404, text, "invalid_request_error", "model_not_found")

    def _error(
        self,
        status: int,
        message: str,
        kind: str,
        code: str | None,
        param: str | None = None,
        *,
        headers: Mapping[str, str] | None = None,
    ) -> Response:
        return JSONResponse(self._envelope(status, message, kind, code, param), status, headers)

    def _envelope(self, status: int, message: str, kind: str, code: str | None, param: str | None) -> Any:
        match self._personality:
            case Personality.VLLM:
                return {"error": {"message": message, "type": kind, "param": param, "code": status}}
            case Personality.OLLAMA:
                return {"error": {"message": message, "type": kind, "param": None, "code": None}}
            case Personality.LLAMACPP:
                return {"error": {"code": status, "message": message, "type": kind}}
            case Personality.BEDROCK:
                return {"message": message}
            case Personality.VERTEX:
                google = _GOOGLE_STATUS.get(status, "INTERNAL")
                return [{"error": {"code": status, "message": message, "status": google, "details": []}}]
        return {"error": {"message": message, "type": kind, "param": param, "code": code}}

    def _fingerprint(self) -> dict[str, str]:
        match self._personality:
            case Personality.OPENAI:
                return {"service_tier": "default", "system_fingerprint": "fp_44709d6fcb"}
            case Personality.VLLM:
                return {"system_fingerprint": "vllm-0.27.1-7470d2d2"}
            case Personality.OLLAMA:
                return {"system_fingerprint": "fp_ollama"}
        return {}


def scripted_words(messages: list[Any], words: int = 24) -> list[str]:
    """The answer to these messages: words that join to `answer <64 hexadecimal digits of their SHA-256> ...`."""
    digest = hashlib.sha256(orjson.dumps(messages, option=orjson.OPT_SORT_KEYS)).hexdigest()
    tail = (f" {digest[2 * n % 60 : 2 * n % 60 + 4]}" for n in range(max(0, words - 2)))
    return ["answer", f" {digest}", *tail]


def _vector(item: Any) -> list[float]:
    digest = hashlib.sha256(str(item).encode()).digest()[:8]
    length = math.sqrt(sum(byte * byte for byte in digest)) or 1.0
    return [byte / length for byte in digest]


def _base64(vector: list[float]) -> str:
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()


def _count_tokens(messages: list[Any]) -> int:
    return sum(len(str(message.get("content", "")).split()) + 4 for message in messages if isinstance(message, dict))


def _sse(value: Any) -> bytes:
    return b"data: " + orjson.dumps(value) + b"\n\n"


_GOOGLE_STATUS = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    429: "RESOURCE_EXHAUSTED",
    503: "UNAVAILABLE",
}
