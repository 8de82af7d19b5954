"""Nodes that answer from a script, in place of the wire: no sockets, no time."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from json import dumps
from typing import Any

import orjson
from solders.hash import Hash

from oracle.chain.rpc.connection import Answer as HttpAnswer
from oracle.chain.rpc.pool import EndpointConfig, Pool

GENESIS = str(Hash.new_unique())
KEY = "0123456789abcdef-api-key"

Answer = Callable[[str, list[Any]], Any]


def http_answer(
    status: int, *, content: bytes = b"", text: str = "", json: Any = None, headers: Mapping[str, str] | None = None
) -> HttpAnswer:
    body = content or text.encode() or (b"" if json is None else dumps(json).encode())
    return HttpAnswer(status, {k.encode(): v.encode() for k, v in (headers or {}).items()}, [body])


class NodeError(Exception):
    """Answered as a JSON-RPC error."""

    def __init__(self, code: int, message: str = "no", data: Any = None) -> None:
        super().__init__(message)
        self.body = {"code": code, "message": message} | ({} if data is None else {"data": data})


class Node:
    """One scripted node. `script` maps a method to its result, to a callable over the params, or to an exception.

    A result may be an `http_answer`, given as it is; an exception may be one of the wire's own.
    """

    def __init__(self, **script: Any) -> None:
        self.script: dict[str, Any] = {"getGenesisHash": GENESIS, "getSlot": 100, **script}
        self.calls: list[tuple[str, list[Any]]] = []

    def asked(self, method: str) -> int:
        return sum(1 for called, _ in self.calls if called == method)

    async def post(self, body: bytes, *, most_bytes: int, seconds: float) -> HttpAnswer:
        asked = orjson.loads(body)
        self.calls.append((asked["method"], asked["params"]))
        answer = self.script[asked["method"]]
        try:
            if callable(answer):
                answer = answer(*asked["params"])
            if isinstance(answer, Awaitable):
                answer = await answer
            if isinstance(answer, Exception):
                raise answer
        except NodeError as error:
            return http_answer(200, json={"jsonrpc": "2.0", "id": asked["id"], "error": error.body})
        if isinstance(answer, HttpAnswer):
            return answer
        return http_answer(200, json={"jsonrpc": "2.0", "id": asked["id"], "result": answer})

    async def close(self) -> None:
        pass


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
    wires = iter(nodes)
    return Pool(
        [EndpointConfig(f"http://127.0.0.{n}:8899/{KEY}") for n in range(1, len(nodes) + 1)],
        wire=lambda: next(wires),
        now=lambda: clock.now,
        sleep=clock.sleep,
        jitter=lambda: 0.0,
        **options,
    )
