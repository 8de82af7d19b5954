"""The signing socket: a key that the daemon's user cannot read."""

from __future__ import annotations

import asyncio
import base64
import os
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import orjson
import pytest
from solders.hash import Hash
from solders.keypair import Keypair
from solders.message import MessageV0, to_bytes_versioned
from solders.pubkey import Pubkey
from solders.signature import Signature
from solders.system_program import TransferParams, transfer

from oracle.chain.program import idl, instructions
from oracle.chain.signer import KeypairSigner
from oracle.chain.signing import remote, socket_server
from oracle.chain.signing.remote import RemoteSigner
from oracle.chain.signing.socket_client import SigningSocket
from oracle.chain.signing.spent_file import SpentFile
from oracle.cli.signer import uid_of
from oracle.config import Config, Spending
from oracle.core.errors import OracleError
from oracle.pipeline import charter
from oracle.pipeline.clock import Clock

pytestmark = pytest.mark.localnet

KEYPAIR = Keypair()
CAPS = charter.caps_of(Spending(max_lamports_per_day=50_000))
EXPIRY = instructions.expire_request(idl.program_id(), request=Pubkey.new_unique())
DRAIN = transfer(TransferParams(from_pubkey=KEYPAIR.pubkey(), to_pubkey=Pubkey.new_unique(), lamports=1))


def message(instruction: Any = EXPIRY, payer: Pubkey | None = None) -> bytes:
    return to_bytes_versioned(MessageV0.try_compile(payer or KEYPAIR.pubkey(), [instruction], [], Hash.default()))


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(remote, "PATIENCE_SECONDS", remote.ATTEMPT_SECONDS + 1.0)
    return tmp_path / "socket"


class Serving:
    """A guard over the key, its day in a file, and the socket."""

    def __init__(self, path: Path, uids: set[int] | None = None) -> None:
        self._path, self._uids, self._stack = path, uids, AsyncExitStack()

    async def __aenter__(self) -> None:
        file = SpentFile(self._path.with_name("spent.json"), CAPS.day)
        self._stack.callback(file.close)
        guard = charter.guard(KeypairSigner(KEYPAIR), charter.operator_charter(Config()), CAPS, file, Clock())
        uids = {os.getuid()} if self._uids is None else self._uids
        await self._stack.enter_async_context(socket_server.serving(guard, self._path, uids))

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()


@pytest.fixture
async def signer(path: Path) -> AsyncIterator[RemoteSigner]:
    async with Serving(path):
        opened = await RemoteSigner.open(SigningSocket(path))
        yield opened
        await opened.close()


async def code_of(signer: RemoteSigner, signed: bytes, **options: int) -> str:
    with pytest.raises(OracleError) as raised:
        await signer.sign(signed, **options)
    return raised.value.code


async def test_the_daemons_transactions_are_signed_many_at_once(signer: RemoteSigner) -> None:
    assert signer.public_key == KEYPAIR.pubkey()
    signatures = await asyncio.gather(*(signer.sign(message()) for _ in range(10)))
    assert all(Signature.from_bytes(each).verify(KEYPAIR.pubkey(), message()) for each in signatures)


async def test_anything_else_is_refused_with_its_code_and_the_signer_is_not_in_trouble(signer: RemoteSigner) -> None:
    assert await code_of(signer, message(DRAIN)) == "ORC-SIGNER-010"
    assert await code_of(signer, message(EXPIRY, Pubkey.new_unique())) == "ORC-SIGNER-010"
    assert await code_of(signer, b"\xffinference oracle: keys of purchases, version 1") == "ORC-SIGNER-010"
    assert await code_of(signer, message(), micro_nos=10**12) == "ORC-SIGNER-011"
    assert signer.trouble is None
    assert len(await signer.sign(message())) == 64


async def test_the_day_is_counted_by_the_server_through_its_restarts(path: Path) -> None:
    signed, codes = 0, set()
    for _ in range(3):
        async with Serving(path):
            signer = await RemoteSigner.open(SigningSocket(path))
            for _ in range(6):
                try:
                    await signer.sign(message())
                    signed += 1
                except OracleError as error:
                    codes.add(error.code)
            await signer.close()
    assert 8 <= signed <= 10
    assert codes == {"ORC-SIGNER-012"}


