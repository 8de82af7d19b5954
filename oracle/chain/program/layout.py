"""The accounts of the program as bytes: a compiled `struct` codec at the frozen offsets of DESIGN §4.

`Request` and `Operator` are zero-copy headers without padding; `Queue` is plain borsh. Every function takes the whole
account data (the slice functions say otherwise) and raises nothing but `OracleError`: ORC-CHAIN-101 for another kind
of account, 102 for a version of a later program, 103 for bytes that the program cannot have written.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from struct import Struct
from typing import Final

from solders.pubkey import Pubkey

from oracle.chain.program.body import decode_body
from oracle.chain.program.errors import ACCOUNT_MALFORMED, ACCOUNT_OF_ANOTHER_KIND, ACCOUNT_VERSION_UNKNOWN
from oracle.core.request import Header, Request, Status

VERSION: Final = 1


def discriminator(namespace: str, name: str) -> bytes:
    """Anchor's first eight bytes: SHA-256 of `global:`, `account:` or `event:` and the name."""
    return sha256(f"{namespace}:{name}".encode()).digest()[:8]


REQUEST_DISCRIMINATOR: Final = discriminator("account", "Request")
OPERATOR_DISCRIMINATOR: Final = discriminator("account", "Operator")
QUEUE_DISCRIMINATOR: Final = discriminator("account", "Queue")

# Offsets for memcmp filters, and the slice that a scan asks for.
VERSION_OFFSET: Final = 8
STATUS_OFFSET: Final = 9
QUEUE_OFFSET: Final = 16
SLICE_OFFSET: Final = 8
SLICE_LENGTH: Final = 120

_SLICE: Final = Struct("<BBBBI32s32sQQQQQQ")
_HEADER: Final = Struct("<8xBBBBI32s32sQQQQQQ32s32s32s32s32s32sqIIIIBB6x")
_OPERATOR: Final = Struct("<8xBBH4x32s32s128s")
_QUEUE: Final = Struct("<8xBB32s32sIBQQQIIIIBQ")

HEADER_LENGTH: Final = _HEADER.size
OPERATOR_LENGTH: Final = _OPERATOR.size
QUEUE_LENGTH: Final = _QUEUE.size
MAX_URI_LENGTH: Final = 128

_STATUSES: Final = tuple(Status)


@dataclass(frozen=True, slots=True)
class RequestSlice:
    """Bytes 8 to 128 of a request: what a scan needs to know which requests to read whole."""

    status: Status
    reason: int
    body_len: int
    queue: Pubkey
    operator: Pubkey
    deadline_slot: int
    claim_expires_slot: int
    fee_lamports: int
    created_slot: int
    settled_slot: int
    nonce: int


@dataclass(frozen=True, slots=True)
class Operator:
    """Who may answer a queue's requests. `uri` is the base under which its outputs and receipts are served."""

    bump: int
    queue: Pubkey
    key: Pubkey
    uri: str


@dataclass(frozen=True, slots=True)
class QueueTerms:
    """What a queue asks of a request; copied into each request when it is made."""

    fee_floor_lamports: int
    min_deadline_slots: int
    max_deadline_slots: int
    lease_slots: int
    retention_slots: int
    max_body_len: int
    max_output_cap: int
    claim_required: bool


@dataclass(frozen=True, slots=True)
class Queue:
    """A queue of requests, run by its authority and answered by its operators.

    `unclaimed_until_slot` is the last slot at which a request made while claims were not required can still be open.
    """

    bump: int
    authority: Pubkey
    name: str
    operator_count: int
    paused: bool
    terms: QueueTerms
    unclaimed_until_slot: int


def decode_request(address: Pubkey, data: bytes) -> Request:
    """The whole request in account `data`; ORC-CHAIN-104 where its body is not borsh."""
    header = decode_header(data)
    body_end = HEADER_LENGTH + header.body_len
    if len(data) != body_end + header.output_cap:
        raise ACCOUNT_MALFORMED(f"{len(data)} bytes, but the header speaks of {body_end + header.output_cap}")
    body_bytes = bytes(data[HEADER_LENGTH:body_end])
    inline_output = bytes(data[body_end : body_end + header.output_len])
    return Request(address, header, body_bytes, decode_body(body_bytes), inline_output)


