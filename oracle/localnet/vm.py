"""`Vm`: the one wrapper around LiteSVM (Agave 2.2's virtual machine, in process), with what LiteSVM leaves out.

    vm = Vm()
    vm.load_program(program_id, Path("idl/inference_oracle.so").read_bytes())
    vm.set_clock(slot=100, unix_timestamp=1_700_000_000)
    vm.airdrop(payer.pubkey(), 10**9)
    outcome = vm.process(VersionedTransaction(message, [payer]))
    assert outcome.ok, outcome.logs
    assert vm.account(address).data == ...

`process` executes and commits, `simulate` executes and forgets; both return an `Outcome`. A transaction that a cluster
would not put into a block (`outcome.included` is false) changes nothing and costs nothing; one that fails in a block
costs its fee. On top of LiteSVM 0.26 of solders the wrapper charges priority fees, refuses payers as Agave does,
enforces rent states for every writable account (LiteSVM looks only at accounts with data), charges transactions that
fail while their programs are loaded, and purges accounts that are left without lamports.

Blockhashes and duplicate signatures are NOT checked here: that is the business of `oracle.localnet.chain`. The clock
stands still until `set_clock`. An instance belongs to one thread at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from solders.account import Account
from solders.clock import Clock
from solders.hash import Hash
from solders.litesvm import LiteSVM
from solders.message import Message, MessageV0
from solders.pubkey import Pubkey
from solders.transaction import SanitizeError, Transaction, VersionedTransaction
from solders.transaction_metadata import FailedTransactionMetadata, SimulatedTransactionInfo
from solders.transaction_status import TransactionErrorInsufficientFundsForRent

from oracle.localnet import fees, rent, transaction_error
from oracle.localnet.errors import PROGRAM_UNLOADABLE, TRANSACTION_TOO_LARGE
from oracle.localnet.message import Accounts, UnreadableLookupTable, accounts_of
from oracle.localnet.outcome import Outcome
from oracle.localnet.transaction_error import TransactionError

SYSTEM_PROGRAM = Pubkey.default()
NO_ACCOUNT = Account(0, b"", SYSTEM_PROGRAM)
SLOTS_PER_EPOCH = 432_000
MAX_TRANSACTION_BYTES = 1_232
NONCE_ACCOUNT_BYTES = 80

# Agave commits these as "fees only" (SIMD-0082): the programs could not be loaded, the fee is taken all the same.
_FEES_ONLY = frozenset(
    {
        "ProgramAccountNotFound",
        "InvalidProgramForExecution",
        "MaxLoadedAccountsDataSizeExceeded",
        "InvalidLoadedAccountsDataSizeLimit",
    }
)


class Vm:
    """Accounts, programs and a clock; see the head of the module."""

    def __init__(self) -> None:
        self._svm = LiteSVM().with_sigverify(False).with_blockhash_check(False).with_transaction_history(0)
        self._minimums: dict[int, int] = {}

    def set_clock(self, slot: int, unix_timestamp: int) -> None:
        """Sets the Clock sysvar. `unix_timestamp` is in seconds."""
        epoch = slot // SLOTS_PER_EPOCH
        self._svm.set_clock(Clock(slot, 0, epoch, epoch + 1, unix_timestamp))

    def set_slot_hashes(self, hashes: Sequence[tuple[int, Hash]]) -> None:
        """Sets the SlotHashes sysvar, newest first; a lookup table can only be made of a slot in it."""
        self._svm.set_slot_hashes(hashes)

    def load_program(self, address: Pubkey, elf: bytes) -> None:
        """Places a program at an address, owned by BPF Loader 2, so not upgradeable. Replaces what was there.

        Raises `PROGRAM_UNLOADABLE` if the virtual machine refuses the bytes.
        """
        try:
            self._svm.add_program(address, elf)
        except BaseException as error:
            # LiteSVM panics here, and a pyo3 panic is no Exception: it would run past every handler of the caller.
            if type(error).__name__ != "PanicException":
                raise
            raise PROGRAM_UNLOADABLE(f"{len(elf)} bytes for {address}") from None

    def account(self, address: Pubkey) -> Account | None:
        """The account, or `None`: an account without lamports does not exist."""
        account = self._svm.get_account(address)
        return account if account is not None and account.lamports else None

    def set_account(self, address: Pubkey, account: Account | None) -> None:
        """Overwrites an account, whatever the rules; `None` removes it."""
        self._svm.set_account(address, account if account is not None and account.lamports else NO_ACCOUNT)

    def airdrop(self, address: Pubkey, lamports: int) -> None:
        """Adds lamports out of nothing."""
        account = self.account(address) or NO_ACCOUNT
        self.set_account(address, replace_lamports(account, account.lamports + lamports))

    def minimum_balance(self, data_len: int) -> int:
        """Rent-exempt minimum in lamports of an account with `data_len` bytes of data."""
        if data_len not in self._minimums:
            self._minimums[data_len] = self._svm.minimum_balance_for_rent_exemption(data_len)
        return self._minimums[data_len]

    def process(self, tx: VersionedTransaction | Transaction) -> Outcome:
        """Executes a signed transaction and keeps its effects.

        Raises `TRANSACTION_TOO_LARGE` for what no cluster would receive; every other refusal is an `Outcome`.
        """
        outcome = self.simulate(tx)
        self._store(outcome.changed)
        return outcome

    def simulate(
        self,
        tx: VersionedTransaction | Transaction,
        *,
        sig_verify: bool = True,
        replace_blockhash: Hash | None = None,
        overrides: Mapping[Pubkey, Account | None] | None = None,
    ) -> Outcome:
        """Executes a transaction and keeps nothing.

        `replace_blockhash` takes the place of the transaction's own; its signatures are then void, so `sig_verify` must
        be off. `overrides` are accounts to be seen in another state for this once. Raises `TRANSACTION_TOO_LARGE`.
        """
        tx = _versioned(tx)
        if (size := len(bytes(tx))) > MAX_TRANSACTION_BYTES:
            raise TRANSACTION_TOO_LARGE(f"{size} bytes")
        if replace_blockhash is not None:
            tx = with_blockhash(tx, replace_blockhash)
        with self._overridden(overrides or {}):
            return self._execute(tx, sig_verify)

    def _execute(self, tx: VersionedTransaction, sig_verify: bool) -> Outcome:
        try:
            tx.sanitize()
            if sig_verify and not signatures_valid(tx):
                return Outcome("SignatureFailure", included=False)
            accounts = accounts_of(tx.message, self.account)
        except UnreadableLookupTable as error:
            return Outcome(error.transaction_error, included=False)
        except SanitizeError:
            return Outcome("SanitizeFailure", included=False)
        if len(set(accounts.keys)) != len(accounts.keys):
            return Outcome("AccountLoadedTwice", included=False)
        before = [self.account(key) for key in accounts.keys]
        fee = fees.of_message(tx.message)
        if refusal := self._refuse_payer(accounts.keys[0], before[0], fee.lamports):
            states = tuple(before)
            return Outcome(refusal, included=False, accounts=accounts, before=states, after=states)
        return self._run(tx, accounts, before, fee)

    def _refuse_payer(self, address: Pubkey, payer: Account | None, fee_lamports: int) -> TransactionError | None:
        # Agave's `validate_fee_payer`: whoever is refused here is dropped without a fee and never has a status.
        if payer is None:
            return "AccountNotFound"
        is_nonce = len(payer.data) == NONCE_ACCOUNT_BYTES
        if payer.owner != SYSTEM_PROGRAM or (payer.data and not is_nonce):
            return "InvalidAccountForFee"
        kept_lamports = self.minimum_balance(NONCE_ACCOUNT_BYTES) if is_nonce else 0
        if payer.lamports < kept_lamports + fee_lamports:
            return "InsufficientFundsForFee"
        if not rent.transition_allowed(payer, _debited(payer, fee_lamports), self.minimum_balance):
            return transaction_error.insufficient_funds_for_rent(0)
        return None

    def _run(
        self, tx: VersionedTransaction, accounts: Accounts, before: Sequence[Account | None], fee: fees.Fee
    ) -> Outcome:
        payer = before[0]
        assert payer is not None
        charged = [_debited(payer, fee.lamports), *before[1:]]
        # LiteSVM takes the fee of the signatures itself and knows no priority fee, so that part is taken first.
        with self._overridden({accounts.keys[0]: _debited(payer, fee.priority_lamports)}):
            result = self._svm.simulate_transaction(tx)
        meta: Any = result.meta()  # the stub of solders lacks `return_data`
        err: TransactionError | None = None
        included = True
        if isinstance(result, FailedTransactionMetadata):
            err = transaction_error.from_solders(result.err())
            # LiteSVM looks at rent even if an instruction failed, and then hides why: on a cluster that error wins.
            if isinstance(result.err(), TransactionErrorInsufficientFundsForRent):
                err = transaction_error.from_logs(meta.logs()) or err
            elif err == "InvalidProgramForExecution" and _calls_nothing(tx.message, accounts, before):
                err = "ProgramAccountNotFound"
            included = _is_included(err, tx.message)
            after = charged if included else before
        else:
            after = _after(accounts, before, result)
            violation = rent.first_violation(accounts.keys, accounts.writable, charged, after, self.minimum_balance)
            if violation is not None:
                err, after = transaction_error.insufficient_funds_for_rent(violation), charged
        returned = meta.return_data()
        return Outcome(
            err=err,
            included=included,
            logs=tuple(meta.logs()),
            units_consumed=meta.compute_units_consumed(),
            return_data=(returned.program_id, bytes(returned.data)) if returned.data else None,
            inner_instructions=tuple(tuple(inner) for inner in meta.inner_instructions()),
            fee_lamports=fee.lamports if included else 0,
            accounts=accounts,
            before=tuple(before),
            after=tuple(after),
        )

    @contextmanager
    def _overridden(self, overrides: Mapping[Pubkey, Account | None]) -> Iterator[None]:
        stored = {address: self.account(address) for address in overrides}
        try:
            self._store(overrides)
            yield
        finally:
            self._store(stored)

    def _store(self, accounts: Mapping[Pubkey, Account | None]) -> None:
        # A program of the upgradeable loader is compiled from its data account when it is stored: data accounts first.
        for address, account in sorted(accounts.items(), key=lambda item: item[1] is not None and item[1].executable):
            self.set_account(address, account)


def with_blockhash(tx: VersionedTransaction, blockhash: Hash) -> VersionedTransaction:
    """The transaction with another blockhash and its old, now void, signatures."""
    old = tx.message
    if isinstance(old, MessageV0):
        message: Message | MessageV0 = MessageV0(
            old.header, old.account_keys, blockhash, old.instructions, old.address_table_lookups
        )
    else:
        header = old.header
        message = Message.new_with_compiled_instructions(
            header.num_required_signatures,
            header.num_readonly_signed_accounts,
            header.num_readonly_unsigned_accounts,
            old.account_keys,
            blockhash,
            old.instructions,
        )
    return VersionedTransaction.populate(message, tx.signatures)


def signatures_valid(tx: VersionedTransaction) -> bool:
    """Whether every required signature is there and good."""
    try:
        return all(tx.verify_with_results())
    except ValueError:
        return False


def _versioned(tx: VersionedTransaction | Transaction) -> VersionedTransaction:
    return VersionedTransaction.from_legacy(tx) if isinstance(tx, Transaction) else tx


def replace_lamports(account: Account, lamports: int) -> Account:
    return Account(lamports, account.data, account.owner, account.executable, account.rent_epoch)


def _debited(account: Account, lamports: int) -> Account:
    return replace_lamports(account, account.lamports - lamports)


def _after(
    accounts: Accounts, before: Sequence[Account | None], result: SimulatedTransactionInfo
) -> list[Account | None]:
    written = dict(result.post_accounts())
    after: list[Account | None] = []
    for key, writable, unwritten in zip(accounts.keys, accounts.writable, before, strict=True):
        account = written[key] if writable else unwritten
        # An account left without lamports is gone, with its data, even if no program cleared it.
        after.append(account if account is not None and account.lamports else None)
    return after


def _calls_nothing(message: Message | MessageV0, accounts: Accounts, before: Sequence[Account | None]) -> bool:
    # LiteSVM does not tell a program that is missing from an account that is no program.
    programs = (before[instruction.program_id_index] for instruction in message.instructions)
    return next((program is None for program in programs if program is None or not program.executable), False)


def _is_included(err: TransactionError, message: Message | MessageV0) -> bool:
    match err:
        case {"InstructionError": [int(index), _]}:
            # The compute budget is read before the fee is taken; no other instruction fails so early.
            program = message.account_keys[message.instructions[index].program_id_index]
            return program != fees.COMPUTE_BUDGET
        case {"InsufficientFundsForRent": _}:
            return True
        case _:
            return isinstance(err, str) and err in _FEES_ONLY
