"""The built program in a virtual machine, with as many queues, operators and requests as a test wants.

One `World` serves many tests: wallets, queues and nonces are always new, so no test meets what another has left. The
transaction fee is paid by a wallet that takes part in nothing, so every other wallet may be empty.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from hashlib import sha256
from typing import Protocol

from solders.account import Account
from solders.hash import Hash
from solders.instruction import AccountMeta, Instruction
from solders.keypair import Keypair
from solders.message import MessageV0
from solders.pubkey import Pubkey
from solders.transaction import VersionedTransaction

from oracle import resources
from oracle.chain.program import instructions
from oracle.chain.program.addresses import operator_address, queue_address, request_address
from oracle.chain.program.body import encode_body
from oracle.chain.program.errors import explain
from oracle.chain.program.idl import program_id
from oracle.chain.program.layout import (
    Operator,
    Queue,
    QueueTerms,
    decode_operator,
    decode_queue,
    decode_request,
)
from oracle.core.request import Body, Header, Inline, Params, Request
from oracle.localnet.vm import Outcome, Vm

PROGRAM_ID = program_id()
OPEN_TERMS = QueueTerms(
    fee_floor_lamports=10_000,
    min_deadline_slots=10,
    max_deadline_slots=10_000,
    lease_slots=50,
    retention_slots=1_000,
    max_body_len=4_000,
    max_output_cap=1_000,
    claim_required=False,
)
CLAIM_TERMS = replace(OPEN_TERMS, claim_required=True)
BODY = Body("llama", Params(max_output_tokens=64), Inline(b"Hello there!"))
OUTPUT = b"General Kenobi"
URI = "https://operator.example/outputs"
FEE_LAMPORTS = 20_000
TTL_SLOTS = 500
RICH = 10**12


@dataclass(frozen=True)
class Wallet:
    """A key pair that knows its public key: solders derives it anew each time, which costs more than a signature."""

    keys: Keypair
    address: Pubkey

    def pubkey(self) -> Pubkey:
        return self.address


class Machine(Protocol):
    """What these tests ask of a chain; `Vm` says what each means."""

    def load_program(self, address: Pubkey, elf: bytes) -> None: ...
    def set_clock(self, slot: int, unix_timestamp: int) -> None: ...
    def account(self, address: Pubkey) -> Account | None: ...
    def set_account(self, address: Pubkey, account: Account | None) -> None: ...
    def airdrop(self, address: Pubkey, lamports: int) -> None: ...
    def minimum_balance(self, data_len: int) -> int: ...
    def process(self, tx: VersionedTransaction) -> Outcome: ...
    def simulate(self, tx: VersionedTransaction) -> Outcome: ...


@dataclass
class World:
    """Not frozen: `slot` moves with `wait`. `vm` may be another chain that runs programs as `Vm` does."""

    slot: int = 1_000
    vm: Machine = field(default_factory=Vm)
    _numbers: itertools.count[int] = field(default_factory=itertools.count)

    def __post_init__(self) -> None:
        self.vm.load_program(PROGRAM_ID, resources.bytecode().read_bytes())
        self.wait_until(self.slot)

    @cached_property
    def payer(self) -> Wallet:
        return self.wallet()

    def number(self) -> int:
        """One that was never given before."""
        return next(self._numbers)

    def wallet(self, lamports: int = RICH) -> Wallet:
        keys = Keypair.from_seed(sha256(b"wallet %d" % self.number()).digest())
        wallet = Wallet(keys, keys.pubkey())
        if lamports:
            self.vm.airdrop(wallet.address, lamports)
        return wallet

    def wait(self, slots: int) -> None:
        self.wait_until(self.slot + slots)

    def wait_until(self, slot: int) -> None:
        self.slot = slot
        self.vm.set_clock(slot, 1_700_000_000)

    def queue(self, terms: QueueTerms = OPEN_TERMS, operators: int = 1, authority: Wallet | None = None) -> Site:
        """A new queue with new operators."""
        authority = authority or self.wallet()
        name = f"queue {self.number()}"
        self.succeed(
            instructions.create_queue(PROGRAM_ID, authority=authority.pubkey(), name=name, terms=terms),
            signers=[authority],
        )
        site = Site(self, authority, queue_address(PROGRAM_ID, authority.pubkey(), name), terms)
        for _ in range(operators):
            site.hire(self.wallet())
        return site

    def send(self, *wanted: Instruction, signers: Sequence[Wallet] = ()) -> Outcome:
        return self.vm.process(self.signed(*wanted, signers=signers))

    def try_out(self, *wanted: Instruction, signers: Sequence[Wallet] = ()) -> Outcome:
        """As `send`, and nothing is kept."""
        return self.vm.simulate(self.signed(*wanted, signers=signers))

    def signed(self, *wanted: Instruction, signers: Sequence[Wallet] = ()) -> VersionedTransaction:
        message = self.message(*wanted)
        needed = message.account_keys[: message.header.num_required_signatures]
        known = {keys.pubkey(): keys for keys in (self.payer, *signers)}
        return VersionedTransaction(message, [known[key].keys for key in needed])

    def message(self, *wanted: Instruction) -> MessageV0:
        return MessageV0.try_compile(self.payer.pubkey(), list(wanted), [], Hash.default())

    def succeed(self, *wanted: Instruction, signers: Sequence[Wallet] = ()) -> Outcome:
        outcome = self.send(*wanted, signers=signers)
        assert outcome.ok, (refusal(outcome), outcome.logs)
        return outcome

    def refuse(self, name: str, *wanted: Instruction, signers: Sequence[Wallet] = ()) -> Outcome:
        """The transaction fails for the named reason, and only the payer of its fee has changed."""
        outcome = self.send(*wanted, signers=signers)
        assert refusal(outcome) == name, outcome.logs
        assert set(outcome.changed) <= {self.payer.pubkey()}
        return outcome

    def balance(self, address: Pubkey) -> int:
        account = self.vm.account(address)
        return account.lamports if account else 0

    def drain(self, *wallets: Wallet) -> None:
        for wallet in wallets:
            self.vm.set_account(wallet.pubkey(), None)

    def data(self, address: Pubkey) -> bytes:
        account = self.vm.account(address)
        assert account is not None
        return bytes(account.data)


@dataclass(frozen=True)
class Ticket:
    """A request that was submitted, and who has a say in it."""

    address: Pubkey
    requester: Wallet
    payer: Wallet
    nonce: int
    body: Body


@dataclass
class Site:
    """A queue and those who serve it. Its methods build instructions; `by` is a place in `operators`."""

    world: World
    authority: Wallet
    address: Pubkey
    terms: QueueTerms
    operators: list[Wallet] = field(default_factory=list)

    # Set-up, which is done at once.

    def hire(self, keys: Wallet) -> None:
        self.world.succeed(self.add_operator(keys.pubkey()), signers=[self.authority])
        self.operators.append(keys)

    def change(self, terms: QueueTerms, *, paused: bool = False) -> None:
        self.world.succeed(self.update_queue(terms, paused=paused), signers=[self.authority])
        self.terms = terms

    def ask(
        self,
        *,
        requester: Wallet | None = None,
        payer: Wallet | None = None,
        body: Body = BODY,
        output_cap: int = 100,
        fee_lamports: int = FEE_LAMPORTS,
        ttl_slots: int = TTL_SLOTS,
    ) -> Ticket:
        """A new pending request."""
        requester = requester or self.world.wallet()
        ticket = self.ticket(requester, payer or requester, body)
        submit = self.submit(ticket, output_cap=output_cap, fee_lamports=fee_lamports, ttl_slots=ttl_slots)
        self.world.succeed(submit, signers=[ticket.requester, ticket.payer])
        return ticket

    def ticket(self, requester: Wallet, payer: Wallet, body: Body = BODY) -> Ticket:
        nonce = self.world.number()
        body_hash = sha256(encode_body(body)).digest()
        address = request_address(PROGRAM_ID, self.address, requester.pubkey(), nonce, body_hash)
        return Ticket(address, requester, payer, nonce, body)

    # What the chain says.

    def read(self, ticket: Ticket) -> Request:
        return decode_request(ticket.address, self.world.data(ticket.address))

    def header(self, ticket: Ticket) -> Header:
        return self.read(ticket).header

    def state(self) -> Queue:
        return decode_queue(self.world.data(self.address))

    def operator_state(self, by: int = 0) -> Operator:
        return decode_operator(self.world.data(self.operator(by)))

    # Instructions.

    def operator(self, by: int = 0) -> Pubkey:
        return _operator_address(self.address, self.operators[by].pubkey())

    def add_operator(self, operator_key: Pubkey, uri: str = URI) -> Instruction:
        return instructions.add_operator(
            PROGRAM_ID, queue=self.address, authority=self.authority.pubkey(), operator_key=operator_key, uri=uri
        )

    def update_operator(self, uri: str, by: int = 0) -> Instruction:
        return instructions.update_operator(
            PROGRAM_ID, operator=self.operator(by), operator_key=self.operators[by].pubkey(), uri=uri
        )

    def remove_operator(self, by: int = 0) -> Instruction:
        return instructions.remove_operator(
            PROGRAM_ID, operator=self.operator(by), queue=self.address, authority=self.authority.pubkey()
        )

    def update_queue(self, terms: QueueTerms, *, paused: bool = False) -> Instruction:
        return instructions.update_queue(
            PROGRAM_ID, queue=self.address, authority=self.authority.pubkey(), terms=terms, paused=paused
        )

    def submit(
        self,
        ticket: Ticket,
        *,
        output_cap: int = 100,
        fee_lamports: int = FEE_LAMPORTS,
        ttl_slots: int = TTL_SLOTS,
    ) -> Instruction:
        return instructions.submit_request(
            PROGRAM_ID,
            queue=self.address,
            requester=ticket.requester.pubkey(),
            payer=ticket.payer.pubkey(),
            nonce=ticket.nonce,
            fee_lamports=fee_lamports,
            ttl_slots=ttl_slots,
            output_cap=output_cap,
            body=ticket.body,
        )

    def claim(self, ticket: Ticket, by: int = 0) -> Instruction:
        return instructions.claim_request(
            PROGRAM_ID,
            request=ticket.address,
            operator_key=self.operators[by].pubkey(),
            operator=self.operator(by),
            queue=self.address,
        )

    def record(self, ticket: Ticket, by: int = 0, output: bytes = OUTPUT) -> Instruction:
        return instructions.record_inference_result(
            PROGRAM_ID,
            request=ticket.address,
            operator_key=self.operators[by].pubkey(),
            operator=self.operator(by),
            output_hash=sha256(output).digest(),
            job_hash=sha256(b"job").digest(),
            completed_at=1_700_000_000,
        )

    def publish(self, ticket: Ticket, by: int = 0, output: bytes = OUTPUT) -> Instruction:
        return instructions.publish_output(
            PROGRAM_ID,
            request=ticket.address,
            operator_key=self.operators[by].pubkey(),
            operator=self.operator(by),
            output=output,
        )

    def reject(self, ticket: Ticket, by: int = 0, reason: int = 6) -> Instruction:
        return instructions.reject_request(
            PROGRAM_ID,
            request=ticket.address,
            operator_key=self.operators[by].pubkey(),
            operator=self.operator(by),
            reason=reason,
        )

    def cancel(self, ticket: Ticket) -> Instruction:
        return instructions.cancel_request(PROGRAM_ID, request=ticket.address, requester=ticket.requester.pubkey())

    def expire(self, ticket: Ticket) -> Instruction:
        return instructions.expire_request(PROGRAM_ID, request=ticket.address)

    def close(self, ticket: Ticket, closer: Wallet | None = None) -> Instruction:
        refund_to = ticket.payer.pubkey()
        return instructions.close_request(
            PROGRAM_ID,
            request=ticket.address,
            refund_to=refund_to,
            closer=closer.pubkey() if closer else refund_to,
        )


@cache
def _operator_address(queue: Pubkey, operator_key: Pubkey) -> Pubkey:
    return operator_address(PROGRAM_ID, queue, operator_key)


def refusal(outcome: Outcome) -> str | None:
    """The name of the reason for which a transaction failed; None if it did not."""
    match outcome.err:
        case None:
            return None
        case {"InstructionError": [_, {"Custom": int(code)}]}:
            return explain(code).name
        case {"InstructionError": [_, str(name)]}:
            return name
        case dict() as other:
            return str(next(iter(other)))
        case str() as name:
            return name


def with_account(instruction: Instruction, at: int, **changed: object) -> Instruction:
    """The instruction with `pubkey`, `is_signer` or `is_writable` of the account at a place changed."""
    metas = list(instruction.accounts)
    old = metas[at]
    values = {"pubkey": old.pubkey, "is_signer": old.is_signer, "is_writable": old.is_writable} | changed
    metas[at] = AccountMeta(**values)  # type: ignore[arg-type]
    return Instruction(instruction.program_id, instruction.data, metas)


def with_data(instruction: Instruction, data: bytes) -> Instruction:
    return Instruction(instruction.program_id, data, instruction.accounts)
