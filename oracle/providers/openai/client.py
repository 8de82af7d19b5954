"""`Chat` over HTTP for any OpenAI-compatible server, and embeddings."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Sequence
from typing import Final

from oracle.core.compute import Completion, Embeddings, Piece, Task
from oracle.providers import errors, sse
from oracle.providers.http import Http
from oracle.providers.offers import Allowance, Offer
from oracle.providers.openai import wire
from oracle.providers.openai.wire import Dictation

MODELS_SECONDS: Final = 30.0
VECTOR_BYTES: Final = 128 * 1024
"""Room for a vector in an answer: 6,000 dimensions as numbers, 24,000 in base64. A batch has room for all of its own,
or it would be paid for and not be read."""


class OpenAIChat:
    """`http` is closed with it. A call is never repeated here: the wire format has no idempotency key (§3.2)."""

    def __init__(self, http: Http, dictation: Dictation = wire.PLAIN) -> None:
        self._http = http
        self._dictation = dictation

    async def complete(self, task: Task) -> Completion:
        """One answer, within `task.timeout_seconds`. `model` is the name the server returns, not the one asked for."""
        if self._dictation.by_stream:
            return await self._whole_stream(task)
        private = _texts(task)
        body = wire.chat_body(task, self._dictation, stream=False)
        answer = await self._http.call(
            "POST", "chat/completions", json=body, repeatable=False, seconds=task.timeout_seconds, private=private
        )
        body = self._http.json(answer, repeatable=False)
        return wire.read_completion(body, private, self._dictation.reasoning_tag)

    async def stream(self, task: Task) -> AsyncGenerator[Piece | Completion, None]:
        """Raises after the last piece unless the server said that the answer is finished."""
        private = _texts(task)
        reader = wire.ChunkReader(private, self._dictation.reasoning_tag)
        body = wire.chat_body(task, self._dictation, stream=True)
        pieces = self._http.stream("chat/completions", json=body, seconds=task.timeout_seconds, private=private)
        async with contextlib.aclosing(pieces):
            async for data in sse.events(pieces):
                if piece := reader.feed(data):
                    yield piece
        yield reader.completed()

    async def models(self) -> Sequence[str]:
        answer = await self._http.call("GET", "models", repeatable=True, seconds=MODELS_SECONDS)
        names = wire.read_models(self._http.json(answer, repeatable=True))
        if names is None:
            raise self._http.unreadable("no list of models", repeatable=True)
        return names

    async def offers(self) -> Sequence[Offer]:
        """Their names: the format has no field for more."""
        return tuple(Offer(model) for model in await self.models())

    async def allowance(self) -> Allowance | None:
        """Of the rate: as the headers of the newest answer told it."""
        left = self._http.rate_left
        return Allowance(requests_left=left.get("requests"), tokens_left=left.get("tokens")) if left else None

    async def embed(self, model: str, texts: Sequence[str], *, seconds: float = 60.0) -> Embeddings:
        """One vector per text. In base64, a quarter of the size; a server that does not know it sends numbers."""
        body = {"model": model, "input": list(texts), "encoding_format": "base64"}
        answer = await self._http.call(
            "POST",
            "embeddings",
            json=body,
            repeatable=False,
            seconds=seconds,
            private=tuple(texts),
            more_bytes=VECTOR_BYTES * len(texts),
        )
        embeddings = wire.read_embeddings(self._http.json(answer, repeatable=False), len(texts))
        if embeddings is None:
            raise self._http.unreadable("not one vector per text", repeatable=False)
        return embeddings

    async def close(self) -> None:
        await self._http.close()

    async def _whole_stream(self, task: Task) -> Completion:
        async with contextlib.aclosing(self.stream(task)) as pieces:
            async for piece in pieces:
                if isinstance(piece, Completion):
                    return piece
        raise errors.ANSWER_INCOMPLETE("the stream ended without its completion")


def _texts(task: Task) -> tuple[str, ...]:
    return tuple(message.content for message in task.messages)
