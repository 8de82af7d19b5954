"""What may be spent in a day."""

from __future__ import annotations

from sqlalchemy import Connection

from oracle.core.policy import BUDGET_EXHAUSTED
from oracle.pipeline.context import Context
from oracle.store import attempts

DAY_MS = 86_400_000


def within_budget(c: Connection, context: Context, quoted_lamports: int, now_ms: int) -> None:
    """Checked in the transaction that books the purchase, so that many at once cannot overrun it together.

    Raises ORC-POLICY-018.
    """
    budget = context.config.policy.daily_budget_lamports
    if budget is None:
        return
    spent = attempts.spent(c, since_ms=now_ms - DAY_MS)
    if spent + quoted_lamports > budget:
        raise BUDGET_EXHAUSTED(f"{spent} lamports spent, {quoted_lamports} asked, {budget} allowed")
