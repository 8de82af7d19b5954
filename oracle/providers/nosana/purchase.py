"""Buying one job so that a lost answer never buys a second (specs/nosana.md §6.4)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from oracle.core.errors import OracleError, Verdict
from oracle.providers import errors
from oracle.providers.nosana.api import NosanaApi, Posted, Refusal

# Nosana's own service numbers its keys so; one is used up only when its transaction is provably dead.
EPOCHS: Final = 4
PURCHASE_SECONDS: Final = 30.0
_FIRST_WAIT_SECONDS: Final = 1.0


class Purchase:
    """Posts jobs under idempotency keys: the same key and body again is an answer, not a second job."""

    def __init__(
        self,
        api: NosanaApi,
        *,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._api = api
        self._clock = clock
        self._now = now
        self._sleep = sleep

    async def buy(self, cid: str, markets: Sequence[str], timeout_seconds: int, key: str) -> tuple[Posted, str]:
        """The job and its market: the first of `markets`, or the one under which `key` has bought already.

        An earlier process may have chosen another market for this very key. The provider then answers that the body
        differs, which buys nothing, so the other markets may be tried until it recognises its own.
        Raises ORC-PROVIDER-028 where it recognises none, ORC-PROVIDER-029 where nothing was bought, and an error of
        `Verdict.UNKNOWN` where that stays open.
        """
        for number, market in enumerate(markets):
            try:
                posted = await self._under(cid, market, timeout_seconds, key)
            except OracleError as error:
                # The key has bought before, in another form: no refusal of this form can make that undone.
                if number > 0 and error.verdict is not Verdict.UNKNOWN:
                    break
                raise
            if posted is not None:
                return posted, market
        raise errors.PURCHASE_CONFLICT(f"key {key}")

    async def _under(self, cid: str, market: str, timeout_seconds: int, key: str) -> Posted | None:
        for epoch in range(EPOCHS):
            outcome = await self._settled(cid, market, timeout_seconds, f"{key}:{epoch}")
            if outcome is Refusal.PAYLOAD_MISMATCH:
                return None
            if isinstance(outcome, Posted):
                return outcome
        raise errors.PURCHASE_EXPIRED(f"key {key}")

    async def _settled(self, cid: str, market: str, timeout_seconds: int, key: str) -> Posted | Refusal:
        """Ask with the same key until the answer says what became of it.

        Once a call may have landed, a refusal of the next one proves nothing: the account may be out of credit because
        the first one has reserved it.
        """
        deadline = self._clock() + PURCHASE_SECONDS
        wait = _FIRST_WAIT_SECONDS
        may_have_landed = False
        while True:
            asked = wait
            try:
                outcome = await self._api.post(cid, market, timeout_seconds, key, self._now())
            except OracleError as error:
                if error.verdict is Verdict.UNKNOWN or error.error is errors.UNAVAILABLE:
                    may_have_landed = True
                elif not may_have_landed:
                    raise
                asked = error.retry_after_seconds or wait
            else:
                if not isinstance(outcome, float):
                    return outcome
                may_have_landed = True
                asked = max(outcome, _FIRST_WAIT_SECONDS)
            if self._clock() + asked >= deadline:
                raise errors.NO_ANSWER(f"no clear answer in {PURCHASE_SECONDS:g} s under key {key}")
            await self._sleep(asked)
            wait *= 2
