"""One fault at a time: what the settlement manager does, step by step, where the network or a fork misbehaves."""

from __future__ import annotations

import pytest
import structlog
from settlement_world import (
    ADDRESSES,
    CONFIG,
    OURS,
    Memory,
    Script,
    World,
    cancel,
    payer_closes_and_submits_again,
    rival_claims,
)
from simulated_program import RequestAccount, Transaction

from oracle.core.lifecycle import State
from oracle.core.request import Status
from oracle.core.settlement import SignatureState
from oracle.pipeline import settle
from oracle.store.schema import SettlementKind, SettlementState

DEAR = CONFIG.policy.finalize_claims_above_lamports


async def computed(database: Memory, count: int = 1, **request: object) -> World:
    """A world with requests whose answers wait to be packed."""
    world = World(database)
    for n in range(count):
        world.submit(n, **request)  # type: ignore[arg-type]
    world.advance(40)
    await world.run(world.watch)
    await world.run(world.work)
    await world.run(world.prepare)
    return world


async def sent(database: Memory, count: int = 1, **request: object) -> World:
    """The same, with the transaction on its way; nothing has landed yet."""
    world = await computed(database, count, **request)
    await world.run(world.send)
    return world


def lose_everything(world: World) -> None:
    world.script = AllOrNothing()
    world.rpc.manners.lost = 100


class AllOrNothing(Script):
    """Every chance of 100 per cent comes true, and no other; of numbers, the greatest."""

    def chance(self, per_cent: int) -> bool:
        return per_cent >= 100

    def below(self, n: int) -> int:
        return n - 1


def finalize_height(world: World, height: int) -> None:
    world.advance(height - world.chain.finalized.height)
    assert world.chain.finalized.height == height


# What may be signed again, and when.


async def test_a_signature_that_may_still_land_is_never_replaced(database: Memory) -> None:
    world = await computed(database)
    lose_everything(world)
    await world.run(world.send)
    [first] = await world.signatures()
    finalize_height(world, first.last_valid_block_height)
    for _ in range(3):
        await world.run(world.follow, world.send)
    assert [row.state for row in await world.signatures()] == [SignatureState.SENT]

    finalize_height(world, first.last_valid_block_height + 1)
    await world.run(world.follow)
    await world.run(world.send)
    assert [row.state for row in await world.signatures()] == [SignatureState.EXPIRED, SignatureState.SENT]
    world.check()


async def test_the_same_bytes_go_out_until_they_land(database: Memory) -> None:
    world = await computed(database)
    lose_everything(world)
    await world.run(world.send)
    for _ in range(3):
        world.advance(6)
        await world.run(world.follow)
    world.manners.lost = 0
    world.advance(6)
    await world.run(world.follow)
    world.advance(2)
    await world.run(world.follow)
    assert len(world.sent) == 1
    assert [row.state for row in await world.signatures()] == [SignatureState.CONFIRMED]
    assert (await world.row()).state is State.SETTLED


async def test_bytes_are_sent_again_no_sooner_than_configured_and_whatever_the_clock_does(database: Memory) -> None:
    world = await computed(database)
    lose_everything(world)
    await world.run(world.send)
    [first] = await world.signatures()
    await world.run(world.follow)
    assert (await world.signatures())[0].last_sent_at_ms == first.last_sent_at_ms
    world.clock.step(-3_600_000)
    await world.run(world.follow)
    assert (await world.signatures())[0].last_sent_at_ms == world.clock.ms


async def test_what_expired_is_signed_anew_at_a_higher_price(database: Memory) -> None:
    world = await computed(database)
    lose_everything(world)
    prices = []
    for _ in range(3):
        await world.run(world.send)
        rows = await world.signatures()
        prices.append(rows[-1].fee_lamports)
        finalize_height(world, rows[-1].last_valid_block_height + 1)
        await world.run(world.follow)
    assert prices == sorted(set(prices))
    assert (await world.settlements())[0].args["expiries"] == 3


