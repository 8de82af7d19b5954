"""What is kept of an answer, wherever it came from: the output, and the receipt whose hash goes on chain."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection

from oracle.core import receipts
from oracle.core.lifecycle import State
from oracle.core.request import Request
from oracle.pipeline.context import Context
from oracle.store import requests, results
from oracle.store.changes import Move
from oracle.store.rows import RequestRow


@dataclass(frozen=True, slots=True)
class Answer:
    """An output, and who made it. `submitted_at` and `completed_at` are unix seconds."""

    content: bytes
    media_type: str
    model_run: str
    provider: str
    provider_job_id: str
    submitted_at: int
    completed_at: int

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()


def receipt_of(
    context: Context, row: RequestRow, request: Request, content: bytes, origin: str | None, answer: Answer
) -> bytes:
    """The canonical record of the inference. `content` is the input, and `origin` where it was fetched from."""
    header, params = request.header, request.body.params
    return receipts.encode(
        {
            "version": receipts.RECEIPT_VERSION,
            "program": str(context.program_id),
            "request": row.address,
            "created_slot": str(row.created_slot),
            "queue": row.queue,
            "operator": str(context.signer.public_key),
            "requester": row.requester,
            "nonce": str(header.nonce),
            "body_hash": header.body_hash.hex(),
            "input_hash": hashlib.sha256(content).hexdigest(),
            "input_origin": origin,
            "model_asked": request.body.model,
            "model_run": answer.model_run,
            "provider": answer.provider,
            "provider_job_id": answer.provider_job_id,
            "params": {
                "max_output_tokens": params.max_output_tokens,
                "temperature_milli": params.temperature_milli,
                "seed": str(params.seed),
                "flags": int(params.flags),
            },
            "output_hash": answer.sha256,
            "output_bytes": len(answer.content),
            "output_media_type": answer.media_type,
            "submitted_at": answer.submitted_at,
            "completed_at": answer.completed_at,
        }
    )


@dataclass(frozen=True, slots=True)
class Kept:
    """An answer to a held, running row."""

    row: RequestRow
    answer: Answer
    receipt: bytes
    now_ms: int
    slot: int


def keep_all(c: Connection, answers: Sequence[Kept]) -> None:
    """Output, receipt and the new state of each row: from here on nothing is bought for it."""
    moves = []
    for this in answers:
        answer, job_hash, now_ms = this.answer, receipts.job_hash(this.receipt).hex(), this.now_ms
        results.put_output(c, answer.sha256, answer.content, media_type=answer.media_type, now_ms=now_ms)
        results.put_receipt(c, job_hash, this.receipt, request_id=this.row.id, now_ms=now_ms)
        hashes = {"output_sha256": answer.sha256, "job_hash": job_hash, "completed_at": answer.completed_at}
        moves.append(Move(this.row, State.COMPUTED, now_ms, this.slot, columns=hashes))
    requests.move_all(c, moves)
