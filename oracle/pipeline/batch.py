"""Gathers what arrives within a short window and does it in one go: one call, many waiters."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


class Batch(Generic[Item, Result]):
    """`do` gets up to `most` items and returns a result or an exception for each, in order.

    Where it is eager and nothing is under way, nobody waits but for those who come in the same turn of the loop: the
    window is for those who come meanwhile.
    """

    def __init__(
        self,
        do: Callable[[Sequence[Item]], Awaitable[Sequence[Result | BaseException]]],
        *,
        most: int,
        window_seconds: float,
        is_eager: bool = False,
    ) -> None:
        self._do = do
        self._most = most
        self._window_seconds = window_seconds
        self._is_eager = is_eager
        self._waiting: list[tuple[Item, asyncio.Future[Result]]] = []
        self._timer: asyncio.TimerHandle | None = None
        self._under_way: set[asyncio.Task[None]] = set()

    async def add(self, item: Item) -> Result:
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, future))
        if len(self._waiting) >= self._most:
            self._flush()
        elif self._timer is None:
            seconds = 0.0 if self._is_eager and not self._under_way else self._window_seconds
            self._timer = asyncio.get_running_loop().call_later(seconds, self._flush)
        return await future

    def _flush(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        # Not those who have given up waiting.
        waiting, self._waiting = [each for each in self._waiting if not each[1].done()], []
        if waiting:
            task = asyncio.ensure_future(self._run(waiting))
            self._under_way.add(task)
            task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._under_way.discard(task)
        if self._is_eager and not self._under_way:
            self._flush()

    async def _run(self, waiting: Sequence[tuple[Item, asyncio.Future[Result]]]) -> None:
        try:
            results: Sequence[Result | BaseException] = await self._do([item for item, _ in waiting])
        except Exception as error:
            results = [error] * len(waiting)
        for (_, future), result in zip(waiting, results, strict=True):
            if future.done():
                continue
            if isinstance(result, BaseException):
                future.set_exception(result)
            else:
                future.set_result(result)
