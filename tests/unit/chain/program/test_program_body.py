"""The body's borsh: golden bytes, round trips, and what is refused."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from program_samples import BODY, bodies, key

from oracle.chain.program.body import decode_body, encode_body
from oracle.core.errors import OracleError
from oracle.core.request import Body, Callback, CallbackAccount, Flags, Inline, Params, Uri

SMALL = Body("m1", Params(1, 2, 3, Flags.ANY_MODEL), Inline(b"hi"))
# model | max tokens, temperature, seed, flags | variant 0, content | no callback
SMALL_HEX = "020000006d31" + "01000000" + "0200" + "0300000000000000" + "0200" + "00" + "020000006869" + "00"
BODY_HEX = (
    "070000006c6c616d612d33"
    "00010000bc022a000000000000000500"
    "011e00000068747470733a2f2f6578616d706c652e6f72672f696e7075742e6a736f6e" + bytes(range(32)).hex() + "01"
    f"{'09' * 32}02000000{'0a' * 32}01{'0b' * 32}00"
)


@pytest.mark.parametrize(("body", "golden"), [(SMALL, SMALL_HEX), (BODY, BODY_HEX)])
def test_a_body_has_these_bytes_and_no_others(body: Body, golden: str) -> None:
    assert encode_body(body).hex() == golden
    assert decode_body(bytes.fromhex(golden)) == body


@given(bodies)
@settings(max_examples=300, deadline=None)
def test_what_is_encoded_decodes_to_itself(body: Body) -> None:
    assert decode_body(encode_body(body)) == body


def test_every_truncation_is_refused() -> None:
    whole = encode_body(BODY)
    for length in range(len(whole)):
        assert code_of_decoding(whole[:length]) == "ORC-CHAIN-104"


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (encode_body(SMALL) + b"\0", "1 bytes behind the end"),
        (b"\xff\xff\xff\xff" + encode_body(SMALL), "4294967295 bytes"),
        (b"\x02\0\0\0\xc3\x28" + encode_body(SMALL)[6:], "not UTF-8"),
        (encode_body(SMALL)[:22] + b"\x03" + encode_body(SMALL)[23:], "variant 3"),
        (encode_body(SMALL)[:-1] + b"\x02", "only 0 and 1"),
        (encode_body(SMALL)[:-1] + b"\x01" + bytes(32) + b"\x11\0\0\0" + bytes(33 * 17), "17 callback accounts"),
        (encode_body(SMALL)[:-1] + b"\x01" + bytes(32) + b"\xff\xff\xff\xff", "4294967295 callback accounts"),
        (encode_body(SMALL)[:-1] + b"\x01" + bytes(32) + b"\x01\0\0\0" + bytes(32) + b"\x07", "is_writable"),
    ],
)
def test_a_malformed_body_is_refused_by_name(data: bytes, says: str) -> None:
    with pytest.raises(OracleError, match=says) as caught:
        decode_body(data)
    assert caught.value.code == "ORC-CHAIN-104"


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (replace(SMALL, params=Params(2**32)), "params"),
        (replace(SMALL, params=Params(1, temperature_milli=-1)), "params"),
        (replace(SMALL, params=Params(1, seed=2**64)), "params"),
        (replace(SMALL, model="\ud800"), "model is not valid Unicode"),
        (replace(SMALL, input=Uri("https://x", bytes(20))), "sha256 is 20 bytes long"),
        (replace(SMALL, callback=Callback(key(1), (CallbackAccount(key(2), True),) * 17)), "17 callback accounts"),
    ],
)
def test_a_value_that_does_not_fit_is_refused_by_name(body: Body, says: str) -> None:
    with pytest.raises(OracleError, match=says) as caught:
        encode_body(body)
    assert caught.value.code == "ORC-CHAIN-105"


def test_a_damaged_body_never_raises_anything_but_an_oracle_error() -> None:
    whole = encode_body(BODY)
    for at in range(len(whole)):
        for value in (0, 1, 2, 0x7F, 0x80, 0xFF):
            damaged = whole[:at] + bytes([value]) + whole[at + 1 :]
            if code_of_decoding(damaged) is None:
                assert encode_body(decode_body(damaged)) == damaged, "two byte strings, one body"


def code_of_decoding(data: bytes) -> str | None:
    try:
        decode_body(data)
    except OracleError as error:
        return error.code
    return None
