"""The price per compute unit that a settlement offers: from what recently landed beside it, within a cap."""

from __future__ import annotations

from collections.abc import Sequence

import structlog
from solders.pubkey import Pubkey

from oracle.chain.rpc.client import Client
from oracle.config import Settlement
from oracle.core.errors import OracleError
from oracle.core.settlement import priority_price
from oracle.pipeline.clock import Clock

log = structlog.get_logger(__name__)

FRESH_SECONDS = 10.0
MOST_ADDRESSES = 128
"""Of one question (getRecentPrioritizationFees)."""


class Fees:
    """Recent fees of transactions that write what ours write."""

    def __init__(self, rpc: Client, operator: Pubkey, settings: Settlement, clock: Clock) -> None:
        self._rpc, self._operator, self._settings, self._clock = rpc, operator, settings, clock
        self._recent: list[int] = []
        self._asked_at = float("-inf")

    async def price(self, written: Sequence[Pubkey] = (), *, escalation: int = 0) -> int:
        """Micro-lamports per compute unit, for a settlement that writes these accounts and the operator's.

        Asked once for all that go out within ten seconds: most write fresh accounts that nobody else writes, and what
        is asked of each pack would be asked a hundred times a second. An endpoint that does not answer leaves the last
        price in force.
        """
        if self._clock.monotonic() - self._asked_at > FRESH_SECONDS:
            self._asked_at = self._clock.monotonic()
            try:
                addresses = list(dict.fromkeys([self._operator, *written]))[:MOST_ADDRESSES]
                fees = await self._rpc.get_recent_prioritization_fees(addresses)
                self._recent = [fee.micro_lamports for fee in fees]
            except OracleError as error:
                log.info("recent fees unknown", code=error.code, detail=error.detail)
        return self._priced(self._recent, escalation)

    async def price_beside(self, addresses: Sequence[Pubkey]) -> int:
        """The same for a transaction that writes these accounts: others may compete for them."""
        try:
            fees = await self._rpc.get_recent_prioritization_fees(addresses)
        except OracleError as error:
            log.info("recent fees unknown", code=error.code, detail=error.detail)
            return await self.price()
        return self._priced([fee.micro_lamports for fee in fees], 0)

    def _priced(self, recent: Sequence[int], escalation: int) -> int:
        return priority_price(
            recent,
            percentile=self._settings.priority_percentile,
            cap=self._settings.max_priority_micro_lamports,
            escalation=escalation,
        )
