"""Nosana's Jobs program as its customer sees it: addresses, instructions and accounts. Pure. Source: nosana.md §2."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Final, Literal

from solders.instruction import AccountMeta, Instruction
from solders.pubkey import Pubkey
from solders.system_program import ID as SYSTEM_PROGRAM
from solders.token import ID as TOKEN_PROGRAM
from solders.token.associated import get_associated_token_address
from solders.token.state import TokenAccount

from oracle.providers import errors

MICRO_NOS: Final = 1_000_000
JOB_RENT_LAMPORTS: Final = 2_561_280
RUN_RENT_LAMPORTS: Final = 1_726_080

JOB: Final = bytes.fromhex("5b10a2052dd27d41")
RUN: Final = bytes.fromhex("c2a96ee6eb0be116")
MARKET: Final = bytes.fromhex("c94ebbe1f0c6c9fb")
RUN_JOB_OFFSET: Final = 8

LIST: Final = bytes.fromhex("36aec14311298426")
DELIST: Final = bytes.fromhex("3788cd6b6bad041f")
END: Final = bytes.fromhex("b4a0f9d9c2794610")
RECOVER: Final = bytes.fromhex("6cd8263a6d927411")

_REWARDS_PROGRAM: Final = Pubkey.from_string("nosRB8DUV67oLNrL45bo2pFLrmsWPiewe2Lk2DRNYCp")
_STAKING_PROGRAM: Final = Pubkey.from_string("nosScmHY2uR24Zh751PmGj9ww9QRNHewh9H59AfrTJE")
ASSOCIATED_TOKEN_PROGRAM: Final = Pubkey.from_string("ATokenGPvbdGVxr1b2hvZbsiqW5xWH25efTNsLJA8knL")

Cluster = Literal["mainnet", "devnet"]
_JOBS_PROGRAM: Final = {
    "mainnet": Pubkey.from_string("nosJhNRqr2bc9g1nfGDcXXTXvYUmxD4cVwy2pMWhrYM"),
    "devnet": Pubkey.from_string("nosJTmGQxvwXy23vng5UjkTbfv91Bzf9jEuro78dAGR"),
}
_MINT: Final = {
    "mainnet": Pubkey.from_string("nosXBVoaCTtYdLvKY6Csb4AC8JCdQKKAaWYtx2ZMoo7"),
    "devnet": Pubkey.from_string("devr1BGQndEW5k5zfvG5FsLyZv1Ap73vNgAHcQ9sUVP"),
}

_HEAD_OF_MARKET: Final = struct.Struct("<8s32xq Q q B 32s B 32x 16x B I")
_JOB_FIELDS: Final = struct.Struct("<8s 32s 32s 32s 32s 32s Q 32s B q q q")
_RUN_FIELDS: Final = struct.Struct("<8s 32s 32s 32s x q")


class JobState(IntEnum):
    """As it is stored, not as a variant's index. QUEUED covers waiting and running: a run account tells them apart."""

    QUEUED = 0
    DONE = 2
    STOPPED = 3


QUEUE_OF_JOBS: Final = 0


@dataclass(frozen=True, slots=True)
class MarketAccount:
    """`price` is in millionths of a NOS per second. `waiting` are jobs, or hosts where `holds_jobs` is false."""

    price: int
    holds_jobs: bool
    waiting: tuple[Pubkey, ...]


@dataclass(frozen=True, slots=True)
class JobAccount:
    """Times are unix seconds, 0 until they come; `result` is None until a host has handed one in."""

    definition: bytes
    result: bytes | None
    market: Pubkey
    payer: Pubkey
    price: int
    project: Pubkey
    state: JobState
    ended_at: int
    started_at: int
    timeout_seconds: int


@dataclass(frozen=True, slots=True)
class RunAccount:
    """Who works on a job, and since when."""

    job: Pubkey
    node: Pubkey
    payer: Pubkey
    started_at: int


