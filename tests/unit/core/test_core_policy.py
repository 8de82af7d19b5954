"""What is worth doing: every refusal at its exact bound, in a fixed order, with the end that it leads to."""

from __future__ import annotations

import hashlib
import math
from dataclasses import replace
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from solders.pubkey import Pubkey

from oracle.core import errors, policy
from oracle.core.errors import OracleError, Verdict
from oracle.core.policy import Facts, Terms
from oracle.core.request import ZERO_HASH, Body, Flags, Header, Inline, Params, Reason, Request, Status

REQUESTER = Pubkey.from_bytes(bytes([7] * 32))
SOMEBODY = str(Pubkey.from_bytes(bytes([8] * 32)))
BODY = b"the stored body"
TERMS = Terms(
    min_fee_lamports=1_000,
    max_output_tokens=64,
    max_open_per_requester=3,
    allow_requesters=None,
    deny_requesters=(),
    deadline_margin_slots=25,
    margin=0.1,
)
FACTS = Facts(slot=500, open_of_requester=1)


def request(*, params: Params | None = None, body_bytes: bytes = BODY, **changes: Any) -> Request:
    header: dict[str, Any] = {
        "version": 1,
        "status": Status.PENDING,
        "reason": 0,
        "bump": 255,
        "body_len": len(BODY),
        "queue": Pubkey.default(),
        "operator": Pubkey.default(),
        "deadline_slot": 1_000,
        "claim_expires_slot": 0,
        "fee_lamports": 5_000,
        "created_slot": 400,
        "settled_slot": 0,
        "nonce": 1,
        "requester": REQUESTER,
        "refund_to": REQUESTER,
        "body_hash": hashlib.sha256(BODY).digest(),
        "callback_program": Pubkey.default(),
        "output_hash": ZERO_HASH,
        "job_hash": ZERO_HASH,
        "completed_at": 0,
        "output_cap": 0,
        "output_len": 0,
        "lease_slots": 0,
        "retention_slots": 0,
        "claim_required": False,
        "callback_delivered": False,
    }
    body = Body("llama", params or Params(16), Inline(b"hello"))
    return Request(Pubkey.default(), Header(**{**header, **changes}), body_bytes, body)


def verdict(asked: Request | None = None, *, facts: Facts = FACTS, **terms: Any) -> str | None:
    """The code that speaks against a request; None where nothing does."""
    try:
        policy.check(asked or request(), replace(TERMS, **terms), facts)
    except OracleError as error:
        return error.code
    return None


def test_a_request_that_meets_every_term_is_taken_up() -> None:
    assert verdict() is None


def test_a_body_that_is_not_the_one_of_its_address_is_refused_first_of_all() -> None:
    forged = request(body_bytes=BODY + b"!")
    assert verdict(forged, deny_requesters=(str(REQUESTER),)) == "ORC-POLICY-008"


def test_requesters_are_denied_by_name() -> None:
    assert verdict(deny_requesters=(str(REQUESTER),)) == "ORC-POLICY-001"
    assert verdict(deny_requesters=(SOMEBODY,)) is None


def test_an_allow_list_admits_those_on_it_only_and_a_denial_outweighs_it() -> None:
    assert verdict(allow_requesters=(str(REQUESTER),)) is None
    assert verdict(allow_requesters=(SOMEBODY,)) == "ORC-POLICY-001"
    assert verdict(allow_requesters=()) == "ORC-POLICY-001"
    assert verdict(allow_requesters=(str(REQUESTER),), deny_requesters=(str(REQUESTER),)) == "ORC-POLICY-001"


def test_the_last_open_request_that_is_allowed_counts_itself() -> None:
    assert verdict(facts=replace(FACTS, open_of_requester=3)) is None
    assert verdict(facts=replace(FACTS, open_of_requester=4)) == "ORC-POLICY-002"
    assert verdict(facts=replace(FACTS, open_of_requester=10**6), max_open_per_requester=None) is None


@pytest.mark.parametrize(("tokens", "code"), [(0, "ORC-POLICY-007"), (1, None), (64, None), (65, "ORC-POLICY-007")])
def test_output_tokens_are_asked_for_within_the_operators_bound(tokens: int, code: str | None) -> None:
    assert verdict(request(params=Params(tokens))) == code


@pytest.mark.parametrize(("fee", "code"), [(0, "ORC-POLICY-004"), (999, "ORC-POLICY-004"), (1_000, None)])
def test_a_fee_below_the_floor_is_refused(fee: int, code: str | None) -> None:
    assert verdict(request(fee_lamports=fee)) == code


@pytest.mark.parametrize(("deadline", "code"), [(0, "ORC-POLICY-003"), (524, "ORC-POLICY-003"), (525, None)])
def test_a_deadline_within_the_margin_is_refused(deadline: int, code: str | None) -> None:
    assert verdict(request(deadline_slot=deadline)) == code


