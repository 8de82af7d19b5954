"""Answers on their way into the chain: one under an address, one transaction at a time."""

from __future__ import annotations

from typing import Any

import kept_answers
import pytest
from sqlalchemy import Connection
from store_world import MINUTE, NOW, see

from oracle.core.errors import OracleError
from oracle.core.lifecycle import State
from oracle.store import recordings, requests, results, settlements
from oracle.store.changes import Signing
from oracle.store.engine import Store
from oracle.store.errors import LEASE_LOST, REFUSED_BY_SCHEMA
from oracle.store.rows import RecordingRow
from oracle.store.schema import RecordingState


def put(conn: Connection, address: str = "address-1", call_id: str = "call-1", **changes: Any) -> bool:
    return kept_answers.put(conn, address, call_id, now_ms=NOW, **changes)


def sign(conn: Connection, row: RecordingRow, signature: str) -> RecordingRow:
    signing = Signing(signature, b"wire", "hash", 150, 1, fee_lamports=5_000, fences={}, now_ms=NOW)
    signed = settlements.record_signature(conn, signing)
    return recordings.signed(conn, row, signed.id, now_ms=NOW)


async def kept(store: Store) -> RecordingRow:
    await store.write(put)
    row = await store.read(lambda c: recordings.find(c, "address-1"))
    assert row is not None
    return row


async def test_an_address_holds_the_first_answer_for_ever(store: Store) -> None:
    row = await kept(store)
    assert not await store.write(lambda c: put(c, call_id="call-2", output=b"43"))
    assert await store.read(lambda c: recordings.find(c, "address-1")) == row
    assert row.output == b"42"
    assert await store.read(lambda c: recordings.has(c, "address-1"))
    assert not await store.read(lambda c: recordings.has(c, "address-2"))


async def test_a_second_transaction_is_refused_while_the_first_may_land(store: Store) -> None:
    row = await kept(store)
    sent = await store.write(lambda c: sign(c, row, "s1"))
    for stale in (row, sent):
        with pytest.raises(OracleError) as raised:
            await store.write(lambda c, stale=stale: sign(c, stale, "s2"))  # type: ignore[misc]
        assert raised.value.error is LEASE_LOST
    assert sent.signature_id is not None
    with pytest.raises(OracleError):
        await store.read(lambda c: settlements.signature_by_id(c, sent.signature_id + 1))


@pytest.mark.parametrize("state", ["expired", "failed"])
async def test_a_dead_transaction_leaves_room_for_the_next(store: Store, state: str) -> None:
    row = await kept(store)
    sent = await store.write(lambda c: sign(c, row, "s1"))
    waiting = await store.write(lambda c: recordings.move(c, sent, RecordingState.WAITING, now_ms=NOW))
    with pytest.raises(OracleError):
        await store.write(lambda c: sign(c, waiting, "s2"))
    await store.write(lambda c: settlements.mark_signature(c, sent.signature_id, state))
    again = await store.write(lambda c: sign(c, waiting, "s2"))
    assert (again.state, again.signature_id != sent.signature_id) == (RecordingState.SENT, True)


async def test_what_may_have_been_sent_has_its_bytes_kept(store: Store) -> None:
    row = await kept(store)
    with pytest.raises(OracleError) as raised:
        await store.write(lambda c: recordings.move(c, row, RecordingState.SENT, now_ms=NOW))
    assert raised.value.error is REFUSED_BY_SCHEMA


async def test_a_recording_is_due_when_its_time_has_come(store: Store) -> None:
    row = await kept(store)
    later = await store.write(
        lambda c: recordings.postpone(c, row, wake_at_ms=NOW + MINUTE, code="ORC-X-001", detail="why", count=True)
    )
    assert (later.refusals, later.error_code) == (1, "ORC-X-001")
    waiting = RecordingState.WAITING
    assert await store.read(lambda c: recordings.due(c, waiting, "gateway", NOW, 10)) == []
    assert await store.read(lambda c: recordings.due(c, waiting, "another key", NOW + MINUTE, 10)) == []
    assert await store.read(lambda c: recordings.due(c, waiting, "gateway", NOW + MINUTE, 10)) == [later]
    assert (await store.read(recordings.counts))[RecordingState.WAITING] == 1


async def test_a_recording_is_over_when_its_newest_request_has_ended_for_good(store: Store) -> None:
    """A fork may have dropped the request, and made it again in another slot."""
    row = await kept(store)
    landed = await store.write(lambda c: recordings.move(c, row, RecordingState.LANDED, now_ms=NOW))

    async def over() -> list[State]:
        found = await store.read(lambda c: recordings.over(c, "gateway", 10))
        assert all(recording == landed for recording, _ in found)
        return [state for _, state in found]

    dropped = await see(store, "address-1", created_slot=100, state=State.SEEN)
    await store.write(
        lambda c: requests.force(c, dropped.id, State.VANISHED, now_ms=NOW, slot=1, event="x", end_finalized=True)
    )
    made_again = await see(store, "address-1", created_slot=102, state=State.SETTLING)
    assert await over() == []
    await store.write(lambda c: requests.force(c, made_again.id, State.SETTLED, now_ms=NOW, slot=2, event="x"))
    assert await over() == []
    await store.write(lambda c: requests.amend(c, made_again.id, end_finalized=True))
    assert await over() == [State.SETTLED]


async def test_a_prompt_is_served_once_a_request_on_chain_names_it(store: Store) -> None:
    await store.write(lambda c: put(c, input_sha256="ab"))
    for name in ("ab", "cd"):
        await store.write(lambda c, n=name: results.put_input(c, n, b"prompt", origin="o", now_ms=NOW))  # type: ignore[misc]
    assert await store.read(lambda c: recordings.servable_input(c, "ab")) is None
    await see(store, "address-1")
    await see(store, "address-2")
    found = await store.read(lambda c: recordings.servable_input(c, "ab"))
    assert found is not None
    assert found.content == b"prompt"
    assert await store.read(lambda c: recordings.servable_input(c, "cd")) is None


async def test_only_what_is_done_is_pruned(store: Store) -> None:
    row = await kept(store)
    assert await store.write(lambda c: recordings.prune(c, NOW + 1)) == 0
    await store.write(lambda c: recordings.move(c, row, RecordingState.ENDED, now_ms=NOW))
    assert await store.write(lambda c: recordings.prune(c, NOW)) == 0
    assert await store.write(lambda c: recordings.prune(c, NOW + 1)) == 1
