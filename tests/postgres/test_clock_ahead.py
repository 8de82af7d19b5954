"""A daemon whose clock has jumped ahead takes nothing from those that share the database: the server's clock counts."""

from __future__ import annotations

import pytest
from store_world import MINUTE, OPERATOR, OTHER_OWNER, OWNER, see, take
from test_store_calls import begin

from oracle.core.lifecycle import State
from oracle.store import calls, leases, requests, settlements
from oracle.store.engine import Store
from oracle.store.rows import RequestRow, SettlementRow

pytestmark = pytest.mark.postgres
HOUR = 60 * MINUTE


@pytest.fixture
async def now_ms(store: Store) -> int:
    return await store.read(leases.server_ms)


async def requests_for_the_other(other: Store, now_ms: int) -> list[RequestRow]:
    return await other.write(
        lambda c: requests.take(
            c, [State.ADMITTED], operator=OPERATOR, owner=OTHER_OWNER, now_ms=now_ms, lease_ms=MINUTE, limit=9
        )
    )


async def intents(store: Store, owner: str, now_ms: int) -> list[SettlementRow]:
    return await store.write(
        lambda c: settlements.take_pending(c, owner=owner, now_ms=now_ms, lease_ms=MINUTE, limit=9)
    )


async def test_requests_that_another_holds_are_left_to_it(store: Store, other: Store, now_ms: int) -> None:
    await take(store, await see(store, state=State.ADMITTED), now_ms=now_ms)
    assert await requests_for_the_other(other, now_ms + HOUR) == []


async def test_requests_whose_lease_has_lapsed_are_taken(store: Store, other: Store, now_ms: int) -> None:
    await take(store, await see(store, state=State.ADMITTED), now_ms=now_ms - 2 * MINUTE)
    assert len(await requests_for_the_other(other, now_ms + HOUR)) == 1


async def test_settlements_that_another_holds_are_left_to_it(store: Store, other: Store, now_ms: int) -> None:
    row = await see(store)
    wanted = {"kind": "expire", "args": {}, "operator": OPERATOR, "deadline_slot": 1, "now_ms": now_ms}
    await store.write(lambda c: settlements.intend(c, request_id=row.id, **wanted))  # type: ignore[arg-type]
    assert len(await intents(store, OWNER, now_ms)) == 1
    assert await intents(other, OTHER_OWNER, now_ms + HOUR) == []


async def test_calls_of_another_are_not_taken_for_abandoned(store: Store, other: Store, now_ms: int) -> None:
    await store.write(lambda c: begin(c, owned_until_ms=now_ms + MINUTE))
    assert await other.read(lambda c: calls.abandoned(c, now_ms + HOUR, 9)) == []
