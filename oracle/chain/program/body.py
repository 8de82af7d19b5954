"""The body of a request in borsh: what is hashed into its address, and stored on chain verbatim.

Only the form is checked here: what a model or a URI may look like is the program's to say.
"""

from __future__ import annotations

from struct import Struct
from typing import Final

from oracle.chain.program.borsh import Cursor, blob, hash32, pack, text
from oracle.chain.program.errors import BODY_MALFORMED, VALUE_UNENCODABLE
from oracle.core.request import Body, Callback, CallbackAccount, Data, Flags, Inline, Input, Params, Uri

MAX_CALLBACK_ACCOUNTS: Final = 16

_U8: Final = Struct("<B")
_U32: Final = Struct("<I")
_PARAMS: Final = Struct("<IHQH")
_INLINE, _URI, _DATA = range(3)


def encode_body(body: Body) -> bytes:
    """The borsh bytes of `body`. Raises ORC-CHAIN-105 where a value does not fit."""
    params = body.params
    return b"".join(
        (
            text("model", body.model),
            pack(
                "params",
                _PARAMS,
                params.max_output_tokens,
                params.temperature_milli,
                params.seed,
                int(params.flags),
            ),
            _input(body.input),
            _callback(body.callback),
        )
    )


def decode_body(data: bytes) -> Body:
    """The body that `data` holds, to its last byte. Raises ORC-CHAIN-104."""
    cursor = Cursor(data)
    body = Body(
        model=cursor.text("model"),
        params=_read_params(cursor),
        input=_read_input(cursor),
        callback=_read_callback(cursor) if cursor.flag("callback") else None,
    )
    cursor.end()
    return body


def _input(value: Input) -> bytes:
    match value:
        case Inline(content):
            return _U8.pack(_INLINE) + blob("input", content)
        case Uri(uri, sha256):
            return _U8.pack(_URI) + text("uri", uri) + hash32("sha256", sha256)
        case Data(query, sha256):
            return _U8.pack(_DATA) + text("query", query) + hash32("sha256", sha256)


def _callback(callback: Callback | None) -> bytes:
    if callback is None:
        return b"\x00"
    if len(callback.accounts) > MAX_CALLBACK_ACCOUNTS:
        raise VALUE_UNENCODABLE(f"{len(callback.accounts)} callback accounts, at most {MAX_CALLBACK_ACCOUNTS}")
    accounts = (bytes(account.address) + bytes([account.is_writable]) for account in callback.accounts)
    return b"".join((b"\x01", bytes(callback.program), _U32.pack(len(callback.accounts)), *accounts))


def _read_params(cursor: Cursor) -> Params:
    max_output_tokens, temperature_milli, seed, flags = cursor.unpack("params", _PARAMS)
    return Params(max_output_tokens, temperature_milli, seed, Flags(flags))


def _read_input(cursor: Cursor) -> Input:
    match cursor.tag("input"):
        case 0:
            return Inline(cursor.take("input", cursor.length("input")))
        case 1:
            return Uri(cursor.text("uri"), cursor.take("sha256", 32))
        case 2:
            return Data(cursor.text("query"), cursor.take("sha256", 32))
        case tag:
            raise BODY_MALFORMED(f"input: variant {tag} is unknown")


def _read_callback(cursor: Cursor) -> Callback:
    program = cursor.pubkey("callback program")
    count = cursor.length("callback accounts")
    if count > MAX_CALLBACK_ACCOUNTS:
        raise BODY_MALFORMED(f"{count} callback accounts, at most {MAX_CALLBACK_ACCOUNTS}")
    accounts = (CallbackAccount(cursor.pubkey("callback account"), cursor.flag("is_writable")) for _ in range(count))
    return Callback(program, tuple(accounts))
