"""Accounts written byte by byte at the frozen offsets of the interface, and strategies for what goes into them.

Written from the interface's page and not with the codec, so that the two can disagree.
"""

from __future__ import annotations

import hashlib
from typing import Any

from hypothesis import strategies as st
from solders.pubkey import Pubkey

from oracle.core.request import Body, Callback, CallbackAccount, Data, Flags, Inline, Params, Uri

# field: offset, bytes
REQUEST_FIELDS = {
    "version": (8, 1),
    "status": (9, 1),
    "reason": (10, 1),
    "bump": (11, 1),
    "body_len": (12, 4),
    "queue": (16, 32),
    "operator": (48, 32),
    "deadline_slot": (80, 8),
    "claim_expires_slot": (88, 8),
    "fee_lamports": (96, 8),
    "created_slot": (104, 8),
    "settled_slot": (112, 8),
    "nonce": (120, 8),
    "requester": (128, 32),
    "refund_to": (160, 32),
    "body_hash": (192, 32),
    "callback_program": (224, 32),
    "output_hash": (256, 32),
    "job_hash": (288, 32),
    "completed_at": (320, 8),
    "output_cap": (328, 4),
    "output_len": (332, 4),
    "lease_slots": (336, 4),
    "retention_slots": (340, 4),
    "claim_required": (344, 1),
    "callback_delivered": (345, 1),
}
REQUEST_BYTES = 352


def discriminator(name: str) -> bytes:
    return hashlib.sha256(name.encode()).digest()[:8]


def key(number: int) -> Pubkey:
    return Pubkey.from_bytes(bytes([number]) * 32)


def request_account(
    body_bytes: bytes = b"", output: bytes = b"", output_cap: int | None = None, **fields: Any
) -> bytes:
    """A request's account data; `output_cap` is the length of `output` unless given."""
    cap = len(output) if output_cap is None else output_cap
    lengths = {"body_len": len(body_bytes), "output_cap": cap, "output_len": len(output)}
    return request_header(**{**lengths, **fields}) + body_bytes + output.ljust(cap, b"\0")


def request_header(**fields: Any) -> bytes:
    """The fixed part of a request, of version 1 unless told."""
    data = bytearray(REQUEST_BYTES)
    data[:8] = discriminator("account:Request")
    for name, value in {"version": 1, **fields}.items():
        at, length = REQUEST_FIELDS[name]
        signed = name == "completed_at"
        data[at : at + length] = (
            value.to_bytes(length, "little", signed=signed) if isinstance(value, int) else bytes(value)
        )
    return bytes(data)


def operator_account(uri: bytes = b"https://operator.example") -> bytes:
    head = discriminator("account:Operator") + bytes([1, 254]) + len(uri).to_bytes(2, "little") + bytes(4)
    return head + bytes(key(1)) + bytes(key(2)) + uri.ljust(128, b"\0")


def queue_account(name: bytes = b"a queue", paused: int = 0, claim_required: int = 1) -> bytes:
    head = discriminator("account:Queue") + bytes([1, 253]) + bytes(key(3)) + name.ljust(32, b"\0")
    numbers = ((2, 4), (paused, 1), (10_000, 8), (10, 8), (9_000, 8), (50, 4), (700, 4), (4_000, 4), (900, 4))
    tail = ((claim_required, 1), (12_345, 8))
    return head + b"".join(value.to_bytes(length, "little") for value, length in (*numbers, *tail))


u16, u32, u64 = (st.integers(0, 2**bits - 1) for bits in (16, 32, 64))
pubkeys = st.binary(min_size=32, max_size=32).map(Pubkey.from_bytes)
hashes = st.binary(min_size=32, max_size=32)
texts = st.text(st.characters(codec="utf-8"), max_size=70)
inputs = st.one_of(
    st.builds(Inline, st.binary(max_size=200)), st.builds(Uri, texts, hashes), st.builds(Data, texts, hashes)
)
callbacks = st.builds(
    Callback, pubkeys, st.lists(st.builds(CallbackAccount, pubkeys, st.booleans()), max_size=16).map(tuple)
)
bodies = st.builds(
    Body,
    texts,
    st.builds(Params, u32, u16, u64, st.integers(0, 7).map(Flags)),
    inputs,
    st.none() | callbacks,
)

BODY = Body(
    "llama-3",
    Params(max_output_tokens=256, temperature_milli=700, seed=42, flags=Flags.PRIVATE | Flags.CHAT),
    Uri("https://example.org/input.json", bytes(range(32))),
    Callback(key(9), (CallbackAccount(key(10), True), CallbackAccount(key(11), False))),
)
