"""Purchases by transaction: intended once, signed at most once, withdrawn for good."""

from __future__ import annotations

import pytest
from store_world import MINUTE, NOW, OPERATOR, OTHER_OWNER, OWNER, held

from oracle.core.errors import OracleError
from oracle.store import attempts, purchases, settlements
from oracle.store.changes import Signing
from oracle.store.engine import Store
from oracle.store.errors import ATTEMPT_OVER, LEASE_LOST, ROW_MISSING
from oracle.store.rows import AttemptRow, RequestRow, SettlementRow, SignatureRow
from oracle.store.schema import AttemptState, SettlementKind, SettlementState

KEY = "key-1"
DETAIL = {"cid": "Qm", "timeout_seconds": 60}


async def bought_for(store: Store, row: RequestRow, key: str = KEY) -> AttemptRow:
    return await store.write(
        lambda c: attempts.intend(
            c,
            row,
            lane=0,
            provider="nosana",
            model="m",
            idempotency_key=key,
            quoted_lamports=1,
            now_ms=NOW,
        )
    )


async def intend(store: Store, key: str = KEY, owner: str = OWNER) -> SettlementRow:
    return await store.write(
        lambda c: purchases.intend(c, key, detail=DETAIL, operator=OPERATOR, owner=owner, lease_ms=MINUTE, now_ms=NOW)
    )


async def withdraw(store: Store, key: str = KEY) -> SettlementRow | None:
    return await store.write(lambda c: purchases.withdraw(c, key, operator=OPERATOR, now_ms=NOW))


async def sign(store: Store, purchase: SettlementRow, signature: str = "signature") -> SignatureRow:
    fences = {purchase.id: purchase.fence}
    signing = Signing(signature, b"wire", "hash", 1_000, 850, fee_lamports=15_000, fences=fences, now_ms=NOW)
    return await store.write(lambda c: settlements.record_signature(c, signing))


async def test_an_intent_is_held_by_whoever_made_it_and_carries_its_detail(store: Store) -> None:
    row = await held(store)
    attempt = await bought_for(store, row)
    purchase = await intend(store)
    assert (purchase.kind, purchase.state, purchase.attempt_id) == (
        SettlementKind.PURCHASE,
        SettlementState.PENDING,
        attempt.id,
    )
    assert (purchase.args, purchase.lease_owner, purchase.deadline_slot) == (DETAIL, OWNER, row.deadline_slot)


async def test_no_loop_of_settlements_takes_a_purchase(store: Store) -> None:
    await bought_for(store, await held(store))
    await intend(store)
    taken = await store.write(
        lambda c: settlements.take_pending(c, owner=OTHER_OWNER, now_ms=NOW + 2 * MINUTE, lease_ms=MINUTE, limit=10)
    )
    assert taken == []


async def test_an_attempt_is_bought_for_once(store: Store) -> None:
    await bought_for(store, await held(store))
    await intend(store)
    with pytest.raises(OracleError) as caught:
        await intend(store, owner=OTHER_OWNER)
    assert caught.value.error is ATTEMPT_OVER


async def test_nothing_is_bought_for_an_attempt_that_has_ended(store: Store) -> None:
    attempt = await bought_for(store, await held(store))
    await store.write(lambda c: attempts.finish(c, attempt.id, AttemptState.FAILED, cost_lamports=0, now_ms=NOW))
    with pytest.raises(OracleError) as caught:
        await intend(store)
    assert caught.value.error is ATTEMPT_OVER


async def test_nothing_is_bought_for_a_key_that_is_nobodys(store: Store) -> None:
    with pytest.raises(OracleError) as caught:
        await intend(store, key="unheard of")
    assert caught.value.error is ROW_MISSING


async def test_what_is_withdrawn_unsigned_is_never_signed(store: Store) -> None:
    await bought_for(store, await held(store))
    purchase = await intend(store)
    withdrawn = await withdraw(store)
    assert withdrawn is not None
    assert withdrawn.state is SettlementState.DROPPED
    with pytest.raises(OracleError) as caught:
        await sign(store, purchase)
    assert caught.value.error is LEASE_LOST


async def test_what_is_withdrawn_before_it_was_intended_is_never_intended(store: Store, other: Store) -> None:
    await bought_for(store, await held(store))
    withdrawn = await withdraw(other)
    assert withdrawn is not None
    assert withdrawn.state is SettlementState.DROPPED
    with pytest.raises(OracleError) as caught:
        await intend(store)
    assert caught.value.error is ATTEMPT_OVER


async def test_what_is_signed_is_not_withdrawn(store: Store) -> None:
    await bought_for(store, await held(store))
    purchase = await intend(store)
    await sign(store, purchase)
    found = await withdraw(store)
    assert found is not None
    assert found.state is SettlementState.SENT
    assert found.args == DETAIL


async def test_a_purchase_is_dropped_by_its_holder_alone_and_only_unsigned(store: Store) -> None:
    await bought_for(store, await held(store))
    purchase = await intend(store)

    async def drop() -> bool:
        return await store.write(lambda c: purchases.drop(c, purchase, code="ORC-X-001", detail="why", now_ms=NOW))

    assert await drop()
    assert not await drop()
    found = await withdraw(store)
    assert found is not None
    assert (found.state, found.error_detail) == (SettlementState.DROPPED, "why")


async def test_a_signed_purchase_is_not_dropped(store: Store) -> None:
    await bought_for(store, await held(store))
    purchase = await intend(store)
    await sign(store, purchase)
    assert not await store.write(lambda c: purchases.drop(c, purchase, code="ORC-X-001", detail="", now_ms=NOW))


async def test_a_key_that_is_nobodys_has_nothing_to_withdraw(store: Store) -> None:
    assert await withdraw(store, "unheard of") is None
