"""How a call to Dispersed is signed. No I/O. Source: specs/render.md §2."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import quote


def canonical_query(parameters: Iterable[tuple[str, str | int]]) -> str:
    """The query to sign and to send, without its question mark.

    Values with a space are refused: the two known clients encode it in two ways, so one of them is wrong.
    """
    pairs = sorted((name, str(value)) for name, value in parameters)
    if any(" " in text for pair in pairs for text in pair):
        raise ValueError("a query that holds a space cannot be signed")
    return "&".join(f"{quote(name, safe='')}={quote(value, safe='')}" for name, value in pairs)


def canonical_body(value: Any) -> bytes:
    """The body to sign and to send: names sorted, no blanks, ASCII only, since nobody knows what the server hashes."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False).encode()


def string_to_sign(
    public_key: str, time_ms: int, nonce: str, method: str, path: str, query: str = "", body: bytes = b""
) -> str:
    """`path` is without the query, `nonce` 32 hexadecimal digits; a call without a body signs the hash of nothing."""
    digest = hashlib.sha256(body).hexdigest()
    return "|".join((public_key, str(time_ms), nonce, method.upper(), path, query, digest))


def signature(secret_key: str, text: str) -> str:
    """The secret key is used as it stands, not decoded."""
    return hmac.new(secret_key.encode(), text.encode(), hashlib.sha256).hexdigest()


def signed_headers(
    public_key: str,
    secret_key: str,
    *,
    time_ms: int,
    nonce: str,
    method: str,
    path: str,
    query: str = "",
    body: bytes = b"",
) -> Mapping[str, str]:
    """The headers of one call. A repetition needs a new nonce and time, and with them a new signature."""
    text = string_to_sign(public_key, time_ms, nonce, method, path, query, body)
    return {
        "X-API-Key": public_key,
        "X-Time": str(time_ms),
        "X-Nonce": nonce,
        "X-Signature": signature(secret_key, text),
        "Content-Type": "application/json",
        "Accept": "application/json",
    }
