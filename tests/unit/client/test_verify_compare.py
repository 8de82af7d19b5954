"""Verification from bytes alone: yes to what is of one piece, no to everything that was touched anywhere."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from typing import Any

import pytest
from answered import NONCE, OTHER, OUTPUT, PROGRAM, PROMPT, QUEUE, receipt_of, recorded_of, request_of
from solders.pubkey import Pubkey

from oracle.client.verify import Recorded, Verification, compare
from oracle.core.request import Data, Uri


def verdict(recorded: Recorded, output: bytes, receipt: bytes, program: Pubkey = PROGRAM) -> Verification:
    return Verification(recorded.address, tuple(compare(program, recorded, output, receipt)))


@pytest.mark.parametrize("closed", [False, True])
def test_an_honest_answer_is_verified(closed: bool) -> None:
    request = request_of()
    receipt = receipt_of(request)
    result = verdict(recorded_of(request, receipt, closed=closed), OUTPUT, receipt)
    assert result.ok, [check for check in result.checks if not check.ok]


@pytest.mark.parametrize(
    ("what", "honest"),
    [
        (Uri("https://input.example/", hashlib.sha256(PROMPT).digest()), True),
        (Uri("https://input.example/", hashlib.sha256(b"another").digest()), False),
        (Data("data://weather/tokyo", hashlib.sha256(b"data://weather/tokyo").digest()), True),
    ],
)
def test_the_input_that_the_receipt_names_is_the_one_that_was_hashed(what: Any, honest: bool) -> None:
    request = request_of(what)
    receipt = receipt_of(request)
    assert verdict(recorded_of(request, receipt), OUTPUT, receipt).ok is honest


LIES: dict[str, Any] = {
    "program": str(OTHER),
    "request": str(OTHER),
    "created_slot": "1001",
    "queue": str(OTHER),
    "operator": str(OTHER),
    "requester": str(OTHER),
    "nonce": str(NONCE + 1),
    "body_hash": "0" * 64,
    "input_hash": hashlib.sha256(b"another question").hexdigest(),
    "model_asked": "large",
    "params": {"max_output_tokens": 64, "temperature_milli": 700, "seed": str(2**60), "flags": 0},
    "output_hash": hashlib.sha256(b"another answer").hexdigest(),
    "output_bytes": len(OUTPUT) + 1,
    "completed_at": 1_700_000_006,
}
OUT_OF_SIGHT: dict[str, Any] = {
    "input_origin": "https://input.example/",
    "model_run": "tiny-2",
    "provider": "another",
    "provider_job_id": "job-2",
    "output_media_type": "text/html",
    "submitted_at": 1_700_000_001,
}


def test_every_field_of_a_receipt_is_tried() -> None:
    assert set(json.loads(receipt_of(request_of()))) == {*LIES, *OUT_OF_SIGHT, "version"}


@pytest.mark.parametrize("closed", [False, True])
@pytest.mark.parametrize("field", [*LIES, *OUT_OF_SIGHT])
def test_a_receipt_that_was_changed_after_the_settlement_is_refused(field: str, closed: bool) -> None:
    request = request_of()
    recorded = recorded_of(request, receipt_of(request), closed=closed)
    changed = receipt_of(request, **{field: {**LIES, **OUT_OF_SIGHT}[field]})
    assert not verdict(recorded, OUTPUT, changed).ok


@pytest.mark.parametrize("field", LIES)
def test_a_receipt_that_was_settled_and_contradicts_the_chain_is_refused(field: str) -> None:
    """The operator itself lies: hash and receipt agree, and the request says otherwise."""
    request = request_of()
    lie = receipt_of(request, **{field: LIES[field]})
    result = verdict(recorded_of(request, lie), OUTPUT, lie)
    assert not result.ok
    assert any(field.replace("_", " ") in check.name for check in result.checks if not check.ok) or field in (
        "output_bytes",
        "body_hash",
    )


@pytest.mark.parametrize("field", sorted(set(LIES) - {"input_hash", "model_asked", "params"}))
def test_the_events_of_a_closed_request_catch_a_lie_too(field: str) -> None:
    """Of a closed account the question is gone: but its hash is in the address."""
    request = request_of()
    lie = receipt_of(request, **{field: LIES[field]})
    assert not verdict(recorded_of(request, lie, closed=True), OUTPUT, lie).ok


@pytest.mark.parametrize(
    "output", [b"", OUTPUT + b"\n", OUTPUT[:-1], b"Kyoto", OUTPUT.upper(), b"\xef\xbb\xbf" + OUTPUT, OUTPUT * 2]
)
def test_another_output_is_refused(output: bytes) -> None:
    request = request_of()
    receipt = receipt_of(request)
    assert not verdict(recorded_of(request, receipt), output, receipt).ok


def test_the_receipt_of_another_request_is_refused() -> None:
    request = request_of()
    other = replace(request, header=replace(request.header, nonce=6), address=OTHER)
    stolen = receipt_of(other)
    assert not verdict(recorded_of(request, receipt_of(request)), OUTPUT, stolen).ok
    assert not verdict(recorded_of(request, stolen), OUTPUT, stolen).ok
    assert not verdict(recorded_of(request, stolen, closed=True), OUTPUT, stolen).ok


@pytest.mark.parametrize(
    "rewrite",
    [
        lambda fields: json.dumps(fields).encode(),
        lambda fields: json.dumps(fields, sort_keys=True, separators=(",", ":"), indent=0).encode(),
        lambda fields: json.dumps(fields, sort_keys=True, separators=(",", ":")).encode() + b"\n",
        lambda fields: json.dumps(dict(reversed(fields.items())), separators=(",", ":")).encode(),
        lambda fields: json.dumps(fields, sort_keys=True, separators=(",", ":")).replace("{", '{"a":1,', 1).encode(),
        lambda fields: json.dumps({**fields, "note": "me"}, sort_keys=True, separators=(",", ":")).encode(),
        lambda fields: json.dumps({k: v for k, v in fields.items() if k != "nonce"}, sort_keys=True).encode(),
        lambda fields: b"",
        lambda fields: b"<html>404</html>",
        lambda fields: b"[]",
        lambda fields: b"null",
        lambda fields: b"\xff\xfe",
        lambda fields: b"[" * 100_000,
        lambda fields: json.dumps({**fields, "completed_at": 2**70}, sort_keys=True, separators=(",", ":")).encode(),
        lambda fields: json.dumps({**fields, "params": {"seed": 2**70}}, sort_keys=True).encode(),
        lambda fields: json.dumps({**fields, "params": {"a": float("nan")}}, sort_keys=True).encode(),
        lambda fields: json.dumps({**fields, "provider": "\ud800"}, sort_keys=True, separators=(",", ":")).encode(),
        lambda fields: json.dumps({**fields, "version": 2}, sort_keys=True, separators=(",", ":")).encode(),
        lambda fields: json.dumps({**fields, "version": True}, sort_keys=True, separators=(",", ":")).encode(),
    ],
)
def test_bytes_that_are_no_canonical_receipt_are_refused_even_where_their_hash_was_settled(rewrite: Any) -> None:
    request = request_of()
    rewritten = rewrite(json.loads(receipt_of(request)))
    result = verdict(recorded_of(request, rewritten), OUTPUT, rewritten)
    assert not result.ok
    assert any(check.name == "receipt is valid" and not check.ok for check in result.checks)


def test_true_is_not_one() -> None:
    request = request_of()
    params = {"max_output_tokens": 64, "temperature_milli": 700, "seed": str(2**60), "flags": True}
    lie = receipt_of(request, params=params)
    assert request.body.params.flags == 1
    assert not verdict(recorded_of(request, lie), OUTPUT, lie).ok


@pytest.mark.parametrize(
    "changes",
    [
        {"operator": OTHER},
        {"queue": OTHER},
        {"requester": OTHER},
        {"created_slot": 999},
        {"completed_at": 0},
        {"output_hash": bytes(32)},
        {"job_hash": bytes(32)},
        {"address": OTHER},
    ],
)
def test_a_receipt_that_the_chain_contradicts_is_refused(changes: dict[str, Any]) -> None:
    request = request_of()
    receipt = receipt_of(request)
    for closed in (False, True):
        recorded = replace(recorded_of(request, receipt, closed=closed), **changes)
        assert not verdict(recorded, OUTPUT, receipt).ok


def test_a_result_of_another_program_is_refused() -> None:
    request = request_of()
    receipt = receipt_of(request)
    assert not verdict(recorded_of(request, receipt), OUTPUT, receipt, program=OTHER).ok


@pytest.mark.parametrize("nonce", ["+5", " 5", "5 ", "05", "5_0", "５", "-1", str(2**64), "", "0x5"])
def test_a_nonce_that_is_spelled_otherwise_is_refused(nonce: str) -> None:
    request = request_of()
    rewritten = receipt_of(request).replace(f'"{NONCE}"'.encode(), json.dumps(nonce, ensure_ascii=False).encode())
    assert not verdict(recorded_of(request, rewritten, closed=True), OUTPUT, rewritten).ok


def test_nothing_that_was_checked_is_no_verification() -> None:
    assert not Verification(QUEUE, ()).ok
