"""The day's allowance of a key is kept in the database."""

from __future__ import annotations

import asyncio

import pytest

from oracle.core.errors import OracleError
from oracle.core.spending import Spend
from oracle.store import allowances
from oracle.store.engine import Store

CAP = Spend(1_000, 100)


async def reserve(store: Store, key: str, today: int, least: Spend, most: Spend) -> Spend:
    return await store.write(lambda c: allowances.reserve(c, key, today, least, most, CAP))


async def test_what_was_set_aside_is_remembered_by_key_and_day(store: Store) -> None:
    assert await reserve(store, "a", 7, Spend(900, 90), Spend(950, 90)) == Spend(950, 90)
    assert await reserve(store, "a", 7, Spend(10), Spend(500, 500)) == Spend(50, 10)
    with pytest.raises(OracleError, match="ORC-SIGNER-012"):
        await reserve(store, "a", 7, Spend(1), Spend(1))
    assert await reserve(store, "b", 7, Spend(1_000), Spend(1_000)) == Spend(1_000)
    assert await reserve(store, "a", 8, Spend(1_000), Spend(1_000)) == Spend(1_000)
    with pytest.raises(OracleError, match="ORC-SIGNER-012"):
        await reserve(store, "a", 7, Spend(1), Spend(1))


async def test_many_at_once_set_aside_no_more_than_there_is(store: Store) -> None:
    asked = [reserve(store, "a", 7, Spend(30), Spend(30)) for _ in range(60)]
    outcomes = await asyncio.gather(*asked, return_exceptions=True)
    granted = [outcome for outcome in outcomes if isinstance(outcome, Spend)]
    assert len(granted) == 33
    assert all(isinstance(outcome, Spend | OracleError) for outcome in outcomes)
