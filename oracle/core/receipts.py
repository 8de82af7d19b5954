"""Receipts: the canonical record of one inference, whose SHA-256 is the `job_hash` on chain."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any, Final

import rfc8785

from oracle.core.errors import ErrorCode

RECEIPT_VERSION: Final = 1

RECEIPT_INVALID = ErrorCode(
    "ORC-RECEIPT-001",
    "Receipt is not valid",
    "The bytes are not canonical JSON (RFC 8785) of the fields that a receipt must have.",
    "The operator served something else than its receipt: ask the operator, and do not trust the answer.",
)

# Every field, with the type it must have. u64 values are decimal strings: JSON numbers end at 2^53 - 1.
_FIELDS: Final[Mapping[str, type | tuple[type, ...]]] = {
    "version": int,
    "program": str,
    "request": str,
    "created_slot": str,
    "queue": str,
    "operator": str,
    "requester": str,
    "nonce": str,
    "body_hash": str,
    "input_hash": str,
    "input_origin": (str, type(None)),
    "model_asked": str,
    "model_run": str,
    "provider": str,
    "provider_job_id": str,
    "params": dict,
    "output_hash": str,
    "output_bytes": int,
    "output_media_type": str,
    "submitted_at": int,
    "completed_at": int,
}

# One spelling for each value, or two receipts with two hashes could say the same.
_U64: Final = re.compile(r"0|[1-9][0-9]{0,19}")
_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_SPELLINGS: Final = {
    "created_slot": _U64,
    "nonce": _U64,
    "body_hash": _SHA256,
    "input_hash": _SHA256,
    "output_hash": _SHA256,
}


def encode(fields: Mapping[str, Any]) -> bytes:
    """RFC 8785 bytes of a receipt. Raises ORC-RECEIPT-001 where a field is missing, unknown or of another type."""
    _check(fields)
    try:
        return rfc8785.dumps(dict(fields))
    except (ValueError, RecursionError) as error:
        raise RECEIPT_INVALID(f"no canonical form: {type(error).__name__}") from None


def job_hash(receipt: bytes) -> bytes:
    """SHA-256 of the canonical bytes: what `record_inference_result` writes on chain."""
    return hashlib.sha256(receipt).digest()


def decode(receipt: bytes) -> dict[str, Any]:
    """Fields of a receipt. Raises ORC-RECEIPT-001 unless the bytes are exactly the canonical form of what they say."""
    try:
        fields = json.loads(receipt)
    except (ValueError, RecursionError) as error:
        raise RECEIPT_INVALID(f"not JSON: {error}") from None
    if not isinstance(fields, dict):
        raise RECEIPT_INVALID("not a JSON object")
    _check(fields)
    if encode(fields) != receipt:
        raise RECEIPT_INVALID("not in canonical form")
    return fields


def _check(fields: Mapping[str, Any]) -> None:
    if fields.get("version") != RECEIPT_VERSION:
        raise RECEIPT_INVALID(f"version {fields.get('version')!r}, expected {RECEIPT_VERSION}")
    if missing := sorted(_FIELDS.keys() - fields.keys()):
        raise RECEIPT_INVALID(f"missing {', '.join(missing)}")
    if unknown := sorted(fields.keys() - _FIELDS.keys()):
        raise RECEIPT_INVALID(f"unknown {', '.join(unknown)}")
    for name, kind in _FIELDS.items():
        if not isinstance(fields[name], kind) or isinstance(fields[name], bool):
            raise RECEIPT_INVALID(f"{name} has the wrong type")
    for name, spelling in _SPELLINGS.items():
        if not spelling.fullmatch(fields[name]):
            raise RECEIPT_INVALID(f"{name} is not spelt as it must be")
