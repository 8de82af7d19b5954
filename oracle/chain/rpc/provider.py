"""One endpoint: throttle, post, judge the HTTP status, take errors out, and only then parse.

solana-py parses before it looks, and solders panics (a `BaseException`) on errors that real nodes send. Here every
answer is untrusted: whatever comes back, the caller meets a value of the right shape or a coded error.
"""

from __future__ import annotations

import asyncio
import itertools
import re
import time
from collections.abc import Awaitable, Callable, Sequence
from email.utils import parsedate_to_datetime
from typing import Any, Final, TypeVar

import orjson

from oracle.chain.rpc.address import address
from oracle.chain.rpc.connection import Answer, Lost, TooLong
from oracle.chain.rpc.errors import (
    ANSWER_LOST,
    BEHIND,
    GARBAGE,
    NODE_ERROR,
    RATE_LIMITED,
    REFUSED,
    SEND_UNCERTAIN,
    SERVER_ERROR,
    TOO_LARGE,
    UNREACHABLE,
    RpcError,
    node_error,
)
from oracle.chain.rpc.http import Http, NotSent, Wire
from oracle.chain.rpc.limits import Limits, Throttle
from oracle.chain.rpc.meter import Meter
from oracle.chain.rpc.shapes import Misshapen, TooOld
from oracle.chain.rpc.transport import Call
from oracle.core.errors import OracleError

T = TypeVar("T")

BULK_BYTES: Final = 512 * 1024
"""From here on a body is read by `Call.read_bulk`: orjson takes about 10 ms for as much."""
_MOST_BYTES: Final = 64 * 1024 * 1024
_MOST_BULK_BYTES: Final = 512 * 1024 * 1024
_EDGE_BYTES: Final = 64
_ID_FIRST: Final = re.compile(rb'\s*\{\s*(?:"jsonrpc"\s*:\s*"2\.0"\s*,\s*)?"id"\s*:\s*(\d{1,18})\s*,')
_ID_LAST: Final = re.compile(rb',\s*"id"\s*:\s*(\d{1,18})\s*(?:,\s*"jsonrpc"\s*:\s*"2\.0"\s*)?\}\s*$')
_BULK_PATIENCE: Final = 6
"""How many times the usual time-out a bulk read may take."""


