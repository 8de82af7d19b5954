"""From a node's JSON to values, believing nothing: every field is checked, and what does not fit raises `Misshapen`."""

from __future__ import annotations

import binascii
from collections.abc import Callable
from typing import Any, Final, TypeVar

from solana.rpc.commitment import Commitment, Confirmed, Finalized, Processed
from solders.hash import Hash
from solders.pubkey import Pubkey
from solders.signature import Signature

from oracle.chain.rpc.types import (
    Account,
    AtSlot,
    Blockhash,
    EpochInfo,
    PerformanceSample,
    PriorityFee,
    SignatureInfo,
    SignatureStatus,
    Simulation,
    TransactionFailure,
    TransactionRecord,
    Version,
)

T = TypeVar("T")
U64_MAX: Final = 2**64 - 1
_COMMITMENTS: Final[dict[str, Commitment]] = {"processed": Processed, "confirmed": Confirmed, "finalized": Finalized}


class Misshapen(ValueError):
    """The JSON is not of the shape the method returns. Becomes ORC-RPC-006 where the method's name is known."""


class TooOld(ValueError):
    """The answer is of a slot before the one that was asked for: a node that ignores `minContextSlot`. ORC-RPC-007."""


def integer(value: Any, *, least: int = 0, most: int = U64_MAX) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise Misshapen(f"expected an integer, got {_short(value)}")
    return value


def optional(read: Callable[[Any], T], value: Any) -> T | None:
    return None if value is None else read(value)


def text(value: Any) -> str:
    if not isinstance(value, str):
        raise Misshapen(f"expected a string, got {_short(value)}")
    return value


def array(value: Any, length: int | None = None) -> list[Any]:
    if not isinstance(value, list) or (length is not None and len(value) != length):
        raise Misshapen(f"expected an array{'' if length is None else f' of {length}'}, got {_short(value)}")
    return value


