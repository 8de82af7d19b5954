"""Program-derived addresses: where the program keeps a queue, an operator, a request."""

from __future__ import annotations

from functools import lru_cache

from solders.pubkey import Pubkey

from oracle.chain.program.borsh import hash32
from oracle.chain.program.errors import VALUE_UNENCODABLE

NAME_LENGTH = 32


def queue_address(program_id: Pubkey, authority: Pubkey, name: str) -> Pubkey:
    """The queue `name` of `authority`."""
    return Pubkey.find_program_address([b"queue", bytes(authority), name_bytes(name)], program_id)[0]


@lru_cache(maxsize=1024)  # the search takes 30 µs, and every settlement names one
def operator_address(program_id: Pubkey, queue: Pubkey, operator_key: Pubkey) -> Pubkey:
    """The account that lets `operator_key` answer the requests of `queue`."""
    return Pubkey.find_program_address([b"operator", bytes(queue), bytes(operator_key)], program_id)[0]


def request_address(program_id: Pubkey, queue: Pubkey, requester: Pubkey, nonce: int, body_hash: bytes) -> Pubkey:
    """The request of `requester` whose body has the SHA-256 `body_hash`: another body lives at another address."""
    if not 0 <= nonce < 2**64:
        raise VALUE_UNENCODABLE(f"nonce {nonce} is not an unsigned 64-bit number")
    seeds = [b"request", bytes(queue), bytes(requester), nonce.to_bytes(8, "little"), hash32("body_hash", body_hash)]
    return Pubkey.find_program_address(seeds, program_id)[0]


def name_bytes(name: str) -> bytes:
    """A queue's name as its seed: 1 to 32 printable ASCII characters, zero-padded. Raises ORC-CHAIN-105."""
    if not (name.isascii() and name.isprintable() and 1 <= len(name) <= NAME_LENGTH):
        raise VALUE_UNENCODABLE(f"queue name {name!r} is not 1 to {NAME_LENGTH} printable ASCII characters")
    return name.encode("ascii").ljust(NAME_LENGTH, b"\0")
