"""A second operator never meets a request that can be settled without a claim: it could copy the answer and be paid."""

from __future__ import annotations

from dataclasses import replace

from deployed_oracle import CLAIMED_TERMS, PROGRAM_ID, TERMS, URI, Deployment
from solders.keypair import Keypair

from oracle.chain.program import instructions
from oracle.chain.program.errors import code_of
from oracle.chain.program.layout import QueueTerms
from oracle.localnet.vm import Outcome


def test_a_second_operator_is_refused_while_claims_are_not_required() -> None:
    oracle = with_one_operator(TERMS)
    assert add_another(oracle).custom_error == code_of("SecondOperatorNeedsClaims")


def test_a_second_operator_is_welcome_where_claims_were_always_required() -> None:
    oracle = with_one_operator(CLAIMED_TERMS)
    assert add_another(oracle).ok


def test_claims_stay_required_while_there_are_two_operators() -> None:
    oracle = with_one_operator(CLAIMED_TERMS)
    assert add_another(oracle).ok
    assert update(oracle, TERMS).custom_error == code_of("ClaimsStillRequired")


def test_a_second_operator_waits_until_the_last_request_without_a_claim_is_past_its_deadline() -> None:
    oracle = with_one_operator(TERMS)
    assert update(oracle, CLAIMED_TERMS).ok
    oracle.wait(TERMS.max_deadline_slots)
    assert add_another(oracle).custom_error == code_of("UnclaimedRequestsRemain")
    oracle.wait(1)
    assert add_another(oracle).ok


def test_shortening_deadlines_first_does_not_shorten_the_wait() -> None:
    oracle = with_one_operator(TERMS)
    assert update(oracle, replace(TERMS, max_deadline_slots=10)).ok
    assert update(oracle, CLAIMED_TERMS).ok
    oracle.wait(TERMS.max_deadline_slots)
    assert add_another(oracle).custom_error == code_of("UnclaimedRequestsRemain")
    oracle.wait(1)
    assert add_another(oracle).ok


def test_a_single_operator_may_be_replaced_at_any_time() -> None:
    oracle = with_one_operator(TERMS)
    assert update(oracle, CLAIMED_TERMS).ok
    oracle.succeed(
        oracle.authority,
        instructions.remove_operator(
            PROGRAM_ID, operator=oracle.operator, queue=oracle.queue, authority=oracle.authority.pubkey()
        ),
    )
    assert add_another(oracle).ok


def with_one_operator(terms: QueueTerms) -> Deployment:
    oracle = Deployment(terms)
    oracle.create_queue()
    oracle.add_operator()
    return oracle


def add_another(oracle: Deployment) -> Outcome:
    another = Keypair.from_seed(bytes([7] * 32)).pubkey()
    authority = oracle.authority.pubkey()
    return oracle.send(
        oracle.authority,
        instructions.add_operator(PROGRAM_ID, queue=oracle.queue, authority=authority, operator_key=another, uri=URI),
    )


def update(oracle: Deployment, terms: QueueTerms) -> Outcome:
    authority = oracle.authority.pubkey()
    return oracle.send(
        oracle.authority,
        instructions.update_queue(PROGRAM_ID, queue=oracle.queue, authority=authority, terms=terms, paused=False),
    )
