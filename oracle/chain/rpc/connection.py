"""One connection to an endpoint: h11 reads what comes and keeps the rules of the protocol; here are only the socket,
and bounds on what a hostile server can make us hold or do."""

from __future__ import annotations

import asyncio
import zlib
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import h11

_MOST_HEAD_BYTES: Final = 64 * 1024
_MOST_PRELUDES: Final = 8
"""Answers of the kind "100 Continue" before the real one: nobody needs more."""
_EVENTS_A_TURN: Final = 256
"""So much of an answer is read in one turn of the event loop: one cut into bytes would otherwise hold it for long."""
_UNPACKED_A_TURN: Final = 1024 * 1024
_WAITING_PIECES: Final = 4


@dataclass(frozen=True, slots=True)
class Answer:
    """Names of headers are lower-case. The body is in pieces, unpacked."""

    status: int
    headers: Mapping[bytes, bytes]
    pieces: Sequence[bytes]


class Lost(Exception):
    """The call is out, and nothing readable came back."""


class TooLong(Exception):
    """The answer is larger than the caller allows."""


class Connection(asyncio.Protocol):
    """One connection, on which one call is made after another."""

    def __init__(self) -> None:
        self._http = h11.Connection(h11.CLIENT, max_incomplete_event_size=_MOST_HEAD_BYTES)
        self._arrived: deque[bytes] = deque()
        self._more: asyncio.Future[None] | None = None
        self._is_asked = False
        self._is_closed = False
        self._is_paused = False
        self._why = ""

    @property
    def is_ready(self) -> bool:
        """Whether a call can be made on it."""
        return not self._is_closed and self._http.our_state is h11.IDLE

    def drop(self) -> None:
        self._is_closed = True
        self._transport.abort()

    async def exchange(self, request: h11.Request, body: bytes, most_bytes: int) -> Answer:
        """Make a call and read its answer."""
        http, self._is_asked = self._http, True
        parts = http.send(request), http.send(h11.Data(data=body)), http.send(h11.EndOfMessage())
        self._transport.write(b"".join(part for part in parts if part))
        try:
            if not (first := await self._received()):
                raise Lost(self._why or "closed without an answer")
            http.receive_data(first)
            answer = await self._answer(most_bytes)
            if self._arrived or http.trailing_data[0]:
                self._is_closed = True  # more than was asked for: it would be taken for the next answer
            elif http.our_state is h11.DONE and http.their_state is h11.DONE:
                http.start_next_cycle()
        except h11.RemoteProtocolError as error:
            raise Lost(self._why or str(error)) from None
        self._is_asked = False
        return answer

    async def _answer(self, most_bytes: int) -> Answer:
        http, head, body = self._http, None, None
        events = preludes = 0
        while True:
            event = http.next_event()
            events += 1
            if events % _EVENTS_A_TURN == 0:
                await asyncio.sleep(0)
            if event is h11.NEED_DATA:
                http.receive_data(await self._received())
            elif isinstance(event, h11.Data) and body is not None:
                await body.add(bytes(event.data))
            elif isinstance(event, h11.EndOfMessage) and head is not None and body is not None:
                return Answer(head.status_code, dict(head.headers), body.ended())
            elif isinstance(event, h11.Response):
                head = event
                body = _Body(most_bytes, is_packed=dict(event.headers).get(b"content-encoding", b"").lower() == b"gzip")
            elif isinstance(event, h11.InformationalResponse) and preludes < _MOST_PRELUDES:
                preludes += 1
            else:
                raise Lost(f"unexpected {type(event).__name__}")

    async def _received(self) -> bytes:
        """What has arrived; nothing where the other side has closed."""
        while not self._arrived and not self._is_closed:
            self._more = asyncio.get_running_loop().create_future()
            await self._more
        if not self._arrived:
            return b""
        data = self._arrived.popleft()
        if self._is_paused and not self._arrived and not self._is_closed:
            self._is_paused = False
            self._transport.resume_reading()
        return data

    # What asyncio tells.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        if not self._is_asked:
            self.drop()  # what comes unasked would be taken for the next answer
            return
        self._arrived.append(data)
        if len(self._arrived) >= _WAITING_PIECES and not self._is_paused:
            self._is_paused = True
            self._transport.pause_reading()
        self._wake()

    def eof_received(self) -> None:
        self._is_closed = True
        self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        self._is_closed = True
        self._why = str(exc) if exc else ""
        self._wake()

    def _wake(self) -> None:
        if self._more is not None and not self._more.done():
            self._more.set_result(None)


class _Body:
    """The pieces of a body, unpacked, up to a size."""

    def __init__(self, most_bytes: int, *, is_packed: bool) -> None:
        self._most_bytes = self._left_bytes = most_bytes
        self._pieces: list[bytes] = []
        self._unpacker = zlib.decompressobj(16 + zlib.MAX_WBITS) if is_packed else None

    async def add(self, data: bytes) -> None:
        if self._unpacker is None:
            self._keep(data)
            return
        is_full = True
        while is_full and not self._unpacker.eof:
            try:
                piece = self._unpacker.decompress(data, _UNPACKED_A_TURN)
            except zlib.error as error:
                raise Lost(f"gzip: {error}") from None
            self._keep(piece)
            data = self._unpacker.unconsumed_tail
            if is_full := len(piece) == _UNPACKED_A_TURN:
                await asyncio.sleep(0)

    def ended(self) -> list[bytes]:
        if self._unpacker is not None and self._pieces and not self._unpacker.eof:
            raise Lost("gzip: cut in the middle")
        return self._pieces

    def _keep(self, piece: bytes) -> None:
        self._left_bytes -= len(piece)
        if self._left_bytes < 0:
            raise TooLong(f"more than {self._most_bytes // 2**20} MiB")
        self._pieces.append(piece)
