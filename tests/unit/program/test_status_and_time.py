"""Which instruction is allowed in which status and at which slot: the whole table, and both sides of every boundary."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from oracle_world import CLAIM_TERMS, FEE_LAMPORTS, OPEN_TERMS, OUTPUT, TTL_SLOTS, Site, Ticket, Wallet, World, refusal
from solders.instruction import Instruction

from oracle.chain.program.layout import QueueTerms
from oracle.core.request import Status

LEASE = CLAIM_TERMS.lease_slots
RETENTION = CLAIM_TERMS.retention_slots


@pytest.fixture(scope="module")
def firm(world: World) -> Site:
    """A queue without claims."""
    return world.queue(OPEN_TERMS)


@pytest.fixture(scope="module")
def site(world: World) -> Site:
    """A queue with claims, and two operators."""
    return world.queue(CLAIM_TERMS, operators=2)


def pending(site: Site) -> Ticket:
    return site.ask()


def claimed(site: Site) -> Ticket:
    ticket = site.ask()
    site.world.succeed(site.claim(ticket), signers=[site.operators[0]])
    return ticket


def lapsed(site: Site) -> Ticket:
    ticket = claimed(site)
    site.world.wait(LEASE + 1)
    return ticket


def workable(site: Site) -> Ticket:
    return claimed(site) if site.terms.claim_required else pending(site)


def fulfilled(site: Site) -> Ticket:
    ticket = workable(site)
    site.world.succeed(site.record(ticket), signers=[site.operators[0]])
    return ticket


def published(site: Site) -> Ticket:
    ticket = fulfilled(site)
    site.world.succeed(site.publish(ticket), signers=[site.operators[0]])
    return ticket


def rejected(site: Site) -> Ticket:
    ticket = workable(site)
    site.world.succeed(site.reject(ticket), signers=[site.operators[0]])
    return ticket


def cancelled(site: Site) -> Ticket:
    ticket = pending(site)
    site.world.succeed(site.cancel(ticket), signers=[ticket.requester])
    return ticket


def overdue(site: Site) -> Ticket:
    ticket = pending(site)
    site.world.wait(TTL_SLOTS + 1)
    return ticket


def overdue_claim(site: Site) -> Ticket:
    ticket = claimed(site)
    site.world.wait(TTL_SLOTS + 1)
    return ticket


def expired(site: Site) -> Ticket:
    ticket = overdue(site)
    site.world.succeed(site.expire(ticket))
    return ticket


Make = Callable[[Site, Ticket], tuple[Instruction, list[Wallet]]]
DOES: dict[str, Make] = {
    "claim": lambda site, ticket: (site.claim(ticket), [site.operators[0]]),
    "other claim": lambda site, ticket: (site.claim(ticket, by=1), [site.operators[1]]),
    "record": lambda site, ticket: (site.record(ticket), [site.operators[0]]),
    "other record": lambda site, ticket: (site.record(ticket, by=1), [site.operators[1]]),
    "publish": lambda site, ticket: (site.publish(ticket), [site.operators[0]]),
    "reject": lambda site, ticket: (site.reject(ticket), [site.operators[0]]),
    "other reject": lambda site, ticket: (site.reject(ticket, by=1), [site.operators[1]]),
    "cancel": lambda site, ticket: (site.cancel(ticket), [ticket.requester]),
    "expire": lambda site, ticket: (site.expire(ticket), []),
    "close": lambda site, ticket: (site.close(ticket), [ticket.payer]),
}
OTHERS = ["other claim", "other record", "other reject"]
YES = None
ENDED = dict.fromkeys(DOES, "RequestEnded") | {"publish": "NotFulfilled", "close": YES}

# Operator 0 is the one who claimed; "other" is operator 1.
WITH_CLAIMS: dict[Callable[[Site], Ticket], dict[str, str | None]] = {
    pending: {
        "claim": YES,
        "other claim": YES,
        "record": "ClaimRequired",
        "other record": "ClaimRequired",
        "publish": "NotFulfilled",
        "reject": "ClaimRequired",
        "other reject": "ClaimRequired",
        "cancel": YES,
        "expire": "DeadlineNotPassed",
        "close": "RequestStillOpen",
    },
    claimed: {
        "claim": "AlreadyClaimed",
        "other claim": "ClaimedByAnother",
        "record": YES,
        "other record": "ClaimedByAnother",
        "publish": "NotFulfilled",
        "reject": YES,
        "other reject": "ClaimedByAnother",
        "cancel": "LeaseRunning",
        "expire": "DeadlineNotPassed",
        "close": "RequestStillOpen",
    },
    lapsed: {
        "claim": "AlreadyClaimed",
        "other claim": YES,
        "record": YES,
        "other record": "ClaimedByAnother",
        "publish": "NotFulfilled",
        "reject": YES,
        "other reject": "ClaimedByAnother",
        "cancel": YES,
        "expire": "DeadlineNotPassed",
        "close": "RequestStillOpen",
    },
    overdue: {
        "claim": "DeadlinePassed",
        "other claim": "DeadlinePassed",
        "record": "ClaimRequired",
        "other record": "ClaimRequired",
        "publish": "NotFulfilled",
        "reject": "ClaimRequired",
        "other reject": "ClaimRequired",
        "cancel": YES,
        "expire": YES,
        "close": "RequestStillOpen",
    },
    overdue_claim: {
        "claim": "AlreadyClaimed",
        "other claim": "DeadlinePassed",
        "record": "DeadlinePassed",
        "other record": "ClaimedByAnother",
        "publish": "NotFulfilled",
        "reject": "DeadlinePassed",
        "other reject": "ClaimedByAnother",
        "cancel": YES,
        "expire": YES,
        "close": "RequestStillOpen",
    },
    fulfilled: ENDED | {"publish": YES},
    published: ENDED | {"publish": "OutputAlreadyPublished"},
    rejected: ENDED,
    cancelled: ENDED,
    expired: ENDED,
}
WITHOUT_CLAIMS: dict[Callable[[Site], Ticket], dict[str, str | None]] = {
    pending: {
        "claim": "ClaimNotRequired",
        "record": YES,
        "publish": "NotFulfilled",
        "reject": YES,
        "cancel": "RequestFirm",
        "expire": "DeadlineNotPassed",
        "close": "RequestStillOpen",
    },
    overdue: {
        "claim": "ClaimNotRequired",
        "record": "DeadlinePassed",
        "publish": "NotFulfilled",
        "reject": "DeadlinePassed",
        "cancel": "RequestFirm",
        "expire": YES,
        "close": "RequestStillOpen",
    },
    fulfilled: ENDED | {"publish": YES},
    published: ENDED | {"publish": "OutputAlreadyPublished"},
    rejected: ENDED,
    expired: ENDED,
}


def answers(site: Site, ticket: Ticket, names: list[str]) -> dict[str, str | None]:
    site.world.wait(1)
    tried = {name: DOES[name](site, ticket) for name in names}
    return {name: refusal(site.world.try_out(do, signers=signers)) for name, (do, signers) in tried.items()}


@pytest.mark.parametrize("state", WITH_CLAIMS, ids=lambda state: state.__name__)
def test_what_is_allowed_in_each_state_where_claims_are_required(site: Site, state: Callable[[Site], Ticket]) -> None:
    assert answers(site, state(site), list(DOES)) == WITH_CLAIMS[state]


@pytest.mark.parametrize("state", WITHOUT_CLAIMS, ids=lambda state: state.__name__)
def test_what_is_allowed_in_each_state_where_they_are_not(firm: Site, state: Callable[[Site], Ticket]) -> None:
    names = [name for name in DOES if name not in OTHERS]
    expected = {name: WITHOUT_CLAIMS[state][name] for name in names}
    assert answers(firm, state(firm), names) == expected


@pytest.mark.parametrize("do", ["record", "reject", "other claim"])
def test_a_deadline_is_the_last_slot_for_work_and_the_next_the_first_for_expiry(site: Site, do: str) -> None:
    ticket = pending(site) if do == "other claim" else claimed(site)
    site.world.wait(TTL_SLOTS - 1)
    assert answers(site, ticket, [do, "expire"]) == {do: YES, "expire": "DeadlineNotPassed"}
    assert site.world.slot == site.header(ticket).deadline_slot
    assert answers(site, ticket, [do, "expire"]) == {do: "DeadlinePassed", "expire": YES}


def test_a_lease_protects_to_its_last_slot_and_not_in_the_next(site: Site) -> None:
    ticket = claimed(site)
    site.world.wait(LEASE - 1)
    before = answers(site, ticket, ["other claim", "cancel", "record"])
    assert site.world.slot == site.header(ticket).claim_expires_slot
    after = answers(site, ticket, ["other claim", "cancel", "record"])
    assert before == {"other claim": "ClaimedByAnother", "cancel": "LeaseRunning", "record": YES}
    assert after == {"other claim": YES, "cancel": YES, "record": YES}


def test_a_lease_ends_with_the_deadline(site: Site) -> None:
    ticket = pending(site)
    site.world.wait(TTL_SLOTS - 3)
    site.world.succeed(site.claim(ticket), signers=[site.operators[0]])
    header = site.header(ticket)
    assert header.claim_expires_slot == header.deadline_slot == site.world.slot + 3


def test_a_lease_that_was_taken_over_no_longer_lets_its_first_holder_record(site: Site) -> None:
    ticket = lapsed(site)
    site.world.succeed(site.claim(ticket, by=1), signers=[site.operators[1]])
    assert answers(site, ticket, ["record", "reject", "claim"]) == dict.fromkeys(
        ["record", "reject", "claim"], "ClaimedByAnother"
    )
    site.world.wait(LEASE)
    assert answers(site, ticket, ["claim", "other claim"]) == {"claim": YES, "other claim": "AlreadyClaimed"}


def test_retention_keeps_strangers_from_closing_to_its_last_slot_and_not_in_the_next(site: Site) -> None:
    ticket = cancelled(site)
    stranger = site.world.wallet()
    by_stranger = site.close(ticket, closer=stranger)
    site.world.wait(RETENTION)
    site.world.refuse("RetentionRunning", by_stranger, signers=[stranger])
    assert answers(site, ticket, ["close"]) == {"close": YES}
    before = site.world.balance(ticket.payer.pubkey())
    held = site.world.balance(ticket.address)
    site.world.succeed(by_stranger, signers=[stranger])
    assert site.world.balance(ticket.payer.pubkey()) == before + held


def test_retention_counts_from_the_end_and_not_from_the_deadline(site: Site) -> None:
    ticket = expired(site)
    stranger = site.world.wallet()
    site.world.wait(RETENTION)
    site.world.refuse("RetentionRunning", site.close(ticket, closer=stranger), signers=[stranger])


def test_nothing_is_closed_in_the_slot_of_its_creation(site: Site) -> None:
    ticket = cancelled(site)
    site.world.refuse("CloseInSlotOfCreation", site.close(ticket), signers=[ticket.payer])
    site.world.wait(1)
    site.world.succeed(site.close(ticket), signers=[ticket.payer])


def test_a_request_keeps_the_terms_it_was_made_under(world: World) -> None:
    site = world.queue(CLAIM_TERMS)
    ticket = site.ask()
    site.change(replace(OPEN_TERMS, fee_floor_lamports=10**9, retention_slots=0, lease_slots=1))
    header = site.header(ticket)
    assert (header.claim_required, header.lease_slots, header.retention_slots) == (True, LEASE, RETENTION)
    world.refuse("ClaimRequired", site.record(ticket), signers=site.operators)
    world.succeed(site.claim(ticket), signers=site.operators)
    assert site.header(ticket).claim_expires_slot == world.slot + LEASE
    world.succeed(site.record(ticket), signers=site.operators)


def test_a_request_made_without_claims_stays_firm_and_needs_none(world: World) -> None:
    site = world.queue(OPEN_TERMS)
    ticket = site.ask()
    site.change(CLAIM_TERMS)
    world.refuse("RequestFirm", site.cancel(ticket), signers=[ticket.requester])
    world.refuse("ClaimNotRequired", site.claim(ticket), signers=site.operators)
    world.succeed(site.record(ticket), signers=site.operators)


def test_a_pause_stops_submit_and_claim_and_nothing_else(world: World) -> None:
    site = world.queue(CLAIM_TERMS)
    work, refusable, withdrawable, late = (site.ask(ttl_slots=ttl) for ttl in (500, 500, 500, 10))
    world.succeed(site.claim(work), site.claim(refusable), signers=site.operators)
    site.change(CLAIM_TERMS, paused=True)
    world.wait(11)
    new = site.ticket(world.wallet(), world.wallet())
    world.refuse("QueuePaused", site.submit(new), signers=[new.requester, new.payer])
    world.refuse("QueuePaused", site.claim(withdrawable), signers=site.operators)
    world.succeed(site.record(work), signers=site.operators)
    world.succeed(site.publish(work), signers=site.operators)
    world.succeed(site.reject(refusable), signers=site.operators)
    world.succeed(site.cancel(withdrawable), signers=[withdrawable.requester])
    world.succeed(site.expire(late))
    for ticket in (work, refusable, withdrawable, late):
        world.succeed(site.close(ticket), signers=[ticket.payer])
    world.succeed(site.update_operator("https://moved.example"), signers=site.operators)
    site.change(CLAIM_TERMS)
    world.succeed(site.submit(new), signers=[new.requester, new.payer])


def test_a_removed_operator_can_do_nothing_from_then_on(world: World) -> None:
    site = world.queue(CLAIM_TERMS, operators=2)
    held, done, free = site.ask(), site.ask(), site.ask()
    world.succeed(site.claim(held), site.claim(done), signers=site.operators)
    world.succeed(site.record(done), signers=site.operators)
    world.succeed(site.remove_operator(0), signers=[site.authority])
    for work in (site.record(held), site.reject(held), site.claim(free), site.publish(done)):
        world.refuse("AccountOwnedByWrongProgram", work, signers=site.operators)
    world.refuse("AccountOwnedByWrongProgram", site.update_operator("https://x.example"), signers=site.operators)
    world.refuse("ClaimedByAnother", site.claim(held, by=1), signers=site.operators)
    world.wait(LEASE + 1)
    world.succeed(site.claim(held, by=1), signers=site.operators)
    world.succeed(site.publish(done, by=1), signers=site.operators)
    assert site.state().operator_count == 1


def test_an_operator_that_comes_back_holds_the_claim_it_had(world: World) -> None:
    site = world.queue(CLAIM_TERMS)
    ticket = site.ask()
    world.succeed(site.claim(ticket), signers=site.operators)
    world.succeed(site.remove_operator(), signers=[site.authority])
    world.succeed(site.add_operator(site.operators[0].pubkey()), signers=[site.authority])
    world.succeed(site.record(ticket), signers=site.operators)


@pytest.mark.parametrize(
    ("terms", "end", "status"),
    [
        (OPEN_TERMS, fulfilled, Status.FULFILLED),
        (CLAIM_TERMS, fulfilled, Status.FULFILLED),
        (OPEN_TERMS, rejected, Status.REJECTED),
        (CLAIM_TERMS, rejected, Status.REJECTED),
        (CLAIM_TERMS, cancelled, Status.CANCELLED),
        (OPEN_TERMS, expired, Status.EXPIRED),
    ],
)
def test_every_ending_is_written_down_and_the_money_goes_where_it_belongs(
    world: World, terms: QueueTerms, end: Callable[[Site], Ticket], status: Status
) -> None:
    site = world.queue(terms)
    before = world.balance(site.operators[0].pubkey())
    ticket = end(site)
    header = site.header(ticket)
    assert (header.status, header.settled_slot) == (status, world.slot)
    paid = FEE_LAMPORTS if status is Status.FULFILLED else 0
    assert world.balance(site.operators[0].pubkey()) == before + paid
    rent = world.vm.minimum_balance(len(world.data(ticket.address)))
    assert world.balance(ticket.address) == rent + FEE_LAMPORTS - paid
    world.wait(1)
    refunded = world.balance(ticket.payer.pubkey())
    world.succeed(site.close(ticket), signers=[ticket.payer])
    assert world.balance(ticket.payer.pubkey()) == refunded + rent + FEE_LAMPORTS - paid
    assert world.vm.account(ticket.address) is None


def test_a_result_is_written_down_whole(site: Site) -> None:
    ticket = published(site)
    request = site.read(ticket)
    header = request.header
    assert request.inline_output == OUTPUT
    assert header.operator == site.operators[0].pubkey()
    assert (header.completed_at, header.output_len, header.output_cap) == (1_700_000_000, len(OUTPUT), 100)
    assert request.body == ticket.body
    assert request.body_is_authentic


def test_a_rejection_keeps_its_reason(site: Site) -> None:
    header = site.header(rejected(site))
    assert (header.reason, header.operator) == (6, site.operators[0].pubkey())


def test_any_operator_of_the_queue_may_publish_what_was_recorded(site: Site) -> None:
    ticket = fulfilled(site)
    site.world.succeed(site.publish(ticket, by=1), signers=[site.operators[1]])
    assert site.read(ticket).inline_output == OUTPUT
