"""`Compute` on the batch API of OpenAI and its like: many requests in one file, at about half the price, within a day.

Purchases that come within a short window share a batch. Each one's key is its `custom_id`, and stands in the batch's
metadata: so it is found again by whoever has lost the answer to its creation.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Final, TypeVar

from oracle.core.compute import (
    Absent,
    CannotTell,
    Capabilities,
    Completion,
    Found,
    IdempotencyKey,
    JobHandle,
    JobState,
    JobStatus,
    Money,
    Output,
    Quote,
    Recovery,
    Task,
)
from oracle.core.errors import OracleError
from oracle.providers import errors
from oracle.providers.openai.batch_api import BatchApi
from oracle.providers.openai.batch_list import BatchList
from oracle.providers.openai.batch_wire import ENDED, MOST_REQUESTS, Batch, answer_within, input_lines, results
from oracle.providers.openai.wire import PLAIN, Dictation
from oracle.providers.pricing import (
    NO_RATES,
    PriceOf,
    Rates,
    TokenPrice,
    estimated_input_tokens,
    token_cost_usd,
    usd_quote,
    usd_to_lamports,
)

_T = TypeVar("_T")
_Results = Mapping[str, Completion | OracleError]

WINDOW_SECONDS: Final = 86_400
LIST_LAG_SECONDS: Final = 60.0
"""How long a batch that exists may be missing from the list; nothing is documented."""

# A file that was cut, or is not written to its end, is read again for so long after the batch has ended.
_REREAD_SECONDS: Final = 600.0
_KEPT: Final = 200


@dataclass(frozen=True, slots=True)
class BatchTerms:
    """`discount` is the part of the usual price that is not charged."""

    discount: Decimal = Decimal("0.5")
    gather_seconds: float = 2.0
    poll_seconds: float = 30.0
    expected_seconds: float = 3600.0


@dataclass(slots=True)
class _Gathering:
    """Purchases of one model on their way into one batch."""

    tasks: dict[IdempotencyKey, Task]
    full: asyncio.Event
    made: asyncio.Task[Batch] | None = None


@dataclass(slots=True)
class _Seen:
    """What is known of a batch, when it was looked at, and when it was first seen to have ended."""

    batch: Batch
    at: float
    ended_at: float | None = None
    results: _Results | None = None
    cancelled: set[str] = field(default_factory=set)


class BatchCompute:
    """Implements `Compute`."""

    capabilities = Capabilities(recovery=Recovery.LOOK_UP, cancel=True)

    def __init__(
        self,
        name: str,
        api: BatchApi,
        batches: BatchList,
        price_of: PriceOf,
        *,
        terms: BatchTerms = BatchTerms(),
        dictation: Dictation = PLAIN,
        rates: Rates = NO_RATES,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.name = name
        self._api = api
        self._batches = batches
        self._price_of = price_of
        self._terms = terms
        self._dictation = dictation
        self._rates = rates
        self._clock = clock
        self._now = now
        self._gathering: dict[str, _Gathering] = {}
        self._seen: OrderedDict[str, _Seen] = OrderedDict()
        self._asked_at: OrderedDict[str, float] = OrderedDict()
        self._looking = asyncio.Lock()

    async def quote(self, task: Task) -> Quote:
        """The discounted price. The window is what is promised: no deadline within it can be counted on."""
        if task.timeout_seconds < WINDOW_SECONDS:
            # One request of a batch cannot be called off alone, so none may be given up before its window is over.
            raise errors.SETTINGS_INVALID(f"{self.name}: timeout_seconds of the route is less than {WINDOW_SECONDS}")
        price = self._discounted(await self._price_of(task.model))
        usd = token_cost_usd(price, estimated_input_tokens(task), task.max_output_tokens)
        quote = usd_quote(usd, self._rates, self._terms.expected_seconds)
        return Quote(quote.cost_lamports, quote.cost, quote.expected_seconds, promised_seconds=float(WINDOW_SECONDS))

    async def submit(self, task: Task, key: IdempotencyKey) -> JobHandle:
        """Join the batch that is being gathered for this model, and wait until it is made."""
        self._asked_at.pop(key, None)
        gathering = self._gathering.get(task.model)
        if gathering is None or len(gathering.tasks) >= MOST_REQUESTS:
            gathering = _Gathering({}, asyncio.Event())
            gathering.made = asyncio.create_task(self._make(task.model, gathering), name=f"{self.name} batch")
            gathering.made.add_done_callback(_look_at_its_error)
            self._gathering[task.model] = gathering
        gathering.tasks[key] = task
        if len(gathering.tasks) >= MOST_REQUESTS:
            gathering.full.set()
        assert gathering.made is not None
        # Who stops waiting does not take the others along.
        batch = await asyncio.shield(gathering.made)
        return self._handle(batch, key, {"max_output_tokens": task.max_output_tokens, "model": task.model})

    async def find(self, key: IdempotencyKey) -> Found | Absent | CannotTell:
        """Search the batches. Absence is proof only once the list has had time to learn of a new one."""
        asked_at = self._asked_at.get(key)
        if asked_at is None:
            asked_at = self._clock()
            _keep(self._asked_at, key, asked_at)
        snapshot = await self._batches.snapshot()
        if (batch := snapshot.by_key.get(key)) is not None:
            return Found(self._handle(batch, key))
        if snapshot.began_at - asked_at >= LIST_LAG_SECONDS:
            return Absent()
        return CannotTell("no batch holds this request yet")

    async def poll(self, handles: Sequence[JobHandle]) -> Mapping[JobHandle, JobStatus]:
        """One question for each batch, however many of its requests are asked after."""
        by_batch: dict[str, list[JobHandle]] = {}
        for handle in handles:
            by_batch.setdefault(_batch_of(handle), []).append(handle)
        async with self._looking:
            found = await asyncio.gather(*(self._statuses(batch, asked) for batch, asked in by_batch.items()))
        return {handle: status for statuses in found for handle, status in statuses.items()}

    async def fetch(self, handle: JobHandle) -> Output:
        seen = self._seen.get(_batch_of(handle))
        outcome = self._outcome(seen, handle) if seen else None
        if outcome is None:
            raise errors.JOB_UNKNOWN(f"{self.name} holds no answer of {handle.job_id}")
        if isinstance(outcome, OracleError):
            raise outcome
        return await self._output(handle, outcome)

    async def cancel(self, handle: JobHandle) -> None:
        """End the batch once nobody wants any of its requests; until then this one is computed, and paid, with it."""
        batch_id = _batch_of(handle)
        seen = await self._look(batch_id)
        if seen is None or seen.batch.status in ENDED:
            return
        seen.cancelled.add(_key_of(handle))
        if not seen.cancelled >= set(await self._batches.keys_of(seen.batch)):
            return
        await self._api.cancel(batch_id)
        batch = await self._api.batch(batch_id)
        if batch is not None and batch.status not in (*ENDED, "cancelling"):
            raise errors.UNAVAILABLE(f"batch {batch_id} was not cancelled and has not ended")

    async def balance(self) -> Money | None:
        return None

    async def models(self) -> Sequence[str]:
        return await self._api.models()

    async def close(self) -> None:
        """A batch that is being gathered is not made: whoever waits for it looks it up."""
        makers = [gathering.made for gathering in self._gathering.values() if gathering.made]
        for maker in makers:
            maker.cancel()
        await asyncio.gather(*makers, return_exceptions=True)
        await self._api.close()

    async def _make(self, model: str, gathering: _Gathering) -> Batch:
        """Wait for company, upload the file, and buy. Nothing is bought before the last step."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._terms.gather_seconds):
                await gathering.full.wait()
        if self._gathering.get(model) is gathering:
            del self._gathering[model]
        private = tuple(message.content for task in gathering.tasks.values() for message in task.messages)
        file = await self._api.upload(input_lines(gathering.tasks, self._dictation), private)
        return await self._api.create(file, tuple(gathering.tasks))

    async def _statuses(self, batch_id: str, handles: Sequence[JobHandle]) -> Mapping[JobHandle, JobStatus]:
        try:
            seen = await self._look(batch_id)
        except OracleError as error:
            return {
                handle: JobStatus(JobState.RUNNING, message=f"cannot be asked after: {error}") for handle in handles
            }
        if seen is None:
            lost = errors.JOB_UNKNOWN(f"there is no batch {batch_id}")
            return {handle: JobStatus(JobState.LOST, lost, str(lost)) for handle in handles}
        return {handle: self._status(seen, handle) for handle in handles}

    def _status(self, seen: _Seen, handle: JobHandle) -> JobStatus:
        if seen.batch.status not in ENDED:
            return JobStatus(JobState.QUEUED if seen.batch.status == "validating" else JobState.RUNNING)
        match self._outcome(seen, handle):
            case None:
                return JobStatus(JobState.RUNNING, message="ended; its answer cannot be read yet")
            case OracleError() as error:
                return JobStatus(JobState.FAILED, error, str(error))
            case Completion():
                return JobStatus(JobState.SUCCEEDED)

    def _outcome(self, seen: _Seen, handle: JobHandle) -> Completion | OracleError | None:
        """What the batch says of one request; None while that cannot be told."""
        if seen.batch.status not in ENDED:
            return None
        if seen.batch.status == "failed":
            return _refused(seen.batch, _key_of(handle))
        result = (seen.results or {}).get(_key_of(handle))
        if result is not None:
            return answer_within(result, int(handle.detail.get("max_output_tokens", 0)))
        if seen.ended_at is not None and self._clock() - seen.ended_at > _REREAD_SECONDS:
            return _untold(seen.batch)
        return None

    async def _look(self, batch_id: str) -> _Seen | None:
        """The batch as it was within the last `poll_seconds`, with its results where it has ended."""
        seen = self._seen.get(batch_id)
        is_stale = seen is None or self._clock() - seen.at >= self._terms.poll_seconds
        if is_stale and (seen is None or seen.results is None):
            batch = await self._api.batch(batch_id)
            if batch is None:
                return None
            seen = self._note(seen, batch)
            if batch.status in ENDED and batch.status != "failed":
                await self._read(seen)
        return seen

    def _note(self, seen: _Seen | None, batch: Batch) -> _Seen:
        if seen is None:
            seen = _Seen(batch, self._clock())
            _keep(self._seen, batch.id, seen)
        seen.batch, seen.at = batch, self._clock()
        if batch.status in ENDED and seen.ended_at is None:
            seen.ended_at = self._clock()
        return seen

    async def _read(self, seen: _Seen) -> None:
        """Both files. They are final once they tell of every request, or have had time to be written to their end."""
        found: dict[str, Completion | OracleError] = {}
        for file in (seen.batch.error_file, seen.batch.output_file):
            if file is not None:
                found |= results(await self._api.content(file))
        assert seen.ended_at is not None
        is_whole = found.keys() >= set(await self._batches.keys_of(seen.batch))
        if is_whole or self._clock() - seen.ended_at > _REREAD_SECONDS:
            seen.results = found

    async def _output(self, handle: JobHandle, said: Completion) -> Output:
        usd = await self._cost_usd(str(handle.detail.get("model", said.model)), said)
        return Output(
            content=said.text.encode(),
            model_run=said.model,
            cost=None if usd is None else Money(float(usd), "USD"),
            cost_lamports=self._lamports(usd),
            input_tokens=said.input_tokens,
            output_tokens=said.output_tokens,
            finished_at=self._now(),
            finish_reason="length" if said.finish_reason == "length" else "stop",
        )

    async def _cost_usd(self, model: str, said: Completion) -> Decimal | None:
        """None where it cannot be told: the answer is paid for, and a missing price must not lose it."""
        if said.input_tokens is None or said.output_tokens is None:
            return None
        try:
            price = self._discounted(await self._price_of(model))
        except OracleError:
            return None
        return token_cost_usd(price, said.input_tokens, said.output_tokens)

    def _lamports(self, usd: Decimal | None) -> int | None:
        try:
            return None if usd is None else usd_to_lamports(usd, self._rates)
        except OracleError:
            return None

    def _discounted(self, price: TokenPrice) -> TokenPrice:
        part = 1 - self._terms.discount
        return TokenPrice(price.input * part, price.output * part)

    def _handle(self, batch: Batch, key: IdempotencyKey, detail: Mapping[str, str | int] | None = None) -> JobHandle:
        return JobHandle(self.name, f"{batch.id}/{key}", detail or {})


