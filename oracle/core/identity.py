"""Names that whoever repeats a step derives again: idempotency keys of purchases, nonces of repeated calls."""

from __future__ import annotations

import hashlib

from oracle.core.compute import IdempotencyKey
from oracle.core.request import RequestKey


def idempotency_key(operator: str, request: RequestKey, lane: int, attempt: int) -> IdempotencyKey:
    """The key of one purchase: the same for every repetition of it, another for the next attempt, and another for
    another operator, who may buy from the same account for a request that both can claim."""
    return _shaped(f"{operator}/{request}/{lane}/{attempt}")


def call_idempotency_key(call_id: str, number: int) -> IdempotencyKey:
    """The key of a purchase that is made for a call of the gateway."""
    return _shaped(f"gateway/{call_id}/{number}")


def nonce_of(client: str, idempotency_key: str) -> int:
    """The nonce of the request that records an answer, where the client names its call: 63 bits.

    Who repeats the call with the same body gets the same address, and under it the answer that is there already.
    """
    digest = hashlib.sha256(f"inference-oracle/nonce/1/{client}/{idempotency_key}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def _shaped(name: str) -> IdempotencyKey:
    """32 hexadecimal digits, shaped as a UUID, because some providers accept nothing else."""
    digest = hashlib.sha256(f"inference-oracle/1/{name}".encode()).hexdigest()
    return IdempotencyKey(f"{digest[:8]}-{digest[8:12]}-{digest[12:16]}-{digest[16:20]}-{digest[20:32]}")
