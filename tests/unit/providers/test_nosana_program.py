"""The Jobs program's instructions, addresses and accounts, byte for byte as the specification has them."""

from __future__ import annotations

import base64
import hashlib
import struct

import pytest
from solders.hash import Hash
from solders.instruction import Instruction
from solders.keypair import Keypair
from solders.message import Message
from solders.pubkey import Pubkey
from solders.token.state import TokenAccount, TokenAccountState
from solders.transaction import Transaction

from oracle.core.errors import OracleError
from oracle.providers import errors
from oracle.providers.nosana import program
from oracle.providers.nosana.cid import NO_RESULT, cid_of, cid_v0, digest_of
from oracle.providers.nosana.program import JobAccount, JobState, Program, RunAccount

# §2.7: seeds that count up.
OWNER, JOB, RUN, HOST = (Keypair.from_seed(bytes(range(at, at + 32))) for at in (0, 32, 64, 96))
MARKET = Pubkey.from_string("7AtiXMSH6R1jjBxrcYjehCkkSF7zvYWte63gwEDBcGHq")
STUB_CID = "QmYBbVdWFgfoTEdPT7mnaXJz6zQzfKb1Pts4A5B9kDMBph"
STUB_DIGEST = bytes.fromhex("924301b36fefe50cd83c93a0686d2e25ce05da34b50cd79d04328ef3d0ec8cf6")
BLOCKHASH = Hash.from_string("EkSnNWid2cvwEVnVx9aBqawnmiCNiDgp3gUdkDPTKN1N")

# §7.9
QUEUED_JOB = base64.b64decode(
    "WxCiBS3SfUGSQwGzb+/lDNg8k6BobS4lzgXaNLUM150EMo7z0OyM9gAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAW67S/9OXP+/6dTczsKM6"
    "CyvSm+XNF+ObyZCuRu07McQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAOhB7/zzhC+HXDdGOdLwJln5NYwm6UNXx3chmQSVTG4MAAAAAAA"
    "AAADoQe/884Qvh1w3RjnS8CZZ+TWMJulDV8d3IZkElUxuAAAAAAAAAAAAAAAAAAAAAAAEA4AAAAAAAAAAAAAAAAA"
)
DONE_JOB = base64.b64decode(
    "WxCiBS3SfUGSQwGzb+/lDNg8k6BobS4lzgXaNLUM150EMo7z0OyM9qHWALLomaYvMU7a4gYJ5siTKiXGDethKBF5g70oS3p/W67S/9OXP+/6dTczsKM6"
    "CyvSm+XNF+ObyZCuRu07McQXRVO0Vt3fxpCOyrHBAf5qsh4rqgYXeVt9Q6Y0gpk/1QOhB7/zzhC+HXDdGOdLwJln5NYwm6UNXx3chmQSVTG4MAAAAAAA"
    "AAADoQe/884Qvh1w3RjnS8CZZ+TWMJulDV8d3IZkElUxuAK48GRqAAAAAEDwZGoAAAAAEA4AAAAAAAAAAAAAAAAA"
)
A_RUN = base64.b64decode(
    "wqlu5usL4RYprLrhQbzK8LIuGpTTTQvHNh5SbQv+EsiXlLyTIpZt1xdFU7RW3d/GkI7KscEB/mqyHiuqBhd5W31DpjSCmT/VA6EHv/POEL4dcN0Y50vA"
    "mWfk1jCbpQ1fHdyGZBJVMbgAQPBkagAAAAAAAAAAAAAA"
)


def the_listing() -> Instruction:
    return Program().list_job(
        job=JOB.pubkey(),
        run=RUN.pubkey(),
        market=MARKET,
        owner=OWNER.pubkey(),
        definition=digest_of(STUB_CID),
        timeout_seconds=600,
    )


# --- the golden `list` (§2.7) ---


def test_a_listing_has_the_data_and_the_accounts_of_the_official_library() -> None:
    listing = the_listing()
    assert listing.data == bytes.fromhex("36aec14311298426") + STUB_DIGEST + bytes.fromhex("5802000000000000")
    named = [(str(meta.pubkey), meta.is_writable, meta.is_signer) for meta in listing.accounts]
    assert named == [
        ("3ogUn1GNXoASaRbxPNeVJnVv5rG4EPBtmQmX61jVorUe", True, True),
        ("7AtiXMSH6R1jjBxrcYjehCkkSF7zvYWte63gwEDBcGHq", True, False),
        ("3WTypo2uYrwMHJ5yFFwUPX6T25n39PwNwke7pz22P4Ut", True, True),
        ("CiuGyhh6szsputL7MahWqvfRteFdL8WFhv64dgYmCrBu", True, False),
        ("EYZESGGY1rn2mEqMkzokKP4fxHcFePqhgwxp3ruacU5V", True, False),
        ("FAe4sisG95oZ42w7buUn5qEE4TAnfTTFPiguZUHmhiF", True, True),
        ("6tjbAfNHnUusWLZqFznMKyBrjs1ZX92eyKwiUi2Bsg3x", True, False),
        ("37xZ4jY3bSMBgxwekwdALRZK1kAUCh7YkkPabA4P2tq8", True, False),
        ("FAe4sisG95oZ42w7buUn5qEE4TAnfTTFPiguZUHmhiF", False, True),
        ("nosRB8DUV67oLNrL45bo2pFLrmsWPiewe2Lk2DRNYCp", False, False),
        ("TokenkegQfeZyiNwAJbNbGKPFXCWuBvf9Ss623VQ5DA", False, False),
        ("11111111111111111111111111111111", False, False),
    ]


