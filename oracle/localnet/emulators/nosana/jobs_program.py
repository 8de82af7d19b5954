"""Nosana's Jobs program as hosts see it: its instructions by the IDL of the emulated program, its accounts (§2)."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from functools import cache
from typing import Any, Final

from solders.instruction import AccountMeta, Instruction
from solders.pubkey import Pubkey
from solders.system_program import ID as SYSTEM_PROGRAM
from solders.token import ID as TOKEN_PROGRAM
from solders.token.associated import get_associated_token_address

from oracle import resources

NAME: Final = "nosana_jobs"
PROGRAM: Final = Pubkey.from_string("nosJhNRqr2bc9g1nfGDcXXTXvYUmxD4cVwy2pMWhrYM")
REWARDS_PROGRAM: Final = Pubkey.from_string("nosRB8DUV67oLNrL45bo2pFLrmsWPiewe2Lk2DRNYCp")
NOS_MINT: Final = Pubkey.from_string("nosXBVoaCTtYdLvKY6Csb4AC8JCdQKKAaWYtx2ZMoo7")
ASSOCIATED_TOKEN_PROGRAM: Final = Pubkey.from_string("ATokenGPvbdGVxr1b2hvZbsiqW5xWH25efTNsLJA8knL")
MICRO_NOS: Final = 1_000_000

JOB_BYTES: Final = 240
MARKET_BYTES: Final = 151 + 314 * 32
JOB: Final = bytes.fromhex("5b10a2052dd27d41")
RUN: Final = bytes.fromhex("c2a96ee6eb0be116")
MARKET: Final = bytes.fromhex("c94ebbe1f0c6c9fb")

_JOB: Final = struct.Struct("<8x32s32s32s32s32sQ32sBqqq")
_RUN: Final = struct.Struct("<8x32s32s32sxq")
_MARKET: Final = struct.Struct("<8s32sqQqB32sB32s16sBI")
_ARGUMENTS: Final[Mapping[str, str]] = {"i64": "<q", "u64": "<Q", "u8": "<B"}


class QueueType(IntEnum):
    JOBS = 0
    NODES = 1
    EMPTY = 255


@dataclass(frozen=True, slots=True)
class MarketAccount:
    """`price` is in millionths of a NOS per second. `waiting` are jobs or hosts, the oldest first."""

    authority: Pubkey
    job_expiration: int
    price: int
    job_timeout: int
    vault: Pubkey
    vault_bump: int
    queue_type: QueueType = QueueType.EMPTY
    waiting: tuple[Pubkey, ...] = ()


@dataclass(frozen=True, slots=True)
class JobAccount:
    """Times are unix seconds. `state` is 0 while it waits or runs, 2 when it has ended, 3 when its host has quit."""

    ipfs_job: bytes
    ipfs_result: bytes
    market: Pubkey
    node: Pubkey
    payer: Pubkey
    price: int
    project: Pubkey
    state: int
    time_end: int
    time_start: int
    timeout: int


@dataclass(frozen=True, slots=True)
class RunAccount:
    job: Pubkey
    node: Pubkey
    payer: Pubkey
    time: int


def instruction(name: str, accounts: Mapping[str, Pubkey], **arguments: Any) -> Instruction:
    """One instruction of the program. What the IDL gives an address to need not be named."""
    described = _instructions()[name]
    known = {"system_program": SYSTEM_PROGRAM, "token_program": TOKEN_PROGRAM, "rewards_program": REWARDS_PROGRAM}
    metas = [
        AccountMeta({**known, **accounts}[item["name"]], item.get("signer", False), item.get("writable", False))
        for item in described["accounts"]
    ]
    data = b"".join(_argument(item["type"], arguments[item["name"]]) for item in described["args"])
    return Instruction(PROGRAM, bytes(described["discriminator"]) + data, metas)


def create_token_account(payer: Pubkey, owner: Pubkey) -> Instruction:
    """The NOS account of `owner`, unless it is there."""
    accounts = [
        AccountMeta(payer, True, True),
        AccountMeta(nos_account(owner), False, True),
        AccountMeta(owner, False, False),
        AccountMeta(NOS_MINT, False, False),
        AccountMeta(SYSTEM_PROGRAM, False, False),
        AccountMeta(TOKEN_PROGRAM, False, False),
    ]
    return Instruction(ASSOCIATED_TOKEN_PROGRAM, bytes([1]), accounts)


def nos_account(owner: Pubkey) -> Pubkey:
    """Where the NOS of `owner` lie (§2.2)."""
    return get_associated_token_address(owner, NOS_MINT)


def vault_of(market: Pubkey) -> tuple[Pubkey, int]:
    """A market's vault, and the bump of its address."""
    return Pubkey.find_program_address([bytes(market), bytes(NOS_MINT)], PROGRAM)


def read_job(data: bytes) -> JobAccount:
    job, result, market, node, payer, price, project, state, end, start, timeout = _JOB.unpack_from(_of(JOB, data))
    market, node, payer, project = (Pubkey.from_bytes(raw) for raw in (market, node, payer, project))
    return JobAccount(job, result, market, node, payer, price, project, state, end, start, timeout)


def read_run(data: bytes) -> RunAccount:
    job, node, payer, time = _RUN.unpack_from(_of(RUN, data))
    return RunAccount(Pubkey.from_bytes(job), Pubkey.from_bytes(node), Pubkey.from_bytes(payer), time)


def read_market(data: bytes) -> MarketAccount:
    _, authority, expiration, price, timeout, _, vault, bump, _, _, kind, length = _MARKET.unpack_from(
        _of(MARKET, data)
    )
    keys = (data[_MARKET.size + 32 * at : _MARKET.size + 32 * (at + 1)] for at in range(length))
    return MarketAccount(
        Pubkey.from_bytes(authority),
        expiration,
        price,
        timeout,
        Pubkey.from_bytes(vault),
        bump,
        QueueType(kind),
        tuple(Pubkey.from_bytes(key) for key in keys),
    )


def write_market(market: MarketAccount) -> bytes:
    """The whole account, with room for a full queue. Anyone may work there: no stake, no access key."""
    head = _MARKET.pack(
        MARKET,
        bytes(market.authority),
        market.job_expiration,
        market.price,
        market.job_timeout,
        0,
        bytes(market.vault),
        market.vault_bump,
        bytes(SYSTEM_PROGRAM),
        bytes(16),
        market.queue_type,
        len(market.waiting),
    )
    return (head + b"".join(map(bytes, market.waiting))).ljust(MARKET_BYTES, b"\0")


@cache
def _instructions() -> Mapping[str, Any]:
    idl = json.loads(resources.idl(NAME).read_text())
    return {item["name"]: item for item in idl["instructions"]}


def _argument(kind: Any, value: Any) -> bytes:
    if kind == "u128":
        return int(value).to_bytes(16, "little")
    # The only array is the digest of a document.
    return bytes(value) if isinstance(kind, dict) else struct.pack(_ARGUMENTS[kind], value)


def _of(discriminator: bytes, data: bytes) -> bytes:
    if data[:8] != discriminator:
        raise ValueError("another kind of account")
    return data
