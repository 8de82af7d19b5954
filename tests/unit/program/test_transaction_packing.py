"""How many settlements fit a transaction of 1,232 bytes: the figure the operator's costs rest on."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from deployed_oracle import Deployment, signed
from solders.compute_budget import set_compute_unit_limit, set_compute_unit_price
from solders.instruction import Instruction
from solders.pubkey import Pubkey

REFERENCE = Path(__file__).resolve().parents[3] / "docs/reference/program.md"
TRANSACTION_BYTES = 1_232


@pytest.fixture(scope="module")
def oracle() -> Deployment:
    return Deployment()


def test_eight_settlements_fit_one_transaction(oracle: Deployment, show: Callable[[str], None]) -> None:
    count, size = most_that_fit(oracle, oracle.record)
    show(f"record_inference_result: {count} in {size} of {TRANSACTION_BYTES} bytes")
    assert count >= 8


def test_a_settlement_carries_80_bytes_and_names_three_accounts(oracle: Deployment) -> None:
    instruction = oracle.record(Pubkey.new_unique())
    assert len(bytes(instruction.data)) == 80
    assert [meta.is_writable for meta in instruction.accounts] == [True, True, False]


def test_the_reference_states_how_many_fit(oracle: Deployment) -> None:
    kinds = {
        "record_inference_result": oracle.record,
        "claim_request": oracle.claim,
        "reject_request": oracle.reject,
    }
    fitting = {name: most_that_fit(oracle, make) for name, make in kinds.items()}
    table = REFERENCE.read_text().partition("## Packing")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)` +\| \d+ +\| (\d+) +\| ([\d,]+) \|$", table, re.MULTILINE)
    assert {name: (int(count), int(size.replace(",", ""))) for name, count, size in rows} == fitting


def most_that_fit(oracle: Deployment, make: Callable[[Pubkey], Instruction]) -> tuple[int, int]:
    """How many of one kind fit beside a compute limit and a price, the operator paying, and the bytes they take."""
    pack = [set_compute_unit_limit(1_400_000), set_compute_unit_price(1)]
    count, size = 0, 0
    while (longer := len(bytes(signed(oracle.operator_keys, *pack, make(Pubkey.new_unique()))))) <= TRANSACTION_BYTES:
        pack.append(make(Pubkey.new_unique()))
        count, size = count + 1, longer
    return count, size
