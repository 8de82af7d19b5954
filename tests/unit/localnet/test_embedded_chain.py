"""`Chain`: slots, blockhashes, commitments, forks, retries and what survives a kill, on a driven clock."""

import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from driven_chain import SOL, START, DrivenClock, pay
from solders.account import Account
from solders.compute_budget import set_compute_unit_price
from solders.hash import Hash
from solders.keypair import Keypair
from solders.message import Message
from solders.pubkey import Pubkey
from solders.system_program import TransferParams, transfer
from solders.transaction import Transaction

from oracle.core.errors import OracleError
from oracle.localnet.chain import MAX_PROCESSING_AGE, Chain, Commitment, Progress
from oracle.localnet.errors import FORK_TOO_DEEP
from oracle.localnet.vm import SYSTEM_PROGRAM

PROCESSED, CONFIRMED, FINALIZED = Commitment
CLOCK = Pubkey.from_string("SysvarC1ock11111111111111111111111111111111")
MEMO_PROGRAM = Pubkey.from_string("MemoSq4gqABAXKb96qnH8TysNcWxMyWCqXgDLGmfcHr")


def latest(chain: Chain, commitment: Commitment = PROCESSED) -> Hash:
    return chain.bank(commitment).blockhash


def balance(chain: Chain, address: Pubkey, commitment: Commitment = PROCESSED) -> int:
    account = chain.account(address, commitment)
    return account.lamports if account else 0


# Slots and commitments


def test_commitments_lag_behind_the_open_slot_and_never_run_backwards(make_chain: Callable[..., Chain]) -> None:
    chain = make_chain()
    seen = []
    for _ in range(8):
        seen.append(tuple(chain.slot(level) for level in Commitment))
        chain.advance()
    assert seen[0] == (1, 0, 0)
    assert seen[-1] == (8, 6, 3)
    assert seen == sorted(seen)


def test_a_bank_has_its_own_height_and_blockhash(chain: Chain) -> None:
    processed, confirmed = chain.bank(PROCESSED), chain.bank(CONFIRMED)
    assert (processed.slot, processed.height) == (11, 11)
    assert (confirmed.slot, confirmed.height) == (9, 9)
    assert processed.blockhash != confirmed.blockhash
    assert confirmed.last_valid_block_height == 9 + MAX_PROCESSING_AGE


def test_the_clock_of_programs_follows_the_slot_and_the_time_that_was_passed_in(
    chain: Chain, clock: DrivenClock
) -> None:
    clock.pass_by(7)
    chain.advance()
    account = chain.account(CLOCK)
    assert account is not None
    slot, _, _, _, unix_timestamp = struct.unpack("<QqQQq", account.data)
    assert (slot, unix_timestamp) == (12, START + 7)


def test_block_time_stands_still_when_the_machine_s_clock_is_set_back(chain: Chain, clock: DrivenClock) -> None:
    clock.pass_by(-100)
    chain.advance()
    assert chain.bank(PROCESSED).unix_timestamp == START


def test_equal_seeds_make_equal_chains(make_chain: Callable[..., Chain]) -> None:
    one, two, other = make_chain(seed=bytes(32)), make_chain(seed=bytes(32)), make_chain(seed=bytes([1] * 32))
    for chain in (one, two, other):
        chain.advance(3)
    assert one.genesis_hash == two.genesis_hash != other.genesis_hash
    assert latest(one) == latest(two) != latest(other)
    assert one.identity == two.identity != other.identity


# Landing


def test_a_transaction_lands_in_the_open_slot_and_is_seen_by_each_commitment_in_turn(
    chain: Chain, payer: Keypair
) -> None:
    to = Pubkey.new_unique()
    signature = chain.submit(pay(payer, to, SOL, latest(chain)))
    assert chain.status(signature) == (11, None)
    seen = []
    for _ in range(6):
        seen.append([balance(chain, to, level) == SOL for level in Commitment])
        chain.advance()
    assert seen == [
        [True, False, False],
        [True, False, False],
        [True, True, False],
        [True, True, False],
        [True, True, False],
        [True, True, True],
    ]
    assert chain.commitment_of(11) == FINALIZED


def test_an_older_bank_sees_every_version_of_an_account_it_should(chain: Chain, payer: Keypair) -> None:
    to = Pubkey.new_unique()
    for _ in range(4):
        chain.submit(pay(payer, to, SOL, latest(chain)))
        chain.advance()
    chain.advance(2)  # open slot 17, confirmed 15, finalized 12
    assert [balance(chain, to, level) for level in Commitment] == [4 * SOL, 4 * SOL, 2 * SOL]


