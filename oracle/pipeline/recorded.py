"""seen | claimed -> computed: requests of our own gateway. Their answer was given, and paid for, before they were made.

Only the gateway's key can make a request at the address an answer is kept under, and only of the very same body: the
program derives the address from both.
"""

from __future__ import annotations

import structlog
from sqlalchemy import Connection

from oracle.core.lifecycle import State
from oracle.core.policy import BODY_NOT_AUTHENTIC
from oracle.core.request import Request
from oracle.pipeline import inputs
from oracle.pipeline.answer import Answer, Kept, keep_all, receipt_of
from oracle.pipeline.context import Context
from oracle.store import requests
from oracle.store.rows import RecordingRow, RequestRow

log = structlog.get_logger(__name__)


async def take(context: Context, row: RequestRow, request: Request, recording: RecordingRow) -> None:
    """Give the request the answer that waits for it; where a claim is required, that comes first."""
    if recording.body != request.body_bytes:
        raise BODY_NOT_AUTHENTIC(str(request.key))
    if row.state is State.SEEN and row.claim_required:
        await context.move(row, State.ADMITTED)
        return
    answer = Answer(
        content=recording.output,
        media_type=recording.media_type,
        model_run=recording.model_run,
        provider=recording.provider,
        provider_job_id=recording.provider_job_id,
        submitted_at=recording.submitted_at,
        completed_at=recording.completed_at,
    )
    content, origin = await inputs.load(context, request)
    receipt = receipt_of(context, row, request, content, origin, answer)
    now_ms, slot = context.clock.now_ms(), context.slot()

    def write(c: Connection) -> None:
        held = row
        for state in (State.ADMITTED, State.RUNNING) if row.state is State.SEEN else (State.RUNNING,):
            held = requests.move(c, held, state, now_ms=now_ms, slot=slot, detail=recording.call_id, keep_lease=True)
        keep_all(c, [Kept(held, answer, receipt, now_ms, slot)])

    log.info("answer of the gateway taken", call=recording.call_id, output_hash=answer.sha256)
    await context.write(write, State.COMPUTED)
