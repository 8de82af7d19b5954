"""The accounts' codec: frozen offsets, versions, damage."""

from __future__ import annotations

import copy
import pickle
import random
from collections.abc import Callable, Iterator
from hashlib import sha256
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from program_samples import (
    BODY,
    REQUEST_BYTES,
    REQUEST_FIELDS,
    bodies,
    hashes,
    key,
    operator_account,
    pubkeys,
    queue_account,
    request_account,
    u32,
    u64,
)
from solders.hash import Hash

from oracle.chain.program import layout
from oracle.chain.program.body import encode_body
from oracle.chain.program.layout import (
    QueueTerms,
    decode_header,
    decode_operator,
    decode_queue,
    decode_request,
    decode_slice,
)
from oracle.core.errors import OracleError
from oracle.core.request import Body, Status

ADDRESS = key(77)
BODY_BYTES = encode_body(BODY)
REQUEST = request_account(BODY_BYTES, b"output", output_cap=10, status=2, claim_required=1)
SLICE = REQUEST[8:128]
DECODERS: dict[str, tuple[Callable[[bytes], Any], bytes]] = {
    "request": (lambda data: decode_request(ADDRESS, data), REQUEST),
    "header": (decode_header, REQUEST[:REQUEST_BYTES]),
    "slice": (decode_slice, SLICE),
    "operator": (decode_operator, operator_account()),
    "queue": (decode_queue, queue_account()),
}

u8 = st.integers(0, 255)
headers = st.fixed_dictionaries(
    {
        "status": st.sampled_from(Status),
        "reason": u8,
        "bump": u8,
        "queue": pubkeys,
        "operator": pubkeys,
        "deadline_slot": u64,
        "claim_expires_slot": u64,
        "fee_lamports": u64,
        "created_slot": u64,
        "settled_slot": u64,
        "nonce": u64,
        "requester": pubkeys,
        "refund_to": pubkeys,
        "body_hash": hashes,
        "callback_program": pubkeys,
        "output_hash": hashes,
        "job_hash": hashes,
        "completed_at": st.integers(-(2**63), 2**63 - 1),
        "lease_slots": u32,
        "retention_slots": u32,
        "claim_required": st.booleans(),
        "callback_delivered": st.booleans(),
    }
)


@given(headers, bodies, st.binary(max_size=40), st.integers(0, 20))
@settings(max_examples=300, deadline=None)
def test_every_field_is_read_from_its_frozen_offset(
    fields: dict[str, Any], body: Body, output: bytes, unused: int
) -> None:
    body_bytes = encode_body(body)
    data = request_account(body_bytes, output, output_cap=len(output) + unused, **fields)
    request = decode_request(ADDRESS, data)
    assert {name: getattr(request.header, name) for name in fields} == fields
    assert (request.body, request.body_bytes, request.inline_output) == (body, body_bytes, output)
    assert request.header == decode_header(data) == decode_header(data[:REQUEST_BYTES])
    seen = decode_slice(data[layout.SLICE_OFFSET : layout.SLICE_OFFSET + layout.SLICE_LENGTH])
    for name in ("status", "reason", "queue", "operator", "deadline_slot", "claim_expires_slot", "fee_lamports"):
        assert getattr(seen, name) == fields[name]
    assert (seen.created_slot, seen.settled_slot, seen.nonce) == (
        fields["created_slot"],
        fields["settled_slot"],
        fields["nonce"],
    )
    assert seen.body_len == len(body_bytes)


def test_the_offsets_of_filters_are_those_of_the_interface() -> None:
    assert REQUEST_FIELDS["queue"][0] == layout.QUEUE_OFFSET
    assert REQUEST_FIELDS["status"][0] == layout.STATUS_OFFSET
    assert (layout.SLICE_OFFSET, layout.SLICE_LENGTH) == (8, 120)
    assert (layout.HEADER_LENGTH, layout.OPERATOR_LENGTH, layout.QUEUE_LENGTH) == (352, 208, 128)


def test_an_operator_is_read() -> None:
    operator = decode_operator(operator_account(b"http://127.0.0.1:8080"))
    assert (operator.bump, operator.queue, operator.key) == (254, key(1), key(2))
    assert operator.uri == "http://127.0.0.1:8080"


def test_a_queue_is_read() -> None:
    queue = decode_queue(queue_account())
    assert (queue.bump, queue.authority, queue.name) == (253, key(3), "a queue")
    assert (queue.operator_count, queue.paused, queue.unclaimed_until_slot) == (2, False, 12_345)
    assert queue.terms == QueueTerms(10_000, 10, 9_000, 50, 700, 4_000, 900, True)


