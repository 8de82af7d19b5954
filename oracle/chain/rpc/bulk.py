"""Reads the answer to a large `getProgramAccounts` in a process of its own.

`orjson.loads` of 50,000 sliced accounts holds the interpreter for a quarter of a second, in a thread too: deadlines,
heartbeats and settlements would all wait for it. So the raw body goes down a pipe and comes back packed:

    one JSON line {"slot", "addresses": bytes, "lengths": bytes} | addresses, one a line | lengths, u32 LE | data
"""

from __future__ import annotations

import asyncio
import re
import struct
import sys
from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import Any, Final

import orjson

from oracle.chain.rpc import shapes
from oracle.chain.rpc.shapes import Misshapen
from oracle.chain.rpc.types import AtSlot, ProgramAccounts

_ACCOUNTS_A_TURN: Final = 10_000
_ADDRESS: Final = re.compile(r"[1-9A-HJ-NP-Za-km-z]{32,44}")


async def read_apart(body: Sequence[bytes]) -> AtSlot[ProgramAccounts]:
    """Read the pieces of a `getProgramAccounts` body in another process. Raises `Misshapen`."""
    try:
        reader = await asyncio.create_subprocess_exec(
            sys.executable, "-m", __name__, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
        )
    except OSError:  # no process to be had: a stall is better than a request nobody sees
        return _read(b"".join(body))
    try:
        packed = await _exchange(reader, body)
    except BaseException:
        if reader.returncode is None:
            reader.kill()
            await reader.wait()
        raise
    if reader.returncode != 0 or not packed:
        raise Misshapen(f"the body could not be read (status {reader.returncode})")
    return await _unpack(packed)


async def _exchange(reader: asyncio.subprocess.Process, body: Sequence[bytes]) -> bytes:
    assert reader.stdin is not None
    assert reader.stdout is not None
    try:
        for piece in body:
            reader.stdin.write(piece)
            await reader.stdin.drain()
        reader.stdin.close()
    except (BrokenPipeError, ConnectionResetError):
        reader.stdin.close()  # it died; its status says so
    packed = await reader.stdout.read()
    await reader.wait()
    return packed


def program_accounts(value: Any) -> ProgramAccounts:
    """Read the `value` of a `getProgramAccounts` answer with context."""
    addresses, data = [], []
    for item in shapes.array(value):
        keyed = shapes.mapping(item)
        address = keyed.get("pubkey")
        if not isinstance(address, str) or not _ADDRESS.fullmatch(address):
            raise Misshapen("expected an address")
        addresses.append(address)
        data.append(shapes.base64_data(shapes.mapping(keyed.get("account")).get("data")))
    return ProgramAccounts(addresses, data)


def main() -> None:
    """The reader process: body in, packed accounts or one line with what is wrong out."""
    try:
        sys.stdout.buffer.write(_pack(_read(sys.stdin.buffer.read())))
    except Misshapen as error:
        sys.stdout.buffer.write(orjson.dumps({"misshapen": str(error)}) + b"\n")


def _read(body: bytes) -> AtSlot[ProgramAccounts]:
    try:
        envelope = shapes.mapping(orjson.loads(body))
    except orjson.JSONDecodeError:
        raise Misshapen("not JSON") from None
    return shapes.at_slot(envelope.get("result"), program_accounts)


def _pack(read: AtSlot[ProgramAccounts]) -> bytes:
    addresses = "\n".join(read.value.addresses).encode()
    lengths = struct.pack(f"<{len(read.value.data)}I", *map(len, read.value.data))
    head = {"slot": read.slot, "addresses": len(addresses), "lengths": len(lengths)}
    return b"".join((orjson.dumps(head), b"\n", addresses, lengths, *read.value.data))


async def _unpack(packed: bytes) -> AtSlot[ProgramAccounts]:
    line, _, _ = packed[:1000].partition(b"\n")
    head = orjson.loads(line)
    if "misshapen" in head:
        raise Misshapen(head["misshapen"])
    start = len(line) + 1
    lengths_at = start + head["addresses"]
    data_at = lengths_at + head["lengths"]
    addresses = packed[start:lengths_at].decode().split("\n") if head["addresses"] else []
    lengths = struct.unpack(f"<{head['lengths'] // 4}I", packed[lengths_at:data_at])
    edges = list(accumulate(lengths, initial=data_at))
    data: list[bytes] = []
    for first in range(0, len(lengths), _ACCOUNTS_A_TURN):
        await asyncio.sleep(0)
        data += [packed[a:b] for a, b in pairwise(edges[first : first + _ACCOUNTS_A_TURN + 1])]
    await asyncio.sleep(0)
    return AtSlot(head["slot"], ProgramAccounts(addresses, data))


if __name__ == "__main__":
    main()
