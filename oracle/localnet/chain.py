"""`Chain`: slots, blockhashes, commitments, forks and history around the virtual machine.

    chain = Chain(seed=b"any 32 bytes, for reproducible hashes...", now=clock)
    chain.load_program(program_id, elf)
    chain.fund(payer.pubkey(), 10**9)
    chain.submit(tx)         # lands in the open slot, or is dropped, as on a cluster: nobody says which
    chain.advance()          # closes the open slot and opens the next
    chain.status(tx.signatures[0])

Nothing here reads a clock or starts a thread: `now` is passed in, and slots pass when `advance` is called. An instance
belongs to one thread at a time; `oracle.localnet.server.serve` puts it on one and lets slots pass by the real clock.

One slot is always open: transactions execute in it as they arrive, and `processed` sees them at once. `confirmed` and
`finalized` lag behind by a number of slots and see accounts as they were.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any

from solders.account import Account
from solders.address_lookup_table_account import ID as LOOKUP_TABLE_PROGRAM
from solders.compute_budget import set_compute_unit_limit
from solders.hash import Hash
from solders.keypair import Keypair
from solders.message import Message, MessageV0
from solders.pubkey import Pubkey
from solders.signature import Signature
from solders.system_program import TransferParams, transfer
from solders.transaction import Transaction, VersionedTransaction

from oracle.localnet import fees, history
from oracle.localnet.errors import FORK_TOO_DEEP
from oracle.localnet.inflight import Delivery, InFlight
from oracle.localnet.ledger import Block, Ledger, Record
from oracle.localnet.message import UnreadableLookupTable, accounts_of
from oracle.localnet.outcome import Outcome
from oracle.localnet.prices import Prices
from oracle.localnet.vm import NO_ACCOUNT, Vm, replace_lamports, signatures_valid

MAX_PROCESSING_AGE = 150
"""A blockhash is good for blocks of at most this many heights after its own, plus the one being built (Agave)."""

FAUCET_LAMPORTS = 500_000_000 * 10**9


class Commitment(IntEnum):
    PROCESSED = 0
    CONFIRMED = 1
    FINALIZED = 2


@dataclass(frozen=True, slots=True)
class Config:
    """Lags are in slots behind the open slot. A cluster confirms about two slots back and finalizes 32 back."""

    confirmed_lag_slots: int = 2
    finalized_lag_slots: int = 32
    kept_slots: int = 0
    """For so many slots behind the root accounts can be seen as they were: as far as `Chain.seen_late` may look."""


@dataclass(frozen=True, slots=True)
class Bank:
    """The chain as one commitment level sees it. `hash_height` is the height of its newest blockhash."""

    slot: int
    height: int
    blockhash: Hash
    hash_height: int
    unix_timestamp: int

    @property
    def last_valid_block_height(self) -> int:
        return self.height + MAX_PROCESSING_AGE


@dataclass(frozen=True, slots=True)
class Progress:
    """A slot was closed. `reached` has, for each commitment, the slots with a block that newly came to it."""

    closed: Block
    root: int
    reached: Mapping[Commitment, list[int]]


class Chain:
    """See the head of the module."""

    def __init__(
        self,
        *,
        seed: bytes,
        now: Callable[[], float],
        config: Config | None = None,
        directory: Path | None = None,
    ) -> None:
        """`now` gives unix time in seconds. With a `directory` the chain is kept there and continues where it was."""
        self.config = config or Config()
        self.vm = Vm()
        self.ledger = Ledger(directory)
        self.delivery: Delivery = lambda _: 0
        """Set it to lose transactions, or to let them land late."""
        self.on_progress: Callable[[Progress], None] = lambda _: None
        self.slots_behind: int | None = None
        """Set it, and the node says that it is unhealthy, being so many slots behind its cluster."""
        self._now = now
        seed = self.ledger.seed(seed)
        self.genesis_hash = _hash(b"genesis", seed)
        self.identity = Keypair.from_seed(hashlib.sha256(b"identity" + seed).digest()).pubkey()
        self._faucet = Keypair.from_seed(hashlib.sha256(b"faucet" + seed).digest())
        self.prices = Prices()
        self._in_flight = InFlight(lambda tx: self.delivery(tx), self._land, self._is_young)
        self._commitments = [0, 0, 0]
        self._begin()

    def close(self) -> None:
        self.ledger.close()

    # Reading

    def slot(self, commitment: Commitment) -> int:
        return self._commitments[commitment]

    def bank(self, commitment: Commitment) -> Bank:
        if self._commitments[commitment] == self._open_slot:
            parent = self._parent
            height = parent.height + 1
            return Bank(self._open_slot, height, parent.blockhash, parent.height, self._open_timestamp)
        block = self.ledger.block_at_or_before(self.slot(commitment))
        assert block is not None
        return Bank(block.slot, block.height, block.blockhash, block.height, block.unix_timestamp)

    def is_blockhash_valid(self, blockhash: Hash, commitment: Commitment) -> bool:
        height = self.ledger.height_of(blockhash)
        return height is not None and 0 <= self.bank(commitment).hash_height - height <= MAX_PROCESSING_AGE

    def account(self, address: Pubkey, commitment: Commitment = Commitment.PROCESSED) -> Account | None:
        account = self.ledger.account(address, self.slot(commitment))
        if account is None and not self.ledger.knows(address):
            return self.vm.account(address)
        return account

    @contextmanager
    def seen_late(self, slots: int) -> Iterator[None]:
        """Inside, all is read as by a node that is so many slots behind (`Config.kept_slots` at most). Send nothing."""
        now = self._commitments
        self._commitments = [self._block_slot(slot - slots) for slot in now] if slots else now
        try:
            yield
        finally:
            self._commitments = now

    def status(self, signature: Signature) -> tuple[int, Any] | None:
        """Slot and error (`None` if it succeeded) of a transaction that landed; `None` if it has not."""
        landed = self.ledger.status(signature)
        return landed if landed is None or landed[0] <= self.slot(Commitment.PROCESSED) else None

    def commitment_of(self, slot: int) -> Commitment:
        """The highest commitment that a slot has reached."""
        return max((level for level in Commitment if slot <= self.slot(level)), default=Commitment.PROCESSED)

    def simulate(
        self,
        tx: VersionedTransaction,
        commitment: Commitment = Commitment.PROCESSED,
        *,
        sig_verify: bool = False,
        replace_blockhash: bool = False,
    ) -> Outcome:
        """What a bank at a commitment would make of a transaction, duplicates and blockhash included."""
        if sig_verify and not signatures_valid(tx):
            return Outcome("SignatureFailure", included=False)
        if not replace_blockhash:
            if not self.is_blockhash_valid(tx.message.recent_blockhash, commitment):
                return Outcome("BlockhashNotFound", included=False)
            landed = self.status(tx.signatures[0])
            if landed and landed[0] <= self.slot(commitment):
                return Outcome("AlreadyProcessed", included=False)
        self._offer_lookup_slots(tx.message)
        blockhash = self.bank(commitment).blockhash if replace_blockhash else None
        if self.slot(commitment) == self._open_slot:
            return self.vm.simulate(tx, sig_verify=False, replace_blockhash=blockhash)
        bank = self.bank(commitment)
        overrides = self._older_accounts(tx.message, bank.slot)
        self.vm.set_clock(bank.slot, bank.unix_timestamp)
        try:
            return self.vm.simulate(tx, sig_verify=False, replace_blockhash=blockhash, overrides=overrides)
        finally:
            self.vm.set_clock(self._open_slot, self._open_timestamp)

    # Writing

    def submit(self, tx: VersionedTransaction | Transaction, *, max_retries: int | None = None) -> Signature:
        """Sends a transaction into the network. Whether it lands is seen by its status, never here.

        It is sent again every slot, at most `max_retries` times, until it is rooted or its blockhash has expired.
        """
        if isinstance(tx, Transaction):
            tx = VersionedTransaction.from_legacy(tx)
        self._in_flight.send(tx, max_retries, self._open_slot)
        return tx.signatures[0]

    def advance(self, slots: int = 1) -> None:
        """Closes the open slot and opens the next, `slots` times."""
        for _ in range(slots):
            before = self._commitments
            closed = self._close()
            self._open(closed.slot + 1, closed)
            reached = {
                Commitment.PROCESSED: [closed.slot],
                **{
                    level: self.ledger.block_slots(before[level] + 1, self.slot(level))
                    for level in (Commitment.CONFIRMED, Commitment.FINALIZED)
                },
            }
            self.on_progress(Progress(closed, self.slot(Commitment.FINALIZED), reached))
            for root in reached[Commitment.FINALIZED]:
                self.ledger.forget_versions_before(root - self.config.kept_slots)
            self.ledger.commit()
            self._in_flight.slot_opened(self._open_slot, self.slot(Commitment.FINALIZED))

    def fork(self, slots: int) -> list[VersionedTransaction]:
        """Drops the last `slots` slots, the open one included, as when the cluster votes for another fork.

        Returns the transactions that were in them; those sent with retries are on their way again by themselves.
        Raises `FORK_TOO_DEEP` for confirmed slots: a cluster does not take those back.
        """
        kept = self._open_slot - slots
        if slots < 1 or kept < self.slot(Commitment.CONFIRMED):
            raise FORK_TOO_DEEP(f"{slots} slots from {self._open_slot}, {self.slot(Commitment.CONFIRMED)} is confirmed")
        dropped = self.ledger.transactions_after(kept)
        for address in self.ledger.drop_after(kept):
            self.vm.set_account(address, self.ledger.account(address, kept))
        parent = self.ledger.block_at_or_before(kept)
        assert parent is not None
        self.prices.slots_dropped(kept)
        self._in_flight.slots_dropped(kept)
        self._open(self._open_slot + 1, parent)
        self.ledger.commit()
        self._in_flight.slot_opened(self._open_slot, self.slot(Commitment.FINALIZED))
        return [VersionedTransaction.from_bytes(record.wire) for record in dropped]

    def prune(self, before_slot: int) -> int:
        """Forgets transactions older than a slot, as nodes without an archive do; returns the first slot that is kept.

        What is young enough to land twice is kept in any case.
        """
        young = self.ledger.recent_blocks(self._open_slot, MAX_PROCESSING_AGE + 2)[-1].slot
        first = max(min(before_slot, young), self.ledger.first_available_block())
        self.ledger.forget_transactions_before(first)
        return first

    def set_account(self, address: Pubkey, account: Account | None) -> None:
        """Overwrites an account, whatever the rules, for every commitment at once and in every fork."""
        self.vm.set_account(address, account)
        self._record_override(address)

    def load_program(self, address: Pubkey, elf: bytes) -> None:
        """Places a program, as if it had always been there. Raises `PROGRAM_UNLOADABLE`."""
        self.vm.load_program(address, elf)
        self._record_override(address)

    def fund(self, address: Pubkey, lamports: int) -> None:
        """Adds lamports out of nothing, for every commitment at once."""
        account = self.account(address) or NO_ACCOUNT
        self.set_account(address, replace_lamports(account, account.lamports + lamports))

    def request_airdrop(self, address: Pubkey, lamports: int) -> Signature:
        """Sends lamports from the faucet, by a transaction like any other."""
        self._airdrops += 1
        instruction = transfer(TransferParams(from_pubkey=self._faucet.pubkey(), to_pubkey=address, lamports=lamports))
        # The compute limit differs from call to call, else two equal airdrops in a slot would be one transaction.
        distinct = set_compute_unit_limit(1_000 + self._airdrops % 1_000_000)
        message = MessageV0.try_compile(self._faucet.pubkey(), [distinct, instruction], [], self._parent.blockhash)
        return self.submit(VersionedTransaction(message, [self._faucet]))

    # Slots

    def _begin(self) -> None:
        self._airdrops = 0
        parent = self.ledger.block_at_or_before(2**62)
        if parent is None:
            parent = Block(0, 0, 0, self.genesis_hash, self.genesis_hash, int(self._now()))
            self.ledger.put_block(parent)
            self.ledger.put_account(self._faucet.pubkey(), 0, Account(FAUCET_LAMPORTS, b"", NO_ACCOUNT.owner))
        accounts = sorted(self.ledger.all_accounts(parent.slot), key=lambda item: item[1].executable)
        for address, account in accounts:
            self.vm.set_account(address, account)
        self._open(parent.slot + 1, parent)
        self.ledger.commit()

    def _close(self) -> Block:
        signatures = b"".join(bytes(record.signature) for record in self.ledger.transactions_in(self._open_slot))
        parent = self._parent
        blockhash = _hash(bytes(parent.blockhash), self._open_slot.to_bytes(8, "little"), signatures)
        block = Block(
            self._open_slot, parent.slot, parent.height + 1, blockhash, parent.blockhash, self._open_timestamp
        )
        self.ledger.put_block(block)
        return block

    def _open(self, slot: int, parent: Block) -> None:
        self._open_slot = slot
        self._parent = parent
        self._position = 0
        self.prices.slot_opened(slot)
        # The Clock never runs backwards, even if the machine's does.
        self._open_timestamp = max(int(self._now()), parent.unix_timestamp)
        self.vm.set_clock(slot, self._open_timestamp)
        confirmed, finalized = (
            max(before, self._block_slot(slot - lag))
            for before, lag in zip(
                self._commitments[1:], (self.config.confirmed_lag_slots, self.config.finalized_lag_slots), strict=True
            )
        )
        self._commitments = [slot, confirmed, finalized]

    def _block_slot(self, slot: int) -> int:
        block = self.ledger.block_at_or_before(slot)
        return block.slot if block else 0

    # Transactions

    def _is_young(self, tx: VersionedTransaction) -> bool:
        return self.is_blockhash_valid(tx.message.recent_blockhash, Commitment.PROCESSED)

    def _land(self, tx: VersionedTransaction) -> bool:
        signature = tx.signatures[0]
        if self.status(signature) is not None:
            return True
        if not self._is_young(tx):
            return False
        self._offer_lookup_slots(tx.message)
        outcome = self.vm.process(tx)
        if not outcome.included:
            return False
        record = Record(signature, self._open_slot, self._position, bytes(tx), outcome.err, history.meta_of(outcome))
        self._position += 1
        self.ledger.put_transaction(record, outcome.accounts.keys)
        for address, account in outcome.changed.items():
            self.ledger.put_account(address, self._open_slot, account)
        price = fees.of_message(tx.message).price_micro_lamports
        self.prices.paid(self._open_slot, price, outcome.accounts.writable_keys())
        return True

    def _offer_lookup_slots(self, message: Message | MessageV0) -> None:
        # Setting a sysvar costs LiteSVM a copy of its account table, so it is done for the one program that asks.
        if LOOKUP_TABLE_PROGRAM in message.account_keys:
            blocks = self.ledger.recent_blocks(self._open_slot, 512)
            self.vm.set_slot_hashes([(block.slot, block.blockhash) for block in blocks])

    def _older_accounts(self, message: Message | MessageV0, slot: int) -> dict[Pubkey, Account | None]:
        tables = [lookup.account_key for lookup in getattr(message, "address_table_lookups", ())]
        try:
            keys = accounts_of(message, lambda address: self.ledger.account(address, slot)).keys
        except UnreadableLookupTable:
            keys = tuple(message.account_keys)
        return {
            address: self.ledger.account(address, slot)
            for address in (*keys, *tables)
            if self.ledger.changed_since(address, slot)
        }

    def _record_override(self, address: Pubkey) -> None:
        account = self.vm.account(address)
        self.ledger.override_account(address, account, [self.slot(Commitment.FINALIZED), self._open_slot])


def _hash(*parts: bytes) -> Hash:
    return Hash.from_bytes(hashlib.sha256(b"".join(parts)).digest())
