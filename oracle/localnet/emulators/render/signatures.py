"""Whether a call is signed as §2 says: the key, the time, the nonce, the signature."""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, quote

SKEW_SECONDS = 300.0
NONCE_SECONDS = 86_400.0
_NONCE = re.compile(r"[0-9a-f]{32}")


@dataclass(slots=True)
class Signatures:
    """`secrets` holds the secret key of each public key. Nonces are remembered for a day."""

    secrets: Mapping[str, str]
    used: dict[tuple[str, str], float] = field(default_factory=dict)

    def complaint(
        self, headers: Mapping[str, str], method: str, path: str, query: str, body: bytes, now: float
    ) -> str | None:
        """What is wrong with a call, or None. A nonce is used up by the call that proves to be signed with it."""
        public_key = headers.get("x-api-key", "")
        secret = self.secrets.get(public_key)
        if secret is None:
            return "Unknown API key"
        time_ms, nonce = headers.get("x-time", ""), headers.get("x-nonce", "")
        if not time_ms.isdecimal() or abs(int(time_ms) / 1000 - now) > SKEW_SECONDS:
            return "X-Time is outside the accepted window"
        if not _NONCE.fullmatch(nonce):
            return "X-Nonce must be 32 hexadecimal characters"
        canonical = canonical_json(body)
        # Whether the raw bytes or the parsed body are hashed is not known: only what is right both ways passes (§2).
        if canonical is None or canonical != body:
            return "Invalid signature"
        parts = (public_key, time_ms, nonce, method, path, canonical_query(query), hashlib.sha256(body).hexdigest())
        expected = hmac.new(secret.encode(), "|".join(parts).encode(), hashlib.sha256).hexdigest()
        if not hmac.compare_digest(expected, headers.get("x-signature", "")):
            return "Invalid signature"
        self.used = {one: at for one, at in self.used.items() if now - at < NONCE_SECONDS}
        if (public_key, nonce) in self.used:
            return "X-Nonce was already used"
        self.used[public_key, nonce] = now
        return None


def canonical_query(raw: str) -> str:
    """Sorted by name, then value, and encoded as RFC 3986 says; a query with spaces has no agreed form (§2)."""
    pairs = sorted(parse_qsl(raw, keep_blank_values=True))
    return "&".join(f"{quote(name, safe='')}={quote(value, safe='')}" for name, value in pairs)


def canonical_json(body: bytes) -> bytes | None:
    """The body as it should have been sent; no body is nothing; None for what is no JSON."""
    if not body:
        return b""
    try:
        value = json.loads(body, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return None
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def _refuse(constant: str) -> float:
    raise ValueError(constant)
