"""The model server on which emulators really run a job: any OpenAI-compatible base URL, such as `http://…/v1`."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any

import httpx
import orjson

from oracle.model.pinned import SMOLLM2

REPOSITORIES = {
    "HuggingFaceTB/SmolLM2-135M-Instruct": SMOLLM2.model_id,
    "bartowski/SmolLM2-135M-Instruct-GGUF:Q8_0": SMOLLM2.model_id,
    "smollm2:135m": SMOLLM2.model_id,
}
"""What a container may name by default, and what `oracle.model` calls it."""


class ModelServerUnreachable(Exception):
    """No answer came: refused, reset or timed out (`timed_out`)."""

    def __init__(self, detail: str, *, timed_out: bool = False) -> None:
        self.timed_out = timed_out
        super().__init__(detail)


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    body: bytes

    def json(self) -> Any:
        """The parsed body, or None where it is not JSON."""
        try:
            return orjson.loads(self.body)
        except orjson.JSONDecodeError:
            return None


class ModelServer:
    """`models` maps the name by which a provider knows a model to the name this server has for it."""

    def __init__(self, base_url: str, models: Mapping[str, str], *, api_key: str | None = None) -> None:
        self.models = dict(models)
        self._root = base_url.rstrip("/").removesuffix("/v1")
        headers = {} if api_key is None else {"authorization": f"Bearer {api_key}"}
        self._client = httpx.AsyncClient(
            headers=headers,
            timeout=600.0,
            limits=httpx.Limits(max_connections=None),
            verify=base_url.startswith("https:"),  # loading certificates takes 40 ms, for nothing on loopback
            trust_env=False,
        )

    async def healthy(self) -> bool:
        """Whether the server would take a request now; a server without `/health` counts as ready."""
        try:
            answer = await self._client.get(f"{self._root}/health", timeout=5.0)
        except httpx.HTTPError:
            return False
        return answer.status_code < 500

    async def post(self, path: str, body: Mapping[str, Any], *, timeout_seconds: float = 600.0) -> Answer:
        """Posts to `/v1<path>`. Raises ModelServerUnreachable where nothing came back."""
        try:
            answer = await self._client.post(
                f"{self._root}/v1{path}",
                content=orjson.dumps(body),
                headers={"content-type": "application/json"},
                timeout=timeout_seconds,
            )
        except httpx.TimeoutException as error:
            raise ModelServerUnreachable(repr(error), timed_out=True) from error
        except httpx.HTTPError as error:
            raise ModelServerUnreachable(repr(error)) from error
        return Answer(answer.status_code, answer.content)

    @contextlib.asynccontextmanager
    async def stream(self, path: str, body: Mapping[str, Any]) -> AsyncIterator[Answer | AsyncIterator[dict[str, Any]]]:
        """Posts and yields the events as they come, or the whole answer where it is not a stream of 200."""
        request = self._client.stream(
            "POST",
            f"{self._root}/v1{path}",
            content=orjson.dumps(body),
            headers={"content-type": "application/json"},
        )
        try:
            async with request as answer:
                if answer.status_code == 200:
                    yield _events(answer)
                else:
                    yield Answer(answer.status_code, await answer.aread())
        except httpx.HTTPError as error:
            raise ModelServerUnreachable(repr(error)) from error

    async def relay(self, method: str, path: str, body: bytes) -> httpx.Response:
        """Passes a request on as it is and returns the open answer: read it with `aiter_raw`, then `aclose` it."""
        request = self._client.build_request(
            method, f"{self._root}{path}", content=body, headers={"content-type": "application/json"}
        )
        try:
            return await self._client.send(request, stream=True)
        except httpx.HTTPError as error:
            raise ModelServerUnreachable(repr(error)) from error

    async def close(self) -> None:
        await self._client.aclose()


async def _events(answer: httpx.Response) -> AsyncIterator[dict[str, Any]]:
    """Lines end at a line feed only: httpx would tear an event apart at a U+2028 inside it."""
    rest = b""
    async for data in answer.aiter_bytes():
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            if line.startswith(b"data: ") and line.strip() != b"data: [DONE]":
                yield orjson.loads(line.removeprefix(b"data: "))
