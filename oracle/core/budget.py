"""What may be spent in a day, and by whom. A day is one of UTC: it turns at the same moment for every budget."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from oracle.core.policy import BUDGET_EXHAUSTED, BUDGET_TOO_SMALL

DAY_MS: Final = 86_400_000

LONGEST_WAIT_SECONDS: Final = 600.0
"""How long a request waits before it asks again whether a budget has room: what was quoted may have cost less."""


class Scope(StrEnum):
    DAY = "day"
    """Everything that is bought in the day."""
    PROVIDER = "provider"
    REQUESTER = "requester"


@dataclass(frozen=True, slots=True)
class Budget:
    """What one subject may cost in a day. No limit: it is only counted."""

    scope: Scope
    subject: str = ""
    limit_lamports: int | None = None

    def __str__(self) -> str:
        return f"{self.scope} {self.subject}".rstrip()


def day_began_ms(now_ms: int) -> int:
    return now_ms // DAY_MS * DAY_MS


def seconds_left_of_day(now_ms: int) -> float:
    return (day_began_ms(now_ms) + DAY_MS - now_ms) / 1000


def refuse(budget: Budget, spent_lamports: int, asked_lamports: int, now_ms: int) -> None:
    """Raise ORC-POLICY-018 where the budget has no room today, ORC-POLICY-022 where a whole day's would have none."""
    limit = budget.limit_lamports
    if limit is None or spent_lamports + asked_lamports <= limit:
        return
    if asked_lamports > limit:
        raise BUDGET_TOO_SMALL(f"{asked_lamports} lamports asked, {budget} allows {limit} a day")
    wait = min(seconds_left_of_day(now_ms), LONGEST_WAIT_SECONDS)
    detail = f"{budget}: {spent_lamports} lamports spent, {asked_lamports} asked, {limit} allowed"
    raise BUDGET_EXHAUSTED(detail, retry_after_seconds=wait)
