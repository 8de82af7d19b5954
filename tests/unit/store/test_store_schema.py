"""The laws that the database itself holds, whatever the code does."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import Table, delete, insert, update
from store_world import NOW, see

from oracle.core.errors import OracleError
from oracle.store import journal as journal_queries
from oracle.store import marks, rows, schema
from oracle.store.engine import Store
from oracle.store.errors import REFUSED_BY_SCHEMA
from oracle.store.schema import attempts, journal, ledger, outputs, requests, settlements, signatures

ROWS = {
    schema.requests: rows.RequestRow,
    schema.attempts: rows.AttemptRow,
    schema.settlements: rows.SettlementRow,
    schema.signatures: rows.SignatureRow,
    schema.journal: rows.JournalRow,
    schema.ledger: rows.LedgerRow,
    schema.inputs: rows.InputRow,
    schema.outputs: rows.OutputRow,
    schema.receipts: rows.ReceiptRow,
    schema.gateway_calls: rows.CallRow,
    schema.gateway_jobs: rows.GatewayJobRow,
    schema.recordings: rows.RecordingRow,
}

ATTEMPT = {
    "lane": 0,
    "number": 1,
    "provider": "p",
    "model": "m",
    "idempotency_key": "k1",
    "state": "intended",
    "quoted_lamports": 1,
    "intended_at_ms": NOW,
    "wake_at_ms": NOW,
}
SETTLEMENT = {
    "operator": "o",
    "kind": "record",
    "args": {},
    "deadline_slot": 1,
    "state": "pending",
    "created_at_ms": NOW,
    "wake_at_ms": NOW,
}


@pytest.mark.parametrize("table", ROWS, ids=lambda table: table.name)
def test_a_row_has_the_columns_of_its_table_in_their_order(table: Table) -> None:
    assert list(ROWS[table]._fields) == table.columns.keys()


@pytest.mark.parametrize("state", ["intended", "unknown", "running"])
async def test_a_lane_has_one_live_attempt(store: Store, state: str) -> None:
    row = await see(store)
    await add(store, attempts, ATTEMPT, request_id=row.id, state=state)
    await refused(store, attempts, ATTEMPT, request_id=row.id, number=2, idempotency_key="k2")
    await add(store, attempts, ATTEMPT, request_id=row.id, lane=1, idempotency_key="k3")


async def test_attempts_that_have_ended_leave_their_lane_free(store: Store) -> None:
    row = await see(store)
    for number, state in enumerate(("succeeded", "failed", "cancelled"), start=1):
        await add(store, attempts, ATTEMPT, request_id=row.id, number=number, idempotency_key=f"k{number}", state=state)
    await add(store, attempts, ATTEMPT, request_id=row.id, number=4, idempotency_key="k4")


async def test_a_number_of_a_lane_and_an_idempotency_key_are_used_once(store: Store) -> None:
    row, other_row = await see(store, "a"), await see(store, "b")
    await add(store, attempts, ATTEMPT, request_id=row.id, state="failed")
    await refused(store, attempts, ATTEMPT, request_id=row.id, idempotency_key="k2")
    await refused(store, attempts, ATTEMPT, request_id=other_row.id)


@pytest.mark.parametrize("state", ["pending", "sent"])
async def test_a_request_has_one_live_settlement_of_any_kind(store: Store, state: str) -> None:
    row = await see(store)
    await add(store, settlements, SETTLEMENT, request_id=row.id, state=state)
    await refused(store, settlements, SETTLEMENT, request_id=row.id, kind="reject")
    await add(store, settlements, SETTLEMENT, request_id=row.id, kind="reject", state="failed")


async def test_a_purchase_names_the_attempt_that_it_pays(store: Store) -> None:
    row = await see(store)
    await refused(store, settlements, SETTLEMENT, request_id=row.id, kind="purchase")


@pytest.mark.parametrize(
    ("kind", "names"),
    [("job", "attempt_id"), ("fee_earned", "request_id"), ("tx_fee", "signature_id")],
)
async def test_nothing_is_booked_twice(store: Store, kind: str, names: str) -> None:
    row = await see(store)
    if names == "attempt_id":
        await add(store, attempts, ATTEMPT, request_id=row.id)
    if names == "signature_id":
        signature = {
            "signature": "s",
            "wire": b"w",
            "blockhash": "b",
            "last_valid_block_height": 1,
            "signed_slot": 1,
            "signed_at_ms": NOW,
            "state": "signed",
        }
        await add(store, signatures, signature)
    booking = {"at_ms": NOW, "kind": kind, "lamports": -1, names: 1}
    await add(store, ledger, booking)
    await refused(store, ledger, booking)


@pytest.mark.parametrize(
    ("table", "values"),
    [(attempts, ATTEMPT), (settlements, SETTLEMENT)],
    ids=["attempts", "settlements"],
)
async def test_nothing_belongs_to_a_request_that_does_not_exist(
    store: Store, table: Table, values: dict[str, Any]
) -> None:
    await refused(store, table, values, request_id=404)


@pytest.mark.parametrize("half", [{"lease_owner": "me"}, {"lease_until_ms": NOW}])
async def test_a_lease_is_whole_or_absent(store: Store, half: dict[str, Any]) -> None:
    row = await see(store)
    with pytest.raises(OracleError, match=REFUSED_BY_SCHEMA.code):
        await store.write(lambda c: c.execute(update(requests).where(requests.c.id == row.id).values(**half)))


async def test_a_state_that_nobody_knows_is_refused_by_the_database(store: Store) -> None:
    row = await see(store)
    with pytest.raises(OracleError, match=REFUSED_BY_SCHEMA.code):
        await store.write(lambda c: c.exec_driver_sql(f"UPDATE requests SET state = 'odd' WHERE id = {row.id}"))


@pytest.mark.parametrize("content", [{}, {"content": b"x", "path": "p"}], ids=["neither", "both"])
async def test_an_output_has_content_or_a_path(store: Store, content: dict[str, Any]) -> None:
    output = {"sha256": "00", "media_type": "text/plain", "bytes": 1, "created_at_ms": NOW}
    await refused(store, outputs, output, **content)


async def test_the_journal_can_only_be_added_to(store: Store) -> None:
    row = await see(store)
    before = await store.read(lambda c: journal_queries.of(c, row.id))
    for statement in (update(journal).values(event="forged"), delete(journal)):
        with pytest.raises(OracleError) as raised:
            await store.write(lambda c, s=statement: c.execute(s))  # type: ignore[misc]
        assert raised.value.error is REFUSED_BY_SCHEMA
    assert await store.read(lambda c: journal_queries.of(c, row.id)) == before


async def test_the_journal_keeps_any_json_and_the_order_of_events(store: Store) -> None:
    row = await see(store)
    details = ["text", {"a": [1, None, "ü"]}, [1.5], None, True]
    for n, detail in enumerate(details):
        await store.write(
            lambda c, n=n, d=detail: journal_queries.note(c, row.id, f"event-{n}", now_ms=NOW, detail=d)  # type: ignore[misc]
        )
    lines = (await store.read(lambda c: journal_queries.of(c, row.id)))[1:]
    assert [(line.event, line.detail) for line in lines] == [(f"event-{n}", d) for n, d in enumerate(details)]
    newest = await store.read(lambda c: journal_queries.newest(c, 2))
    assert [line.event for line in newest] == ["event-4", "event-3"]


async def test_what_is_noted_about_a_subject_is_noted_once(store: Store) -> None:
    for event, subject, new in (("odd", "a", True), ("odd", "a", False), ("odd", "b", True), ("even", "a", True)):
        noted = await store.write(
            lambda c, e=event, s=subject: journal_queries.note_once(c, None, e, s, now_ms=NOW, slot=7)  # type: ignore[misc]
        )
        assert noted is new
    assert len(await store.read(lambda c: journal_queries.of(c, None))) == 3


async def test_a_mark_is_what_it_was_set_to_last(store: Store) -> None:
    assert await store.read(lambda c: marks.get(c, "scan")) is None
    for value in (5, {"slot": 7}, [1, 2]):
        await store.write(lambda c, v=value: marks.put(c, "scan", v))  # type: ignore[misc]
        assert await store.read(lambda c: marks.get(c, "scan")) == value


async def add(store: Store, table: Table, values: dict[str, Any], **changes: Any) -> None:
    await store.write(lambda c: c.execute(insert(table).values(**(values | changes))))


async def refused(store: Store, table: Table, values: dict[str, Any], **changes: Any) -> None:
    with pytest.raises(OracleError) as raised:
        await add(store, table, values, **changes)
    assert raised.value.error is REFUSED_BY_SCHEMA
