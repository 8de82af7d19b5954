"""What compute cost in recent slots: the answers of `getRecentPrioritizationFees`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from solders.pubkey import Pubkey

REMEMBERED_SLOTS = 150


@dataclass(slots=True)
class _SlotPrices:
    lowest: int | None = None
    by_account: dict[Pubkey, int] = field(default_factory=dict)


class Prices:
    """Compute prices in micro-lamports per unit, by slot. Forgotten when the process ends, as on a validator."""

    def __init__(self) -> None:
        self._slots: dict[int, _SlotPrices] = {}

    def slot_opened(self, slot: int) -> None:
        self._slots[slot] = _SlotPrices()
        while len(self._slots) > REMEMBERED_SLOTS:
            del self._slots[next(iter(self._slots))]

    def slots_dropped(self, kept: int) -> None:
        self._slots = {slot: prices for slot, prices in self._slots.items() if slot <= kept}

    def paid(self, slot: int, price: int, written: Iterable[Pubkey]) -> None:
        """Notes a transaction that landed."""
        prices = self._slots[slot]
        prices.lowest = price if prices.lowest is None else min(prices.lowest, price)
        for address in written:
            prices.by_account[address] = min(prices.by_account.get(address, price), price)

    def recent(self, addresses: Sequence[Pubkey]) -> list[tuple[int, int]]:
        """For each slot, oldest first, the lowest price that got write locks on all of `addresses` into the block."""
        return [
            (slot, max([prices.lowest or 0, *(prices.by_account.get(address, 0) for address in addresses)]))
            for slot, prices in self._slots.items()
        ]
