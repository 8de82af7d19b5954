"""The subscription protocol of a node without its socket: who listens to what, and what a message means for them.

Source of the wire format: solana.com/docs/rpc/websocket.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any, Final, Generic, TypeVar

import orjson

from oracle.chain.notices import Connected, Disconnected
from oracle.chain.rpc.errors import SUBSCRIPTION_LOST

N = TypeVar("N")

_BACKLOG: Final = 4096
_EARLY: Final = 1024


class Subscription(Generic[N]):
    """A stream of `Connected`, `Disconnected` and notices. Leave it with `close`, or use it in `with`.

    A reader that falls behind by thousands of events loses them, and hears `Disconnected`, `Connected`.
    """

    def __init__(self, leave: Callable[[], None]) -> None:
        self._leave = leave
        self._backlog: deque[Connected | Disconnected | N] = deque()
        self._arrived = asyncio.Event()
        self._closed = False

    def __aiter__(self) -> Subscription[N]:
        return self

    async def __anext__(self) -> Connected | Disconnected | N:
        while not self._backlog:
            if self._closed:
                raise StopAsyncIteration
            self._arrived.clear()
            await self._arrived.wait()
        return self._backlog.popleft()

    def __enter__(self) -> Subscription[N]:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the stream; what has arrived can still be read."""
        self._closed = True
        self._arrived.set()
        self._leave()

    def put(self, event: Connected | Disconnected | N) -> None:
        if len(self._backlog) >= _BACKLOG:
            self._backlog.clear()
            self._backlog.extend((Disconnected("the reader fell behind"), Connected()))
        self._backlog.append(event)
        self._arrived.set()


@dataclass(eq=False, slots=True)
class Feed:
    """One question to the node, and those who listen to its answers.

    A node gives the same subscription id to the same question asked twice on a connection, tells it once, and forgets
    it at the first unsubscribe (Agave `rpc_subscription_tracker.rs`). So whoever asks the same shares one feed.
    """

    topic: str
    params: list[Any]
    read: Callable[[Any], Any]
    once: bool = False
    listeners: list[Subscription[Any]] = field(default_factory=list)
    is_left: bool = False

    @property
    def key(self) -> Hashable:
        return self.topic, orjson.dumps(self.params)

    def put(self, event: Any) -> None:
        for listener in self.listeners:
            listener.put(event)

    def end(self) -> None:
        for listener in list(self.listeners):
            listener.close()


class Connection:
    """The feeds on one connection. It speaks through `send` and is told what to `hear`; times are monotonic seconds."""

    def __init__(self, send: Callable[[bytes], None], *, ack_seconds: float) -> None:
        self._send = send
        self._ack_seconds = ack_seconds
        self._ids = itertools.count(1)
        self._asked: dict[Any, tuple[Feed, float]] = {}
        self._live: dict[Any, Feed] = {}
        self._early: deque[tuple[Any, Any]] = deque(maxlen=_EARLY)

    @property
    def is_complete(self) -> bool:
        """Whether the node has acknowledged every subscription."""
        return not self._asked

    def subscribe(self, feed: Feed, now: float) -> None:
        """Ask for the feed; one that is live already is told so, and one that was asked for is waited for."""
        if any(live is feed for live in self._live.values()):
            feed.listeners[-1].put(Connected())
        elif not any(asked is feed for asked, _ in self._asked.values()):
            self._asked[self._ask(f"{feed.topic}Subscribe", feed.params)] = (feed, now + self._ack_seconds)

    def leave(self, feed: Feed) -> None:
        """Nobody listens any more. A feed that is still to be acknowledged is given up when it is."""
        feed.is_left = True
        for number in [number for number, live in self._live.items() if live is feed]:
            self._give_up(feed, number)

    def demand_acks(self, now: float) -> None:
        """Raise ORC-RPC-017 if the node has left a subscription unanswered for too long."""
        if any(now > until for _, until in self._asked.values()):
            raise SUBSCRIPTION_LOST("subscriptions are not acknowledged")

    def hear(self, message: bytes | str) -> None:
        """Take in a message. Raises ValueError, TypeError or AttributeError where it makes no sense; the connection is
        still good then. Raises ORC-RPC-017 where the node refuses a lasting subscription."""
        body = orjson.loads(message)
        if body.get("id") is not None:
            if (asked := self._asked.pop(body["id"], None)) is not None:
                self._answered(asked[0], body)
            return
        params = body.get("params")
        if isinstance(params, dict):
            self._notified(params.get("subscription"), params.get("result"))

    def _answered(self, feed: Feed, answer: dict[str, Any]) -> None:
        number = answer.get("result")
        if not isinstance(number, int | str):
            if not feed.once:
                raise SUBSCRIPTION_LOST(f"{feed.topic}Subscribe was refused: {answer.get('error')}")
            feed.put(Disconnected("the node refused it"))
            feed.end()
            return
        self._live[number] = feed
        if feed.is_left:
            self._give_up(feed, number)
            return
        feed.put(Connected())
        early, self._early = self._early, deque(maxlen=_EARLY)
        for early_number, result in early:
            self._notified(early_number, result)

    def _notified(self, number: Any, result: Any) -> None:
        feed = self._live.get(number)
        if feed is None:
            if self._asked:  # a notice may overtake the acknowledgement that says whose it is
                self._early.append((number, result))
            return
        feed.put(feed.read(result))
        if feed.once:
            del self._live[number]
            feed.end()

    def _give_up(self, feed: Feed, number: Any) -> None:
        del self._live[number]
        again = (asked for asked, _ in self._asked.values())
        if not any(other.key == feed.key for other in again):
            self._ask(f"{feed.topic}Unsubscribe", [number])

    def _ask(self, method: str, params: list[Any]) -> int:
        identifier = next(self._ids)
        self._send(orjson.dumps({"jsonrpc": "2.0", "id": identifier, "method": method, "params": params}))
        return identifier
