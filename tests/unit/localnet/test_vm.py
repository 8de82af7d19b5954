"""`Vm`: what a transaction does, costs and is refused for, as on a cluster."""

import struct

import pytest
from solders.account import Account
from solders.address_lookup_table_account import AddressLookupTableAccount
from solders.compute_budget import set_compute_unit_limit, set_compute_unit_price
from solders.hash import Hash
from solders.instruction import AccountMeta, Instruction
from solders.keypair import Keypair
from solders.message import Message, MessageV0
from solders.pubkey import Pubkey
from solders.system_program import (
    CreateAccountParams,
    TransferParams,
    create_account,
    transfer,
)
from solders.transaction import Transaction, VersionedTransaction

from oracle.core.errors import OracleError
from oracle.localnet.errors import PROGRAM_UNLOADABLE, TRANSACTION_TOO_LARGE
from oracle.localnet.vm import SYSTEM_PROGRAM, Outcome, Vm

CLOCK = Pubkey.from_string("SysvarC1ock11111111111111111111111111111111")
TOKEN_PROGRAM = Pubkey.from_string("TokenkegQfeZyiNwAJbNbGKPFXCWuBvf9Ss623VQ5DA")
MEMO_PROGRAM = Pubkey.from_string("MemoSq4gqABAXKb96qnH8TysNcWxMyWCqXgDLGmfcHr")
LOOKUP_TABLE_PROGRAM = Pubkey.from_string("AddressLookupTab1e1111111111111111111111111")
SOL = 10**9
FEE = 5_000


@pytest.fixture
def payer() -> Keypair:
    return Keypair()


@pytest.fixture
def vm(payer: Keypair) -> Vm:
    vm = Vm()
    vm.airdrop(payer.pubkey(), SOL)
    return vm


def signed(payer: Keypair, *instructions: Instruction, signers: tuple[Keypair, ...] = ()) -> VersionedTransaction:
    message = MessageV0.try_compile(payer.pubkey(), list(instructions), [], Hash.default())
    return VersionedTransaction(message, [payer, *signers])


def pay(source: Pubkey, to: Pubkey, lamports: int) -> Instruction:
    return transfer(TransferParams(from_pubkey=source, to_pubkey=to, lamports=lamports))


def create(payer: Keypair, new: Keypair, lamports: int) -> Instruction:
    """Makes an account of 100 bytes, of the token program."""
    return create_account(
        CreateAccountParams(
            from_pubkey=payer.pubkey(), to_pubkey=new.pubkey(), lamports=lamports, space=100, owner=TOKEN_PROGRAM
        )
    )


def lamports_of(vm: Vm, address: Pubkey) -> int:
    account = vm.account(address)
    return account.lamports if account else 0


def assert_charged_and_undone(vm: Vm, payer: Keypair, outcome: Outcome, fee_lamports: int = FEE) -> None:
    assert outcome.included
    assert outcome.fee_lamports == fee_lamports
    assert set(outcome.changed) == {payer.pubkey()}
    assert lamports_of(vm, payer.pubkey()) == SOL - fee_lamports


def assert_dropped(vm: Vm, payer: Keypair, outcome: Outcome, lamports: int = SOL) -> None:
    assert not outcome.included
    assert outcome.fee_lamports == 0
    assert outcome.changed == {}
    assert lamports_of(vm, payer.pubkey()) == lamports


