"""A cluster, as whoever buys by transaction sees it: it says what it is told to say, and keeps what it is sent."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from solders.hash import Hash
from solders.pubkey import Pubkey
from solders.signature import Signature
from solders.transaction import VersionedTransaction

from oracle.chain.rpc.errors import BEHIND
from oracle.chain.rpc.types import (
    Account,
    AtSlot,
    Blockhash,
    EpochInfo,
    PriorityFee,
    SignatureHistory,
    SignatureStatus,
    Simulation,
    TransactionFailure,
)
from oracle.core.purchase import AccountState
from oracle.pipeline.clock import Clock

PROGRAM = Pubkey.from_bytes(bytes([9] * 32))
NOW_MS = 1_700_000_000_000


class DrivenClock(Clock):
    """Each look at it is a second later, so that whoever waits for its end comes to it."""

    def __init__(self) -> None:
        self.seconds = 1_000.0

    def now_ms(self) -> int:
        return NOW_MS

    def monotonic(self) -> float:
        self.seconds += 1.0
        return self.seconds


@dataclass
class Cluster:
    """The calls that a purchase makes of a node; `on` maps a method to what is to happen in it first."""

    failure: TransactionFailure | None = None
    logs: tuple[str, ...] = ()
    tokens_left: int = 0
    prices: dict[Pubkey, int] = field(default_factory=dict)
    sent: list[bytes] = field(default_factory=list)
    was_sent: asyncio.Event = field(default_factory=asyncio.Event)
    status: SignatureStatus | None = None
    slot: int = 900
    history: SignatureHistory | None = None
    tips: dict[str, EpochInfo] = field(default_factory=dict)
    tip_slot: int = 0
    on: dict[str, Callable[[], Awaitable[None]]] = field(default_factory=dict)

    async def _before(self, method: str) -> None:
        if method in self.on:
            await self.on[method]()

    async def simulate_transaction(self, wire: bytes, *, replace_blockhash: bool, accounts: Sequence[Pubkey]) -> Any:
        await self._before("simulate")
        VersionedTransaction.from_bytes(wire).sanitize()
        left = tuple(Account(1, PROGRAM, token_account(self.tokens_left)) for _ in accounts)
        return Simulation(5, self.failure, self.logs, 20_000, left)

    async def get_recent_prioritization_fees(self, addresses: Sequence[Pubkey] = ()) -> list[PriorityFee]:
        return [PriorityFee(1, max((self.prices.get(address, 0) for address in addresses), default=0))]

    async def get_latest_blockhash(self) -> Blockhash:
        await self._before("blockhash")
        return Blockhash(Hash.default(), 1_000, 850)

    async def send_transaction(self, wire: bytes) -> Signature:
        await self._before("send")
        self.sent.append(wire)
        self.was_sent.set()
        return VersionedTransaction.from_bytes(wire).signatures[0]

    async def get_signature_statuses(self, signatures: Sequence[Signature]) -> AtSlot[list[Any]]:
        return AtSlot(self.slot, [self.status for _ in signatures])

    async def get_signature_history(self, signatures: Sequence[Signature]) -> SignatureHistory:
        assert self.history is not None
        return self.history

    async def get_multiple_accounts(self, addresses: Sequence[Pubkey], *_: Any, **__: Any) -> AtSlot[list[Any]]:
        return AtSlot(5_000, [None for _ in addresses])

    async def get_epoch_info(self, commitment: str, *, min_context_slot: int | None = None) -> EpochInfo:
        await self._before("epoch")
        tip = self.tips[str(commitment)]
        if tip.slot < (min_context_slot or 0):
            raise BEHIND(f"slot {tip.slot}")
        return tip

    def pinned(self) -> Cluster:
        return self


@dataclass
class View:
    """Accounts that exist, and addresses that transactions have named."""

    states: dict[Pubkey, AccountState] = field(default_factory=dict)
    used: set[Pubkey] = field(default_factory=set)

    async def accounts(self, addresses: Sequence[Pubkey], *, since_slot: int = 0) -> list[AccountState | None]:
        return [self.states.get(address) for address in addresses]

    async def accounts_of(self, program: Pubkey, contents: Any) -> dict[Pubkey, bytes]:
        return {}

    async def was_used(self, address: Pubkey, *, since_slot: int = 0) -> bool:
        return address in self.used


def token_account(amount: int) -> bytes:
    return bytes(64) + amount.to_bytes(8, "little") + bytes(93)
