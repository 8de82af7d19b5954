"""A WebSocket that ends in the test: what is sent can be read, what arrives is said, and a cut is a cut."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import orjson
from websockets.exceptions import ConnectionClosedError

from oracle.chain.ws import PubSub


class Line:
    """One connection. It acknowledges subscriptions by itself, unless told not to."""

    def __init__(self, url: str, *, acknowledge: bool) -> None:
        self.url = url
        self.asked: list[tuple[int, str, list[Any]]] = []
        self.acknowledge = acknowledge
        self.ids: dict[str, int] = {}
        self._incoming: asyncio.Queue[str | bytes | Exception] = asyncio.Queue()

    async def send(self, message: str) -> None:
        body = orjson.loads(message)
        self.asked.append((body["id"], body["method"], body["params"]))
        if self.acknowledge:
            self.ack(len(self.asked) - 1)

    def ack(self, position: int) -> None:
        """The same question has the same number, as on a validator."""
        identifier, method, params = self.asked[position]
        if method.endswith("Unsubscribe"):
            self.say({"jsonrpc": "2.0", "id": identifier, "result": True})
            return
        number = self.ids.setdefault(method + repr(params), 100 + len(self.ids))
        self.say({"jsonrpc": "2.0", "id": identifier, "result": number})

    async def recv(self) -> str | bytes:
        message = await self._incoming.get()
        if isinstance(message, Exception):
            raise message
        return message

    def say(self, message: Any) -> None:
        self._incoming.put_nowait(message if isinstance(message, str | bytes) else orjson.dumps(message))

    def cut(self) -> None:
        self._incoming.put_nowait(ConnectionClosedError(None, None))

    def methods(self) -> list[str]:
        return [method for _, method, _ in self.asked]

    def notify(self, topic: str, result: Any, number: Any = None) -> None:
        if number is None:
            (number,) = [n for question, n in self.ids.items() if question.startswith(topic + "Subscribe")]
        params = {"subscription": number, "result": result}
        self.say({"jsonrpc": "2.0", "method": f"{topic}Notification", "params": params})


class Exchange:
    """Hands a `Line` to each connection that is made."""

    def __init__(self, *, acknowledge: bool = True) -> None:
        self.lines: list[Line] = []
        self.refusals: list[Exception] = []
        self.acknowledge = acknowledge
        self.slept: list[float] = []

    @asynccontextmanager
    async def dial(self, url: str) -> AsyncIterator[Line]:
        if self.refusals:
            raise self.refusals.pop(0)
        line = Line(url, acknowledge=self.acknowledge)
        self.lines.append(line)
        yield line

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        await asyncio.sleep(0)

    def pubsub(self, *urls: str, **options: Any) -> PubSub:
        return PubSub(urls or ["ws://node"], dial=self.dial, sleep=self.sleep, jitter=lambda: 0.0, **options)


@asynccontextmanager
async def running(task: Awaitable[Any]) -> AsyncIterator[asyncio.Task[Any]]:
    """Runs a loop for as long as the test needs it; what it raises by itself fails the test."""
    loop = asyncio.ensure_future(task)
    try:
        yield loop
    finally:
        loop.cancel()
        (outcome,) = await asyncio.gather(loop, return_exceptions=True)
        assert outcome is None or isinstance(outcome, asyncio.CancelledError), outcome


async def until(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    """Return when the condition holds; fail if it never does."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - a condition of any kind has no event
            await asyncio.sleep(0)
