"""One thin layer over httpx: bounded in time and bytes, paced, and every failure one coded error with a verdict."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import ssl
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeVar

import httpx
import orjson

from oracle.core.errors import OracleError
from oracle.providers import errors
from oracle.providers.failures import OPENAI_DIALECT, Dialect, error_of
from oracle.providers.pace import Pace

_T = TypeVar("_T")

MIB: Final = 1024 * 1024
_ERROR_BODY_BYTES: Final = 64 * 1024
_USER_AGENT: Final = "solana-inference-oracle"

# Raised before a byte of the request has gone out.
_NOT_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.ProxyError)


@dataclass(frozen=True, slots=True)
class Timeouts:
    """In seconds. `silence`: the longest wait for the next bytes; `total`: bounds a call that names no other."""

    connect: float = 5.0
    write: float = 30.0
    silence: float = 300.0
    total: float = 600.0


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer whose status was expected, read to its end."""

    status: int
    headers: httpx.Headers
    content: bytes


class Http:
    """Calls to one provider. `secrets` are never repeated in an error, whatever the provider answers."""

    def __init__(
        self,
        provider: str,
        base_url: str,
        *,
        pace: Pace,
        headers: Mapping[str, str] | None = None,
        secrets: Sequence[str] = (),
        timeouts: Timeouts = Timeouts(),
        max_answer_bytes: int = 8 * MIB,
        dialect: Dialect = OPENAI_DIALECT,
        transport: httpx.AsyncBaseTransport | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        if not _is_web_address(base_url):
            raise errors.WRONG_ADDRESS(f"{provider}: base_url must be http:// or https:// with a host")
        self._provider = provider
        self._base_url = base_url
        self._pace = pace
        self._secrets = tuple(secret for secret in secrets if secret)
        self._timeouts = timeouts
        self._max_answer_bytes = max_answer_bytes
        self._dialect = dialect
        self._now = now
        self._client = httpx.AsyncClient(
            headers={"User-Agent": _USER_AGENT, "Accept-Encoding": "identity", **(headers or {})},
            timeout=httpx.Timeout(
                timeouts.silence, connect=timeouts.connect, write=timeouts.write, pool=timeouts.connect
            ),
            # Every call gets a fresh connection. A kept one may be closed by the server just as it is used again (every
            # seventh time with llama.cpp), and that cannot be told from a purchase whose answer was lost.
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=0),
            follow_redirects=False,
            # A proxy would carry what is meant for this machine off it.
            trust_env=not _is_loopback(base_url),
            verify=certificates(),
            transport=transport,
        )

    async def call(
        self,
        method: Literal["GET", "POST", "PUT", "DELETE"],
        path: str,
        *,
        repeatable: bool,
        json: Any = None,
        content: bytes | None = None,
        params: Mapping[str, str | int] | None = None,
        headers: Mapping[str, str] | None = None,
        seconds: float | None = None,
        expect: Collection[int] = (),
        private: Sequence[str] = (),
        more_bytes: int = 0,
    ) -> Answer:
        """The answer to one call: any 2xx, or a status in `expect`.

        `repeatable` says that sending it twice costs nothing: then a lost answer is `RETRY`, else it is `UNKNOWN`.
        `path` is joined to the base by exactly one slash. `private` texts are kept out of errors. `more_bytes` than
        `max_answer_bytes` may be in the answer.
        """
        deadline = asyncio.get_running_loop().time() + (self._timeouts.total if seconds is None else seconds)
        request = self._request(method, path, json, content, params, headers)
        async with self._turn(deadline), self._failures(path, repeatable):
            response = await _by(deadline, self._client.send(request, stream=True))
            try:
                self._pace.heed(response.headers)
                if response.is_success or response.status_code in expect:
                    body = await _by(deadline, self._read(response, self._max_answer_bytes + more_bytes))
                    return Answer(response.status_code, response.headers, body)
                raise await self._refusal(response, repeatable, private)
            finally:
                await response.aclose()

    async def stream(
        self,
        path: str,
        *,
        json: Any,
        seconds: float | None = None,
        private: Sequence[str] = (),
    ) -> AsyncGenerator[bytes, None]:
        """The answer to a POST that spends money, piece by piece. Close the generator to cut the call."""
        deadline = asyncio.get_running_loop().time() + (self._timeouts.total if seconds is None else seconds)
        request = self._request("POST", path, json, None, None, {"Accept": "text/event-stream"})
        async with self._turn(deadline), self._failures(path, repeatable=False):
            response = await _by(deadline, self._client.send(request, stream=True))
            try:
                self._pace.heed(response.headers)
                if not response.is_success:
                    raise await self._refusal(response, False, private)
                received = 0
                pieces = response.aiter_bytes()
                while (piece := await _by(deadline, _next(pieces))) is not None:
                    received += len(piece)
                    self._check_size(received, self._max_answer_bytes)
                    yield piece
            finally:
                await response.aclose()

    @property
    def rate_left(self) -> Mapping[str, int]:
        """`requests` and `tokens` that are left of the rate, where the provider tells."""
        return self._pace.left

    async def close(self) -> None:
        await self._client.aclose()

    def unreadable(self, what: str, *, repeatable: bool) -> OracleError:
        """The error for an answer that arrived whole but is not what is documented."""
        error = errors.UNREADABLE_ANSWER if repeatable else errors.NO_ANSWER
        return error(f"{self._provider}: {what}")

    def json(self, answer: Answer, *, repeatable: bool) -> Any:
        """The JSON of an answer. HTML, broken or cut JSON raises what `unreadable` says."""
        try:
            return orjson.loads(answer.content)
        except orjson.JSONDecodeError:
            kind = answer.headers.get("content-type", "").split(";")[0] or "no content type"
            raise self.unreadable(
                f"HTTP {answer.status} with {len(answer.content)} bytes of {kind} that are not JSON",
                repeatable=repeatable,
            ) from None

    def _request(
        self,
        method: str,
        path: str,
        json: Any,
        content: bytes | None,
        params: Mapping[str, str | int] | None,
        headers: Mapping[str, str] | None,
    ) -> httpx.Request:
        sent = dict(headers or {})
        if json is not None:
            content = orjson.dumps(json)
        if content is not None:
            sent.setdefault("Content-Type", "application/json")
        sent.setdefault("Accept", "application/json")
        # Not urljoin: a leading slash would drop the prefix of the base (ionet.md §2.1).
        url = f"{self._base_url.rstrip('/')}/{path.lstrip('/')}" if path else self._base_url
        return self._client.build_request(method, url, content=content, params=params, headers=sent)

    @contextlib.asynccontextmanager
    async def _turn(self, deadline: float) -> AsyncIterator[None]:
        """Wait for a turn. Time that runs out here was spent before anything was sent."""
        try:
            async with asyncio.timeout_at(deadline):
                await self._pace.enter()
        except TimeoutError:
            raise errors.NOT_SENT(f"{self._provider}: no turn in the time allowed") from None
        try:
            yield
        finally:
            self._pace.leave()

    @contextlib.asynccontextmanager
    async def _failures(self, path: str, repeatable: bool) -> AsyncIterator[None]:
        """Name what can go wrong between two machines. Details hold no text of httpx: some of it quotes headers."""
        what = f"{self._provider} /{path.split('?')[0].lstrip('/')}"
        lost = errors.UNREACHABLE if repeatable else errors.NO_ANSWER
        try:
            yield
        except _NOT_SENT as error:
            raise errors.UNREACHABLE(f"{what}: {type(error).__name__}") from None
        except (httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
            raise errors.WRONG_ADDRESS(f"{what}: {type(error).__name__}") from None
        except httpx.DecodingError:
            raise self.unreadable(f"{what}: content encoding", repeatable=repeatable) from None
        except httpx.TransportError as error:
            raise lost(f"{what}: {type(error).__name__}") from None
        except TimeoutError:
            raise lost(f"{what}: no whole answer in the time allowed") from None

    async def _read(self, response: httpx.Response, most_bytes: int) -> bytes:
        body = bytearray()
        async for piece in response.aiter_bytes():
            body += piece
            self._check_size(len(body), most_bytes)
        return bytes(body)

    def _check_size(self, received: int, most_bytes: int) -> None:
        if received > most_bytes:
            raise errors.ANSWER_TOO_LARGE(f"{self._provider}: more than {most_bytes} bytes")

    async def _refusal(self, response: httpx.Response, repeatable: bool, private: Sequence[str]) -> OracleError:
        """The error for a refusal. Its status alone decides where its body is cut, endless or slow."""
        body = bytearray()
        with contextlib.suppress(httpx.TransportError, httpx.DecodingError, TimeoutError):
            async with asyncio.timeout(self._timeouts.connect):
                async for piece in response.aiter_bytes():
                    body += piece
                    if len(body) > _ERROR_BODY_BYTES:
                        break
        error = error_of(
            response.status_code,
            response.headers,
            bytes(body[:_ERROR_BODY_BYTES]),
            repeatable=repeatable,
            now=self._now(),
            dialect=self._dialect,
            private=(*self._secrets, *private),
        )
        if error.error in (errors.RATE_LIMITED, errors.UNAVAILABLE) and error.retry_after_seconds:
            self._pace.quiet(error.retry_after_seconds)
        return error.error(f"{self._provider}: {error.detail}", retry_after_seconds=error.retry_after_seconds)


async def _by(deadline: float, step: Awaitable[_T]) -> _T:
    """Await `step`, but not past `deadline`. Per step, since a time limit may not span the `yield` of a generator."""
    async with asyncio.timeout_at(deadline):
        return await step


def _is_web_address(url: str) -> bool:
    try:
        parts = httpx.URL(url)
    except httpx.InvalidURL:
        return False
    return parts.scheme in ("http", "https") and bool(parts.host)


@functools.cache
def certificates() -> ssl.SSLContext:
    """Read once for all providers: it takes longer than most calls."""
    return httpx.create_ssl_context()


def _is_loopback(url: str) -> bool:
    host = httpx.URL(url).host
    return host == "localhost" or host == "::1" or host.startswith("127.")


async def _next(pieces: AsyncIterator[bytes]) -> bytes | None:
    return await anext(pieces, None)
