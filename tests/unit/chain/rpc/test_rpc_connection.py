"""What a connection makes of the bytes of a server, whatever they are and however they are cut. No sockets."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import Sequence
from itertools import pairwise

import h11
import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oracle.chain.rpc.connection import Answer, Connection, Lost, TooLong
from oracle.chain.rpc.http import request_of

URL = httpx.URL("http://127.0.0.1:8899/")
MIB = 1024 * 1024
OK = b"HTTP/1.1 200 OK\r\n"


class Pipe(asyncio.Transport):
    """A transport whose other end is the test."""

    def __init__(self, protocol: asyncio.Protocol) -> None:
        super().__init__()
        self.written = b""
        self.is_aborted = False
        self.is_reading = True
        protocol.connection_made(self)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += bytes(data)

    def abort(self) -> None:
        self.is_aborted = True

    def pause_reading(self) -> None:
        self.is_reading = False

    def resume_reading(self) -> None:
        self.is_reading = True


async def said(connection: Connection, *pieces: bytes, closes: bool = False, most_bytes: int = MIB) -> Answer:
    """The answer to a call, where the server says this."""
    asking = asyncio.create_task(connection.exchange(request_of(URL, 2), b"{}", most_bytes))
    await asyncio.sleep(0)
    for piece in pieces:
        connection.data_received(piece)
        await asyncio.sleep(0)
    if closes:
        connection.eof_received()
        connection.connection_lost(None)
    async with asyncio.timeout(60.0):
        return await asking


def opened() -> tuple[Connection, Pipe]:
    connection = Connection()
    return connection, Pipe(connection)


def chunked(*chunks: bytes) -> bytes:
    return b"".join(b"%x;note=1\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\nx-trailer: 1\r\n\r\n"


PACKED = gzip.compress(b"[" + b" " * 3 * MIB + b"]")


@pytest.mark.parametrize(
    ("wire", "closes", "body", "is_kept"),
    [
        pytest.param(OK + b"content-length: 2\r\n\r\n{}", False, b"{}", True, id="of a length"),
        pytest.param(
            OK + b"transfer-encoding: chunked\r\n\r\n" + chunked(b"{", b"}"), False, b"{}", True, id="chunked"
        ),
        pytest.param(OK + b"\r\n{}", True, b"{}", False, id="until the end"),
        pytest.param(b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\n{}", False, b"{}", False, id="of an old server"),
        pytest.param(OK + b"connection: close\r\ncontent-length: 2\r\n\r\n{}", False, b"{}", False, id="and goodbye"),
        pytest.param(OK + b"content-length: 0\r\n\r\n", False, b"", True, id="empty"),
        pytest.param(
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n"
            + OK
            + b"content-length: 2\r\n\r\n{}",
            False,
            b"{}",
            True,
            id="after preludes",
        ),
        pytest.param(
            OK + b"Content-Encoding: GZIP\r\ncontent-length: %d\r\n\r\n" % len(PACKED) + PACKED,
            False,
            b"[" + b" " * 3 * MIB + b"]",
            True,
            id="packed",
        ),
        pytest.param(
            OK + b"content-encoding: gzip\r\ncontent-length: 0\r\n\r\n",
            False,
            b"",
            True,
            id="packed, and nothing in it",
        ),
        pytest.param(
            OK + b"content-length: 2\r\n\r\n{}" + OK + b"content-length: 2\r\n\r\n[]",
            False,
            b"{}",
            False,
            id="and more",
        ),
    ],
)
async def test_an_answer_is_read_and_its_connection_kept_where_that_is_safe(
    wire: bytes, closes: bool, body: bytes, is_kept: bool
) -> None:
    for size in (len(wire), 1000):
        connection, _ = opened()
        pieces = [wire[at : at + size] for at in range(0, len(wire), size)]
        answer = await said(connection, *pieces, closes=closes, most_bytes=4 * MIB)
        assert (answer.status, b"".join(answer.pieces)) == (200, body)
        assert connection.is_ready is is_kept


@pytest.mark.parametrize(
    "wire",
    [
        pytest.param(
            b"HTTP/1.1 100 Continue\r\n\r\n" * 9 + OK + b"content-length: 0\r\n\r\n", id="preludes without end"
        ),
        pytest.param(
            b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\n\r\n", id="another protocol after all"
        ),
        pytest.param(OK + b"x: " + b"y" * 70_000, id="a header without end"),
        pytest.param(OK + b"x: y\r\n" * 20_000, id="headers without end"),
        pytest.param(OK + b"content-length: 1\r\ncontent-length: 2\r\n\r\n{}", id="two lengths"),
        pytest.param(OK + b"transfer-encoding: chunked\r\n\r\nzz\r\n{}\r\n", id="a chunk of no length"),
        pytest.param(OK + b"transfer-encoding: chunked\r\n\r\n5\r\n{", id="cut in a chunk"),
        pytest.param(OK + b"transfer-encoding: chunked\r\n\r\n2\r\n{}\r\n", id="cut before the last chunk"),
        pytest.param(OK + b"content-encoding: gzip\r\ncontent-length: 20\r\n\r\n" + PACKED[:20], id="cut while packed"),
        pytest.param(OK + b"content-le", id="cut in the head"),
        pytest.param(b"", id="nothing"),
    ],
)
async def test_what_is_no_answer_is_lost_and_its_connection_not_kept(wire: bytes) -> None:
    connection, _ = opened()
    with pytest.raises(Lost):
        await said(connection, wire[:30], wire[30:], closes=True)
    assert not connection.is_ready


async def test_a_kept_connection_that_closes_before_a_byte_of_the_answer_has_lost_it() -> None:
    connection, _ = opened()
    await said(connection, OK + b"content-length: 2\r\n\r\n{}")
    with pytest.raises(Lost, match="closed without an answer"):
        await said(connection, closes=True)


async def test_what_comes_unasked_is_never_taken_for_the_next_answer() -> None:
    connection, pipe = opened()
    await said(connection, OK + b"content-length: 2\r\n\r\n{}")
    connection.data_received(OK + b"content-length: 2\r\n\r\n[]")
    assert not connection.is_ready
    assert pipe.is_aborted


async def test_an_answer_cut_into_bytes_leaves_the_event_loop_to_others() -> None:
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    connection, _ = opened()
    beside = asyncio.create_task(others())
    wire = OK + b"transfer-encoding: chunked\r\n\r\n" + b"1\r\n \r\n" * 20_000 + b"0\r\n\r\n"
    answer = await said(connection, wire)
    beside.cancel()
    assert len(answer.pieces) == 20_000
    assert turns > 50


async def test_no_more_is_read_from_a_socket_than_what_is_being_looked_at() -> None:
    connection, pipe = opened()
    asking = asyncio.create_task(connection.exchange(request_of(URL, 2), b"{}", MIB))
    await asyncio.sleep(0)
    connection.data_received(OK + b"content-length: 6\r\n\r\n")
    for _ in range(6):
        connection.data_received(b" ")
    assert not pipe.is_reading
    await asking
    assert pipe.is_reading


async def test_more_than_is_allowed_is_refused_as_soon_as_it_is_seen() -> None:
    connection, _ = opened()
    with pytest.raises(TooLong):
        await said(connection, OK + b"content-length: 9999999999\r\n\r\n" + b" " * 1001, most_bytes=1000)


def test_a_login_in_the_url_becomes_a_header_and_the_rest_the_target() -> None:
    request = request_of(httpx.URL("https://us%20er:p%40ss@b\u00fccher.example:8443/v2/key?a=b%2Fc#part"), 7)
    assert request.target == b"/v2/key?a=b%2Fc"
    assert dict(request.headers) == {
        b"host": b"xn--bcher-kva.example:8443",
        b"content-type": b"application/json",
        b"content-length": b"7",
        b"accept-encoding": b"gzip",
        b"user-agent": b"inference-oracle",
        b"authorization": b"Basic dXMgZXI6cEBzcw==",
    }


WORDS = st.sampled_from(
    [
        OK,
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"HTTP/1.1 204 No Content\r\n",
        b"content-length: 3\r\n",
        b"content-length: -1\r\n",
        b"transfer-encoding: chunked\r\n",
        b"content-encoding: gzip\r\n",
        b"connection: close\r\n",
        b"upgrade: h2c\r\n",
        b"\r\n",
        b"3\r\nabc\r\n",
        b"0\r\n\r\n",
        b"abc",
        b"\0",
        b"\x1f\x8b\x08",
        gzip.compress(b"abc"),
        b" folded\r\n",
        b"ffffffffffffffff\r\n",
    ]
)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.one_of(WORDS, st.binary(max_size=8)), max_size=12), st.booleans())
def test_any_bytes_at_all_end_in_an_answer_or_an_error_of_ours(pieces: Sequence[bytes], is_kept: bool) -> None:
    async def run() -> None:
        connection, _ = opened()
        if is_kept:
            await said(connection, OK + b"content-length: 0\r\n\r\n")
        try:
            answer = await said(connection, *(piece for piece in pieces if piece), closes=True, most_bytes=1000)
        except (Lost, TooLong):
            return
        assert 200 <= answer.status <= 999
        assert sum(map(len, answer.pieces)) <= 1000

    asyncio.run(run())


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.binary(min_size=1, max_size=50), max_size=5), st.lists(st.integers(0, 400), max_size=8), st.booleans()
)
def test_an_answer_reads_the_same_however_it_is_cut(chunks: list[bytes], cuts: list[int], is_packed: bool) -> None:
    body = b"".join(chunks)
    sent = [gzip.compress(body)] if is_packed and body else chunks
    head = OK + (b"content-encoding: gzip\r\n" if is_packed and body else b"") + b"transfer-encoding: chunked\r\n\r\n"
    wire = head + chunked(*sent)
    edges = sorted({0, len(wire), *(cut for cut in cuts if cut < len(wire))})
    pieces = [wire[start:end] for start, end in pairwise(edges)]

    async def run() -> None:
        connection, _ = opened()
        answer = await said(connection, *pieces)
        assert b"".join(answer.pieces) == body
        assert connection.is_ready
        assert connection._http.our_state is h11.IDLE

    asyncio.run(run())
