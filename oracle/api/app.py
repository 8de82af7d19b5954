"""The routes. Outputs and receipts are public once their settlement is confirmed, and never before."""

from __future__ import annotations

import re

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from oracle.api.health import alive, ready
from oracle.api.metrics import render
from oracle.core.errors import OracleError, Verdict
from oracle.pipeline.context import Context
from oracle.store import results

_HASH = re.compile(r"[0-9a-f]{64}")
# Content under its own hash never changes; and what a model wrote must never run as a page of this host.
_SERVED = {
    "Cache-Control": "public, max-age=31536000, immutable",
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; sandbox",
    "Access-Control-Allow-Origin": "*",
}


def app(context: Context) -> Starlette:
    async def output(request: Request) -> Response:
        name = request.path_params["hash"]
        found = None
        if _HASH.fullmatch(name):
            found = await context.store.read(lambda c: results.servable_output(c, name))
        if found is None:
            return _not_found("output")
        return Response(found.content, media_type=found.media_type, headers=_SERVED)

    async def receipt(request: Request) -> Response:
        name = request.path_params["hash"]
        found = None
        if _HASH.fullmatch(name):
            found = await context.store.read(lambda c: results.servable_receipt(c, name))
        if found is None:
            return _not_found("receipt")
        return Response(found.content, media_type="application/json", headers=_SERVED)

    async def livez(_: Request) -> Response:
        return _health(alive(context))

    async def readyz(_: Request) -> Response:
        return _health(await ready(context))

    async def metrics(_: Request) -> Response:
        body, media_type = await render(context)
        return Response(body, media_type=media_type)

    return Starlette(
        routes=[
            Route("/v1/outputs/{hash}", output),
            Route("/v1/receipts/{hash}", receipt),
            Route("/livez", livez),
            Route("/readyz", readyz),
            Route("/metrics", metrics),
        ],
        exception_handlers={OracleError: _coded},
    )


def _not_found(what: str) -> Response:
    # Not yet settled, pruned and never existed look the same: who asks must not learn what is in flight.
    return JSONResponse({"error": f"no such {what}"}, status_code=404, headers={"Access-Control-Allow-Origin": "*"})


def _health(problems: dict[str, str]) -> Response:
    return JSONResponse({"ok": not problems, "problems": problems}, status_code=503 if problems else 200)


async def _coded(_: Request, error: Exception) -> Response:
    assert isinstance(error, OracleError)
    status = 500 if error.verdict is Verdict.GIVE_UP else 503
    return JSONResponse({"error": error.error.title, "code": error.code}, status_code=status)