class Program:
    """Addresses and instructions on one cluster. The owner of a job also pays for it."""

    def __init__(self, cluster: Cluster = "mainnet") -> None:
        self.id = _JOBS_PROGRAM[cluster]
        self.mint = _MINT[cluster]
        self._reflection = Pubkey.find_program_address([b"reflection"], _REWARDS_PROGRAM)[0]
        self._rewards_vault = Pubkey.find_program_address([bytes(self.mint)], _REWARDS_PROGRAM)[0]

    def vault(self, market: Pubkey) -> Pubkey:
        """Where the deposits of a market's jobs lie."""
        return Pubkey.find_program_address([bytes(market), bytes(self.mint)], self.id)[0]

    def nos_account(self, owner: Pubkey) -> Pubkey:
        """Where the NOS of `owner` lie: its associated token account."""
        return get_associated_token_address(owner, self.mint)

    def stake_account(self, owner: Pubkey) -> Pubkey:
        return Pubkey.find_program_address([b"stake", bytes(self.mint), bytes(owner)], _STAKING_PROGRAM)[0]

    def list_job(
        self, *, job: Pubkey, run: Pubkey, market: Pubkey, owner: Pubkey, definition: bytes, timeout_seconds: int
    ) -> Instruction:
        """Pays for a job of `timeout_seconds`. `job` and `run` sign too; `definition` is the digest of its CID."""
        accounts = [
            _signer(job, writable=True),
            _writable(market),
            _signer(run, writable=True),
            _writable(self.nos_account(owner)),
            _writable(self.vault(market)),
            _signer(owner, writable=True),
            _writable(self._reflection),
            _writable(self._rewards_vault),
            _signer(owner),
            _read(_REWARDS_PROGRAM),
            _read(TOKEN_PROGRAM),
            _read(SYSTEM_PROGRAM),
        ]
        return Instruction(self.id, LIST + definition + struct.pack("<q", timeout_seconds), accounts)

    def delist(self, job: Pubkey, account: JobAccount, owner: Pubkey) -> Instruction:
        """Withdraws a job that waits: the whole deposit comes back."""
        accounts = [
            _writable(job),
            _writable(account.market),
            _writable(self.nos_account(account.payer)),
            _writable(account.payer),
            _writable(self.vault(account.market)),
            _read(TOKEN_PROGRAM),
            _signer(owner, writable=True),
        ]
        return Instruction(self.id, DELIST, accounts)

    def end(self, job: Pubkey, account: JobAccount, run: Pubkey, held: RunAccount, owner: Pubkey) -> Instruction:
        """Ends a job that runs: the seconds it ran are paid, the rest comes back."""
        accounts = [
            _writable(job),
            _read(account.market),
            _writable(run),
            _writable(self.nos_account(account.payer)),
            _writable(self.nos_account(held.node)),
            _writable(self.vault(account.market)),
            _writable(held.payer),
            _signer(owner, writable=True),
            _read(TOKEN_PROGRAM),
        ]
        return Instruction(self.id, END, accounts)

    def recover(self, job: Pubkey, account: JobAccount, owner: Pubkey) -> Instruction:
        """Takes back the whole deposit of a job that its host has quit."""
        accounts = [
            _writable(job),
            _read(account.market),
            _writable(self.vault(account.market)),
            _writable(self.nos_account(owner)),
            _writable(account.payer),
            _signer(owner),
            _read(TOKEN_PROGRAM),
        ]
        return Instruction(self.id, RECOVER, accounts)

    def create_nos_account(self, owner: Pubkey, payer: Pubkey) -> Instruction:
        """Makes the NOS account of `owner`, unless it is there."""
        accounts = [
            _signer(payer, writable=True),
            _writable(self.nos_account(owner)),
            _read(owner),
            _read(self.mint),
            _read(SYSTEM_PROGRAM),
            _read(TOKEN_PROGRAM),
        ]
        return Instruction(ASSOCIATED_TOKEN_PROGRAM, bytes([1]), accounts)


def read_job(data: bytes) -> JobAccount:
    """Raises ORC-PROVIDER-005 for what is no job."""
    _, definition, result, market, _, payer, price, project, state, ended_at, started_at, timeout = _fields(
        _JOB_FIELDS, JOB, data
    )
    if state not in set(JobState):
        raise errors.UNREADABLE_ANSWER(f"a job in state {state}")
    return JobAccount(
        definition,
        result if any(result) else None,
        Pubkey.from_bytes(market),
        Pubkey.from_bytes(payer),
        price,
        Pubkey.from_bytes(project),
        JobState(state),
        ended_at,
        started_at,
        timeout,
    )


def read_run(data: bytes) -> RunAccount:
    """Raises ORC-PROVIDER-005 for what is no run."""
    _, job, node, payer, started_at = _fields(_RUN_FIELDS, RUN, data)
    return RunAccount(Pubkey.from_bytes(job), Pubkey.from_bytes(node), Pubkey.from_bytes(payer), started_at)


def read_market(data: bytes) -> MarketAccount:
    """Raises ORC-PROVIDER-005 for what is no market."""
    _, _, price, _, _, _, _, queue_type, length = _fields(_HEAD_OF_MARKET, MARKET, data)
    queue = data[_HEAD_OF_MARKET.size :]
    if len(queue) < 32 * length:
        raise errors.UNREADABLE_ANSWER("a market whose queue is cut off")
    waiting = (Pubkey.from_bytes(queue[32 * at : 32 * (at + 1)]) for at in range(length))
    return MarketAccount(price, queue_type == QUEUE_OF_JOBS, tuple(waiting))


def read_micro_nos(data: bytes) -> int:
    """What a token account holds. Raises ORC-PROVIDER-005 for what is none."""
    try:
        return TokenAccount.from_bytes(data).amount
    except ValueError:
        raise errors.UNREADABLE_ANSWER("no token account") from None


def read_staked_micro_nos(data: bytes) -> int:
    """What a stake account says. Its layout is not in the specification: from Nosana's public source, unverified."""
    if len(data) < 16:
        raise errors.UNREADABLE_ANSWER("no stake account")
    return int.from_bytes(data[8:16], "little")


def _fields(layout: struct.Struct, discriminator: bytes, data: bytes) -> tuple[Any, ...]:
    if len(data) < layout.size or not data.startswith(discriminator):
        raise errors.UNREADABLE_ANSWER("another kind of account than was asked for")
    return layout.unpack_from(data)


def _signer(address: Pubkey, *, writable: bool = False) -> AccountMeta:
    return AccountMeta(address, is_signer=True, is_writable=writable)


def _writable(address: Pubkey) -> AccountMeta:
    return AccountMeta(address, is_signer=False, is_writable=True)


def _read(address: Pubkey) -> AccountMeta:
    return AccountMeta(address, is_signer=False, is_writable=False)