async def test_bytes_that_were_committed_but_not_sent_go_out_after_a_restart(database: Memory) -> None:
    world = await computed(database)
    world.killed_at = "before sendTransaction"
    await world.run(world.send)
    assert world.boots == 2
    assert world.sent == {}
    await world.run(world.follow)
    world.advance(2)
    await world.run(world.follow)
    assert len(world.sent) == 1
    assert (await world.row()).state is State.SETTLED


async def test_a_signature_behind_the_end_of_every_history_is_decided_by_the_account(database: Memory) -> None:
    world = await sent(database, 2)
    lose_everything(world)
    world.manners.short_history = 100
    world.advance(400)
    await world.run(world.follow)
    assert [row.state for row in await world.signatures()] == [SignatureState.EXPIRED]
    assert [(await world.settlements(n))[0].state for n in (0, 1)] == [SettlementState.FINALIZED] * 2
    assert (await world.row()).end_finalized


async def test_a_signature_behind_the_end_of_every_history_that_did_not_land_is_replaced(database: Memory) -> None:
    world = await computed(database)
    lose_everything(world)
    world.manners.short_history = 100
    await world.run(world.send)
    world.advance(400)
    await world.run(world.follow)
    await world.run(world.send)
    world.check()
    assert [row.state for row in await world.signatures()] == [SignatureState.EXPIRED, SignatureState.SENT]


# Forks.


async def test_a_settlement_that_a_fork_took_is_shown_no_longer_and_sent_again(database: Memory) -> None:
    world = await sent(database)
    world.advance(3)
    await world.run(world.follow)
    assert (await world.row()).state is State.SETTLED
    world.chain.fork(3, resend=False)
    world.advance(3)
    await world.run(world.follow)
    row = await world.row()
    assert (row.state, row.ended_slot, row.end_finalized) == (State.SETTLING, None, False)
    world.advance(3)
    await world.run(world.follow)
    assert (await world.row()).state is State.SETTLED
    assert len(world.sent) == 1


async def test_a_node_that_lags_behind_the_landing_takes_nothing_back(database: Memory) -> None:
    world = await sent(database)
    world.advance(3)
    await world.run(world.follow)
    lose_everything(world)
    world.manners.lag, world.manners.lag_blocks = 100, 3
    await world.run(world.follow)
    assert [row.state for row in await world.signatures()] == [SignatureState.CONFIRMED]
    assert (await world.row()).state is State.SETTLED


async def test_an_error_that_a_fork_can_undo_frees_nobody(database: Memory) -> None:
    world = await computed(database)
    world.chain.sabotage = lambda transaction: {"InstructionError": [2, "ComputationalBudgetExceeded"]}
    await world.run(world.send)
    world.advance(20)
    await world.run(world.follow)
    assert [row.state for row in await world.signatures()] == [SignatureState.SENT]
    world.chain.sabotage = lambda transaction: None
    world.chain.fork(20, resend=True)
    world.advance(40)
    await world.run(world.follow)
    assert [row.state for row in await world.signatures()] == [SignatureState.FINALIZED]
    assert world.account().status is Status.FULFILLED  # type: ignore[union-attr]


async def test_a_success_that_fails_on_the_other_fork_is_taken_back_and_signed_anew(database: Memory) -> None:
    world = await sent(database)
    world.advance(3)
    await world.run(world.follow)
    assert (await world.row()).state is State.SETTLED
    world.chain.sabotage = lambda transaction: {"InstructionError": [2, "ComputationalBudgetExceeded"]}
    world.chain.fork(3, resend=True)
    world.advance(3)
    world.chain.sabotage = lambda transaction: None
    await world.run(world.follow)
    assert (await world.row()).state is State.SETTLING
    await world.settle_down()
    assert [row.state for row in await world.signatures()][:2] == [SignatureState.FAILED, SignatureState.FINALIZED]
    await world.check_the_end()


async def test_an_end_that_only_a_sighting_showed_is_undone_with_its_fork(database: Memory) -> None:
    """Seen as settled before the signature was, then forked away, then too late: it must not stay settled."""
    world = await sent(database, ttl_slots=300)
    world.advance(2)
    await world.run(world.watch)
    assert (await world.row()).state is State.SETTLED
    lose_everything(world)
    world.chain.fork(2, resend=False)
    world.advance(400)
    await world.settle_down()
    assert (await world.row()).state is State.EXPIRED
    await world.check_the_end()