def test_an_account_that_is_gone_is_still_there_for_older_banks(chain: Chain, payer: Keypair) -> None:
    wallet = Keypair()
    chain.fund(wallet.pubkey(), SOL)
    chain.advance(6)
    chain.submit(pay(wallet, payer.pubkey(), SOL - 5_000, latest(chain)))
    assert chain.account(wallet.pubkey()) is None
    assert balance(chain, wallet.pubkey(), FINALIZED) == SOL
    chain.advance(6)
    assert chain.account(wallet.pubkey(), FINALIZED) is None
    assert not chain.ledger.knows(wallet.pubkey())


def test_a_legacy_transaction_lands_too(chain: Chain, payer: Keypair) -> None:
    to = Pubkey.new_unique()
    instruction = transfer(TransferParams(from_pubkey=payer.pubkey(), to_pubkey=to, lamports=SOL))
    blockhash = latest(chain)
    message = Message.new_with_blockhash([instruction], payer.pubkey(), blockhash)
    assert chain.status(chain.submit(Transaction([payer], message, blockhash))) == (11, None)


def test_a_transaction_lands_once_however_often_it_is_sent(chain: Chain, payer: Keypair) -> None:
    to = Pubkey.new_unique()
    tx = pay(payer, to, SOL, latest(chain))
    for _ in range(3):
        chain.submit(tx)
        chain.advance()
    assert balance(chain, to) == SOL
    assert chain.simulate(tx).err == "AlreadyProcessed"


def test_a_transaction_that_fails_in_a_block_has_a_status_and_has_paid(chain: Chain, payer: Keypair) -> None:
    signature = chain.submit(pay(payer, Pubkey.new_unique(), 11 * SOL, latest(chain)))
    assert chain.status(signature) == (11, {"InstructionError": [0, {"Custom": 1}]})
    assert balance(chain, payer.pubkey()) == 10 * SOL - 5_000


def test_a_transaction_that_no_block_would_take_never_has_a_status(chain: Chain) -> None:
    pauper = Keypair()
    tx = pay(pauper, Pubkey.new_unique(), SOL, latest(chain))
    assert chain.status(chain.submit(tx, max_retries=0)) is None
    assert chain.simulate(tx).err == "AccountNotFound"


# Blockhashes


def test_a_blockhash_is_good_for_as_many_blocks_as_agave_says_and_no_more(chain: Chain, payer: Keypair) -> None:
    bank = chain.bank(CONFIRMED)
    chain.advance(bank.height + MAX_PROCESSING_AGE + 1 - chain.bank(PROCESSED).height)
    # The block after the last valid height may still hold it: its queue ends with that height.
    assert chain.bank(PROCESSED).height == bank.last_valid_block_height + 1
    assert chain.is_blockhash_valid(bank.blockhash, PROCESSED)
    chain.advance()
    assert not chain.is_blockhash_valid(bank.blockhash, PROCESSED)
    tx = pay(payer, Pubkey.new_unique(), SOL, bank.blockhash)
    assert chain.simulate(tx).err == "BlockhashNotFound"
    assert chain.status(chain.submit(tx)) is None


def test_a_blockhash_is_unknown_to_banks_older_than_itself(chain: Chain, payer: Keypair) -> None:
    tx = pay(payer, Pubkey.new_unique(), SOL, latest(chain))
    assert chain.simulate(tx, PROCESSED).ok
    assert chain.simulate(tx, FINALIZED).err == "BlockhashNotFound"
    assert chain.simulate(tx, FINALIZED, replace_blockhash=True).ok


def test_a_blockhash_nobody_made_is_never_valid(chain: Chain, payer: Keypair) -> None:
    tx = pay(payer, Pubkey.new_unique(), SOL, Hash.new_unique())
    assert chain.simulate(tx).err == "BlockhashNotFound"
    assert chain.status(chain.submit(tx)) is None


# Simulation


