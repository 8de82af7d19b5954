"""A rented server that speaks the OpenAI wire format."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from typing import Final

from oracle.core.compute import Completion, Embeddings, Piece, Task
from oracle.core.errors import OracleError
from oracle.providers.http import Http
from oracle.providers.openai.client import OpenAIChat

HEALTH_SECONDS: Final = 10.0


class OpenAIServer:
    """Implements `Server`. `health` speaks to the root of the address that `chat` speaks to, and is None for a server
    that has no `/health` and is ready once it lists `model`, as Ollama."""

    def __init__(self, chat: OpenAIChat, health: Http | None, model: str) -> None:
        self._chat = chat
        self._health = health
        self._model = model

    async def is_ready(self) -> bool:
        """vLLM and llama.cpp answer 200 once the model is loaded; what stands before them answers otherwise."""
        try:
            if self._health is None:
                return self._model in await self._chat.models()
            await self._health.call("GET", "health", repeatable=True, seconds=HEALTH_SECONDS)
        except OracleError:
            return False
        return True

    async def complete(self, task: Task) -> Completion:
        return await self._chat.complete(task)

    def stream(self, task: Task) -> AsyncGenerator[Piece | Completion, None]:
        return self._chat.stream(task)

    async def embed(self, model: str, texts: Sequence[str], *, seconds: float) -> Embeddings:
        return await self._chat.embed(model, texts, seconds=seconds)

    async def models(self) -> Sequence[str]:
        return await self._chat.models()

    async def close(self) -> None:
        await self._chat.close()
        if self._health is not None:
            await self._health.close()
