"""What may be spent on a request, for a requester, at a provider, and in a day."""

from __future__ import annotations

from sqlalchemy import Connection

from oracle.config import Config
from oracle.core.budget import Budget, Scope
from oracle.core.lifecycle import State
from oracle.core.policy import BUDGET_EXHAUSTED, BUDGET_TOO_SMALL
from oracle.pipeline.context import Context
from oracle.store import ledger, requests, spending
from oracle.store.changes import Purchase
from oracle.store.schema import LedgerKind


def book(
    c: Connection,
    context: Context,
    lamports: int,
    now_ms: int,
    *,
    provider: str,
    requester: str,
    request_id: int | None = None,
) -> None:
    """Count a purchase in the transaction that books it, so that many at once cannot overrun a budget together.

    Raises ORC-POLICY-018 where it has to wait for a day with room, ORC-POLICY-022 where no day will have any.
    """
    if lamports == 0:
        return
    limit = context.config.policy.request_budget_lamports
    if request_id is not None and limit is not None:
        spent = -ledger.sum(c, kind=LedgerKind.JOB, request_id=request_id)
        if spent + lamports > limit:
            raise BUDGET_TOO_SMALL(f"{spent} lamports spent on the request, {lamports} asked, {limit} allowed")
    spending.book(c, budgets_of(context.config, provider, requester), lamports, now_ms)


def book_purchase(c: Connection, context: Context, purchase: Purchase) -> None:
    """`book` for the job of a request."""
    book(
        c,
        context,
        purchase.quoted_lamports,
        purchase.now_ms,
        provider=purchase.provider,
        requester=purchase.row.requester,
        request_id=purchase.row.id,
    )


def budgets_of(config: Config, provider: str, requester: str) -> list[Budget]:
    """The budgets of a day that a purchase counts in: none where nothing is limited, else that of the day first."""
    settings = config.providers.get(provider)
    by_provider = None if settings is None else settings.daily_budget_lamports
    limits = [
        Budget(Scope.PROVIDER, provider, by_provider),
        Budget(Scope.REQUESTER, requester, config.policy.requester_daily_budget_lamports),
    ]
    if not has_budgets(config):
        return []
    day = Budget(Scope.DAY, limit_lamports=config.policy.daily_budget_lamports)
    return [day, *(budget for budget in limits if budget.limit_lamports is not None)]


def has_budgets(config: Config) -> bool:
    policy = config.policy
    return (
        policy.daily_budget_lamports is not None
        or policy.requester_daily_budget_lamports is not None
        or any(provider.daily_budget_lamports is not None for provider in config.providers.values())
    )


def reopen(c: Connection, config: Config, now_ms: int) -> None:
    """At start: budgets may have been changed, so they are counted anew, and who waited for one asks again."""
    if has_budgets(config):
        spending.recount(c, now_ms)
    requests.wake(c, (State.ADMITTED, State.CLAIMED), BUDGET_EXHAUSTED.code, now_ms)
