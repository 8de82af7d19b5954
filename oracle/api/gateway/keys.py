"""Who calls, and whether it may now: keys by their hash, calls in a minute, calls at once."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from asyncio_throttle.throttler import Throttler

from oracle.api.gateway.errors import KEY_UNKNOWN, KEY_UNUSABLE, NO_KEYS, TOO_FAST, TOO_MANY_AT_ONCE
from oracle.config import GatewayKey
from oracle.core.errors import OracleError
from oracle.providers.secrets import read_secret

SHORTEST_KEY: Final = 16
MINUTE_SECONDS: Final = 60.0


@dataclass(slots=True)
class Client:
    """A client by its name, its limits, and how many calls of it are under way."""

    name: str
    settings: GatewayKey
    clock: Callable[[], float] = time.monotonic
    under_way: int = 0
    _throttle: Throttler = field(init=False)
    _granted_at: deque[float] = field(init=False)

    def __post_init__(self) -> None:
        limit = self.settings.requests_per_minute
        self._throttle = Throttler(rate_limit=limit, period=MINUTE_SECONDS)
        self._granted_at = deque(maxlen=limit)

    @contextlib.asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """One call. Raises ORC-GATEWAY-008 or 009 at once: who is told how long can wait better than who is not."""
        if self.under_way >= self.settings.concurrent:
            raise TOO_MANY_AT_ONCE(f"at most {self.settings.concurrent}", retry_after_seconds=1.0)
        await self._pass()
        self.under_way += 1
        try:
            yield
        finally:
            self.under_way -= 1

    async def _pass(self) -> None:
        try:
            # It either grants at once, without giving way to anyone, or would wait.
            async with asyncio.timeout(0):
                await self._throttle.acquire()  # type: ignore[no-untyped-call]
        except TimeoutError:
            limit = self.settings.requests_per_minute
            wait = max(0.0, self._granted_at[0] + MINUTE_SECONDS - self.clock())
            raise TOO_FAST(f"at most {limit} in a minute", retry_after_seconds=wait) from None
        self._granted_at.append(self.clock())


class Clients:
    """The clients by the SHA-256 of their keys. The keys themselves are not kept."""

    def __init__(self, keys: Mapping[str, GatewayKey], environ: Mapping[str, str]) -> None:
        """Raises ORC-GATEWAY-002 where there is no key, and 003 where one cannot be used."""
        if not keys:
            raise NO_KEYS()
        self._by_hash: dict[str, Client] = {}
        for name, settings in keys.items():
            client = Client(name, settings)
            known = self._by_hash.setdefault(_hash_of(name, settings, environ), client)
            if known is not client:
                raise KEY_UNUSABLE(f"{name} has the key of {known.name}")

    def of(self, authorization: str | None) -> Client:
        """The client that an `Authorization` header names. Raises ORC-GATEWAY-001."""
        scheme, _, key = (authorization or "").partition(" ")
        client = None
        if scheme.lower() == "bearer":
            client = self._by_hash.get(hashlib.sha256(key.strip().encode(errors="surrogateescape")).hexdigest())
        if client is None:
            raise KEY_UNKNOWN()
        return client

    @property
    def under_way(self) -> int:
        return sum(client.under_way for client in self._by_hash.values())


def _hash_of(name: str, settings: GatewayKey, environ: Mapping[str, str]) -> str:
    if settings.sha256 is not None:
        return settings.sha256
    try:
        key = read_secret(f"gateway.keys.{name}.key", None, settings.key_file, settings.key_env, environ)
    except OracleError as error:
        raise KEY_UNUSABLE(f"{name}: {error.detail}") from None
    if key is None:
        raise KEY_UNUSABLE(f"{name}: none of sha256, key_file and key_env is set")
    if len(key) < SHORTEST_KEY:
        raise KEY_UNUSABLE(f"{name}: shorter than {SHORTEST_KEY} characters")
    return hashlib.sha256(key.encode()).hexdigest()
