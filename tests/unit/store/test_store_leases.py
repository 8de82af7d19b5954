"""What a dead daemon held is free at once for whoever holds the database alone."""

from __future__ import annotations

import pytest
from store_world import MINUTE, NOW, OPERATOR, OTHER_OWNER, held, now, take

from oracle.core.errors import OracleError
from oracle.core.lifecycle import State
from oracle.store import leases, requests, settlements
from oracle.store.engine import Store
from oracle.store.errors import LEASE_LOST


async def test_rows_and_intents_of_a_dead_daemon_can_be_taken_at_once(store: Store) -> None:
    row = await held(store)
    await store.write(
        lambda c: settlements.intend(
            c, request_id=row.id, kind="expire", args={}, operator=OPERATOR, deadline_slot=1, now_ms=NOW
        )
    )

    async def take_intents(owner: str) -> list[settlements.SettlementRow]:
        return await store.write(
            lambda c: settlements.take_pending(c, owner=owner, now_ms=NOW, lease_ms=60_000, limit=9)
        )

    assert len(await take_intents("dead")) == 1
    assert await take_intents(OTHER_OWNER) == []
    assert await store.write(lambda c: leases.take_over(c, NOW)) == 2
    assert (await take(store, await now(store, row), owner=OTHER_OWNER)).lease_owner == OTHER_OWNER
    assert len(await take_intents(OTHER_OWNER)) == 1


async def test_a_holder_that_was_not_dead_after_all_finds_its_lease_lost(store: Store) -> None:
    row = await held(store)
    await store.write(lambda c: leases.take_over(c, NOW))
    with pytest.raises(OracleError) as caught:
        await store.write(lambda c: requests.move(c, row, State.REFUSED, now_ms=NOW))
    assert caught.value.error is LEASE_LOST


async def test_where_nothing_is_held_nothing_is_freed(store: Store) -> None:
    row = await held(store)
    await store.write(lambda c: requests.release(c, row))
    fence = (await now(store, row)).fence
    assert await store.write(lambda c: leases.take_over(c, NOW)) == 0
    assert (await now(store, row)).fence == fence


async def test_what_was_put_off_by_a_clock_that_has_been_set_back_since_is_due(store: Store) -> None:
    """It would wait for the hour by which the clock was set back, and its deadline with it."""
    row = await held(store)
    hour = 60 * MINUTE
    await store.write(lambda c: requests.postpone(c, row, now_ms=NOW + hour, wake_at_ms=NOW + hour + 500))
    intent = await store.write(
        lambda c: settlements.intend(
            c, request_id=row.id, kind="expire", args={}, operator=OPERATOR, deadline_slot=1, now_ms=NOW + hour
        )
    )
    assert await store.write(lambda c: leases.take_over(c, NOW)) == 2
    assert (await now(store, row)).wake_at_ms == NOW
    assert (await store.read(lambda c: settlements.get(c, intent.id))).wake_at_ms == NOW


async def test_what_waits_for_a_moment_goes_on_waiting(store: Store) -> None:
    row = await held(store)
    await store.write(lambda c: requests.postpone(c, row, now_ms=NOW, wake_at_ms=NOW + 30_000))
    assert await store.write(lambda c: leases.take_over(c, NOW)) == 0
    assert (await now(store, row)).wake_at_ms == NOW + 30_000
