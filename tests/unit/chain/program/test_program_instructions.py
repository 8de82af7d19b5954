"""Instructions and addresses: golden bytes, accounts in order, values that do not fit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256

import pytest
from program_samples import BODY, discriminator, key
from solders.instruction import AccountMeta, Instruction
from solders.pubkey import Pubkey

from oracle.chain.program import addresses, instructions
from oracle.chain.program.body import encode_body
from oracle.chain.program.layout import QueueTerms
from oracle.core.errors import OracleError
from oracle.core.request import Inline

PROGRAM = Pubkey.from_string("BpyCayTbo23JUqQPEu3M2iDCLtULTtK3TJt2HcaYRjWp")
SYSTEM = Pubkey.default()
REQUEST, OPERATOR_KEY, OPERATOR, QUEUE, AUTHORITY, REQUESTER, PAYER = map(key, range(1, 8))
SETTLER = {"request": REQUEST, "operator_key": OPERATOR_KEY, "operator": OPERATOR}
TERMS = QueueTerms(1, 2, 3, 4, 5, 6, 7, True)
TERMS_HEX = "0100000000000000020000000000000003000000000000000400000005000000060000000700000001"


def submit(**changed: object) -> Instruction:
    values = {
        "queue": QUEUE,
        "requester": REQUESTER,
        "payer": PAYER,
        "nonce": 9,
        "fee_lamports": 10,
        "ttl_slots": 11,
        "output_cap": 12,
        "body": BODY,
    }
    return instructions.submit_request(PROGRAM, **{**values, **changed})  # type: ignore[arg-type]


def record(**changed: object) -> Instruction:
    values = {"output_hash": bytes([0xAA]) * 32, "job_hash": bytes([0xBB]) * 32, "completed_at": -2}
    return instructions.record_inference_result(PROGRAM, **SETTLER, **{**values, **changed})  # type: ignore[arg-type]


def seeds_of(*seeds: bytes) -> Pubkey:
    return Pubkey.find_program_address(list(seeds), PROGRAM)[0]


NAME = b"main".ljust(32, b"\0")
QUEUE_PDA = seeds_of(b"queue", bytes(AUTHORITY), NAME)
OPERATOR_PDA = seeds_of(b"operator", bytes(QUEUE), bytes(OPERATOR_KEY))
BODY_BYTES = encode_body(BODY)
BODY_HASH = sha256(BODY_BYTES).digest()
REQUEST_PDA = seeds_of(b"request", bytes(QUEUE), bytes(REQUESTER), bytes([9, 0, 0, 0, 0, 0, 0, 0]), BODY_HASH)

# name, instruction, arguments in hex, accounts with w for writable and s for signer
CASES: list[tuple[str, Instruction, str, list[tuple[Pubkey, str]]]] = [
    (
        "create_queue",
        instructions.create_queue(PROGRAM, authority=AUTHORITY, name="main", terms=TERMS),
        NAME.hex() + TERMS_HEX,
        [(QUEUE_PDA, "w"), (AUTHORITY, "ws"), (SYSTEM, "")],
    ),
    (
        "update_queue",
        instructions.update_queue(PROGRAM, queue=QUEUE, authority=AUTHORITY, terms=TERMS, paused=True),
        TERMS_HEX + "01",
        [(QUEUE, "w"), (AUTHORITY, "s")],
    ),
    (
        "add_operator",
        instructions.add_operator(PROGRAM, queue=QUEUE, authority=AUTHORITY, operator_key=OPERATOR_KEY, uri="http://x"),
        "08000000" + b"http://x".hex(),
        [(OPERATOR_PDA, "w"), (QUEUE, "w"), (AUTHORITY, "ws"), (OPERATOR_KEY, ""), (SYSTEM, "")],
    ),
    (
        "update_operator",
        instructions.update_operator(PROGRAM, operator=OPERATOR, operator_key=OPERATOR_KEY, uri="http://x"),
        "08000000" + b"http://x".hex(),
        [(OPERATOR, "w"), (OPERATOR_KEY, "s")],
    ),
    (
        "remove_operator",
        instructions.remove_operator(PROGRAM, operator=OPERATOR, queue=QUEUE, authority=AUTHORITY),
        "",
        [(OPERATOR, "w"), (QUEUE, "w"), (AUTHORITY, "ws")],
    ),
    (
        "submit_request",
        submit(),
        "09000000000000000a000000000000000b000000000000000c000000" + BODY_HASH.hex() + BODY_BYTES.hex(),
        [(REQUEST_PDA, "w"), (QUEUE, ""), (REQUESTER, "s"), (PAYER, "ws"), (SYSTEM, "")],
    ),
    (
        "claim_request",
        instructions.claim_request(PROGRAM, queue=QUEUE, **SETTLER),
        "",
        [(REQUEST, "w"), (OPERATOR_KEY, "s"), (OPERATOR, ""), (QUEUE, "")],
    ),
    (
        "record_inference_result",
        record(),
        "aa" * 32 + "bb" * 32 + "feffffffffffffff",
        [(REQUEST, "w"), (OPERATOR_KEY, "ws"), (OPERATOR, "")],
    ),
    (
        "publish_output",
        instructions.publish_output(PROGRAM, output=b"\x00\xff", **SETTLER),
        "0200000000ff",
        [(REQUEST, "w"), (OPERATOR_KEY, "s"), (OPERATOR, "")],
    ),
    (
        "reject_request",
        instructions.reject_request(PROGRAM, reason=255, **SETTLER),
        "ff",
        [(REQUEST, "w"), (OPERATOR_KEY, "s"), (OPERATOR, "")],
    ),
    (
        "cancel_request",
        instructions.cancel_request(PROGRAM, request=REQUEST, requester=REQUESTER),
        "",
        [(REQUEST, "w"), (REQUESTER, "s")],
    ),
    ("expire_request", instructions.expire_request(PROGRAM, request=REQUEST), "", [(REQUEST, "w")]),
    (
        "close_request",
        instructions.close_request(PROGRAM, request=REQUEST, refund_to=PAYER, closer=AUTHORITY),
        "",
        [(REQUEST, "w"), (PAYER, "w"), (AUTHORITY, "s")],
    ),
]


@pytest.mark.parametrize(("name", "instruction", "arguments", "accounts"), CASES, ids=[case[0] for case in CASES])
def test_an_instruction_has_these_bytes_and_accounts(
    name: str, instruction: Instruction, arguments: str, accounts: list[tuple[Pubkey, str]]
) -> None:
    assert bytes(instruction.data).hex() == discriminator(f"global:{name}").hex() + arguments
    assert instruction.accounts == [AccountMeta(address, "s" in role, "w" in role) for address, role in accounts]
    assert instruction.program_id == PROGRAM


def test_another_body_lives_at_another_address() -> None:
    other = replace(BODY, input=Inline(b"another question"))
    assert submit(body=other).accounts[0].pubkey != submit().accounts[0].pubkey


@pytest.mark.parametrize(
    "make",
    [
        lambda: submit(fee_lamports=2**64),
        lambda: submit(fee_lamports=-1),
        lambda: submit(nonce=2**64),
        lambda: submit(nonce=-1),
        lambda: submit(output_cap=2**32),
        lambda: record(completed_at=2**63),
        lambda: record(output_hash=bytes(31)),
        lambda: record(job_hash=bytes(33)),
        lambda: instructions.reject_request(PROGRAM, reason=256, **SETTLER),
        lambda: instructions.update_operator(PROGRAM, operator=OPERATOR, operator_key=OPERATOR_KEY, uri="\udfff"),
        lambda: instructions.update_queue(
            PROGRAM, queue=QUEUE, authority=AUTHORITY, terms=replace(TERMS, lease_slots=2**32), paused=False
        ),
        lambda: addresses.queue_address(PROGRAM, AUTHORITY, ""),
        lambda: addresses.queue_address(PROGRAM, AUTHORITY, "x" * 33),
        lambda: addresses.queue_address(PROGRAM, AUTHORITY, "zero\0inside"),
        lambda: addresses.queue_address(PROGRAM, AUTHORITY, "naïve"),
        lambda: addresses.request_address(PROGRAM, QUEUE, REQUESTER, 0, bytes(31)),
    ],
)
def test_a_value_that_does_not_fit_is_refused_with_a_code(make: Callable[[], object]) -> None:
    with pytest.raises(OracleError) as caught:
        make()
    assert caught.value.code == "ORC-CHAIN-105"
