"""Whatever bytes an account or an event consists of: a value that encodes to the same bytes again, or a coded error."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass
from typing import Any

import pytest
from hostile_bytes import bounded_memory, hostile, truncations
from program_samples import (
    BODY,
    REQUEST_BYTES,
    discriminator,
    key,
    operator_account,
    queue_account,
    request_account,
    request_header,
)
from solders.pubkey import Pubkey

from oracle.chain.program.body import decode_body, encode_body
from oracle.chain.program.events import EVENT_LENGTHS, Event, decode_event
from oracle.chain.program.layout import (
    HEADER_LENGTH,
    SLICE_LENGTH,
    SLICE_OFFSET,
    Operator,
    Queue,
    RequestSlice,
    decode_header,
    decode_operator,
    decode_queue,
    decode_request,
    decode_slice,
)
from oracle.core.errors import OracleError
from oracle.core.request import Body, Data, Header, Inline, Params, Request

CASES = 6_000
PADDING = 6
"""The last bytes of a request's header, which mean nothing."""
MOST_BYTES = 2_000_000
"""More than any account here needs, and less than what a hostile length asks for."""


def header_bytes(header: Header) -> bytes:
    """What a header stands for, at the offsets of the interface."""
    fields = {name: getattr(header, name) for name in Header.__slots__}
    return request_header(**{name: _plain(value) for name, value in fields.items()})[: REQUEST_BYTES - PADDING]


def same_header(data: bytes, header: Header) -> bool:
    return header_bytes(header) == data[: REQUEST_BYTES - PADDING]


def same_request(data: bytes, request: Request) -> bool:
    header = request.header
    after_body = HEADER_LENGTH + header.body_len
    return (
        same_header(data, header)
        and encode_body(request.body) == request.body_bytes == data[HEADER_LENGTH:after_body]
        and data[after_body:].startswith(request.inline_output)
        and len(data) == after_body + header.output_cap
    )


def same_slice(data: bytes, cut: RequestSlice) -> bool:
    fields = {name: _plain(getattr(cut, name)) for name in RequestSlice.__slots__}
    again = bytearray(request_header(**fields)[SLICE_OFFSET : SLICE_OFFSET + SLICE_LENGTH])
    again[3] = data[3]  # the bump, which a scan does not need
    return bytes(again) == data


def same_operator(data: bytes, operator: Operator) -> bool:
    uri = operator.uri.encode()
    head = discriminator("account:Operator") + bytes([1, operator.bump]) + len(uri).to_bytes(2, "little")
    return (
        data.startswith(head)
        and data[16:80] == bytes(operator.queue) + bytes(operator.key)
        and data[80:].startswith(uri)
    )


def same_queue(data: bytes, queue: Queue) -> bool:
    terms = queue.terms
    numbers = (
        (queue.operator_count, 4),
        (queue.paused, 1),
        (terms.fee_floor_lamports, 8),
        (terms.min_deadline_slots, 8),
        (terms.max_deadline_slots, 8),
        (terms.lease_slots, 4),
        (terms.retention_slots, 4),
        (terms.max_body_len, 4),
        (terms.max_output_cap, 4),
        (terms.claim_required, 1),
        (queue.unclaimed_until_slot, 8),
    )
    head = discriminator("account:Queue") + bytes([1, queue.bump]) + bytes(queue.authority)
    rest = queue.name.encode().ljust(32, b"\0") + b"".join(
        int(value).to_bytes(size, "little") for value, size in numbers
    )
    return data.startswith(head + rest)


def same_body(data: bytes, body: Body) -> bool:
    return encode_body(body) == data


def same_event(data: bytes, event: Event | None) -> bool:
    if event is None:
        return True
    parts = [_field(value, name) for name, value in zip(event.__slots__, astuple(event), strict=True)]
    return discriminator(f"event:{type(event).__name__}") + b"".join(parts) == data


def _field(value: Any, name: str) -> bytes:
    if isinstance(value, int):
        size = {"reason": 1, "output_len": 4}.get(name, 8)
        return value.to_bytes(size, "little", signed=name == "completed_at")
    return bytes(value)


def _plain(value: Any) -> Any:
    return bytes(value) if isinstance(value, Pubkey) else int(value) if isinstance(value, bool) else value


@dataclass(frozen=True, slots=True)
class Decoder:
    decode: Callable[[bytes], Any]
    is_same: Callable[[bytes, Any], bool]
    valid: Sequence[bytes]


BODIES = [
    encode_body(body)
    for body in (BODY, Body("m", Params(1), Inline(b"hello")), Body("", Params(0), Data("data://beemaps/x", bytes(32))))
]
REQUESTS = [
    request_account(body, output, cap, status=status, fee_lamports=2**64 - 1, queue=key(7), claim_required=1)
    for body, output, cap, status in zip(BODIES, (b"", b"an answer", b""), (0, 20, 300), (0, 2, 5), strict=True)
]
EVENTS = [discriminator(f"event:{event.__name__}") + bytes(length - 8) for event, length in EVENT_LENGTHS.items()]
CUTS = [data[SLICE_OFFSET : SLICE_OFFSET + SLICE_LENGTH] for data in REQUESTS]

DECODERS = {
    "request": Decoder(lambda data: decode_request(key(1), data), same_request, REQUESTS),
    "header": Decoder(decode_header, same_header, REQUESTS),
    "slice": Decoder(decode_slice, same_slice, CUTS),
    "operator": Decoder(decode_operator, same_operator, [operator_account(), operator_account(b"")]),
    "queue": Decoder(decode_queue, same_queue, [queue_account(), queue_account(b"", 1, 0)]),
    "body": Decoder(decode_body, same_body, BODIES),
    "event": Decoder(decode_event, same_event, EVENTS),
}


def outcome(decoder: Decoder, data: bytes) -> str:
    """`value` or a code. Any other exception is the test's failure."""
    try:
        value = decoder.decode(data)
    except OracleError as error:
        return error.code
    assert decoder.is_same(data, value), data.hex()
    return "nothing" if value is None else "value"


@pytest.mark.parametrize("name", DECODERS)
def test_any_bytes_are_a_value_that_encodes_to_them_or_a_coded_error(name: str) -> None:
    decoder = DECODERS[name]
    assert {outcome(decoder, data) for data in decoder.valid} == {"value"}
    found = {outcome(decoder, data) for data in hostile(decoder.valid, CASES)}
    assert len(found) > 1


@pytest.mark.parametrize("name", sorted(DECODERS.keys() - {"header"}))
def test_no_beginning_of_it_is_taken_for_the_whole(name: str) -> None:
    decoder = DECODERS[name]
    for valid in decoder.valid:
        assert "value" not in {outcome(decoder, data) for data in truncations(valid)}


@pytest.mark.parametrize("name", DECODERS)
def test_a_length_that_lies_makes_nobody_reserve_room(name: str) -> None:
    decoder = DECODERS[name]
    with bounded_memory(MOST_BYTES):
        for valid in decoder.valid:
            for at in range(len(valid)):
                outcome(decoder, valid[:at] + b"\xff\xff\xff\x7f" + valid[at + 4 :])
