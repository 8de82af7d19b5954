"""Transactions on their way: how the network treats them, and how often the node sends them again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from solders.transaction import VersionedTransaction

Delivery = Callable[[VersionedTransaction], int | None]
"""How the network treats a transaction: slots until it reaches a leader, 0 for at once, `None` if it is lost."""

_WITHOUT_END = 2**32


@dataclass(frozen=True, slots=True)
class _Sent:
    tx: VersionedTransaction
    retries: int


class InFlight:
    """What was sent and is not rooted yet.

    `land` puts a transaction into the open slot if it can be, and tells whether it is in the chain now; `is_young`
    tells whether its blockhash is still good.
    """

    def __init__(
        self,
        delivery: Delivery,
        land: Callable[[VersionedTransaction], bool],
        is_young: Callable[[VersionedTransaction], bool],
    ) -> None:
        self._delivery = delivery
        self._land = land
        self._is_young = is_young
        self._waiting: list[_Sent] = []
        self._landed: dict[int, list[_Sent]] = {}
        self._under_way: list[tuple[int, VersionedTransaction]] = []

    def send(self, tx: VersionedTransaction, max_retries: int | None, slot: int) -> None:
        """Sends a transaction while `slot` is open. It is sent again every slot that it is not in the chain."""
        self._try(_Sent(tx, _WITHOUT_END if max_retries is None else max_retries), slot)

    def slot_opened(self, slot: int, root: int) -> None:
        """Delivers what is due in a slot, and sends again what has not landed."""
        due = [tx for due_slot, tx in self._under_way if due_slot <= slot]
        self._under_way = [item for item in self._under_way if item[0] > slot]
        for tx in due:
            self._land(tx)
        waiting, self._waiting = self._waiting, []
        for sent in waiting:
            if sent.retries and self._is_young(sent.tx):
                self._try(replace(sent, retries=sent.retries - 1), slot)
        for landed_slot in [one for one in self._landed if one <= root]:
            del self._landed[landed_slot]

    def slots_dropped(self, kept: int) -> None:
        """Has what landed after slot `kept` sent again."""
        for slot in [one for one in self._landed if one > kept]:
            self._waiting += self._landed.pop(slot)

    def _try(self, sent: _Sent, slot: int) -> None:
        delay_slots = self._delivery(sent.tx)
        if delay_slots == 0 and self._land(sent.tx):
            self._landed.setdefault(slot, []).append(sent)
            return
        if delay_slots:
            self._under_way.append((slot + delay_slots, sent.tx))
        self._waiting.append(sent)
