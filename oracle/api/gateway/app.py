"""The routes of the gateway: what an OpenAI client calls, and what a client's use and recordings are told by."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final

import orjson
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from oracle.api.gateway import accounts, replies
from oracle.api.gateway.conversation import Gateway, begin_chat, embed
from oracle.api.gateway.envelope import body_of, headers_of, shape_of
from oracle.api.gateway.errors import BODY_TOO_LARGE, MODEL_UNKNOWN, NOT_HERE, REQUEST_INVALID, STOPPING
from oracle.api.gateway.keys import Client
from oracle.api.gateway.respond import Reply, WhileConnected, streamed, whole
from oracle.api.gateway.wire import read_chat, read_embeddings
from oracle.core.errors import OracleError
from oracle.pipeline.errors import UNEXPECTED

RECORD_HEADER: Final = "X-Oracle-Record"
LONGEST_IDEMPOTENCY_KEY: Final = 255


def app(gateway: Gateway) -> Starlette:
    context = gateway.context
    settings = context.config.gateway

    def now() -> int:
        return context.clock.now_ms() // 1000

    def client_of(request: Request) -> Client:
        return gateway.clients.of(request.headers.get("authorization"))

    def answering(make: Callable[[Reply, Client, Any, Request], Awaitable[None]]) -> Callable[..., Any]:
        """A call that costs something: it takes a turn of its client's, and is made while the client listens."""

        async def endpoint(request: Request) -> WhileConnected:
            client = client_of(request)
            if context.stopping.is_set():
                raise STOPPING(retry_after_seconds=5.0)
            body = await read_json(request, settings.max_body_bytes)

            async def made(reply: Reply) -> None:
                async with client.turn():
                    await make(reply, client, body, request)

            return WhileConnected(made)

        return endpoint

    async def chat(reply: Reply, client: Client, body: Any, request: Request) -> None:
        ask = read_chat(body, settings.default_output_tokens)
        conversation = await begin_chat(
            gateway,
            client,
            ask,
            record=ask.record or record_of(request),
            idempotency_key=idempotency_key_of(request),
        )
        if ask.stream:
            await streamed(reply, conversation, now(), include_usage=ask.include_usage)
        else:
            await whole(reply, conversation, now())

    async def embeddings(reply: Reply, client: Client, body: Any, _: Request) -> None:
        ask = read_embeddings(body)
        call, found, usage = await embed(gateway, client, ask)
        about = call.about(found.model)
        await reply.json(replies.embeddings(ask.model, found, usage, about, as_base64=ask.as_base64))

    async def models(request: Request) -> Response:
        names = accounts.models_of(context, client_of(request))
        return JSONResponse({"object": "list", "data": [replies.model(name, gateway.born_at) for name in names]})

    async def model(request: Request) -> Response:
        name = request.path_params["name"]
        if name not in accounts.models_of(context, client_of(request)):
            raise MODEL_UNKNOWN(f"`model` {name!r}")
        return JSONResponse(replies.model(name, gateway.born_at))

    async def usage(request: Request) -> Response:
        client = client_of(request)
        return JSONResponse(await accounts.usage_of(context, client, request.query_params.get("since")))

    async def recording(request: Request) -> Response:
        client = client_of(request)
        return JSONResponse(await accounts.recording_of(context, client, request.path_params["address"]))

    return Starlette(
        routes=[
            Route("/v1/chat/completions", answering(chat), methods=["POST"]),
            Route("/v1/embeddings", answering(embeddings), methods=["POST"]),
            Route("/v1/models", models),
            Route("/v1/models/{name:path}", model),
            Route("/v1/usage", usage),
            Route("/v1/recordings/{address}", recording),
        ],
        exception_handlers={OracleError: _coded, HTTPException: _not_here, Exception: _unexpected},
    )


async def read_json(request: Request, most_bytes: int) -> Any:
    """Raises ORC-GATEWAY-005 or 007; what is too large is not read to its end."""
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > most_bytes:
            raise BODY_TOO_LARGE(f"more than {most_bytes} bytes")
    try:
        return orjson.loads(bytes(body))
    except orjson.JSONDecodeError:
        raise REQUEST_INVALID("the body is not JSON") from None


def record_of(request: Request) -> bool:
    value = request.headers.get(RECORD_HEADER, "false").lower()
    if value not in ("true", "false"):
        raise REQUEST_INVALID(f"{RECORD_HEADER} must be true or false")
    return value == "true"


def idempotency_key_of(request: Request) -> str | None:
    key = request.headers.get("Idempotency-Key")
    if key is not None and not 1 <= len(key) <= LONGEST_IDEMPOTENCY_KEY:
        raise REQUEST_INVALID(f"Idempotency-Key must have 1 to {LONGEST_IDEMPOTENCY_KEY} characters")
    return key


async def _coded(_: Request, error: Exception) -> Response:
    assert isinstance(error, OracleError)
    return JSONResponse(body_of(error), shape_of(error).status, headers_of(error))


async def _not_here(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    coded = body_of(NOT_HERE(f"{request.method} {request.url.path}"))
    return JSONResponse(coded, error.status_code, error.headers)


async def _unexpected(_: Request, __: Exception) -> Response:
    return JSONResponse(body_of(UNEXPECTED("the gateway")), 500)