class Provider:
    """A `Transport` to one endpoint. It makes each call once; trying again is the pool's affair.

    `limits` None leaves the rate free. `on_slot` hears the context slot of every answer.
    """

    def __init__(
        self,
        url: str,
        *,
        limits: Limits | None = None,
        timeout_seconds: float = 10.0,
        wire: Wire | None = None,
        on_slot: Callable[[int], None] = lambda slot: None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._address = address(url)
        self._throttle = Throttle(limits)
        self._timeout_seconds = timeout_seconds
        self._on_slot = on_slot
        self._now = now
        self.meter = Meter()
        self._ids = itertools.count(1)
        self._wire = wire or Http(self._address.url)

    @property
    def name(self) -> str:
        return self._address.name

    @property
    def tip_slot(self) -> int:
        return 0

    async def call(self, call: Call[T]) -> T:
        try:
            return await self._call(call)
        except OracleError as error:
            if call.acts and error.error in (ANSWER_LOST, GARBAGE, SERVER_ERROR, TOO_LARGE):
                raise SEND_UNCERTAIN(error.detail, retry_after_seconds=error.retry_after_seconds) from error
            raise

    async def broadcast(self, call: Call[T]) -> T:
        return await self.call(call)

    def pinned(self) -> Provider:
        return self

    async def close(self) -> None:
        await self._wire.close()

    async def _call(self, call: Call[T]) -> T:
        asked_at = self._now()
        await self._throttle.wait(call.method)
        sent_at = self._now()
        self.meter.throttled_seconds += sent_at - asked_at
        try:
            answer = await self._asked(call)
        except OracleError as error:
            self.meter.took(call.method, self._now() - sent_at, code=error.code)
            raise
        self.meter.took(call.method, self._now() - sent_at)
        return answer

    async def _asked(self, call: Call[T]) -> T:
        where = f"{self.name} {call.method}"
        pieces = await self._post(where, call)
        if call.read_bulk is not None and sum(map(len, pieces)) >= BULK_BYTES:
            return await _guarded_bulk(where, call.read_bulk, pieces)
        result = self._result(where, b"".join(pieces))
        if isinstance(result, dict) and isinstance(context := result.get("context"), dict):
            slot = context.get("slot")
            if isinstance(slot, int) and 0 < slot < 2**63:
                self._on_slot(slot)
        return _guarded(where, call.read, result)

    async def _post(self, where: str, call: Call[Any]) -> Sequence[bytes]:
        asked = next(self._ids)
        content = orjson.dumps({"jsonrpc": "2.0", "id": asked, "method": call.method, "params": list(call.params)})
        is_bulk = call.read_bulk is not None
        try:
            answer = await self._wire.post(
                content,
                most_bytes=_MOST_BULK_BYTES if is_bulk else _MOST_BYTES,
                seconds=self._timeout_seconds * (_BULK_PATIENCE if is_bulk else 1),
            )
        # "from None": what the network says is in the detail, scrubbed; its own text might show the URL.
        except NotSent as error:
            raise UNREACHABLE(f"{where}: {self._address.scrub(str(error))}") from None
        except Lost as error:
            raise ANSWER_LOST(f"{where}: {self._address.scrub(str(error))}") from None
        except TooLong as error:
            raise TOO_LARGE(f"{where}: {error}") from None
        if answer.status != 200:
            raise self._http_error(where, answer)
        if (answered := _id_of(answer.pieces)) not in (asked, None):
            # Somebody on the way has answered twice, and from now on every answer of that connection is an older one's.
            await self._wire.close()
            raise GARBAGE(f"{where}: the answer to call {answered}, not to call {asked}")
        return answer.pieces

    def _http_error(self, where: str, answer: Answer) -> OracleError:
        status = answer.status
        detail = f"{where}: HTTP {status}"
        if status == 429:
            return RATE_LIMITED(detail, retry_after_seconds=_retry_after(answer))
        if status >= 500:
            return SERVER_ERROR(detail, retry_after_seconds=_retry_after(answer))
        try:
            self._result(where, b"".join(answer.pieces))  # some nodes put their JSON-RPC error under a 4xx
        except OracleError as error:
            if isinstance(error, RpcError) and error.rpc_code < 0:
                return error
        return REFUSED(detail)

    def _result(self, where: str, body: bytes) -> Any:
        try:
            envelope = orjson.loads(body)
        except orjson.JSONDecodeError:
            raise GARBAGE(f"{where}: not JSON: {self._address.scrub(repr(body[:60]))}") from None
        if not isinstance(envelope, dict):
            raise GARBAGE(f"{where}: not a JSON-RPC answer")
        if (error := envelope.get("error")) is not None:
            raise self._node_error(where, error)
        if "result" not in envelope:
            raise GARBAGE(f"{where}: neither result nor error")
        return envelope["result"]

    def _node_error(self, where: str, error: Any) -> OracleError:
        if not isinstance(error, dict):
            return NODE_ERROR(f"{where}: {self._address.scrub(str(error))}")
        code, message = error.get("code"), error.get("message")
        return node_error(
            where,
            code if isinstance(code, int) else 0,
            self._address.scrub(message if isinstance(message, str) else repr(message)),
            error.get("data"),
        )


def _retry_after(answer: Answer) -> float | None:
    """Seconds, from the header's number or date. A wait of more than five minutes is cut: it is a mistake or malice."""
    header = answer.headers.get(b"retry-after", b"").decode("latin-1")
    try:
        seconds = float(header)
    except ValueError:
        try:
            now = parsedate_to_datetime(answer.headers.get(b"date", b"").decode("latin-1"))
            seconds = (parsedate_to_datetime(header) - now).total_seconds()
        except (ValueError, TypeError, OverflowError):
            return None
    return min(max(seconds, 0.0), 300.0) if seconds == seconds else None


def _id_of(pieces: Sequence[bytes]) -> int | None:
    """Which call a body says that it answers: before its result or after it, and nowhere else, so that it is found
    without parsing. No result holds an `"id"` of its own that close to the edge."""
    head = b"".join(piece[:_EDGE_BYTES] for piece in pieces[:2])[:_EDGE_BYTES]
    tail = b"".join(piece[-_EDGE_BYTES:] for piece in pieces[-2:])[-_EDGE_BYTES:]
    found = _ID_FIRST.match(head) or _ID_LAST.search(tail)
    return int(found[1]) if found else None


def _guarded(where: str, read: Callable[[Any], T], result: Any) -> T:
    try:
        return read(result)
    except OracleError:
        raise
    except TooOld as error:
        raise BEHIND(f"{where}: {error}") from None
    except Misshapen as error:
        raise GARBAGE(f"{where}: {error}") from None
    except (asyncio.CancelledError, KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # solders' PanicException is a BaseException: let through, it ends the daemon
        raise GARBAGE(f"{where}: {type(error).__name__}") from error


async def _guarded_bulk(where: str, read: Callable[[Sequence[bytes]], Awaitable[T]], body: Sequence[bytes]) -> T:
    try:
        return await read(body)
    except TooOld as error:
        raise BEHIND(f"{where}: {error}") from None
    except Misshapen as error:
        raise GARBAGE(f"{where}: {error}") from None
