"""The store: reads, and writes that are committed in groups.

Loops hand their changes to one committer. While a group is being made durable the next one gathers, so a commit costs
one fsync however many waited for it, and a lone write waits for nobody.
"""

from __future__ import annotations

import asyncio
import copy
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeVar

from sqlalchemy import Connection

from oracle.store import sql
from oracle.store.errors import (
    CANNOT_OPEN,
    CLOSED,
    COMMIT_UNKNOWN,
    CONFLICT,
    CONNECTION_LOST,
    DAMAGED,
    DISK_FULL,
    LOCKED,
    NOT_DURABLE,
)
from oracle.store.failures import is_coded, opening, translate, translated
from oracle.store.migrate import assert_current, upgrade
from oracle.store.postgresql import Postgresql
from oracle.store.sqlite import Sqlite
from oracle.store.urls import is_sqlite, parse

__all__ = ["Store", "upgrade"]

T = TypeVar("T")
Item = TypeVar("Item")

_GROUP_LIMIT: Final = 512

# The engine's own trouble, not that of a member: running the members one by one would only meet it again and again.
_NOBODYS_FAULT: Final = (LOCKED, CONNECTION_LOST, COMMIT_UNKNOWN, DAMAGED, CANNOT_OPEN, NOT_DURABLE)

# Nothing was written, and the next try may succeed.
_PASSING: Final = (LOCKED, DISK_FULL, CONNECTION_LOST, CONFLICT)
_FIRST_PAUSE_SECONDS: Final = 0.1
_LONGEST_PAUSE_SECONDS: Final = 1.0


class Backend(Protocol):
    """An engine. Every method may raise the driver's own exceptions."""

    async def open(self, check: Callable[[Connection], None]) -> None: ...

    async def read(self, work: Callable[[Connection], T]) -> T: ...

    async def transact(self, work: Callable[[Connection], T]) -> T: ...

    async def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class _Write:
    work: Callable[[Connection, Sequence[Any]], Sequence[Any]]
    item: Any
    done: asyncio.Future[Any]
    give_up_at: float


@dataclass(frozen=True, slots=True)
class _Question:
    item: Any
    done: asyncio.Future[Any]


