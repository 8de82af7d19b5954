"""Requests as their accounts hold them, decoded once: every step on a row asks for its request anew."""

from __future__ import annotations

from functools import lru_cache

from solders.pubkey import Pubkey

from oracle.chain.program.layout import decode_request
from oracle.core.request import Request
from oracle.store.rows import RequestRow


def request_of(row: RequestRow) -> Request:
    """The request as the chain holds it, from the bytes in the row."""
    return request_at(row.address, row.account)


@lru_cache(maxsize=2048)
def request_at(address: str, account: bytes) -> Request:
    """Raises as `decode_request` does."""
    return decode_request(Pubkey.from_string(address), account)
