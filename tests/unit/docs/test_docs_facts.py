"""Figures and examples in the documentation are recomputed, and the tests it names exist."""

import ast
import hashlib
import json
import re

import pytest
from docs_pages import PAGES, ROOT, blocks, inline_code
from solders.pubkey import Pubkey

from oracle.chain.program.addresses import request_address
from oracle.chain.program.body import encode_body
from oracle.cli.demo_scenes import SCENES
from oracle.config import Config
from oracle.core import receipts
from oracle.core.errors import CATALOGUE
from oracle.core.policy import disposition
from oracle.core.request import Body, Inline, Params
from oracle.core.settlement import SignatureState, compute_unit_limit
from oracle.pipeline.transactions import fee_lamports

PROGRAM = (ROOT / "docs/reference/program.md").read_text()
ERRORS = (ROOT / "docs/reference/errors.md").read_text()
RELIABILITY = (ROOT / "docs/reliability.md").read_text()
RECEIPTS = ROOT / "docs/reference/receipts.md"
PROMPT, ANSWER = b"What is the capital city of Japan?", b"The capital city of Japan is Tokyo."
BODY = encode_body(Body("smollm2", Params(256), Inline(PROMPT)))
LAMPORTS_A_BYTE = 6_960


def units(row: str) -> int:
    found = re.search(rf"^\| {re.escape(row)} \| ([\d,]+) \|$", PROGRAM, re.MULTILINE)
    assert found, row
    return int(found[1].replace(",", ""))


def costs(cu: int) -> tuple[int, int]:
    """Fee of a transaction that takes so many units: without a priority fee, and with the highest by default."""
    limit = compute_unit_limit(cu, margin=Config().settlement.compute_margin)
    cap = Config().settlement.max_priority_micro_lamports
    return fee_lamports(limit, 0), fee_lamports(limit, cap)


def test_the_costs_of_a_settlement_follow_from_its_compute_units() -> None:
    # Two compute-budget instructions of 150 units stand before a record; the row of eight counts them already.
    alone, alone_most = costs(units("`record_inference_result`") + 300)
    packed, packed_most = costs(units("eight `record_inference_result`, with the compute budget"))
    readme, money = (ROOT / "README.md").read_text(), (ROOT / "docs/explanation/money.md").read_text()
    assert f"| a settlement alone | {alone:,}, and up to {alone_most - alone:,} of priority fee |" in readme
    each, most = packed // 8, -(-packed_most // 8)
    assert f"| a settlement in a pack of eight | {each:,}, and up to {most - each:,} of priority fee |" in readme
    assert f"| one `record_inference_result` | {alone:,} | {alone_most:,} |" in money
    assert f"| eight of them | {packed:,} | {packed_most:,} |" in money
    assert f"| each of the eight | {each:,} | {most:,} |" in money


def test_the_rents_follow_from_the_sizes() -> None:
    readme = (ROOT / "README.md").read_text()
    assert f"{(480 + len(BODY)) * LAMPORTS_A_BYTE:,} for a prompt of {len(PROMPT)} bytes" in readme
    queue, operator = 128 + 128, 128 + 208
    assert f"once | {(queue + operator) * LAMPORTS_A_BYTE:,} |" in readme
    bytecode = (ROOT / "idl/inference_oracle.so").stat().st_size
    assert f"about {(45 + 128 + bytecode) * LAMPORTS_A_BYTE / 1e9:.1f} SOL" in readme


def test_the_worked_example_of_a_receipt_is_right() -> None:
    page = RECEIPTS.read_text()
    (receipt,) = (block.text.strip().encode() for block in blocks(RECEIPTS) if block.language == "json")
    fields = receipts.decode(receipt)
    body_hash = hashlib.sha256(BODY).digest()
    address = request_address(
        *(Pubkey.from_string(fields[key]) for key in ("program", "queue", "requester")), int(fields["nonce"]), body_hash
    )
    stated = {
        "input_hash": hashlib.sha256(PROMPT).hexdigest(),
        "body_hash": body_hash.hex(),
        "request": str(address),
        "output_hash": hashlib.sha256(ANSWER).hexdigest(),
        "job_hash": receipts.job_hash(receipt).hex(),
    }
    for key, value in stated.items():
        assert f"{value}   {key}" in page, key
        assert fields.get(key, value) == value
    assert fields["output_bytes"] == len(ANSWER)
    assert fields["params"] == {"max_output_tokens": 256, "temperature_milli": 0, "seed": "0", "flags": 0}