def test_a_simulation_sees_the_accounts_of_its_commitment(chain: Chain, payer: Keypair) -> None:
    newcomer = Keypair()
    blockhash = latest(chain, FINALIZED)
    chain.submit(pay(payer, newcomer.pubkey(), SOL, latest(chain)))
    tx = pay(newcomer, Pubkey.new_unique(), SOL // 2, blockhash)
    assert chain.simulate(tx, PROCESSED).ok
    assert chain.simulate(tx, FINALIZED).err == "AccountNotFound"
    assert balance(chain, newcomer.pubkey()) == SOL


def test_a_simulation_with_a_forged_signature_is_told_so_only_if_signatures_count(chain: Chain, payer: Keypair) -> None:
    tx = pay(payer, Pubkey.new_unique(), SOL, latest(chain))
    forged = type(tx).populate(tx.message, [Keypair().sign_message(b"other")])
    assert chain.simulate(forged).ok
    assert chain.simulate(forged, sig_verify=True).err == "SignatureFailure"


# The network


def test_a_lost_transaction_lands_when_it_is_sent_again(chain: Chain, payer: Keypair) -> None:
    fate: list[int | None] = [None, None, 0]
    chain.delivery = lambda _: fate.pop(0)
    signature = chain.submit(pay(payer, Pubkey.new_unique(), SOL, latest(chain)))
    chain.advance()
    assert chain.status(signature) is None
    chain.advance()
    assert chain.status(signature) == (13, None)


def test_a_transaction_sent_without_retries_is_lost_for_good(chain: Chain, payer: Keypair) -> None:
    chain.delivery = lambda _: None
    signature = chain.submit(pay(payer, Pubkey.new_unique(), SOL, latest(chain)), max_retries=0)
    chain.delivery = lambda _: 0
    chain.advance(3)
    assert chain.status(signature) is None


def test_a_transaction_may_land_late(chain: Chain, payer: Keypair) -> None:
    chain.delivery = lambda _: 40
    signature = chain.submit(pay(payer, Pubkey.new_unique(), SOL, latest(chain)), max_retries=0)
    chain.advance(39)
    assert chain.status(signature) is None
    chain.advance()
    assert chain.status(signature) == (51, None)


def test_a_transaction_that_is_under_way_when_its_blockhash_expires_never_lands(chain: Chain, payer: Keypair) -> None:
    chain.delivery = lambda _: MAX_PROCESSING_AGE + 1
    signature = chain.submit(pay(payer, Pubkey.new_unique(), SOL, latest(chain)), max_retries=0)
    chain.advance(MAX_PROCESSING_AGE + 10)
    assert chain.status(signature) is None


def test_a_dropped_transaction_that_lands_again_is_followed_until_it_is_rooted(chain: Chain, payer: Keypair) -> None:
    signature = chain.submit(pay(payer, Pubkey.new_unique(), SOL, latest(chain)))
    for expected in (12, 13, 14):
        chain.fork(1)
        assert chain.status(signature) == (expected, None)
    chain.advance(10)
    assert chain.status(signature) == (14, None)


# Forks


def test_a_fork_takes_back_balances_statuses_and_blockhashes(chain: Chain, payer: Keypair) -> None:
    to = Pubkey.new_unique()
    before = balance(chain, payer.pubkey())
    tx = pay(payer, to, SOL, latest(chain))
    signature = chain.submit(tx, max_retries=0)
    chain.advance()
    lost_hash = latest(chain)
    assert chain.fork(2) == [tx]
    assert chain.status(signature) is None
    assert balance(chain, to) == 0
    assert balance(chain, payer.pubkey()) == before
    assert not chain.is_blockhash_valid(lost_hash, PROCESSED)
    assert chain.bank(PROCESSED).slot == 13
    assert chain.bank(PROCESSED).height == 11


def test_a_transaction_of_a_dropped_slot_may_land_again_in_the_other_fork(chain: Chain, payer: Keypair) -> None:
    to = Pubkey.new_unique()
    signature = chain.submit(pay(payer, to, SOL, latest(chain)))
    chain.advance()
    chain.fork(2)
    assert chain.status(signature) == (13, None)
    assert balance(chain, to) == SOL


def test_what_depends_on_a_dropped_blockhash_cannot_land_again(chain: Chain, payer: Keypair) -> None:
    chain.advance()
    signature = chain.submit(pay(payer, Pubkey.new_unique(), SOL, latest(chain)))
    chain.fork(2)
    chain.advance(3)
    assert chain.status(signature) is None


def test_confirmed_slots_cannot_be_forked_away(chain: Chain) -> None:
    chain.fork(2)
    with pytest.raises(OracleError) as refused:
        chain.fork(chain.slot(PROCESSED) - chain.slot(CONFIRMED) + 1)
    assert refused.value.error is FORK_TOO_DEEP


def test_commitments_skip_dropped_slots(chain: Chain) -> None:
    chain.fork(2)  # 10 and 11 are dropped, 12 is open
    reached: list[Progress] = []
    chain.on_progress = reached.append
    chain.advance(3)
    assert [progress.reached[CONFIRMED] for progress in reached] == [[], [12], [13]]
    assert chain.ledger.block_slots(8, 14) == [8, 9, 12, 13, 14]


# Placing things


def test_what_is_placed_is_there_for_every_commitment_and_in_every_fork(chain: Chain) -> None:
    address = Pubkey.new_unique()
    chain.set_account(address, Account(SOL, b"data", MEMO_PROGRAM))
    chain.fork(1)
    for level in Commitment:
        account = chain.account(address, level)
        assert account is not None
        assert account.data == b"data"
    chain.set_account(address, None)
    assert [chain.account(address, level) for level in Commitment] == [None, None, None]


def test_an_airdrop_is_a_transaction_and_equal_airdrops_both_land(chain: Chain) -> None:
    to = Pubkey.new_unique()
    first, second = chain.request_airdrop(to, SOL), chain.request_airdrop(to, SOL)
    assert first != second
    assert balance(chain, to) == 2 * SOL
    assert chain.status(first) == chain.status(second) == (11, None)


def test_accounts_of_the_virtual_machine_itself_can_be_read(chain: Chain) -> None:
    program = chain.account(SYSTEM_PROGRAM, FINALIZED)
    assert program is not None
    assert program.executable


# Fees


def test_recent_fees_are_the_lowest_price_that_got_such_locks_into_each_block(chain: Chain, payer: Keypair) -> None:
    busy, quiet = Pubkey.new_unique(), Pubkey.new_unique()
    chain.submit(pay(payer, busy, SOL, latest(chain), set_compute_unit_price(900)))
    chain.submit(pay(payer, busy, SOL + 1, latest(chain), set_compute_unit_price(700)))
    chain.submit(pay(payer, quiet, SOL, latest(chain), set_compute_unit_price(50)))
    chain.advance()
    assert chain.prices.recent([])[-2:] == [(11, 50), (12, 0)]
    assert chain.prices.recent([quiet])[-2:] == [(11, 50), (12, 0)]
    assert chain.prices.recent([busy, quiet])[-2:] == [(11, 700), (12, 0)]


# Restart


def test_a_chain_kept_in_a_directory_continues_where_it_was(
    make_chain: Callable[..., Chain], payer: Keypair, tmp_path: Path
) -> None:
    first = make_chain(tmp_path)
    memo = first.account(MEMO_PROGRAM)
    assert memo is not None
    program, to = Pubkey.new_unique(), Pubkey.new_unique()
    first.load_program(program, memo.data)
    first.fund(payer.pubkey(), 10 * SOL)
    tx = pay(payer, to, SOL, latest(first))
    signature = first.submit(tx)
    first.advance(3)
    first.close()

    second = make_chain(tmp_path, seed=bytes([9] * 32))
    assert second.genesis_hash == first.genesis_hash
    assert second.slot(PROCESSED) == 4
    assert second.status(signature) == (1, None)
    assert balance(second, to) == SOL
    assert second.simulate(tx).err == "AlreadyProcessed"
    loaded = second.account(program)
    assert loaded is not None
    assert loaded.executable
    assert second.status(second.submit(pay(payer, to, SOL, latest(second)))) == (4, None)


def test_a_chain_that_was_killed_loses_only_the_slot_it_was_building(
    make_chain: Callable[..., Chain], payer: Keypair, tmp_path: Path
) -> None:
    first = make_chain(tmp_path / "running")
    first.fund(payer.pubkey(), 10 * SOL)
    kept = first.submit(pay(payer, Pubkey.new_unique(), SOL, latest(first)))
    first.advance()
    lost = first.submit(pay(payer, Pubkey.new_unique(), SOL, latest(first)))
    shutil.copytree(tmp_path / "running", tmp_path / "as-killed")  # what a SIGKILL leaves on disk

    second = make_chain(tmp_path / "as-killed")
    assert second.status(kept) == (1, None)
    assert second.status(lost) is None
    assert balance(second, payer.pubkey()) == 9 * SOL - 5_000
