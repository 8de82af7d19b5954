"""Fetches an input from an https URI that a stranger chose, without being turned against the operator's own network.

The host is resolved here, every address is checked, and the connection goes to an address that was checked: a name
that answers differently a moment later (DNS rebinding) changes nothing. Redirects are followed by the same rules.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterable
from typing import Any
from urllib.parse import urljoin, urlsplit

import httpcore
from httpcore import AsyncNetworkBackend, AsyncNetworkStream

from oracle.config import InputFetch
from oracle.pipeline.errors import INPUT_FORBIDDEN, INPUT_GONE, INPUT_TOO_LARGE, INPUT_UNREACHABLE

Resolve = Callable[[str, int], Awaitable[list[str]]]
IsAllowed = Callable[[str], bool]

HTTPS_PORT = 443
MAX_URI_BYTES = 2_048
_REDIRECTS = (301, 302, 303, 307, 308)
# Hosts that are busy or broken for now; any other status is the final word on this URI.
_PASSING = (408, 425, 429, 500, 502, 503, 504)


async def resolve(host: str, port: int) -> list[str]:
    """Every address of a host, as the system resolves it."""
    infos = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(info[4][0]) for info in infos))


def is_public(address: str) -> bool:
    """Whether an address is on the public internet. Addresses that carry an IPv4 one inside are judged by that, too."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else None) or _nat64(ip)
        if inner is not None:
            return is_public(str(inner))
    return ip.is_global and not ip.is_multicast and not ip.is_reserved


def _nat64(ip: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    """The IPv4 address in 64:ff9b::/96 (RFC 6052), through which a gateway would reach it."""
    if ip in ipaddress.ip_network("64:ff9b::/96"):
        return ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
    return None


async def fetch(
    uri: str,
    limits: InputFetch,
    *,
    resolve: Resolve = resolve,
    is_allowed: IsAllowed = is_public,
    ports: Iterable[int] = (HTTPS_PORT,),
    ssl_context: ssl.SSLContext | None = None,
) -> bytes:
    """What `uri` serves, at most `limits.max_bytes`. Raises ORC-PIPE-008 … 010 and 013.

    The keyword arguments exist for tests and for operators with a network of their own.
    """
    backend = _Pinned(resolve, is_allowed)
    context = ssl_context or ssl.create_default_context()
    try:
        async with (
            asyncio.timeout(limits.timeout_seconds),
            httpcore.AsyncConnectionPool(ssl_context=context, network_backend=backend) as pool,
        ):
            for _ in range(limits.max_redirects + 1):
                _check(uri, frozenset(ports))
                content, uri = await _get(pool, uri, limits.max_bytes)
                if content is not None:
                    return content
            raise INPUT_GONE(f"more than {limits.max_redirects} redirects")
    except TimeoutError:
        raise INPUT_UNREACHABLE(f"no answer in {limits.timeout_seconds} s") from None
    except (httpcore.NetworkError, httpcore.ProtocolError, httpcore.TimeoutException, OSError) as error:
        raise INPUT_UNREACHABLE(type(error).__name__) from None


def _check(uri: str, ports: frozenset[int]) -> None:
    try:
        parts = urlsplit(uri)
        port = parts.port or HTTPS_PORT
    except ValueError:
        raise INPUT_FORBIDDEN("not a URI") from None
    if len(uri) > MAX_URI_BYTES or not uri.isascii() or not uri.isprintable() or " " in uri:
        raise INPUT_FORBIDDEN("a URI is printable ASCII without spaces, at most 2,048 bytes")
    if parts.scheme != "https" or not parts.hostname:
        raise INPUT_FORBIDDEN(f"scheme {parts.scheme!r}: only https is fetched")
    if parts.username is not None or parts.password is not None:
        raise INPUT_FORBIDDEN("a URI with a user name")
    if port not in ports:
        raise INPUT_FORBIDDEN(f"port {port}")


async def _get(pool: httpcore.AsyncConnectionPool, uri: str, max_bytes: int) -> tuple[bytes | None, str]:
    """The content, or None and where it was redirected to."""
    headers = [(b"Accept", b"*/*"), (b"Accept-Encoding", b"identity"), (b"User-Agent", b"inference-oracle")]
    async with pool.stream("GET", uri.partition("#")[0], headers=headers) as response:
        if response.status in _REDIRECTS:
            location = next((value for name, value in response.headers if name.lower() == b"location"), None)
            if location is None:
                raise INPUT_GONE("a redirect without a location")
            return None, urljoin(uri, location.decode("ascii", "replace"))
        if response.status in _PASSING:
            raise INPUT_UNREACHABLE(f"status {response.status}")
        if response.status != 200:
            raise INPUT_GONE(f"status {response.status}")
        content = bytearray()
        async for piece in response.aiter_stream():
            content += piece
            if len(content) > max_bytes:
                raise INPUT_TOO_LARGE(f"more than {max_bytes} bytes")
        return bytes(content), uri


class _Pinned(AsyncNetworkBackend):
    """Connects only to addresses that were checked. TLS still verifies the host's own name."""

    def __init__(self, resolve: Resolve, is_allowed: IsAllowed) -> None:
        self._backend = httpcore.AnyIOBackend()
        self._resolve = resolve
        self._is_allowed = is_allowed

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109
        local_address: str | None = None,
        socket_options: Any = None,
    ) -> AsyncNetworkStream:
        try:
            addresses = await self._resolve(host, port)
        except OSError:
            raise INPUT_UNREACHABLE("the host does not resolve") from None
        # One private address among public ones is how rebinding begins: such a host is refused whole.
        if not addresses or not all(self._is_allowed(address) for address in addresses):
            raise INPUT_FORBIDDEN("the host has a private address")
        failure: Exception | None = None
        for address in addresses:
            try:
                return await self._backend.connect_tcp(address, port, timeout, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
        assert failure is not None
        raise failure

    async def connect_unix_socket(
        self,
        path: str,
        timeout: float | None = None,  # noqa: ASYNC109
        socket_options: Any = None,
    ) -> AsyncNetworkStream:
        raise INPUT_FORBIDDEN("a Unix socket")

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
