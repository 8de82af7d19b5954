"""Housekeeping finds what is to be expired, closed, finalized and cancelled, and nothing that is being seen to."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import Connection
from store_world import NOW, OPERATOR, held, see

from oracle.core.lifecycle import ENDED, State
from oracle.store import attempts, duties, requests, settlements
from oracle.store.engine import Store
from oracle.store.requests import RequestRow

ENDED_FOR_GOOD: dict[str, Any] = {"ended_slot": 400, "end_finalized": True}


async def test_a_request_is_overdue_when_its_deadline_has_passed_and_not_before(store: Store) -> None:
    row = await see(store, deadline_slot=1_000)
    assert await overdue(store, 1_000) == []
    assert await overdue(store, 1_001) == [row.id]


async def test_the_longest_overdue_comes_first_and_never_more_than_asked(store: Store) -> None:
    rows = [await see(store, f"request-{slot}", deadline_slot=slot) for slot in (300, 100, 200)]
    assert await overdue(store, 1_000) == [rows[1].id, rows[2].id, rows[0].id]
    assert await overdue(store, 1_000, limit=2) == [rows[1].id, rows[2].id]


@pytest.mark.parametrize("state", State)
async def test_every_state_but_the_ends_can_be_overdue(store: Store, state: State) -> None:
    row = await see(store, state=state)
    assert await overdue(store, 5_000) == ([] if state in ENDED else [row.id])


async def test_a_request_with_a_live_settlement_is_neither_expired_nor_closed(store: Store) -> None:
    row, ended = await see(store, "open"), await see(store, "ended", state=State.EXPIRED)
    await store.write(lambda c: requests.amend(c, ended.id, **ENDED_FOR_GOOD))
    intents = [await intend(store, row, "expire"), await intend(store, ended, "close")]
    assert await overdue(store, 5_000) == await closable(store, 5_000) == []
    for settlement_id in intents:
        await resolve(store, settlement_id, "failed")
    assert await overdue(store, 5_000) == [row.id]
    assert await closable(store, 5_000) == [ended.id]


async def test_a_purchase_that_is_under_way_does_not_keep_a_request_from_expiring(store: Store) -> None:
    row = await held(store)
    attempt_id = await buy(store, row)
    await intend(store, row, "purchase", attempt_id=attempt_id)
    assert await overdue(store, 5_000) == [row.id]


async def test_a_request_is_closed_when_its_retention_is_over(store: Store) -> None:
    row = await see(store, state=State.SETTLED, retention_slots=50)
    await store.write(lambda c: requests.amend(c, row.id, **ENDED_FOR_GOOD))
    assert await closable(store, 450) == []
    assert await closable(store, 451) == [row.id]


@pytest.mark.parametrize(
    "not_yet", [{"end_finalized": False}, {"closed": True}, {"ended_slot": None}], ids=["a fork", "done", "not seen"]
)
async def test_a_request_is_not_closed_while_its_end_may_be_forked_away_nor_twice(
    store: Store, not_yet: dict[str, Any]
) -> None:
    row = await see(store, state=State.SETTLED)
    await store.write(lambda c: requests.amend(c, row.id, **(ENDED_FOR_GOOD | not_yet)))
    assert await closable(store, 5_000) == []


async def test_a_close_that_has_landed_is_not_tried_again_before_it_is_final_or_forked_away(store: Store) -> None:
    row = await see(store, state=State.SETTLED)
    await store.write(lambda c: requests.amend(c, row.id, **ENDED_FOR_GOOD))
    settlement_id = await intend(store, row, "close")
    await resolve(store, settlement_id, "landed")
    assert await closable(store, 5_000) == []
    await resolve(store, settlement_id, "failed")
    assert await closable(store, 5_000) == [row.id]


async def test_an_end_that_is_not_final_yet_is_looked_at_again(store: Store) -> None:
    await see(store, "open")
    row = await see(store, "ended", state=State.EXPIRED)
    await store.write(lambda c: requests.amend(c, row.id, ended_slot=9))
    assert [found.id for found in await store.read(lambda c: duties.unfinalized(c, operator=OPERATOR, limit=9))] == [
        row.id
    ]
    await store.write(lambda c: requests.amend(c, row.id, end_finalized=True))
    assert await store.read(lambda c: duties.unfinalized(c, operator=OPERATOR, limit=9)) == []


async def test_a_job_whose_request_has_ended_is_an_orphan_until_it_is_over(store: Store) -> None:
    row = await held(store)
    attempt_id = await buy(store, row)
    assert await store.read(lambda c: duties.orphans(c, operator=OPERATOR, limit=9)) == []
    await store.write(lambda c: requests.force(c, row.id, State.CANCELLED, now_ms=NOW, slot=1, event="ended"))
    ((owner, orphan),) = await store.read(lambda c: duties.orphans(c, operator=OPERATOR, limit=9))
    assert (owner.id, owner.state, orphan.id) == (row.id, State.CANCELLED, attempt_id)
    await store.write(lambda c: attempts.finish(c, attempt_id, "cancelled", cost_lamports=1, now_ms=NOW))
    assert await store.read(lambda c: duties.orphans(c, operator=OPERATOR, limit=9)) == []


async def test_requests_are_found_by_their_ids(store: Store) -> None:
    first, second = await see(store, "a"), await see(store, "b")
    found = await store.read(lambda c: requests.by_ids(c, [first.id, second.id, 404]))
    assert found == {first.id: first, second.id: second}


async def test_an_intent_that_is_given_back_may_get_other_arguments(store: Store) -> None:
    await intend(store, await see(store), "record")
    taken = await store.write(
        lambda c: settlements.take_pending(c, owner="me", now_ms=NOW, lease_ms=1, limit=1, operator=OPERATOR)
    )
    released = await store.write(
        lambda c: settlements.release(c, taken[0], wake_at_ms=NOW, args={**taken[0].args, "alone": True})
    )
    assert released.args == {"alone": True}


async def overdue(store: Store, slot: int, limit: int = 9) -> list[int]:
    return [row.id for row in await store.read(lambda c: duties.overdue(c, operator=OPERATOR, slot=slot, limit=limit))]


async def closable(store: Store, slot: int) -> list[int]:
    return [row.id for row in await store.read(lambda c: duties.closable(c, operator=OPERATOR, slot=slot, limit=9))]


async def intend(store: Store, row: RequestRow, kind: str, attempt_id: int | None = None) -> int:
    def write(conn: Connection) -> int:
        intended = settlements.intend(
            conn,
            request_id=row.id,
            kind=kind,
            args={},
            operator=OPERATOR,
            deadline_slot=1_000,
            now_ms=NOW,
            attempt_id=attempt_id,
        )
        return intended.id

    return await store.write(write)


async def resolve(store: Store, settlement_id: int, state: str) -> None:
    await store.write(lambda c: settlements.resolve(c, settlement_id, state, now_ms=NOW))


async def buy(store: Store, row: RequestRow) -> int:
    def write(conn: Connection) -> int:
        intended = attempts.intend(
            conn, row, lane=0, provider="p", model="m", idempotency_key="key", quoted_lamports=1, now_ms=NOW
        )
        return intended.id

    return await store.write(write)
