"""Receipts: one spelling for what they say, and every other one refused."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oracle.core import receipts
from oracle.core.errors import OracleError

RECEIPT: dict[str, Any] = {
    "version": 1,
    "program": "Orac1e",
    "request": "Request",
    "created_slot": "18446744073709551615",
    "queue": "Queue",
    "operator": "Operator",
    "requester": "Requester",
    "nonce": "0",
    "body_hash": "0b" * 32,
    "input_hash": "1c" * 32,
    "input_origin": None,
    "model_asked": "llama",
    "model_run": "llama",
    "provider": "nosana",
    "provider_job_id": "job-1",
    "params": {"max_output_tokens": 64, "temperature_milli": 0, "seed": "7", "flags": 0},
    "output_hash": "2d" * 32,
    "output_bytes": 12,
    "output_media_type": "text/plain; charset=utf-8",
    "submitted_at": 1_700_000_000,
    "completed_at": 1_700_000_009,
}
CANONICAL = receipts.encode(RECEIPT)

u64s = st.integers(0, 2**64 - 1).map(str)
hashes = st.binary(min_size=32, max_size=32).map(bytes.hex)
texts = st.text(st.characters(exclude_categories=["Cs"]))
times = st.integers(0, 2**53 - 1)
some_receipt = st.fixed_dictionaries(
    {
        **{
            name: texts
            for name in RECEIPT
            if name.endswith(("type", "id", "run", "asked")) or name in ("program", "request", "queue", "provider")
        },
        **dict.fromkeys(("operator", "requester"), texts),
        **dict.fromkeys(("created_slot", "nonce"), u64s),
        **dict.fromkeys(("body_hash", "input_hash", "output_hash"), hashes),
        **dict.fromkeys(("output_bytes", "submitted_at", "completed_at"), times),
        "version": st.just(1),
        "input_origin": st.none() | texts,
        "params": st.dictionaries(texts, times | texts | st.none() | st.lists(times, max_size=2), max_size=4),
    }
)


def refused(content: bytes) -> str:
    with pytest.raises(OracleError) as raised:
        receipts.decode(content)
    assert raised.value.code == "ORC-RECEIPT-001"
    return raised.value.detail


@given(some_receipt)
def test_what_is_encoded_is_decoded_and_encodes_to_the_same_bytes(fields: dict[str, Any]) -> None:
    content = receipts.encode(fields)
    assert receipts.decode(content) == fields
    assert receipts.encode(dict(reversed(list(fields.items())))) == content


def test_the_bytes_are_those_of_rfc_8785() -> None:
    """Names sorted by their UTF-16 units, no white space, the shortest numbers, and text as it is."""
    params = {"z": 10, "a": 1e21, "\u20ac": "\u00e9\n\u0007", "\U0001f600": 0.5, "\ufb33": []}
    content = receipts.encode({**RECEIPT, "params": params})
    expected = '"params":{"a":1e+21,"z":10,"\u20ac":"\u00e9\\n\\u0007","\U0001f600":0.5,"\ufb33":[]}'
    assert expected.encode() in content
    assert b" " not in content.replace(b"; charset", b";charset")
    assert [*json.loads(content)] == sorted(RECEIPT)


def test_the_job_hash_is_the_sha256_of_the_bytes() -> None:
    assert receipts.job_hash(CANONICAL) == hashlib.sha256(CANONICAL).digest()


@pytest.mark.parametrize("name", sorted(RECEIPT))
def test_a_receipt_without_one_of_its_fields_is_refused(name: str) -> None:
    fields = {key: value for key, value in RECEIPT.items() if key != name}
    with pytest.raises(OracleError, match="version None" if name == "version" else f"missing {name}"):
        receipts.encode(fields)
    refused(json.dumps(fields).encode())


def test_a_receipt_with_a_field_of_another_version_is_refused() -> None:
    with pytest.raises(OracleError, match="unknown price"):
        receipts.encode({**RECEIPT, "price": 1})


WRONG = [None, True, 1, 1.5, "text", [], {}]


@pytest.mark.parametrize("name", sorted(RECEIPT))
def test_a_field_of_another_type_is_refused(name: str) -> None:
    kinds = {type(RECEIPT[name]), str} if name == "input_origin" else {type(RECEIPT[name])}
    for wrong in WRONG:
        if type(wrong) not in kinds:
            with pytest.raises(OracleError, match=name):
                receipts.encode({**RECEIPT, name: wrong})


@pytest.mark.parametrize("version", [0, 2, 1.0, True, "1"])
def test_another_version_is_refused(version: object) -> None:
    with pytest.raises(OracleError, match="version"):
        receipts.encode({**RECEIPT, "version": version})


@pytest.mark.parametrize("name", ["created_slot", "nonce"])
@pytest.mark.parametrize("text", ["", "-1", "+1", "01", "1.0", "1e3", " 1", "0x1", "\u0661", "1" * 21, "NaN"])
def test_a_u64_has_one_spelling(name: str, text: str) -> None:
    with pytest.raises(OracleError, match=name):
        receipts.encode({**RECEIPT, name: text})


@pytest.mark.parametrize("name", ["body_hash", "input_hash", "output_hash"])
@pytest.mark.parametrize("text", ["", "ab", "0B" * 32, "0b" * 33, "0b" * 31 + "0", "zz" * 32, "0x" + "0b" * 31])
def test_a_hash_has_one_spelling(name: str, text: str) -> None:
    with pytest.raises(OracleError, match=name):
        receipts.encode({**RECEIPT, name: text})


@pytest.mark.parametrize(
    ("content", "detail"),
    [
        (b"nonsense", "not JSON: Expecting value: line 1 column 1 (char 0)"),
        (b"[]", "not a JSON object"),
        (CANONICAL + b" ", "not in canonical form"),
        (json.dumps({**RECEIPT, "version": 2}).encode(), "version 2, expected 1"),
        (json.dumps(dict(list(RECEIPT.items())[:-2])).encode(), "missing completed_at, submitted_at"),
        (json.dumps({**RECEIPT, "a": 1, "b": 2}).encode(), "unknown a, b"),
    ],
)
def test_what_is_wrong_with_a_receipt_is_told(content: bytes, detail: str) -> None:
    with pytest.raises(OracleError) as refused:
        receipts.decode(content)
    assert refused.value.detail == detail


@given(st.data())
def test_every_mutation_is_refused_or_has_another_hash(data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(CANONICAL) - 1))
    kind = data.draw(st.sampled_from(["replace", "insert", "delete", "cut"]))
    byte = bytes([data.draw(st.integers(0, 255))])
    rest = {"replace": byte + CANONICAL[at + 1 :], "insert": byte + CANONICAL[at:], "delete": CANONICAL[at + 1 :]}
    mutated = CANONICAL[:at] + rest.get(kind, b"")
    try:
        fields = receipts.decode(mutated)
    except OracleError:
        return
    assert receipts.encode(fields) == mutated
    assert (mutated == CANONICAL) == (fields == RECEIPT)


@pytest.mark.parametrize(
    "content",
    [
        json.dumps(RECEIPT).encode(),
        json.dumps(RECEIPT, separators=(",", ":")).encode(),
        CANONICAL + b"\n",
        b" " + CANONICAL,
        CANONICAL.replace(b'"output_bytes":12', b'"output_bytes":12.0'),
        CANONICAL.replace(b'"output_bytes":12', b'"output_bytes":1.2e1'),
        CANONICAL.replace(b'"llama"', b'"\\u006clama"', 1),
        CANONICAL.replace(b'"nonce":"0"', b'"nonce":"1","nonce":"0"'),
        CANONICAL.decode().encode("utf-16"),
        CANONICAL.decode().encode("utf-8-sig"),
    ],
)
def test_the_same_statements_in_another_spelling_are_refused(content: bytes) -> None:
    assert content != CANONICAL
    refused(content)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"null",
        b"[]",
        b"1",
        b'"text"',
        b"<html>",
        b"\xff\xfe",
        b'{"version":1',
        b"[" * 200_000,
        b'{"a":' * 200_000,
        b"9" * 10_000,
    ],
)
def test_what_is_no_receipt_is_refused_by_name(content: bytes) -> None:
    refused(content)


@pytest.mark.parametrize(
    "value",
    ["NaN", "Infinity", "9007199254740992", "-9007199254740992", '"\\ud800"', '{"\\ud800":1}', "1" * 400, "1e400"],
)
def test_a_parameter_without_a_canonical_form_is_refused(value: str) -> None:
    params = json.dumps(RECEIPT["params"], separators=(",", ":"))
    mutated = json.dumps(RECEIPT, separators=(",", ":")).replace(params, f'{{"x":{value}}}')
    assert "canonical" in refused(mutated.encode())


def test_parameters_nested_beyond_reason_are_refused() -> None:
    nested: dict[str, Any] = {}
    for _ in range(5_000):
        nested = {"a": nested}
    with pytest.raises(OracleError, match=r"no canonical form: RecursionError$"):
        receipts.encode({**RECEIPT, "params": nested})


@given(st.binary(max_size=200) | st.text().map(str.encode))
def test_no_bytes_do_more_than_be_refused(content: bytes) -> None:
    refused(content)