def decode_header(data: bytes) -> Header:
    """The fixed part of a request; `data` may end behind it."""
    _expect("request", data, REQUEST_DISCRIMINATOR, HEADER_LENGTH)
    (
        version,
        status,
        reason,
        bump,
        body_len,
        queue,
        operator,
        deadline_slot,
        claim_expires_slot,
        fee_lamports,
        created_slot,
        settled_slot,
        nonce,
        requester,
        refund_to,
        body_hash,
        callback_program,
        output_hash,
        job_hash,
        completed_at,
        output_cap,
        output_len,
        lease_slots,
        retention_slots,
        claim_required,
        callback_delivered,
    ) = _HEADER.unpack_from(data)
    if output_len > output_cap:
        raise ACCOUNT_MALFORMED(f"an output of {output_len} bytes in room for {output_cap}")
    return Header(
        version,
        _status(status),
        reason,
        bump,
        body_len,
        Pubkey.from_bytes(queue),
        Pubkey.from_bytes(operator),
        deadline_slot,
        claim_expires_slot,
        fee_lamports,
        created_slot,
        settled_slot,
        nonce,
        Pubkey.from_bytes(requester),
        Pubkey.from_bytes(refund_to),
        body_hash,
        Pubkey.from_bytes(callback_program),
        output_hash,
        job_hash,
        completed_at,
        output_cap,
        output_len,
        lease_slots,
        retention_slots,
        _bool("claim_required", claim_required),
        _bool("callback_delivered", callback_delivered),
    )


def decode_slice(data: bytes) -> RequestSlice:
    """Bytes `SLICE_OFFSET` to `SLICE_OFFSET + SLICE_LENGTH` of a request, found by its discriminator."""
    if len(data) != SLICE_LENGTH:
        raise ACCOUNT_MALFORMED(f"a slice of {len(data)} bytes, not {SLICE_LENGTH}")
    (
        version,
        status,
        reason,
        _bump,
        body_len,
        queue,
        operator,
        deadline_slot,
        claim_expires_slot,
        fee_lamports,
        created_slot,
        settled_slot,
        nonce,
    ) = _SLICE.unpack(data)
    _expect_version("request", version)
    return RequestSlice(
        _status(status),
        reason,
        body_len,
        Pubkey.from_bytes(queue),
        Pubkey.from_bytes(operator),
        deadline_slot,
        claim_expires_slot,
        fee_lamports,
        created_slot,
        settled_slot,
        nonce,
    )


def decode_operator(data: bytes) -> Operator:
    """The operator in account `data`."""
    _expect("operator", data, OPERATOR_DISCRIMINATOR, OPERATOR_LENGTH)
    _version, bump, uri_len, queue, key, uri = _OPERATOR.unpack_from(data)
    if uri_len > MAX_URI_LENGTH:
        raise ACCOUNT_MALFORMED(f"an operator's URI of {uri_len} bytes, at most {MAX_URI_LENGTH}")
    return Operator(bump, Pubkey.from_bytes(queue), Pubkey.from_bytes(key), _ascii("uri", uri[:uri_len]))


def decode_queue(data: bytes) -> Queue:
    """The queue in account `data`."""
    _expect("queue", data, QUEUE_DISCRIMINATOR, QUEUE_LENGTH)
    (
        _version,
        bump,
        authority,
        name,
        operator_count,
        paused,
        fee_floor_lamports,
        min_deadline_slots,
        max_deadline_slots,
        lease_slots,
        retention_slots,
        max_body_len,
        max_output_cap,
        claim_required,
        unclaimed_until_slot,
    ) = _QUEUE.unpack_from(data)
    terms = QueueTerms(
        fee_floor_lamports,
        min_deadline_slots,
        max_deadline_slots,
        lease_slots,
        retention_slots,
        max_body_len,
        max_output_cap,
        _bool("claim_required", claim_required),
    )
    return Queue(
        bump,
        Pubkey.from_bytes(authority),
        _ascii("name", name.rstrip(b"\0")),
        operator_count,
        _bool("paused", paused),
        terms,
        unclaimed_until_slot,
    )


def _expect(kind: str, data: bytes, expected: bytes, length: int) -> None:
    if data[:8] != expected:
        raise ACCOUNT_OF_ANOTHER_KIND(f"this is not a {kind}: it begins with {bytes(data[:8]).hex() or 'nothing'}")
    if len(data) > VERSION_OFFSET:
        _expect_version(kind, data[VERSION_OFFSET])
    if len(data) < length:
        raise ACCOUNT_MALFORMED(f"a {kind} of {len(data)} bytes, at least {length}")


def _expect_version(kind: str, version: int) -> None:
    if version != VERSION:
        raise ACCOUNT_VERSION_UNKNOWN(f"{kind} of version {version}, this release knows {VERSION}")


def _status(value: int) -> Status:
    if value >= len(_STATUSES):
        raise ACCOUNT_MALFORMED(f"status {value} is unknown")
    return _STATUSES[value]


def _bool(field: str, value: int) -> bool:
    if value > 1:
        raise ACCOUNT_MALFORMED(f"{field} is {value}, neither 0 nor 1")
    return value == 1


def _ascii(field: str, value: bytes) -> str:
    # Both are shown in terminals and logs; the program lets only printable ASCII through.
    if not all(32 <= byte < 127 for byte in value):
        raise ACCOUNT_MALFORMED(f"{field} is not printable ASCII")
    return value.decode("ascii")
