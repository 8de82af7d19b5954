"""No budget of a day is overrun, however many buy at once and whatever their jobs turn out to cost."""

from __future__ import annotations

import asyncio
from functools import partial

import pytest
from sqlalchemy import Connection
from store_world import NOW, held, see_in, take_in

from oracle.core.budget import DAY_MS, Budget, Scope, day_began_ms, seconds_left_of_day
from oracle.core.errors import OracleError
from oracle.core.lifecycle import State
from oracle.core.policy import BUDGET_EXHAUSTED, BUDGET_TOO_SMALL
from oracle.store import attempts, ledger, spending, trials
from oracle.store.engine import Store

DAY = Budget(Scope.DAY, limit_lamports=1_000)
UNLIMITED = Budget(Scope.DAY)


async def book(store: Store, *budgets: Budget, lamports: int = 300, now_ms: int = NOW) -> None:
    await store.write(lambda c: spending.book(c, budgets, lamports, now_ms))


async def spent(store: Store, budget: Budget, now_ms: int = NOW) -> int:
    return await store.read(lambda c: spending.spent(c, budget, now_ms))


async def test_many_at_once_do_not_overrun_a_budget_together(store: Store, other: Store) -> None:
    tries = [book(each, DAY) for each in [store, other] * 8]
    results = await asyncio.gather(*tries, return_exceptions=True)
    refused = [result for result in results if isinstance(result, OracleError)]
    assert (len(results) - len(refused), {error.error for error in refused}) == (3, {BUDGET_EXHAUSTED})
    assert await spent(store, DAY) == 900


async def test_who_has_no_room_waits_no_longer_than_the_day_lasts(store: Store) -> None:
    late = day_began_ms(NOW) + DAY_MS - 5_000
    await book(store, DAY, lamports=1_000, now_ms=late)
    with pytest.raises(OracleError) as raised:
        await book(store, DAY, now_ms=late)
    assert (raised.value.error, raised.value.retry_after_seconds) == (BUDGET_EXHAUSTED, 5.0)
    await book(store, DAY, now_ms=late + 5_000)
    assert await spent(store, DAY, late + 5_000) == 300


async def test_a_job_that_no_day_has_room_for_does_not_wait_for_one(store: Store) -> None:
    with pytest.raises(OracleError) as raised:
        await book(store, DAY, lamports=1_001)
    assert raised.value.error is BUDGET_TOO_SMALL


async def test_one_requester_or_provider_does_not_use_up_the_budget_of_another(store: Store) -> None:
    ann, bob = (Budget(Scope.REQUESTER, name, 500) for name in ("ann", "bob"))
    await book(store, UNLIMITED, ann)
    with pytest.raises(OracleError, match="requester ann"):
        await book(store, UNLIMITED, ann)
    await book(store, UNLIMITED, bob)
    assert [await spent(store, each) for each in (ann, bob, UNLIMITED)] == [300, 300, 600]


async def test_a_refusal_by_one_budget_counts_in_none(store: Store) -> None:
    await book(store, UNLIMITED, Budget(Scope.PROVIDER, "nosana", 300))
    with pytest.raises(OracleError, match="provider nosana"):
        await book(store, UNLIMITED, Budget(Scope.PROVIDER, "nosana", 300))
    assert await spent(store, UNLIMITED) == 300


async def test_what_a_job_has_really_cost_replaces_its_quote_in_every_budget(store: Store) -> None:
    budgets = (DAY, Budget(Scope.PROVIDER, "nosana", 1_000), Budget(Scope.REQUESTER, "requester-1", 1_000))
    row = await held(store)

    def buy(c: Connection) -> int:
        spending.book(c, budgets, 900, NOW)
        return attempts.intend(
            c,
            row,
            lane=0,
            provider="nosana",
            model="m",
            idempotency_key="key",
            quoted_lamports=900,
            now_ms=NOW,
        ).id

    attempt_id = await store.write(buy)
    for cost in (250, 400):
        end = partial(attempts.finish, state="succeeded", cost_lamports=cost, now_ms=NOW + 1)
        await store.write(lambda c, end=end: end(c, attempt_id))
        assert [await spent(store, each) for each in budgets] == [cost] * 3


async def test_a_recount_takes_the_day_from_the_ledger_and_forgets_old_days(store: Store) -> None:
    yesterday = NOW - DAY_MS

    def buy(c: Connection) -> None:
        for number, (at_ms, provider) in enumerate(((yesterday, "a"), (NOW, "a"), (NOW, "b"))):
            row = take_in(c, see_in(c, f"request-{number}", state=State.ADMITTED))
            attempts.intend(
                c,
                row,
                lane=0,
                provider=provider,
                model="m",
                idempotency_key=f"key-{number}",
                quoted_lamports=100,
                now_ms=at_ms,
            )

    await store.write(buy)
    await book(store, UNLIMITED, lamports=7, now_ms=NOW - 30 * DAY_MS)
    await book(store, UNLIMITED, lamports=999)
    await store.write(lambda c: spending.recount(c, NOW))
    budgets = (DAY, Budget(Scope.PROVIDER, "a"), Budget(Scope.PROVIDER, "b"), Budget(Scope.REQUESTER, "requester-1"))
    assert [await spent(store, each) for each in budgets] == [200, 100, 100, 200]
    assert await spent(store, DAY, NOW - 30 * DAY_MS) == 0


def test_a_day_is_one_of_utc() -> None:
    assert day_began_ms(1_700_000_000_000) == 1_699_920_000_000
    assert seconds_left_of_day(1_699_920_000_000) == 86_400


async def test_a_trial_counts_as_any_job_and_its_cost_replaces_its_quote(store: Store) -> None:
    mine = Budget(Scope.PROVIDER, "nosana", 500)
    book_trial = partial(trials.book, provider="nosana", now_ms=NOW)
    entry = await store.write(lambda c: book_trial(c, [DAY, mine], 400, key="k1"))
    with pytest.raises(OracleError) as raised:
        await store.write(lambda c: book_trial(c, [DAY, mine], 400, key="k2"))
    assert raised.value.error is BUDGET_EXHAUSTED
    assert await store.read(lambda c: ledger.sum(c)) == -400
    found = [await store.read(lambda c, key=key: trials.entry_of(c, key)) for key in ("k1", "k2")]  # type: ignore[misc]
    assert found == [entry, None]
    await store.write(lambda c: ledger.correct(c, 50, ledger_id=entry))
    assert (await spent(store, DAY), await spent(store, mine)) == (50, 50)
    await store.write(lambda c: spending.recount(c, NOW))
    assert (await spent(store, DAY), await spent(store, mine)) == (50, 50)
