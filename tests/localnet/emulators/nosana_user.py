"""What a customer of Nosana does, over HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx

from oracle.localnet.emulators.nosana import Nosana
from oracle.localnet.emulators.server import Running, serve

KEY = {"authorization": "Bearer nos_localnet"}
PIN = {"authorization": "Bearer localnet-pinata"}
MARKET = "7AtiXMSH6R1jjBxrcYjehCkkSF7zvYWte63gwEDBcGHq"


@dataclass
class Clock:
    """Stands still until it is moved."""

    seconds: float = 1_785_000_000.0

    def __call__(self) -> float:
        return self.seconds


@dataclass
class NosanaUser:
    emulator: Nosana
    running: Running
    http: httpx.AsyncClient
    headers: dict[str, str] = field(default_factory=lambda: dict(KEY))

    async def pin(self, document: Any) -> str:
        answer = await self.http.post("/pinning/pinJSONToIPFS", json=document, headers=PIN)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["IpfsHash"])

    async def list(self, cid: str, key: str | None = None, **more: Any) -> httpx.Response:
        headers = self.headers if key is None else {**self.headers, "idempotency-key": key}
        body = {"ipfsHash": cid, "market": MARKET, "timeout": 3600, **more}
        return await self.http.post("/jobs/list", json=body, headers=headers)

    async def post(self, definition: Any, key: str | None = None) -> str:
        """The address of a new job."""
        answer = await self.list(await self.pin(definition), key)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["job"])

    async def job(self, address: str) -> dict[str, Any]:
        answer = await self.http.get(f"/jobs/{address}")
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    async def until(self, address: str, what: Callable[[dict[str, Any]], Any], seconds: float = 60.0) -> dict[str, Any]:
        async with asyncio.timeout(seconds):
            while True:
                if what(job := await self.job(address)):
                    return job
                await asyncio.sleep(0.005)

    async def ended(self, address: str, seconds: float = 60.0) -> dict[str, Any]:
        return await self.until(address, lambda job: job["state"] >= 2, seconds)

    async def document(self, job: dict[str, Any]) -> dict[str, Any]:
        return dict((await self.http.get(f"/ipfs/{job['ipfsResult']}")).json())

    async def books(self) -> dict[str, Any]:
        return dict((await self.http.get("/_emulator/books")).json())


def loopback(running: Running) -> httpx.AsyncClient:
    """A client without certificates, whose loading takes longer than most tests."""
    return httpx.AsyncClient(base_url=running.url, timeout=60.0, verify=False)


@asynccontextmanager
async def served_nosana(*arguments: Any, **options: Any) -> AsyncIterator[NosanaUser]:
    emulator = Nosana(*arguments, **options)
    async with serve(emulator) as running, loopback(running) as http:
        yield NosanaUser(emulator, running, http)
