"""WebSocket subscriptions: for speed, never for truth.

A connection can die without a word, drop messages, or come back empty. So one slot subscription proves that it lives,
silence ends it, every new connection subscribes anew, and each subscriber hears `Disconnected` and `Connected` in its
stream: whatever happened before a `Connected` may have been missed, and is found by reading accounts.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import random
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import Any, Final, NoReturn, Protocol
from urllib.parse import urlsplit, urlunsplit

import structlog
from solana.rpc.commitment import Commitment, Confirmed
from solders.pubkey import Pubkey
from solders.signature import Signature
from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException

from oracle.chain import notices
from oracle.chain.notices import Connected, Disconnected, LogsNotice, ProgramNotice, SignatureNotice, SlotNotice
from oracle.chain.rpc.address import address
from oracle.chain.rpc.client import filter_params
from oracle.chain.rpc.errors import BAD_URL
from oracle.chain.rpc.types import Filter
from oracle.chain.subscriptions import Connection, Feed, Subscription
from oracle.core.backoff import backoff_seconds
from oracle.core.errors import OracleError

log = structlog.get_logger(__name__)

MAX_MESSAGE_BYTES: Final = 16 * 1024 * 1024
"""An account of 900 kB is 1.2 MB in base64; websockets closes the connection at 1 MiB unless told otherwise."""
_STEADY_SECONDS: Final = 30.0
_WEBSOCKET_SCHEMES: Final = {"http": "ws", "https": "wss"}

__all__ = [
    "Connected",
    "Disconnected",
    "LogsNotice",
    "ProgramNotice",
    "PubSub",
    "SignatureNotice",
    "SlotNotice",
    "Subscription",
    "websocket_url",
]


class Socket(Protocol):
    """The part of a WebSocket connection that is used here."""

    async def send(self, message: str) -> None: ...

    async def recv(self) -> str | bytes: ...


Dial = Callable[[str], AbstractAsyncContextManager[Socket]]


class PubSub:
    """Subscriptions over one connection at a time, kept up by `run`. With several URLs each failure moves to the next.

    `connections` counts those that were made. `garbled` counts messages that made no sense. They are passed over: the
    socket is still good, and a scan finds what they meant to tell.
    """

    def __init__(
        self,
        urls: Sequence[str],
        *,
        silence_seconds: float = 30.0,
        ack_seconds: float = 15.0,
        dial: Dial | None = None,
        now: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        if not urls:
            raise BAD_URL("no WebSocket URL is configured")
        self._addresses = [address(url, ("ws", "wss")) for url in urls]
        self._silence_seconds, self._ack_seconds = silence_seconds, ack_seconds
        self._dial = dial or _dial
        self._now, self._sleep, self._jitter = now, sleep, jitter
        self._heart = Feed("slot", [], notices.read_slot)
        self._feeds: dict[Hashable, Feed] = {self._heart.key: self._heart}
        self._connection: Connection | None = None
        self.connections = 0
        self.garbled = 0

    @property
    def connected(self) -> bool:
        """Whether every subscription is live."""
        return self._connection is not None and self._connection.is_complete

    def slots(self) -> Subscription[SlotNotice]:
        """Slots as the node begins to process them."""
        return self._subscribe(Feed("slot", [], notices.read_slot))

    def program(
        self, program: Pubkey, filters: Sequence[Filter] = (), commitment: Commitment = Confirmed
    ) -> Subscription[ProgramNotice]:
        """Accounts of the program that change. Never filter on what changes: the change out of the filter is hidden."""
        config = {"commitment": commitment, "encoding": "base64", "filters": filter_params(filters)}
        return self._subscribe(Feed("program", [str(program), config], notices.read_program))

    def logs(self, mentions: Pubkey | None, commitment: Commitment = Confirmed) -> Subscription[LogsNotice]:
        """Logs of the transactions that name an account, or of all."""
        wanted: Any = "all" if mentions is None else {"mentions": [str(mentions)]}
        return self._subscribe(Feed("logs", [wanted, {"commitment": commitment}], notices.read_logs))

    def signature(self, signature: Signature, commitment: Commitment = Confirmed) -> Subscription[SignatureNotice]:
        """One notice, when the transaction reaches the commitment; then the stream ends. A hint: ask, then believe."""
        params = [str(signature), {"commitment": commitment}]
        return self._subscribe(Feed("signature", params, notices.read_signature, once=True))

    async def run(self) -> NoReturn:
        """Connect, subscribe, listen, and connect again, for ever."""
        failures = 0
        for to in itertools.cycle(self._addresses):
            began = self._now()
            try:
                async with self._dial(to.url) as socket:
                    self.connections += 1
                    await self._converse(socket)
            except TimeoutError:
                reason = f"{to.name}: no answer, or silent for {self._silence_seconds:g} s"
            except (OSError, EOFError, WebSocketException, OracleError) as error:
                reason = f"{to.name}: {to.scrub(str(error)) or type(error).__name__}"
            failures = 0 if self._now() - began > _STEADY_SECONDS else failures + 1
            log.warning("subscriptions are down", reason=reason, failures=failures)
            for feed in self._feeds.values():
                feed.put(Disconnected(reason))
            await self._sleep(backoff_seconds(failures, self._jitter(), first=0.125, most=30.0))
        raise AssertionError("the cycle of URLs has no end")

    async def _converse(self, socket: Socket) -> NoReturn:
        outbox: asyncio.Queue[bytes] = asyncio.Queue()
        connection = Connection(outbox.put_nowait, ack_seconds=self._ack_seconds)
        sender = asyncio.create_task(_send_all(outbox, socket))
        self._connection = connection
        try:
            for feed in self._feeds.values():
                connection.subscribe(feed, self._now())
            async with asyncio.timeout(self._silence_seconds) as silence:
                while True:
                    message = await socket.recv()
                    silence.reschedule(asyncio.get_running_loop().time() + self._silence_seconds)
                    try:
                        connection.hear(message)
                    except (ValueError, TypeError, AttributeError):
                        self.garbled += 1
                    connection.demand_acks(self._now())
        finally:
            self._connection = None
            sender.cancel()
            await asyncio.gather(sender, return_exceptions=True)

    def _subscribe(self, asked: Feed) -> Subscription[Any]:
        feed = self._feeds.setdefault(asked.key, asked)
        subscription: Subscription[Any] = Subscription(lambda: self._leave(feed, subscription))
        feed.listeners.append(subscription)
        if self._connection is not None:
            self._connection.subscribe(feed, self._now())
        return subscription

    def _leave(self, feed: Feed, subscription: Subscription[Any]) -> None:
        with suppress(ValueError):
            feed.listeners.remove(subscription)
        if feed.listeners or feed is self._heart or self._feeds.get(feed.key) is not feed:
            return
        del self._feeds[feed.key]
        if self._connection is not None:
            self._connection.leave(feed)


def websocket_url(rpc_url: str) -> str:
    """The WebSocket URL that belongs to an RPC URL: another scheme, and port 8900 beside 8899 as a validator has it."""
    address(rpc_url)
    parts = urlsplit(rpc_url.strip())
    netloc = re.sub(r":8899$", ":8900", parts.netloc)
    return urlunsplit((_WEBSOCKET_SCHEMES[parts.scheme], netloc, parts.path, parts.query, ""))


async def _send_all(outbox: asyncio.Queue[bytes], socket: Socket) -> None:
    """A failure to send needs no report: the reader of the same socket meets it."""
    while True:
        await socket.send((await outbox.get()).decode())


def _silent_logger() -> logging.Logger:
    """websockets writes the request line, with the API key in it, to its log. A logger outside the tree keeps it."""
    logger = logging.Logger("oracle.chain.ws.wire", level=logging.CRITICAL)
    logger.addHandler(logging.NullHandler())
    logger.propagate = False
    return logger


_SILENT: Final = _silent_logger()


@asynccontextmanager
async def _dial(url: str) -> AsyncIterator[Socket]:
    async with connect(url, max_size=MAX_MESSAGE_BYTES, compression=None, close_timeout=1.0, logger=_SILENT) as socket:
        yield socket