class Store:
    """An open database. Made by `Store.open`; belongs to the event loop that opened it.

    `commits` counts the groups that were made durable.
    """

    def __init__(self, backend: Backend, *, patience_seconds: float = 0.0) -> None:
        self.commits = 0
        self._backend = backend
        self._patience_seconds = patience_seconds
        self._waiting: deque[_Write] = deque()
        self._committer: asyncio.Task[None] | None = None
        self._questions: dict[Callable[..., Any], list[_Question]] = {}
        self._answering: set[asyncio.Task[None]] = set()
        self._closed = False

    @classmethod
    async def open(cls, url: str, *, lock_timeout_seconds: float = 10.0, patience_seconds: float = 0.0) -> Store:
        """Open `sqlite:///PATH` or `postgresql+asyncpg://…`, whose schema must be at head (see `upgrade`).

        For `patience_seconds` a write is tried again while the disk is full, the database locked or its server away.
        Whoever has bought something waits for it, rather than forget what it has bought.

        Raises ORC-STORE-001 to -005 where it cannot be used safely.
        """
        parsed = parse(url)
        made = Sqlite if is_sqlite(parsed) else Postgresql
        with opening(parsed):
            backend: Backend = made(parsed, lock_timeout_seconds=lock_timeout_seconds)
            try:
                await backend.open(assert_current)
            except BaseException:
                await backend.close()
                raise
        return cls(backend, patience_seconds=patience_seconds)

    async def read(self, work: Callable[[Connection], T]) -> T:
        """Run `work` in a transaction that cannot write. It sees every write that has returned."""
        if self._closed:
            raise CLOSED()
        with translated():
            return await self._backend.read(work)

    async def read_together(self, work: Callable[[Connection, Sequence[Item]], Sequence[T]], item: Item) -> T:
        """`read`, for many at once: `work` gets the items that gathered while it was under way, and answers each.

        Name a function, not a lambda: the items of one function are gathered.
        """
        if self._closed:
            raise CLOSED()
        done: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        asked = self._questions.get(work)
        if asked is None:
            self._questions[work] = [_Question(item, done)]
            task = asyncio.create_task(self._answer(work))
            self._answering.add(task)
            task.add_done_callback(self._answering.discard)
        else:
            asked.append(_Question(item, done))
        return await done

    async def _answer(self, work: Callable[[Connection, Sequence[Any]], Sequence[Any]]) -> None:
        while asked := self._questions[work]:
            self._questions[work] = []
            items = [question.item for question in asked]
            try:
                answers = await self.read(lambda conn, items=items: work(conn, items))  # type: ignore[misc]
            except Exception as error:
                _fail(asked, error)
                continue
            for question, answer in zip(asked, answers, strict=True):
                if not question.done.done():
                    question.done.set_result(answer)
        del self._questions[work]

    async def write(self, work: Callable[[Connection], T]) -> T:
        """Run `work` in the committer's transaction, together with others; return when its commit is durable.

        If a member of a group raises, the group is rolled back and split until the raiser is alone, and only the
        raiser sees its error. So `work` may run several times, and must have no effect outside the database.

        Raises what `work` raises, or a code of ORC-STORE: nothing was written, except that after ORC-STORE-009
        nobody knows. A caller that is cancelled does not know either.
        """
        return await self._hand_over(lambda conn, _: [work(conn)], None)

    async def write_together(self, work: Callable[[Connection, Sequence[Item]], Sequence[T]], item: Item) -> T:
        """`write`, for many at once: `work` gets the items of a group together, and returns a result for each.

        So it can change many rows by one statement. Where it raises, the group is split as if each item were a `write`
        of its own. Name a function, not a lambda: the items of one function are gathered.
        """
        return await self._hand_over(work, item)

    async def _hand_over(self, work: Callable[[Connection, Sequence[Any]], Sequence[T]], item: Any) -> T:
        if self._closed:
            raise CLOSED()
        loop = asyncio.get_running_loop()
        done: asyncio.Future[T] = loop.create_future()
        self._waiting.append(_Write(work, item, done, loop.time() + self._patience_seconds))
        if self._committer is None or self._committer.done():
            self._committer = asyncio.create_task(self._commit_what_gathers(), name="store-committer")
        return await done

    async def close(self) -> None:
        """Commit what was handed over, then close. Safe to call twice."""
        if self._closed:
            return
        self._closed = True
        if self._committer is not None:
            await asyncio.wait([self._committer])
        await self._backend.close()

    async def _commit_what_gathers(self) -> None:
        pause = _FIRST_PAUSE_SECONDS
        while self._waiting:
            group: list[_Write] = []
            while self._waiting and len(group) < _GROUP_LIMIT:
                write = self._waiting.popleft()
                if not write.done.cancelled():
                    group.append(write)
            try:
                left = await self._commit(group)
                if not left:
                    pause = _FIRST_PAUSE_SECONDS
                    continue
                self._waiting.extendleft(reversed(left))
                await asyncio.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)
            except BaseException:
                # Only what is no `Exception` gets here, such as a cancelled loop; a waiter must not wait for ever.
                _fail(group, COMMIT_UNKNOWN("the committer was stopped"))
                _fail(self._waiting, CLOSED("the committer was stopped"))
                self._waiting.clear()
                raise

    async def _commit(self, group: Sequence[_Write]) -> list[_Write]:
        """Those that are worth another try are returned; all the others have their result or their error."""
        if not group:
            return []
        try:
            results = await self._backend.transact(lambda conn: _run(conn, group))
        except Exception as error:
            failure = translate(error)
            if len(group) > 1 and not is_coded(failure, *_NOBODYS_FAULT):
                half = len(group) // 2
                return [*await self._commit(group[:half]), *await self._commit(group[half:])]
            is_passing = is_coded(failure, *_PASSING) and not self._closed
            now = asyncio.get_running_loop().time()
            left = [write for write in group if is_passing and write.give_up_at > now]
            _fail([write for write in group if write not in left], failure)
            return left
        self.commits += 1
        for write, result in zip(group, results, strict=True):
            if not write.done.done():
                write.done.set_result(result)
        return []


def _run(conn: Connection, group: Sequence[_Write]) -> list[Any]:
    """The results, in the order of the group; the works in the order in which each was first asked for."""
    by_work: dict[Callable[..., Any], list[int]] = {}
    for at, write in enumerate(group):
        by_work.setdefault(write.work, []).append(at)
    results: list[Any] = [None] * len(group)
    with sql.gathered(conn):
        for work, places in by_work.items():
            for at, result in zip(places, work(conn, [group[at].item for at in places]), strict=True):
                results[at] = result
    return results


def _fail(waiters: Iterable[_Write | _Question], failure: Exception) -> None:
    for index, waiter in enumerate(waiters):
        if not waiter.done.done():
            # Each waiter needs its own: a raised exception collects the traceback of whoever raises it.
            waiter.done.set_exception(failure if index == 0 else copy.copy(failure))
