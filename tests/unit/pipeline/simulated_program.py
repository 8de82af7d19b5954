"""What the program does with its instructions, in a few lines of Python: the rules of `programs/inference_oracle`.

The real bytecode has tests of its own; here thousands of histories want a program that costs microseconds.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from struct import Struct
from typing import Any, Final

from solders.pubkey import Pubkey
from solders.transaction import VersionedTransaction

from oracle.chain.program import instructions
from oracle.chain.program.body import encode_body
from oracle.chain.program.errors import code_of
from oracle.chain.program.layout import REQUEST_DISCRIMINATOR
from oracle.core.request import ZERO_HASH, Body, Inline, Params, Status

PROGRAM: Final = Pubkey.from_bytes(bytes([101]) * 32)
QUEUE: Final = Pubkey.from_bytes(bytes([102]) * 32)
REQUESTER: Final = Pubkey.from_bytes(bytes([103]) * 32)
PAYER: Final = Pubkey.from_bytes(bytes([104]) * 32)
RIVAL: Final = Pubkey.from_bytes(bytes([105]) * 32)
NOBODY: Final = Pubkey.default()

BODY: Final = encode_body(Body("llama", Params(16), Inline(b"hello")))
BODY_HASH: Final = hashlib.sha256(BODY).digest()
_HEADER: Final = Struct("<8sBBBBI32s32sQQQQQQ32s32s32s32s32s32sqIIIIBB6x")
_COMPUTE_BUDGET: Final = "ComputeBudget111111111111111111111111111111"

State = Mapping[str, "RequestAccount"]


class Refused(Exception):
    """The program's own error, by its name in the IDL."""


@dataclass(frozen=True, slots=True)
class RequestAccount:
    """One life of a request. `address` outlives it."""

    address: Pubkey
    created_slot: int
    deadline_slot: int
    fee_lamports: int
    claim_required: bool = False
    lease_slots: int = 60
    retention_slots: int = 50
    status: Status = Status.PENDING
    reason: int = 0
    operator: Pubkey = NOBODY
    claim_expires_slot: int = 0
    settled_slot: int = 0
    output_hash: bytes = ZERO_HASH
    job_hash: bytes = ZERO_HASH
    completed_at: int = 0

    def ended(self, status: Status, slot: int, **changes: Any) -> RequestAccount:
        return replace(self, status=status, settled_slot=slot, **changes)

    @property
    def data(self) -> bytes:
        return _encoded(self)


@lru_cache(maxsize=4096)
def _encoded(account: RequestAccount) -> bytes:
    header = _HEADER.pack(
        REQUEST_DISCRIMINATOR,
        1,
        account.status,
        account.reason,
        255,
        len(BODY),
        bytes(QUEUE),
        bytes(account.operator),
        account.deadline_slot,
        account.claim_expires_slot,
        account.fee_lamports,
        account.created_slot,
        account.settled_slot,
        0,
        bytes(REQUESTER),
        bytes(PAYER),
        BODY_HASH,
        bytes(NOBODY),
        account.output_hash,
        account.job_hash,
        account.completed_at,
        0,
        0,
        account.lease_slots,
        account.retention_slots,
        account.claim_required,
        0,
    )
    return header + BODY


@dataclass(frozen=True, slots=True)
class Instruction:
    """One instruction of ours, read back from the bytes that were signed."""

    name: str
    address: str
    signer: Pubkey | None
    output_hash: bytes = ZERO_HASH
    job_hash: bytes = ZERO_HASH
    completed_at: int = 0
    reason: int = 0


@dataclass(frozen=True, slots=True)
class Transaction:
    signature: str
    blockhash: str
    payer: Pubkey
    members: tuple[Instruction, ...]
    budget: int
    """How many instructions stand before the members."""


_NAMES: Final = {
    instructions.CLAIM_REQUEST: "claim",
    instructions.RECORD_INFERENCE_RESULT: "record",
    instructions.REJECT_REQUEST: "reject",
    instructions.EXPIRE_REQUEST: "expire",
    instructions.CLOSE_REQUEST: "close",
}


