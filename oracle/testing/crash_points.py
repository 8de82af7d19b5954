"""Named points before and after every durable write and every call that leaves the daemon.

Production code has no hooks for them: the seams of a daemon are watched from outside. A name says what is done and
which function of the pipeline does it, such as `after rpc.sendTransaction settle.sign_and_send`; it is derived from the
code, so it is as stable as the names in there.
"""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from types import FunctionType
from typing import Any, Final, TypeVar, cast
from unittest.mock import patch

import httpx
from solders.pubkey import Pubkey

from oracle.chain import ws
from oracle.chain.rpc.pool import Pool
from oracle.chain.signer import Signer
from oracle.core.compute import Compute
from oracle.pipeline import charter
from oracle.pipeline.context import Context
from oracle.providers.http import Http
from oracle.store import migrate
from oracle.store.engine import Store

T = TypeVar("T")

_STORY: Final = ("oracle.pipeline.", "oracle.api.gateway.", "oracle.chain.watcher", "oracle.chain.scan")
"""Where a point gets its name from: the code that decides, not the code that carries out."""
_CARRIERS: Final = ("oracle.pipeline.context",)
_BOUGHT: Final = ("quote", "submit", "find", "poll", "fetch", "cancel")
_UNNAMED_TASK: Final = re.compile(r"Task-\d+")
_IDENTIFIER: Final = re.compile(r"[0-9]+|[0-9A-Za-z_-]{20,}")


class Points:
    """Counts how often each point is reached, and tells `on_reach` the name and the count."""

    def __init__(self, on_reach: Callable[[str, int], None]) -> None:
        self.counts: dict[str, int] = {}
        self._on_reach = on_reach

    def reach(self, name: str) -> None:
        self.counts[name] = count = self.counts.get(name, 0) + 1
        self._on_reach(name, count)

    async def around(self, name: str, call: Awaitable[T]) -> T:
        """Await `call` between the two points of its name; the second is reached however it ends."""
        self.reach(f"before {name}")
        try:
            return await call
        finally:
            self.reach(f"after {name}")


@contextmanager
def watched(points: Points) -> Iterator[None]:
    """Watch the seams of every daemon that is assembled inside: store, RPC, WebSocket, signer, and HTTP of providers,
    with the servers that they rent."""
    owners: dict[httpx.AsyncClient, str] = {}

    def connect(http: Http, provider: str, *settings: Any, **more: Any) -> None:
        connected(http, provider, *settings, **more)
        owners[http._client] = provider

    def sent_to_provider(client: httpx.AsyncClient, request: httpx.Request, *_: Any, **__: Any) -> str | None:
        provider = owners.get(client)
        return provider and f"http.{request.method} {provider} {_shape(request.url.path)}"

    def guarded(*settings: Any) -> Signer:
        return _WatchedSigner(points, guard(*settings))

    def upgrade(url: str) -> None:
        points.reach("before database.create")
        created(url)
        points.reach("after database.create")

    @asynccontextmanager
    async def dial(url: str) -> Any:
        points.reach("before ws.connect")
        async with dialled(url) as socket:
            points.reach("after ws.connect")
            yield socket

    created, dialled, connected, guard = migrate.upgrade, ws._dial, Http.__init__, charter.guarded
    with ExitStack() as stack:
        for owner, method, name in (
            (Store, "write", lambda _, work: f"store.write {_written(work)}"),
            (Store, "write_together", lambda _, work, item: f"store.write {_written(work)}"),
            (Pool, "call", lambda _, call: f"rpc.{call.method} {_site()}"),
            (Pool, "broadcast", lambda _, call: f"rpc.{call.method} {_site()}"),
            (Pool, "attempt_at", lambda _, position, call: f"rpc.{call.method} {_site()} pinned"),
            (httpx.AsyncClient, "send", sent_to_provider),
        ):
            stack.enter_context(patch.object(owner, method, _watching(points, getattr(owner, method), name)))
        stack.enter_context(patch.object(Http, "__init__", connect))
        stack.enter_context(patch.object(charter, "guarded", guarded))
        stack.enter_context(patch.object(migrate, "upgrade", upgrade))
        stack.enter_context(patch.object(ws, "_dial", dial))
        yield


def watch_providers(points: Points, context: Context) -> None:
    """Watch the providers that an assembled daemon was handed."""
    context.providers = {
        name: cast("Compute", _WatchedProvider(points, provider)) for name, provider in context.providers.items()
    }


def _watching(points: Points, method: Callable[..., Awaitable[T]], name_of: Callable[..., str | None]) -> Any:
    async def call(*args: Any, **named: Any) -> T:
        name = name_of(*args, **named)
        awaitable = method(*args, **named)
        return await (awaitable if name is None else points.around(name, awaitable))

    return call


class _WatchedProvider:
    """The provider's methods are attributes of this object itself: which protocols it implements is asked of those that
    it has, and from Python 3.12 on not of those that `__getattr__` would find."""

    def __init__(self, points: Points, provider: Compute) -> None:
        self._provider = provider
        for name in dir(provider):
            if not name.startswith("_") and callable(value := getattr(provider, name)):
                setattr(self, name, _bought(points, provider, name, value) if name in _BOUGHT else value)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._provider, name)


def _bought(points: Points, provider: Compute, name: str, method: Callable[..., Awaitable[Any]]) -> Any:
    async def call(*args: Any) -> Any:
        return await points.around(f"provider.{name} {provider.name} {_site()}", method(*args))

    return call


class _WatchedSigner:
    def __init__(self, points: Points, signer: Signer) -> None:
        self._points, self._signer = points, signer

    @property
    def public_key(self) -> Pubkey:
        return self._signer.public_key

    async def ready(self) -> None:
        await self._points.around(f"signer.ready {_site()}", self._signer.ready())

    @property
    def trouble(self) -> str | None:
        return self._signer.trouble

    async def sign(self, message: bytes, *, micro_nos: int = 0) -> bytes:
        signing = self._signer.sign(message, micro_nos=micro_nos)
        return await self._points.around(f"signer.sign {_site()}", signing)


def _written(work: Callable[..., Any]) -> str:
    """Who writes, and what: the name of the inner function, or of the query that a lambda makes."""
    inner = cast("FunctionType", work)
    label = inner.__qualname__.rpartition(".")[2]
    if label == "<lambda>":
        label = ".".join(inner.__code__.co_names[:2])
    return f"{_site()} {label}"


def _site() -> str:
    """The innermost function of the story that is waiting for this call, with its loop where many share it."""
    frame = sys._getframe(1)
    while frame.f_back is not None:
        frame = frame.f_back
        module = frame.f_globals.get("__name__", "")
        if module.startswith(_STORY) and module not in _CARRIERS:
            function = frame.f_code.co_qualname.replace(".<locals>", "").replace(".<lambda>", "")
            return f"{module.rpartition('.')[2]}.{function}{_loop() if module.endswith('.worker') else ''}"
    return "elsewhere"


def _loop() -> str:
    task = asyncio.current_task()
    name = "" if task is None else task.get_name()
    return "" if _UNNAMED_TASK.fullmatch(name) else f" for {name}"


def _shape(path: str) -> str:
    """The path with its identifiers left out."""
    return "/".join("*" if _IDENTIFIER.fullmatch(part) else part for part in path.split("/"))
