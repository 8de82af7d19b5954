"""How many settlements go into one transaction, and which: most urgent first, as many as fit in 1,232 bytes.

Sizes are computed, not serialised: packing thousands of waiting results must cost microseconds each. A test holds
the arithmetic against the bytes that solders produces.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

T = TypeVar("T")

TRANSACTION_BYTES: Final = 1_232
"""`PACKET_DATA_SIZE` of Agave: IPv6 minimum MTU less headers."""

MAX_COMPUTE_UNITS: Final = 1_400_000

_SIGNATURE: Final = 64
_KEY: Final = 32
# Version byte, three header bytes, blockhash, and the empty table-lookup list of a v0 message.
_FIXED: Final = 1 + 3 + 32 + 1
# SetComputeUnitLimit (5 data bytes) and SetComputeUnitPrice (9): program index, no accounts, data with its length.
_BUDGET_INSTRUCTIONS: Final = (1 + 1 + 1 + 5) + (1 + 1 + 1 + 9)


@dataclass(frozen=True, slots=True)
class Item:
    """One instruction to be packed. `keys` are its accounts (base58 or raw), the program's own among them.

    `accounts` is how many account indices the instruction lists; `signers` are the keys that must sign.
    `alone` keeps it out of any shared transaction: a member of a pack that failed on chain is tried again like this.
    """

    id: int
    deadline_slot: int
    keys: frozenset[str]
    signers: frozenset[str]
    accounts: int
    data_bytes: int
    compute_units: int
    alone: bool = False


def compact_length(n: int) -> int:
    """Bytes of Solana's compact-u16 length prefix."""
    return 1 if n < 0x80 else 2 if n < 0x4000 else 3


def transaction_bytes(items: Sequence[Item], payer: str) -> int:
    """Wire size of a v0 transaction with the two compute-budget instructions before `items`."""
    keys = {payer, "compute-budget"}
    signers = {payer}
    for item in items:
        keys |= item.keys
        signers |= item.signers
    keys |= signers
    instructions = _BUDGET_INSTRUCTIONS + sum(_instruction_bytes(item) for item in items)
    return (
        compact_length(len(signers))
        + _SIGNATURE * len(signers)
        + _FIXED
        + compact_length(len(keys))
        + _KEY * len(keys)
        + compact_length(len(items) + 2)
        + instructions
    )


def _instruction_bytes(item: Item) -> int:
    return 1 + compact_length(item.accounts) + item.accounts + compact_length(item.data_bytes) + item.data_bytes


def pack(items: Iterable[Item], payer: str) -> list[tuple[Item, ...]]:
    """Group items into transactions: earliest deadline first, then lowest id; nothing is left out.

    First fit in that order would let a small late item overtake; so a pack closes at the first item that does not
    fit, and urgency is kept across packs. An item that is `alone` makes a pack of its own.
    """
    packs: list[tuple[Item, ...]] = []
    current: list[Item] = []
    for item in sorted(items, key=lambda i: (i.deadline_slot, i.id)):
        if item.alone:
            packs.append((item,))
        elif current and not _fits([*current, item], payer):
            packs.append(tuple(current))
            current = [item]
        else:
            current.append(item)
    if current:
        packs.append(tuple(current))
    return sorted(packs, key=lambda p: (p[0].deadline_slot, p[0].id))


def _fits(items: Sequence[Item], payer: str) -> bool:
    # A transaction may lock 64 accounts; their keys alone would take more bytes than it has.
    return (
        transaction_bytes(items, payer) <= TRANSACTION_BYTES
        and sum(item.compute_units for item in items) <= MAX_COMPUTE_UNITS
    )


def bisect(members: Sequence[T]) -> list[tuple[T, ...]]:
    """Two halves of a pack that failed without naming its culprit; a single member stays alone."""
    if len(members) <= 1:
        return [tuple(members)] if members else []
    middle = len(members) // 2
    return [tuple(members[:middle]), tuple(members[middle:])]
