"""The emulated Jobs program, instruction by instruction, with the tokens that each of them moves."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from nosana_ground import BEGINNING, MARKET, NOS, PRICE, SOL, Ground, keys
from solders.keypair import Keypair
from solders.pubkey import Pubkey

from oracle import resources
from oracle.localnet.emulators.nosana import genesis, jobs_program
from oracle.localnet.emulators.nosana.jobs_program import QueueType

SPECIFIED = Path(__file__).resolve().parents[3].parent / "shared/specs/nosana_jobs.idl.json"
STUB_DIGEST = bytes.fromhex("924301b36fefe50cd83c93a0686d2e25ce05da34b50cd79d04328ef3d0ec8cf6")
QUEUED_JOB = (
    "WxCiBS3SfUGSQwGzb+/lDNg8k6BobS4lzgXaNLUM150EMo7z0OyM9gAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAW67S/9OXP+/6dTczsKM6"
    "CyvSm+XNF+ObyZCuRu07McQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAOhB7/zzhC+HXDdGOdLwJln5NYwm6UNXx3chmQSVTG4MAAAAAAA"
    "AAADoQe/884Qvh1w3RjnS8CZZ+TWMJulDV8d3IZkElUxuAAAAAAAAAAAAAAAAAAAAAAAEA4AAAAAAAAAAAAAAAAA"
)
RUN_SHA256 = "2e284cb3eaf7317f2efcefd87ea2d71192ab6f10d24500f93cd0bcb1134c6f1d"


@pytest.fixture
def ground() -> Iterator[Ground]:
    made = Ground()
    yield made
    made.chain.close()


# --- the interface ---


def test_instructions_accounts_and_errors_are_those_of_the_specification() -> None:
    if not SPECIFIED.exists():
        pytest.skip("the specification lies beside the repository, in shared/specs")
    specified = json.loads(SPECIFIED.read_text())
    built = json.loads(resources.idl(jobs_program.NAME).read_text())
    assert built["address"] == specified["metadata"]["address"]
    wanted = {_snake(item["name"]): item for item in specified["instructions"]}
    for instruction in built["instructions"]:
        assert _built_shape(instruction) == _specified_shape(wanted[instruction["name"]]), instruction["name"]
    for account in built["accounts"]:
        (same,) = [item for item in specified["accounts"] if item["name"].lower() == account["name"].lower()]
        assert account["discriminator"] == same["discriminator"]
    assert [(e["code"], e["name"]) for e in built["errors"]] == [(e["code"], e["name"]) for e in specified["errors"]]


def _built_shape(item: dict[str, Any]) -> tuple[Any, ...]:
    accounts = [(a["name"], a.get("writable", False), a.get("signer", False)) for a in item["accounts"]]
    return item["discriminator"], accounts, [(a["name"], a["type"]) for a in item["args"]]


def _specified_shape(item: dict[str, Any]) -> tuple[Any, ...]:
    accounts = [(_snake(a["name"]), a["isMut"], a["isSigner"]) for a in item["accounts"]]
    return item["discriminator"], accounts, [(_snake(a["name"]), a["type"]) for a in item["args"]]


def _snake(name: str) -> str:
    return re.sub("[A-Z]", lambda letter: "_" + letter[0].lower(), name)


def test_a_queued_job_has_the_bytes_of_the_specification(ground: Ground) -> None:
    ground.succeed(ground.owner, ground.listing(STUB_DIGEST, 3600), ground.job, ground.run)
    account = ground.chain.vm.account(ground.job.pubkey())
    assert account is not None
    assert account.data == base64.b64decode(QUEUED_JOB)
    assert (account.owner, account.lamports) == (jobs_program.PROGRAM, 2_561_280)


def test_a_run_has_the_bytes_of_the_specification(ground: Ground) -> None:
    ground.succeed(ground.host, ground.by_host("work"), ground.run)
    ground.list_job()
    account = ground.chain.vm.account(ground.run.pubkey())
    assert account is not None
    assert hashlib.sha256(account.data).hexdigest() == RUN_SHA256
    assert account.lamports == 1_726_080


def test_the_vault_lies_where_the_specification_says() -> None:
    assert str(jobs_program.vault_of(MARKET)[0]) == "EYZESGGY1rn2mEqMkzokKP4fxHcFePqhgwxp3ruacU5V"


# --- listing ---


def test_a_listed_job_waits_in_the_market_and_its_whole_time_is_paid(ground: Ground) -> None:
    ground.list_job(timeout=600)
    job, market = ground.the_job(), ground.the_market()
    assert job is not None
    assert (job.state, job.price, job.timeout, job.node) == (0, PRICE, 600, Pubkey.default())
    assert (job.payer, job.project) == (ground.owner.pubkey(),) * 2
    assert (market.queue_type, market.waiting) == (QueueType.JOBS, (ground.job.pubkey(),))
    assert ground.in_vault() == PRICE * 600
    assert ground.nos(ground.owner.pubkey()) == 100 * NOS - PRICE * 600
    assert ground.the_run() is None


def test_a_job_is_handed_to_the_host_that_waits_in_the_same_transaction(ground: Ground) -> None:
    ground.take_job()
    assert ground.the_market().waiting == (ground.host.pubkey(),)
    ground.list_job()
    run = ground.the_run()
    assert run is not None
    assert (run.job, run.node, run.time) == (ground.job.pubkey(), ground.host.pubkey(), BEGINNING)
    assert (ground.the_market().queue_type, ground.the_market().waiting) == (QueueType.EMPTY, ())


def test_a_job_key_is_used_once_while_its_account_exists(ground: Ground) -> None:
    ground.list_job()
    assert ground.refused(ground.owner, ground.listing(timeout=601), ground.job, ground.run) == (
        "{'InstructionError': [0, {'Custom': 0}]}"
    )
    assert ground.in_vault() == PRICE * 600


def test_a_job_that_cannot_be_paid_is_not_listed(ground: Ground) -> None:
    seconds = 100 * NOS // PRICE + 1
    refusal = ground.refused(ground.owner, ground.listing(timeout=seconds), ground.job, ground.run)
    assert refusal == "{'InstructionError': [0, {'Custom': 1}]}"
    assert ground.the_job() is None


@pytest.mark.parametrize("seconds", [-1, 2**62])
def test_a_time_that_has_no_price_is_refused(ground: Ground, seconds: int) -> None:
    assert ground.refused(ground.owner, ground.listing(timeout=seconds), ground.job, ground.run) == "InvalidAccount"


def test_a_run_key_that_holds_anything_is_refused(ground: Ground) -> None:
    ground.chain.fund(ground.run.pubkey(), SOL)
    assert ground.refused(ground.owner, ground.listing(), ground.job, ground.run) == "LamportsNonNull"


# --- running and ending ---


def test_a_finished_job_pays_the_seconds_it_took_and_returns_the_rest(ground: Ground) -> None:
    ground.list_job(timeout=600)
    ground.take_job()
    ground.wait(120)
    ground.succeed(ground.host, ground.by_host("finish", b"r" * 32))
    job = ground.the_job()
    assert job is not None
    assert (job.state, job.node, job.ipfs_result) == (2, ground.host.pubkey(), b"r" * 32)
    assert (job.time_start, job.time_end) == (BEGINNING, BEGINNING + 120)
    assert ground.nos(ground.host.pubkey()) == PRICE * 120
    assert ground.nos(ground.owner.pubkey()) == 100 * NOS - PRICE * 120
    assert ground.in_vault() == 0
    assert ground.the_run() is None


def test_no_host_is_paid_for_more_than_the_job_asked_for(ground: Ground) -> None:
    ground.list_job(timeout=600)
    ground.take_job()
    ground.wait(10_000)
    ground.succeed(ground.host, ground.by_host("finish"))
    assert ground.nos(ground.host.pubkey()) == PRICE * 600


def test_a_result_of_zeros_is_refused(ground: Ground) -> None:
    ground.list_job()
    ground.take_job()
    assert ground.refused(ground.host, ground.by_host("finish", bytes(32))) == "JobResultNull"


def test_only_its_host_finishes_a_job(ground: Ground) -> None:
    ground.list_job()
    ground.take_job()
    stranger = keys(128)
    ground.chain.fund(stranger.pubkey(), SOL)
    genesis.grant_nos(ground.chain, stranger.pubkey(), 0)
    assert ground.refused(stranger, ground.by_host("finish", host=stranger)) == "Unauthorized"


def test_an_owner_ends_a_running_job_and_the_host_hands_in_what_it_had(ground: Ground) -> None:
    ground.list_job(timeout=600)
    ground.take_job()
    ground.wait(60)
    ground.succeed(ground.owner, ground.by_owner("end"))
    job = ground.the_job()
    assert job is not None
    assert (job.state, job.ipfs_result, job.node) == (2, bytes(32), ground.host.pubkey())
    assert (ground.nos(ground.host.pubkey()), ground.in_vault()) == (PRICE * 60, 0)
    ground.succeed(ground.host, ground.by_host("complete", b"c" * 32))
    after = ground.the_job()
    assert after is not None
    assert after.ipfs_result == b"c" * 32
    assert ground.refused(ground.host, ground.by_host("complete", b"d" * 32)) == "JobResultsAlreadySet"


def test_a_waiting_job_cannot_be_ended_and_a_running_one_not_withdrawn(ground: Ground) -> None:
    ground.list_job()
    assert ground.refused(ground.owner, ground.by_owner("end")) == "AccountNotInitialized"
    ground.take_job()
    assert ground.refused(ground.owner, ground.by_owner("delist")) == "MarketInWrongState"


def test_a_withdrawn_job_gives_everything_back_and_its_key_is_free_again(ground: Ground) -> None:
    ground.list_job()
    before = ground.chain.vm.account(ground.owner.pubkey())
    ground.succeed(ground.owner, ground.by_owner("delist"))
    after = ground.chain.vm.account(ground.owner.pubkey())
    assert before is not None
    assert after is not None
    assert after.lamports == before.lamports + 2_561_280 - 5_000
    assert (ground.the_job(), ground.in_vault(), ground.nos(ground.owner.pubkey())) == (None, 0, 100 * NOS)
    assert ground.the_market().queue_type is QueueType.EMPTY
    ground.list_job(timeout=700)
    assert ground.the_job() is not None


@pytest.mark.parametrize("name", ["delist", "extend"])
def test_only_its_owner_withdraws_or_extends_a_job(ground: Ground, name: str) -> None:
    ground.list_job()
    stranger = keys(128)
    ground.chain.fund(stranger.pubkey(), SOL)
    others = (ground.owner,) if name == "extend" else ()
    wanted = ground.by_owner(name, stranger.pubkey())
    assert ground.refused(stranger, wanted, *others) == "Unauthorized"


def test_more_time_is_paid_at_the_price_of_the_job(ground: Ground) -> None:
    ground.list_job(timeout=600)
    ground.succeed(ground.owner, ground.by_owner("extend"))
    job = ground.the_job()
    assert job is not None
    assert (job.timeout, ground.in_vault()) == (1200, PRICE * 1200)
    assert ground.refused(ground.owner, ground.by_owner("extend")) == "JobTimeoutNotGreater"


def test_a_job_that_its_host_quits_is_recovered_in_full(ground: Ground) -> None:
    ground.list_job()
    ground.take_job()
    ground.succeed(ground.host, ground.by_host("quit"))
    job = ground.the_job()
    assert job is not None
    assert (job.state, ground.the_run(), ground.in_vault()) == (3, None, PRICE * 600)
    ground.succeed(ground.owner, ground.by_owner("recover"))
    assert (ground.the_job(), ground.in_vault(), ground.nos(ground.owner.pubkey())) == (None, 0, 100 * NOS)


def test_another_host_takes_over_what_was_quit_and_the_state_stays(ground: Ground) -> None:
    ground.list_job()
    ground.take_job()
    ground.succeed(ground.host, ground.by_host("quit"))
    second = keys(128)
    ground.chain.fund(second.pubkey(), SOL)
    genesis.grant_nos(ground.chain, second.pubkey(), 0)
    ground.host = second
    ground.succeed(second, ground.by_host("claim"), ground.run)
    job = ground.the_job()
    assert job is not None
    assert job.state == 3
    ground.wait(10)
    ground.succeed(second, ground.by_host("finish"))
    assert ground.nos(second.pubkey()) == PRICE * 10


def test_an_ended_job_is_cleaned_by_anyone_once_it_has_expired(ground: Ground) -> None:
    ground.list_job()
    ground.take_job()
    ground.succeed(ground.host, ground.by_host("finish"))
    assert ground.refused(ground.host, ground.by_owner("clean")) == "JobNotExpired"
    ground.wait(3601)
    ground.succeed(ground.host, ground.by_owner("clean"))
    assert ground.the_job() is None


def test_a_host_waits_in_line_once_and_may_leave(ground: Ground) -> None:
    ground.take_job()
    assert ground.the_market().queue_type is QueueType.NODES
    assert ground.refused(ground.host, ground.by_host("work"), ground.run) == "NodeAlreadyQueued"
    ground.succeed(ground.host, ground.by_host("stop"))
    assert (ground.the_market().queue_type, ground.the_market().waiting) == (QueueType.EMPTY, ())


def test_jobs_are_taken_in_the_order_they_came(ground: Ground) -> None:
    jobs = [Keypair.from_seed(bytes([number] * 32)) for number in (1, 2, 3)]
    for job in jobs:
        ground.succeed(ground.owner, ground.listing(job=job), job, ground.run)
    assert ground.the_market().waiting == tuple(job.pubkey() for job in jobs)
    ground.take_job()
    run = ground.the_run()
    assert run is not None
    assert run.job == jobs[0].pubkey()
    assert ground.the_market().waiting == tuple(job.pubkey() for job in jobs[1:])


def test_a_market_is_opened_with_its_vault(ground: Ground) -> None:
    market = keys(128)
    vault, bump = jobs_program.vault_of(market.pubkey())
    accounts = {
        "mint": jobs_program.NOS_MINT,
        "market": market.pubkey(),
        "vault": vault,
        "authority": ground.owner.pubkey(),
        "access_key": Pubkey.default(),
        "rent": Pubkey.from_string("SysvarRent111111111111111111111111111111111"),
    }
    terms = {"job_expiration": 60, "job_price": 5, "job_timeout": 600, "job_type": 4, "node_xnos_minimum": 0}
    ground.succeed(ground.owner, jobs_program.instruction("open", accounts, **terms), market)
    account = ground.chain.vm.account(market.pubkey())
    assert account is not None
    opened = jobs_program.read_market(account.data)
    assert (opened.price, opened.vault, opened.vault_bump) == (5, vault, bump)
    assert (opened.queue_type, opened.waiting) == (QueueType.EMPTY, ())
    held = ground.chain.vm.account(vault)
    assert held is not None
    assert bytes(vault) == held.data[32:64]


def test_markets_of_the_genesis_are_as_the_program_would_open_them(ground: Ground) -> None:
    account = ground.chain.vm.account(MARKET)
    assert account is not None
    assert len(account.data) == jobs_program.MARKET_BYTES
    read = jobs_program.read_market(account.data)
    assert jobs_program.write_market(read) == account.data
    assert read.price == PRICE


def test_what_is_there_already_is_not_placed_again(ground: Ground) -> None:
    ground.chain.fund(MARKET, 1)
    before = ground.chain.vm.account(MARKET)
    genesis.place(ground.chain)
    assert ground.chain.vm.account(MARKET) == before
