"""What only a real socket can show of the HTTP layer."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest

from oracle.core.errors import OracleError, Verdict
from oracle.providers import errors
from oracle.providers.http import Http, Timeouts
from oracle.providers.pace import Pace

pytestmark = pytest.mark.localnet

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"


class Listener:
    """Takes connections, reads one request from each and sends `reply`; then keeps the connection or cuts it."""

    def __init__(self, reply: bytes, *, cut: bool) -> None:
        self.connections = 0
        self._serving: list[Any] = []
        self._reply = reply
        self._cut = cut

    async def __aenter__(self) -> Http:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        port = self._server.sockets[0].getsockname()[1]
        timeouts = Timeouts(silence=60.0, total=60.0)
        self._http = Http(
            "example", f"http://127.0.0.1:{port}", pace=Pace(), timeouts=timeouts, max_answer_bytes=10_000
        )
        return self._http

    async def __aexit__(self, *_: object) -> None:
        await self._http.close()
        self._server.close()
        await asyncio.gather(*self._serving)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._serving.append(asyncio.current_task())
        with contextlib.suppress(ConnectionError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(self._reply)
            await writer.drain()
            if not self._cut:
                await reader.read()
            writer.close()
            await writer.wait_closed()


async def failure(reply: bytes) -> OracleError:
    async with Listener(reply, cut=True) as http:
        with pytest.raises(OracleError) as caught:
            await http.call("POST", "jobs", json={"a": 1}, repeatable=False)
    return caught.value


async def test_every_call_gets_a_fresh_connection_even_where_the_server_would_keep_one() -> None:
    listener = Listener(ANSWER, cut=False)
    async with listener as http:
        for _ in range(3):
            assert (await http.call("POST", "jobs", json={}, repeatable=False)).content == b"{}"
    assert listener.connections == 3


@pytest.mark.parametrize(
    "reply",
    [b"", b"HTTP/1.1 200 OK\r\nContent-Le", ANSWER.replace(b": 2", b": 200"), b"\x16\x03\x01 not HTTP\r\n\r\n"],
    ids=["nothing", "half a header", "half a body", "another protocol"],
)
async def test_a_connection_cut_after_a_purchase_was_sent_is_unknown(reply: bytes) -> None:
    found = await failure(reply)
    assert (found.error, found.verdict) == (errors.NO_ANSWER, Verdict.UNKNOWN)


async def test_a_redirect_does_not_carry_the_key_elsewhere() -> None:
    elsewhere = Listener(ANSWER, cut=True)
    async with elsewhere as other:
        found = await failure(
            f"HTTP/1.1 307 Moved\r\nLocation: {other._base_url}/jobs\r\nContent-Length: 0\r\n\r\n".encode()
        )
    assert found.error is errors.WRONG_ADDRESS
    assert elsewhere.connections == 0


async def test_an_endless_answer_is_cut_off() -> None:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    found = await failure(head + b"2710\r\n" + b"x" * 10_000 + b"\r\n" + b"2710\r\n" + b"x" * 10_000 + b"\r\n")
    assert found.error is errors.ANSWER_TOO_LARGE
