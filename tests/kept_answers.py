"""An answer of the gateway, kept under the address of the request that is to record it."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection

from oracle.store import calls, recordings
from oracle.store.schema import CallKind


def put(conn: Connection, address: str, call_id: str = "call-1", *, now_ms: int = 0, **changes: Any) -> bool:
    """Begin the call and keep its answer; what `recordings.put` says."""
    calls.begin(
        conn,
        call_id,
        key="alice",
        kind=CallKind.CHAT,
        model="llama",
        input_tokens=1,
        output_tokens=1,
        owner="gateway",
        owned_until_ms=now_ms + 60_000,
        now_ms=now_ms,
    )
    values: dict[str, Any] = {
        "call_id": call_id,
        "queue": "queue-1",
        "requester": "gateway",
        "nonce": 2**63 - 1,
        "body": b"body",
        "input_sha256": None,
        "fee_lamports": 10_000,
        "ttl_slots": 500,
        "output": b"42",
        "media_type": "text/plain",
        "finish_reason": "stop",
        "model_run": "llama",
        "provider": "p",
        "provider_job_id": "job-1",
        "submitted_at": 1,
        "completed_at": 2,
        "now_ms": now_ms,
    }
    return recordings.put(conn, address, **(values | changes))