@pytest.mark.parametrize(
    ("asked", "facts", "terms", "detail"),
    [
        ({"body_bytes": b"forged"}, FACTS, {}, f"{Pubkey.default()}@400"),
        ({}, FACTS, {"deny_requesters": (str(REQUESTER),)}, str(REQUESTER)),
        ({}, Facts(500, 9), {}, "9 open, at most 3"),
        ({"params": Params(65)}, FACTS, {}, "65, at most 64"),
        ({"fee_lamports": 999}, FACTS, {}, "999 lamports, floor 1000"),
        ({"deadline_slot": 524}, FACTS, {}, "slot 500, deadline 524, 25 slots needed"),
    ],
)
def test_a_refusal_says_what_was_met_and_what_is_allowed(
    asked: dict[str, Any], facts: Facts, terms: dict[str, Any], detail: str
) -> None:
    with pytest.raises(OracleError) as raised:
        policy.check(request(**asked), replace(TERMS, **terms), facts)
    assert raised.value.detail == detail


def test_refusals_come_in_one_order_whatever_else_is_wrong() -> None:
    """A requester that mends one fault must not be told of another that it had before."""
    faults: list[tuple[str, dict[str, Any]]] = [
        ("ORC-POLICY-001", {"terms": {"deny_requesters": (str(REQUESTER),)}}),
        ("ORC-POLICY-002", {"facts": Facts(500, 9)}),
        ("ORC-POLICY-007", {"asked": {"params": Params(0)}}),
        ("ORC-POLICY-004", {"asked": {"fee_lamports": 0}}),
        ("ORC-POLICY-003", {"asked": {"deadline_slot": 0}}),
    ]
    for at, (code, _) in enumerate(faults):
        asked: dict[str, Any] = {}
        terms: dict[str, Any] = {}
        facts = FACTS
        for _, fault in faults[at:]:
            asked |= fault.get("asked", {})
            terms |= fault.get("terms", {})
            facts = fault.get("facts", facts)
        assert verdict(request(**asked), facts=facts, **terms) == code


u48s = st.integers(0, 2**48)
margins = st.integers(-1_000_000, 5_000_000)


@given(u48s, u48s, margins)
def test_the_least_fee_is_cost_and_margin_to_the_lamport(quote: int, settlement: int, millionths: int) -> None:
    exact = (quote + settlement) * (1 + Fraction(millionths, 1_000_000))
    assert policy.required_fee(quote, settlement, millionths / 1_000_000) == math.ceil(exact)


@pytest.mark.parametrize(
    ("margin", "needed"), [(0.0, 1_001), (0.1, 1_102), (1.0, 2_002), (-0.5, 501), (-1.0, 0), (-2.0, 0)]
)
def test_a_margin_is_profit_and_a_negative_one_sells_below_cost(margin: float, needed: int) -> None:
    assert policy.required_fee(901, 100, margin) == needed
    policy.check_fee(needed, 901, 100, margin)
    if needed:
        with pytest.raises(OracleError, match=f"{needed - 1} lamports, {needed} needed") as raised:
            policy.check_fee(needed - 1, 901, 100, margin)
        assert raised.value.code == "ORC-POLICY-004"


@given(st.integers(0, 2**63), st.integers(0, 2**63), st.integers(0, 2**40))
def test_a_deadline_holds_exactly_the_slots_that_are_needed(deadline: int, slot: int, needed: int) -> None:
    if slot + needed <= deadline:
        policy.check_deadline(deadline, slot, needed)
    else:
        with pytest.raises(OracleError, match=f"slot {slot}, deadline {deadline}, {needed} slots needed"):
            policy.check_deadline(deadline, slot, needed)


REJECTED = {
    "ORC-POLICY-005": Reason.MODEL_UNAVAILABLE,
    "ORC-POLICY-006": Reason.PRIVACY_UNAVAILABLE,
    "ORC-POLICY-009": Reason.NO_PROVIDER,
    "ORC-POLICY-010": Reason.PURCHASE_UNCONFIRMED,
    "ORC-POLICY-011": Reason.NO_PROVIDER,
    "ORC-POLICY-013": Reason.INPUT_UNAVAILABLE,
    "ORC-POLICY-021": Reason.PURCHASE_UNCONFIRMED,
    "ORC-POLICY-022": Reason.BUDGET_EXHAUSTED,
}


def test_what_the_operator_cannot_do_is_rejected_and_what_the_requester_got_wrong_declined_at_no_cost() -> None:
    codes = [code for code in vars(policy).values() if isinstance(code, errors.ErrorCode)]
    assert {code.code: reason for code in codes if (reason := policy.disposition(code()))} == REJECTED


def test_what_another_try_may_mend_is_tried_again_and_nothing_else() -> None:
    codes = [code for code in vars(policy).values() if isinstance(code, errors.ErrorCode)]
    by_verdict = {v: {code.code[-3:] for code in codes if code.verdict is v} for v in Verdict}
    assert by_verdict[Verdict.RETRY] >= {"015", "017", "018", "019", "020"}
    assert by_verdict[Verdict.UNKNOWN] == {"010"}
    assert by_verdict[Verdict.GIVE_UP] >= {"001", "002", "003", "004", "008", "009", "011", "014", "016"}


def test_flags_are_read_one_by_one() -> None:
    for flags in (Flags.NONE, Flags.PRIVATE, Flags.ANY_MODEL, Flags.CHAT, Flags.PRIVATE | Flags.ANY_MODEL):
        asked = request(params=Params(16, flags=flags))
        assert policy.is_private(asked) == bool(flags & Flags.PRIVATE)
        assert policy.allows_any_model(asked) == bool(flags & Flags.ANY_MODEL)


def test_a_request_is_named_by_its_address_and_its_slot() -> None:
    assert str(request().key) == f"{Pubkey.default()}@400"
