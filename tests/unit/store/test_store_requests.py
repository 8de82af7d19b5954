"""Requests are seen once, leased, and moved along only by whoever holds them."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from sqlalchemy import Connection
from store_world import MINUTE, NOW, OPERATOR, OTHER_OWNER, OWNER, held, now, see, sighting, take

from oracle.core.errors import OracleError
from oracle.core.lifecycle import State
from oracle.store import changes, journal, requests
from oracle.store.engine import Store
from oracle.store.errors import LEASE_LOST, ROW_MISSING
from oracle.store.requests import RequestRow

LATER = NOW + 2 * MINUTE


async def test_a_request_that_is_seen_twice_has_one_row(store: Store) -> None:
    assert await store.write(lambda c: requests.see(c, sighting()))
    assert not await store.write(lambda c: requests.see(c, sighting()))
    rows = await store.read(lambda c: requests.listing(c))
    assert [(row.address, row.created_slot, row.state) for row in rows] == [("request-1", 100, State.SEEN)]
    assert rows[0].account == b"\x00account\xff"


async def test_two_daemons_that_see_a_request_at_once_make_one_row(store: Store, other: Store) -> None:
    new = await asyncio.gather(
        *(each.write(lambda c: requests.see(c, sighting())) for each in (store, other) for _ in range(10))
    )
    assert sum(new) == 1
    assert len(await store.read(lambda c: requests.listing(c))) == 1


async def test_an_address_that_is_used_again_is_another_request(store: Store) -> None:
    first = await see(store, created_slot=100)
    second = await see(store, created_slot=900)
    assert first.id != second.id
    latest = await store.read(lambda c: requests.latest(c, "request-1"))
    assert latest is not None
    assert latest.created_slot == 900


async def test_the_first_sight_is_journalled_and_the_second_is_not(store: Store) -> None:
    row = await see(store)
    await see(store)
    lines = await store.read(lambda c: journal.of(c, row.id))
    assert [(line.event, line.new_state, line.slot) for line in lines] == [("seen", "seen", 101)]


async def test_a_newer_read_with_another_status_makes_a_sleeping_row_due(store: Store) -> None:
    row = await held(store)
    await store.write(lambda c: requests.postpone(c, row, now_ms=NOW, wake_at_ms=LATER))
    await store.write(lambda c: requests.see(c, sighting(chain_status=4, chain_slot=200, now_ms=NOW + 5)))
    found = await now(store, row)
    assert (found.chain_status, found.chain_slot, found.wake_at_ms) == (4, 200, NOW + 5)


async def test_a_newer_read_with_the_same_status_wakes_nobody(store: Store) -> None:
    row = await held(store)
    await store.write(lambda c: requests.postpone(c, row, now_ms=NOW, wake_at_ms=LATER))
    await store.write(lambda c: requests.see(c, sighting(chain_slot=200, now_ms=NOW + 5)))
    found = await now(store, row)
    assert (found.chain_slot, found.wake_at_ms) == (200, LATER)


async def test_an_older_read_changes_nothing(store: Store) -> None:
    row = await see(store, chain_slot=200, chain_status=2)
    await store.write(lambda c: requests.see(c, sighting(chain_slot=150, chain_status=0, now_ms=NOW + 5)))
    assert await now(store, row) == row


async def test_a_status_that_changes_while_a_row_is_held_wakes_it_when_it_is_given_back(store: Store) -> None:
    row = await held(store)
    await store.write(lambda c: requests.see(c, sighting(chain_status=4, chain_slot=200)))
    await store.write(lambda c: requests.postpone(c, row, now_ms=NOW + 7, wake_at_ms=LATER))
    assert (await now(store, row)).wake_at_ms == NOW + 7


async def test_a_u64_of_a_hostile_account_is_kept_and_not_refused(store: Store) -> None:
    row = await see(store, deadline_slot=2**64 - 1, fee_lamports=2**64 - 1)
    assert row.deadline_slot == row.fee_lamports == 2**63 - 1


async def test_rows_are_taken_with_the_earliest_deadline_first(store: Store) -> None:
    for address, deadline_slot in (("latest", 1_900), ("late", 900), ("soon", 300), ("soonest", 200)):
        await see(store, address, deadline_slot=deadline_slot)
    taken = await store.write(
        lambda c: requests.take(c, [State.SEEN], operator=OPERATOR, owner=OWNER, now_ms=NOW, lease_ms=MINUTE, limit=3)
    )
    assert [row.address for row in taken] == ["soonest", "soon", "late"]
    assert {(row.lease_owner, row.lease_until_ms, row.fence) for row in taken} == {(OWNER, NOW + MINUTE, 1)}


async def test_a_row_is_taken_only_in_the_states_that_are_asked_for_and_when_it_is_due(store: Store) -> None:
    await see(store, "other-state", state=State.DECLINED)
    sleeping = await held(store, "sleeping", state=State.SEEN)
    await store.write(lambda c: requests.postpone(c, sleeping, now_ms=NOW, wake_at_ms=NOW + 10))
    assert await _take(store, OWNER, NOW + 9) == []
    assert [row.address for row in await _take(store, OWNER, NOW + 10)] == ["sleeping"]


async def test_a_held_row_is_not_taken_until_its_lease_has_lapsed(store: Store, other: Store) -> None:
    await see(store)
    first = (await _take(store, OWNER, NOW))[0]
    assert await _take(other, OTHER_OWNER, NOW + MINUTE - 1) == []
    second = (await _take(other, OTHER_OWNER, NOW + MINUTE))[0]
    assert (second.id, second.fence, second.lease_owner) == (first.id, first.fence + 1, OTHER_OWNER)


async def test_many_takers_at_once_share_the_rows_without_overlap(store: Store, other: Store) -> None:
    def see_many(conn: object) -> None:
        for index in range(100):
            requests.see(conn, sighting(f"request-{index}"))  # type: ignore[arg-type]

    await store.write(see_many)
    batches = await asyncio.gather(
        *(
            each.write(
                lambda c, owner=owner: requests.take(  # type: ignore[misc]
                    c, [State.SEEN], operator=OPERATOR, owner=owner, now_ms=NOW, lease_ms=MINUTE, limit=7
                )
            )
            for each, owner in ((store, OWNER), (other, OTHER_OWNER)) * 10
        )
    )
    taken = [row.id for batch in batches for row in batch]
    assert len(taken) == len(set(taken)) == 100


async def test_a_stopped_holder_cannot_write_what_another_has_taken(store: Store, other: Store) -> None:
    stopped = await held(store)
    taker = await take(other, stopped, owner=OTHER_OWNER, now_ms=LATER)
    for write in (
        lambda c: requests.move(c, stopped, State.RUNNING, now_ms=LATER),
        lambda c: requests.postpone(c, stopped, now_ms=LATER, wake_at_ms=LATER),
        lambda c: requests.renew(c, stopped, LATER, MINUTE),
        lambda c: requests.release(c, stopped),
        lambda c: requests.count_attempts(c, [stopped]),
    ):
        with pytest.raises(OracleError) as raised:
            await store.write(write)
        assert raised.value.error is LEASE_LOST
    assert await now(store, taker) == taker


async def test_of_rows_put_off_together_those_that_are_held_no_more_are_left_alone(store: Store, other: Store) -> None:
    lost = await held(store, "lost")
    taker = await take(other, lost, owner=OTHER_OWNER, now_ms=LATER)
    kept, woken = await held(store, "kept"), await held(store, "woken")
    await store.write(lambda c: requests.see(c, sighting("woken", chain_status=4, chain_slot=200)))
    later = [changes.Postponement(row, NOW + 7, LATER, is_failure=False) for row in (lost, kept, woken)]

    assert await store.write(lambda c: requests.postpone_held(c, later)) == 2

    assert await now(store, taker) == taker
    found = await now(store, kept)
    assert (found.wake_at_ms, found.lease_owner, found.retries) == (LATER, None, 0)
    assert (await now(store, woken)).wake_at_ms == NOW + 7


async def test_a_holder_that_takes_its_own_row_again_loses_the_first_lease(store: Store) -> None:
    first = await held(store)
    second = await take(store, first, owner=OWNER, now_ms=LATER)
    with pytest.raises(OracleError, match=LEASE_LOST.code):
        await store.write(lambda c: requests.move(c, first, State.RUNNING, now_ms=LATER))
    await store.write(lambda c: requests.move(c, second, State.RUNNING, now_ms=LATER))


async def test_a_row_that_was_read_and_not_taken_cannot_be_moved(store: Store) -> None:
    row = await see(store)
    with pytest.raises(OracleError, match=LEASE_LOST.code):
        await store.write(lambda c: requests.move(c, row, State.ADMITTED, now_ms=NOW))


async def test_a_holder_whose_lease_lapsed_may_still_write_while_nobody_took_the_row(store: Store) -> None:
    row = await held(store)
    moved = await store.write(lambda c: requests.move(c, row, State.RUNNING, now_ms=NOW + 10 * MINUTE))
    assert moved.state is State.RUNNING


async def test_a_move_writes_state_columns_and_journal_and_gives_the_row_back(store: Store) -> None:
    first = await held(store)
    await store.write(lambda c: requests.postpone(c, first, now_ms=NOW, wake_at_ms=NOW, code="ORC-X-001"))
    row = await take(store, first)
    moved = await store.write(
        lambda c: requests.move(
            c, row, State.REFUSED, now_ms=NOW + 3, slot=500, code="ORC-X-002", detail={"why": "no"}, reject_reason=6
        )
    )
    assert moved == await now(store, row)
    assert (moved.state, moved.state_since_ms, moved.wake_at_ms) == (State.REFUSED, NOW + 3, NOW + 3)
    assert (moved.lease_owner, moved.lease_until_ms, moved.retries, moved.reject_reason) == (None, None, 0, 6)
    assert (moved.error_code, moved.error_detail) == ("ORC-X-002", '{"why": "no"}')
    line = (await store.read(lambda c: journal.of(c, row.id)))[-1]
    assert (line.event, line.old_state, line.new_state) == ("refused", "admitted", "refused")
    assert (line.at_ms, line.slot, line.code, line.detail) == (NOW + 3, 500, "ORC-X-002", {"why": "no"})


async def test_a_move_that_the_lifecycle_forbids_changes_nothing(store: Store) -> None:
    row = await held(store)
    with pytest.raises(OracleError, match="ORC-CORE-001"):
        await store.write(lambda c: requests.move(c, row, State.SETTLING, now_ms=NOW))
    assert await now(store, row) == row


async def test_a_row_may_be_kept_through_a_move(store: Store) -> None:
    row = await held(store)
    kept = await store.write(lambda c: requests.move(c, row, State.RUNNING, now_ms=NOW, keep_lease=True))
    assert (kept.lease_owner, kept.fence) == (OWNER, row.fence)
    moved = await store.write(lambda c: requests.move(c, kept, State.COMPUTED, now_ms=NOW))
    assert (moved.state, moved.lease_owner) == (State.COMPUTED, None)
    with pytest.raises(OracleError, match=LEASE_LOST.code):
        await store.write(lambda c: requests.postpone(c, kept, now_ms=NOW, wake_at_ms=NOW))


async def test_repeated_failures_are_counted_and_journalled_once(store: Store) -> None:
    row = await held(store)
    for step, code in enumerate(["ORC-X-001", "ORC-X-001", "ORC-X-002"], start=1):
        await store.write(
            lambda c, row=row, code=code: requests.postpone(c, row, now_ms=NOW, wake_at_ms=NOW, code=code)  # type: ignore[misc]
        )
        row = await take(store, row)
        assert (row.retries, row.state) == (step, State.ADMITTED)
    await store.write(lambda c: requests.postpone(c, row, now_ms=NOW, wake_at_ms=NOW, is_failure=False, route_index=2))
    row = await now(store, row)
    assert (row.retries, row.route_index) == (3, 2)
    lines = await store.read(lambda c: journal.of(c, row.id))
    assert [line.code for line in lines] == [None, "ORC-X-001", "ORC-X-002"]


async def test_a_released_row_can_be_taken_at_once(store: Store, other: Store) -> None:
    row = await held(store)
    await store.write(lambda c: requests.release(c, row))
    assert (await take(other, row, owner=OTHER_OWNER)).lease_owner == OTHER_OWNER


async def test_a_renewed_lease_lasts_longer(store: Store, other: Store) -> None:
    row = await held(store, state=State.SEEN)
    await store.write(lambda c: requests.renew(c, row, NOW + MINUTE - 1, MINUTE))
    assert await _take(other, OTHER_OWNER, NOW + MINUTE) == []
    assert len(await _take(other, OTHER_OWNER, NOW + 2 * MINUTE)) == 1


async def test_a_fact_from_the_chain_takes_a_row_from_its_holder(store: Store) -> None:
    row = await held(store, state=State.RUNNING)
    forced = await store.write(
        lambda c: requests.force(c, row.id, State.CANCELLED, now_ms=NOW, slot=300, event="ended", ended_slot=299)
    )
    assert forced is not None
    assert (forced.state, forced.ended_slot, forced.lease_owner) == (State.CANCELLED, 299, None)
    assert forced.fence == row.fence + 1
    with pytest.raises(OracleError, match=LEASE_LOST.code):
        await store.write(lambda c: requests.move(c, row, State.COMPUTED, now_ms=NOW))
    assert (await store.read(lambda c: journal.of(c, row.id)))[-1].event == "ended"


async def test_a_fact_that_is_told_twice_is_written_once(store: Store, other: Store) -> None:
    row = await see(store)
    results = await asyncio.gather(
        *(
            each.write(lambda c: requests.force(c, row.id, State.EXPIRED, now_ms=NOW, slot=1, event="ended"))
            for each in (store, other) * 5
        )
    )
    assert sum(result is not None for result in results) == 1
    assert [line.event for line in await store.read(lambda c: journal.of(c, row.id))] == ["seen", "ended"]


async def test_a_fact_that_the_lifecycle_forbids_is_refused(store: Store) -> None:
    row = await see(store, state=State.VANISHED)
    with pytest.raises(OracleError, match="ORC-CORE-001"):
        await store.write(lambda c: requests.force(c, row.id, State.SEEN, now_ms=NOW, slot=1, event="back"))


async def test_a_fact_about_a_request_that_is_not_there_is_refused(store: Store) -> None:
    for write in (
        lambda c: requests.force(c, 99, State.SEEN, now_ms=NOW, slot=1, event="back"),
        lambda c: requests.amend(c, 99, closed=True),
    ):
        with pytest.raises(OracleError) as raised:
            await store.write(write)
        assert raised.value.error is ROW_MISSING


async def test_a_fact_beside_the_state_leaves_the_holder_its_row(store: Store) -> None:
    row = await held(store)
    await store.write(lambda c: requests.amend(c, row.id, closed=True, ended_slot=7))
    await store.write(lambda c: requests.move(c, row, State.RUNNING, now_ms=NOW))
    moved = await now(store, row)
    assert (moved.closed, moved.ended_slot) == (True, 7)


@pytest.mark.parametrize("column", ["state", "fence", "lease_owner"])
async def test_state_and_lease_are_not_amended(store: Store, column: str) -> None:
    row = await see(store)
    with pytest.raises(ValueError, match=column):
        await store.write(lambda c: requests.amend(c, row.id, **{column: None}))


async def test_requests_are_listed_newest_first_and_by_page(store: Store) -> None:
    rows = [await see(store, f"request-{index}") for index in range(5)]
    page = await store.read(lambda c: requests.listing(c, limit=2))
    assert [row.id for row in page] == [rows[4].id, rows[3].id]
    rest = await store.read(lambda c: requests.listing(c, limit=9, before_id=page[-1].id))
    assert [row.id for row in rest] == [rows[2].id, rows[1].id, rows[0].id]


async def test_requests_are_listed_by_state_queue_and_requester(store: Store) -> None:
    await see(store, "a", queue="q1", requester="r1")
    await see(store, "b", queue="q2", requester="r1", state=State.EXPIRED)
    await see(store, "c", queue="q2", requester="r2")

    async def addresses(**filters: object) -> list[str]:
        return [row.address for row in await store.read(lambda c: requests.listing(c, limit=9, **filters))]  # type: ignore[arg-type]

    assert await addresses(queue="q2") == ["c", "b"]
    assert await addresses(states=[State.EXPIRED]) == ["b"]
    assert await addresses(states=[]) == []
    assert await addresses(requester="r1", states=[State.SEEN]) == ["a"]


async def test_every_state_is_counted(store: Store) -> None:
    await see(store, "a")
    await see(store, "b")
    await see(store, "c", state=State.EXPIRED)
    counts = await store.read(requests.counts)
    assert counts == dict.fromkeys(State, 0) | {State.SEEN: 2, State.EXPIRED: 1}


async def test_only_requests_that_have_not_ended_count_against_a_requester(store: Store) -> None:
    await see(store, "a")
    await see(store, "b", state=State.DECLINED)
    await see(store, "c", state=State.SETTLED)
    await see(store, "d", requester="somebody-else")
    assert await store.read(lambda c: requests.open_counts_of(c, ["requester-1"], OPERATOR)) == {"requester-1": 2}


async def test_an_account_may_exist_until_it_is_known_to_be_closed(store: Store) -> None:
    ended = await see(store, "ended", state=State.EXPIRED)
    open_ = await see(store, "open")
    gone = await see(store, "gone", state=State.EXPIRED)
    await see(store, "elsewhere", queue="queue-2")
    await store.write(lambda c: requests.amend(c, gone.id, closed=True))

    async def ids(**filters: object) -> list[int]:
        return [row.id for row in await store.read(lambda c: requests.not_closed(c, ["queue-1"], **filters))]  # type: ignore[arg-type]

    assert await ids() == [ended.id, open_.id]
    assert await ids(ended=True) == [ended.id]
    assert await ids(ended=False) == [open_.id]
    assert await ids(limit=1) == [ended.id]
    assert await ids(after_id=ended.id) == [open_.id]
    known = await store.read(lambda c: requests.known(c, ["queue-1"], OPERATOR))
    assert {(row.address, row.created_slot, row.chain_status, row.chain_slot) for row in known} == {
        ("ended", 100, 0, 101),
        ("open", 100, 0, 101),
    }


async def test_the_next_wake_is_when_a_row_is_both_due_and_free(store: Store) -> None:
    states = [State.SEEN]
    assert await store.read(lambda c: requests.next_wake_ms(c, states, OPERATOR)) is None
    row = await held(store, state=State.SEEN)
    assert await store.read(lambda c: requests.next_wake_ms(c, states, OPERATOR)) == NOW + MINUTE
    await store.write(lambda c: requests.postpone(c, row, now_ms=NOW, wake_at_ms=NOW + 5))
    assert await store.read(lambda c: requests.next_wake_ms(c, states, OPERATOR)) == NOW + 5


async def test_a_row_that_is_put_off_and_kept_is_due_to_its_holder_alone_until_it_is_let_go(store: Store) -> None:
    async def keep(row: RequestRow) -> None:
        await store.write(
            lambda c: requests.postpone(c, row, now_ms=NOW, wake_at_ms=NOW + 5, kept_until_ms=NOW + MINUTE)
        )

    async def wakes(owner: str) -> int | None:
        return await store.read(lambda c: requests.next_wake_ms(c, [State.SEEN], OPERATOR, owner))

    await see(store)
    (row,) = await _take(store, "mine", NOW)
    await keep(row)
    assert (await wakes("mine"), await wakes("another")) == (NOW + 5, NOW + MINUTE)
    assert not await _take(store, "another", NOW + 5)
    (again,) = await _take(store, "mine", NOW + 5)
    assert not await _take(store, "mine", NOW + 5)
    with pytest.raises(OracleError) as lost:
        await keep(row)
    assert lost.value.error is LEASE_LOST
    await keep(again)
    (rescued,) = await _take(store, "another", NOW + MINUTE)
    await store.write(lambda c: requests.postpone(c, rescued, now_ms=NOW, wake_at_ms=NOW, kept_until_ms=NOW + MINUTE))
    await store.write(lambda c: requests.let_go(c, "another"))
    assert len(await _take(store, "mine", NOW)) == 1


async def test_a_new_row_can_begin_in_the_hands_of_whoever_saw_it(store: Store) -> None:
    lease = {"lease_owner": "mine", "lease_until_ms": NOW + MINUTE}
    row, again = await store.write(lambda c: requests.add_all(c, [sighting(**lease), sighting(**lease)]))
    assert row is not None
    assert again is None
    assert not await _take(store, "another", NOW)
    await store.write(lambda c: requests.move(c, row, State.ADMITTED, now_ms=NOW))
    assert (await now(store, row)).lease_owner is None


async def test_of_many_requests_that_are_seen_at_once_each_has_one_row(store: Store) -> None:
    known = await see(store, "request-70")
    names = [*(f"request-{n}" for n in range(150)), "request-3", "request-149"]
    new = await store.write(lambda c: requests.add_all(c, [sighting(name, created_slot=100) for name in names]))
    assert [name for name, row in zip(names, new, strict=True) if row is None] == [known.address, *names[150:]]
    assert [row.address for row in new if row] == [name for name in names[:150] if name != known.address]


async def test_the_newer_of_two_looks_at_once_stands(store: Store) -> None:
    looks = [sighting(chain_slot=150), sighting(chain_slot=200, chain_status=1)]
    assert await store.write(lambda c: requests.see_all(c, looks)) == [True, False]
    row = await store.read(lambda c: requests.latest(c, looks[0].address))
    assert row is not None
    assert (row.chain_slot, row.chain_status) == (200, 1)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"deadline_slot": 2**64 - 1, "fee_lamports": 2**64 - 1},
        {"state": State.PARKED, "code": "ORC-X-001", "detail": {"why": ["ä", None]}},
        {"claim_required": True, "account": b"\x00\xff", "lease_owner": "mine", "lease_until_ms": NOW + MINUTE},
        {"state": State.RUNNING, "through": (State.SEEN, State.ADMITTED), "detail": "p m", "attempts_made": 1},
    ],
)
async def test_the_row_that_is_returned_is_the_one_that_is_kept(store: Store, changes: dict[str, Any]) -> None:
    """With every value that the table itself gives, and those that it changes."""
    (row,) = await store.write(lambda c: requests.add_all(c, [sighting(**changes)]))
    assert row is not None
    assert row == await store.read(lambda c: requests.by_id(c, row.id))
    assert row == requests.unkept(sighting(**changes))._replace(id=row.id)


async def test_the_journal_tells_of_every_state_that_a_new_row_has_come_through(store: Store) -> None:
    begun = sighting(state=State.RUNNING, through=(State.SEEN, State.ADMITTED), detail="provider model")
    (row,) = await store.write(lambda c: requests.add_all(c, [begun]))
    assert row is not None
    lines = await store.read(lambda c: journal.of(c, row.id))
    assert [(line.event, line.old_state, line.new_state, line.detail) for line in lines] == [
        ("seen", None, "seen", None),
        ("admitted", "seen", "admitted", None),
        ("running", "admitted", "running", "provider model"),
    ]
    with pytest.raises(OracleError) as impossible:
        await store.write(lambda c: requests.add_all(c, [begun._replace(address="b", through=(State.SEEN,))]))
    assert impossible.value.code == "ORC-CORE-001"


async def test_a_row_that_is_known_is_not_leased_by_being_seen(store: Store) -> None:
    row = await see(store)
    again = sighting(chain_slot=200, chain_status=1, lease_owner="mine", lease_until_ms=NOW + MINUTE)
    assert not await store.write(lambda c: requests.see(c, again))
    assert (await now(store, row)).lease_owner is None


async def test_a_daemon_that_ends_lets_go_of_what_it_held_before_anything_was_bought_for_it(store: Store) -> None:
    states = (State.SEEN, State.ADMITTED, State.CLAIMED, State.RUNNING)
    rows = {state: await held(store, state, state=state) for state in states}
    theirs = await take(store, await see(store, "theirs"), owner=OTHER_OWNER)
    await store.write(lambda c: requests.let_go(c, OWNER))
    assert {state: (await now(store, row)).lease_owner for state, row in rows.items()} == {
        State.SEEN: None,
        State.ADMITTED: None,
        State.CLAIMED: None,
        State.RUNNING: OWNER,
    }
    assert (await now(store, theirs)).lease_owner == OTHER_OWNER


async def _take(store: Store, owner: str, now_ms: int) -> list[RequestRow]:
    return await store.write(
        lambda c: requests.take(
            c, [State.SEEN], operator=OPERATOR, owner=owner, now_ms=now_ms, lease_ms=MINUTE, limit=10
        )
    )


async def test_operators_that_share_a_database_take_only_rows_of_their_own(store: Store) -> None:
    """Both may claim a request of a queue with claims; each follows it to its end in a row of its own."""
    ours, theirs = await see(store), await see(store, operator="other-key")
    assert ours.id != theirs.id
    assert not await store.write(lambda c: requests.see(c, sighting(operator="other-key")))
    taken = await take(store, theirs, owner=OTHER_OWNER)
    assert (taken.id, taken.operator) == (theirs.id, "other-key")
    assert (await now(store, ours)).lease_owner is None
    await store.write(lambda c: requests.move(c, taken, State.ADMITTED, now_ms=NOW))
    assert (await now(store, ours)).state is State.SEEN
    assert await store.read(lambda c: requests.next_wake_ms(c, [State.ADMITTED], OPERATOR)) is None
    assert await store.read(lambda c: requests.open_counts_of(c, [ours.requester], OPERATOR)) == {ours.requester: 1}
    await store.write(lambda c: requests.amend(c, theirs.id, closed=True))
    assert len(await store.read(lambda c: requests.known(c, ["queue-1"], OPERATOR))) == 1
    assert await store.read(lambda c: requests.known(c, ["queue-1"], "other-key")) == []


async def test_rows_of_before_rows_had_an_operator_are_adopted_by_the_first_that_starts(store: Store) -> None:
    row = await see(store, operator="")
    assert await store.write(lambda c: requests.adopt(c, OPERATOR)) == 1
    assert await store.write(lambda c: requests.adopt(c, "other-key")) == 0
    assert (await now(store, row)).operator == OPERATOR


async def test_rows_that_are_looked_at_again_and_again_take_turns(store: Store) -> None:
    for name, deadline_slot in (("urgent", 500), ("patient", 900)):
        await see(store, name, state=State.RUNNING, deadline_slot=deadline_slot)

    async def one(now_ms: int) -> RequestRow:
        def take_one(c: Connection) -> RequestRow:
            wanted = {"operator": OPERATOR, "owner": OWNER, "now_ms": now_ms, "lease_ms": MINUTE, "limit": 1}
            (row,) = requests.take(c, [State.RUNNING], in_turn=True, **wanted)  # type: ignore[arg-type]
            requests.postpone(c, row, now_ms=now_ms, wake_at_ms=now_ms + 1, is_failure=False)
            return row

        return await store.write(take_one)

    looked_at = [(await one(NOW + 10 * turn)).address for turn in range(4)]
    assert looked_at == ["urgent", "patient", "urgent", "patient"]
