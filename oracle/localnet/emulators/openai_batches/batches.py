"""The life of a batch (§4.2): what it is now follows from its times, in unix seconds."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

WINDOW_SECONDS = 86_400


class BatchFault(StrEnum):
    """What can go wrong with a batch. The subject is the model of its first line."""

    FAILS = "fails"
    """Its validation fails, without a word about why."""
    EXPIRES = "expires"
    """Half of its requests are executed; for the others the window ends first."""
    LINE_FAILS = "line_fails"
    """Its first request is answered 400, in the error file."""
    LINE_FAILS_IN_OUTPUT = "line_fails_in_output"
    """The same, in the output file, as clones do."""
    MISSING_LINE = "missing_line"
    """Neither file tells of its first request."""
    DOUBLED_LINES = "doubled_lines"
    """Every line stands twice, the second time with an error; and one is of a request that nobody made."""
    NO_FILES = "no_files"
    """It ends without either file."""
    NO_METADATA = "no_metadata"
    """Its metadata is lost."""
    LATE_CANCEL = "late_cancel"
    """It is completed while it is being cancelled."""
    STRANGE_STATUS = "strange_status"
    """A status that nobody documents, while it runs."""
    UNLISTED = "unlisted"
    """It is missing from the list for `seconds`."""


@dataclass(frozen=True, slots=True)
class BatchTimings:
    validate_seconds: float = 0.0
    run_seconds: float = 0.0
    finalize_seconds: float = 0.0
    cancel_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Batch:
    """One batch. `errors` are what its validation found; then nothing of it runs."""

    id: str
    input_file_id: str
    endpoint: str
    metadata: dict[str, str] | None
    total: int
    created_at: float
    in_progress_at: float
    finalizing_at: float
    ended_at: float
    cancel_seconds: float
    listed_at: float
    errors: list[dict[str, Any]] | None = None
    fault: str | None = None
    cancelled_at: float | None = None
    output_file_id: str | None = None
    error_file_id: str | None = None
    completed: int = 0
    failed: int = 0
    is_executed: bool = False

    @property
    def expires_at(self) -> float:
        return self.created_at + WINDOW_SECONDS

    def status(self, now: float) -> str:
        if now < self.in_progress_at:
            return "validating" if self.cancelled_at is None else self._cancelled(now)
        if self.errors is not None:
            return "failed"
        is_done = now >= self.ended_at and (self.cancelled_at is None or self.cancelled_at >= self.ended_at)
        if self.fault == BatchFault.LATE_CANCEL and self.cancelled_at is not None:
            is_done = now >= self.cancelled_at + self.cancel_seconds
        if is_done:
            return "expired" if self.fault == BatchFault.EXPIRES else "completed"
        if self.cancelled_at is not None:
            return self._cancelled(now)
        if self.fault == BatchFault.STRANGE_STATUS:
            return "reticulating"
        return "finalizing" if now >= self.finalizing_at else "in_progress"

    def _cancelled(self, now: float) -> str:
        assert self.cancelled_at is not None
        return "cancelled" if now >= self.cancelled_at + self.cancel_seconds else "cancelling"

    def as_json(self, now: float) -> dict[str, Any]:
        status = self.status(now)

        def at(moment: float | None, *, shown: bool) -> int | None:
            return int(moment) if shown and moment is not None and now >= moment else None

        return {
            "id": self.id,
            "object": "batch",
            "endpoint": self.endpoint,
            "errors": None if status != "failed" else {"object": "list", "data": self.errors},
            "input_file_id": self.input_file_id,
            "completion_window": "24h",
            "status": status,
            "output_file_id": self.output_file_id,
            "error_file_id": self.error_file_id,
            "created_at": int(self.created_at),
            "in_progress_at": at(self.in_progress_at, shown=self.errors is None),
            "expires_at": int(self.expires_at),
            "finalizing_at": at(self.finalizing_at, shown=self.errors is None and self.cancelled_at is None),
            "completed_at": at(self.ended_at, shown=status == "completed"),
            "failed_at": at(self.in_progress_at, shown=status == "failed"),
            "expired_at": at(self.ended_at, shown=status == "expired"),
            "cancelling_at": at(self.cancelled_at, shown=True),
            "cancelled_at": at(self.cancelled_at, shown=status == "cancelled"),
            "request_counts": {
                "total": 0 if self.errors is not None else self.total,
                "completed": self.completed,
                "failed": self.failed,
            },
            "metadata": None if self.fault == BatchFault.NO_METADATA else self.metadata,
        }