async def test_a_claim_that_a_fork_took_is_made_again_and_the_answer_is_not_bought_twice(database: Memory) -> None:
    world = World(database)
    world.submit(claim_required=True)
    world.advance(40)
    for loop in (world.watch, world.work, world.send):
        await world.run(loop)
    world.advance(2)
    await world.run(world.follow)
    await world.run(world.work)
    assert (await world.row()).state is State.COMPUTED
    lose_everything(world)
    world.manners.lost = 100
    world.chain.fork(2, resend=False)
    world.advance(3)
    await world.run(world.follow, world.prepare)
    assert (await world.row()).state is State.COMPUTED, "an answer is never declined for want of a claim"
    await world.settle_down()
    assert [row.kind for row in await world.settlements()] == ["claim", "record", "close"]
    assert world.bought.total() == 1
    await world.check_the_end()


async def test_an_answer_whose_claim_another_took_waits_for_the_next_claim(database: Memory) -> None:
    world = World(database)
    world.submit(claim_required=True)
    world.advance(40)
    for loop in (world.watch, world.work, world.send):
        await world.run(loop)
    world.advance(2)
    await world.run(world.follow)
    await world.run(world.work)
    world.advance(100)
    world.meddle(0, rival_claims)
    world.advance(40)
    await world.settle_down()
    kinds = [row.kind for row in await world.settlements()]
    assert kinds == ["claim", "record", "claim", "record", "close"]
    assert world.chain.finalized.ended[str(ADDRESSES[0]), (await world.row()).created_slot].operator == OURS
    assert world.bought.total() == 1


async def test_a_rejection_on_a_queue_with_claims_is_claimed_first(database: Memory) -> None:
    world = World(database)
    world.submit(4, claim_required=True)
    world.advance(40)
    await world.run(world.watch)
    world.database.rows("UPDATE requests SET state = 'refused', reject_reason = 1")
    await world.settle_down()
    assert [row.kind for row in await world.settlements(4)] == ["reject", "claim", "reject", "close"]
    assert (await world.row(4)).state is State.REJECTED


async def test_an_answer_to_one_life_of_an_address_is_not_signed_for_the_next(database: Memory) -> None:
    world = World(database)
    world.submit(ttl_slots=500)
    world.advance(3)
    for loop in (world.watch, world.work, world.prepare):
        await world.run(loop)
    first = await world.row()
    world.chain.fork(3, resend=False)
    world.submit()
    world.advance(3)
    await world.run(world.watch)
    await world.run(world.send)
    assert (await world.row()).created_slot > first.created_slot
    assert world.sent == {}
    await world.settle_down()
    await world.check_the_end()


# Packs.


async def test_a_member_that_is_refused_does_not_hold_up_its_pack(database: Memory) -> None:
    world = await computed(database, 4, claim_required=True)
    world.meddle(1, cancel)
    world.advance(2)
    await world.run(world.send)
    [transaction] = world.sent.values()
    assert {member.address for member in transaction.members} == {str(ADDRESSES[n]) for n in (0, 2, 3)}
    assert [row.state for row in await world.settlements(1)] == [SettlementState.PENDING], "cancelled, not finally"
    world.advance(40)
    await world.run(world.send)
    assert (await world.row(1)).state is State.CANCELLED
    assert [row.state for row in await world.settlements(1)] == [SettlementState.DROPPED]


async def test_a_pack_that_fails_frees_its_good_members_and_its_culprit_goes_alone(database: Memory) -> None:
    world = await computed(database, 4)
    world.chain.sabotage = lambda transaction: {"InstructionError": [3, "ComputationalBudgetExceeded"]}
    await world.run(world.send)
    world.advance(40)
    world.chain.sabotage = lambda transaction: None
    await world.run(world.follow)
    world.advance(10)
    await world.run(world.send)
    packs = sorted(len(transaction.members) for transaction in world.sent.values())
    assert packs == [1, 3, 4]
    assert [bool((await world.settlements(n))[0].args.get("alone")) for n in range(4)] == [False, True, False, False]


