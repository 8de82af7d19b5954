"""Runs an emulator on loopback: calls are logged, faults strike before or after the provider's own code, admin routes.

Admin, without a key: `GET|POST|DELETE /_emulator/faults`, `GET /_emulator/books`, `GET /_emulator/calls`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

import orjson
import uvicorn
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from oracle.localnet.emulators.faults import Fault, Faults, Wire, parse_faults

GATEWAY_PAGE = (
    "<html><head><title>{status} Bad Gateway</title></head><body><center><h1>{status} Bad Gateway</h1></center>"
    "<hr><center>cloudflare</center></body></html>"
)
_CALLS_KEPT = 100_000


class Emulator(Protocol):
    """What `serve` runs."""

    faults: Faults

    def routes(self) -> ASGIApp:
        """The provider's own API."""

    def canonical_path(self, path: str) -> str:
        """The path without what the provider allows in front of it and behind it, as faults name it."""

    def refusal(self, fault: Fault) -> Response:
        """The provider's own answer for `error`, `rate_limit`, `unauthorized` and `out_of_credits`."""

    def books(self) -> Mapping[str, Any]:
        """Everything that was bought, as JSON values."""

    async def start(self) -> None:
        """Takes up what an earlier run with the same state directory left unfinished."""

    async def close(self) -> None:
        """Ends what runs in the background."""


class CutConnection(Exception):
    """Raised by an emulator in the middle of an answer: what was sent so far arrives, then the connection ends."""


@dataclass(frozen=True, slots=True)
class Call:
    """One HTTP call that came in. `status` is None where no answer was sent, `fault` is the kind that struck."""

    method: str
    path: str
    status: int | None
    fault: str | None


@dataclass(frozen=True, slots=True)
class Running:
    """An emulator that listens at `url` (no slash at the end)."""

    url: str
    calls: deque[Call]


@contextlib.asynccontextmanager
async def serve(emulator: Emulator, *, host: str = "127.0.0.1", port: int = 0) -> AsyncIterator[Running]:
    """Serves one emulator inside the running loop until the block ends; port 0 takes a free one."""
    connections: dict[_Peer, _Connection] = {}
    calls: deque[Call] = deque(maxlen=_CALLS_KEPT)

    class Tracked(H11Protocol):
        """The HTTP protocol, with its connections known by peer: a fault must be able to cut one."""

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            connections[transport.get_extra_info("peername")[:2]] = _Connection(transport)

        def connection_lost(self, exc: Exception | None) -> None:
            super().connection_lost(exc)
            connections.pop(self.transport.get_extra_info("peername")[:2]).gone.set()

    config = uvicorn.Config(
        _FaultLayer(emulator, connections, calls),
        server_header=False,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        timeout_keep_alive=300,  # a connection that ends while it is used again must be a fault that somebody set
    )
    config.load()
    # uvicorn's protocol without its Server: no signal handlers, and no main loop whose tick would cost 0.1 s a stop.
    state = ServerState()
    listener = await asyncio.get_running_loop().create_server(
        lambda: Tracked(config=config, server_state=state, app_state={}), host, port, backlog=1024
    )
    await emulator.start()
    try:
        yield Running(f"http://{host}:{listener.sockets[0].getsockname()[1]}", calls)
    finally:
        listener.close()
        for connection in list(connections.values()):
            connection.transport.abort()
            await connection.gone.wait()
        for task in state.tasks:
            task.cancel()
        await asyncio.gather(*state.tasks, return_exceptions=True)
        await emulator.close()


_Peer = tuple[str, int]


@dataclass(frozen=True, slots=True)
class _Connection:
    transport: asyncio.Transport
    gone: asyncio.Event = field(default_factory=asyncio.Event)


