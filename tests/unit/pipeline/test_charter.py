"""What the daemon makes is what its keys sign, and nothing else of the programs it calls."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from solders.hash import Hash
from solders.instruction import Instruction
from solders.keypair import Keypair
from solders.message import to_bytes_versioned
from solders.pubkey import Pubkey

from oracle.chain import derived
from oracle.chain.program import idl, instructions
from oracle.chain.program.body import encode_body
from oracle.chain.program.layout import HEADER_LENGTH, QueueTerms
from oracle.config import Config, Spending, parse
from oracle.core.errors import OracleError
from oracle.core.request import Body, Inline, Params
from oracle.core.spending import Charter, Spend, judge
from oracle.pipeline import charter
from oracle.pipeline.transactions import message_of
from oracle.providers.nosana import program as nosana

KEY = Keypair().pubkey()
PROGRAM = idl.program_id()
CAPS = charter.caps_of(Spending())
A, B, C = (Pubkey.new_unique() for _ in range(3))
ON_CHAIN = parse({"providers": {"chain": {"kind": "nosana_onchain", "markets": [str(A)]}}})
JOBS = nosana.Program("mainnet")
JOB = nosana.JobAccount(bytes(32), None, A, KEY, 1, KEY, nosana.JobState.QUEUED, 0, 0, 1)
BODY = Body("tiny", Params(max_output_tokens=10), Inline(b"hello"))

SETTLEMENTS: dict[str, Callable[[], Instruction]] = {
    "claim": lambda: instructions.claim_request(PROGRAM, request=A, operator_key=KEY, operator=B, queue=C),
    "record": lambda: instructions.record_inference_result(
        PROGRAM, request=A, operator_key=KEY, operator=B, output_hash=bytes(32), job_hash=bytes(32), completed_at=1
    ),
    "publish": lambda: instructions.publish_output(PROGRAM, request=A, operator_key=KEY, operator=B, output=b"x"),
    "reject": lambda: instructions.reject_request(PROGRAM, request=A, operator_key=KEY, operator=B, reason=1),
    "expire": lambda: instructions.expire_request(PROGRAM, request=A),
    "close": lambda: instructions.close_request(PROGRAM, request=A, refund_to=B, closer=KEY),
}
TERMS = QueueTerms(*([1] * 7), False)
FOREIGN: dict[str, Callable[[], Instruction]] = {
    "create_queue": lambda: instructions.create_queue(PROGRAM, authority=KEY, name="mine", terms=TERMS),
    "cancel": lambda: instructions.cancel_request(PROGRAM, request=A, requester=KEY),
    "remove_operator": lambda: instructions.remove_operator(PROGRAM, operator=B, queue=A, authority=KEY),
}
PURCHASES: dict[str, tuple[Callable[[], Instruction], int]] = {
    "list": (
        lambda: JOBS.list_job(job=B, run=C, market=A, owner=KEY, definition=bytes(32), timeout_seconds=60),
        nosana.JOB_RENT_LAMPORTS + nosana.RUN_RENT_LAMPORTS + 10_000,
    ),
    "delist": (lambda: JOBS.delist(B, JOB, KEY), 0),
    "end": (lambda: JOBS.end(B, JOB, C, nosana.RunAccount(B, A, A, 0), KEY), 0),
    "recover": (lambda: JOBS.recover(B, JOB, KEY), 0),
    "a token account": (lambda: JOBS.create_nos_account(A, KEY), charter.TOKEN_ACCOUNT_RENT_LAMPORTS),
}


def cost(instruction: Instruction, allowed: Charter) -> Spend:
    message = message_of(KEY, [instruction], Hash.default(), unit_limit=200_000, micro_lamports=0)
    return judge(to_bytes_versioned(message), KEY, allowed, CAPS)


def submission(fee_lamports: int = 50_000) -> Instruction:
    return instructions.submit_request(
        PROGRAM,
        queue=A,
        requester=KEY,
        payer=KEY,
        nonce=7,
        fee_lamports=fee_lamports,
        ttl_slots=100,
        output_cap=10,
        body=BODY,
    )


@pytest.mark.parametrize("kind", SETTLEMENTS)
def test_every_settlement_is_signed_for_its_fee(kind: str) -> None:
    assert cost(SETTLEMENTS[kind](), charter.operator_charter(Config())) == Spend(5_000)


@pytest.mark.parametrize("kind", PURCHASES)
def test_every_step_of_a_purchase_is_signed_where_a_provider_buys_on_chain(kind: str) -> None:
    make, moved = PURCHASES[kind]
    assert cost(make(), charter.operator_charter(ON_CHAIN)) == Spend(5_000 + moved)
    with pytest.raises(OracleError, match="ORC-SIGNER-010"):
        cost(make(), charter.operator_charter(Config()))


@pytest.mark.parametrize("kind", FOREIGN)
def test_what_only_an_authority_or_a_requester_does_is_not_signed(kind: str) -> None:
    for allowed in (charter.operator_charter(ON_CHAIN), charter.gateway_charter(Config())):
        with pytest.raises(OracleError, match="ORC-SIGNER-010"):
            cost(FOREIGN[kind](), allowed)


def test_a_recording_costs_its_fee_and_rent_and_only_the_gateway_signs_it() -> None:
    size = HEADER_LENGTH + len(encode_body(BODY)) + 10
    expected = Spend(5_000 + 50_000 + charter.LAMPORTS_PER_BYTE * (size + 128))
    assert cost(submission(), charter.gateway_charter(Config())) == expected
    with pytest.raises(OracleError, match="ORC-SIGNER-011"):
        cost(submission(fee_lamports=20_000_000), charter.gateway_charter(Config()))
    with pytest.raises(OracleError, match="ORC-SIGNER-010"):
        cost(submission(), charter.operator_charter(ON_CHAIN))
    for kind in SETTLEMENTS:
        with pytest.raises(OracleError, match="ORC-SIGNER-010"):
            cost(SETTLEMENTS[kind](), charter.gateway_charter(Config()))


def test_the_text_that_keys_of_purchases_come_from_is_signed_only_where_they_are_needed() -> None:
    assert judge(derived.TEXT, KEY, charter.operator_charter(ON_CHAIN), CAPS) == Spend()
    with pytest.raises(OracleError, match="ORC-SIGNER-010"):
        judge(derived.TEXT, KEY, charter.operator_charter(Config()), CAPS)


def test_a_program_of_ones_own_address_is_the_one_that_is_signed_for() -> None:
    config = parse({"cluster": {"program_id": str(A)}})
    with pytest.raises(OracleError, match="ORC-SIGNER-010"):
        cost(SETTLEMENTS["record"](), charter.operator_charter(config))
    own = instructions.expire_request(A, request=B)
    assert cost(own, charter.operator_charter(config)) == Spend(5_000)