async def test_a_pack_that_fails_without_a_culprit_is_sent_one_by_one(database: Memory) -> None:
    world = await computed(database, 3)
    world.chain.sabotage = lambda transaction: "InsufficientFundsForRent"
    await world.run(world.send)
    world.advance(40)
    world.chain.sabotage = lambda transaction: None
    await world.run(world.follow)
    world.advance(10)
    await world.run(world.send)
    assert sorted(len(transaction.members) for transaction in world.sent.values()) == [1, 1, 1, 3]


async def test_what_fails_on_chain_again_and_again_is_paid_for_five_times_and_parked(database: Memory) -> None:
    world = await computed(database)
    world.chain.sabotage = lambda transaction: {"InstructionError": [2, "ComputationalBudgetExceeded"]}
    for _ in range(30):
        await world.round(40)
    rows = [row for row in await world.signatures() if row.state is SignatureState.FAILED]
    assert len(rows) == 5
    assert (await world.row()).state is State.PARKED


async def test_a_simulation_that_names_nobody_is_tried_in_halves(database: Memory) -> None:
    world = await computed(database, 4)
    spoiled = str(ADDRESSES[2])

    def refusal(transaction: Transaction) -> str | None:
        names_it = any(member.address == spoiled for member in transaction.members)
        return "InsufficientFundsForRent" if names_it else None

    world.rpc.refusal = refusal
    await world.run(world.send)
    assert sorted(len(transaction.members) for transaction in world.sent.values()) == [1, 2]
    [spoiled_one] = await world.settlements(2)
    assert (spoiled_one.state, spoiled_one.error_code) == (SettlementState.PENDING, "ORC-SETTLE-001")


async def test_what_no_simulation_blames_on_anybody_is_tried_ever_more_rarely_and_given_up_by_nobody(
    database: Memory,
) -> None:
    world, waits_ms = await computed(database), list[int]()
    world.rpc.refusal = lambda transaction: "ProgramAccountNotFound"
    for _ in range(8):
        await world.run(world.send)
        [intent] = await world.settlements()
        waits_ms.append(intent.wake_at_ms - world.clock.ms)
        world.clock.pass_by(waits_ms[-1] / 1000)
    assert waits_ms == [750, 1_500, 3_000, 6_000, 7_500, 7_500, 7_500, 7_500]
    assert intent.state is SettlementState.PENDING


@pytest.mark.parametrize(("fee_lamports", "waits"), [(DEAR - 1, False), (DEAR, False), (DEAR + 1, True)])
async def test_a_claim_on_a_dear_request_is_believed_once_it_is_final(
    database: Memory, fee_lamports: int, waits: bool
) -> None:
    world = World(database)
    world.submit(0, claim_required=True)
    world.advance(40)
    await world.run(world.watch)
    database.rows(f"UPDATE requests SET fee_lamports = {fee_lamports}")
    await world.run(world.work)
    await world.run(world.send)
    world.advance(2)
    await world.run(world.follow)
    assert (await world.row()).state is (State.CLAIMING if waits else State.CLAIMED)
    world.advance(40)
    await world.run(world.follow)
    assert (await world.row()).state is State.CLAIMED


async def test_an_empty_wallet_keeps_everything_due_and_counts_against_nothing(database: Memory) -> None:
    world = await computed(database, 3)
    world.rpc.refusal = lambda transaction: "InsufficientFundsForFee"
    for _ in range(12):
        await world.run(world.send)
        world.advance(10)
    rows = [(await world.settlements(n))[0] for n in range(3)]
    assert {(row.state, row.error_code) for row in rows} == {(SettlementState.PENDING, "ORC-PIPE-012")}
    assert not any("refusals" in row.args for row in rows)


