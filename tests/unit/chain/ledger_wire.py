"""A node over a small ledger of accounts by slot, to scan and to subscribe to. It is told what happens and when."""

from __future__ import annotations

import base64
from typing import Any

from rpc_wire import Node, NodeError, in_context
from solders.pubkey import Pubkey

PROGRAM = Pubkey.new_unique()
QUEUE = Pubkey.new_unique()
DISCRIMINATOR = b"RequestD"

PENDING, CLAIMED, FULFILLED = 0, 1, 2


def request_data(
    status: int, created_slot: int, *, queue: Pubkey = QUEUE, operator: bytes = bytes(32), tail: bytes = b"body"
) -> bytes:
    data = bytearray(352)
    data[:8] = DISCRIMINATOR
    data[8], data[9] = 1, status
    data[16:48] = bytes(queue)
    data[48:80] = operator
    data[104:112] = created_slot.to_bytes(8, "little")
    return bytes(data) + tail


class Ledger:
    """Accounts as every commitment sees them. `confirmed` and `finalized` are slots and may be set at will."""

    def __init__(self, confirmed: int = 100, finalized: int = 68) -> None:
        self.confirmed, self.finalized = confirmed, finalized
        self.history: dict[Pubkey, list[tuple[int, bytes | None, Pubkey]]] = {}
        self.node = Node(
            getSlot=lambda config: self._slot(config),
            getProgramAccounts=self._program_accounts,
            getMultipleAccounts=self._accounts,
        )

    def put(self, address: Pubkey, data: bytes | None, slot: int, owner: Pubkey = PROGRAM) -> None:
        """From `slot` on the account stands so; None is its end."""
        self.history.setdefault(address, []).append((slot, data, owner))

    def _slot(self, config: dict[str, Any]) -> int:
        slot = self.finalized if config["commitment"] == "finalized" else self.confirmed
        if slot < config.get("minContextSlot", 0):
            raise NodeError(-32016, "Minimum context slot has not been reached", {"contextSlot": slot})
        return slot

    def _at(self, address: Pubkey, slot: int) -> tuple[bytes, Pubkey] | None:
        states = [(data, owner) for since, data, owner in self.history.get(address, []) if since <= slot]
        if not states or states[-1][0] is None:
            return None
        return states[-1]  # type: ignore[return-value]

    def account_json(self, data: bytes, owner: Pubkey, config: dict[str, Any]) -> dict[str, Any]:
        cut = config.get("dataSlice", {"offset": 0, "length": len(data)})
        data = data[cut["offset"] : cut["offset"] + cut["length"]]
        return {"lamports": 1, "owner": str(owner), "data": [base64.b64encode(data).decode(), "base64"]}

    def _accounts(self, keys: list[str], config: dict[str, Any]) -> Any:
        slot = self._slot(config)
        found = [self._at(Pubkey.from_string(key), slot) for key in keys]
        return in_context(slot, [None if a is None else self.account_json(*a, config) for a in found])

    def _program_accounts(self, program: str, config: dict[str, Any]) -> Any:
        slot = self._slot(config)
        items = []
        for address in self.history:
            found = self._at(address, slot)
            if found is not None and str(found[1]) == program and _passes(found[0], config["filters"]):
                items.append({"pubkey": str(address), "account": self.account_json(*found, config)})
        return in_context(slot, items)


def _passes(data: bytes, filters: list[dict[str, Any]]) -> bool:
    for one in filters:
        wanted = base64.b64decode(one["memcmp"]["bytes"])
        at = one["memcmp"]["offset"]
        if data[at : at + len(wanted)] != wanted:
            return False
    return True
