"""Fetches an input from an https URI that a stranger chose, without being turned against the operator's own network.

The host is resolved here, every address is checked, and the connection goes to an address that was checked: a name
that answers differently a moment later (DNS rebinding) changes nothing. Redirects are followed by the same rules.
"""

from __future__ import annotations

import asyncio
import functools
import ipaddress
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final
from urllib.parse import urljoin, urlsplit

import httpcore
import httpx
from httpcore import AsyncNetworkBackend, AsyncNetworkStream

from oracle.config import InputFetch
from oracle.pipeline.errors import INPUT_FORBIDDEN, INPUT_GONE, INPUT_TOO_LARGE, INPUT_UNREACHABLE

Resolve = Callable[[str, int], Awaitable[list[str]]]
IsAllowed = Callable[[str], bool]

HTTPS_PORT: Final = 443
MAX_URI_BYTES: Final = 2_048
_REDIRECTS: Final = (301, 302, 303, 307, 308)
# Hosts that are busy or broken for now; any other status is the final word on this URI.
_PASSING: Final = (408, 425, 429, 500, 502, 503, 504)
# One address that swallows packets must leave time for the host's next one.
_CONNECT_SHARE: Final = 1 / 3

# Names that a stranger chose may keep a resolver busy for half a minute. In the loop's own executor a handful of them
# would hold up every other connection of the daemon.
_LOOKUPS: Final = ThreadPoolExecutor(8, thread_name_prefix="resolve")

# Of IPv6 only this block is routed on the internet (IANA, RFC 4291).
_GLOBAL_UNICAST: Final = ipaddress.ip_network("2000::/3")
# What a NAT64 gateway forwards to the IPv4 address in the last four bytes (RFC 6052).
_NAT64: Final = ipaddress.ip_network("64:ff9b::/96")
# Blocks of the IANA special-purpose registries that the `ipaddress` of some Python from 3.11 to 3.13 takes for public.
_SPECIAL: Final = tuple(
    ipaddress.ip_network(block)
    for block in (
        "192.0.0.0/24",  # IETF protocol assignments
        "192.88.99.0/24",  # 6to4 relays
        "2001::/23",  # IETF protocol assignments, Teredo among them
        "2002::/16",  # 6to4: leads to the IPv4 address inside
        "3fff::/20",  # documentation
    )
)


async def resolve(host: str, port: int) -> list[str]:
    """Every address of a host, as the system resolves it. Raises OSError or UnicodeError where there is none."""
    infos = await asyncio.get_running_loop().run_in_executor(
        _LOOKUPS, functools.partial(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
    )
    return list(dict.fromkeys(str(info[4][0]) for info in infos))


def is_public(address: str) -> bool:
    """Whether an address is on the public internet. One that leads to an IPv4 address is judged by that."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.ipv4_mapped is not None:
            return is_public(str(ip.ipv4_mapped))
        if ip in _NAT64:
            return is_public(str(ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)))
        if ip not in _GLOBAL_UNICAST:
            return False
    special = ip.is_multicast or ip.is_reserved or any(ip in block for block in _SPECIAL)
    return ip.is_global and not special


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
    context = ssl_context or _trusted()
    connect_seconds = limits.timeout_seconds * _CONNECT_SHARE
    try:
        async with (
            asyncio.timeout(limits.timeout_seconds),
            httpcore.AsyncConnectionPool(ssl_context=context, network_backend=backend) as pool,
        ):
            for _ in range(limits.max_redirects + 1):
                _check(uri, frozenset(ports))
                content, uri = await _get(pool, uri, limits.max_bytes, connect_seconds)
                if content is not None:
                    return content
            raise INPUT_GONE(f"more than {limits.max_redirects} redirects")
    except TimeoutError:
        raise INPUT_UNREACHABLE(f"no answer in {limits.timeout_seconds:g} s") from None
    except (httpcore.NetworkError, httpcore.ProtocolError, httpcore.TimeoutException, OSError) as error:
        raise INPUT_UNREACHABLE(_why(error)) from None


@functools.cache
def _trusted() -> ssl.SSLContext:
    return httpx.create_ssl_context()


def _why(error: BaseException) -> str:
    """What went wrong, in words of ours: what a hostile host sends does not belong in a log."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"its certificate is not valid: {cause.verify_message}"
        cause = cause.__cause__ or cause.__context__
    match error:
        case httpcore.ConnectError() | httpcore.ConnectTimeout():
            return "no connection"
        case httpcore.ProtocolError():
            return "the answer is not HTTP, or was cut off"
        case _:
            return "the connection broke"


def _check(uri: str, ports: frozenset[int]) -> None:
    try:
        parts = urlsplit(uri)
        port = HTTPS_PORT if parts.port is None else parts.port
    except ValueError:
        raise INPUT_FORBIDDEN("not a URI") from None
    if len(uri) > MAX_URI_BYTES or not uri.isascii() or not uri.isprintable() or " " in uri:
        raise INPUT_FORBIDDEN("a URI is printable ASCII without spaces, at most 2,048 bytes")
    if parts.scheme != "https":
        raise INPUT_FORBIDDEN(f"scheme {parts.scheme!r}: only https is fetched")
    if not parts.hostname:
        raise INPUT_FORBIDDEN("no host")
    if parts.username is not None or parts.password is not None:
        raise INPUT_FORBIDDEN("a URI with a user name")
    if port not in ports:
        raise INPUT_FORBIDDEN(f"port {port}")


async def _get(
    pool: httpcore.AsyncConnectionPool, uri: str, max_bytes: int, connect_seconds: float
) -> tuple[bytes | None, str]:
    """The content, or None and where it was redirected to."""
    headers = [(b"Accept", b"*/*"), (b"Accept-Encoding", b"identity"), (b"User-Agent", b"inference-oracle")]
    extensions = {"timeout": {"connect": connect_seconds}}
    async with pool.stream("GET", uri.partition("#")[0], headers=headers, extensions=extensions) as response:
        if response.status in _REDIRECTS:
            return None, _target(uri, response)
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


def _target(uri: str, response: httpcore.Response) -> str:
    location = next((value for name, value in response.headers if name.lower() == b"location"), None)
    if location is None:
        raise INPUT_GONE("a redirect without a location")
    try:
        return urljoin(uri, location.decode("ascii"))
    except ValueError:
        raise INPUT_FORBIDDEN("redirected to what is not a URI") from None


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
        except UnicodeError:
            raise INPUT_FORBIDDEN("not the name of a host") from None
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
