"""The spend policy in front of a key: a `Signer` that signs only what the charter names, within what may be spent."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from solders.pubkey import Pubkey

from oracle.chain.signer import Signer
from oracle.core.errors import OracleError
from oracle.core.spending import DAY_SPENT, Caps, Charter, Spend, judge

DAY_MS: Final = 86_400_000
_BLOCKS_A_DAY: Final = 200

SetAside = Callable[[int, Spend, Spend], Awaitable[Spend]]
"""Set aside from the allowance of a day, durably: the day's number, the least and the most; returns how much it was.
Raises ORC-SIGNER-012."""


class Allowance:
    """What may still be spent today. It is set aside durably in blocks, so that a signature rarely waits for the disk.

    What was set aside and not spent when the process dies counts as spent: at most as much as it has spent itself, so
    that a process that dies again and again does not use the day up by dying, and at most a two-hundredth of the day.
    """

    def __init__(self, caps: Caps, set_aside: SetAside, now_ms: Callable[[], int]) -> None:
        self._set_aside = set_aside
        self._now_ms = now_ms
        self._largest_block = Spend(caps.day.lamports // _BLOCKS_A_DAY, caps.day.micro_nos // _BLOCKS_A_DAY)
        self._lock = asyncio.Lock()
        self._day = -1
        self._left = Spend()
        self._used = Spend()

    @property
    def today(self) -> int:
        return max(self._day, self._now_ms() // DAY_MS)

    async def take(self, spend: Spend) -> int:
        """Count `spend` on today, whose number is returned. Raises ORC-SIGNER-012 where that is too much."""
        async with self._lock:
            today = self.today
            if today != self._day:
                self._day, self._left, self._used = today, Spend(), Spend()
            missing = spend.less(self._left)
            if missing != Spend():
                block = self._largest_block.at_most(self._used)
                block = Spend(block.lamports if missing.lamports else 0, block.micro_nos if missing.micro_nos else 0)
                self._left += await self._set_aside(today, missing, missing + block)
            self._left, self._used = self._left.less(spend), self._used + spend
            return today

    async def give_back(self, spend: Spend, day: int) -> None:
        """Nothing was signed after all. What was set aside stays so, and pays for the next one."""
        async with self._lock:
            if day == self._day:
                self._left, self._used = self._left + spend, self._used.less(spend)


class Guard:
    """A `Signer` that refuses what the daemon does not make, and what costs too much. Raises ORC-SIGNER-010 … 012."""

    def __init__(self, signer: Signer, charter: Charter, caps: Caps, allowance: Allowance) -> None:
        self._signer = signer
        self._charter = charter
        self._caps = caps
        self._allowance = allowance
        self._spent_out: tuple[int, str] | None = None

    @property
    def public_key(self) -> Pubkey:
        return self._signer.public_key

    @property
    def trouble(self) -> str | None:
        if self._spent_out is not None and self._spent_out[0] == self._allowance.today:
            return self._spent_out[1]
        return self._signer.trouble

    async def ready(self) -> None:
        await self._signer.ready()

    async def sign(self, message: bytes, *, micro_nos: int = 0) -> bytes:
        spend = judge(message, self.public_key, self._charter, self._caps, micro_nos=micro_nos)
        try:
            day = await self._allowance.take(spend)
        except OracleError as error:
            self._spent_out = (self._allowance.today, str(error)) if error.error is DAY_SPENT else None
            raise
        self._spent_out = None
        try:
            return await self._signer.sign(message, micro_nos=micro_nos)
        except OracleError:
            await self._allowance.give_back(spend, day)
            raise

    def __repr__(self) -> str:
        return f"Guard({self._signer!r})"
