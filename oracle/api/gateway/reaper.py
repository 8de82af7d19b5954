"""What a killed gateway, or a client that left, leaves behind: calls without an owner, and jobs that nobody waits for.

The books have them all (law 4): a job was written down before it was bought, so it can be found and cancelled.
"""

from __future__ import annotations

import asyncio
from typing import Final

import structlog
from sqlalchemy import Connection

from oracle.api.gateway.books import HELD_MS
from oracle.api.gateway.errors import CLIENT_LEFT, INTERRUPTED
from oracle.core.compute import Absent, CannotTell, JobHandle, Synchronous
from oracle.core.errors import OracleError
from oracle.pipeline.context import Context
from oracle.pipeline.housekeeping import handle_to_cancel
from oracle.pipeline.submit import CALL_SECONDS
from oracle.store import calls
from oracle.store.rows import GatewayJobRow
from oracle.store.schema import AttemptState, CallState

log = structlog.get_logger(__name__)

BELL: Final = "gateway"
TURN_SECONDS: Final = 5.0
BATCH: Final = 500


async def run(context: Context) -> None:
    """Until the daemon stops."""
    while not context.stopping.is_set():
        context.pulse("reaper")
        try:
            await turn(context)
        except OracleError as error:
            log.warning("calls not looked after", code=error.code, detail=error.detail)
        await context.bells.wait(BELL, TURN_SECONDS)


async def turn(context: Context) -> None:
    now_ms = context.clock.now_ms()

    def write(c: Connection) -> int:
        calls.hold(c, context.instance, now_ms + HELD_MS)
        left = calls.abandoned(c, now_ms, BATCH)
        for call in left:
            calls.finish(
                c,
                call.id,
                CallState.FAILED,
                # Nobody knows how far it came: it keeps the most that it may have used, but was not recorded.
                input_tokens=call.input_tokens,
                output_tokens=call.output_tokens,
                error_code=INTERRUPTED.code,
                now_ms=now_ms,
            )
        return len(left)

    if abandoned := await context.store.write(write):
        log.warning("calls of a gateway that was killed", calls=abandoned)
    orphans = await context.store.read(lambda c: calls.orphans(c, BATCH))
    await asyncio.gather(*(cancel(context, job) for job in orphans))


async def cancel(context: Context, job: GatewayJobRow) -> None:
    provider = context.providers.get(job.provider)
    if provider is None:
        return
    handle: JobHandle | Absent | CannotTell | None = None
    if not isinstance(provider, Synchronous):
        try:
            async with asyncio.timeout(CALL_SECONDS):
                handle = await handle_to_cancel(context, provider, job)
                if isinstance(handle, JobHandle):
                    await provider.cancel(handle)
        except (OracleError, TimeoutError) as error:
            log.warning("job not cancelled yet", call=job.call_id, provider=job.provider, error=str(error))
            return
        if isinstance(handle, CannotTell):
            return
    # Else a call to a chat API: it has ended with the connection, and nobody says what it cost.
    now_ms = context.clock.now_ms()
    log.info("job cancelled", call=job.call_id, provider=job.provider, job=job.job_id)
    await context.store.write(
        lambda c: calls.finish_job(
            c,
            job.id,
            AttemptState.CANCELLED,
            cost_lamports=0 if handle == Absent() else None,
            error_code=CLIENT_LEFT.code,
            now_ms=now_ms,
        )
    )
