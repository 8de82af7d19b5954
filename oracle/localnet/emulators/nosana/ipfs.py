"""Content addresses as Nosana uses them: CIDv0 of a UnixFS file (§1.6), and the form in which Pinata stores JSON."""

from __future__ import annotations

import hashlib
import re
from typing import Any

import orjson

BLOCK_BYTES = 256 * 1024
BLOCKS_MOST = 174
"""The links of one node in the common layout: a file of one level of blocks has at most 43.5 MiB."""

_ALPHABET = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_CID_V0 = re.compile(rf"Qm[{_ALPHABET}]{{44}}")


def cid_of(document: bytes) -> str:
    """The CIDv0 of these exact bytes. Above one block by the common default layout, which §1.6 does not cover.

    Raises ValueError for more than 43.5 MiB.
    """
    if len(document) <= BLOCK_BYTES:
        return base58(_multihash(_leaf(document)))
    pieces = [document[start : start + BLOCK_BYTES] for start in range(0, len(document), BLOCK_BYTES)]
    if len(pieces) > BLOCKS_MOST:
        raise ValueError(f"a file of {len(document)} bytes is deeper than one level of blocks")
    links = b"".join(_link(_leaf(piece)) for piece in pieces)
    sizes = b"".join(b"\x20" + _varint(len(piece)) for piece in pieces)
    file = b"\x08\x02\x18" + _varint(len(document)) + sizes
    return base58(_multihash(links + b"\x0a" + _varint(len(file)) + file))


def cid_of_digest(digest: bytes) -> str:
    """The CIDv0 that 32 bytes on chain stand for (§1.6)."""
    return base58(b"\x12\x20" + digest)


def digest_of(cid: str) -> bytes:
    """The 32 bytes that stand for a CIDv0 on chain."""
    number = 0
    for character in cid:
        number = number * 58 + _ALPHABET.index(character)
    return number.to_bytes(34, "big")[2:]


def is_cid(text: object) -> bool:
    """Whether this has the form of a CIDv0; a CIDv1 cannot be stored on chain."""
    return isinstance(text, str) and _CID_V0.fullmatch(text) is not None


def as_pinata_stores(value: Any) -> bytes:
    """JSON as JavaScript writes it again: compact, key order kept, whole floats without their point (§1.6)."""
    return orjson.dumps(_without_whole_floats(value))


def base58(raw: bytes) -> str:
    number = int.from_bytes(raw, "big")
    digits = ""
    while number:
        number, remainder = divmod(number, 58)
        digits = _ALPHABET[remainder] + digits
    return "1" * (len(raw) - len(raw.lstrip(b"\0"))) + digits


def _without_whole_floats(value: Any) -> Any:
    match value:
        case float() if value.is_integer() and abs(value) < 2**53:
            return int(value)
        case dict():
            return {key: _without_whole_floats(item) for key, item in value.items()}
        case list():
            return [_without_whole_floats(item) for item in value]
    return value


def _leaf(piece: bytes) -> bytes:
    length = _varint(len(piece))
    file = b"\x08\x02" + (b"\x12" + length + piece if piece else b"") + b"\x18" + length
    return b"\x0a" + _varint(len(file)) + file


def _link(node: bytes) -> bytes:
    link = b"\x0a\x22" + _multihash(node) + b"\x12\x00\x18" + _varint(len(node))
    return b"\x12" + _varint(len(link)) + link


def _multihash(node: bytes) -> bytes:
    return b"\x12\x20" + hashlib.sha256(node).digest()


def _varint(number: int) -> bytes:
    encoded = b""
    while number > 0x7F:
        encoded += bytes([number & 0x7F | 0x80])
        number >>= 7
    return encoded + bytes([number])