async def test_a_user_who_may_not_ask_gets_no_answer(path: Path) -> None:
    async with Serving(path, {os.getuid() + 1}):
        with pytest.raises(OracleError, match="ORC-SIGNER-005"):
            await RemoteSigner.open(SigningSocket(path))


async def test_a_server_that_restarts_is_found_again(path: Path) -> None:
    async with Serving(path):
        signer = await RemoteSigner.open(SigningSocket(path))
        assert len(await signer.sign(message())) == 64
    assert await code_of(signer, message()) == "ORC-SIGNER-005"
    async with Serving(path):
        await signer.ready()
        assert len(await signer.sign(message())) == 64
        await signer.close()


HOSTILE = [
    b"",
    b"\n",
    b"{}\n",
    b"null\n",
    b"[]\n",
    b"\xff\xfe\n",
    b'{"method":"sign"}\n',
    b'{"method":"sign","message":5}\n',
    b'{"method":"sign","message":"!!"}\n',
    b'{"method":"sign","message":"AA==","micro_nos":true}\n',
    b'{"method":"sign","message":"AA==","micro_nos":1e400}\n',
    b'{"method":"keypair"}\n',
    b'{"method":["sign"]}\n',
    b"GET / HTTP/1.1\r\n\r\n",
    b"x" * 100_000,
    b'{"method":"public_key"',
]


@pytest.mark.parametrize("sent", HOSTILE, ids=range(len(HOSTILE)))
async def test_nonsense_gets_a_refusal_or_the_door_and_harms_nobody(
    path: Path, signer: RemoteSigner, sent: bytes
) -> None:
    reader, writer = await asyncio.open_unix_connection(path)
    try:
        writer.write(sent)
        writer.write_eof()
        answer = await reader.read()
    except OSError:
        answer = b""  # it hung up while we still spoke
    writer.close()
    for line in answer.splitlines():
        assert set(orjson.loads(line)) == {"error"}
    assert len(await signer.sign(message())) == 64


async def test_a_question_in_pieces_and_two_at_once_are_answered_in_turn(path: Path, signer: RemoteSigner) -> None:
    reader, writer = await asyncio.open_unix_connection(path)
    question = orjson.dumps({"method": "sign", "message": base64.b64encode(message()).decode()}) + b"\n"
    for piece in (question[:7], question[7:] + b'{"method":', b'"public_key"}\n'):
        writer.write(piece)
        await writer.drain()
    first, second = [orjson.loads(await reader.readline()) for _ in range(2)]
    writer.close()
    assert Signature.from_bytes(base64.b64decode(first["signature"])).verify(KEYPAIR.pubkey(), message())
    assert second == {"public_key": str(KEYPAIR.pubkey())}


async def test_a_second_server_does_not_take_the_place_of_a_live_one(path: Path, signer: RemoteSigner) -> None:
    with pytest.raises(OracleError, match="ORC-SIGNER-016"):
        async with socket_server.serving(KeypairSigner(Keypair()), path, {os.getuid()}):
            pass
    assert len(await signer.sign(message())) == 64


def put_letter(path: Path) -> None:
    assert not path.exists(), "the server takes its socket away"
    path.write_text("a letter")


def assert_letter(path: Path) -> None:
    assert path.read_text() == "a letter"


async def test_what_a_dead_server_left_behind_is_replaced_and_a_file_is_not(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    async with Serving(path):
        signer = await RemoteSigner.open(SigningSocket(path))
        await signer.close()
    put_letter(path)
    with pytest.raises(OracleError, match="ORC-SIGNER-016"):
        async with Serving(path):
            pass
    assert_letter(path)
    with pytest.raises(OracleError, match="ORC-SIGNER-015"):
        await RemoteSigner.open(SigningSocket(path))


async def test_a_server_that_is_not_up_is_a_coded_error(path: Path) -> None:
    with pytest.raises(OracleError, match="ORC-SIGNER-005"):
        await RemoteSigner.open(SigningSocket(path))


def test_users_are_known_by_name_and_by_number() -> None:
    assert (uid_of("root"), uid_of("1234")) == (0, 1234)
    with pytest.raises(OracleError, match="ORC-CLI-006"):
        uid_of("nobody-of-this-name")
