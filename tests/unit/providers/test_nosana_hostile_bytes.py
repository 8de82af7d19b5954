"""Whatever bytes an account of Nosana's program, or a token account, consists of: what it says, or a coded error."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from hostile_bytes import bounded_memory, hostile, truncations
from solders.pubkey import Pubkey
from solders.token.state import TokenAccount, TokenAccountState

from oracle.core.errors import OracleError
from oracle.providers.nosana.program import (
    JOB,
    MARKET,
    RUN,
    JobAccount,
    MarketAccount,
    RunAccount,
    read_job,
    read_market,
    read_micro_nos,
    read_run,
    read_staked_micro_nos,
)

CASES = 6_000
MOST_BYTES = 2_000_000


def keys(*numbers: int) -> bytes:
    return b"".join(bytes([number]) * 32 for number in numbers)


def job(state: int = 0, result: int = 0) -> bytes:
    """Source: nosana.md §2."""
    return (
        JOB + keys(1, result, 2, 3, 4) + struct.pack("<Q", 2**64 - 1) + keys(5) + struct.pack("<Bqqq", state, 7, 8, 9)
    )


def run() -> bytes:
    return RUN + keys(1, 2, 3) + b"\xff" + struct.pack("<q", 1_700_000_000)


def market(length: int, queue_type: int = 0) -> bytes:
    head = MARKET + keys(1) + struct.pack("<qQqB", 60, 5_000_000, 7_200, 0) + keys(2) + b"\x04" + keys(3) + bytes(16)
    return head + struct.pack("<BI", queue_type, length) + keys(*range(length))


def token_account(amount: int = 2**64 - 1) -> bytes:
    some = Pubkey.from_bytes(keys(9))
    return bytes(TokenAccount(some, some, amount, None, TokenAccountState.Initialized, None, 0, None))


def same_job(data: bytes, account: JobAccount) -> bool:
    said = (
        account.definition,
        account.result or bytes(32),
        bytes(account.market),
        data[104:136],  # the node, which is read from the run
        bytes(account.payer),
        struct.pack("<Q", account.price),
        bytes(account.project),
        struct.pack("<Bqqq", account.state, account.ended_at, account.started_at, account.timeout_seconds),
    )
    return data.startswith(JOB + b"".join(said))


def same_run(data: bytes, account: RunAccount) -> bool:
    said = bytes(account.job) + bytes(account.node) + bytes(account.payer)
    return data.startswith(RUN + said) and data[105:113] == struct.pack("<q", account.started_at)


def same_market(data: bytes, account: MarketAccount) -> bool:
    queue_at = len(market(0))
    queue_type, length = struct.unpack_from("<BI", data, queue_at - 5)
    waiting = b"".join(bytes(each) for each in account.waiting)
    return (
        data[:8] == MARKET
        and struct.unpack_from("<Q", data, 48) == (account.price,)
        and (queue_type == 0) is account.holds_jobs
        and length == len(account.waiting)
        and data[queue_at:].startswith(waiting)
    )


def same_amount(at: int) -> Callable[[bytes, int], bool]:
    return lambda data, amount: data[at : at + 8] == amount.to_bytes(8, "little")


@dataclass(frozen=True, slots=True)
class Reader:
    read: Callable[[bytes], Any]
    is_same: Callable[[bytes, Any], bool]
    valid: Sequence[bytes]


READERS = {
    "job": Reader(read_job, same_job, [job(), job(2, 6), job(3)]),
    "run": Reader(read_run, same_run, [run()]),
    "market": Reader(read_market, same_market, [market(0), market(3), market(200, 1)]),
    "token account": Reader(read_micro_nos, same_amount(64), [token_account(), token_account(0)]),
    "stake": Reader(read_staked_micro_nos, same_amount(8), [bytes(8) + struct.pack("<Q", 77)]),
}


def outcome(reader: Reader, data: bytes) -> str:
    try:
        value = reader.read(data)
    except OracleError as error:
        return error.code
    assert reader.is_same(data, value), data.hex()
    return "value"


@pytest.mark.parametrize("name", READERS)
def test_any_bytes_say_what_they_hold_or_are_refused_with_a_code(name: str) -> None:
    reader = READERS[name]
    assert {outcome(reader, data) for data in reader.valid} == {"value"}
    assert {outcome(reader, data) for data in hostile(reader.valid, CASES)} == {"value", "ORC-PROVIDER-005"}


@pytest.mark.parametrize("name", READERS)
def test_no_beginning_of_it_is_taken_for_the_whole(name: str) -> None:
    reader = READERS[name]
    for valid in reader.valid:
        assert {outcome(reader, data) for data in truncations(valid)} == {"ORC-PROVIDER-005"}


@pytest.mark.parametrize("name", READERS)
def test_a_length_that_lies_makes_nobody_reserve_room(name: str) -> None:
    reader = READERS[name]
    with bounded_memory(MOST_BYTES):
        for valid in reader.valid:
            for at in range(min(len(valid), 400)):
                outcome(reader, valid[:at] + b"\xff\xff\xff\x7f" + valid[at + 4 :])
