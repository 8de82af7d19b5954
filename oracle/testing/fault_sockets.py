"""The WebSocket half of the fault proxy: what a node tells is dropped, doubled, delayed, or told out of its order."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any, Protocol

import orjson
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import WebSocketException

from oracle.localnet.emulators.faults import Fault
from oracle.testing.storm import PushFault

MAX_MESSAGE_BYTES = 64 * 1024 * 1024


class Weather(Protocol):
    """What is asked of the proxy."""

    def push_fault(self, subject: str) -> Fault | None: ...

    def late_slots(self, newest: int) -> int: ...


@asynccontextmanager
async def serve_sockets(weather: Weather, upstream: str) -> AsyncIterator[str]:
    """Serve a WebSocket before `upstream` until the block ends; yields its URL."""
    open_connections: set[ServerConnection] = set()

    async def connected(connection: ServerConnection) -> None:
        open_connections.add(connection)
        try:
            await _carry(weather, connection, upstream)
        finally:
            open_connections.discard(connection)

    server = await serve(
        connected, "127.0.0.1", 0, compression=None, max_size=MAX_MESSAGE_BYTES, ping_interval=None, close_timeout=0.1
    )
    try:
        yield f"ws://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}"
    finally:
        for connection in list(open_connections):
            connection.transport.abort()
        server.close(close_connections=False)
        await server.wait_closed()


async def _carry(weather: Weather, down: ServerConnection, upstream: str) -> None:
    if weather.push_fault("connect") is not None:
        down.transport.abort()
        return
    with suppress(WebSocketException, OSError):
        async with connect(
            upstream, compression=None, max_size=MAX_MESSAGE_BYTES, ping_interval=None, close_timeout=0.1
        ) as up:
            ways = [asyncio.create_task(_asks(down, up)), asyncio.create_task(_Telling(weather, down).tell(up))]
            try:
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for way in ways:
                    way.cancel()
                await asyncio.gather(*ways, return_exceptions=True)
    # However it came to this: the other side hears no goodbye.
    down.transport.abort()


async def _asks(down: ServerConnection, up: Any) -> None:
    async for message in down:
        await up.send(message)


class _Telling:
    """The way from the node to its client, on one connection."""

    def __init__(self, weather: Weather, down: ServerConnection) -> None:
        self._weather = weather
        self._down = down
        self._newest_slot = 0
        self._behind: deque[tuple[int, str, str]] = deque()
        """What a node that is behind has not seen yet."""
        self._overtaken: list[str] = []

    async def tell(self, up: Any) -> None:
        async for message in up:
            subject, slot = _read(message)
            if slot == 0:
                await self._strike(subject, message)
                continue
            self._newest_slot = max(self._newest_slot, slot)
            self._behind.append((slot, subject, message))
            seen_slot = self._newest_slot - self._weather.late_slots(self._newest_slot)
            while self._behind and self._behind[0][0] <= seen_slot:
                _, due_subject, due = self._behind.popleft()
                await self._strike(due_subject, due)

    async def _strike(self, subject: str, message: str) -> None:
        fault = self._weather.push_fault(subject)
        if fault is not None and fault.seconds:
            await asyncio.sleep(fault.seconds)
        match None if fault is None else PushFault(fault.kind):
            case PushFault.DROP:
                return
            case PushFault.LATE:
                self._overtaken.append(message)
                return
            case PushFault.GARBLE:
                await self._down.send(message[: len(message) // 2])
            case PushFault.CUT:
                self._down.transport.abort()
                raise ConnectionAbortedError
            case PushFault.SILENCE:
                await asyncio.Event().wait()
            case PushFault.TWICE:
                await self._down.send(message)
                await self._down.send(message)
            case _:
                await self._down.send(message)
        overtaken, self._overtaken = self._overtaken, []
        for late in overtaken:
            await self._down.send(late)


def _read(message: str) -> tuple[str, int]:
    """What a message is called, and the slot that it tells of; 0 for an answer, which waits for none."""
    body = orjson.loads(message)
    if "method" not in body:
        return "answer", 0
    result = body["params"]["result"]
    if not isinstance(result, dict):
        return body["method"], result if isinstance(result, int) else 0
    slot = result["context"]["slot"] if "context" in result else result.get("slot", 0)
    return body["method"], slot