def test_the_bytes_of_the_worked_example_are_the_body() -> None:
    (block,) = (block for block in blocks(RECEIPTS) if block.text.startswith("07000000"))
    lines = block.text.split("\n\n")[0].splitlines()
    assert bytes.fromhex("".join(line.split()[0] for line in lines)) == BODY


def test_the_table_of_receipt_fields_is_complete() -> None:
    (receipt,) = (json.loads(block.text) for block in blocks(RECEIPTS) if block.language == "json")
    table = RECEIPTS.read_text().split("## Fields")[1].split("## Canonical form")[0]
    named = {
        field for row in re.findall(r"^\| (`.*?) \|", table, re.MULTILINE) for field in re.findall(r"`(\w+)`", row)
    }
    assert named == set(receipt)


def test_a_test_named_in_the_documentation_exists() -> None:
    written = {
        name for file in (ROOT / "tests").rglob("test_*.py") for name in re.findall(r"def (test_\w+)", file.read_text())
    }
    for page in ("docs/explanation/laws.md", "docs/reliability.md"):
        named = {code for code in inline_code(ROOT / page) if re.fullmatch(r"test_\w+", code)}
        assert len(named) > 20
        assert not named - written


@pytest.mark.parametrize(
    ("model", "provider"),
    [
        ("gpu", "nosana"),
        ("listed", "nosana_onchain"),
        ("dear", "openai"),
        ("leaky", "openai"),
        ("intelligence", "ionet"),
        ("container", "render"),
        ("batch", "openai_batch"),
    ],
)
def test_the_paid_jobs_that_are_promised_are_those_that_the_chaos_tests_allow(model: str, provider: str) -> None:
    laws = ast.parse((ROOT / "tests/chaos/chaos_laws.py").read_text())
    assigned = {
        node.targets[0].id: node.value
        for node in laws.body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
    }
    promised = re.search(rf"^\| `{provider}` \| [^|]* \| (\d+)[ ,]", RELIABILITY, re.MULTILINE)
    assert promised
    assert ast.literal_eval(assigned["PAID_JOBS"])[model] == int(promised[1])
    assert f"max_unconfirmed_purchases = {Config().policy.max_unconfirmed_purchases}`" in RELIABILITY


def test_a_code_named_in_the_documentation_exists() -> None:
    named = {code for page in PAGES for code in re.findall(r"ORC-[A-Z]+-\d{3}", page.read_text())}
    # A range such as `ORC-INPUT-001` to `004` names its last one by number only.
    for page in PAGES:
        for room, numbers in re.findall(r"`ORC-([A-Z]+)-\d{3}`((?:(?:,| to) `\d{3}`)+)", page.read_text()):
            named |= {f"ORC-{room}-{number}" for number in re.findall(r"\d{3}", numbers)}
    known = set(re.findall(r"^### (ORC-\S+)$", ERRORS, re.MULTILINE))
    assert not named - known


def test_an_event_described_is_logged() -> None:
    page = (ROOT / "docs/how-to/observe.md").read_text().split("## Metrics")[0]
    rows = re.findall(r"^\| (`.*?) \|", page, re.MULTILINE)
    events = {event for row in rows for event in re.findall(r"`([^`]+)`", row)}
    source = "\n".join(file.read_text() for file in (ROOT / "oracle").rglob("*.py"))
    # Written as "settlement " + state.
    events -= {f"settlement {state}" for state in (SignatureState.CONFIRMED, SignatureState.FINALIZED)}
    assert len(events) > 15
    assert not [event for event in events if f'"{event}"' not in source]


def test_the_reasons_of_rejections_told_to_requesters_are_all_that_are_used() -> None:
    page = (ROOT / "docs/reference/requests.md").read_text().split("## What is not answered")[1]
    told = {(name, int(number)) for name, number in re.findall(r"^\| `(\w+)` \| (\d+) \|", page, re.MULTILINE)}
    used = {disposition(code()) for code in CATALOGUE.values()} - {None}
    assert told == {(reason.name.lower(), int(reason)) for reason in used if reason is not None}


def test_the_demo_shown_is_the_demo_that_runs() -> None:
    readme = (ROOT / "README.md").read_text()
    (shown,) = (block.text for block in blocks(ROOT / "README.md") if "requests ended" in block.text)
    for scene in SCENES:
        assert re.search(rf"^ {re.escape(scene.title)}\b.*", shown, re.MULTILINE), scene.title
    count = f"All {len(SCENES)} requests ended as they should."
    assert count in shown
    assert count in (ROOT / "docs/tutorial/first-request.md").read_text()
    assert f"submits {('', '', '', '', '', '', 'six', 'seven', 'eight', 'nine', 'ten')[len(SCENES)]} requests" in readme
