"""What one check found."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from oracle.core.errors import OracleError


class Health(StrEnum):
    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class CheckResult:
    name: str
    health: Health
    detail: str
    remedy: str = ""


def ok(name: str, detail: str) -> CheckResult:
    return CheckResult(name, Health.OK, detail)


def failed(name: str, error: OracleError) -> CheckResult:
    return CheckResult(name, Health.FAILED, str(error), error.error.remedy)
