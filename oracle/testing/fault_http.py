"""One HTTP call through the fault proxy: what it asks, and how it is answered."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import httpx
import orjson
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.types import Message, Receive, Scope, Send

from oracle.localnet.emulators.faults import Fault
from oracle.localnet.emulators.server import GATEWAY_PAGE, CutConnection
from oracle.testing import fault_lies
from oracle.testing.storm import CallFault

_HOP_BY_HOP = frozenset({"host", "connection", "content-length", "transfer-encoding", "accept-encoding", "keep-alive"})


class Incoming:
    """One HTTP call. `envelope` is its JSON-RPC request, empty where it is none."""

    def __init__(self, method: str, target: str, headers: Mapping[str, str], body: bytes) -> None:
        self.method, self.target, self.headers, self.body = method, target, headers, body
        self.envelope: dict[str, Any] = {}
        try:
            parsed = orjson.loads(body) if method == "POST" else None
        except orjson.JSONDecodeError:
            parsed = None
        if isinstance(parsed, dict) and "jsonrpc" in parsed and isinstance(parsed.get("method"), str):
            self.envelope = parsed

    @classmethod
    async def of(cls, scope: Scope, receive: Receive) -> Incoming:
        """Read it whole. Raises `CutConnection` where its caller leaves meanwhile."""
        request = Request(scope, receive)
        try:
            body = await request.body()
        except ClientDisconnect:
            raise CutConnection from None
        return cls(scope["method"], _target(scope), _headers(request), body)

    @property
    def is_rpc(self) -> bool:
        return bool(self.envelope)

    @property
    def subject(self) -> str:
        return str(self.envelope["method"]) if self.is_rpc else f"{self.method} {self.target.partition('?')[0]}"

    @property
    def reads(self) -> bool:
        return self.is_rpc and not self.subject.startswith(("send", "request"))

    @property
    def transaction(self) -> str:
        """The bytes of a transaction that is to be sent, as they stand in the call."""
        params = self.envelope.get("params") if self.subject == "sendTransaction" else None
        return str(params[0]) if isinstance(params, list) and params else ""


@dataclass(frozen=True, slots=True)
class Outgoing:
    """An answer. One that is cut arrives by half, under its full length, and then the connection ends."""

    status: int
    headers: Sequence[tuple[bytes, bytes]]
    body: bytes
    is_cut: bool = False

    async def send(self, send: Send) -> None:
        headers = [(name, value) for name, value in self.headers if name != b"content-length"]
        headers.append((b"content-length", str(len(self.body)).encode()))
        await send({"type": "http.response.start", "status": self.status, "headers": headers})
        arriving = self.body[: len(self.body) // 2] if self.is_cut else self.body
        await send({"type": "http.response.body", "body": arriving, "more_body": self.is_cut})
        if self.is_cut:
            raise CutConnection


async def refused(call: Incoming, kind: CallFault | None, fault: Fault | None) -> Outgoing:
    """The answer to a call that goes nowhere."""
    match kind:
        case CallFault.DROP:
            raise CutConnection
        case CallFault.HTML:
            status = (fault.status if fault else None) or 502
            page: Response = HTMLResponse(GATEWAY_PAGE.format(status=status), status)
        case CallFault.RATE_LIMIT:
            headers = {"retry-after": fault.retry_after} if fault and fault.retry_after is not None else None
            page = JSONResponse({"error": {"code": 429, "message": "Too many requests"}}, 429, headers)
        case _:
            return json_answer(fault_lies.taken(call.envelope))
    return Outgoing(page.status_code, page.raw_headers, bytes(page.body))


async def until_gone(receive: Receive, work: Coroutine[Any, Any, None]) -> None:
    """Do the work as long as the caller is there."""

    async def gone() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    working, leaving = asyncio.ensure_future(work), asyncio.ensure_future(gone())
    try:
        await asyncio.wait((working, leaving), return_when=asyncio.FIRST_COMPLETED)
    finally:
        leaving.cancel()
        if not working.done():
            working.cancel()
        (outcome, _) = await asyncio.gather(working, leaving, return_exceptions=True)
    if isinstance(outcome, Exception):
        raise outcome


def _target(scope: Scope) -> str:
    query = scope["query_string"].decode("latin-1")
    return str(scope["path"]) + (f"?{query}" if query else "")


def _headers(request: Request) -> dict[str, str]:
    kept = {name: value for name, value in request.headers.items() if name not in _HOP_BY_HOP}
    return {**kept, "accept-encoding": "identity"}


def answer_of(answer: httpx.Response) -> Outgoing:
    """What the other side said, whole."""
    return Outgoing(answer.status_code, _passed_on(answer), answer.content)


def start_of(answer: httpx.Response) -> Message:
    """The head of what the other side says."""
    return {"type": "http.response.start", "status": answer.status_code, "headers": _passed_on(answer)}


def json_answer(body: bytes) -> Outgoing:
    return Outgoing(200, [(b"content-type", b"application/json")], body)


def _passed_on(answer: httpx.Response) -> list[tuple[bytes, bytes]]:
    hop_by_hop = (b"transfer-encoding", b"connection")
    return [(name.lower(), value) for name, value in answer.headers.raw if name.lower() not in hop_by_hop]