class _FaultLayer:
    """The outermost ASGI layer: admin routes, faults, the log of calls, then the emulator."""

    def __init__(self, emulator: Emulator, connections: Mapping[_Peer, _Connection], calls: deque[Call]) -> None:
        self._emulator = emulator
        self._routes = emulator.routes()
        self._connections = connections
        self._calls = calls

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http"
        if scope["path"].startswith("/_emulator/"):
            await self._admin(scope, receive, send)
            return
        path = self._emulator.canonical_path(scope["path"])
        scope = {**scope, "path": path, "raw_path": path.encode()}
        fault = self._emulator.faults.take("http", f"{scope['method']} {path}") or _asked_for(scope)
        watched = _Watched(send)
        try:
            if fault is None:
                await self._routes(scope, receive, watched)
            else:
                await self._strike(fault, scope, receive, watched)
        except CutConnection:
            await self._cut(scope)
        except asyncio.CancelledError:
            pass  # only `serve` cancels a call, when it ends; the connection is gone by then
        finally:
            self._calls.append(Call(scope["method"], path, watched.status, fault.kind if fault else None))

    async def _strike(self, fault: Fault, scope: Scope, receive: Receive, send: Send) -> None:
        if fault.seconds:
            await asyncio.sleep(fault.seconds)
        match Wire(fault.kind):
            case Wire.SLOW:
                await self._routes(scope, receive, send)
            case Wire.HANG:
                while (await receive())["type"] != "http.disconnect":
                    pass
            case Wire.DROP:
                await self._cut(scope)
            case Wire.LOSE_ANSWER:
                await self._answer_to(scope, receive)
                await self._cut(scope)
            case Wire.TRUNCATE:
                start, body = await self._answer_to(scope, receive)
                await send(_with_length(start, len(body)))
                await send({"type": "http.response.body", "body": body[: len(body) // 2], "more_body": True})
                await self._cut(scope)
            case Wire.MALFORMED:
                start, body = await self._answer_to(scope, receive)
                await _send_whole(send, start, body[: len(body) // 2])
            case Wire.TWICE:
                request = await _read(receive)
                await self._answer_to(scope, _replay(request))
                await _send_whole(send, *await self._answer_to(scope, _replay(request)))
            case Wire.HTML:
                status = fault.status or 502
                await HTMLResponse(GATEWAY_PAGE.format(status=status), status)(scope, receive, send)
            case Wire.ERROR | Wire.RATE_LIMIT | Wire.UNAUTHORIZED | Wire.OUT_OF_CREDITS:
                await self._emulator.refusal(fault)(scope, receive, send)

    async def _answer_to(self, scope: Scope, receive: Receive) -> tuple[Message, bytes]:
        """Lets the emulator do the work and keeps its answer here."""
        kept: list[Message] = []

        async def keep(message: Message) -> None:
            kept.append(message)

        await self._routes(scope, receive, keep)
        return kept[0], b"".join(message.get("body", b"") for message in kept[1:])

    async def _cut(self, scope: Scope) -> None:
        """Closes the connection, then waits until the server knows: else it would answer 500 for us."""
        if (connection := self._connections.get(scope["client"])) is not None:
            connection.transport.close()
            await connection.gone.wait()

    async def _admin(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        match (request.method, scope["path"]):
            case ("GET", "/_emulator/faults"):
                response: Response = JSONResponse(self._emulator.faults.report())
            case ("POST", "/_emulator/faults"):
                response = await self._set_faults(request)
            case ("DELETE", "/_emulator/faults"):
                self._emulator.faults.clear()
                response = JSONResponse([])
            case ("GET", "/_emulator/books"):
                response = JSONResponse(self._emulator.books())
            case ("GET", "/_emulator/calls"):
                response = JSONResponse([asdict(call) for call in self._calls])
            case _:
                response = JSONResponse({"error": "no such admin route"}, 404)
        await response(scope, receive, send)

    async def _set_faults(self, request: Request) -> Response:
        # Any page in a browser may post text to loopback; only this content type makes it ask first.
        if request.headers.get("content-type", "").split(";")[0] != "application/json":
            return JSONResponse({"error": "faults are application/json"}, 415)
        try:
            for fault in parse_faults(orjson.loads(await request.body())):
                self._emulator.faults.add(fault)
        except ValueError as error:
            return JSONResponse({"error": str(error)}, 400)
        return JSONResponse(self._emulator.faults.report())


class _Watched:
    """A send that remembers the status."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.status: int | None = None

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
        await self._send(message)


def _asked_for(scope: Scope) -> Fault | None:
    """The fault that a test asks for in the call itself, `x-standin-fault: <kind>` (ionet.md §7)."""
    for name, value in scope["headers"]:
        if name == b"x-standin-fault" and value.decode("latin-1") in set(Wire):
            return Fault(value.decode("latin-1"))
    return None


async def _read(receive: Receive) -> bytes:
    body = b""
    while True:
        message = await receive()
        body += bytes(message.get("body", b""))
        if message["type"] == "http.disconnect" or not message.get("more_body", False):
            return body


def _replay(body: bytes) -> Receive:
    async def receive() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    return receive


async def _send_whole(send: Send, start: Message, body: bytes) -> None:
    await send(_with_length(start, len(body)))
    await send({"type": "http.response.body", "body": body})


def _with_length(start: Message, length: int) -> Message:
    headers = [(name, value) for name, value in start["headers"] if name != b"content-length"]
    return {**start, "headers": [*headers, (b"content-length", str(length).encode())]}
