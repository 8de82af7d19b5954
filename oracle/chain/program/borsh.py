"""Borsh (https://borsh.io), strictly: one value has one encoding, and anything else is refused with a code.

Encoding raises ORC-CHAIN-105, decoding ORC-CHAIN-104.
"""

from __future__ import annotations

import struct
from struct import Struct
from typing import Any, Final

from solders.pubkey import Pubkey

from oracle.chain.program.errors import BODY_MALFORMED, VALUE_UNENCODABLE

_U32: Final = Struct("<I")


def pack(what: str, layout: Struct, *values: Any) -> bytes:
    """`layout.pack`, with ORC-CHAIN-105 in place of `struct.error`."""
    try:
        return layout.pack(*values)
    except struct.error as error:
        raise VALUE_UNENCODABLE(f"{what}: {error}") from None


def hash32(what: str, value: bytes) -> bytes:
    """The 32 bytes of a hash."""
    # `struct` cuts and pads a wrong length in silence: 20 bytes would go on chain with twelve zeros behind them.
    if len(value) != 32:
        raise VALUE_UNENCODABLE(f"{what} is {len(value)} bytes long, not 32")
    return bytes(value)


def text(what: str, value: str) -> bytes:
    """`value` as borsh has `String`."""
    try:
        return blob(what, value.encode())
    except UnicodeEncodeError:
        raise VALUE_UNENCODABLE(f"{what} is not valid Unicode") from None


def blob(what: str, value: bytes) -> bytes:
    """`value` behind its length, as borsh has `Vec<u8>`."""
    return pack(what, _U32, len(value)) + value


class Cursor:
    """A place in borsh bytes. Every read says what it reads, so that a refusal names it."""

    __slots__ = ("_at", "_data")

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def take(self, what: str, length: int) -> bytes:
        end = self._at + length
        if end > len(self._data):
            raise BODY_MALFORMED(f"{what}: {length} bytes at offset {self._at}, but the body is {len(self._data)} long")
        taken = self._data[self._at : end]
        self._at = end
        return bytes(taken)

    def unpack(self, what: str, layout: Struct) -> tuple[Any, ...]:
        return layout.unpack(self.take(what, layout.size))

    def length(self, what: str) -> int:
        value: int = self.unpack(what, _U32)[0]
        return value

    def tag(self, what: str) -> int:
        return self.take(what, 1)[0]

    def flag(self, what: str) -> bool:
        value = self.tag(what)
        if value > 1:
            raise BODY_MALFORMED(f"{what}: {value} where only 0 and 1 are allowed")
        return value == 1

    def text(self, what: str) -> str:
        try:
            return self.take(what, self.length(what)).decode()
        except UnicodeDecodeError:
            raise BODY_MALFORMED(f"{what} is not UTF-8") from None

    def pubkey(self, what: str) -> Pubkey:
        return Pubkey.from_bytes(self.take(what, 32))

    def end(self) -> None:
        if self._at != len(self._data):
            raise BODY_MALFORMED(f"{len(self._data) - self._at} bytes behind the end of the body")
