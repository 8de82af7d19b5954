"""What each instruction costs, measured in the virtual machine and held against the table users read."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from deployed_oracle import BODY, CLAIMED_TERMS, OUTPUT, PROGRAM_ID, TERMS, TTL_SLOTS, URI, Deployment
from solders.compute_budget import set_compute_unit_limit, set_compute_unit_price

from oracle.chain.program import instructions
from oracle.core.request import Inline

REFERENCE = Path(__file__).resolve().parents[3] / "docs/reference/program.md"
LONG_BODY = replace(BODY, input=Inline(b"long " * 128))

# A rebuild moves single units about; more than this is a change that the reference must tell.
TOLERANCE = 0.02


@pytest.fixture(scope="module")
def measured() -> dict[str, int]:
    return set_up() | life_without_claims() | life_with_claims()


def test_every_instruction_costs_what_the_reference_says(measured: dict[str, int], show: Callable[[str], None]) -> None:
    table = REFERENCE.read_text().partition("## Compute units")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (.+?) +\| +([\d,]+) \|$", table, re.MULTILINE)
    documented = {name.replace("`", ""): int(units.replace(",", "")) for name, units in rows}
    for name, units in measured.items():
        show(f"{name:60} {units:>7,} CU")
    assert measured == pytest.approx(documented, rel=TOLERANCE)


def test_a_bare_record_costs_at_most_2500_units(measured: dict[str, int]) -> None:
    assert measured["record_inference_result"] <= 2_500
    assert measured["record_inference_result after a claim"] <= 2_500


def set_up() -> dict[str, int]:
    oracle = Deployment()
    create, add = oracle.create_queue(), oracle.add_operator()
    authority, operator_key = oracle.authority.pubkey(), oracle.operator_keys.pubkey()
    update = oracle.succeed(
        oracle.authority,
        instructions.update_queue(PROGRAM_ID, queue=oracle.queue, authority=authority, terms=TERMS, paused=False),
    )
    move = oracle.succeed(
        oracle.operator_keys,
        instructions.update_operator(PROGRAM_ID, operator=oracle.operator, operator_key=operator_key, uri=URI),
    )
    remove = oracle.succeed(
        oracle.authority,
        instructions.remove_operator(PROGRAM_ID, operator=oracle.operator, queue=oracle.queue, authority=authority),
    )
    return {
        "create_queue": create.units_consumed,
        "update_queue": update.units_consumed,
        "add_operator": add.units_consumed,
        "update_operator": move.units_consumed,
        "remove_operator": remove.units_consumed,
    }


def life_without_claims() -> dict[str, int]:
    oracle = Deployment()
    oracle.create_queue()
    oracle.add_operator()
    operator_key = oracle.operator_keys.pubkey()
    recorded, rejected, expired, *pack = oracle.cheap_nonces(11)
    submit, *_ = [oracle.submit(nonce) for nonce in (recorded, rejected, expired, *pack)]
    long = oracle.submit(oracle.cheap_nonces(1, LONG_BODY)[0], LONG_BODY)
    oracle.wait(1)

    request = oracle.request(recorded)
    record = oracle.succeed(oracle.operator_keys, oracle.record(request))
    again = oracle.send(oracle.operator_keys, oracle.record(request))
    publish = oracle.succeed(
        oracle.operator_keys,
        instructions.publish_output(
            PROGRAM_ID, request=request, operator_key=operator_key, operator=oracle.operator, output=OUTPUT
        ),
    )
    close = oracle.succeed(oracle.requester, oracle.close(request))
    reject = oracle.succeed(oracle.operator_keys, oracle.reject(oracle.request(rejected)))
    budget = [set_compute_unit_limit(1_400_000), set_compute_unit_price(1)]
    eight = oracle.succeed(oracle.operator_keys, *budget, *(oracle.record(oracle.request(nonce)) for nonce in pack))
    oracle.wait(TTL_SLOTS)
    expire = oracle.succeed(oracle.requester, instructions.expire_request(PROGRAM_ID, request=oracle.request(expired)))
    return {
        "submit_request, 12-byte input": submit.units_consumed,
        "submit_request, 640-byte input": long.units_consumed,
        "record_inference_result": record.units_consumed,
        "record_inference_result, refused as already fulfilled": again.units_consumed,
        "eight record_inference_result, with the compute budget": eight.units_consumed,
        "publish_output, 14 bytes": publish.units_consumed,
        "reject_request": reject.units_consumed,
        "expire_request": expire.units_consumed,
        "close_request": close.units_consumed,
    }


def life_with_claims() -> dict[str, int]:
    oracle = Deployment(CLAIMED_TERMS)
    oracle.create_queue()
    oracle.add_operator()
    claimed, cancelled = oracle.cheap_nonces(2)
    oracle.submit(claimed)
    oracle.submit(cancelled)
    claim = oracle.succeed(oracle.operator_keys, oracle.claim(oracle.request(claimed)))
    record = oracle.succeed(oracle.operator_keys, oracle.record(oracle.request(claimed)))
    cancel = oracle.succeed(
        oracle.requester,
        instructions.cancel_request(PROGRAM_ID, request=oracle.request(cancelled), requester=oracle.requester.pubkey()),
    )
    return {
        "claim_request": claim.units_consumed,
        "record_inference_result after a claim": record.units_consumed,
        "cancel_request": cancel.units_consumed,
    }
