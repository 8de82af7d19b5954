"""A `Compute` made of a synchronous chat API: an attempt is a single call, held in a task until it is fetched."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Final

from oracle.core.compute import (
    Absent,
    CannotTell,
    Capabilities,
    Chat,
    Completion,
    Embeddings,
    Found,
    IdempotencyKey,
    JobHandle,
    JobState,
    JobStatus,
    Money,
    Output,
    Piece,
    Quote,
    Recovery,
    Task,
)
from oracle.core.errors import OracleError, Verdict
from oracle.providers import errors
from oracle.providers.offers import Allowance, Describing, Offer
from oracle.providers.openai.wire import check_not_cut
from oracle.providers.pricing import (
    FREE,
    NO_RATES,
    PriceOf,
    Rates,
    TokenPrice,
    quoted_usd,
    token_cost_usd,
    usd_quote,
    usd_to_lamports,
)

_MIB: Final = 1024 * 1024

# A chat API ends a call itself when its time is over, and knows whether anything was sent. This ends one that does not.
_GRACE_SECONDS: Final = 5.0

_LIVE: Final = (JobState.QUEUED, JobState.RUNNING)

Check = Callable[[Task, Decimal], Awaitable[None]]
"""Raises where the provider would refuse a task, whose highest cost in USD is known, before it is sent."""


@dataclass(frozen=True, slots=True)
class Limits:
    """`concurrent_jobs` calls run at once, the others wait. Ended jobs are kept for a second fetch, as far as there is
    room; one that was never fetched may be dropped `keep_seconds` after its end."""

    concurrent_jobs: int = 8
    kept_jobs: int = 1000
    kept_bytes: int = 64 * _MIB
    keep_seconds: float = 3600.0


class ChatCompute:
    """Implements `Compute` and `Synchronous`, which share the places of `concurrent_jobs`. `close` closes `chat`.

    Jobs live in memory, so a restart forgets them. A handle that is not known is LOST, never FAILED: its call may have
    been paid for (law 5). The model that answered is reported as the API names it; whether it may is decided elsewhere.
    """

    def __init__(
        self,
        name: str,
        chat: Chat,
        *,
        recovery: Recovery = Recovery.NEITHER,
        price_of: PriceOf = FREE,
        rates: Rates = NO_RATES,
        limits: Limits = Limits(),
        check: Check | None = None,
        balance: Callable[[], Awaitable[Money | None]] | None = None,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.name = name
        self.chat = chat
        self.capabilities = Capabilities(recovery=recovery, cancel=True, stream=True, in_process=True)
        self._price_of = price_of
        self._rates = rates
        self._limits = limits
        self._check = check
        self._balance = balance
        self._clock = clock
        self._now = now
        self._turns = asyncio.Semaphore(limits.concurrent_jobs)
        self._jobs: dict[str, _Job] = {}

    async def quote(self, task: Task) -> Quote:
        usd = quoted_usd(task, await self._price_of(task.model))
        if self._check is not None:
            await self._check(task, usd)
        return usd_quote(usd, self._rates)

    async def submit(self, task: Task, key: IdempotencyKey) -> JobHandle:
        """Start the call and return at once. The same key again is the same call, unless that one is lost."""
        known = self._jobs.get(key)
        if known is not None and known.status.state is not JobState.LOST:
            return known.handle
        self._jobs.pop(key, None)
        self._make_room()
        job = _Job(JobHandle(self.name, key))
        self._jobs[key] = job
        job.runner = asyncio.create_task(self._run(job, task), name=f"{self.name} {key}")
        return job.handle

    async def find(self, key: IdempotencyKey) -> Found | Absent | CannotTell:
        """Found in this process's memory, or cannot tell: a chat API has no look-up."""
        known = self._jobs.get(key)
        if known is not None and known.status.state is not JobState.LOST:
            return Found(known.handle)
        return CannotTell(f"{self.name} answers synchronously and allows no look-up")

    async def poll(self, handles: Sequence[JobHandle]) -> Mapping[JobHandle, JobStatus]:
        return {handle: self._status(handle) for handle in handles}

    async def fetch(self, handle: JobHandle) -> Output:
        """The output of a job that succeeded, as often as wanted. Raises ORC-PROVIDER-019 for any other."""
        job = self._jobs.get(handle.job_id)
        if job is None or job.output is None:
            raise errors.JOB_UNKNOWN(f"{self.name} holds no output of job {handle.job_id}")
        job.delivered = True
        return job.output

    async def cancel(self, handle: JobHandle) -> None:
        """Cut the call. The provider may bill what it made so far; a job that has ended, or is not known, stays so."""
        job = self._jobs.get(handle.job_id)
        if job is not None:
            await self._cut([job])

    async def answer(self, task: Task) -> Output:
        """The answer, while the caller waits. Cancelling cuts the call."""
        return await self._call(task)

    async def stream(self, task: Task) -> AsyncGenerator[Piece | Output, None]:
        """The answer in pieces, and at its end the whole output. Closing the generator cuts the call."""
        async with self._turn(task.timeout_seconds) as (remaining, started_at):
            pieces = self.chat.stream(replace(task, timeout_seconds=remaining))
            async with contextlib.aclosing(pieces):
                async for piece in pieces:
                    if isinstance(piece, Piece):
                        yield piece
                    else:
                        check_not_cut(piece, task.max_output_tokens)
                        yield await self._output(task, piece, started_at)

    async def embed(self, model: str, texts: Sequence[str], *, seconds: float) -> Embeddings:
        async with self._turn(seconds) as (remaining, _):
            found = await self.chat.embed(model, texts, seconds=remaining)
        usd = found.cost_usd
        if usd is None:
            usd = await self._token_cost_usd(model, found.input_tokens, 0)
        _, lamports = self._money(usd)
        return replace(found, cost_lamports=lamports)

    async def balance(self) -> Money | None:
        return await self._balance() if self._balance else None

    async def models(self) -> Sequence[str]:
        return await self.chat.models()

    async def offers(self) -> Sequence[Offer]:
        """The models with what is known of them, and the price at which they are booked."""
        if isinstance(self.chat, Describing):
            offers = await self.chat.offers()
        else:
            offers = [Offer(model) for model in await self.chat.models()]
        return tuple([replace(offer, price=await self._known_price(offer.model)) for offer in offers])

    async def allowance(self) -> Allowance | None:
        return await self.chat.allowance() if isinstance(self.chat, Describing) else None

    async def close(self) -> None:
        """Cut every call and close the chat API."""
        await self._cut(list(self._jobs.values()))
        await self.chat.close()

    async def _run(self, job: _Job, task: Task) -> None:
        """Take one job to its end. Nothing escapes: what went wrong becomes the job's status."""
        try:
            output = await self._call(task, job)
            job.end(JobStatus(JobState.SUCCEEDED), self._clock(), output)
        except OracleError as error:
            state = JobState.LOST if error.verdict is Verdict.UNKNOWN else JobState.FAILED
            job.end(JobStatus(state, error, str(error)), self._clock())
        except asyncio.CancelledError:
            job.end(JobStatus(JobState.CANCELLED), self._clock())
            raise
        except Exception as error:
            # The call may have gone out. The type alone is told: a message could hold the prompt.
            lost = errors.NO_ANSWER(f"{self.name}: unexpected {type(error).__name__}")
            job.end(JobStatus(JobState.LOST, lost, str(lost)), self._clock())

    async def _call(self, task: Task, job: _Job | None = None) -> Output:
        async with self._turn(task.timeout_seconds) as (remaining, started_at):
            if job is not None:
                job.status = JobStatus(JobState.RUNNING)
            try:
                async with asyncio.timeout(remaining + _GRACE_SECONDS):
                    completion = await self.chat.complete(replace(task, timeout_seconds=remaining))
            except TimeoutError:
                raise errors.NO_ANSWER(f"{self.name}: no answer in {task.timeout_seconds:g} s") from None
        check_not_cut(completion, task.max_output_tokens)
        return await self._output(task, completion, started_at)

    @contextlib.asynccontextmanager
    async def _turn(self, seconds: float) -> AsyncIterator[tuple[float, float]]:
        """One of the places: the seconds that are left of `seconds` once it is had, and when that was."""
        deadline = self._clock() + seconds
        try:
            async with asyncio.timeout(seconds):
                await self._turns.acquire()
        except TimeoutError:
            raise errors.NOT_SENT(f"{self.name}: no free place in {seconds:g} s") from None
        try:
            yield max(0.0, deadline - self._clock()), self._now()
        finally:
            self._turns.release()

    async def _output(self, task: Task, completion: Completion, started_at: float) -> Output:
        cost, lamports = await self._cost(task.model, completion)
        return Output(
            content=completion.text.encode(),
            model_run=completion.model,
            cost=cost,
            cost_lamports=lamports,
            input_tokens=completion.input_tokens,
            output_tokens=completion.output_tokens,
            started_at=started_at,
            finished_at=self._now(),
            finish_reason="length" if completion.finish_reason == "length" else "stop",
        )

    async def _cost(self, model: str, completion: Completion) -> tuple[Money | None, int | None]:
        """The final cost, as far as it is known."""
        usd = completion.cost_usd
        if usd is None:
            usd = await self._token_cost_usd(model, completion.input_tokens, completion.output_tokens)
        return self._money(usd)

    async def _token_cost_usd(self, model: str, input_tokens: int | None, output_tokens: int | None) -> Decimal | None:
        """Known where the provider counted tokens and has a price by the token. It never fails a paid answer."""
        if input_tokens is None or output_tokens is None:
            return None
        try:
            return token_cost_usd(await self._price_of(model), input_tokens, output_tokens)
        except OracleError:
            return None

    def _money(self, usd: Decimal | None) -> tuple[Money | None, int | None]:
        try:
            return (None, None) if usd is None else (Money(float(usd), "USD"), usd_to_lamports(usd, self._rates))
        except OracleError:
            return None, None

    async def _known_price(self, model: str) -> TokenPrice | None:
        try:
            return await self._price_of(model)
        except OracleError:
            return None

    async def _cut(self, jobs: Sequence[_Job]) -> None:
        runners = [job.runner for job in jobs if job.runner is not None]
        for runner in runners:
            runner.cancel()
        if runners:
            await asyncio.wait(runners)
        for job in jobs:
            # A task cancelled before its first step never runs, so it cannot have said so itself.
            if job.status.state in _LIVE:
                job.end(JobStatus(JobState.CANCELLED), self._clock())

    def _status(self, handle: JobHandle) -> JobStatus:
        job = self._jobs.get(handle.job_id)
        if job is None:
            lost = errors.JOB_UNKNOWN(f"{self.name} holds no job {handle.job_id}")
            return JobStatus(JobState.LOST, lost, str(lost))
        # A failure is delivered once it has been told, an answer once it has been fetched.
        job.delivered = job.delivered or job.status.state not in (*_LIVE, JobState.SUCCEEDED)
        return job.status

    def _make_room(self) -> None:
        """Forget delivered jobs until one more fits, oldest first. An answer nobody fetched is paid for: it stays."""
        while len(self._jobs) >= self._limits.kept_jobs or self._kept_bytes() >= self._limits.kept_bytes:
            victim = next((key for key, job in self._jobs.items() if self._may_forget(job)), None)
            if victim is None:
                raise errors.BUSY(f"{self.name} holds {len(self._jobs)} jobs", retry_after_seconds=1.0)
            del self._jobs[victim]

    def _may_forget(self, job: _Job) -> bool:
        if job.ended_at is None:
            return False
        return job.delivered or self._clock() - job.ended_at > self._limits.keep_seconds

    def _kept_bytes(self) -> int:
        return sum(len(job.output.content) for job in self._jobs.values() if job.output is not None)


@dataclass(slots=True)
class _Job:
    handle: JobHandle
    status: JobStatus = field(default_factory=lambda: JobStatus(JobState.QUEUED))
    output: Output | None = None
    runner: asyncio.Task[None] | None = None
    ended_at: float | None = None
    delivered: bool = False

    def end(self, status: JobStatus, at: float, output: Output | None = None) -> None:
        self.status, self.ended_at, self.output = status, at, output
        self.runner = None
