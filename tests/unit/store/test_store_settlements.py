"""What changes the chain is written down before it is sent, and no second signature is made while a first may land."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import pytest
from sqlalchemy import Connection
from store_world import MINUTE, NOW, OPERATOR, OTHER_OWNER, OWNER, held, see

from oracle.core.errors import OracleError
from oracle.core.settlement import SignatureState
from oracle.store import attempts, ledger, settlements
from oracle.store.changes import Signing
from oracle.store.engine import Store
from oracle.store.errors import LEASE_LOST, ROW_MISSING, SETTLEMENT_EXISTS, SIGNATURE_OPEN
from oracle.store.ledger import SharedFee
from oracle.store.requests import RequestRow
from oracle.store.schema import LedgerKind, SettlementKind, SettlementState
from oracle.store.settlements import SettlementRow, SignatureRow

_numbers = itertools.count()


async def test_an_intent_keeps_what_is_to_be_done(store: Store) -> None:
    row = await see(store)
    settlement = await intend(store, row, args={"output_hash": "ab", "completed_at": 5})
    assert (settlement.kind, settlement.state) == (SettlementKind.RECORD, SettlementState.PENDING)
    assert settlement.args == {"output_hash": "ab", "completed_at": 5}
    assert await store.read(lambda c: settlements.live_of(c, row.id)) == settlement
    assert await store.read(lambda c: settlements.of(c, row.id)) == [settlement]


async def test_a_request_has_one_live_settlement(store: Store) -> None:
    row = await see(store)
    first = await intend(store, row, "record")
    with pytest.raises(OracleError) as raised:
        await intend(store, row, "reject")
    assert raised.value.error is SETTLEMENT_EXISTS
    await sign(store, await take(store))
    with pytest.raises(OracleError, match=SETTLEMENT_EXISTS.code):
        await intend(store, row, "reject")
    await resolve(store, first, "failed")
    await intend(store, row, "reject")


async def test_two_daemons_that_settle_at_once_make_one_intent(store: Store, other: Store) -> None:
    row = await see(store)
    results = await asyncio.gather(*(intend(each, row) for each in (store, other) * 5), return_exceptions=True)
    assert sum(isinstance(result, SettlementRow) for result in results) == 1


async def test_a_purchase_on_chain_does_not_block_the_expiry_of_its_request(store: Store) -> None:
    row = await held(store)
    attempt_id = await attempt(store, row)
    purchase = await intend(store, row, "purchase", attempt_id=attempt_id)
    expiry = await intend(store, row, "expire")
    assert await store.read(lambda c: settlements.live_of(c, row.id)) == expiry
    assert await store.read(lambda c: settlements.live_purchase(c, attempt_id)) == purchase


async def test_an_attempt_has_one_live_purchase(store: Store) -> None:
    row = await held(store)
    attempt_id = await attempt(store, row)
    await intend(store, row, "purchase", attempt_id=attempt_id)
    with pytest.raises(OracleError, match=SETTLEMENT_EXISTS.code):
        await intend(store, row, "purchase", attempt_id=attempt_id)


async def test_the_most_urgent_intents_are_taken_first(store: Store) -> None:
    for address, deadline_slot in (("late", 900), ("soon", 300), ("soonest", 200)):
        await intend(store, await see(store, address), deadline_slot=deadline_slot)
    taken = await take(store, limit=2)
    assert [settlement.deadline_slot for settlement in taken] == [200, 300]
    assert {(settlement.lease_owner, settlement.fence) for settlement in taken} == {(OWNER, 1)}


async def test_a_daemon_takes_the_intents_of_its_own_key_only(store: Store) -> None:
    await intend(store, await see(store, "theirs"), operator="another-key")
    ours = await intend(store, await see(store, "ours"))
    assert [settlement.id for settlement in await take(store, operator=OPERATOR)] == [ours.id]


async def test_a_taken_intent_is_free_again_when_its_lease_has_lapsed(store: Store, other: Store) -> None:
    await intend(store, await see(store))
    assert await store.read(settlements.next_wake_ms) == NOW
    await take(store)
    assert await take(other, owner=OTHER_OWNER) == []
    assert await store.read(settlements.next_wake_ms) == NOW + MINUTE
    assert len(await take(other, owner=OTHER_OWNER, now_ms=NOW + MINUTE)) == 1


async def test_a_signature_is_written_with_its_bytes_and_its_members_in_order(store: Store) -> None:
    taken = await take_new(store, "a", "b", "c")
    signature = await sign(store, list(reversed(taken)))
    assert (signature.state, signature.wire, signature.signed_slot) == (SignatureState.SIGNED, b"\x01wire", 480)
    assert (signature.fee_lamports, signature.slot, signature.error) == (5_200, None, None)
    members = await store.read(lambda c: settlements.members(c, signature.id))
    assert [member.id for member in members] == [settlement.id for settlement in reversed(taken)]
    assert {(member.state, member.lease_owner) for member in members} == {(SettlementState.SENT, None)}


async def test_a_request_is_told_what_its_transactions_cost_and_with_how_many_it_shared_them(store: Store) -> None:
    first, second = await take_new(store, "a", "b")
    shared = await sign(store, [first, second])
    (alone,) = await take_new(store, "c")
    other = await sign(store, [alone])
    for signature, lamports in ((shared, -5_200), (other, -5_100)):
        await store.write(
            lambda c, s=signature, n=lamports: ledger.book(c, LedgerKind.TX_FEE, n, now_ms=NOW, signature_id=s.id)
        )
    for settlement, fee in (first, SharedFee(-5_200, 2)), (second, SharedFee(-5_200, 2)), (alone, SharedFee(-5_100, 1)):
        assert await store.read(lambda c, s=settlement: ledger.transaction_fees(c, s.request_id)) == [fee]


async def test_a_stopped_holder_cannot_sign_what_another_has_taken(store: Store, other: Store) -> None:
    first, second = await take_new(store, "a", "b")
    await store.write(lambda c: settlements.release(c, second, wake_at_ms=NOW))
    await take(other, owner=OTHER_OWNER)
    with pytest.raises(OracleError) as raised:
        await sign(store, [first, second])
    assert raised.value.error is LEASE_LOST
    assert await store.read(lambda c: settlements.open_signatures(c, OPERATOR)) == []
    assert (await get(store, first)).state is SettlementState.PENDING


async def test_two_daemons_that_sign_for_one_intent_at_once_make_one_signature(store: Store, other: Store) -> None:
    taken = await take_new(store, "a")
    results = await asyncio.gather(*(sign(each, taken) for each in (store, other) * 3), return_exceptions=True)
    assert sum(isinstance(result, SignatureRow) for result in results) == 1


@pytest.mark.parametrize("state", ["signed", "sent", "confirmed", "finalized"])
async def test_a_signature_that_may_still_land_is_never_replaced(store: Store, state: str) -> None:
    taken = (await take_new(store, "a"))[0]
    signature = await sign(store, [taken])
    await mark(store, signature, state)
    again = await send_back_and_take(store, taken)
    with pytest.raises(OracleError) as raised:
        await sign(store, [again])
    assert raised.value.error is SIGNATURE_OPEN
    assert (await get(store, again)).state is SettlementState.PENDING


@pytest.mark.parametrize("state", ["failed", "expired"])
async def test_a_dead_signature_is_replaced_and_kept(store: Store, state: str) -> None:
    taken = (await take_new(store, "a"))[0]
    first = await sign(store, [taken])
    await mark(store, first, state)
    second = await sign(store, [await send_back_and_take(store, taken)])
    signatures = await store.read(lambda c: settlements.signatures_of(c, taken.id))
    assert [(signature.id, signature.state) for signature in signatures] == [(first.id, state), (second.id, "signed")]


@pytest.mark.parametrize(("first", "second"), [("record", "reject"), ("reject", "record"), ("record", "record")])
async def test_a_settlement_that_was_dropped_still_guards_its_request_while_it_may_land(
    store: Store, first: str, second: str
) -> None:
    row = await see(store)
    await intend(store, row, first)
    taken = (await take(store))[0]
    signature = await sign(store, [taken])
    await resolve(store, taken, "dropped")
    await intend(store, row, second)
    again = (await take(store))[0]
    with pytest.raises(OracleError, match=SIGNATURE_OPEN.code):
        await sign(store, [again])
    await mark(store, signature, "expired")
    await sign(store, [again])


async def test_another_effect_on_the_same_request_may_be_signed_while_the_first_is_confirmed(store: Store) -> None:
    row = await see(store)
    await intend(store, row, "record")
    taken = (await take(store))[0]
    await mark(store, await sign(store, [taken]), "confirmed")
    await resolve(store, taken, "landed")
    await intend(store, row, "publish")
    await sign(store, await take(store))


async def test_a_claim_that_took_effect_and_lapsed_may_be_claimed_anew(store: Store) -> None:
    row = await see(store)
    await intend(store, row, "claim")
    taken = (await take(store))[0]
    signature = await sign(store, [taken])
    await mark(store, signature, "confirmed")
    await resolve(store, taken, "landed")
    await intend(store, row, "claim")
    again = (await take(store))[0]
    with pytest.raises(OracleError, match=SIGNATURE_OPEN.code):
        await sign(store, [again])
    await mark(store, signature, "finalized")
    await sign(store, [again])


async def test_a_member_whose_earlier_signature_is_open_keeps_the_whole_pack_from_being_signed(store: Store) -> None:
    first, second = await take_new(store, "a", "b")
    await sign(store, [first])
    again = await send_back_and_take(store, first)
    with pytest.raises(OracleError, match=SIGNATURE_OPEN.code):
        await sign(store, [second, again])
    assert (await get(store, second)).state is SettlementState.PENDING


async def test_packs_that_are_written_down_together_keep_their_own_members(store: Store) -> None:
    one, two, three = await take_new(store, "a", "b", "c")
    packs = [signing([two, one]), signing([three])]
    first, second = await store.write(lambda c: settlements.record_signatures(c, packs))
    members = await store.read(lambda c: settlements.members_of_all(c, [first, second]))
    assert {this: [member.id for member in its] for this, its in members.items()} == {
        first: [two.id, one.id],
        second: [three.id],
    }
    assert await store.read(lambda c: settlements.signature_by_id(c, second).signature) == packs[1].signature


async def test_of_two_packs_with_one_member_that_are_written_down_together_one_is(store: Store) -> None:
    one, two = await take_new(store, "a", "b")
    packs = [signing([one, two]), signing([two])]
    with pytest.raises(OracleError, match=LEASE_LOST.code):
        await store.write(lambda c: settlements.record_signatures(c, packs))
    assert (await get(store, one)).state is SettlementState.PENDING
    found = await asyncio.gather(
        *(store.write_together(settlements.record_signatures, pack) for pack in packs), return_exceptions=True
    )
    assert [isinstance(each, OracleError) and each.error for each in found] == [False, LEASE_LOST]
    assert len(await store.read(lambda c: settlements.signatures_of(c, two.id))) == 1


async def test_the_time_of_the_last_send_is_kept(store: Store) -> None:
    signature = await sign(store, await take_new(store, "a"))
    await store.write(lambda c: settlements.sent_all(c, [(signature.id, NOW + 1)]))
    await store.write(lambda c: settlements.sent_all(c, [(signature.id, NOW + 2)]))
    found = await store.read(lambda c: settlements.signature_by_id(c, signature.id))
    assert (found.state, found.last_sent_at_ms) == (SignatureState.SENT, NOW + 2)


async def test_a_resend_does_not_unconfirm_a_signature(store: Store) -> None:
    signature = await sign(store, await take_new(store, "a"))
    await mark(store, signature, "confirmed", slot=500)
    await store.write(lambda c: settlements.sent_all(c, [(signature.id, NOW + 1)]))
    resent = await store.read(lambda c: settlements.signature_by_id(c, signature.id))
    assert (resent.state, resent.slot) == (SignatureState.CONFIRMED, 500)


async def test_a_fork_takes_a_confirmation_back(store: Store) -> None:
    signature = await sign(store, await take_new(store, "a"))
    await mark(store, signature, "confirmed", slot=500)
    back = await mark(store, signature, "sent")
    assert (back.state, back.slot) == (SignatureState.SENT, None)


@pytest.mark.parametrize("fate", ["finalized", "failed", "expired"])
async def test_a_final_fate_is_never_taken_back(store: Store, fate: str) -> None:
    signature = await sign(store, await take_new(store, "a"))
    await mark(store, signature, fate)
    await mark(store, signature, fate)
    with pytest.raises(OracleError) as raised:
        await mark(store, signature, "sent")
    assert raised.value.error is ROW_MISSING


async def test_open_signatures_are_those_of_the_operator_whose_fate_is_not_final(store: Store) -> None:
    signatures = [await sign(store, await take_new(store, name)) for name in ("a", "b", "c", "d")]
    await mark(store, signatures[1], "confirmed")
    await mark(store, signatures[2], "expired")
    await mark(store, signatures[3], "finalized", slot=5)
    found = await store.read(lambda c: settlements.open_signatures(c, OPERATOR))
    assert [signature.id for signature in found] == [signatures[0].id, signatures[1].id]
    assert await store.read(lambda c: settlements.open_signatures(c, "another-key")) == []


async def test_the_slot_and_the_error_of_a_signature_are_kept(store: Store) -> None:
    signature = await sign(store, await take_new(store, "a"))
    error = {"InstructionError": [2, {"Custom": 6003}]}
    failed = await mark(store, signature, "failed", slot=9, error=error)
    assert (failed.slot, failed.error) == (9, error)


async def test_the_fee_of_a_signature_is_booked_once(store: Store) -> None:
    signature = await sign(store, await take_new(store, "a"))
    for _ in range(2):
        await store.write(lambda c: ledger.book(c, "tx_fee", -5_000, now_ms=NOW, signature_id=signature.id))
    assert await store.read(lambda c: ledger.sum(c, kind="tx_fee")) == -5_000


async def test_an_intent_that_ended_frees_its_request_and_takes_it_from_its_holder(store: Store) -> None:
    taken = (await take_new(store, "a"))[0]
    ended = await store.write(
        lambda c: settlements.resolve(c, taken.id, "dropped", now_ms=NOW, code="ORC-X-001", detail="ended by another")
    )
    assert (ended.state, ended.error_code, ended.error_detail) == ("dropped", "ORC-X-001", "ended by another")
    assert await store.read(lambda c: settlements.live_of(c, taken.request_id)) is None
    with pytest.raises(OracleError, match=LEASE_LOST.code):
        await sign(store, [taken])


async def test_a_finalized_intent_is_never_resolved_otherwise(store: Store) -> None:
    taken = (await take_new(store, "a"))[0]
    await resolve(store, taken, "finalized")
    await resolve(store, taken, "finalized")
    with pytest.raises(OracleError, match=ROW_MISSING.code):
        await resolve(store, taken, "failed")


async def test_an_intent_does_not_end_in_a_live_state(store: Store) -> None:
    taken = (await take_new(store, "a"))[0]
    with pytest.raises(ValueError, match="sent is no end"):
        await resolve(store, taken, "sent")


async def test_what_a_fork_takes_back_is_sent_again(store: Store) -> None:
    taken = (await take_new(store, "a"))[0]
    await sign(store, [taken])
    await resolve(store, taken, "landed")
    reopened = await store.write(lambda c: settlements.reopen(c, taken.id, now_ms=NOW))
    assert reopened.state is SettlementState.SENT
    with pytest.raises(OracleError, match=SETTLEMENT_EXISTS.code):
        await store.write(lambda c: settlements.reopen(c, taken.id, now_ms=NOW))


async def test_an_intent_is_given_back_only_as_it_was(store: Store) -> None:
    taken = (await take_new(store, "a"))[0]
    released = await store.write(
        lambda c: settlements.release(c, taken, wake_at_ms=NOW + 5, code="ORC-X-001", detail="simulation failed")
    )
    assert (released.state, released.wake_at_ms, released.lease_owner) == (SettlementState.PENDING, NOW + 5, None)
    assert (released.error_code, released.error_detail) == ("ORC-X-001", "simulation failed")
    await resolve(store, taken, "failed")
    with pytest.raises(OracleError, match=LEASE_LOST.code):
        await store.write(lambda c: settlements.release(c, released, wake_at_ms=NOW))


async def test_an_intent_that_was_signed_meanwhile_is_not_given_back(store: Store) -> None:
    taken = (await take_new(store, "a"))[0]
    await sign(store, [taken])
    with pytest.raises(OracleError, match=LEASE_LOST.code):
        await store.write(lambda c: settlements.release(c, taken, wake_at_ms=NOW))
    assert (await get(store, taken)).state is SettlementState.SENT


async def intend(
    store: Store,
    row: RequestRow,
    kind: str = "record",
    *,
    args: dict[str, Any] | None = None,
    operator: str = OPERATOR,
    deadline_slot: int = 1_000,
    attempt_id: int | None = None,
) -> SettlementRow:
    return await store.write(
        lambda c: settlements.intend(
            c,
            request_id=row.id,
            kind=kind,
            args=args or {},
            operator=operator,
            deadline_slot=deadline_slot,
            now_ms=NOW,
            attempt_id=attempt_id,
        )
    )


async def take(
    store: Store, *, owner: str = OWNER, now_ms: int = NOW, limit: int = 50, **more: Any
) -> list[SettlementRow]:
    return await store.write(
        lambda c: settlements.take_pending(c, owner=owner, now_ms=now_ms, lease_ms=MINUTE, limit=limit, **more)
    )


async def take_new(store: Store, *addresses: str) -> list[SettlementRow]:
    """An intent for each address, all held."""
    for address in addresses:
        await intend(store, await see(store, address))
    return await take(store)


async def send_back_and_take(store: Store, settlement: SettlementRow) -> SettlementRow:
    sent = await get(store, settlement)
    await store.write(lambda c: settlements.release(c, sent, wake_at_ms=NOW))
    return next(taken for taken in await take(store) if taken.id == settlement.id)


async def sign(store: Store, members: list[SettlementRow]) -> SignatureRow:
    this = signing(members)
    return await store.write(lambda c: settlements.record_signature(c, this))


def signing(members: list[SettlementRow]) -> Signing:
    fences = {member.id: member.fence for member in members}
    name = f"signature-{next(_numbers)}"
    return Signing(name, b"\x01wire", "blockhash", 650, 480, fee_lamports=5_200, fences=fences, now_ms=NOW)


async def mark(store: Store, signature: SignatureRow, state: str, **more: Any) -> SignatureRow:
    return await store.write(lambda c: settlements.mark_signature(c, signature.id, state, **more))


async def resolve(store: Store, settlement: SettlementRow, state: str) -> SettlementRow:
    return await store.write(lambda c: settlements.resolve(c, settlement.id, state, now_ms=NOW))


async def get(store: Store, settlement: SettlementRow) -> SettlementRow:
    return await store.read(lambda c: settlements.get(c, settlement.id))


async def attempt(store: Store, row: RequestRow) -> int:
    def write(conn: Connection) -> int:
        intended = attempts.intend(
            conn, row, lane=0, provider="nosana", model="m", idempotency_key="key", quoted_lamports=1, now_ms=NOW
        )
        return intended.id

    return await store.write(write)
