"""Errors with a code, a cause and a remedy; and what a loop does next when it meets one.

Every room declares its own codes in its `errors` module with `ErrorCode(...)`; a test checks that each has a
section in `docs/reference/errors.md`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from typing import Final

_CODE = re.compile(r"ORC-[A-Z]+-\d{3}")


class Verdict(Enum):
    """What may be done after an error. `UNKNOWN` is not `GIVE_UP`: the side effect may have happened."""

    RETRY = "retry"
    GIVE_UP = "give_up"
    UNKNOWN = "unknown"


CATALOGUE: Final[dict[str, ErrorCode]] = {}
"""Every code that has been declared so far, by its text: a row in the database stores the text alone."""


@dataclass(frozen=True, slots=True)
class ErrorCode:
    """One way to fail. Calling it makes the exception: `raise QUEUE_UNKNOWN(f"queue {address}")`."""

    code: str
    title: str
    cause: str
    remedy: str
    verdict: Verdict = Verdict.GIVE_UP

    def __post_init__(self) -> None:
        if not _CODE.fullmatch(self.code):
            raise ValueError(f"{self.code!r} is not of the form ORC-ROOM-NNN")
        if CATALOGUE.setdefault(self.code, self) != self:
            raise ValueError(f"{self.code} is declared twice")

    def __call__(self, detail: str = "", *, retry_after_seconds: float | None = None) -> OracleError:
        return OracleError(self, detail, retry_after_seconds=retry_after_seconds)


class OracleError(Exception):
    """The only exception that crosses the seams of the oracle.

    `detail` says what was met this time. It may be logged and shown, so it never holds a secret, a prompt or an output.
    `retry_after_seconds` is set where the other side said how long to wait.
    """

    def __init__(self, error: ErrorCode, detail: str = "", *, retry_after_seconds: float | None = None) -> None:
        self.error = error
        self.detail = detail
        self.retry_after_seconds = retry_after_seconds
        super().__init__(str(self))

    @property
    def code(self) -> str:
        return self.error.code

    @property
    def verdict(self) -> Verdict:
        return self.error.verdict

    def __str__(self) -> str:
        what = f"{self.error.title}: {self.detail}" if self.detail else self.error.title
        return f"{self.error.code} {what}"

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild, (self.error, self.detail, self.retry_after_seconds))


def verdict_of(code: str | None) -> Verdict:
    """What a stored code allows. One that this version does not know may be mended by another try."""
    return CATALOGUE[code].verdict if code in CATALOGUE else Verdict.RETRY


def _rebuild(error: ErrorCode, detail: str, retry_after_seconds: float | None) -> OracleError:
    return OracleError(error, detail, retry_after_seconds=retry_after_seconds)


LIFECYCLE_FORBIDDEN = ErrorCode(
    "ORC-CORE-001",
    "Forbidden transition",
    "A loop tried to move a request between two states that the lifecycle does not connect.",
    "This is a bug in the oracle: report it with the output of `oracle inspect REQUEST`.",
)
