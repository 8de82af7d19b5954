"""What runs inside a rented container: a model server behind the container's own address (§4.4)."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from typing import Any

import httpx
import orjson
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response, StreamingResponse

from oracle.localnet.emulators.server import GATEWAY_PAGE
from oracle.localnet.emulators.upstream import ModelServer, ModelServerUnreachable

_SERVERS = (
    (re.compile(r"(docker\.io/)?vllm/vllm-openai(:[\w.-]+)?"), ("vllm", "serve"), "VLLM_API_KEY"),
    (re.compile(r"ghcr\.io/ggml-org/llama\.cpp:server[\w.-]*"), ("/app/llama-server", "-hf"), "LLAMA_API_KEY"),
)


@dataclass(frozen=True, slots=True)
class Served:
    """A model server: the name it serves the model under, the model server's own name for it, and the key it wants."""

    is_vllm: bool
    served_model: str
    upstream_model: str
    api_key: str | None


def served_by(image_url: str, config: Mapping[str, Any], models: Mapping[str, str]) -> Served | None:
    """The model server that this container starts, or None: anything else never comes up."""
    command = [*(config.get("entrypoint") or ()), *(config.get("args") or ())]
    environment = {**(config.get("env_variables") or {}), **(config.get("secret_env_variables") or {})}
    for image, start, key_name in _SERVERS:
        if not image.fullmatch(image_url) or tuple(command[:2]) != start or len(command) < 3:
            continue
        options = dict(zip(command[3::2], command[4::2], strict=False))
        model, port = command[2], options.get("--port")
        if model not in models or port != str(config["traffic_port"]):
            return None
        served = options.get("--served-model-name") or options.get("--alias") or model
        return Served(start[0] == "vllm", served, models[model], options.get("--api-key") or environment.get(key_name))
    return None


async def relay(server: Served, models: ModelServer, request: Request, path: str) -> Response:
    """Passes a call on to the model server, under the container's own key and model name."""
    if server.api_key is not None and path != "/health":
        sent = request.headers.get("authorization")
        if sent != f"Bearer {server.api_key}":
            return _unauthorized(server)
    if path == "/v1/models":
        return JSONResponse({"object": "list", "data": [{"id": server.served_model, "object": "model", "created": 0}]})
    body = await request.body()
    if body:
        try:
            asked = orjson.loads(body)
        except orjson.JSONDecodeError:
            asked = {}
        if server.is_vllm and asked.get("model") != server.served_model:
            message = f"The model `{asked.get('model')}` does not exist."
            error = {"message": message, "type": "NotFoundError", "param": "model", "code": 404}
            return JSONResponse({"error": error}, 404)
        body = orjson.dumps({**asked, "model": server.upstream_model})
    try:
        answer = await models.relay(request.method, path, body)
    except ModelServerUnreachable:
        return bad_gateway()
    kind = answer.headers.get("content-type", "application/json")
    return StreamingResponse(_renamed(answer, server), answer.status_code, media_type=kind)


def bad_gateway() -> Response:
    return HTMLResponse(GATEWAY_PAGE.format(status=502), 502)


async def _renamed(answer: httpx.Response, server: Served) -> AsyncGenerator[bytes]:
    """The body with the model's name put right, line by line: a chunk may end inside the name."""
    before, after = (orjson.dumps({"model": name})[1:-1] for name in (server.upstream_model, server.served_model))
    rest = b""
    chunks = answer.aiter_bytes()
    try:
        async for data in chunks:
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                yield line.replace(before, after) + b"\n"
        if rest:
            yield rest.replace(before, after)
    finally:
        await answer.aclose()


def _unauthorized(server: Served) -> Response:
    if server.is_vllm:
        return JSONResponse({"error": "Unauthorized"}, 401)
    error = {"code": 401, "message": "Invalid API Key", "type": "authentication_error"}
    return JSONResponse({"error": error}, 401)
