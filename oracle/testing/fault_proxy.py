"""A proxy in front of an RPC endpoint, its WebSocket, or a provider, which does to the traffic what networks do.

    async with fault_proxy(node) as proxy:                      # a node of the embedded chain, or any URL
        config = f'rpc = ["{proxy.url}"]\\nwebsocket = "{proxy.ws_url}"'
        proxy.calls.add("lose_answer", on="sendTransaction")    # the next one is sent, and its answer is lost
        proxy.calls.add("rate_limit", on="get*", count=5, retry_after="1")
        proxy.pushes.add("cut", on="programNotification")       # the socket dies instead of telling
        proxy.slots_behind = 20                                 # from here on the endpoint answers as of 20 slots ago
        proxy.storm = Storm(seed=7)                             # everything at once, until it is None again

Faults are added as for the emulators (`oracle.localnet.emulators.faults`): a kind, a glob for the calls that it is to
hit, how many pass before, and how many are hit. The kinds are `CallFault` and `PushFault` of `oracle.testing.storm`.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from typing import Any

import httpx
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from oracle.localnet.emulators.faults import Fault, Faults
from oracle.localnet.emulators.server import CutConnection
from oracle.localnet.emulators.server import serve as serve_emulator
from oracle.localnet.server import Node
from oracle.testing import fault_lies
from oracle.testing.fault_http import Incoming, Outgoing, answer_of, json_answer, refused, start_of, until_gone
from oracle.testing.fault_sockets import serve_sockets
from oracle.testing.storm import CallFault, PushFault, Storm

LATE_SECONDS = 1.0
"""The longest that a `late` answer waits for another to overtake it."""
_GOES_NOWHERE = frozenset({CallFault.HANG, CallFault.DROP, CallFault.HTML, CallFault.RATE_LIMIT, CallFault.SWALLOW})


class FaultProxy:
    """See the head of the module. `url` and `ws_url` lead through it; `ws_url` is empty where there is no WebSocket.

    `struck` counts what has happened, by kind and subject; `doubled` are the bodies that were passed on twice.
    """

    def __init__(self, upstream: str, node: Node | None) -> None:
        self.url = ""
        self.ws_url = ""
        self.calls = Faults(dict.fromkeys(CallFault, "call"))
        self.pushes = Faults(dict.fromkeys(PushFault, "push"))
        self.storm: Storm | None = None
        self.struck: Counter[tuple[str, str]] = Counter()
        self.doubled: list[bytes] = []
        self.node = node
        self._slots_behind = 0
        self._upstream = upstream.rstrip("/")
        self._http = httpx.AsyncClient(trust_env=False, timeout=None, limits=httpx.Limits(max_connections=None))
        self._seen: Counter[str] = Counter()
        self._swallowed: set[str] = set()
        self._answered = asyncio.Condition()
        self._answers = 0

    @property
    def slots_behind(self) -> int:
        """The endpoint answers as it would have so many slots ago, and so does its WebSocket.

        Embedded chain only, and no further than its `Config.kept_slots`: else setting it raises ValueError.
        """
        return self._slots_behind

    @slots_behind.setter
    def slots_behind(self, slots: int) -> None:
        if slots and not slots <= (kept := self._embedded().kept_slots):
            raise ValueError(f"the chain can be seen {kept} slots late: serve one with Config(kept_slots={slots})")
        self._slots_behind = slots

    async def fork(self, slots: int | None = None) -> None:
        """Drop the last slots of the embedded chain, or all that are not confirmed."""
        await self._embedded().call(lambda chain: fault_lies.fork(chain, slots))

    def push_fault(self, subject: str) -> Fault | None:
        """What is to befall the next WebSocket message of this kind."""
        fault = self.pushes.take("push", subject)
        if fault is None and self.storm is not None:
            fault = self.storm.push(subject, self._nth(f"push {subject}"))
        return self._noted(fault, subject)

    def late_slots(self, newest: int) -> int:
        """How many slots behind the endpoint is while `newest` is the newest."""
        if self.node is None or self.storm is None:
            return self.slots_behind
        return max(self.slots_behind, min(self.storm.behind(newest), self.node.kept_slots))

    # The call, from the top

    async def answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one call (ASGI)."""
        call = await Incoming.of(scope, receive)
        fault = self._call_fault(call)
        if fault is not None and fault.seconds:
            await asyncio.sleep(fault.seconds)
        if fault is None and not call.is_rpc:
            await until_gone(receive, self._pass_through(call, send))
        elif fault is not None and fault.kind == CallFault.HANG:
            while (await receive())["type"] != "http.disconnect":
                pass
        else:
            answer = await self._answer(call, None if fault is None else CallFault(fault.kind), fault)
            await answer.send(send)
            await self._another_is_answered()

    async def _answer(self, call: Incoming, kind: CallFault | None, fault: Fault | None) -> Outgoing:
        if kind is CallFault.SWALLOW:
            self._swallowed.add(call.transaction)
        if kind in _GOES_NOWHERE or call.transaction in self._swallowed:
            return await refused(call, kind, fault)
        if kind is CallFault.OLD_BLOCKHASH:
            body = await self._embedded().call(lambda chain: fault_lies.old_blockhash(chain, call.envelope))
            return json_answer(body)
        answer = await self._fetch(call)
        match kind:
            case CallFault.LOSE_ANSWER:
                raise CutConnection
            case CallFault.TWICE:
                self.doubled.append(call.body)
                return await self._fetch(call)
            case CallFault.LATE:
                await self._be_overtaken()
            case CallFault.MALFORMED:
                return replace(answer, body=answer.body[: len(answer.body) // 2])
            case CallFault.TRUNCATE:
                return replace(answer, is_cut=True)
            case CallFault.STATUS_FORGOTTEN | CallFault.STATUS_EARLY | CallFault.STATUS_FAILED:
                return replace(answer, body=fault_lies.about_statuses(kind, answer.body))
            case CallFault.FORK:
                await self.fork()
        return answer

    async def _fetch(self, call: Incoming) -> Outgoing:
        """The true answer, or that of some slots ago."""
        if self.node is not None and call.reads and (self.slots_behind or self.storm):
            body = await self.node.call(lambda chain: fault_lies.as_of(chain, self.late_slots, call.body))
            return json_answer(body)
        try:
            return answer_of(await self._http.send(self._request(call)))
        except httpx.TransportError as error:
            raise CutConnection from error

    async def _pass_through(self, call: Incoming, send: Send) -> None:
        """Piece by piece, so that a stream stays one."""
        try:
            answer = await self._http.send(self._request(call), stream=True)
        except httpx.TransportError as error:
            raise CutConnection from error
        try:
            await send(start_of(answer))
            async for piece in answer.aiter_raw():
                await send({"type": "http.response.body", "body": piece, "more_body": True})
            await send({"type": "http.response.body", "body": b""})
        except httpx.TransportError as error:
            raise CutConnection from error
        finally:
            await answer.aclose()

    # Small parts

    def _call_fault(self, call: Incoming) -> Fault | None:
        fault = self.calls.take("call", call.subject)
        if fault is None and self.storm is not None:
            fault = self.storm.call(call.subject, self._nth(call.subject))
            if fault is not None and self.node is None and fault.kind in (CallFault.FORK, CallFault.OLD_BLOCKHASH):
                fault = None
        return self._noted(fault, call.subject)

    def _noted(self, fault: Fault | None, subject: str) -> Fault | None:
        if fault is not None:
            self.struck[fault.kind, subject] += 1
        return fault

    def _nth(self, subject: str) -> int:
        self._seen[subject] += 1
        return self._seen[subject]

    def _request(self, call: Incoming) -> httpx.Request:
        return self._http.build_request(
            call.method, self._upstream + call.target, headers=call.headers, content=call.body
        )

    def _embedded(self) -> Node:
        if self.node is None:
            raise ValueError("only the embedded chain forks, or forgets: give the proxy its node")
        return self.node

    async def _be_overtaken(self) -> None:
        async with self._answered:
            before = self._answers
            try:
                async with asyncio.timeout(LATE_SECONDS):
                    await self._answered.wait_for(lambda: self._answers > before)
            except TimeoutError:
                return

    async def _another_is_answered(self) -> None:
        async with self._answered:
            self._answers += 1
            self._answered.notify_all()

    # What the emulators' server asks of what it serves

    faults = Faults({})

    def routes(self) -> ASGIApp:
        return self.answer

    def canonical_path(self, path: str) -> str:
        return path

    def refusal(self, fault: Fault) -> Response:
        raise AssertionError("the server of this proxy has no faults of its own")

    def books(self) -> Mapping[str, Any]:
        return {}

    async def start(self) -> None:
        return None

    async def close(self) -> None:
        await self._http.aclose()


@asynccontextmanager
async def fault_proxy(
    before: Node | str, *, websocket: str | None = None, storm: Storm | None = None
) -> AsyncIterator[FaultProxy]:
    """A proxy before a node of the embedded chain, with its WebSocket; or before the URL of any endpoint or provider.

    Raises nothing of its own: where the other side is away, connections end.
    """
    node = before if isinstance(before, Node) else None
    upstream = before.rpc_url if isinstance(before, Node) else before
    ws_upstream = node.ws_url if node is not None else websocket
    proxy = FaultProxy(upstream, node)
    proxy.storm = storm
    async with AsyncExitStack() as stack:
        proxy.url = (await stack.enter_async_context(serve_emulator(proxy))).url
        if ws_upstream is not None:
            proxy.ws_url = await stack.enter_async_context(serve_sockets(proxy, ws_upstream))
        yield proxy