@lru_cache(maxsize=8192)
def parse(wire: bytes) -> Transaction:
    transaction = VersionedTransaction.from_bytes(wire)
    message = transaction.message
    keys = message.account_keys
    members = []
    budget = 0
    for instruction in message.instructions:
        if str(keys[instruction.program_id_index]) == _COMPUTE_BUDGET:
            budget += 1
            continue
        assert keys[instruction.program_id_index] == PROGRAM
        data, named = bytes(instruction.data), [keys[at] for at in instruction.accounts]
        name = _NAMES[data[:8]]
        signer = None if name == "expire" else named[2] if name == "close" else named[1]
        extra: dict[str, Any] = {}
        if name == "record":
            extra = {
                "output_hash": data[8:40],
                "job_hash": data[40:72],
                "completed_at": int.from_bytes(data[72:80], "little", signed=True),
            }
        elif name == "reject":
            extra = {"reason": data[8]}
        members.append(Instruction(name, str(named[0]), signer, **extra))
    return Transaction(str(transaction.signatures[0]), str(message.recent_blockhash), keys[0], tuple(members), budget)


def apply(state: State, instruction: Instruction, slot: int) -> RequestAccount | None:
    """The account as it is afterwards, None where it is closed; raises `Refused` with the program's error."""
    account = state.get(instruction.address)
    if account is None:
        raise Refused("AccountNotInitialized")
    return _after(account, instruction, slot)


def _after(account: RequestAccount, instruction: Instruction, slot: int) -> RequestAccount | None:
    signer = instruction.signer
    match instruction.name:
        case "claim":
            assert signer is not None
            return claimed(account, signer, slot)
        case "record":
            _require_settleable(account, signer, slot)
            return account.ended(
                Status.FULFILLED,
                slot,
                operator=signer,
                output_hash=instruction.output_hash,
                job_hash=instruction.job_hash,
                completed_at=instruction.completed_at,
            )
        case "reject":
            if not instruction.reason:
                raise Refused("ReasonMissing")
            _require_settleable(account, signer, slot)
            return account.ended(Status.REJECTED, slot, operator=signer, reason=instruction.reason)
        case "expire":
            _require_open(account)
            if slot <= account.deadline_slot:
                raise Refused("DeadlineNotPassed")
            return account.ended(Status.EXPIRED, slot)
        case "close":
            if not account.settled_slot:
                raise Refused("RequestStillOpen")
            if slot <= account.created_slot:
                raise Refused("CloseInSlotOfCreation")
            if signer != PAYER and slot <= account.settled_slot + account.retention_slots:
                raise Refused("RetentionRunning")
            return None
        case name:
            raise AssertionError(name)


def claimed(account: RequestAccount, operator: Pubkey, slot: int) -> RequestAccount:
    _require_open(account)
    if not account.claim_required:
        raise Refused("ClaimNotRequired")
    if account.status is Status.CLAIMED:
        if account.operator == operator:
            raise Refused("AlreadyClaimed")
        if slot <= account.claim_expires_slot:
            raise Refused("ClaimedByAnother")
    _require_in_time(account, slot)
    until = min(slot + account.lease_slots, account.deadline_slot)
    return replace(account, status=Status.CLAIMED, operator=operator, claim_expires_slot=until)


def cancelled(account: RequestAccount, slot: int) -> RequestAccount:
    _require_open(account)
    if not account.claim_required:
        raise Refused("RequestFirm")
    if account.status is Status.CLAIMED and slot <= account.claim_expires_slot:
        raise Refused("LeaseRunning")
    return account.ended(Status.CANCELLED, slot)


def custom(error: Refused) -> int:
    return code_of(str(error))


def _require_open(account: RequestAccount) -> None:
    if not account.status.is_open:
        raise Refused("RequestEnded")


def _require_in_time(account: RequestAccount, slot: int) -> None:
    if slot > account.deadline_slot:
        raise Refused("DeadlinePassed")


def _require_settleable(account: RequestAccount, operator: Pubkey | None, slot: int) -> None:
    _require_open(account)
    if account.claim_required:
        if account.status is not Status.CLAIMED:
            raise Refused("ClaimRequired")
        if account.operator != operator:
            raise Refused("ClaimedByAnother")
    _require_in_time(account, slot)
