"""Answers that are made while their client listens: given up when it leaves, kept alive while a job takes its time."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, Final, TypeVar

from starlette.responses import JSONResponse
from starlette.types import Receive, Scope, Send

from oracle.api.gateway import replies
from oracle.api.gateway.conversation import Conversation
from oracle.api.gateway.envelope import body_of, headers_of, shape_of
from oracle.api.gateway.replies import Chunks, Ended
from oracle.core.errors import OracleError

KEEP_ALIVE_SECONDS: Final = 15.0
T = TypeVar("T")
Make = Callable[["Reply"], Awaitable[None]]


class Reply:
    """The answer to one HTTP call; `begun` once its head has gone out."""

    def __init__(self, send: Send) -> None:
        self.begun = False
        self._send = send

    async def json(self, body: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> None:
        self.begun = True
        response = JSONResponse(body, status, dict(headers or {}))
        await self._send({"type": "http.response.start", "status": status, "headers": response.raw_headers})
        await self._send({"type": "http.response.body", "body": response.body})

    async def error(self, error: OracleError) -> None:
        await self.json(body_of(error), shape_of(error).status, headers_of(error))

    async def begin_events(self, headers: Mapping[str, str]) -> None:
        self.begun = True
        fields = {
            "content-type": "text/event-stream; charset=utf-8",
            "cache-control": "no-store",
            # nginx would gather the pieces, and so defeat their purpose.
            "x-accel-buffering": "no",
            **headers,
        }
        raw = [(name.lower().encode(), value.encode()) for name, value in fields.items()]
        await self._send({"type": "http.response.start", "status": 200, "headers": raw})

    async def events(self, data: bytes) -> None:
        await self._send({"type": "http.response.body", "body": data, "more_body": True})

    async def end_events(self) -> None:
        await self._send({"type": "http.response.body", "body": b""})


class WhileConnected:
    """An ASGI answer. `make` is cancelled, and its end waited for, when the client closes the connection."""

    def __init__(self, make: Make) -> None:
        self._make = make

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        reply = Reply(send)
        making = asyncio.ensure_future(self._made(reply))
        leaving = asyncio.ensure_future(_left(receive))
        try:
            await asyncio.wait((making, leaving), return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (making, leaving):
                task.cancel()
            # Not gather: who cancels us must not cut the end of what is being made.
            await asyncio.wait((making, leaving))
        if not making.cancelled():
            making.result()

    async def _made(self, reply: Reply) -> None:
        try:
            await self._make(reply)
        except OracleError as error:
            if not reply.begun:
                await reply.error(error)
            else:
                await reply.events(replies.event(body_of(error)))
                await reply.end_events()


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def whole(reply: Reply, conversation: Conversation, created: int) -> None:
    """A chat answer in one piece."""
    async with contextlib.aclosing(conversation.answer()) as items:
        async for item in items:
            if isinstance(item, Ended):
                body = replies.completion(conversation.call.id, created, conversation.call.model, item)
                await reply.json(body, headers=headers_for(conversation))


async def streamed(reply: Reply, conversation: Conversation, created: int, *, include_usage: bool) -> None:
    """A chat answer as events. What goes wrong before the first piece is still an error with a status of its own."""
    chunks = Chunks(conversation.call.id, created, conversation.call.model, include_usage=include_usage)
    spoken = False
    async with contextlib.aclosing(conversation.answer()) as items, contextlib.aclosing(patient(items)) as waiting:
        async for item in waiting:
            if not reply.begun:
                await reply.begin_events(headers_for(conversation))
            if item is None:
                await reply.events(replies.KEEP_ALIVE)
                continue
            if not spoken:
                spoken = True
                await reply.events(chunks.role())
                if isinstance(item, Ended):
                    await reply.events(chunks.text(item.text))
            if isinstance(item, Ended):
                await reply.events(b"".join(chunks.end(item)))
            else:
                await reply.events(chunks.text(item))
    await reply.end_events()


async def patient(items: AsyncIterator[T]) -> AsyncGenerator[T | None, None]:
    """The items, and None whenever the first of them lets itself be waited for."""
    first = asyncio.ensure_future(anext(items, None))
    try:
        while not (await asyncio.wait((first,), timeout=KEEP_ALIVE_SECONDS))[0]:
            yield None
    finally:
        if not first.done():
            first.cancel()
            await asyncio.wait((first,))
    if (item := first.result()) is not None:
        yield item
        async for item in items:
            yield item


def headers_for(conversation: Conversation) -> dict[str, str]:
    return {} if conversation.request is None else {"X-Oracle-Request": conversation.request}
