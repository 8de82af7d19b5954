"""The built program in a virtual machine with one queue and one operator, and a request in whatever state is wanted."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256

from solders.hash import Hash
from solders.instruction import Instruction
from solders.keypair import Keypair
from solders.message import MessageV0
from solders.pubkey import Pubkey
from solders.transaction import VersionedTransaction

from oracle import resources
from oracle.chain.program import instructions
from oracle.chain.program.addresses import operator_address, queue_address, request_address
from oracle.chain.program.body import encode_body
from oracle.chain.program.layout import QueueTerms
from oracle.core.request import Body, Inline, Params
from oracle.localnet.vm import Outcome, Vm

PROGRAM_ID = Pubkey.from_string(json.loads(resources.idl().read_text())["address"])
TERMS = QueueTerms(
    fee_floor_lamports=10_000,
    min_deadline_slots=10,
    max_deadline_slots=10_000,
    lease_slots=50,
    retention_slots=1_000,
    max_body_len=4_000,
    max_output_cap=1_000,
    claim_required=False,
)
CLAIMED_TERMS = replace(TERMS, claim_required=True)
BODY = Body("llama", Params(max_output_tokens=64), Inline(b"Hello there!"))
OUTPUT = b"General Kenobi"
URI = "https://operator.example/outputs"
FEE_LAMPORTS = 20_000
TTL_SLOTS = 500


def keys_where_the_bump_is_found_at_once(seeds: Sequence[bytes], label: bytes) -> Keypair:
    """A key for which the address of `seeds`, `KEY` being the key, has bump 255: each further try costs 1,500 units."""
    for number in itertools.count():
        keys = Keypair.from_seed(sha256(label + number.to_bytes(4, "little")).digest())
        filled = [bytes(keys.pubkey()) if seed == b"KEY" else seed for seed in seeds]
        if Pubkey.find_program_address(filled, PROGRAM_ID)[1] == 255:
            return keys
    raise AssertionError


@dataclass
class Deployment:
    """Not frozen: `slot` moves with `wait`."""

    terms: QueueTerms = TERMS
    name: str = "measured"
    slot: int = 1_000
    vm: Vm = field(default_factory=Vm)
    authority: Keypair = field(init=False)
    operator_keys: Keypair = field(init=False)
    requester: Keypair = field(default_factory=lambda: Keypair.from_seed(sha256(b"requester").digest()))
    queue: Pubkey = field(init=False)
    operator: Pubkey = field(init=False)

    def __post_init__(self) -> None:
        name = self.name.encode().ljust(32, b"\0")
        self.authority = keys_where_the_bump_is_found_at_once([b"queue", b"KEY", name], b"authority")
        self.queue = queue_address(PROGRAM_ID, self.authority.pubkey(), self.name)
        self.operator_keys = keys_where_the_bump_is_found_at_once([b"operator", bytes(self.queue), b"KEY"], b"operator")
        self.operator = operator_address(PROGRAM_ID, self.queue, self.operator_keys.pubkey())
        self.vm.load_program(PROGRAM_ID, resources.bytecode().read_bytes())
        self.wait(0)
        for keys in (self.authority, self.operator_keys, self.requester):
            self.vm.airdrop(keys.pubkey(), 10**12)

    def wait(self, slots: int) -> None:
        self.slot += slots
        self.vm.set_clock(self.slot, 1_700_000_000)

    def send(self, signer: Keypair, *wanted: Instruction) -> Outcome:
        return self.vm.process(signed(signer, *wanted))

    def succeed(self, signer: Keypair, *wanted: Instruction) -> Outcome:
        outcome = self.send(signer, *wanted)
        assert outcome.ok, (outcome.err, outcome.logs)
        return outcome

    def create_queue(self) -> Outcome:
        authority = self.authority.pubkey()
        return self.succeed(
            self.authority,
            instructions.create_queue(PROGRAM_ID, authority=authority, name=self.name, terms=self.terms),
        )

    def add_operator(self) -> Outcome:
        return self.succeed(
            self.authority,
            instructions.add_operator(
                PROGRAM_ID,
                queue=self.queue,
                authority=self.authority.pubkey(),
                operator_key=self.operator_keys.pubkey(),
                uri=URI,
            ),
        )

    def cheap_nonces(self, count: int, body: Body = BODY) -> list[int]:
        """Nonces with which the bump of the request's address is found at once."""
        body_hash = sha256(encode_body(body)).digest()
        seeds = [b"request", bytes(self.queue), bytes(self.requester.pubkey())]
        cheap = (
            nonce
            for nonce in itertools.count()
            if Pubkey.find_program_address([*seeds, nonce.to_bytes(8, "little"), body_hash], PROGRAM_ID)[1] == 255
        )
        return list(itertools.islice(cheap, count))

    def submit(self, nonce: int, body: Body = BODY, output_cap: int = 100) -> Outcome:
        requester = self.requester.pubkey()
        return self.succeed(
            self.requester,
            instructions.submit_request(
                PROGRAM_ID,
                queue=self.queue,
                requester=requester,
                payer=requester,
                nonce=nonce,
                fee_lamports=FEE_LAMPORTS,
                ttl_slots=TTL_SLOTS,
                output_cap=output_cap,
                body=body,
            ),
        )

    def request(self, nonce: int, body: Body = BODY) -> Pubkey:
        body_hash = sha256(encode_body(body)).digest()
        return request_address(PROGRAM_ID, self.queue, self.requester.pubkey(), nonce, body_hash)

    def record(self, request: Pubkey) -> Instruction:
        return instructions.record_inference_result(
            PROGRAM_ID,
            request=request,
            operator_key=self.operator_keys.pubkey(),
            operator=self.operator,
            output_hash=sha256(OUTPUT).digest(),
            job_hash=sha256(b"job").digest(),
            completed_at=1_700_000_000,
        )

    def claim(self, request: Pubkey) -> Instruction:
        return instructions.claim_request(
            PROGRAM_ID,
            request=request,
            operator_key=self.operator_keys.pubkey(),
            operator=self.operator,
            queue=self.queue,
        )

    def reject(self, request: Pubkey) -> Instruction:
        return instructions.reject_request(
            PROGRAM_ID, request=request, operator_key=self.operator_keys.pubkey(), operator=self.operator, reason=6
        )

    def close(self, request: Pubkey) -> Instruction:
        requester = self.requester.pubkey()
        return instructions.close_request(PROGRAM_ID, request=request, refund_to=requester, closer=requester)


def signed(signer: Keypair, *wanted: Instruction) -> VersionedTransaction:
    message = MessageV0.try_compile(signer.pubkey(), list(wanted), [], Hash.default())
    return VersionedTransaction(message, [signer])
