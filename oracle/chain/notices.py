"""What a subscription tells: the notices, and how each is read from a notification's `result`.

The readers raise `Misshapen` (a `ValueError`) for what is not of the right shape.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from solders.pubkey import Pubkey
from solders.signature import Signature

from oracle.chain.rpc import shapes
from oracle.chain.rpc.types import Account, TransactionFailure


@dataclass(frozen=True, slots=True)
class Connected:
    """The subscription is live from here on. What happened before may have been missed."""


@dataclass(frozen=True, slots=True)
class Disconnected:
    """The subscription is down; it comes back by itself."""

    reason: str


@dataclass(frozen=True, slots=True)
class SlotNotice:
    """The node began to process `slot`."""

    slot: int
    parent: int
    root: int


@dataclass(frozen=True, slots=True)
class ProgramNotice:
    """An account of the program changed in `slot`; this is how it stands at the end of it."""

    slot: int
    address: Pubkey
    account: Account


@dataclass(frozen=True, slots=True)
class SignatureNotice:
    slot: int
    failure: TransactionFailure | None


@dataclass(frozen=True, slots=True)
class LogsNotice:
    slot: int
    signature: Signature
    failure: TransactionFailure | None
    logs: tuple[str, ...]


def read_slot(result: Any) -> SlotNotice:
    value = shapes.mapping(result)
    slot, parent, root = (shapes.integer(value.get(name)) for name in ("slot", "parent", "root"))
    return SlotNotice(slot, parent, root)


def read_program(result: Any) -> ProgramNotice:
    read = shapes.at_slot(result, shapes.mapping)
    address, account = shapes.pubkey(read.value.get("pubkey")), shapes.account(read.value.get("account"))
    return ProgramNotice(read.slot, address, account)


def read_signature(result: Any) -> SignatureNotice:
    read = shapes.at_slot(result, shapes.mapping)
    return SignatureNotice(read.slot, shapes.failure(read.value.get("err")))


def read_logs(result: Any) -> LogsNotice:
    read = shapes.at_slot(result, shapes.mapping)
    value = read.value
    lines = shapes.logs(value.get("logs")) or ()
    return LogsNotice(read.slot, shapes.signature(value.get("signature")), shapes.failure(value.get("err")), lines)
