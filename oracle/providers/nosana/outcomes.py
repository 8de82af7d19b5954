"""What ended jobs came to: each result document is read once, judged, and the verdict kept."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import OrderedDict
from collections.abc import Callable
from decimal import Decimal
from typing import Any, Final

from oracle.core.compute import JobHandle, Money, Output
from oracle.core.errors import OracleError
from oracle.providers import errors
from oracle.providers.nosana import result
from oracle.providers.nosana.api import Job, NosanaApi
from oracle.providers.openai.wire import check_not_cut
from oracle.providers.pricing import Rates, usd_to_lamports

# A job that its owner ended has no result, or gets a useless one from its host a little later (§2.5).
_GRACE_SECONDS: Final = 60.0
_READ_AT_ONCE: Final = 8
_READ_SECONDS: Final = 45.0
_KEPT: Final = 1000


class Outcomes:
    """Outputs and failures of jobs, by address, as far as they are known."""

    def __init__(self, api: NosanaApi, rates: Rates, now: Callable[[], float] = time.time) -> None:
        self._api = api
        self._rates = rates
        self._now = now
        self._reading = asyncio.Semaphore(_READ_AT_ONCE)
        self._known: OrderedDict[str, Output | OracleError] = OrderedDict()

    async def of(self, handle: JobHandle, job: Job) -> Output | OracleError | None:
        """The output of a job that ended, or why there is none; None while that cannot be read."""
        known = self._known.get(job.address)
        if known is not None:
            return known
        if job.result_cid is None:
            late = self._now() - job.ended_at > _GRACE_SECONDS
            return errors.JOB_STOPPED("ended by its owner, without a result") if late else None
        document, is_whole = await self._document(job)
        if document is None:
            return None
        outcome = self._judged(handle, job, document)
        if not is_whole and isinstance(outcome, OracleError) and outcome.error is errors.OUTPUT_DAMAGED:
            # The copy has no logs, from which the whole document may still mend what is missing.
            return None
        self._known[job.address] = outcome
        if len(self._known) > _KEPT:
            self._known.popitem(last=False)
        return outcome

    def known(self, handle: JobHandle) -> Output | OracleError | None:
        return self._known.get(handle.job_id)

    async def _document(self, job: Job) -> tuple[Any, bool]:
        """The result document, and whether it is whole: REST keeps a copy without logs for when IPFS is slow."""
        assert job.result_cid is not None
        with contextlib.suppress(OracleError, TimeoutError):
            async with asyncio.timeout(_READ_SECONDS), self._reading:
                with contextlib.suppress(OracleError):
                    if (document := await self._api.document(job.result_cid)) is not None:
                        return document, True
                copy = await self._api.job(job.address)
                return (copy.result if copy else None), False
        return None, False

    def _judged(self, handle: JobHandle, job: Job, document: Any) -> Output | OracleError:
        try:
            completion = result.completion_of(document)
            check_not_cut(completion, int(handle.detail.get("max_output_tokens", 0)))
        except OracleError as error:
            return error
        usd = _used_usd(handle, job)
        return Output(
            content=completion.text.encode(),
            model_run=completion.model,
            cost=None if usd is None else Money(float(usd), "USD"),
            cost_lamports=self._lamports(usd),
            input_tokens=completion.input_tokens,
            output_tokens=completion.output_tokens,
            started_at=float(job.started_at),
            finished_at=float(job.ended_at),
        )

    def _lamports(self, usd: Decimal | None) -> int | None:
        """None where it cannot be told: the answer is paid for, and a missing price must not lose it."""
        try:
            return None if usd is None else usd_to_lamports(usd, self._rates)
        except OracleError:
            return None


def _used_usd(handle: JobHandle, job: Job) -> Decimal | None:
    """The part of the reservation that was used (§5); None where it is not known what was reserved."""
    reserved = handle.detail.get("reserved_usd")
    if reserved is None or job.timeout_seconds <= 0 or job.ended_at < job.started_at:
        return None
    used_seconds = min(job.ended_at - job.started_at, job.timeout_seconds)
    return Decimal(str(reserved)) * used_seconds / job.timeout_seconds
