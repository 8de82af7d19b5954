"""Blockhashes to sign on: packs that are signed in the same moment share one, and the read that proves its age."""

from __future__ import annotations

import asyncio

from oracle.chain.rpc.client import Client
from oracle.chain.rpc.types import Blockhash
from oracle.pipeline.clock import Clock

FRESH_SECONDS = 1.0
"""Far less than the minute for which a blockhash lives: what is signed on it has nearly all of its life before it."""


class Blockhashes:
    """The newest blockhash, read anew where the last read is a second old or older than the slot asked for."""

    def __init__(self, rpc: Client, clock: Clock) -> None:
        self._rpc, self._clock = rpc, clock
        self._newest: Blockhash | None = None
        self._read_at = float("-inf")
        self._reading = asyncio.Lock()

    async def get(self, min_context_slot: int) -> Blockhash:
        """As of this slot or a later one. Raises what the read raises."""
        async with self._reading:
            newest = self._newest
            is_fresh = self._clock.monotonic() - self._read_at < FRESH_SECONDS
            if newest is None or not is_fresh or newest.slot < min_context_slot:
                read_at = self._clock.monotonic()
                newest = await self._rpc.get_latest_blockhash(min_context_slot=min_context_slot)
                self._newest, self._read_at = newest, read_at
            return newest
