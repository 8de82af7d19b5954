"""Where lamports go, whatever anybody does: replays, empty wallets, dust, second lives of an address."""

from __future__ import annotations

from dataclasses import replace

import pytest
from oracle_world import BODY, CLAIM_TERMS, FEE_LAMPORTS, OPEN_TERMS, Site, Ticket, Wallet, World
from solders.account import Account
from solders.pubkey import Pubkey
from solders.system_program import TransferParams, transfer

from oracle.core.request import Inline, Status


@pytest.fixture(scope="module")
def firm(world: World) -> Site:
    return world.queue(OPEN_TERMS)


@pytest.fixture(scope="module")
def site(world: World) -> Site:
    return world.queue(CLAIM_TERMS, operators=2)


@pytest.fixture(scope="module")
def dust(world: World) -> int:
    """The least that an account without data may hold, in lamports."""
    return world.vm.minimum_balance(0)


def submitters(ticket: Ticket) -> list[Wallet]:
    return [ticket.requester, ticket.payer]


def test_a_settlement_cannot_be_repeated(firm: Site) -> None:
    ticket = firm.ask()
    before = firm.world.balance(firm.operators[0].pubkey())
    firm.world.refuse("RequestEnded", firm.record(ticket), firm.record(ticket), signers=firm.operators)
    firm.world.succeed(firm.record(ticket), signers=firm.operators)
    firm.world.refuse("RequestEnded", firm.record(ticket), signers=firm.operators)
    firm.world.refuse("RequestEnded", firm.record(ticket, output=b"another"), signers=firm.operators)
    assert firm.world.balance(firm.operators[0].pubkey()) == before + FEE_LAMPORTS


def test_one_bad_member_undoes_a_whole_pack(firm: Site) -> None:
    first, second, third = firm.ask(), firm.ask(), firm.ask()
    firm.world.succeed(firm.reject(second), signers=firm.operators)
    pack = [firm.record(ticket) for ticket in (first, second, third)]
    before = firm.world.balance(firm.operators[0].pubkey())
    firm.world.refuse("RequestEnded", *pack, signers=firm.operators)
    assert firm.header(first).status is Status.PENDING
    firm.world.succeed(pack[0], pack[2], signers=firm.operators)
    assert firm.world.balance(firm.operators[0].pubkey()) == before + 2 * FEE_LAMPORTS


def test_whoever_lands_first_wins_a_race_of_cancel_and_claim(site: Site) -> None:
    first, second = site.ask(), site.ask()
    signers = [first.requester, second.requester, site.operators[0]]
    site.world.refuse("RequestEnded", site.cancel(first), site.claim(first), signers=signers)
    site.world.refuse("LeaseRunning", site.claim(second), site.cancel(second), signers=signers)


def test_a_closed_request_cannot_be_settled_or_closed_again(firm: Site) -> None:
    ticket = firm.ask()
    firm.world.succeed(firm.reject(ticket), signers=firm.operators)
    firm.world.wait(1)
    firm.world.succeed(firm.close(ticket), signers=[ticket.payer])
    for again in (
        firm.record(ticket),
        firm.reject(ticket),
        firm.expire(ticket),
        firm.close(ticket),
        firm.publish(ticket),
    ):
        firm.world.refuse("AccountOwnedByWrongProgram", again, signers=[*firm.operators, ticket.payer])


def test_two_lives_of_an_address_never_share_a_slot(site: Site) -> None:
    world, ticket = site.world, site.ticket(site.world.wallet(), site.world.wallet())
    life = [site.submit(ticket), site.cancel(ticket), site.close(ticket), site.submit(ticket)]
    world.refuse("CloseInSlotOfCreation", *life, signers=submitters(ticket))
    world.succeed(*life[:2], signers=submitters(ticket))
    world.refuse("CloseInSlotOfCreation", *life[2:], signers=submitters(ticket))
    born = site.header(ticket).created_slot
    world.wait(1)
    world.succeed(*life[2:], signers=submitters(ticket))
    assert site.header(ticket).created_slot == born + 1


def test_an_old_settlement_that_lands_in_a_second_life_answers_the_same_question_and_is_paid_once(firm: Site) -> None:
    """The address commits to the body: what lands late lands on the very input it answers."""
    world, ticket = firm.world, firm.ticket(firm.world.wallet(), firm.world.wallet())
    world.succeed(firm.submit(ticket, ttl_slots=10), signers=submitters(ticket))
    waiting = firm.record(ticket)
    world.wait(11)
    before = world.balance(firm.operators[0].pubkey())
    world.refuse("DeadlinePassed", waiting, signers=firm.operators)
    world.succeed(firm.expire(ticket), firm.close(ticket), firm.submit(ticket), signers=submitters(ticket))
    world.succeed(waiting, signers=firm.operators)
    assert firm.read(ticket).body == ticket.body
    assert world.balance(firm.operators[0].pubkey()) == before + FEE_LAMPORTS
    world.refuse("RequestEnded", waiting, signers=firm.operators)


