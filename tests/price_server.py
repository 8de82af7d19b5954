"""A server of prices that may answer anything, or nothing."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

KEY = "k3y-of-the-operator"
"""Stands in the address: in its path, and in its query."""


@dataclass
class PriceServer:
    """Answers every call with the bytes that are due; None says nothing at all."""

    answer: bytes | None = b""
    url: str = ""
    calls: int = 0

    def says(self, body: bytes | Any, status: str = "200 OK", headers: str = "") -> None:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        head = f"HTTP/1.1 {status}\r\nContent-Length: {len(content)}\r\n{headers}Connection: close\r\n\r\n"
        self.answer = head.encode() + content

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.calls += 1
        await reader.readuntil(b"\r\n\r\n")
        if self.answer is None:
            await reader.read()
        else:
            writer.write(self.answer)
        writer.close()


@asynccontextmanager
async def price_server() -> AsyncIterator[PriceServer]:
    fake = PriceServer()
    server = await asyncio.start_server(fake.serve, "127.0.0.1", 0)
    async with server:
        fake.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1/{KEY}/simple?key={KEY}"
        yield fake
