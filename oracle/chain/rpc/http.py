"""HTTP/1.1 to one host, as much of it as JSON-RPC needs: a POST, its answer, and connections that are kept.

A general client (pools for many hosts, cookies, redirects, proxies, hooks) takes several times as long for a call, and
none of that is wanted here.
"""

from __future__ import annotations

import asyncio
import base64
import ipaddress
import ssl
import time
from collections.abc import Callable
from functools import lru_cache
from typing import Final, Protocol

import h11
import httpx

from oracle.chain.rpc.connection import Answer, Connection, Lost
from oracle.chain.rpc.errors import BAD_URL

_AT_ONCE: Final = 16
_KEPT_SECONDS: Final = 30.0


class NotSent(Exception):
    """No connection came about, so nothing of the call has left."""


class Wire(Protocol):
    """What carries the bytes of a call to an endpoint. Raises `NotSent`, `Lost` or `TooLong`, and nothing else."""

    async def post(self, body: bytes, *, most_bytes: int, seconds: float) -> Answer: ...

    async def close(self) -> None: ...


class Http:
    """A `Wire` to the host of `url`, whose login goes into a header. Environment variables name certificates to trust
    (`SSL_CERT_FILE`, `SSL_CERT_DIR`), and never a proxy."""

    def __init__(self, url: str, *, now: Callable[[], float] = time.monotonic) -> None:
        try:
            parsed = httpx.URL(url)
        except httpx.InvalidURL:
            raise BAD_URL("it cannot be parsed") from None
        self._host = parsed.raw_host.decode()
        self._port = parsed.port or (443 if parsed.scheme == "https" else 80)
        # Of several addresses the first gets a head start. A single one runs no race: asyncio leaves a socket of a race
        # open for a while where the call is cancelled in the middle of it.
        self._head_start_seconds = None if _is_address(self._host) else 0.25
        # Reading the certificates takes 20 ms, and nobody looks at them without TLS.
        self._tls = _tls() if parsed.scheme == "https" else None
        self._request = lru_cache(maxsize=256)(lambda length: request_of(parsed, length))
        self._now = now
        self._open: set[Connection] = set()
        self._kept: list[tuple[float, Connection]] = []
        self._places = asyncio.Semaphore(_AT_ONCE)

    async def post(self, body: bytes, *, most_bytes: int, seconds: float) -> Answer:
        """Made once, on a kept connection that is open for all we know, or on a new one.

        A server may close a kept one in the very moment of the call. Whether it has read the call nobody knows then,
        and it is `Lost` like any other: whoever calls knows whether to make it again.
        """
        is_out = False
        try:
            # One bound for all of it: an endpoint that drips a byte a second would hold us for ever.
            async with asyncio.timeout(seconds), self._places:
                connection = self._take() or await self._connect()
                is_out = True
                return await self._exchange(connection, body, most_bytes)
        except TimeoutError:
            raise (Lost if is_out else NotSent)(f"no answer in {seconds:g} s") from None

    async def close(self) -> None:
        self._kept.clear()
        for connection in [*self._open]:
            self._drop(connection)  # under a call, too
        await asyncio.sleep(0)  # a turn in which the sockets are closed

    async def _exchange(self, connection: Connection, body: bytes, most_bytes: int) -> Answer:
        try:
            answer = await connection.exchange(self._request(len(body)), body, most_bytes)
        except BaseException:
            self._drop(connection)
            raise
        if connection.is_ready:
            self._kept.append((self._now(), connection))
        else:
            self._drop(connection)
        return answer

    def _take(self) -> Connection | None:
        """The connection that was used last, unless it is closed or has rested so long that it may be any moment."""
        while self._kept:
            since, connection = self._kept.pop()
            if connection.is_ready and self._now() - since <= _KEPT_SECONDS:
                return connection
            self._drop(connection)
        return None

    def _drop(self, connection: Connection) -> None:
        connection.drop()
        self._open.discard(connection)

    async def _connect(self) -> Connection:
        try:
            _, connection = await asyncio.get_running_loop().create_connection(
                Connection, self._host, self._port, ssl=self._tls, happy_eyeballs_delay=self._head_start_seconds
            )
        except (OSError, UnicodeError) as error:
            raise NotSent(str(error) or type(error).__name__) from None
        self._open.add(connection)
        return connection


def request_of(url: httpx.URL, length: int) -> h11.Request:
    """The head of a POST of so many bytes; a login in the URL goes into it."""
    headers = [
        ("host", url.netloc.decode()),
        ("content-type", "application/json"),
        ("content-length", str(length)),
        ("accept-encoding", "gzip"),
        ("user-agent", "inference-oracle"),
    ]
    if url.userinfo:
        login = base64.b64encode(f"{url.username}:{url.password}".encode()).decode()
        headers.append(("authorization", f"Basic {login}"))
    return h11.Request(method="POST", target=url.raw_path, headers=headers)


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _tls() -> ssl.SSLContext:
    context = httpx.create_ssl_context()
    context.set_alpn_protocols(["http/1.1"])
    return context
