"""Serves a chain over HTTP and WebSocket, as a validator does: both on one port, the WebSocket also on the next.

    async with serve(Chain(seed=seed, now=time.time)) as node:
        client = AsyncClient(node.rpc_url)
        await node.call(lambda chain: chain.fund(address, 10**9))

The chain, with LiteSVM inside, lives on one thread of its own while it is served: reach it by `node.call`.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TypeVar

import uvicorn
from solders.transaction import VersionedTransaction
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from oracle.localnet.chain import Chain
from oracle.localnet.errors import PORTS_TAKEN
from oracle.localnet.rpc.dispatch import handle
from oracle.localnet.rpc.subscriptions import Hub

MAX_UNREAD_MESSAGES = 10_000
MAX_MESSAGE_BYTES = 16 * 1024 * 1024
_PORT_ATTEMPTS = 100

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Node:
    """A chain that is being served."""

    host: str
    port: int
    _chain: Chain
    _owner: ThreadPoolExecutor

    @property
    def rpc_url(self) -> str:
        return f"http://{self.host}:{self.port}"

    @property
    def ws_url(self) -> str:
        return f"ws://{self.host}:{self.port + 1}"

    @property
    def kept_slots(self) -> int:
        """How many slots late the chain can be seen; see `Config.kept_slots`."""
        return self._chain.config.kept_slots

    async def call(self, do: Callable[[Chain], Result]) -> Result:
        """Runs `do` on the chain's thread, between requests."""
        return await asyncio.get_running_loop().run_in_executor(self._owner, do, self._chain)

    async def advance(self, slots: int = 1) -> None:
        """Lets slots pass at once, whatever the clock says."""
        await self.call(lambda chain: chain.advance(slots))

    async def fork(self, slots: int) -> list[VersionedTransaction]:
        """Drops the last slots; see `Chain.fork`."""
        return await self.call(lambda chain: chain.fork(slots))


@asynccontextmanager
async def serve(
    chain: Chain, host: str = "127.0.0.1", port: int = 0, *, slot_seconds: float | None = 0.4
) -> AsyncIterator[Node]:
    """Serves `chain` until the block is left. Port 0 takes any two free neighbours.

    A slot passes every `slot_seconds`; `None` lets none pass but by `Node.advance`. A process that was stopped for a
    while continues with the next slot, like a cluster that was halted. Raises `PORTS_TAKEN`. The chain is not closed.
    """
    with (
        ThreadPoolExecutor(1, thread_name_prefix="chain") as owner,
        contextlib.ExitStack() as stack,
    ):
        sockets = [stack.enter_context(contextlib.closing(one)) for one in _bind(host, port)]
        node = Node(host, sockets[0].getsockname()[1], chain, owner)
        server = _Server(
            uvicorn.Config(
                _app(node),
                log_config=None,
                access_log=False,
                lifespan="off",
                ws="websockets-sansio",
                ws_max_size=MAX_MESSAGE_BYTES,
                ws_per_message_deflate=False,
                timeout_graceful_shutdown=1,
            )
        )
        async with _running(server, sockets), _passing_slots(node, slot_seconds):
            yield node


@asynccontextmanager
async def _running(server: _Server, sockets: list[socket.socket]) -> AsyncIterator[None]:
    serving = asyncio.create_task(server.serve(sockets=sockets), name="chain-server")
    serving.add_done_callback(lambda _: server.listening.set())
    await server.listening.wait()
    try:
        yield
    finally:
        server.stopping.set()
        await serving


@asynccontextmanager
async def _passing_slots(node: Node, slot_seconds: float | None) -> AsyncIterator[None]:
    clock = asyncio.create_task(_pass_slots(node, slot_seconds), name="chain-clock")
    try:
        yield
    finally:
        clock.cancel()
        (ended,) = await asyncio.gather(clock, return_exceptions=True)
        # A chain whose slots had stopped would look to its users like a cluster that never confirms.
        if isinstance(ended, Exception):
            raise ended


async def _pass_slots(node: Node, slot_seconds: float | None) -> None:
    if slot_seconds is None:
        return
    due = time.monotonic()
    while True:
        due = max(due + slot_seconds, time.monotonic())
        await asyncio.sleep(due - time.monotonic())
        await node.advance()


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listening = asyncio.Event()
        self.stopping = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.listening.set()

    async def main_loop(self) -> None:
        # Uvicorn's own looks ten times a second whether it should end, which every test would wait for.
        await self.stopping.wait()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        # SIGINT and SIGTERM belong to whoever runs us.
        yield


def _app(node: Node) -> Starlette:
    hub = Hub(node._chain)

    async def post(request: Request) -> Response:
        body = await request.body()
        answer = await node.call(lambda chain: handle(chain, body))
        return Response(answer or b"", media_type="application/json")

    async def health(_: Request) -> Response:
        return PlainTextResponse("ok")

    async def websocket(ws: WebSocket) -> None:
        await _converse(node, hub, ws)

    return Starlette(
        routes=[Route("/", post, methods=["POST"]), Route("/health", health), WebSocketRoute("/", websocket)],
        middleware=[Middleware(CORSMiddleware, allow_origins=["*"], allow_methods=["*"], allow_headers=["*"])],
    )


async def _converse(node: Node, hub: Hub, ws: WebSocket) -> None:
    await ws.accept()
    outbox = Outbox(asyncio.get_running_loop())
    session = await node.call(lambda _: hub.open(outbox.post))
    writer = asyncio.create_task(_write(ws, outbox))
    try:
        while (message := await ws.receive())["type"] != "websocket.disconnect":
            text = message.get("text")
            body: bytes = message.get("bytes") or b"" if text is None else text.encode()
            await node.call(lambda _: session.receive(body))  # noqa: B023 (awaited before the next turn)
    finally:
        writer.cancel()
        await node.call(lambda _: hub.close(session))


async def _write(ws: WebSocket, outbox: Outbox) -> None:
    with contextlib.suppress(WebSocketDisconnect, RuntimeError):
        while (message := await outbox.get()) is not None:
            await ws.send_text(message.decode())
        await ws.close(1013, "too slow a reader")


class Outbox:
    """Messages on their way from the chain's thread to a client; one that does not read is given up."""

    def __init__(self, loop: asyncio.AbstractEventLoop, limit: int = MAX_UNREAD_MESSAGES) -> None:
        self._loop = loop
        self._limit = limit
        self._messages: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._is_full = False

    def post(self, message: bytes) -> None:
        """Adds a message, from any thread."""
        # The loop may be gone while the last slot is still being told about.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._put, message)

    async def get(self) -> bytes | None:
        """The next message; `None` when the client has been given up."""
        return await self._messages.get()

    def _put(self, message: bytes) -> None:
        if self._is_full:
            return
        self._is_full = self._messages.qsize() >= self._limit
        if self._is_full:
            while not self._messages.empty():
                self._messages.get_nowait()
        self._messages.put_nowait(None if self._is_full else message)


def _bind(host: str, port: int) -> list[socket.socket]:
    for _ in range(_PORT_ATTEMPTS if port == 0 else 1):
        with contextlib.ExitStack() as stack, contextlib.suppress(OSError, OverflowError):
            first = stack.enter_context(socket.create_server((host, port)))
            second = socket.create_server((host, first.getsockname()[1] + 1))
            stack.pop_all()
            for one in (first, second):
                # asyncio does this for sockets that were made with the number of TCP, as these were not. Without it
                # every answer waits 40 ms for the client's delayed acknowledgement.
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return [first, second]
    raise PORTS_TAKEN(f"{host}:{port} and the next")
