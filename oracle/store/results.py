"""Results: inputs that were fetched, outputs and receipts, by hash; and when they may be served and deleted.

An output is nobody's business before its settlement: on a queue with claims another operator could copy it, and what is
served must be what the chain says. It is content-addressed, so writing it twice is harmless.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from sqlalchemy import ColumnElement, Connection, Table, delete, exists, select

from oracle.core.lifecycle import ENDED, State
from oracle.store.rows import InputRow as InputRow
from oracle.store.rows import OutputRow as OutputRow
from oracle.store.rows import ReceiptRow as ReceiptRow
from oracle.store.schema import inputs, outputs, receipts, requests
from oracle.store.sql import append, insert_new


@dataclass(frozen=True, slots=True)
class Pruned:
    """How many rows were deleted, and the files that belong to nothing any more: unlink them after the commit."""

    inputs: int
    outputs: int
    receipts: int
    paths: tuple[str, ...]


def put_input(conn: Connection, sha256: str, content: bytes, *, origin: str, now_ms: int) -> bool:
    """Keep an input under the hash it is asked for by; the first one stays. True where it is new."""
    new = insert_new(conn, inputs, sha256=sha256, content=content, origin=origin, fetched_at_ms=now_ms)
    return new is not None


def get_input(conn: Connection, sha256: str) -> InputRow | None:
    row = conn.execute(select(inputs).where(inputs.c.sha256 == sha256)).one_or_none()
    return None if row is None else InputRow(*row)


def put_output(conn: Connection, sha256: str, content: bytes, *, media_type: str, now_ms: int) -> None:
    """Keep an output. Raises ValueError where the content has another hash."""
    if hashlib.sha256(content).hexdigest() != sha256:
        raise ValueError("the content does not have the hash it is to be kept under")
    size = len(content)
    values = {"content": content, "path": None, "media_type": media_type, "bytes": size, "created_at_ms": now_ms}
    append(conn, outputs, sha256=sha256, **values)


def put_output_file(conn: Connection, sha256: str, path: str, *, size: int, media_type: str, now_ms: int) -> bool:
    """Keep a large output that lies in a file, synced to the disk before. True where it is new."""
    values = {"content": None, "path": path, "media_type": media_type, "bytes": size, "created_at_ms": now_ms}
    return insert_new(conn, outputs, sha256=sha256, **values) is not None


def get_output(conn: Connection, sha256: str) -> OutputRow | None:
    """An output, settled or not: for the settlement itself, not for serving."""
    row = conn.execute(select(outputs).where(outputs.c.sha256 == sha256)).one_or_none()
    return None if row is None else OutputRow(*row)


def put_receipt(conn: Connection, job_hash: str, content: bytes, *, request_id: int, now_ms: int) -> None:
    """Keep a receipt."""
    append(conn, receipts, job_hash=job_hash, content=content, request_id=request_id, created_at_ms=now_ms)


def get_receipt(conn: Connection, job_hash: str) -> ReceiptRow | None:
    """A receipt, settled or not: not for serving."""
    row = conn.execute(select(receipts).where(receipts.c.job_hash == job_hash)).one_or_none()
    return None if row is None else ReceiptRow(*row)


def servable_output(conn: Connection, sha256: str) -> OutputRow | None:
    """An output that some settled request has; None for any other, known or not."""
    settled = exists().where(requests.c.output_sha256 == sha256, requests.c.state == State.SETTLED)
    row = conn.execute(select(outputs).where(outputs.c.sha256 == sha256, settled)).one_or_none()
    return None if row is None else OutputRow(*row)


def servable_receipt(conn: Connection, job_hash: str) -> ReceiptRow | None:
    """The receipt of a settled request, where it is the one that was settled; None for any other."""
    settled = exists().where(
        requests.c.id == receipts.c.request_id,
        requests.c.job_hash == receipts.c.job_hash,
        requests.c.state == State.SETTLED,
    )
    row = conn.execute(select(receipts).where(receipts.c.job_hash == job_hash, settled)).one_or_none()
    return None if row is None else ReceiptRow(*row)


def prune(conn: Connection, older_than_ms: int) -> Pruned:
    """Delete what was made before then and no request needs that is open, or whose end may be forked away."""
    needed = requests.c.state.not_in(ENDED) | requests.c.end_finalized.is_(False)
    output_needed = exists().where(requests.c.output_sha256 == outputs.c.sha256, needed)
    receipt_needed = exists().where(requests.c.id == receipts.c.request_id, needed)
    gone = delete(outputs).where(outputs.c.created_at_ms < older_than_ms, ~output_needed).returning(outputs.c.path)
    paths = list(conn.execute(gone).scalars())
    return Pruned(
        inputs=_delete(conn, inputs, inputs.c.fetched_at_ms < older_than_ms),
        outputs=len(paths),
        receipts=_delete(conn, receipts, (receipts.c.created_at_ms < older_than_ms) & ~receipt_needed),
        paths=tuple(path for path in paths if path is not None),
    )


def _delete(conn: Connection, table: Table, condition: ColumnElement[bool]) -> int:
    return conn.execute(delete(table).where(condition)).rowcount
