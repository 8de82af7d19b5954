"""The daemon's side of the signing socket: `docs/reference/signing-socket.md`."""

from __future__ import annotations

import asyncio
import base64
import stat
from pathlib import Path
from typing import Any, Final

import orjson
from solders.pubkey import Pubkey

from oracle.chain.signing.errors import NO_SOCKET, SIGNER_REFUSES, SIGNER_UNAVAILABLE
from oracle.core.errors import CATALOGUE, OracleError

MOST_LINE_BYTES: Final = 16_384
MOST_KEPT: Final = 8


class SigningSocket:
    """A backend over a Unix socket. Connections are kept, and each carries one question at a time."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    @property
    def name(self) -> str:
        return f"signing socket {self._path}"

    async def public_key(self) -> Pubkey:
        answer = await self._ask({"method": "public_key"})
        try:
            return Pubkey.from_string(answer["public_key"])
        except (KeyError, TypeError, ValueError):
            raise SIGNER_REFUSES(f"{self.name}: not a public key") from None

    async def sign(self, message: bytes, micro_nos: int) -> bytes:
        encoded = base64.b64encode(message).decode()
        answer = await self._ask({"method": "sign", "message": encoded, "micro_nos": micro_nos})
        try:
            return base64.b64decode(answer["signature"], validate=True)
        except (KeyError, TypeError, ValueError):
            return b""

    async def close(self) -> None:
        while self._idle:
            self._idle.pop()[1].close()

    async def _ask(self, question: dict[str, Any]) -> dict[str, Any]:
        reader, writer = self._idle.pop() if self._idle else await self._connect()
        try:
            writer.write(orjson.dumps(question) + b"\n")
            await writer.drain()
            line = await reader.readuntil(b"\n")
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
            writer.close()
            raise SIGNER_UNAVAILABLE(f"{self.name}: {type(error).__name__}") from None
        except BaseException:
            writer.close()  # an answer that comes later must not be taken for that to the next question
            raise
        if len(self._idle) < MOST_KEPT:
            self._idle.append((reader, writer))
        else:
            writer.close()
        return self._read(line)

    def _read(self, line: bytes) -> dict[str, Any]:
        try:
            answer = orjson.loads(line)
        except orjson.JSONDecodeError:
            answer = None
        if not isinstance(answer, dict):
            raise SIGNER_UNAVAILABLE(f"{self.name}: no answer of the protocol")
        told = answer.get("error")
        if told is None:
            return answer
        code, detail = (str(told.get(each, "")) for each in ("code", "detail")) if isinstance(told, dict) else ("", "")
        if code in CATALOGUE and code.startswith("ORC-SIGNER-"):
            raise OracleError(CATALOGUE[code], f"{self.name}: {detail}"[:300])
        raise SIGNER_REFUSES(f"{self.name}: {code} {detail}"[:300])

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        try:
            mode = self._path.stat()
            if not stat.S_ISSOCK(mode.st_mode):
                raise NO_SOCKET(f"{self._path} is no socket")
            reader, writer = await asyncio.open_unix_connection(self._path, limit=MOST_LINE_BYTES)
        except OSError as error:
            raise SIGNER_UNAVAILABLE(f"{self.name}: {error.strerror or type(error).__name__}") from None
        return reader, writer
