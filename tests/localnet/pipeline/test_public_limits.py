"""A daemon under load stays within what the public endpoints allow, with one call a second to spare."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict, deque

import httpx
import orjson
import pytest
from pipeline_world import World, until
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from oracle.api.server import serving
from oracle.core.lifecycle import State
from oracle.pipeline import daemon as daemons

pytestmark = pytest.mark.localnet

WINDOW_SECONDS, MOST, MOST_OF_A_METHOD = 10.0, 100, 40


class PublicEndpoint:
    """Before a node: 100 calls in any 10 seconds, 40 of one method, and 429 for more, as solana.com documents it."""

    def __init__(self, upstream: str) -> None:
        self._upstream = upstream
        self._http = httpx.AsyncClient(trust_env=False, timeout=30.0)
        self._calls: deque[float] = deque()
        self._by_method: defaultdict[str, deque[float]] = defaultdict(deque)
        self.first_at = 0.0
        self.refused: list[str] = []
        self.peak = 0
        self.peaks: defaultdict[str, int] = defaultdict(int)

    def app(self) -> Starlette:
        return Starlette(routes=[Route("/", self._pass, methods=["POST"])])

    async def close(self) -> None:
        await self._http.aclose()

    async def _pass(self, request: Request) -> Response:
        body, now = await request.body(), time.monotonic()
        method = orjson.loads(body)["method"]
        self.first_at = self.first_at or now
        of_method = self._by_method[method]
        for calls in (self._calls, of_method):
            calls.append(now)
            while calls[0] <= now - WINDOW_SECONDS:
                calls.popleft()
        self.peak = max(self.peak, len(self._calls))
        self.peaks[method] = max(self.peaks[method], len(of_method))
        if len(self._calls) > MOST or len(of_method) > MOST_OF_A_METHOD:
            self.refused.append(method)
            return JSONResponse({"error": "Too many requests"}, 429, headers={"Retry-After": "10"})
        answer = await self._http.post(self._upstream, content=body, headers={"content-type": "application/json"})
        return Response(answer.content, answer.status_code, media_type="application/json")


async def test_a_daemon_under_load_is_never_refused_by_a_public_endpoint_and_settles_everything(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(daemons, "_unless_local", lambda url, limits: limits)
    endpoint = PublicEndpoint(world.settings["cluster"]["rpc"][0])
    submitted = [await world.submit(f"question {n}") for n in range(24)]
    async with serving(endpoint.app(), "127.0.0.1", 0) as url:
        cluster = {"rpc": [url], "websocket": world.node.ws_url}
        # Statuses that are asked for ten times as often as usual: without limits that alone would be too much.
        async with world.daemon(cluster=cluster, settlement={"poll_interval_seconds": 0.05}) as daemon:

            async def settled() -> bool:
                counts = await daemon.context.store.read(lambda c: rows_in(c, State.SETTLED))
                return counts == len(submitted) and time.monotonic() - endpoint.first_at > WINDOW_SECONDS + 2

            submitted += await asyncio.gather(*(world.submit(f"later question {n}") for n in range(24)))
            await until(settled, "every settlement", seconds=100.0)
            (meter,) = daemon.pool.meters()
            throttled_seconds = meter.throttled_seconds
    await endpoint.close()
    assert endpoint.refused == []
    # Ours are at most 90 and 30 as they leave; a few may arrive bunched.
    assert endpoint.peak <= 94
    assert max(endpoint.peaks.values()) <= 34
    assert throttled_seconds > 0


def rows_in(c: object, state: State) -> int:
    from oracle.store import requests

    return requests.counts(c).get(state, 0)  # type: ignore[arg-type]
