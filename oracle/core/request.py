"""A request as the chain holds it: who asks what, for how much, until when, and what has come of it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from enum import IntEnum, IntFlag

from solders.pubkey import Pubkey

ZERO_HASH = bytes(32)


class Status(IntEnum):
    """On-chain status, byte 9 of the account."""

    PENDING = 0
    CLAIMED = 1
    FULFILLED = 2
    REJECTED = 3
    CANCELLED = 4
    EXPIRED = 5

    @property
    def is_open(self) -> bool:
        return self in (Status.PENDING, Status.CLAIMED)


class Reason(IntEnum):
    """Why an operator rejected a request: the code that `reject_request` writes on chain."""

    NO_PROVIDER = 1
    MODEL_UNAVAILABLE = 2
    INPUT_UNAVAILABLE = 3
    INPUT_MISMATCH = 4
    INPUT_INVALID = 5
    JOB_FAILED = 6
    FEE_TOO_LOW = 7
    DEADLINE_TOO_CLOSE = 8
    BUDGET_EXHAUSTED = 9
    PURCHASE_UNCONFIRMED = 10
    OUTPUT_INVALID = 11
    PRIVACY_UNAVAILABLE = 12
    OTHER = 255


class Flags(IntFlag):
    """`Params.flags`. A bit that is not here is refused by the program."""

    NONE = 0
    PRIVATE = 1
    ANY_MODEL = 2
    CHAT = 4


@dataclass(frozen=True, slots=True)
class Params:
    """How the model is to be run. `temperature_milli` is in thousandths."""

    max_output_tokens: int
    temperature_milli: int = 0
    seed: int = 0
    flags: Flags = Flags.NONE


@dataclass(frozen=True, slots=True)
class Inline:
    """The input itself: UTF-8 text, or a JSON array of chat messages where `Flags.CHAT` is set."""

    content: bytes


@dataclass(frozen=True, slots=True)
class Uri:
    """An `https://` address and the SHA-256 of what it must serve."""

    uri: str
    sha256: bytes


@dataclass(frozen=True, slots=True)
class Data:
    """A `data://network/…` query and the SHA-256 of the query's own bytes."""

    query: str
    sha256: bytes


Input = Inline | Uri | Data


@dataclass(frozen=True, slots=True)
class CallbackAccount:
    address: Pubkey
    is_writable: bool


@dataclass(frozen=True, slots=True)
class Callback:
    program: Pubkey
    accounts: tuple[CallbackAccount, ...] = ()


@dataclass(frozen=True, slots=True)
class Body:
    """What is asked. Its borsh bytes are stored verbatim on chain, and their SHA-256 is in the request's address."""

    model: str
    params: Params
    input: Input
    callback: Callback | None = None


@dataclass(frozen=True, slots=True)
class RequestKey:
    """Identity of a request: an address can be used again after a close, in a later slot only."""

    address: str
    created_slot: int

    def __str__(self) -> str:
        return f"{self.address}@{self.created_slot}"


@dataclass(frozen=True, slots=True)
class Header:
    """The fixed part of a request account, 352 bytes with the discriminator. Slots are absolute."""

    version: int
    status: Status
    reason: int
    bump: int
    body_len: int
    queue: Pubkey
    operator: Pubkey
    deadline_slot: int
    claim_expires_slot: int
    fee_lamports: int
    created_slot: int
    settled_slot: int
    nonce: int
    requester: Pubkey
    refund_to: Pubkey
    body_hash: bytes
    callback_program: Pubkey
    output_hash: bytes
    job_hash: bytes
    completed_at: int
    output_cap: int
    output_len: int
    lease_slots: int
    retention_slots: int
    claim_required: bool
    callback_delivered: bool


@dataclass(frozen=True, slots=True)
class Request:
    """A whole request account. `body_bytes` are the stored bytes; `body` is their decoded form."""

    address: Pubkey
    header: Header
    body_bytes: bytes
    body: Body
    inline_output: bytes = b""

    @property
    def key(self) -> RequestKey:
        return RequestKey(str(self.address), self.header.created_slot)

    @property
    def body_is_authentic(self) -> bool:
        """Whether the stored body is the one the address commits to."""
        return hashlib.sha256(self.body_bytes).digest() == self.header.body_hash
