"""What is rehearsed together is judged one by one: nobody pays for the trouble of another, nor for ours."""

from __future__ import annotations

from typing import Any

import pytest
from settlement_world import ADDRESSES, Memory, World
from simulated_program import Transaction

from oracle.chain.rpc.errors import BEHIND
from oracle.core.errors import OracleError
from oracle.pipeline import rehearsal
from oracle.pipeline.errors import OPERATOR_BROKE, SETTLEMENT_REFUSED
from oracle.store.rows import RequestRow


async def rehearsed(world: World, count: int = 5) -> list[Any]:
    """Of each request in turn: the error against it, or None."""
    for n in range(count):
        world.submit(n)
    world.advance(40)
    await world.run(world.watch)
    rows = sorted(await world.rows(), key=lambda row: ADDRESSES.index(_key(row)))
    errors = await rehearsal.simulate_all(world.context, rows)
    return [error.error if isinstance(error, OracleError) else error for error in errors]


def _key(row: RequestRow) -> Any:
    return next(address for address in ADDRESSES if str(address) == row.address)


def names(transaction: Transaction, n: int) -> bool:
    return any(member.address == str(ADDRESSES[n]) for member in transaction.members)


async def test_what_the_program_would_take_has_nothing_against_it(database: Memory) -> None:
    assert await rehearsed(World(database)) == [None] * 5


async def test_a_failure_that_names_nobody_is_that_of_the_one_with_which_it_comes(database: Memory) -> None:
    world = World(database)
    world.rpc.refusal = lambda transaction: "ProgramAccountNotFound" if names(transaction, 3) else None
    assert await rehearsed(world) == [None, None, None, SETTLEMENT_REFUSED, None]


async def test_a_request_that_claims_to_be_of_a_later_slot_delays_no_other(
    database: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(database)
    simulate = world.rpc.simulate_transaction

    async def behind(wire: bytes, **options: Any) -> Any:
        if options["min_context_slot"] > world.chain.slot:
            raise BEHIND("simulated")
        return await simulate(wire, **options)

    monkeypatch.setattr(world.rpc, "simulate_transaction", behind)
    for n in range(3):
        world.submit(n)
    world.advance(40)
    await world.run(world.watch)
    rows = [await world.row(n) for n in range(3)]
    rows[1] = rows[1]._replace(chain_slot=world.chain.slot + 1_000)
    errors = await rehearsal.simulate_all(world.context, rows)
    assert [isinstance(error, OracleError) and error.error is BEHIND for error in errors] == [False, True, False]


@pytest.mark.parametrize(
    "failure",
    ["AccountNotFound", "InsufficientFundsForFee", {"InsufficientFundsForRent": {"account_index": 0}}],
    ids=str,
)
async def test_an_empty_wallet_is_nobodys_fault_and_asked_after_once(database: Memory, failure: Any) -> None:
    world, asked = World(database), list[Transaction]()

    def refusal(transaction: Transaction) -> Any:
        asked.append(transaction)
        return failure

    world.rpc.refusal = refusal
    assert await rehearsed(world) == [OPERATOR_BROKE] * 5
    assert len(asked) == 1
