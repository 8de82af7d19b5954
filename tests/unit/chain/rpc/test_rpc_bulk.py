"""Answers too large to parse on the event loop are read in another process, and come back the same."""

from __future__ import annotations

import asyncio
import base64
import os
import struct
from typing import Any

import orjson
import pytest
from rpc_wire import Node, http_answer, in_context, pool_of
from solders.pubkey import Pubkey

from oracle.chain.rpc import bulk, errors
from oracle.chain.rpc.provider import BULK_BYTES
from oracle.chain.rpc.shapes import Misshapen
from oracle.chain.rpc.types import AtSlot, ProgramAccounts
from oracle.core.errors import OracleError

PROGRAM = Pubkey.new_unique()


def items(lengths: list[int]) -> list[dict[str, Any]]:
    return [
        {
            "pubkey": str(Pubkey(os.urandom(32))),
            "account": {
                "lamports": 1,
                "owner": str(PROGRAM),
                "data": [base64.b64encode(os.urandom(n)).decode(), "base64"],
            },
        }
        for n in lengths
    ]


def body(result: Any) -> bytes:
    return orjson.dumps({"jsonrpc": "2.0", "id": 1, "result": result})


def as_read_here(value: list[dict[str, Any]]) -> tuple[list[str], list[bytes]]:
    return [i["pubkey"] for i in value], [base64.b64decode(i["account"]["data"][0]) for i in value]


@pytest.mark.parametrize("lengths", [[], [0], [120], [1, 0, 500, 3], [120] * 300])
async def test_what_comes_back_is_what_was_sent(lengths: list[int]) -> None:
    value = items(lengths)
    raw = body(in_context(2**63, value))
    read = await bulk.read_apart([raw[:7], b"", raw[7:]])
    assert read.slot == 2**63
    assert (list(read.value.addresses), list(read.value.data)) == as_read_here(value)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"<html>",
        b"[]",
        b'{"result":',
        body(None),
        body([]),
        body(in_context(1, None)),
        body(in_context(1, [{"pubkey": "a\nb", "account": {}}])),
        orjson.dumps({"error": {"code": -32005, "message": "busy"}}),
    ],
)
async def test_nonsense_is_told_as_nonsense(raw: bytes) -> None:
    with pytest.raises(Misshapen):
        await bulk.read_apart([raw])


async def test_a_large_answer_goes_to_the_other_process_and_a_small_one_does_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sizes = []
    read_apart = bulk.read_apart

    async def counted(pieces: Any) -> AtSlot[ProgramAccounts]:
        sizes.append(sum(map(len, pieces)))
        return await read_apart(pieces)

    monkeypatch.setattr(bulk, "read_apart", counted)
    small, large = items([120] * 10), items([120] * 2_500)
    node = Node(getProgramAccounts=in_context(5, small))
    client = pool_of(node).client
    assert list((await client.get_program_accounts(PROGRAM)).value.addresses) == as_read_here(small)[0]
    assert sizes == []
    node.script["getProgramAccounts"] = in_context(5, large)
    assert list((await client.get_program_accounts(PROGRAM)).value.addresses) == as_read_here(large)[0]
    assert sizes[0] >= BULK_BYTES


async def test_large_nonsense_and_large_old_answers_are_coded_errors_too() -> None:
    node = Node(getProgramAccounts=http_answer(200, content=b"x" * BULK_BYTES))
    client = pool_of(node, patience_seconds=0.0).client
    with pytest.raises(OracleError) as raised:
        await client.get_program_accounts(PROGRAM)
    assert raised.value.error is errors.GARBAGE
    node = Node(getProgramAccounts=in_context(5, items([120] * 2_500)))
    with pytest.raises(OracleError) as raised:
        await pool_of(node, patience_seconds=0.0).client.get_program_accounts(PROGRAM, min_context_slot=6)
    assert raised.value.error is errors.BEHIND


async def test_without_another_process_the_answer_is_read_here(monkeypatch: pytest.MonkeyPatch) -> None:
    async def no_process(*_: Any, **__: Any) -> None:
        raise PermissionError("not allowed to fork")

    monkeypatch.setattr(asyncio, "create_subprocess_exec", no_process)
    value = items([5])
    assert list((await bulk.read_apart([body(in_context(1, value))])).value.addresses) == as_read_here(value)[0]


async def test_a_reader_that_dies_is_nonsense_not_a_hang(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk.sys, "executable", "/bin/false")
    with pytest.raises(Misshapen, match="status 1"):
        await bulk.read_apart([b"x" * 1_000_000] * 4)


async def test_a_reader_is_ended_when_nobody_waits_for_it_any_more(monkeypatch: pytest.MonkeyPatch) -> None:
    readers: list[asyncio.subprocess.Process] = []
    create = asyncio.create_subprocess_exec

    async def sleeper(*_: Any, **options: Any) -> asyncio.subprocess.Process:
        readers.append(await create("/bin/sleep", "1000", **options))
        return readers[-1]

    monkeypatch.setattr(asyncio, "create_subprocess_exec", sleeper)
    reading = asyncio.create_task(bulk.read_apart([b"{}"]))
    async with asyncio.timeout(60.0):
        while not readers:  # noqa: ASYNC110 - there is no event for it
            await asyncio.sleep(0)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    assert readers[0].returncode == -9


def test_an_address_cannot_smuggle_another_line_into_the_packed_form() -> None:
    packed = bulk._pack(AtSlot(1, ProgramAccounts(["A" * 32], [b"\n" * 3])))
    line, _, rest = packed.partition(b"\n")
    assert orjson.loads(line) == {"slot": 1, "addresses": 32, "lengths": 4}
    assert rest == b"A" * 32 + struct.pack("<I", 3) + b"\n" * 3
