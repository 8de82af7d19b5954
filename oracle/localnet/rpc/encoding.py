"""How accounts and transactions are printed."""

from __future__ import annotations

import struct
from base64 import b64encode
from collections.abc import Sequence
from typing import Any

from solders.account import Account
from solders.message import MessageV0
from solders.pubkey import Pubkey
from solders.transaction import VersionedTransaction

from oracle.localnet.history import base58
from oracle.localnet.ledger import Record
from oracle.localnet.message import writable_flags
from oracle.localnet.rpc.errors import invalid_request, unsupported_transaction_version
from oracle.localnet.rpc.params import DataSlice

MAX_BASE58_BYTES = 128
RENT_EXEMPT_EPOCH = 2**64 - 1
_ZSTD_MAGIC = 0xFD2FB528
_ZSTD_BLOCK_BYTES = 128 * 1024


def account(value: Account, encoding: str, data_slice: DataSlice | None = None) -> dict[str, Any]:
    """`jsonParsed` is answered in base64, as a validator does for programs it has no parser for."""
    data = value.data
    shown = data if data_slice is None else data[data_slice.offset : data_slice.offset + data_slice.length]
    return {
        "lamports": value.lamports,
        "data": _data(shown, encoding),
        "owner": str(value.owner),
        "executable": value.executable,
        "rentEpoch": RENT_EXEMPT_EPOCH,
        "space": len(data),
    }


def _data(data: bytes, encoding: str) -> str | list[str]:
    if encoding in ("binary", "base58"):
        if len(data) > MAX_BASE58_BYTES:
            raise invalid_request(
                f"Encoded binary (base 58) data should be less than {MAX_BASE58_BYTES} bytes, please use Base64"
                " encoding."
            )
        return base58(data) if encoding == "binary" else [base58(data), "base58"]
    if encoding == "base64+zstd":
        return [b64encode(_zstd(data)).decode(), "base64+zstd"]
    return [b64encode(data).decode(), "base64"]


def _zstd(data: bytes) -> bytes:
    """A Zstandard frame of uncompressed blocks (RFC 8878, 3.1.1): valid for every decoder, without a library."""
    frame = [struct.pack("<IBQ", _ZSTD_MAGIC, 0b1110_0000, len(data))]
    starts = range(0, max(len(data), 1), _ZSTD_BLOCK_BYTES)
    for start in starts:
        block = data[start : start + _ZSTD_BLOCK_BYTES]
        is_last = start == starts[-1]
        frame += [(len(block) << 3 | is_last).to_bytes(3, "little"), block]
    return b"".join(frame)


def transaction(record: Record, encoding: str, max_version: int | None) -> dict[str, Any]:
    """Transaction, meta and version. `max_version` is what the client can read; `None` is legacy only."""
    tx = VersionedTransaction.from_bytes(record.wire)
    version = tx.version()
    if isinstance(version, int) and (max_version is None or version > max_version):
        raise unsupported_transaction_version(version)
    meta = _parsed_meta(tx, record) if encoding == "jsonParsed" else record.meta
    found = {"transaction": _transaction(tx, record, encoding), "meta": meta}
    return found if max_version is None else {**found, "version": version if isinstance(version, int) else "legacy"}


def _transaction(tx: VersionedTransaction, record: Record, encoding: str) -> Any:
    match encoding:
        case "binary":
            return base58(record.wire)
        case "base58":
            return [base58(record.wire), "base58"]
        case "base64":
            return [b64encode(record.wire).decode(), "base64"]
        case _:
            shown = _parsed_message(tx, record) if encoding == "jsonParsed" else _message(tx)
            return {"signatures": [str(signature) for signature in tx.signatures], "message": shown}


def _message(tx: VersionedTransaction) -> dict[str, Any]:
    message = tx.message
    header = message.header
    return {
        "header": {
            "numRequiredSignatures": header.num_required_signatures,
            "numReadonlySignedAccounts": header.num_readonly_signed_accounts,
            "numReadonlyUnsignedAccounts": header.num_readonly_unsigned_accounts,
        },
        "accountKeys": [str(key) for key in message.account_keys],
        "recentBlockhash": str(message.recent_blockhash),
        "instructions": [
            {
                "programIdIndex": instruction.program_id_index,
                "accounts": list(bytes(instruction.accounts)),
                "data": base58(bytes(instruction.data)),
                "stackHeight": None,
            }
            for instruction in message.instructions
        ],
    } | _lookups(tx)


def _parsed_message(tx: VersionedTransaction, record: Record) -> dict[str, Any]:
    """Every instruction in the form a validator uses for programs it cannot parse."""
    message = tx.message
    keys = _keys(tx, record)
    own = len(message.account_keys)
    loaded_writable = len(record.meta["loadedAddresses"]["writable"])
    writable = writable_flags(message, [Pubkey.from_string(key) for key in keys], loaded_writable)
    return {
        "accountKeys": [
            {
                "pubkey": key,
                "writable": writable[index],
                "signer": index < message.header.num_required_signatures,
                "source": "transaction" if index < own else "lookupTable",
            }
            for index, key in enumerate(keys)
        ],
        "recentBlockhash": str(message.recent_blockhash),
        "instructions": [parsed_instruction(one, keys) for one in _message(tx)["instructions"]],
    } | _lookups(tx)


def _parsed_meta(tx: VersionedTransaction, record: Record) -> dict[str, Any]:
    keys = _keys(tx, record)
    return {name: value for name, value in record.meta.items() if name != "loadedAddresses"} | {
        "innerInstructions": parsed_inner_instructions(record.meta["innerInstructions"], keys)
    }


def parsed_inner_instructions(groups: Sequence[dict[str, Any]], keys: Sequence[str]) -> list[dict[str, Any]]:
    """Inner instructions with addresses in place of indexes into `keys`."""
    return [
        {"index": group["index"], "instructions": [parsed_instruction(one, keys) for one in group["instructions"]]}
        for group in groups
    ]


def parsed_instruction(compiled: dict[str, Any], keys: Sequence[str]) -> dict[str, Any]:
    return {
        "programId": keys[compiled["programIdIndex"]],
        "accounts": [keys[index] for index in compiled["accounts"]],
        "data": compiled["data"],
        "stackHeight": compiled["stackHeight"],
    }


def _keys(tx: VersionedTransaction, record: Record) -> list[str]:
    loaded: dict[str, list[str]] = record.meta["loadedAddresses"]
    return [str(key) for key in tx.message.account_keys] + loaded["writable"] + loaded["readonly"]


def _lookups(tx: VersionedTransaction) -> dict[str, Any]:
    message = tx.message
    if not isinstance(message, MessageV0):
        return {}
    return {
        "addressTableLookups": [
            {
                "accountKey": str(lookup.account_key),
                "writableIndexes": list(bytes(lookup.writable_indexes)),
                "readonlyIndexes": list(bytes(lookup.readonly_indexes)),
            }
            for lookup in message.address_table_lookups
        ]
    }
