"""Names that whoever repeats a step derives again: idempotency keys of purchases."""

from __future__ import annotations

import hashlib

from oracle.core.compute import IdempotencyKey
from oracle.core.request import RequestKey


def idempotency_key(request: RequestKey, lane: int, attempt: int) -> IdempotencyKey:
    """The key of one purchase: the same for every repetition of it, another for the next attempt.

    32 hexadecimal digits, shaped as a UUID, because some providers accept nothing else.
    """
    digest = hashlib.sha256(f"inference-oracle/1/{request}/{lane}/{attempt}".encode()).hexdigest()
    return IdempotencyKey(f"{digest[:8]}-{digest[8:12]}-{digest[12:16]}-{digest[16:20]}-{digest[20:32]}")
