"""Buying by transaction: what `pipeline`, which alone signs, hands to a provider that is paid on chain (DESIGN §6).

A purchase is signed once. Where its transaction is proven dead, nothing was bought, and the next attempt of the request
is a purchase of its own, under a key of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from solders.instruction import Instruction
from solders.pubkey import Pubkey

from oracle.core.compute import IdempotencyKey


@dataclass(frozen=True, slots=True)
class Order:
    """One transaction.

    `cosigners` are labels of keys that belong to this purchase alone (`TransactionBuyer.address`): they sign beside the
    payer, and nothing is bought where one of their addresses was ever in use. `contended` are accounts that others
    write too: the priority fee is what those pay. `most_spent` says how many tokens may leave which token account:
    nothing is signed where a simulation shows more. `detail` is JSON, kept with the intent before anything is signed,
    and handed back with whatever became of it.
    """

    instructions: tuple[Instruction, ...]
    cosigners: tuple[str, ...] = ()
    contended: tuple[Pubkey, ...] = ()
    most_spent: Mapping[Pubkey, int] = field(default_factory=dict)
    detail: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Landed:
    """It has taken effect at `slot`. Until it is finalized a fork may still drop it: then it is in flight again."""

    slot: int
    detail: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class InFlight:
    """It may still land, or has landed without our hearing of it."""

    detail: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class NotBought:
    """Proven to have had no effect, for ever: never signed, refused, or dead.

    Where an account must say so too, only one that is read as of `slot` or later does.
    """

    why: str = ""
    slot: int = 0


Fate = Landed | InFlight | NotBought


@dataclass(frozen=True, slots=True)
class Refused:
    """The programs that were called refuse it, or it would spend too much: nothing was bought.

    `kind` is the cluster's name of the failure, or what else speaks against it; `custom` is the program's own number,
    `logs` what the programs said.
    """

    kind: str
    custom: int | None = None
    logs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class AlreadyUsed:
    """A key of this very purchase was in use before: it was bought by a daemon whose memory is lost."""

    address: Pubkey


class TransactionBuyer(Protocol):
    """The signature manager, as a provider sees it. Every method raises `OracleError`."""

    @property
    def payer(self) -> Pubkey:
        """The operator's key: pays, and signs for itself."""

    async def address(self, key: IdempotencyKey, label: str) -> Pubkey:
        """The address of a key that belongs to one purchase. The same again whenever it is asked for."""

    async def buy(self, key: IdempotencyKey, order: Order) -> Landed | Refused | AlreadyUsed:
        """Intent and signed bytes are durable before they are sent. Raises an error of `Verdict.UNKNOWN` where it may
        still land; any other error says that nothing was bought."""

    async def withdraw(self, key: IdempotencyKey) -> Fate:
        """What became of a purchase. What was not signed by now never will be."""

    async def perform(self, order: Order) -> Refused | None:
        """Sends a transaction that may be repeated at will, because its program refuses a second effect. Returns when
        it is confirmed; nothing about it is remembered. It has no cosigners. Raises where it has not landed in time."""


@dataclass(frozen=True, slots=True)
class AccountState:
    """An account as it was read."""

    lamports: int
    owner: Pubkey
    data: bytes


class ChainView(Protocol):
    """What a provider may read of the chain, at `confirmed`. Every method raises `OracleError`."""

    async def accounts(self, addresses: Sequence[Pubkey], *, since_slot: int = 0) -> list[AccountState | None]:
        """As of `since_slot` or later; None for what does not exist."""

    async def accounts_of(self, program: Pubkey, contents: Mapping[int, bytes]) -> dict[Pubkey, bytes]:
        """The data of every account of a program that hold these bytes at these offsets."""

    async def was_used(self, address: Pubkey, *, since_slot: int = 0) -> bool:
        """Whether a transaction that succeeded has named the address, as far back as the endpoint remembers, and up to
        `since_slot` at least."""


@dataclass(frozen=True, slots=True)
class ChainAccess:
    """What a provider that is paid on chain is given."""

    buyer: TransactionBuyer
    view: ChainView