def mapping(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise Misshapen(f"expected an object, got {_short(value)}")
    return value


def pubkey(value: Any) -> Pubkey:
    return _parse(Pubkey.from_string, value, "an address")


def blockhash(value: Any) -> Hash:
    return _parse(Hash.from_string, value, "a hash")


def signature(value: Any) -> Signature:
    return _parse(Signature.from_string, value, "a signature")


def base64_data(value: Any) -> bytes:
    """The pair `[data, "base64"]` that account data comes as."""
    data, encoding = array(value, 2)
    if encoding != "base64":
        raise Misshapen(f"expected base64 data, got {_short(encoding)}")
    return from_base64(data)


def from_base64(value: Any) -> bytes:
    try:
        return binascii.a2b_base64(text(value), strict_mode=True)
    except ValueError:
        raise Misshapen(f"expected base64, got {_short(value)}") from None


def at_slot(answer: Any, read: Callable[[Any], T], min_context_slot: int | None = None) -> AtSlot[T]:
    """Read `{"context": {"slot": …}, "value": …}`. A node that ignores `minContextSlot` is caught here."""
    answer = mapping(answer)
    slot = not_before(integer(mapping(answer.get("context")).get("slot")), min_context_slot)
    return AtSlot(slot, read(answer.get("value")))


def not_before(slot: int, min_context_slot: int | None) -> int:
    if min_context_slot is not None and slot < min_context_slot:
        raise TooOld(f"answered as of slot {slot}, asked for {min_context_slot}")
    return slot


def account(value: Any) -> Account:
    value = mapping(value)
    return Account(
        lamports=integer(value.get("lamports")),
        owner=pubkey(value.get("owner")),
        data=base64_data(value.get("data")),
        executable=value.get("executable") is True,
    )


def failure(raw: Any) -> TransactionFailure | None:
    """Read a `TransactionError`; None means success. Unknown variants are kept (see `TransactionFailure`)."""
    if raw is None:
        return None
    if isinstance(raw, str):
        return TransactionFailure(raw, raw)
    if not isinstance(raw, dict) or len(raw) != 1:
        return TransactionFailure(raw, "Unknown")
    ((kind, detail),) = raw.items()
    match kind, detail:
        case "InstructionError", [int(index), str(reason)]:
            return TransactionFailure(raw, reason, index)
        case "InstructionError", [int(index), {"Custom": int(code)}]:
            return TransactionFailure(raw, "Custom", index, code)
        case "InstructionError", [int(index), dict(reason)] if len(reason) == 1:
            return TransactionFailure(raw, next(iter(reason)), index)
    return TransactionFailure(raw, kind)


def signature_status(value: Any) -> SignatureStatus:
    value = mapping(value)
    confirmations = optional(integer, value.get("confirmations"))
    told = value.get("confirmationStatus")
    # Old nodes leave confirmationStatus out; "confirmations: null" then means rooted.
    commitment = _COMMITMENTS.get(told) if told is not None else (Finalized if confirmations is None else Processed)
    if commitment is None:
        raise Misshapen(f"unknown confirmation status {_short(told)}")
    return SignatureStatus(integer(value.get("slot")), failure(value.get("err")), commitment, confirmations)


def latest_blockhash(answer: Any, min_context_slot: int | None) -> Blockhash:
    read = at_slot(answer, mapping, min_context_slot)
    return _blockhash(read.value, read.slot)


def _blockhash(value: Any, slot: int) -> Blockhash:
    value = mapping(value)
    return Blockhash(blockhash(value.get("blockhash")), integer(value.get("lastValidBlockHeight")), slot)


def simulation(answer: Any, accounts_asked: int, min_context_slot: int | None) -> Simulation:
    read = at_slot(answer, mapping, min_context_slot)
    value = read.value
    accounts = array(value.get("accounts"), accounts_asked) if accounts_asked else []
    return Simulation(
        slot=read.slot,
        failure=failure(value.get("err")),
        logs=logs(value.get("logs")) or (),
        units_consumed=optional(integer, value.get("unitsConsumed")),
        accounts=tuple(optional(account, item) for item in accounts),
        replacement_blockhash=optional(lambda v: _blockhash(v, read.slot), value.get("replacementBlockhash")),
    )


def logs(value: Any) -> tuple[str, ...] | None:
    return None if value is None else tuple(text(line) for line in array(value))


def transaction(value: Any) -> TransactionRecord:
    value = mapping(value)
    meta = mapping(value.get("meta"))
    return TransactionRecord(
        slot=integer(value.get("slot")),
        failure=failure(meta.get("err")),
        fee_lamports=integer(meta.get("fee")),
        logs=logs(meta.get("logMessages")),
        block_time=optional(integer, value.get("blockTime")),
    )


def signature_info(value: Any) -> SignatureInfo:
    value = mapping(value)
    return SignatureInfo(
        signature=signature(value.get("signature")),
        slot=integer(value.get("slot")),
        failure=failure(value.get("err")),
        block_time=optional(integer, value.get("blockTime")),
    )


def priority_fee(value: Any) -> PriorityFee:
    value = mapping(value)
    return PriorityFee(integer(value.get("slot")), integer(value.get("prioritizationFee")))


def epoch_info(value: Any, min_context_slot: int | None) -> EpochInfo:
    value = mapping(value)
    slot = not_before(integer(value.get("absoluteSlot")), min_context_slot)
    return EpochInfo(integer(value.get("epoch")), slot, integer(value.get("blockHeight")))


def version(value: Any) -> Version:
    value = mapping(value)
    return Version(text(value.get("solana-core")), optional(integer, value.get("feature-set")))


def performance_sample(value: Any) -> PerformanceSample:
    value = mapping(value)
    return PerformanceSample(
        slot=integer(value.get("slot")),
        slots=integer(value.get("numSlots")),
        seconds=integer(value.get("samplePeriodSecs"), least=1, most=86_400),
    )


def _parse(parse: Callable[[str], T], value: Any, what: str) -> T:
    try:
        return parse(text(value))
    except Exception:  # solders' ParseHashError is no ValueError
        raise Misshapen(f"expected {what}, got {_short(value)}") from None


def _short(value: Any) -> str:
    shown = repr(value)
    return shown if len(shown) <= 60 else f"{shown[:60]}…"
