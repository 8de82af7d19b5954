"""`oracle submit`, as somebody with a question and a wallet runs it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command import oracle, wallet_file
from pipeline_world import World
from solders.keypair import Keypair

from oracle.cli import asking
from oracle.client import requests
from oracle.core.lifecycle import State
from oracle.core.request import Status
from oracle.localnet.emulators.openai import scripted_words
from oracle.localnet.ports import free_port
from oracle.store import requests as rows

pytestmark = pytest.mark.localnet

QUESTION = "What is the capital of Japan?"
ANSWER = "".join(scripted_words([{"role": "user", "content": QUESTION}], 6))


async def money(world: World) -> int:
    return (await world.rpc.get_balance(world.requester.pubkey())).value


async def test_the_answer_goes_to_stdout_and_all_else_to_stderr(world: World, at: tuple[str, ...]) -> None:
    before = await money(world)
    async with world.daemon() as daemon:
        ran = await oracle("submit", *at, "-q", world.queue, "-m", "tiny", QUESTION)
        (row,) = await daemon.context.store.read(lambda c: rows.listing(c))
    assert ran.status == 0, ran.err
    assert ran.out == ANSWER + "\n"
    said = " ".join(ran.err.split())
    assert f"Request {row.address}, fee 50,000 lamports" in said
    assert "status fulfilled" in said
    assert "verified yes" in said
    assert "closed yes, what was left is back" in said
    # Rent is back; the fee and two transactions are paid.
    assert before - await money(world) == 50_000 + 2 * 5_000


async def test_a_program_gets_one_json_document(world: World, at: tuple[str, ...]) -> None:
    async with world.daemon():
        ran = await oracle("submit", *at, "-q", world.queue, "-m", "tiny", "--json", "-", stdin=QUESTION)
    assert ran.status == 0
    assert ran.err == ""
    document = ran.document
    assert document["answer"] == ANSWER
    assert (document["status"], document["verified"], document["closed"]) == ("fulfilled", True, True)
    assert len(document["output_hash"]) == len(document["job_hash"]) == 64
    assert all(check["ok"] for check in document["checks"])


async def test_a_request_that_nobody_can_answer_is_rejected_and_refunded(world: World, at: tuple[str, ...]) -> None:
    before = await money(world)
    async with world.daemon():
        ran = await oracle("submit", *at, "-q", world.queue, "-m", "unheard-of", QUESTION)
        as_json = await oracle("submit", *at, "-q", world.queue, "-m", "unheard-of", "--json", QUESTION)
    assert (ran.status, ran.out) == (1, "")
    assert "rejected (model_unavailable)" in ran.err
    assert as_json.status == 1
    assert (as_json.document["status"], as_json.document["reason"]) == ("rejected", "model_unavailable")
    assert (as_json.document["answer"], as_json.document["verified"]) == (None, False)
    assert before - await money(world) == 4 * 5_000


async def test_what_nobody_answers_is_expired_and_taken_back_by_its_requester(
    world: World, at: tuple[str, ...]
) -> None:
    """No daemon runs: the money comes back all the same."""
    before = await money(world)
    ran = await oracle("submit", *at, "-q", world.queue, "-m", "tiny", "--deadline", 1, QUESTION)
    assert (ran.status, ran.out) == (1, "")
    assert "expired" in ran.err
    assert "what was left is back" in ran.err
    assert before - await money(world) == 3 * 5_000


async def test_an_answer_that_cannot_be_verified_is_not_shown_and_stays_as_evidence(
    world: World, at: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking, "SERVED_SECONDS", 0.5)
    async with world.daemon(api={"port": free_port()}):  # nobody serves under the URI that is on chain
        ran = await oracle("submit", *at, "-q", world.queue, "-m", "tiny", QUESTION)
        as_json = await oracle("submit", *at, "-q", world.queue, "-m", "tiny", "--json", QUESTION)
    assert (ran.status, ran.out) == (1, "")
    assert "verified" in ran.err
    assert "ORC-CLIENT-005" in ran.err
    assert "it is the evidence" in ran.err
    document = as_json.document
    assert (document["verified"], document["answer"], document["closed"]) == (False, None, False)
    assert (await world.rpc.get_account(requests.Pubkey.from_string(document["request"]))).value is not None


async def test_one_who_does_not_wait_is_told_where_to_look(world: World, at: tuple[str, ...]) -> None:
    ran = await oracle("submit", *at, "-q", world.queue, "-m", "tiny", "--no-wait", QUESTION)
    as_json = await oracle("submit", *at, "-q", world.queue, "-m", "tiny", "--no-wait", "--json", QUESTION)
    assert (ran.status, as_json.status) == (0, 0)
    assert "oracle verify" in ran.err
    assert set(as_json.document) == {"request", "signature"}
    request = await requests.read(world.rpc, requests.Pubkey.from_string(as_json.document["request"]))
    assert request.header.status is Status.PENDING


async def test_what_an_operator_would_decline_is_refused_before_it_costs_anything(
    world: World, at: tuple[str, ...]
) -> None:
    before = await money(world)
    cases = [
        ("ORC-INPUT-001", ("",), None),
        ("ORC-INPUT-001", ("-",), b" \n"),
        ("ORC-INPUT-002", ("-",), b"\xff\xfe"),
        ("ORC-INPUT-003", ("look \x1b[2J here",), None),
        ("ORC-INPUT-004", ("--chat", "hello"), None),
        ("ORC-CLIENT-007", ("a" * 2_000,), None),
        ("ORC-CLIENT-007", ("-",), b"a" * 3_000_000),
        ("ORC-CLIENT-002", ("--fee", "1", QUESTION), None),
    ]
    for code, arguments, stdin in cases:
        ran = await oracle("submit", *at, "-q", world.queue, "-m", "tiny", *arguments, stdin=stdin)
        assert (ran.status, ran.out, ran.refusal or code) == (1, "", code), ran.err
        assert code in ran.err
        assert "why " in ran.err
        assert "remedy " in ran.err
    assert await money(world) == before


async def test_what_stands_in_the_way_is_told_with_a_code_a_cause_and_a_remedy(
    world: World, at: tuple[str, ...], tmp_path: Path
) -> None:
    exposed = wallet_file(tmp_path / "exposed.json", Keypair())
    exposed.chmod(0o644)
    garbage = tmp_path / "garbage.json"
    garbage.write_text("[1, 2, 3]")
    garbage.chmod(0o600)
    poor = wallet_file(tmp_path / "poor.json", Keypair())
    url = world.node.rpc_url
    cases = [
        ("ORC-CLIENT-004", ("-u", url, "-k", at[3], "-q", Keypair().pubkey())),
        ("ORC-CLIENT-004", ("-u", url, "-k", at[3], "-q", world.requester.pubkey())),
        ("ORC-CLI-003", ("-u", url, "-k", tmp_path / "none.json", "-q", world.queue)),
        ("ORC-SIGNER-003", ("-u", url, "-k", exposed, "-q", world.queue)),
        ("ORC-SIGNER-002", ("-u", url, "-k", garbage, "-q", world.queue)),
        ("ORC-CLIENT-002", ("-u", url, "-k", poor, "-q", world.queue)),
        ("ORC-RPC-", ("-u", "http://127.0.0.1:9/secret-api-key", "-k", at[3], "-q", world.queue)),
        ("ORC-RPC-016", ("-u", "nonsense", "-k", at[3], "-q", world.queue)),
    ]
    for code, arguments in cases:
        ran = await oracle("submit", *arguments, "-m", "tiny", "--json", QUESTION)
        assert (ran.status, ran.out) == (1, ""), ran.err
        told = json.loads(ran.err)
        assert set(told) == {"code", "error", "detail", "cause", "remedy"}
        assert told["code"].startswith(code), told
        assert "secret-api-key" not in ran.err


async def test_wrong_usage_is_told_and_exits_with_two(world: World, at: tuple[str, ...]) -> None:
    good = ("submit", *at, "-q", world.queue, "-m", "tiny")
    cases: list[tuple[object, ...]] = [
        good,
        ("submit", *at, "-q", "nonsense", "-m", "tiny", QUESTION),
        ("submit", *at, "-m", "tiny", QUESTION),
        ("submit", *at, "-q", world.queue, QUESTION),
        (*good, "--uri", "https://input.example/", QUESTION),
        (*good, "--uri", "https://input.example/"),
        (*good, "--uri", "https://input.example/", "--uri-sha256", "abc"),
        (*good, "--uri", "http://input.example/", "--uri-sha256", "0" * 64),
        (*good, "--uri-sha256", "0" * 64, QUESTION),
        (*good, "--fee", "-1", QUESTION),
        (*good, "--fee", "much", QUESTION),
        (*good, "--temperature", "3", QUESTION),
        (*good, "--seed", str(2**64), QUESTION),
        (*good, "--deadline", "0", QUESTION),
        (*good, "--max-tokens", "0", QUESTION),
        (*good, "--nonsense", QUESTION),
        (*good, QUESTION, "and another"),
        (*good, "--program", "nonsense", QUESTION),
        ("submitt",),
    ]
    for arguments in cases:
        ran = await oracle(*arguments)
        assert ran.status == 2, (arguments, ran.err)
        assert ran.out == ""
        assert "Usage: oracle" in ran.err


async def test_a_question_is_asked_of_the_queue_and_the_cluster_in_the_environment(world: World, wallet: str) -> None:
    environment = {"ORACLE_QUEUE": str(world.queue), "ORACLE_RPC_URL": world.node.rpc_url, "ORACLE_KEYPAIR": wallet}
    async with world.daemon() as daemon:
        ran = await oracle("submit", "-m", "tiny", "--any-model", "--seed", 7, "-", stdin=QUESTION, **environment)
        (row,) = await daemon.context.store.read(lambda c: rows.listing(c))
        assert row.state is State.SETTLED
    assert (ran.status, ran.out) == (0, ANSWER + "\n")
    assert world.model.requests[0]["seed"] == 7
