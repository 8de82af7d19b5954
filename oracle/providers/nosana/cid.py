"""IPFS content ids of small documents, known before they are pinned. Pure. Source: specs/nosana.md §1.6."""

from __future__ import annotations

import hashlib
import re
from typing import Final

ONE_BLOCK_BYTES: Final = 262_144
_ALPHABET: Final = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_CID_V0: Final = re.compile(r"Qm[1-9A-HJ-NP-Za-km-z]{44}")

_SHA256: Final = b"\x12\x20"
"""The multihash prefix: SHA-256, 32 bytes."""

NO_RESULT: Final = "QmNLei78zWmzUdbeRB3CiUfAizWUrbeeZh5K1rhAQKCh51"
"""What 32 zero bytes on chain become: there is no result."""


def cid_v0(content: bytes) -> str:
    """CIDv0 of `content` as one UnixFS leaf, which it is up to 262,144 bytes. Raises `ValueError` above."""
    if len(content) > ONE_BLOCK_BYTES:
        raise ValueError(f"{len(content)} bytes do not fit one block")
    size = _varint(len(content))
    leaf = b"\x08\x02\x12" + size + content + b"\x18" + size
    node = b"\x0a" + _varint(len(leaf)) + leaf
    return _base58(_SHA256 + hashlib.sha256(node).digest())


def is_cid_v0(text: object) -> bool:
    return isinstance(text, str) and _CID_V0.fullmatch(text) is not None


def digest_of(cid: str) -> bytes:
    """The 32 bytes that stand for a CIDv0 on chain. Raises `ValueError` for anything else."""
    if not is_cid_v0(cid):
        raise ValueError(f"{cid[:80]!r} is no CIDv0")
    number = 0
    for digit in cid:
        number = number * 58 + _ALPHABET.index(digit)
    # 46 digits hold a little more than 34 bytes.
    multihash = number.to_bytes(35, "big")
    if not multihash.startswith(b"\x00" + _SHA256):
        raise ValueError(f"{cid!r} is no SHA-256 multihash")
    return multihash[3:]


def cid_of(digest: bytes) -> str:
    """The CIDv0 of the 32 bytes on chain."""
    return _base58(_SHA256 + digest)


def _varint(number: int) -> bytes:
    """Unsigned LEB128."""
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def _base58(content: bytes) -> str:
    """Without leading zero bytes, which the multihash prefix 0x12 rules out."""
    number = int.from_bytes(content, "big")
    digits = []
    while number:
        number, digit = divmod(number, 58)
        digits.append(_ALPHABET[digit])
    return "".join(reversed(digits))
