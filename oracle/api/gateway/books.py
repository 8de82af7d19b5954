"""One call in the books: reserved before anything is bought for it, corrected when it has ended, each in one write."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from sqlalchemy import Connection

from oracle.api.gateway.errors import CLIENT_LEFT, DAY_USED_UP
from oracle.api.gateway.keys import Client
from oracle.api.gateway.recording import Recording, keep
from oracle.api.gateway.replies import Ended, Usage
from oracle.core.budget import day_began_ms, seconds_left_of_day
from oracle.core.compute import Embeddings, IdempotencyKey, JobHandle, Output, Quote, Synchronous
from oracle.core.errors import OracleError
from oracle.core.identity import call_idempotency_key
from oracle.core.routing import Route
from oracle.pipeline import budget
from oracle.pipeline.context import Context
from oracle.store import calls, recordings
from oracle.store.errors import CALL_EXISTS
from oracle.store.rows import GatewayJobRow
from oracle.store.schema import AttemptState, CallKind, CallState

HELD_MS: Final = 30_000
"""A call is its process's own for so long after it was last heard of; `reaper` says that it lives."""

_BYTES_PER_TOKEN: Final = 3


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a job brought no answer, and what it cost; None where the provider does not say: the quote stays booked.

    `goes_on` says that the provider may still be working on it: `reaper` finds it in the books and cancels it.
    """

    error: OracleError
    cost_lamports: int | None
    goes_on: bool = False


@dataclass(slots=True)
class Call:
    """`input_tokens` are estimated, and `output_tokens` are the most that is asked for."""

    context: Context
    client: Client
    id: str
    kind: CallKind
    model: str
    input_tokens: int
    output_tokens: int
    recording: Recording | None = None
    delivered_bytes: int = 0
    job: GatewayJobRow | None = field(default=None, init=False)
    _failure: Failure | None = field(default=None, init=False)

    async def buy(self, route: Route, quote: Quote) -> IdempotencyKey:
        """Write the intent to buy the next job, and the first time the call itself; what it returns is to be sent.

        Raises ORC-GATEWAY-010, ORC-POLICY-018 or 022, or ORC-STORE-022: then nothing may be bought.
        """
        number = 1 if self.job is None else self.job.number + 1
        key = call_idempotency_key(self.id, number)
        now_ms = self.context.clock.now_ms()
        chain_lamports = 0 if self.recording is None else self.recording.reserved_lamports

        def write(c: Connection) -> GatewayJobRow:
            if self.job is None:
                if self.recording is not None and recordings.has(c, self.recording.address):
                    # The same call has been answered since we looked: it is not bought a second time.
                    raise CALL_EXISTS(self.recording.address)
                self._allow(c, self.input_tokens + self.output_tokens, quote.cost_lamports + chain_lamports, now_ms)
                calls.begin(
                    c,
                    self.id,
                    key=self.client.name,
                    kind=self.kind,
                    model=self.model,
                    input_tokens=self.input_tokens,
                    output_tokens=self.output_tokens,
                    chain_lamports=chain_lamports,
                    request_address=None if self.recording is None else self.recording.address,
                    owner=self.context.instance,
                    owned_until_ms=now_ms + HELD_MS,
                    now_ms=now_ms,
                )
            else:
                self._end_job(c, AttemptState.FAILED, now_ms)
                self._allow(c, 0, quote.cost_lamports, now_ms)
            budget.book(
                c,
                self.context,
                quote.cost_lamports,
                now_ms,
                provider=route.provider,
                requester=calls.requester_of(self.client.name),
            )
            return calls.intend_job(
                c,
                self.id,
                number=number,
                key=self.client.name,
                provider=route.provider,
                model=route.model,
                idempotency_key=key,
                quoted_lamports=quote.cost_lamports,
                now_ms=now_ms,
            )

        self.job = await self.context.store.write(write)
        self._failure = None
        return key

    async def started(self, handle: JobHandle) -> None:
        """A job has an id: whoever cleans up after us needs it to cancel what is being paid for."""
        assert self.job is not None
        job_id = self.job.id
        self.job = await self.context.store.write(
            lambda c: calls.job_started(c, job_id, handle.job_id, dict(handle.detail))
        )

    def failed(self, failure: Failure) -> None:
        """The job has brought no answer. It is written with what comes next: another job, or the end of the call."""
        self._failure = failure

    async def answered(self, output: Output) -> Ended:
        """The answer is whole: its cost and use, and what is to be recorded, are durable before its end is told."""
        text = output.content.decode(errors="replace")
        usage = self._usage(output.input_tokens, output.output_tokens, len(output.content))
        await self._succeed(usage, output.cost_lamports, output.model_run, output)
        return Ended(text, output.finish_reason, usage, self.about(output.model_run))

    async def embedded(self, found: Embeddings) -> Usage:
        usage = self._usage(found.input_tokens, 0, 0)
        await self._succeed(usage, found.cost_lamports, found.model, None)
        return usage

    async def fail(self, error: OracleError) -> None:
        """The call has no answer. What it has delivered all the same counts as used."""
        if self.job is not None:
            await self._end(CallState.FAILED, AttemptState.FAILED, error)

    async def leave(self) -> None:
        """The client has left. A call to a chat API is cut by that; a job goes on."""
        if self.job is not None:
            is_job = not isinstance(self.context.providers[self.job.provider], Synchronous)
            self._failure = Failure(CLIENT_LEFT(), None, goes_on=is_job)
            await self._end(CallState.CANCELLED, AttemptState.CANCELLED, CLIENT_LEFT())

    def about(self, model_run: str) -> dict[str, object]:
        """Who ran what, and where it is recorded: told with the answer."""
        assert self.job is not None
        about: dict[str, object] = {"provider": self.job.provider, "model_run": model_run}
        return about if self.recording is None else about | {"request": self.recording.address}

    async def _succeed(self, usage: Usage, cost_lamports: int | None, model_run: str, output: Output | None) -> None:
        job, recording, now_ms = self.job, self.recording, self.context.clock.now_ms()
        assert job is not None

        def write(c: Connection) -> None:
            calls.finish_job(c, job.id, AttemptState.SUCCEEDED, cost_lamports=cost_lamports, now_ms=now_ms)
            is_first_end = calls.finish(
                c,
                self.id,
                CallState.SUCCEEDED,
                input_tokens=usage.input_tokens,
                output_tokens=usage.output_tokens,
                chain_lamports=0 if recording is None else recording.reserved_lamports,
                provider=job.provider,
                model_run=model_run,
                now_ms=now_ms,
            )
            if recording is not None and output is not None and is_first_end:
                kept = keep(c, recording, self.id, job, output, now_ms=now_ms)
                assert kept, "another answer has the address"

        await self.context.write(write, *(() if recording is None else ("recordings",)))

    async def _end(self, state: CallState, job_state: AttemptState, error: OracleError) -> None:
        now_ms = self.context.clock.now_ms()
        goes_on = self._failure is not None and self._failure.goes_on
        was_bought = self.delivered_bytes > 0 or self._failure is None or self._failure.cost_lamports != 0
        usage = self._usage(None, None, self.delivered_bytes) if was_bought else Usage(0, 0)

        def write(c: Connection) -> None:
            if not goes_on:
                self._end_job(c, job_state, now_ms)
            calls.finish(
                c,
                self.id,
                state,
                input_tokens=usage.input_tokens,
                output_tokens=usage.output_tokens,
                provider=None if self.job is None else self.job.provider,
                error_code=error.code,
                now_ms=now_ms,
            )

        await self.context.write(write, *(("gateway",) if goes_on else ()))

    def _end_job(self, c: Connection, state: AttemptState, now_ms: int) -> None:
        assert self.job is not None
        error = None if self._failure is None else self._failure.error
        calls.finish_job(
            c,
            self.job.id,
            state,
            cost_lamports=None if self._failure is None else self._failure.cost_lamports,
            error_code=None if error is None else error.code,
            error_detail=None if error is None else error.detail,
            now_ms=now_ms,
        )

    def _allow(self, c: Connection, tokens: int, lamports: int, now_ms: int) -> None:
        """Checked in the transaction that reserves, so that many calls at once cannot overrun it together."""
        limits = self.client.settings
        if limits.tokens_per_day is None and limits.lamports_per_day is None:
            return
        used = calls.used(c, self.client.name, day_began_ms(now_ms))
        for what, limit, total in (
            ("tokens", limits.tokens_per_day, used.tokens + tokens),
            ("lamports", limits.lamports_per_day, used.lamports + lamports),
        ):
            if limit is not None and total > limit:
                left = seconds_left_of_day(now_ms)
                raise DAY_USED_UP(f"{total} {what} with this call, {limit} allowed", retry_after_seconds=left)

    def _usage(self, input_tokens: int | None, output_tokens: int | None, output_bytes: int) -> Usage:
        """As counted; where the provider did not count, as estimated."""
        return Usage(
            self.input_tokens if input_tokens is None else input_tokens,
            -(-output_bytes // _BYTES_PER_TOKEN) if output_tokens is None else output_tokens,
        )