def test_another_question_is_never_answered_by_an_old_settlement(firm: Site) -> None:
    world, ticket = firm.world, firm.ask(ttl_slots=10)
    waiting = firm.record(ticket)
    other = replace(ticket, body=replace(BODY, input=Inline(b"another question")))
    world.wait(11)
    world.refuse("RequestStillOpen", firm.close(ticket), firm.submit(other), signers=[ticket.requester, ticket.payer])
    world.succeed(firm.expire(ticket), firm.close(ticket), signers=[ticket.payer])
    world.succeed(firm.submit(other), signers=submitters(other))
    world.refuse("AccountOwnedByWrongProgram", waiting, signers=firm.operators)


def test_a_request_is_made_once_while_it_lives(firm: Site) -> None:
    ticket = firm.ask()
    firm.world.refuse("AccountAlreadyInUse", firm.submit(ticket), signers=submitters(ticket))
    firm.world.succeed(firm.record(ticket), signers=firm.operators)
    firm.world.refuse("AccountAlreadyInUse", firm.submit(ticket), signers=submitters(ticket))


def test_lamports_sent_to_a_closing_request_do_not_revive_it(firm: Site, dust: int) -> None:
    world, ticket, giver = firm.world, firm.ask(), firm.world.wallet()
    world.succeed(firm.reject(ticket), signers=firm.operators)
    world.wait(1)
    gift = transfer(TransferParams(from_pubkey=giver.pubkey(), to_pubkey=ticket.address, lamports=dust))
    world.succeed(firm.close(ticket), gift, signers=[ticket.payer, giver])
    account = world.vm.account(ticket.address)
    assert account is not None
    assert (account.owner, bytes(account.data), account.lamports) == (Pubkey.default(), b"", dust)
    world.refuse("AccountOwnedByWrongProgram", firm.record(ticket), signers=firm.operators)
    world.refuse("AccountOwnedByWrongProgram", firm.close(ticket), signers=[ticket.payer])
    world.succeed(firm.submit(ticket), signers=submitters(ticket))
    assert firm.header(ticket).created_slot == world.slot


def test_a_lamport_too_few_on_the_address_is_refused_by_the_cluster_before_it_can_block_anything(
    firm: Site, dust: int
) -> None:
    world, giver = firm.world, firm.world.wallet()
    ticket = firm.ticket(world.wallet(), world.wallet())
    gift = transfer(TransferParams(from_pubkey=giver.pubkey(), to_pubkey=ticket.address, lamports=dust - 1))
    world.refuse("InsufficientFundsForRent", gift, signers=[giver])
    world.succeed(firm.submit(ticket), signers=submitters(ticket))


@pytest.mark.parametrize("seeds", ["queue", "operator"])
def test_dust_does_not_block_a_queue_or_an_operator(world: World, seeds: str, dust: int) -> None:
    authority = world.wallet()
    site = world.queue(CLAIM_TERMS, operators=0, authority=authority)
    newcomer = world.wallet()
    if seeds == "operator":
        world.vm.airdrop(site.add_operator(newcomer.pubkey()).accounts[0].pubkey, dust)
    site.hire(newcomer)
    assert site.state().operator_count == 1


def test_lamports_sent_to_an_open_request_go_back_with_the_close_and_never_to_the_operator(firm: Site) -> None:
    world, ticket = firm.world, firm.ask()
    world.vm.airdrop(ticket.address, 12_345)
    before = world.balance(firm.operators[0].pubkey())
    world.succeed(firm.record(ticket), signers=firm.operators)
    assert world.balance(firm.operators[0].pubkey()) == before + FEE_LAMPORTS
    rent = world.vm.minimum_balance(len(world.data(ticket.address)))
    assert world.balance(ticket.address) == rent + 12_345


def test_a_requester_needs_no_lamports(site: Site) -> None:
    """A program's address that signs through its program holds nothing: the payer is another."""
    world, penniless = site.world, site.world.wallet(0)
    kept, withdrawn = (site.ask(requester=penniless, payer=world.wallet()) for _ in range(2))
    world.succeed(site.cancel(withdrawn), signers=[penniless])
    world.succeed(site.claim(kept), signers=site.operators)
    world.succeed(site.record(kept), signers=site.operators)
    assert world.balance(penniless.pubkey()) == 0