def test_a_stored_body_is_authentic_only_if_it_hashes_to_the_address() -> None:
    honest = request_account(BODY_BYTES, body_hash=sha256(BODY_BYTES).digest())
    assert decode_request(ADDRESS, honest).body_is_authentic
    assert not decode_request(ADDRESS, REQUEST).body_is_authentic


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "ORC-CHAIN-101"),
        (REQUEST[:7], "ORC-CHAIN-101"),
        (operator_account(), "ORC-CHAIN-101"),
        (bytes(400), "ORC-CHAIN-101"),
        (request_account(BODY_BYTES, version=2), "ORC-CHAIN-102"),
        (request_account(BODY_BYTES, version=0), "ORC-CHAIN-102"),
        (request_account(version=2)[:9], "ORC-CHAIN-102"),
        (REQUEST[:8], "ORC-CHAIN-103"),
        (REQUEST[: REQUEST_BYTES - 1], "ORC-CHAIN-103"),
        (REQUEST[:-1], "ORC-CHAIN-103"),
        (REQUEST + b"\0", "ORC-CHAIN-103"),
        (request_account(BODY_BYTES, status=6), "ORC-CHAIN-103"),
        (request_account(BODY_BYTES, claim_required=2), "ORC-CHAIN-103"),
        (request_account(BODY_BYTES, callback_delivered=255), "ORC-CHAIN-103"),
        (request_account(BODY_BYTES, b"output", output_cap=5), "ORC-CHAIN-103"),
        (request_account(BODY_BYTES, body_len=2**32 - 1), "ORC-CHAIN-103"),
        (request_account(BODY_BYTES[:-1]), "ORC-CHAIN-104"),
        (request_account(BODY_BYTES + b"\0"), "ORC-CHAIN-104"),
        (request_account(b""), "ORC-CHAIN-104"),
    ],
)
def test_each_kind_of_bad_request_has_its_own_code(data: bytes, code: str) -> None:
    assert code_of(DECODERS["request"][0], data) == code


@pytest.mark.parametrize(
    ("decoder", "data", "code"),
    [
        ("slice", SLICE[:-1], "ORC-CHAIN-103"),
        ("slice", SLICE + b"\0", "ORC-CHAIN-103"),
        ("slice", b"\x02" + SLICE[1:], "ORC-CHAIN-102"),
        ("slice", b"\x01\x06" + SLICE[2:], "ORC-CHAIN-103"),
        ("operator", queue_account(), "ORC-CHAIN-101"),
        ("operator", operator_account()[:-1], "ORC-CHAIN-103"),
        ("operator", operator_account()[:10] + b"\x81\0" + operator_account()[12:], "ORC-CHAIN-103"),
        ("operator", operator_account(b"https://\x1b[2J"), "ORC-CHAIN-103"),
        ("queue", operator_account(), "ORC-CHAIN-101"),
        ("queue", queue_account()[:-1], "ORC-CHAIN-103"),
        ("queue", queue_account(name=b"a\nb"), "ORC-CHAIN-103"),
        ("queue", queue_account(name=b"a\0b"), "ORC-CHAIN-103"),
        ("queue", queue_account(paused=2), "ORC-CHAIN-103"),
        ("queue", queue_account(claim_required=9), "ORC-CHAIN-103"),
    ],
)
def test_each_kind_of_other_bad_account_has_its_own_code(decoder: str, data: bytes, code: str) -> None:
    assert code_of(DECODERS[decoder][0], data) == code


@pytest.mark.parametrize("name", DECODERS)
def test_a_damaged_account_never_raises_anything_but_an_oracle_error(name: str) -> None:
    decode, whole = DECODERS[name]
    refused = accepted = 0
    for damaged in damages(whole):
        if code_of(decode, damaged) is None:
            accepted += 1
        else:
            refused += 1
    assert refused > 100
    assert accepted > 100


def test_keys_and_hashes_can_be_copied_and_pickled_once_the_package_is_imported() -> None:
    for value in (key(5), Hash.new_unique()):
        assert copy.deepcopy(value) == value
        assert pickle.loads(pickle.dumps(value)) == value


def damages(whole: bytes) -> Iterator[bytes]:
    """Every truncation, three values in every byte, and 1,500 random damages of three kinds: the same on every run."""
    yield from (whole[:length] for length in range(len(whole)))
    for at in range(len(whole)):
        yield from (whole[:at] + bytes([value]) + whole[at + 1 :] for value in (0, 1, 255))
    chance = random.Random(len(whole))
    for _ in range(1_500):
        damaged = bytearray(whole)
        for _ in range(chance.randint(1, 8)):
            damaged[chance.randrange(len(damaged))] = chance.randrange(256)
        yield bytes(damaged[: chance.choice((None, None, None, chance.randrange(len(whole))))])
        yield whole[:9] + chance.randbytes(len(whole) - 9)
        yield chance.randbytes(chance.randrange(2 * len(whole)))


def code_of(decode: Callable[[bytes], Any], data: bytes) -> str | None:
    try:
        decode(data)
    except OracleError as error:
        return error.code
    return None
