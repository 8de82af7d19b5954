"""What a node tells us, as values. Slots are absolute; money is lamports; `AtSlot` is a value as of a slot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from solana.rpc.commitment import Commitment
from solders.hash import Hash
from solders.pubkey import Pubkey
from solders.signature import Signature

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class AtSlot(Generic[T]):
    """`value` as the node saw it at `slot`, the context slot of the answer."""

    slot: int
    value: T


@dataclass(frozen=True, slots=True)
class Account:
    lamports: int
    owner: Pubkey
    data: bytes
    executable: bool = False


@dataclass(frozen=True, slots=True)
class ProgramAccounts:
    """Accounts of a program in the node's order: base58 addresses, and data cut to the slice that was asked for."""

    addresses: Sequence[str]
    data: Sequence[bytes]


@dataclass(frozen=True, slots=True)
class Blockhash:
    """A recent blockhash; a transaction that names it can land up to and in `last_valid_block_height`."""

    blockhash: Hash
    last_valid_block_height: int
    slot: int


@dataclass(frozen=True, slots=True)
class TransactionFailure:
    """Why a transaction failed, as the node put it in `raw`.

    `{"InstructionError": [2, {"Custom": 6000}]}` has kind "Custom", instruction 2 and custom 6000;
    `"BlockhashNotFound"` is its own kind. A variant that a newer node invents is kept, with its name as the kind:
    refusing it would lose the whole answer it stands in.
    """

    raw: Any = field(hash=False)
    kind: str
    instruction: int | None = None
    custom: int | None = None


@dataclass(frozen=True, slots=True)
class SignatureStatus:
    """Where a transaction is. `commitment` is how far it got; `confirmations` is None once it is rooted."""

    slot: int
    failure: TransactionFailure | None
    commitment: Commitment
    confirmations: int | None = None


@dataclass(frozen=True, slots=True)
class SignatureHistory:
    """What one endpoint knows of some signatures, and how far its knowledge reaches.

    The statuses were read at a slot no earlier than `finalized_slot`, whose block height is `finalized_block_height`.
    """

    finalized_slot: int
    finalized_block_height: int
    first_available_slot: int
    statuses: tuple[SignatureStatus | None, ...]


@dataclass(frozen=True, slots=True)
class Simulation:
    slot: int
    failure: TransactionFailure | None
    logs: tuple[str, ...]
    units_consumed: int | None
    accounts: tuple[Account | None, ...] = ()
    replacement_blockhash: Blockhash | None = None


@dataclass(frozen=True, slots=True)
class PriorityFee:
    """The lowest price that got into the block of `slot`, in micro-lamports per compute unit."""

    slot: int
    micro_lamports: int


@dataclass(frozen=True, slots=True)
class TransactionRecord:
    """A transaction that landed. `logs` is None where the node keeps none; `block_time` is unix seconds."""

    slot: int
    failure: TransactionFailure | None
    fee_lamports: int
    logs: tuple[str, ...] | None
    block_time: int | None


@dataclass(frozen=True, slots=True)
class SignatureInfo:
    signature: Signature
    slot: int
    failure: TransactionFailure | None
    block_time: int | None


@dataclass(frozen=True, slots=True)
class EpochInfo:
    """Slot and block height of one bank, so the two belong together."""

    epoch: int
    slot: int
    block_height: int


@dataclass(frozen=True, slots=True)
class Version:
    solana_core: str
    feature_set: int | None


@dataclass(frozen=True, slots=True)
class PerformanceSample:
    """`slots` slots passed in `seconds` seconds, ending at `slot`."""

    slot: int
    slots: int
    seconds: int


@dataclass(frozen=True, slots=True)
class Memcmp:
    """Only accounts whose data holds `bytes` at `offset`."""

    offset: int
    bytes: bytes


@dataclass(frozen=True, slots=True)
class DataSize:
    """Only accounts with exactly `size` bytes of data."""

    size: int


Filter = Memcmp | DataSize


@dataclass(frozen=True, slots=True)
class DataSlice:
    """Return only these bytes of the data."""

    offset: int
    length: int
