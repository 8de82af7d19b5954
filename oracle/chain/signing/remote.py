"""A key that is held elsewhere: asked with patience, believed only after the signature is verified."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from typing import Final, Protocol, TypeVar

import structlog
from solders.pubkey import Pubkey
from solders.signature import Signature

from oracle.chain.signing.errors import SIGNATURE_WRONG, SIGNER_UNAVAILABLE
from oracle.core.backoff import backoff_seconds
from oracle.core.errors import OracleError

log = structlog.get_logger(__name__)
T = TypeVar("T")

ATTEMPT_SECONDS: Final = 4.0
PATIENCE_SECONDS: Final = 8.0
"""Shorter than the default margin before a deadline, and much shorter than a blockhash lives."""


class Backend(Protocol):
    """Who holds the key. Each call is made once; ORC-SIGNER-005 says that another try may help."""

    @property
    def name(self) -> str: ...

    async def public_key(self) -> Pubkey: ...

    async def sign(self, message: bytes, micro_nos: int) -> bytes: ...

    async def close(self) -> None: ...


class RemoteSigner:
    """A `Signer` over a backend. Raises ORC-SIGNER-005 … 008, and what a signing server refuses."""

    def __init__(
        self,
        backend: Backend,
        public_key: Pubkey,
        *,
        now: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._backend = backend
        self._public_key = public_key
        self._now, self._sleep, self._jitter = now, sleep, jitter
        self._trouble: str | None = None
        self._probing = asyncio.Lock()

    @classmethod
    async def open(cls, backend: Backend) -> RemoteSigner:
        """Ask for the public key, with patience."""
        signer = cls(backend, Pubkey.default())
        try:
            signer._public_key = await signer._patiently(backend.public_key)
        except BaseException:
            await backend.close()
            raise
        log.info("signer opened", signer=backend.name, key=str(signer.public_key))
        return signer

    @property
    def public_key(self) -> Pubkey:
        return self._public_key

    @property
    def trouble(self) -> str | None:
        return self._trouble

    async def ready(self) -> None:
        """After a failure: see that it answers again, before a blockhash is fetched for it."""
        async with self._probing:
            if self._trouble is None:
                return
            found = await self._patiently(self._backend.public_key)
            if found != self._public_key:
                raise self._in_trouble(SIGNATURE_WRONG(f"{self._backend.name} has the key {found} now"))
            self._trouble = None
            log.info("signer answers again", signer=self._backend.name)

    async def sign(self, message: bytes, *, micro_nos: int = 0) -> bytes:
        signature = await self._patiently(lambda: self._backend.sign(message, micro_nos))
        if len(signature) != 64 or not Signature.from_bytes(signature).verify(self._public_key, message):
            raise self._in_trouble(SIGNATURE_WRONG(self._backend.name))
        return signature

    async def close(self) -> None:
        await self._backend.close()

    async def _patiently(self, ask: Callable[[], Awaitable[T]]) -> T:
        give_up_at, failures = self._now() + PATIENCE_SECONDS, 0
        while True:
            try:
                async with asyncio.timeout(ATTEMPT_SECONDS):
                    return await ask()
            except TimeoutError:
                error = SIGNER_UNAVAILABLE(f"{self._backend.name}: no answer in {ATTEMPT_SECONDS:g} s")
            except OracleError as refused:
                if refused.error is not SIGNER_UNAVAILABLE:
                    raise self._in_trouble(refused) from None
                error = refused
            wait = backoff_seconds(failures, self._jitter(), first=0.2, most=2.0, told=error.retry_after_seconds)
            failures += 1
            if self._now() + wait + ATTEMPT_SECONDS > give_up_at:
                raise self._in_trouble(error)
            await self._sleep(wait)

    def _in_trouble(self, error: OracleError) -> OracleError:
        if error.code.startswith("ORC-SIGNER-00"):  # not what a signing server says of one transaction
            self._trouble = str(error)
        return error

    def __repr__(self) -> str:
        return f"RemoteSigner({self._backend.name}, {self.public_key})"
