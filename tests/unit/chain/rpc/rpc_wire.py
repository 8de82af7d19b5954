"""Nodes that answer from a script, below httpx: no sockets, no time."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import orjson
from solders.hash import Hash

from oracle.chain.rpc.pool import EndpointConfig, Pool

GENESIS = str(Hash.new_unique())
KEY = "0123456789abcdef-api-key"

Answer = Callable[[str, list[Any]], Any]


class NodeError(Exception):
    """Answered as a JSON-RPC error."""

    def __init__(self, code: int, message: str = "no", data: Any = None) -> None:
        super().__init__(message)
        self.body = {"code": code, "message": message} | ({} if data is None else {"data": data})


class Node:
    """One scripted node. `script` maps a method to its result, to a callable over the params, or to an exception.

    A result may be an `httpx.Response`, sent as it is.
    """

    def __init__(self, **script: Any) -> None:
        self.script: dict[str, Any] = {"getGenesisHash": GENESIS, "getSlot": 100, **script}
        self.calls: list[tuple[str, list[Any]]] = []
        self.urls: list[str] = []
        self.headers: list[httpx.Headers] = []

    def asked(self, method: str) -> int:
        return sum(1 for called, _ in self.calls if called == method)

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        body = orjson.loads(request.content)
        self.calls.append((body["method"], body["params"]))
        self.urls.append(str(request.url))
        self.headers.append(request.headers)
        answer = self.script[body["method"]]
        try:
            if callable(answer):
                answer = answer(*body["params"])
            if isinstance(answer, Awaitable):
                answer = await answer
            if isinstance(answer, Exception):
                raise answer
        except NodeError as error:
            return httpx.Response(200, json={"jsonrpc": "2.0", "id": body["id"], "error": error.body})
        if isinstance(answer, httpx.Response):
            return answer
        return httpx.Response(200, json={"jsonrpc": "2.0", "id": body["id"], "result": answer})

    @property
    def wire(self) -> httpx.MockTransport:
        return httpx.MockTransport(self)


class Clock:
    """Seconds that pass only when somebody sleeps."""

    def __init__(self) -> None:
        self.now = 1_000.0
        self.slept: list[float] = []

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


def in_context(slot: int, value: Any) -> dict[str, Any]:
    return {"context": {"slot": slot}, "value": value}


def pool_of(*nodes: Node, clock: Clock | None = None, **options: Any) -> Pool:
    """A pool over scripted nodes, without rate limits, whose time is `clock`'s."""
    clock = clock or Clock()
    wires = iter([node.wire for node in nodes])
    return Pool(
        [EndpointConfig(f"http://127.0.0.{n}:8899/{KEY}") for n in range(1, len(nodes) + 1)],
        wire=lambda: next(wires),
        now=lambda: clock.now,
        sleep=clock.sleep,
        jitter=lambda: 0.0,
        **options,
    )
