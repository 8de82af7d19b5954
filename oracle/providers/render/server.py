"""The model server inside a running container: waits until it serves, asks it once, and keeps what it said."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, Protocol

from oracle.core.compute import Completion, Task
from oracle.core.errors import OracleError, Verdict
from oracle.providers import errors
from oracle.providers.http import Http
from oracle.providers.openai.client import OpenAIChat
from oracle.providers.openai.wire import check_not_cut

_TRIES: Final = 3
_HEALTH_SECONDS: Final = 10.0


class Server(Protocol):
    """One container's address. Asking it again costs nothing but time: the container is ours alone."""

    async def is_ready(self) -> bool: ...

    async def complete(self, task: Task) -> Completion: ...

    async def close(self) -> None: ...


class LlamaServer:
    """llama.cpp's server: `root` leads to its address, `chat` to its `/v1`. Both are closed with it."""

    def __init__(self, root: Http, chat: OpenAIChat) -> None:
        self._root = root
        self._chat = chat

    async def is_ready(self) -> bool:
        """It answers 503 while the model loads, and not at all before; a proxy in between may say anything."""
        try:
            await self._root.call("GET", "health", repeatable=True, seconds=_HEALTH_SECONDS)
        except OracleError:
            return False
        return True

    async def complete(self, task: Task) -> Completion:
        return await self._chat.complete(task)

    async def close(self) -> None:
        await self._root.close()
        await self._chat.close()


async def answer_of(
    server: Server,
    task: Task,
    *,
    look_seconds: float,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> Completion:
    """The whole answer. Waits without bound for the server to come up: the job's own time bounds it.

    Raises what the answer came to; ORC-PROVIDER-032 where the server breaks off every time.
    """
    try:
        while not await server.is_ready():
            await sleep(look_seconds)
        for is_last in (*(False,) * (_TRIES - 1), True):
            try:
                completion = await server.complete(task)
                check_not_cut(completion, task.max_output_tokens)
                return completion
            except OracleError as error:
                if error.verdict is Verdict.GIVE_UP:
                    raise
                if is_last:
                    raise errors.HOST_FAILED(f"the server in the container: {error.code}") from None
            await sleep(look_seconds)
        raise AssertionError("the last try returns or raises")
    finally:
        await server.close()
