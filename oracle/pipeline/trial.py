"""One small job at one provider, from the purchase to the answer, without a request: to see whether it works.

The quote is booked before anything is bought, under a key that says where to look. A purchase whose answer is lost is
looked up, never made again where that could cost, and whoever interrupts a trial has its job called off.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from oracle.config import Config
from oracle.core.compute import (
    Absent,
    CannotTell,
    Compute,
    Found,
    IdempotencyKey,
    JobHandle,
    JobState,
    JobStatus,
    Output,
    Quote,
    Recovery,
    Task,
    let_go,
)
from oracle.core.errors import OracleError, Verdict
from oracle.core.policy import JOB_FAILED, JOB_TIMED_OUT, PURCHASE_ABSENT, PURCHASE_UNCONFIRMED
from oracle.pipeline.budget import budgets_of
from oracle.pipeline.errors import TRIAL_NOT_FOUND, TRIAL_TOO_DEAR
from oracle.pipeline.poll import looked_up
from oracle.pipeline.submit import CALL_SECONDS
from oracle.providers import errors
from oracle.providers.rented.compute import RentedCompute
from oracle.store import ledger, trials
from oracle.store.engine import Store

LOOK_UP_SECONDS: Final = 300.0
"""How long a lost purchase is looked for: indexers of networks lag by minutes."""

LOOK_SECONDS: Final = 2.0
MOST_FETCHES: Final = 5
MOST_PURCHASES: Final = 3
"""Of the same purchase, where repeating it costs nothing."""

T = TypeVar("T")
Tell = Callable[[str, str], None]
"""What has happened, in a word, and what there is to say of it."""


@dataclass(slots=True)
class Books:
    """Where the cost of a trial is written down. Without a store it is not."""

    config: Config
    store: Store | None
    entry: int | None = None

    async def begin(self, provider: str, key: IdempotencyKey, lamports: int) -> None:
        """Raises ORC-POLICY-018 or 022 where a budget has no room."""
        if self.store is None or lamports == 0:
            return
        budgets = budgets_of(self.config, provider, trials.REQUESTER)
        now_ms = int(time.time() * 1000)
        self.entry = await self.store.write(
            lambda c: trials.book(c, budgets, lamports, provider=provider, key=key, now_ms=now_ms)
        )

    async def reopen(self, key: IdempotencyKey) -> None:
        """The entry of an earlier trial, whose job was found: its cost is not corrected yet."""
        if self.store is not None:
            self.entry = await self.store.read(lambda c: trials.entry_of(c, key))

    async def correct(self, lamports: int | None) -> None:
        """What it has really cost; where that is not known the quote stands."""
        entry = self.entry
        if self.store is None or entry is None or lamports is None:
            return
        await self.store.write(lambda c: ledger.correct(c, lamports, ledger_id=entry))


async def quoted(provider: Compute, task: Task, max_lamports: int | None) -> Quote:
    """What the trial may cost. Raises ORC-PIPE-031 where that is more than is allowed."""
    quote = await (provider.quote_alone(task) if isinstance(provider, RentedCompute) else provider.quote(task))
    if max_lamports is not None and quote.cost_lamports > max_lamports:
        raise TRIAL_TOO_DEAR(f"{quote.cost_lamports:,} lamports quoted, {max_lamports:,} allowed")
    return quote


class Trial:
    """`tell` hears of every step as it happens."""

    def __init__(
        self, provider: Compute, task: Task, key: IdempotencyKey, books: Books, poll_seconds: float, tell: Tell
    ) -> None:
        self._provider = provider
        self._task = task
        self._key = key
        self._books = books
        self._poll_seconds = poll_seconds
        self._tell = tell

    async def run(self, quote: Quote) -> Output:
        """Buy a job and bring its answer. Interrupted, it calls the job off first."""
        await self._books.begin(self._provider.name, self._key, quote.cost_lamports)
        handle = await self._buy()
        return await self._bring(handle)

    async def resume(self) -> Output:
        """The answer of a job that was bought before under this key.

        Raises ORC-PIPE-034 where there is none, or where the provider has no way to tell, and ORC-POLICY-010 where a
        provider that has one could not be asked, or cannot tell yet.
        """
        try:
            handle = await self._look_up("")
        except OracleError as error:
            may_be_there = self._provider.capabilities.recovery is Recovery.LOOK_UP
            if error.error is not PURCHASE_ABSENT and may_be_there:
                raise
            raise TRIAL_NOT_FOUND(str(error)) from None
        await self._books.reopen(self._key)
        return await self._bring(handle)

    async def _bring(self, handle: JobHandle) -> Output:
        self._tell("job", handle.job_id)
        try:
            async with asyncio.timeout(self._task.timeout_seconds):
                output = await self._collect(handle)
        except asyncio.CancelledError:
            await self._call_off(handle)
            raise
        except TimeoutError:
            await self._call_off(handle)
            raise JOB_TIMED_OUT(f"{self._provider.name} job {handle.job_id}") from None
        if isinstance(self._provider, RentedCompute):
            output = self._provider.billed_alone(output)
        await self._books.correct(output.cost_lamports)
        return output

    async def _buy(self) -> JobHandle:
        # In a task of its own: an interruption must not lose the answer of a purchase that has gone out.
        buying = asyncio.create_task(self._bought())
        try:
            return await asyncio.shield(buying)
        except asyncio.CancelledError:
            self._tell("interrupted", "in the middle of the purchase: waiting for its answer, to call the job off")
            try:
                handle = await buying
            except OracleError as error:
                self._tell("not known" if error.error is PURCHASE_UNCONFIRMED else "not bought", str(error))
            else:
                await self._call_off(handle)
            raise

    async def _bought(self) -> JobHandle:
        for turn in range(MOST_PURCHASES):
            try:
                return await _called(self._provider.submit(self._task, self._key))
            except OracleError as error:
                if error.verdict is not Verdict.UNKNOWN:
                    await self._books.correct(0)
                    raise
                why = str(error)
            if self._provider.capabilities.recovery is not Recovery.REPEAT or turn == MOST_PURCHASES - 1:
                break
            self._tell("unclear", f"{why}: asked again, which costs nothing")
        self._tell("unclear", f"{why}: looked up by its key, and not bought again")
        return await self._look_up(why)

    async def _look_up(self, why: str) -> JobHandle:
        """The job of the key. Raises ORC-POLICY-010 where nobody can tell, ORC-POLICY-017 where it is proven absent."""
        loop = asyncio.get_running_loop()
        until = loop.time() + LOOK_UP_SECONDS
        while True:
            match await looked_up(self._provider, self._key):
                case Found(handle):
                    return handle
                case Absent():
                    await self._books.correct(0)
                    raise PURCHASE_ABSENT(self._provider.name)
                case CannotTell(said):
                    why = why or said
            if self._provider.capabilities.recovery is not Recovery.LOOK_UP or loop.time() >= until:
                raise PURCHASE_UNCONFIRMED(f"{self._provider.name}, key {self._key}: {why}")
            await asyncio.sleep(LOOK_SECONDS)

    async def _collect(self, handle: JobHandle) -> Output:
        told: tuple[JobState | None, str] | None = None
        fetches = 0
        while True:
            status = await self._asked(handle)
            if (now := (status.state, status.message)) != told:
                told = now
                self._tell(str(status.state), status.message)
            match status.state:
                case JobState.SUCCEEDED:
                    fetches += 1
                    try:
                        output = await _called(self._provider.fetch(handle))
                        let_go(self._provider, handle)
                        return output
                    except OracleError as error:
                        # It is done and paid for: what goes wrong on the way here is tried again.
                        if error.verdict is Verdict.GIVE_UP or fetches == MOST_FETCHES:
                            raise
                        self._tell("not fetched", str(error))
                case JobState.FAILED | JobState.CANCELLED:
                    raise status.error or JOB_FAILED(status.message)
                case JobState.LOST:
                    handle = await self._look_up(status.message)
            await asyncio.sleep(self._poll_seconds)

    async def _asked(self, handle: JobHandle) -> JobStatus:
        """Where the job is. A provider that does not answer has said nothing about it."""
        try:
            return (await _called(self._provider.poll([handle])))[handle]
        except OracleError as error:
            return JobStatus(JobState.RUNNING, message=f"no word of it: {error}")
        except KeyError:
            return JobStatus(JobState.RUNNING, message="no word of it")

    async def _call_off(self, handle: JobHandle) -> None:
        name, capabilities = self._provider.name, self._provider.capabilities
        if not capabilities.cancel:
            self._tell("runs on", f"{name} cannot call a job off: it is paid for; --key {self._key} finds it again")
            return
        try:
            await _called(self._provider.cancel(handle))
        except OracleError as error:
            again = f"; --key {self._key} finds it again" if capabilities.recovery is Recovery.LOOK_UP else ""
            self._tell("not called off", f"{error}: see the books of {name} for job {handle.job_id}{again}")
        else:
            self._tell("called off", "what it has run until now may be charged")


async def _called(call: Coroutine[Any, Any, T]) -> T:
    """One call within its time. What ends otherwise than an adapter should may have done anything: it is unclear."""
    try:
        async with asyncio.timeout(CALL_SECONDS):
            return await call
    except OracleError:
        raise
    except TimeoutError:
        raise errors.NO_ANSWER(f"nothing in {CALL_SECONDS:g} s") from None
    except Exception as error:
        # The type alone is told: a message could hold the prompt.
        raise errors.NO_ANSWER(f"unexpected {type(error).__name__}") from None
