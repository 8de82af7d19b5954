"""What a day has cost so far, by whom it is budgeted: one number each, beside the ledger that it is the sum of.

A sum over the day's ledger would grow with the day, and two daemons that take it at once would both find room for the
last job. A row that is raised and checked in one statement, in the transaction that books the job, does neither.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any, Final

from sqlalchemy import BigInteger, Connection, bindparam, delete, func, insert, literal, or_, select, text, update
from sqlalchemy.dialects import postgresql, sqlite

from oracle.core.budget import DAY_MS, Budget, Scope, day_began_ms, refuse
from oracle.store.schema import LedgerKind, ledger
from oracle.store.schema import spending as t
from oracle.store.sql import fetch_one, update_each

_NO_LIMIT: Final = 2**62
_KEPT_DAYS: Final = 7
_CORRECTED: Final = (
    update(t)
    .where(
        t.c.day_ms == bindparam("wanted_day_ms", type_=BigInteger),
        or_(
            t.c.scope == Scope.DAY,
            (t.c.scope == Scope.PROVIDER) & (t.c.subject == bindparam("wanted_provider")),
            (t.c.scope == Scope.REQUESTER) & (t.c.subject == bindparam("wanted_requester")),
        ),
    )
    .values(lamports=t.c.lamports + bindparam("more", type_=BigInteger))
)


def book(conn: Connection, budgets: Sequence[Budget], lamports: int, now_ms: int) -> None:
    """Count `lamports` in each budget; the caller books them in the same transaction.

    The first budget must be that of the day: whoever holds its row holds the others too, so that no two transactions
    can wait for each other.

    Raises ORC-POLICY-018 or 022, and then the transaction must not be committed.
    """
    day_ms = day_began_ms(now_ms)
    for budget in budgets:
        refuse(budget, 0, lamports, now_ms)
        limit = _NO_LIMIT if budget.limit_lamports is None else budget.limit_lamports
        values = {"day_ms": day_ms, "scope": budget.scope, "subject": budget.subject, "lamports": lamports}
        if fetch_one(conn, _raised(conn.dialect.name), values | {"most": limit}) is None:
            refuse(budget, spent(conn, budget, now_ms), lamports, now_ms)


def spent(conn: Connection, budget: Budget, now_ms: int) -> int:
    """Lamports of this day."""
    found = conn.execute(
        select(t.c.lamports).where(
            t.c.day_ms == day_began_ms(now_ms), t.c.scope == budget.scope, t.c.subject == budget.subject
        )
    ).scalar()
    return found or 0


def correct(conn: Connection, at_ms: int, more_lamports: int, *, provider: str | None, requester: str | None) -> None:
    """What was booked at `at_ms` has turned out to cost so much more, or less."""
    values = {
        "wanted_day_ms": day_began_ms(at_ms),
        "wanted_provider": provider,
        "wanted_requester": requester,
        "more": more_lamports,
    }
    update_each(conn, _CORRECTED, [values])


def recount(conn: Connection, now_ms: int) -> None:
    """Take today's numbers from the ledger: budgets may have been configured only now, in the middle of a day."""
    day_ms = day_began_ms(now_ms)
    if conn.dialect.name == "postgresql":
        # What other daemons are booking at this moment is waited for, and what they book next waits for us.
        conn.execute(text("LOCK TABLE spending IN EXCLUSIVE MODE"))
    conn.execute(delete(t).where(or_(t.c.day_ms == day_ms, t.c.day_ms < day_ms - _KEPT_DAYS * DAY_MS)))
    total = func.coalesce(-func.sum(ledger.c.lamports), 0)
    for scope, subject in (
        (Scope.DAY, literal("")),
        (Scope.PROVIDER, ledger.c.provider),
        (Scope.REQUESTER, ledger.c.requester),
    ):
        todays = select(literal(day_ms, BigInteger), literal(scope.value), subject, total).where(
            ledger.c.kind == LedgerKind.JOB, ledger.c.at_ms >= day_ms
        )
        if scope is not Scope.DAY:
            todays = todays.where(subject.is_not(None)).group_by(subject)
        conn.execute(insert(t).from_select(["day_ms", "scope", "subject", "lamports"], todays))


@cache
def _raised(dialect: str) -> Any:
    statement = sqlite.insert(t) if dialect == "sqlite" else postgresql.insert(t)
    raised = t.c.lamports + statement.excluded.lamports
    return statement.on_conflict_do_update(
        index_elements=[t.c.day_ms, t.c.scope, t.c.subject],
        set_={"lamports": raised},
        where=raised <= bindparam("most", type_=BigInteger),
    ).returning(t.c.lamports)