async def test_what_the_program_keeps_refusing_is_parked(database: Memory) -> None:
    world = await computed(database)
    world.rpc.refusal = lambda transaction: {"InstructionError": [2, {"Custom": 6010}]}
    for _ in range(20):
        await world.run(world.send)
        world.advance(100)
    row = await world.row()
    assert (row.state, row.error_code) == (State.PARKED, "ORC-SETTLE-001")
    assert (await world.settlements())[0].state is SettlementState.FAILED


# Endpoints.


async def test_an_endpoint_that_is_behind_drops_no_answer(database: Memory) -> None:
    """It does not have the account yet: one read that misses a request proves nothing."""
    world = World(database)
    world.submit()
    world.advance(3)
    for loop in (world.watch, world.work, world.prepare):
        await world.run(loop)
    lose_everything(world)
    world.manners.lost = 0
    world.manners.lag, world.manners.lag_blocks = 100, 20
    await world.run(world.send)
    assert [row.state for row in await world.settlements()] == [SettlementState.PENDING]
    assert (await world.row()).state is State.SETTLING
    await world.settle_down()
    assert (await world.row()).state is State.SETTLED


async def test_an_end_at_confirmed_drops_no_answer(database: Memory) -> None:
    world = await computed(database, claim_required=True)
    world.advance(2)
    await world.run(world.work)
    await world.run(world.send)
    world.advance(2)
    await world.run(world.follow)
    for loop in (world.work, world.prepare):
        await world.run(loop)
    world.advance(100)
    world.meddle(0, cancel)
    world.advance(3)
    await world.run(world.watch)
    await world.run(world.send)
    assert (await world.row()).state is State.CANCELLED
    world.chain.fork(3, resend=False)
    world.advance(3)
    await world.settle_down()
    row = await world.row()
    assert (row.state, world.bought.total()) == (State.SETTLED, 1)


async def test_one_signature_that_cannot_be_judged_does_not_hold_up_the_others(database: Memory) -> None:
    world = await sent(database, 1)
    world.submit(1)
    world.advance(3)
    for loop in (world.watch, world.work, world.prepare, world.send):
        await world.run(loop)
    world.advance(3)
    world.database.rows("UPDATE requests SET state = 'vanished' WHERE id = 1")
    await world.run(world.follow)
    assert (await world.row(1)).state is State.SETTLED


async def test_an_intent_that_makes_no_instruction_is_given_up_alone(database: Memory) -> None:
    world = await computed(database, 3)
    world.database.rows("UPDATE settlements SET args = '{}' WHERE id = 2")
    with structlog.testing.capture_logs() as logs:
        await world.run(world.send)
    assert [entry["event"] for entry in logs] == ["no instruction for a settlement"]
    [transaction] = world.sent.values()
    assert len(transaction.members) == 2
    assert (await world.row(1)).state is State.PARKED


async def test_a_step_that_outlived_its_lease_can_no_longer_give_up_what_another_has_sent(database: Memory) -> None:
    world = await computed(database)
    [[stalled]] = await settle.gather(world.context)
    world.advance(300)
    await world.run(world.send)
    assert [row.state for row in await world.settlements()] == [SettlementState.SENT]
    world.database.rows("UPDATE requests SET deadline_slot = 0")
    late = settle.Member(
        stalled.settlement._replace(deadline_slot=0),
        stalled.request,
        stalled.instruction,
        stalled.item,
    )
    await settle.send_pack(world.context, [late])
    assert [row.state for row in await world.settlements()] == [SettlementState.SENT]
    assert (await world.row()).state is State.SETTLING
    assert len(world.sent) == 1


# Deadlines, and what the account says.


async def test_nothing_is_signed_within_the_margin_of_a_deadline(database: Memory) -> None:
    world = await computed(database, ttl_slots=60)
    deadline = (await world.row()).deadline_slot
    world.advance(deadline - 9 - world.chain.slot)
    await world.run(world.send)
    row = await world.row()
    assert (row.state, row.error_code) == (State.PARKED, "ORC-PIPE-005")
    assert world.sent == {}


