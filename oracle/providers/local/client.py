"""`Chat` on the local model, which is started at its first use and again where it has died."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from oracle.core.compute import Completion, Embeddings, Piece, Task
from oracle.model.pinned import SMOLLM2
from oracle.model.server import LocalModel
from oracle.model.weights import ensure_weights
from oracle.providers import errors
from oracle.providers.http import Http
from oracle.providers.openai.client import OpenAIChat
from oracle.providers.openai.wire import Dictation
from oracle.providers.pace import Pace

DICTATION: Final = Dictation(by_stream=True, extra={"cache_prompt": False})


class LocalChat:
    """`directory` is where the weights lie, or are downloaded to once."""

    def __init__(self, name: str, directory: Path, *, threads: int = 1, context_tokens: int = 2048) -> None:
        self._name = name
        self._directory = directory
        self._threads = threads
        self._context_tokens = context_tokens
        self._starting = asyncio.Lock()
        self._running = contextlib.AsyncExitStack()
        self._model: LocalModel | None = None
        self._chat: OpenAIChat | None = None

    async def complete(self, task: Task) -> Completion:
        """Raises ORC-MODEL codes where the model cannot be had or started, and ORC-PROVIDER codes for the rest."""
        chat, seconds = await self._ready(task.model, task.timeout_seconds)
        return await chat.complete(replace(task, timeout_seconds=seconds))

    async def stream(self, task: Task) -> AsyncGenerator[Piece | Completion, None]:
        chat, seconds = await self._ready(task.model, task.timeout_seconds)
        async with contextlib.aclosing(chat.stream(replace(task, timeout_seconds=seconds))) as pieces:
            async for piece in pieces:
                yield piece

    async def embed(self, model: str, texts: Sequence[str], *, seconds: float) -> Embeddings:
        """A chat model's own: similar texts are near each other, though less so than with a model made for it."""
        chat, seconds = await self._ready(model, seconds)
        return await chat.embed(model, texts, seconds=seconds)

    async def models(self) -> Sequence[str]:
        return (SMOLLM2.model_id,)

    async def close(self) -> None:
        async with self._starting:
            await self._running.aclose()

    async def _ready(self, model: str, seconds: float) -> tuple[OpenAIChat, float]:
        """The running model, and what is left of the seconds."""
        # llama.cpp answers under whatever name it is asked: another model's task must not get as far as it.
        if model != SMOLLM2.model_id:
            raise errors.MODEL_UNAVAILABLE(f"{self._name} runs {SMOLLM2.model_id} and nothing else")
        clock = asyncio.get_running_loop().time
        deadline = clock() + seconds
        try:
            async with asyncio.timeout_at(deadline), self._starting:
                chat = await self._start()
        except TimeoutError:
            raise errors.NOT_SENT(f"{self._name}: the model did not start in {seconds:g} s") from None
        return chat, deadline - clock()

    async def _start(self) -> OpenAIChat:
        if self._chat is not None and self._model is not None and self._model.alive:
            return self._chat
        await self._running.aclose()
        weights = await asyncio.to_thread(ensure_weights, self._directory)
        model = LocalModel(weights, threads=self._threads, context_tokens=self._context_tokens)
        await self._running.enter_async_context(model)
        # A new process listens at a new port.
        chat = OpenAIChat(Http(self._name, model.base_url, pace=Pace()), DICTATION)
        self._running.push_async_callback(chat.close)
        self._model, self._chat = model, chat
        return chat