def _refused(batch: Batch, key: str) -> OracleError:
    """Nothing of a batch that failed its validation has run. Who caused it is refused; the others may try again."""
    keys = batch.keys or ()
    culprits = {keys[line - 1] for _, line in batch.faults if line is not None and 0 < line <= len(keys)}
    codes = ", ".join(sorted({code for code, _ in batch.faults if code.replace("_", "").isalnum()}))
    if key in culprits or (len(keys) == 1 and batch.faults):
        return errors.REQUEST_REFUSED(f"batch {batch.id}: {codes}")
    return errors.BATCH_FAILED(f"batch {batch.id}: {codes or 'no reason given'}")


def _untold(batch: Batch) -> OracleError:
    """Neither file tells of a request: what else can be said of it."""
    match batch.status:
        case "expired":
            return errors.BATCH_EXPIRED("not executed in its window")
        case "cancelled":
            return errors.JOB_STOPPED("its batch was cancelled")
    return errors.ANSWER_MISSING(f"batch {batch.id}")


def _look_at_its_error(made: asyncio.Task[Batch]) -> None:
    """Everyone who waited may have gone: an error that nobody takes is no news."""
    if not made.cancelled():
        made.exception()


def _batch_of(handle: JobHandle) -> str:
    return handle.job_id.partition("/")[0]


def _key_of(handle: JobHandle) -> str:
    return handle.job_id.partition("/")[2]


def _keep(kept: OrderedDict[str, _T], key: str, value: _T) -> None:
    """Remember, but not without bound."""
    kept[key] = value
    if len(kept) > _KEPT:
        kept.popitem(last=False)