def test_no_empty_wallet_can_make_anothers_instruction_fail(site: Site, dust: int) -> None:
    world = site.world
    tickets = {name: site.ask() for name in ("record", "reject", "cancel", "expire")}
    everyone = [ticket.requester for ticket in tickets.values()]
    world.drain(*everyone, site.authority)
    claims = [site.claim(tickets[name]) for name in ("record", "reject")]
    world.succeed(*claims, signers=site.operators)
    world.succeed(site.record(tickets["record"]), site.reject(tickets["reject"]), signers=site.operators)
    world.succeed(site.cancel(tickets["cancel"]), signers=everyone)
    world.wait(501)
    world.succeed(site.expire(tickets["expire"]))
    world.wait(site.terms.retention_slots + 1)
    stranger = world.wallet(0)
    for ticket in tickets.values():
        held = world.balance(ticket.address)
        world.succeed(site.close(ticket, closer=stranger), signers=[stranger])
        assert world.balance(ticket.payer.pubkey()) == held >= dust
    world.vm.airdrop(site.authority.pubkey(), 10**9)


def test_an_operator_without_lamports_can_claim_and_reject(world: World) -> None:
    site = world.queue(CLAIM_TERMS, operators=2)
    ticket = site.ask()
    world.drain(site.operators[1])
    world.succeed(site.claim(ticket, by=1), signers=[site.operators[1]])
    world.succeed(site.reject(ticket, by=1), signers=[site.operators[1]])


def test_an_operator_without_lamports_is_paid_what_makes_an_account_and_nothing_less(world: World, dust: int) -> None:
    """The one wallet that a settlement credits is the operator's own."""
    firm = world.queue(OPEN_TERMS)
    poor, rich = firm.ask(fee_lamports=dust - 1), firm.ask(fee_lamports=dust)
    world.drain(*firm.operators)
    world.refuse("InsufficientFundsForRent", firm.record(poor), signers=firm.operators)
    assert firm.header(poor).status is Status.PENDING
    world.succeed(firm.record(rich), signers=firm.operators)
    world.succeed(firm.record(poor), signers=firm.operators)
    assert world.balance(firm.operators[0].pubkey()) == 2 * dust - 1


def test_a_payer_cannot_be_left_with_less_than_an_account_needs(firm: Site, dust: int) -> None:
    world = firm.world
    ticket = firm.ticket(world.wallet(), world.wallet(0))
    whole = world.balance(firm.ask().address)
    for lamports, expected in (
        (0, "ResultWithNegativeLamports"),
        (whole - 1, "ResultWithNegativeLamports"),
        (whole + 1, "InsufficientFundsForRent"),
        (whole + dust - 1, "InsufficientFundsForRent"),
    ):
        world.vm.set_account(ticket.payer.pubkey(), Account(lamports, b"", Pubkey.default()))
        world.refuse(expected, firm.submit(ticket), signers=submitters(ticket))
    world.vm.set_account(ticket.payer.pubkey(), Account(whole, b"", Pubkey.default()))
    world.succeed(firm.submit(ticket), signers=submitters(ticket))
    assert world.balance(ticket.payer.pubkey()) == 0


def test_the_rent_of_a_removed_operator_returns_to_the_authority(world: World) -> None:
    site = world.queue(CLAIM_TERMS)
    held = world.balance(site.operator())
    world.drain(site.authority)
    world.succeed(site.remove_operator(), signers=[site.authority])
    assert world.balance(site.authority.pubkey()) == held == world.vm.minimum_balance(208)
    assert world.vm.account(site.operator()) is None
    world.refuse("AccountOwnedByWrongProgram", site.remove_operator(), signers=[site.authority])


def test_a_requester_may_be_its_own_operator_and_gains_nothing(firm: Site) -> None:
    world, (operator,) = firm.world, firm.operators
    before = world.balance(operator.pubkey())
    ticket = firm.ask(requester=operator)
    world.succeed(firm.record(ticket), signers=[operator])
    world.wait(1)
    world.succeed(firm.close(ticket), signers=[operator])
    assert world.balance(operator.pubkey()) == before


def test_a_payer_who_is_nobody_else_gets_the_refund_and_the_requester_does_not(site: Site) -> None:
    world, payer = site.world, site.world.wallet()
    before = world.balance(payer.pubkey())
    ticket = site.ask(payer=payer)
    requester_had = world.balance(ticket.requester.pubkey())
    world.succeed(site.cancel(ticket), signers=[ticket.requester])
    world.wait(1)
    world.refuse("RetentionRunning", site.close(ticket, closer=ticket.requester), signers=[ticket.requester])
    world.succeed(site.close(ticket), signers=[payer])
    assert world.balance(payer.pubkey()) == before
    assert world.balance(ticket.requester.pubkey()) == requester_had
