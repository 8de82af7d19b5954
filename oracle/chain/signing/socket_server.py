"""Signs for other users of this machine over a Unix socket: `docs/reference/signing-socket.md`.

The daemon then never sees the key, and whoever takes over the daemon can have signed only what the guard lets pass.
"""

from __future__ import annotations

import asyncio
import base64
import os
import socket
import stat
import struct
from collections.abc import AsyncIterator, Set
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Final

import orjson
import structlog

from oracle.chain.signer import Signer
from oracle.chain.signing.errors import SIGNER_REFUSES, SOCKET_TAKEN
from oracle.core.errors import OracleError

log = structlog.get_logger(__name__)

MOST_LINE_BYTES: Final = 4_096
"""A transaction is at most 1,232 bytes, and a third more in base64."""
MOST_CONNECTIONS: Final = 32
IDLE_SECONDS: Final = 600.0

_PEER: Final = struct.Struct("3i")


@asynccontextmanager
async def serving(signer: Signer, path: Path, allowed_uids: Set[int]) -> AsyncIterator[None]:
    """Serve `signer` to processes of `allowed_uids` until the block ends. Raises ORC-SIGNER-016."""
    desk = _Desk(signer, allowed_uids)
    server = await _listen(path, desk)
    try:
        yield
    finally:
        server.close()
        desk.close()
        with suppress(OSError):
            os.unlink(path)


async def _listen(path: Path, desk: _Desk) -> asyncio.Server:
    """A socket that a dead server left behind is replaced; a live one, or anything else at the path, is not."""
    try:
        if (mode := _mode(path)) is not None:
            if not stat.S_ISSOCK(mode) or await _answers(path):
                raise SOCKET_TAKEN(f"{path} is in use")
            os.unlink(path)
        server = await asyncio.start_unix_server(desk.receive, path, limit=MOST_LINE_BYTES, start_serving=False)
        # Who may ask is decided by the user at the other end; the mode only lets the kernel tell who that is.
        os.chmod(path, 0o666)
        await server.start_serving()
    except OSError as error:
        raise SOCKET_TAKEN(f"{path}: {error.strerror}") from None
    return server


def _mode(path: Path) -> int | None:
    try:
        return os.lstat(path).st_mode
    except FileNotFoundError:
        return None


async def _answers(path: Path) -> bool:
    try:
        _, writer = await asyncio.open_unix_connection(path)
    except OSError:
        return False
    writer.close()
    return True


class _Desk:
    def __init__(self, signer: Signer, allowed_uids: Set[int]) -> None:
        self._signer = signer
        self._allowed_uids = allowed_uids
        self._open: set[asyncio.StreamWriter] = set()

    def close(self) -> None:
        for writer in self._open:
            writer.close()

    async def receive(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        uid = _uid_of(writer)
        if uid not in self._allowed_uids or len(self._open) >= MOST_CONNECTIONS:
            log.warning("connection refused", uid=uid, open=len(self._open))
            writer.close()
            return
        self._open.add(writer)
        try:
            while True:
                async with asyncio.timeout(IDLE_SECONDS):
                    line = await reader.readuntil(b"\n")
                writer.write(orjson.dumps(await self._answer(line)) + b"\n")
                await writer.drain()
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # it went away, fell asleep, or does not speak the protocol
        finally:
            self._open.discard(writer)
            writer.close()

    async def _answer(self, line: bytes) -> dict[str, Any]:
        try:
            return await self._served(orjson.loads(line))
        except OracleError as error:
            log.warning("not signed", code=error.code, detail=error.detail)
            return {"error": {"code": error.code, "detail": error.detail}}
        except (ValueError, TypeError, KeyError, AttributeError):
            return {"error": {"code": SIGNER_REFUSES.code, "detail": "not a question of the protocol"}}

    async def _served(self, question: dict[str, Any]) -> dict[str, Any]:
        match question["method"]:
            case "public_key":
                return {"public_key": str(self._signer.public_key)}
            case "sign":
                message = base64.b64decode(question["message"], validate=True)
                micro_nos = question.get("micro_nos", 0)
                if type(micro_nos) is not int:
                    raise ValueError("micro_nos is no integer")
                signature = await self._signer.sign(message, micro_nos=micro_nos)
                return {"signature": base64.b64encode(signature).decode()}
        raise ValueError("no such method")


def _uid_of(writer: asyncio.StreamWriter) -> int:
    """Who is at the other end, as the kernel says (unix(7), SO_PEERCRED)."""
    peer: socket.socket = writer.get_extra_info("socket")
    _, uid, _ = _PEER.unpack(peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size))
    return int(uid)