async def test_a_signer_that_takes_its_time_signs_nothing_too_late(database: Memory) -> None:
    world = await computed(database, 2, ttl_slots=60)
    world.database.rows("UPDATE settlements SET deadline_slot = deadline_slot + 10000 WHERE id = 2")
    deadline = (await world.row()).deadline_slot
    world.advance(deadline - 11 - world.chain.slot)

    async def ready() -> None:
        world.advance(5)

    world.context.signer = SlowSigner(world.context.signer, ready)  # type: ignore[assignment]
    await world.run(world.send)
    [transaction] = world.sent.values()
    assert [member.address for member in transaction.members] == [str(ADDRESSES[1])]
    assert (await world.row()).state is State.PARKED


async def test_a_signature_that_comes_too_late_is_thrown_away_unseen(database: Memory) -> None:
    world = await computed(database, 2, ttl_slots=60)
    world.database.rows("UPDATE settlements SET deadline_slot = deadline_slot + 10000 WHERE id = 2")
    deadline = (await world.row()).deadline_slot
    world.advance(deadline - 12 - world.chain.slot)

    async def ready() -> None:
        return None

    async def sign(message: bytes, *, micro_nos: int = 0) -> bytes:
        world.advance(5)
        return await signer.sign(message, micro_nos=micro_nos)

    signer = world.context.signer
    world.context.signer = SlowSigner(signer, ready)  # type: ignore[assignment]
    world.context.signer.sign = sign  # type: ignore[method-assign]
    await world.run(world.send)
    assert world.sent == {}
    assert world.database.rows("SELECT count(*) FROM signatures") == [(0,)]
    world.context.signer = signer
    world.advance(5)
    await world.run(world.send)
    [transaction] = world.sent.values()
    assert [member.address for member in transaction.members] == [str(ADDRESSES[1])]
    assert (await world.row()).state is State.PARKED


class SlowSigner:
    def __init__(self, signer: object, ready: object) -> None:
        self.public_key, self.sign, self.ready = signer.public_key, signer.sign, ready  # type: ignore[attr-defined]


async def test_an_answer_that_is_on_chain_already_is_a_success(database: Memory) -> None:
    """As after an old backup: the intent does not know of the signature that fulfilled the request."""
    world = await computed(database)
    backup = world.database.saved()
    await world.run(world.send)
    world.advance(40)
    world.database.restore(backup)
    world.advance(300)
    await world.run(world.send)
    row = await world.row()
    assert (row.state, row.end_finalized) == (State.SETTLED, True)
    assert [each.state for each in await world.settlements()] == [SettlementState.FINALIZED]
    assert world.database.rows("SELECT kind, lamports FROM ledger") == [("fee_earned", 50_000)]
    assert len(world.sent) == 1


async def test_an_answer_by_somebody_else_is_no_success(database: Memory) -> None:
    world = await computed(database)

    def fulfilled(account: RequestAccount, slot: int) -> RequestAccount:
        return account.ended(Status.FULFILLED, slot, operator=OURS, output_hash=bytes([1]) * 32)

    world.meddle(0, fulfilled)
    world.advance(40)
    await world.run(world.send)
    assert (await world.row()).state is State.SUPERSEDED
    assert [each.state for each in await world.settlements()] == [SettlementState.DROPPED]
    assert world.database.rows("SELECT * FROM ledger") == []


async def test_a_request_that_lives_anew_while_its_answer_waits_is_gone(database: Memory) -> None:
    world = await computed(database, ttl_slots=60)
    world.advance(70)
    world.meddle(0, lambda account, slot: account.ended(Status.EXPIRED, slot))
    world.advance(2)
    world.meddle(0, payer_closes_and_submits_again)
    world.advance(60)
    await world.settle_down()
    await world.check_the_end()


async def test_a_request_is_closed_by_one_intent_that_waits_for_the_retention(database: Memory) -> None:
    world = await sent(database)
    world.advance(40)
    for _ in range(3):
        await world.round(1)
    world.database.rows("UPDATE requests SET retention_slots = 0")
    for _ in range(30):
        await world.round(3)
    kinds = [row.kind for row in await world.settlements()]
    assert kinds == [SettlementKind.RECORD, SettlementKind.CLOSE]
    assert (await world.row()).closed