def test_the_transaction_of_a_listing_is_the_golden_one_to_the_last_byte() -> None:
    message = Message.new_with_blockhash([the_listing()], OWNER.pubkey(), BLOCKHASH)
    header = message.header
    assert (
        header.num_required_signatures,
        header.num_readonly_signed_accounts,
        header.num_readonly_unsigned_accounts,
    ) == (3, 0, 4)
    assert len(bytes(message)) == 484
    assert len(bytes(Transaction([OWNER, JOB, RUN], message, BLOCKHASH))) == 677
    assert hashlib.sha256(bytes(message)).hexdigest() == (
        "b1078ac28dbd6e9f83287b269d0864661f06b0c96262b5c1e2c6eb438c687f7b"
    )
    transaction = Transaction([OWNER, JOB, RUN], message, BLOCKHASH)
    assert hashlib.sha256(bytes(transaction)).hexdigest() == (
        "fc693d4a2d2ba7d3d450a35559ad12c0853141b69454e3bec5fd9c63aa71a62c"
    )
    assert str(transaction.signatures[0]) == (
        "2YcoEGf3yzAr4k5zXtwEZh9wYW351SsuS4sGJB8bd4FZ8rUXnLVy6w3xWpQC6L2psnTQ4wCMSwV1eCGBPh8apqVn"
    )


# --- addresses (§2.2) ---


@pytest.mark.parametrize(
    ("market", "vault"),
    [
        ("7AtiXMSH6R1jjBxrcYjehCkkSF7zvYWte63gwEDBcGHq", "EYZESGGY1rn2mEqMkzokKP4fxHcFePqhgwxp3ruacU5V"),
        ("CA5pMpqkYFKtme7K31pNB1s62X2SdhEv1nN9RdxKCpuQ", "Dqx5MbcAGQo2vgWaUau81joSJwDTaMzdRt1CEX8xzxUj"),
        ("97G9NnvBDQ2WpKu6fasoMsAKmfj63C9rhysJnkeWodAf", "giLkCXycxMP9u2Z6jBQ7Hr4E7ui7WS49gDka1Yvqymn"),
    ],
)
def test_the_vault_of_a_market_is_where_the_specification_says(market: str, vault: str) -> None:
    assert str(Program().vault(Pubkey.from_string(market))) == vault


def test_devnet_has_a_program_and_a_token_of_its_own() -> None:
    devnet = Program("devnet")
    assert str(devnet.id) == "nosJTmGQxvwXy23vng5UjkTbfv91Bzf9jEuro78dAGR"
    assert devnet.nos_account(OWNER.pubkey()) != Program().nos_account(OWNER.pubkey())


# --- the other instructions (§2.1) ---


def accounts_of(instruction: Instruction) -> list[tuple[str, bool, bool]]:
    return [(str(meta.pubkey), meta.is_writable, meta.is_signer) for meta in instruction.accounts]


def test_withdrawing_ending_and_recovering_name_the_accounts_in_the_order_of_the_specification() -> None:
    ours = Program()
    job = program.read_job(QUEUED_JOB)
    run = program.read_run(A_RUN)
    owner, vault, nos = str(OWNER.pubkey()), str(ours.vault(MARKET)), str(ours.nos_account(OWNER.pubkey()))
    token = "TokenkegQfeZyiNwAJbNbGKPFXCWuBvf9Ss623VQ5DA"
    address, market = str(JOB.pubkey()), str(MARKET)
    delist = ours.delist(JOB.pubkey(), job, OWNER.pubkey())
    assert delist.data.hex() == "3788cd6b6bad041f"
    assert accounts_of(delist) == [
        (address, True, False),
        (market, True, False),
        (nos, True, False),
        (owner, True, False),
        (vault, True, False),
        (token, False, False),
        (owner, True, True),
    ]
    end = ours.end(JOB.pubkey(), job, RUN.pubkey(), run, OWNER.pubkey())
    assert end.data.hex() == "b4a0f9d9c2794610"
    assert accounts_of(end) == [
        (address, True, False),
        (market, False, False),
        (str(RUN.pubkey()), True, False),
        (nos, True, False),
        ("3sf1yCdcmgH9aP8khvm1NyGB3r5oU6URbT813RnSVwQG", True, False),
        (vault, True, False),
        (owner, True, False),
        (owner, True, True),
        (token, False, False),
    ]
    recover = ours.recover(JOB.pubkey(), job, OWNER.pubkey())
    assert recover.data.hex() == "6cd8263a6d927411"
    assert accounts_of(recover) == [
        (address, True, False),
        (market, False, False),
        (vault, True, False),
        (nos, True, False),
        (owner, True, False),
        (owner, False, True),
        (token, False, False),
    ]


