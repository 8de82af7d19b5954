"""The program's events, read from the logs of a transaction. Events are a courtesy: accounts are the truth.

Any program may log the same bytes, and `msg!` may print what a user wrote. So only a `Program data:` line counts, and
only while our program is on top of the invoke stack. Logs come from outside and are cut at 10 kB: nothing here raises.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Iterable
from dataclasses import dataclass
from struct import Struct
from typing import Any, Final

from solders.pubkey import Pubkey

from oracle.chain.program.layout import discriminator


@dataclass(frozen=True, slots=True)
class RequestSubmitted:
    request: Pubkey
    queue: Pubkey
    requester: Pubkey
    fee_lamports: int
    deadline_slot: int
    created_slot: int


@dataclass(frozen=True, slots=True)
class RequestClaimed:
    request: Pubkey
    operator: Pubkey
    claim_expires_slot: int


@dataclass(frozen=True, slots=True)
class InferenceRecorded:
    request: Pubkey
    operator: Pubkey
    output_hash: bytes
    job_hash: bytes
    created_slot: int
    completed_at: int


@dataclass(frozen=True, slots=True)
class OutputPublished:
    request: Pubkey
    output_len: int


@dataclass(frozen=True, slots=True)
class RequestRejected:
    request: Pubkey
    operator: Pubkey
    reason: int
    created_slot: int


@dataclass(frozen=True, slots=True)
class RequestCancelled:
    request: Pubkey
    created_slot: int


@dataclass(frozen=True, slots=True)
class RequestExpired:
    request: Pubkey
    created_slot: int


@dataclass(frozen=True, slots=True)
class RequestClosed:
    request: Pubkey
    created_slot: int
    returned_lamports: int


@dataclass(frozen=True, slots=True)
class QueueCreated:
    queue: Pubkey


@dataclass(frozen=True, slots=True)
class QueueUpdated:
    queue: Pubkey


@dataclass(frozen=True, slots=True)
class OperatorAdded:
    queue: Pubkey
    operator: Pubkey


@dataclass(frozen=True, slots=True)
class OperatorUpdated:
    queue: Pubkey
    operator: Pubkey


@dataclass(frozen=True, slots=True)
class OperatorRemoved:
    queue: Pubkey
    operator: Pubkey


Event = (
    RequestSubmitted
    | RequestClaimed
    | InferenceRecorded
    | OutputPublished
    | RequestRejected
    | RequestCancelled
    | RequestExpired
    | RequestClosed
    | QueueCreated
    | QueueUpdated
    | OperatorAdded
    | OperatorUpdated
    | OperatorRemoved
)

# One letter a field: K a public key, H a hash of 32 bytes, the rest as in `struct`.
_FIELDS: Final[dict[type[Event], str]] = {
    RequestSubmitted: "KKKQQQ",
    RequestClaimed: "KKQ",
    InferenceRecorded: "KKHHQq",
    OutputPublished: "KI",
    RequestRejected: "KKBQ",
    RequestCancelled: "KQ",
    RequestExpired: "KQ",
    RequestClosed: "KQQ",
    QueueCreated: "K",
    QueueUpdated: "K",
    OperatorAdded: "KK",
    OperatorUpdated: "KK",
    OperatorRemoved: "KK",
}


@dataclass(frozen=True, slots=True)
class _Layout:
    event: type[Event]
    fields: str
    packed: Struct


_LAYOUTS: Final = {
    discriminator("event", event.__name__): _Layout(
        event, fields, Struct("<" + fields.replace("K", "32s").replace("H", "32s"))
    )
    for event, fields in _FIELDS.items()
}

EVENT_LENGTHS: Final = {layout.event: 8 + layout.packed.size for layout in _LAYOUTS.values()}
"""Bytes of each event, with its discriminator."""

_INVOKE: Final = re.compile(r"Program (\w+) invoke \[([1-9]\d?)\]")
_DATA: Final = "Program data: "


def read_events(program_id: Pubkey, logs: Iterable[str]) -> list[Event]:
    """The events that `program_id` emitted, in order. Logs of a failed transaction hold none: it did nothing.

    Give it the logs of transactions that succeeded: the runtime may undo one without a word in its logs.
    """
    ours = str(program_id)
    stack: list[str] = []
    events: list[Event] = []
    for line in logs:
        if invoked := _INVOKE.fullmatch(line):
            # The depth is in the line, so a log that was cut, or begins in the middle, cannot shift the stack.
            depth = int(invoked[2])
            stack[depth - 1 :] = [invoked[1]]
        elif line.startswith(_DATA):
            if stack and stack[-1] == ours and (event := decode_event(_base64(line[len(_DATA) :]))):
                events.append(event)
        elif stack and line == f"Program {stack[-1]} success":
            stack.pop()
        elif stack and line.startswith(f"Program {stack[-1]} failed"):
            return []
    return events


def decode_event(data: bytes) -> Event | None:
    """The event in `data`, or None where it is not one of ours to its last byte."""
    layout = _LAYOUTS.get(bytes(data[:8]))
    if layout is None or len(data) != 8 + layout.packed.size:
        return None
    values: list[Any] = [
        Pubkey.from_bytes(value) if field == "K" else value
        for field, value in zip(layout.fields, layout.packed.unpack_from(data, 8), strict=True)
    ]
    return layout.event(*values)


def _base64(text: str) -> bytes:
    try:
        return binascii.a2b_base64(text, strict_mode=True)
    except ValueError:
        return b""
