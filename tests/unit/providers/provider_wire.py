"""What the provider tests share: answers without a network, recorded requests, and a task to ask for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import orjson

from oracle.core.compute import Message, Task
from oracle.providers.http import Http, Timeouts
from oracle.providers.pace import Pace

TASK = Task(model="gpt-x", messages=(Message("user", "What is six times seven?"),), max_output_tokens=32, seed=7)

COMPLETION: dict[str, Any] = {
    "id": "chatcmpl-abc",
    "object": "chat.completion",
    "created": 1789430000,
    "model": "gpt-x-2026-08-01",
    "choices": [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "42", "refusal": None, "annotations": []},
            "logprobs": None,
            "finish_reason": "stop",
        }
    ],
    "usage": {"prompt_tokens": 12, "completion_tokens": 5, "total_tokens": 17},
    "service_tier": "default",
    "system_fingerprint": "fp_44709d6fcb",
}


# openai_compatible.md §2.3
STREAM = b"""data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}],"usage":null}

data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,"delta":{"content":"42"},"finish_reason":null}],"usage":null}

data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,"delta":{},"finish_reason":"stop"}],"usage":null}

data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"m","choices":[],"usage":{"prompt_tokens":5,"completion_tokens":1,"total_tokens":6}}

data: [DONE]

"""  # noqa: E501


class Wire:
    """Records every request and answers it with `reply`, which may be a response, an exception, or a function."""

    def __init__(self, *replies: Any) -> None:
        self.requests: list[httpx.Request] = []
        self._replies = list(replies)

    @property
    def transport(self) -> httpx.MockTransport:
        return httpx.MockTransport(self._answer)

    def body(self, at: int = -1) -> Any:
        return orjson.loads(self.requests[at].content)

    async def _answer(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        reply = self._replies.pop(0) if len(self._replies) > 1 else self._replies[0]
        if isinstance(reply, Exception):
            raise reply
        if callable(reply):
            return reply(request)
        return reply


def answer(body: Any = None, status: int = 200, **headers: str) -> Callable[[httpx.Request], httpx.Response]:
    """A fresh response for every request: a JSON value, or bytes as they are."""
    content = body if isinstance(body, bytes) else orjson.dumps(body)
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda request: httpx.Response(status, content=content, headers=named)


def http(wire: Wire, base_url: str = "https://api.example/v1", **options: Any) -> Http:
    return Http("example", base_url, pace=options.pop("pace", Pace()), transport=wire.transport, **options)


class Stalled(httpx.AsyncByteStream):
    """A body of which some bytes come and then none, until the reader goes away."""

    def __init__(self, start: bytes = b"") -> None:
        self._start = start
        self.opened = asyncio.Event()
        self.closed = asyncio.Event()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        self.opened.set()
        yield self._start
        await asyncio.Event().wait()

    async def aclose(self) -> None:
        self.closed.set()


class Pieces(httpx.AsyncByteStream):
    """A body in pieces, and then the exception that ends it, if any."""

    def __init__(self, *pieces: bytes, then: Exception | None = None) -> None:
        self._pieces = pieces
        self._then = then
        self.taken = 0

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self._pieces:
            self.taken += 1
            yield piece
        if self._then is not None:
            raise self._then


QUICK = Timeouts(connect=0.05, write=0.05, silence=0.05, total=0.05)
