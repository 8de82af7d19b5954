"""What runs inside a container, behind a public port of its own (§6). Images are read, never run.

| image | what it does |
|---|---|
| `ghcr.io/ggml-org/llama.cpp:server…` | a model server, told by its environment which model and port (`LLAMA_ARG_…`) |
| `library/hello-world` | prints a line and ends with 0 |

Others end at once: vLLM's stock image needs arguments, which Dispersed cannot give (§4), the rest is not known here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from oracle.localnet.emulators.ionet.containers import Served
from oracle.localnet.emulators.server import CutConnection


@dataclass(frozen=True, slots=True)
class Exit:
    """The container ends at once."""

    code: int
    reason: str = ""
    logs: str = ""


def started(docker: Mapping[str, Any], models: Mapping[str, str]) -> Served | Exit:
    """What the container of these parameters does."""
    image, tag, env = docker["image"], docker["tag"], docker["env"]
    if image in ("hello-world", "library/hello-world"):
        return Exit(0, logs="Hello from Docker!\n")
    if image == "vllm/vllm-openai":
        return Exit(2, logs="vllm: error: the following arguments are required: model_tag\n")
    if image != "ghcr.io/ggml-org/llama.cpp" or not tag.startswith("server"):
        return Exit(1, "Image pull failed")
    repository = env.get("LLAMA_ARG_HF_REPO", "")
    if repository not in models:
        return Exit(1, logs=f"error: failed to download model {repository}\n")
    # Inside a container only what listens on all addresses is reached.
    if env.get("LLAMA_ARG_HOST") != "0.0.0.0" or env.get("LLAMA_ARG_PORT", "8080") not in map(str, docker["ports"]):
        return Exit(0, logs="llama_server: nobody can reach this server\n")
    name = env.get("LLAMA_ARG_ALIAS", repository)
    return Served(False, name, models[repository], env.get("LLAMA_API_KEY"))


@dataclass(slots=True)
class Doors:
    """A listener for each container, opened when it is first asked for and closed with the emulator."""

    inside: Callable[[str, Request], Awaitable[Response]]
    """Answers a call to the container of a job; raises CutConnection where its node is gone."""
    _ports: dict[str, int] = field(default_factory=dict)
    _listeners: list[asyncio.Server] = field(default_factory=list)
    _state: ServerState = field(default_factory=ServerState)

    async def port(self, job: str) -> int:
        if job not in self._ports:
            config = uvicorn.Config(self._app(job), server_header=False, ws="none", lifespan="off", log_config=None)
            config.access_log = False
            config.load()
            listener = await asyncio.get_running_loop().create_server(
                lambda: H11Protocol(config=config, server_state=self._state, app_state={}), "127.0.0.1", 0
            )
            self._listeners.append(listener)
            self._ports[job] = listener.sockets[0].getsockname()[1]
        return self._ports[job]

    async def close(self) -> None:
        for listener in self._listeners:
            listener.close()
        for connection in list(self._state.connections):
            connection.transport.abort()
        for task in list(self._state.tasks):
            task.cancel()
        await asyncio.gather(*self._state.tasks, return_exceptions=True)

    def _app(self, job: str) -> Callable[[Scope, Receive, Send], Awaitable[None]]:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            try:
                response = await self.inside(job, Request(scope, receive))
            except CutConnection:
                for connection in list(self._state.connections):
                    if getattr(connection, "client", None) == scope["client"]:
                        connection.transport.abort()
                while (await receive())["type"] != "http.disconnect":
                    pass
            else:
                await response(scope, receive, send)

        return app


def loading() -> Response:
    return JSONResponse({"error": {"code": 503, "message": "Loading model", "type": "unavailable_error"}}, 503)