def test_a_transfer_moves_lamports_and_costs_the_fee(vm: Vm, payer: Keypair) -> None:
    to = Pubkey.new_unique()
    outcome = vm.process(signed(payer, pay(payer.pubkey(), to, SOL // 2)))
    assert outcome.ok
    assert outcome.logs[-1] == "Program 11111111111111111111111111111111 success"
    assert outcome.units_consumed == 150
    assert outcome.accounts.keys == (payer.pubkey(), to, SYSTEM_PROGRAM)
    assert outcome.accounts.writable == (True, True, False)
    assert outcome.pre_balances == [SOL, 0, 1]
    assert outcome.post_balances == [SOL // 2 - FEE, SOL // 2, 1]
    assert set(outcome.changed) == {payer.pubkey(), to}
    assert lamports_of(vm, to) == SOL // 2


def test_a_legacy_transaction_is_executed_too(vm: Vm, payer: Keypair) -> None:
    to = Pubkey.new_unique()
    message = Message.new_with_blockhash([pay(payer.pubkey(), to, SOL // 2)], payer.pubkey(), Hash.default())
    assert vm.process(Transaction([payer], message, Hash.default())).ok
    assert lamports_of(vm, to) == SOL // 2


def test_the_same_transaction_may_be_processed_twice_because_duplicates_are_the_business_of_the_chain(
    vm: Vm, payer: Keypair
) -> None:
    to = Pubkey.new_unique()
    tx = signed(payer, pay(payer.pubkey(), to, SOL // 4))
    assert vm.process(tx).ok
    assert vm.process(tx).ok
    assert lamports_of(vm, to) == SOL // 2


def test_the_clock_is_what_it_was_set_to(vm: Vm) -> None:
    vm.set_clock(slot=432_007, unix_timestamp=1_700_000_000)
    clock = vm.account(CLOCK)
    assert clock is not None
    assert struct.unpack("<QqQQq", clock.data) == (432_007, 0, 1, 2, 1_700_000_000)


def test_a_transaction_cannot_write_a_sysvar_whatever_it_asks_for(vm: Vm, payer: Keypair) -> None:
    vm.set_clock(slot=9, unix_timestamp=1)
    before = vm.account(CLOCK)
    outcome = vm.process(signed(payer, Instruction(MEMO_PROGRAM, b"x", []), pay(payer.pubkey(), CLOCK, SOL // 2)))
    assert outcome.accounts.writable == (True, False, False, False)
    assert vm.account(CLOCK) == before


def test_the_priority_fee_is_charged_on_success_and_on_failure(vm: Vm, payer: Keypair) -> None:
    budget = (set_compute_unit_limit(300_001), set_compute_unit_price(7))
    fee = FEE + 3  # 300,001 units at 7 micro-lamports, rounded up
    failed = vm.process(signed(payer, *budget, pay(payer.pubkey(), Pubkey.new_unique(), SOL)))
    assert failed.custom_error == 1
    assert_charged_and_undone(vm, payer, failed, fee)
    landed = vm.process(signed(payer, *budget, pay(payer.pubkey(), Pubkey.new_unique(), SOL // 2)))
    assert landed.fee_lamports == fee
    assert lamports_of(vm, payer.pubkey()) == SOL - SOL // 2 - 2 * fee


def test_without_a_limit_the_price_is_paid_for_200000_units_an_instruction_and_3000_for_a_builtin(
    vm: Vm, payer: Keypair
) -> None:
    memo = Instruction(MEMO_PROGRAM, b"hello", [])
    outcome = vm.process(signed(payer, set_compute_unit_price(1_000_000), memo))
    assert outcome.ok
    assert outcome.fee_lamports == FEE + 203_000


def test_every_signature_is_paid_for(vm: Vm, payer: Keypair) -> None:
    other = Keypair()
    vm.airdrop(other.pubkey(), SOL)
    outcome = vm.process(signed(payer, pay(other.pubkey(), Pubkey.new_unique(), SOL // 2), signers=(other,)))
    assert outcome.fee_lamports == 2 * FEE


def test_a_transfer_that_leaves_a_new_account_below_the_rent_exempt_minimum_fails(vm: Vm, payer: Keypair) -> None:
    to = Pubkey.new_unique()
    outcome = vm.process(signed(payer, pay(payer.pubkey(), to, vm.minimum_balance(0) - 1)))
    assert outcome.err == {"InsufficientFundsForRent": {"account_index": 1}}
    assert vm.account(to) is None
    assert_charged_and_undone(vm, payer, outcome)
    assert vm.process(signed(payer, pay(payer.pubkey(), to, vm.minimum_balance(0)))).ok


def test_an_account_with_data_may_not_be_made_below_the_rent_exempt_minimum(vm: Vm, payer: Keypair) -> None:
    new = Keypair()
    outcome = vm.process(signed(payer, create(payer, new, vm.minimum_balance(100) - 1), signers=(new,)))
    assert outcome.err == {"InsufficientFundsForRent": {"account_index": 1}}
    assert vm.account(new.pubkey()) is None
    assert_charged_and_undone(vm, payer, outcome, 2 * FEE)


def test_an_account_may_be_emptied_but_not_left_with_a_remainder_below_the_minimum(vm: Vm, payer: Keypair) -> None:
    wallet = Keypair()
    vm.airdrop(wallet.pubkey(), SOL)
    leave_one = signed(payer, pay(wallet.pubkey(), payer.pubkey(), SOL - 1), signers=(wallet,))
    assert vm.process(leave_one).err == {"InsufficientFundsForRent": {"account_index": 1}}
    leave_none = signed(payer, pay(wallet.pubkey(), payer.pubkey(), SOL), signers=(wallet,))
    assert vm.process(leave_none).ok
    assert vm.account(wallet.pubkey()) is None


def test_a_rent_paying_account_may_be_debited_but_not_credited_below_the_minimum(vm: Vm, payer: Keypair) -> None:
    poor = Keypair()
    vm.airdrop(poor.pubkey(), 1_000)
    credit = signed(payer, pay(payer.pubkey(), poor.pubkey(), 1))
    assert vm.process(credit).err == {"InsufficientFundsForRent": {"account_index": 1}}
    debit = signed(payer, pay(poor.pubkey(), payer.pubkey(), 1), signers=(poor,))
    assert vm.process(debit).ok
    assert lamports_of(vm, poor.pubkey()) == 999


def test_the_payer_may_spend_itself_to_nothing_but_not_below_the_minimum(vm: Vm, payer: Keypair) -> None:
    to = Pubkey.new_unique()
    short = vm.process(signed(payer, pay(payer.pubkey(), to, SOL - FEE - 1)))
    assert short.err == {"InsufficientFundsForRent": {"account_index": 0}}
    assert_charged_and_undone(vm, payer, short)
    rest = lamports_of(vm, payer.pubkey()) - FEE
    assert vm.process(signed(payer, pay(payer.pubkey(), to, rest))).ok
    assert vm.account(payer.pubkey()) is None


def test_a_payer_that_the_fee_alone_would_take_below_the_minimum_is_refused_without_a_fee(vm: Vm) -> None:
    payer = Keypair()
    lamports = vm.minimum_balance(0) + FEE - 1
    vm.airdrop(payer.pubkey(), lamports)
    outcome = vm.process(signed(payer, Instruction(MEMO_PROGRAM, b"x", [])))
    assert outcome.err == {"InsufficientFundsForRent": {"account_index": 0}}
    assert_dropped(vm, payer, outcome, lamports)


def test_a_payer_that_does_not_exist_is_refused(vm: Vm) -> None:
    payer = Keypair()
    outcome = vm.process(signed(payer, Instruction(MEMO_PROGRAM, b"x", [])))
    assert outcome.err == "AccountNotFound"
    assert_dropped(vm, payer, outcome, 0)


def test_a_payer_that_cannot_pay_the_priority_fee_is_refused(vm: Vm, payer: Keypair) -> None:
    budget = (set_compute_unit_limit(1_400_000), set_compute_unit_price(10**9))
    outcome = vm.process(signed(payer, *budget))
    assert outcome.err == "InsufficientFundsForFee"
    assert_dropped(vm, payer, outcome)


def test_an_account_of_a_program_cannot_pay_a_fee(vm: Vm) -> None:
    payer = Keypair()
    vm.set_account(payer.pubkey(), Account(SOL, b"", TOKEN_PROGRAM))
    outcome = vm.process(signed(payer, Instruction(MEMO_PROGRAM, b"x", [])))
    assert outcome.err == "InvalidAccountForFee"
    assert_dropped(vm, payer, outcome)


def test_an_instruction_that_fails_undoes_those_before_it(vm: Vm, payer: Keypair) -> None:
    to = Pubkey.new_unique()
    outcome = vm.process(signed(payer, pay(payer.pubkey(), to, SOL // 2), pay(payer.pubkey(), to, SOL)))
    assert outcome.err == {"InstructionError": [1, {"Custom": 1}]}
    assert outcome.logs[-1] == "Program 11111111111111111111111111111111 failed: custom program error: 0x1"
    assert vm.account(to) is None
    assert_charged_and_undone(vm, payer, outcome)


def test_the_error_of_an_instruction_wins_over_the_rent_it_would_have_left(vm: Vm, payer: Keypair) -> None:
    new = Keypair()
    poor = create(payer, new, 5)
    too_much = pay(payer.pubkey(), Pubkey.new_unique(), SOL)
    custom = vm.process(signed(payer, poor, too_much, signers=(new,)))
    assert custom.err == {"InstructionError": [1, {"Custom": 1}]}
    named = vm.process(signed(payer, poor, Instruction(SYSTEM_PROGRAM, b"\xff", []), signers=(new,)))
    assert named.err == {"InstructionError": [1, "InvalidInstructionData"]}


def test_a_missing_program_and_an_account_that_is_no_program_cost_the_fee(vm: Vm, payer: Keypair) -> None:
    missing = vm.process(signed(payer, Instruction(Pubkey.new_unique(), b"", [])))
    assert missing.err == "ProgramAccountNotFound"
    assert_charged_and_undone(vm, payer, missing)
    wallet = Pubkey.new_unique()
    vm.airdrop(wallet, SOL)
    no_program = vm.process(signed(payer, Instruction(wallet, b"", [])))
    assert no_program.err == "InvalidProgramForExecution"
    assert no_program.included


def test_a_bad_compute_budget_is_dropped_without_a_fee(vm: Vm, payer: Keypair) -> None:
    twice = vm.process(signed(payer, set_compute_unit_limit(1), set_compute_unit_limit(2)))
    assert twice.err == {"DuplicateInstruction": 1}
    assert_dropped(vm, payer, twice)
    garbage = vm.process(signed(payer, Instruction(set_compute_unit_limit(1).program_id, b"\xff", [])))
    assert garbage.err == {"InstructionError": [0, "InvalidInstructionData"]}
    assert_dropped(vm, payer, garbage)


def test_a_wrong_signature_is_dropped(vm: Vm, payer: Keypair) -> None:
    tx = signed(payer, pay(payer.pubkey(), Pubkey.new_unique(), SOL // 2))
    forged = VersionedTransaction.populate(tx.message, [Keypair().sign_message(b"something else")])
    outcome = vm.process(forged)
    assert outcome.err == "SignatureFailure"
    assert_dropped(vm, payer, outcome)
    assert vm.simulate(forged).err == "SignatureFailure"
    assert vm.simulate(forged, sig_verify=False).ok


def test_a_transaction_that_contradicts_itself_is_dropped(vm: Vm, payer: Keypair) -> None:
    message = Message.new_with_compiled_instructions(2, 0, 0, [payer.pubkey()], Hash.default(), [])
    outcome = vm.process(VersionedTransaction.populate(message, [payer.sign_message(bytes(message))]))
    assert outcome.err == "SanitizeFailure"
    assert_dropped(vm, payer, outcome)


def test_what_does_not_fit_a_packet_is_refused_with_a_code(vm: Vm, payer: Keypair) -> None:
    tx = signed(payer, Instruction(MEMO_PROGRAM, bytes(1_300), []))
    with pytest.raises(OracleError) as refused:
        vm.process(tx)
    assert refused.value.error is TRANSACTION_TOO_LARGE


def test_a_simulation_shows_the_effects_and_keeps_none(vm: Vm, payer: Keypair) -> None:
    to = Pubkey.new_unique()
    tx = signed(payer, set_compute_unit_price(10**6), pay(payer.pubkey(), to, SOL // 2))
    outcome = vm.simulate(tx, sig_verify=False, replace_blockhash=Hash.new_unique())
    assert outcome.ok
    received = outcome.changed[to]
    assert received is not None
    assert received.lamports == SOL // 2
    assert vm.account(to) is None
    assert lamports_of(vm, payer.pubkey()) == SOL


def test_a_simulation_can_see_accounts_in_another_state(vm: Vm, payer: Keypair) -> None:
    tx = signed(payer, pay(payer.pubkey(), Pubkey.new_unique(), SOL // 2))
    assert vm.simulate(tx, overrides={payer.pubkey(): None}).err == "AccountNotFound"
    assert vm.simulate(tx).ok


def test_an_account_left_without_lamports_is_gone_with_its_data(vm: Vm, payer: Keypair) -> None:
    # LiteSVM would hand its old data to the next transaction that funds the address.
    address = Pubkey.new_unique()
    vm.set_account(address, Account(0, b"remains", TOKEN_PROGRAM))
    assert vm.account(address) is None
    assert vm.process(signed(payer, pay(payer.pubkey(), address, SOL // 2))).ok
    assert vm.account(address) == Account(SOL // 2, b"", SYSTEM_PROGRAM)


def test_a_program_can_be_placed_and_called_at_any_address(vm: Vm, payer: Keypair) -> None:
    memo = vm.account(MEMO_PROGRAM)
    assert memo is not None
    address = Pubkey.new_unique()
    vm.load_program(address, memo.data)
    outcome = vm.process(signed(payer, Instruction(address, b"hello", [AccountMeta(payer.pubkey(), True, False)])))
    assert outcome.ok
    assert 'Program log: Memo (len 5): "hello"' in outcome.logs


def test_bytes_that_are_no_program_are_refused_with_a_code_and_leave_the_machine_usable(
    vm: Vm, payer: Keypair, capfd: pytest.CaptureFixture[str]
) -> None:
    address = Pubkey.new_unique()
    with pytest.raises(OracleError) as refused:
        vm.load_program(address, b"\x7fELF but not really")
    assert refused.value.error is PROGRAM_UNLOADABLE
    assert vm.account(address) is None
    assert vm.process(signed(payer, Instruction(MEMO_PROGRAM, b"still here", []))).ok


def lookup_table(vm: Vm, payer: Keypair, addresses: list[Pubkey]) -> Pubkey:
    """Makes a table by the program itself, as a client would."""
    slot = 50
    vm.set_clock(slot + 1, 0)
    vm.set_slot_hashes([(slot, Hash.default())])
    table, bump = Pubkey.find_program_address([bytes(payer.pubkey()), struct.pack("<Q", slot)], LOOKUP_TABLE_PROGRAM)
    accounts = [
        AccountMeta(table, False, True),
        AccountMeta(payer.pubkey(), True, False),
        AccountMeta(payer.pubkey(), True, True),
        AccountMeta(SYSTEM_PROGRAM, False, False),
    ]
    create = Instruction(LOOKUP_TABLE_PROGRAM, struct.pack("<IQB", 0, slot, bump), accounts)
    extend_data = struct.pack("<IQ", 2, len(addresses)) + b"".join(map(bytes, addresses))
    extend = Instruction(LOOKUP_TABLE_PROGRAM, extend_data, accounts)
    assert vm.process(signed(payer, create, extend)).ok
    vm.set_clock(slot + 2, 0)
    return table


def test_accounts_are_read_through_a_lookup_table(vm: Vm, payer: Keypair) -> None:
    to = Pubkey.new_unique()
    table = lookup_table(vm, payer, [to])
    instruction = pay(payer.pubkey(), to, SOL // 2)
    message = MessageV0.try_compile(
        payer.pubkey(), [instruction], [AddressLookupTableAccount(table, [to])], Hash.default()
    )
    outcome = vm.process(VersionedTransaction(message, [payer]))
    assert outcome.ok
    assert outcome.accounts.loaded_writable == (to,)
    assert outcome.accounts.keys[-1] == to
    assert outcome.accounts.writable[-1] is True
    assert lamports_of(vm, to) == SOL // 2


def test_a_lookup_table_that_is_missing_or_too_short_drops_the_transaction(vm: Vm, payer: Keypair) -> None:
    to, absent = Pubkey.new_unique(), Pubkey.new_unique()
    table = lookup_table(vm, payer, [to])
    balance = lamports_of(vm, payer.pubkey())

    def through(address: Pubkey, addresses: list[Pubkey]) -> Outcome:
        instruction = pay(payer.pubkey(), to, SOL // 2)
        tables = [AddressLookupTableAccount(address, addresses)]
        message = MessageV0.try_compile(payer.pubkey(), [instruction], tables, Hash.default())
        return vm.process(VersionedTransaction(message, [payer]))

    assert through(absent, [to]).err == "AddressLookupTableNotFound"
    assert through(table, [Pubkey.new_unique(), to]).err == "InvalidAddressLookupTableIndex"
    assert through(payer.pubkey(), [to]).err == "InvalidAddressLookupTableOwner"
    assert lamports_of(vm, payer.pubkey()) == balance
