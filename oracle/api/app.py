"""The routes. Outputs and receipts are public once their settlement is confirmed, and never before."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from oracle.api.brief import Brief
from oracle.api.health import alive, notices, ready
from oracle.api.metrics import render
from oracle.core.errors import OracleError, Verdict
from oracle.pipeline.context import Context
from oracle.store import recordings, results
from oracle.store.rows import OutputRow

_HASH = re.compile(r"[0-9a-f]{64}")
# Content under its own hash never changes; and what a model wrote must never run as a page of this host.
_SERVED = {
    "Cache-Control": "public, max-age=31536000, immutable",
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; sandbox",
    "Access-Control-Allow-Origin": "*",
}


def app(context: Context) -> Starlette:
    readiness = Brief(lambda: ready(context), context.clock.monotonic)
    exposition = Brief(lambda: render(context), context.clock.monotonic)

    async def output(request: Request) -> Response:
        name = request.path_params["hash"]
        found = None
        if _HASH.fullmatch(name):
            found = await context.store.read(lambda c: results.servable_output(c, name))
        content = await _content(found) if found else None
        if found is None or content is None:
            return _not_found("output")
        return Response(content, media_type=found.media_type, headers=_SERVED)

    async def receipt(request: Request) -> Response:
        name = request.path_params["hash"]
        found = None
        if _HASH.fullmatch(name):
            found = await context.store.read(lambda c: results.servable_receipt(c, name))
        if found is None:
            return _not_found("receipt")
        return Response(found.content, media_type="application/json", headers=_SERVED)

    async def prompt(request: Request) -> Response:
        """What the gateway was asked, where it was too long to stand in the request on chain."""
        name = request.path_params["hash"]
        found = None
        if _HASH.fullmatch(name):
            found = await context.store.read(lambda c: recordings.servable_input(c, name))
        if found is None:
            return _not_found("input")
        return Response(found.content, media_type="application/json", headers=_SERVED)

    async def livez(_: Request) -> Response:
        return _health(alive(context))

    async def readyz(_: Request) -> Response:
        return _health(await readiness(), notices(context))

    async def metrics(_: Request) -> Response:
        body, media_type = await exposition()
        return Response(body, media_type=media_type)

    application = Starlette(
        routes=[
            Route("/v1/outputs/{hash}", output),
            Route("/v1/receipts/{hash}", receipt),
            Route("/v1/inputs/{hash}", prompt),
            Route("/livez", livez),
            Route("/readyz", readyz),
            Route("/metrics", metrics),
        ],
        exception_handlers={OracleError: _coded},
    )
    # A redirect would name whatever host the question named.
    application.router.redirect_slashes = False
    return application


async def _content(output: OutputRow) -> bytes | None:
    """Small outputs lie in the database, large ones in files."""
    if output.content is not None or output.path is None:
        return output.content
    try:
        return await asyncio.to_thread(Path(output.path).read_bytes)
    except OSError:
        return None


def _not_found(what: str) -> Response:
    # Not yet settled, pruned and never existed look the same: who asks must not learn what is in flight.
    return JSONResponse({"error": f"no such {what}"}, status_code=404, headers={"Access-Control-Allow-Origin": "*"})


def _health(problems: dict[str, str], notices: dict[str, str] | None = None) -> Response:
    told = {"ok": not problems, "problems": problems} | ({} if notices is None else {"notices": notices})
    return JSONResponse(told, status_code=503 if problems else 200)


async def _coded(_: Request, error: Exception) -> Response:
    assert isinstance(error, OracleError)
    status = 500 if error.verdict is Verdict.GIVE_UP else 503
    return JSONResponse({"error": error.error.title, "code": error.code}, status_code=status)