# --- accounts (§2.3, §7.9) ---


def test_a_queued_job_is_read() -> None:
    assert hashlib.sha256(QUEUED_JOB).hexdigest() == "07005fe1ab385ebde9865ce97b6cec8ca0f222ba5ddc0b3c4569639b1f923dbc"
    assert program.read_job(QUEUED_JOB) == JobAccount(
        definition=STUB_DIGEST,
        result=None,
        market=MARKET,
        payer=OWNER.pubkey(),
        price=48,
        project=OWNER.pubkey(),
        state=JobState.QUEUED,
        ended_at=0,
        started_at=0,
        timeout_seconds=3600,
    )


def test_a_job_that_is_done_is_read() -> None:
    assert hashlib.sha256(DONE_JOB).hexdigest() == "c697ddf7a00aa95dd0936ebcb707e56a8b813dd70a9b2a69d4f9dc511ac7a22c"
    job = program.read_job(DONE_JOB)
    assert job.result is not None
    assert cid_of(job.result) == "QmZEPcZfrFH2vcBAzsQvEURjsczsTWoYnz8uezQibqZxtv"
    assert (job.state, job.started_at, job.ended_at) == (JobState.DONE, 1_785_000_000, 1_785_000_120)


def test_a_run_is_read() -> None:
    assert program.read_run(A_RUN) == RunAccount(JOB.pubkey(), HOST.pubkey(), OWNER.pubkey(), 1_785_000_000)


def a_market(queue_type: int, waiting: list[Pubkey], length: int | None = None) -> bytes:
    head = program.MARKET + bytes(32) + struct.pack("<qQqB", 86_400, 48, 7200, 4) + bytes(32) + b"\xff" + bytes(32 + 16)
    count = len(waiting) if length is None else length
    return head + struct.pack("<BI", queue_type, count) + b"".join(map(bytes, waiting)) + bytes(64)


@pytest.mark.parametrize(("queue_type", "holds_jobs"), [(0, True), (1, False), (255, False)])
def test_a_market_tells_its_price_and_who_waits(queue_type: int, holds_jobs: bool) -> None:
    market = program.read_market(a_market(queue_type, [JOB.pubkey(), RUN.pubkey()]))
    assert (market.price, market.holds_jobs, market.waiting) == (48, holds_jobs, (JOB.pubkey(), RUN.pubkey()))


@pytest.mark.parametrize(
    "data", [b"", QUEUED_JOB[:-20], b"\0" * 240, A_RUN, QUEUED_JOB[:208] + b"\x01" + QUEUED_JOB[209:]]
)
def test_what_is_no_job_is_refused(data: bytes) -> None:
    with pytest.raises(OracleError) as caught:
        program.read_job(data)
    assert caught.value.error is errors.UNREADABLE_ANSWER


@pytest.mark.parametrize("data", [b"", A_RUN, a_market(0, [], length=2**32 - 1), a_market(0, [], length=4)])
def test_what_is_no_market_is_refused(data: bytes) -> None:
    with pytest.raises(OracleError) as caught:
        program.read_market(data)
    assert caught.value.error is errors.UNREADABLE_ANSWER


def test_tokens_are_counted_in_millionths() -> None:
    account = TokenAccount(Program().mint, OWNER.pubkey(), 7, None, TokenAccountState.Initialized, None, 0, None)
    assert program.read_micro_nos(bytes(account)) == 7
    for data in (b"", bytes(165)[:100]):
        with pytest.raises(OracleError) as caught:
            program.read_micro_nos(data)
        assert caught.value.error is errors.UNREADABLE_ANSWER


# --- CIDs (§1.6) ---


def test_a_cid_and_its_digest_are_each_others() -> None:
    assert digest_of(STUB_CID) == STUB_DIGEST
    assert cid_of(STUB_DIGEST) == STUB_CID
    assert cid_of(bytes(32)) == NO_RESULT
    assert cid_of(digest_of(cid_v0(b"hello world"))) == "Qmf412jQZiuVUtdgnB36FXFX7xg5V6KEbSJ4dpQuhkLyfD"


@pytest.mark.parametrize(
    "text", ["", "Qm", "bafybeigdyrzt5sfp7udm7hu76uh7y26nf3efuylqabf3oclgtqy55fbzdi", "Qm" + "z" * 44]
)
def test_what_is_no_cid_has_no_digest(text: str) -> None:
    with pytest.raises(ValueError, match=r"CIDv0|multihash"):
        digest_of(text)
