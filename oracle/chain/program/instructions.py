"""Every instruction of the program, built by a compiled codec. What can be derived is; the caller names the rest.

Numbers that do not fit raise ORC-CHAIN-105. The program's own rules are left to the program: its refusals are named.
"""

from __future__ import annotations

from hashlib import sha256
from struct import Struct
from typing import Final

from solders.instruction import AccountMeta, Instruction
from solders.pubkey import Pubkey

from oracle.chain.program.addresses import name_bytes, operator_address, queue_address, request_address
from oracle.chain.program.body import encode_body
from oracle.chain.program.borsh import blob, hash32, pack, text
from oracle.chain.program.layout import QueueTerms, discriminator
from oracle.core.request import Body

SYSTEM_PROGRAM: Final = Pubkey.from_string("11111111111111111111111111111111")

CREATE_QUEUE: Final = discriminator("global", "create_queue")
UPDATE_QUEUE: Final = discriminator("global", "update_queue")
ADD_OPERATOR: Final = discriminator("global", "add_operator")
UPDATE_OPERATOR: Final = discriminator("global", "update_operator")
REMOVE_OPERATOR: Final = discriminator("global", "remove_operator")
SUBMIT_REQUEST: Final = discriminator("global", "submit_request")
CLAIM_REQUEST: Final = discriminator("global", "claim_request")
RECORD_INFERENCE_RESULT: Final = discriminator("global", "record_inference_result")
PUBLISH_OUTPUT: Final = discriminator("global", "publish_output")
REJECT_REQUEST: Final = discriminator("global", "reject_request")
CANCEL_REQUEST: Final = discriminator("global", "cancel_request")
EXPIRE_REQUEST: Final = discriminator("global", "expire_request")
CLOSE_REQUEST: Final = discriminator("global", "close_request")

_TERMS: Final = Struct("<QQQIIII?")
_SUBMIT: Final = Struct("<QQQI32s")
_RECORD: Final = Struct("<8s32s32sq")
_BYTE: Final = Struct("<B")


def create_queue(program_id: Pubkey, *, authority: Pubkey, name: str, terms: QueueTerms) -> Instruction:
    """Open the queue `name` of `authority`, which pays its rent."""
    queue = queue_address(program_id, authority, name)
    data = CREATE_QUEUE + name_bytes(name) + _terms(terms)
    return Instruction(program_id, data, [_writable(queue), _payer(authority), _SYSTEM])


def update_queue(
    program_id: Pubkey, *, queue: Pubkey, authority: Pubkey, terms: QueueTerms, paused: bool
) -> Instruction:
    """Replace a queue's terms for requests to come. A pause stops submit and claim, nothing else."""
    data = UPDATE_QUEUE + _terms(terms) + bytes([paused])
    return Instruction(program_id, data, [_writable(queue), _signer(authority)])


def add_operator(
    program_id: Pubkey, *, queue: Pubkey, authority: Pubkey, operator_key: Pubkey, uri: str
) -> Instruction:
    """Let `operator_key` answer requests; `uri` is where its outputs and receipts are served."""
    operator = operator_address(program_id, queue, operator_key)
    accounts = [_writable(operator), _writable(queue), _payer(authority), _readonly(operator_key), _SYSTEM]
    return Instruction(program_id, ADD_OPERATOR + text("uri", uri), accounts)


def update_operator(program_id: Pubkey, *, operator: Pubkey, operator_key: Pubkey, uri: str) -> Instruction:
    """Move an operator's outputs to another base URI."""
    data = UPDATE_OPERATOR + text("uri", uri)
    return Instruction(program_id, data, [_writable(operator), _signer(operator_key)])


def remove_operator(program_id: Pubkey, *, operator: Pubkey, queue: Pubkey, authority: Pubkey) -> Instruction:
    """Close an operator's account, to the authority: it can do nothing from then on."""
    return Instruction(program_id, REMOVE_OPERATOR, [_writable(operator), _writable(queue), _payer(authority)])


def submit_request(
    program_id: Pubkey,
    *,
    queue: Pubkey,
    requester: Pubkey,
    payer: Pubkey,
    nonce: int,
    fee_lamports: int,
    ttl_slots: int,
    output_cap: int,
    body: Body,
) -> Instruction:
    """Ask `body` of `queue`. `payer` escrows fee and rent and gets every refund; `output_cap` bytes are kept free."""
    encoded = encode_body(body)
    body_hash = sha256(encoded).digest()
    request = request_address(program_id, queue, requester, nonce, body_hash)
    arguments = pack("submit_request", _SUBMIT, nonce, fee_lamports, ttl_slots, output_cap, body_hash)
    accounts = [_writable(request), _readonly(queue), _signer(requester), _payer(payer), _SYSTEM]
    return Instruction(program_id, SUBMIT_REQUEST + arguments + encoded, accounts)


def claim_request(
    program_id: Pubkey, *, request: Pubkey, operator_key: Pubkey, operator: Pubkey, queue: Pubkey
) -> Instruction:
    """Take a lease on a request of a queue that requires claims."""
    accounts = [_writable(request), _signer(operator_key), _readonly(operator), _readonly(queue)]
    return Instruction(program_id, CLAIM_REQUEST, accounts)


def record_inference_result(
    program_id: Pubkey,
    *,
    request: Pubkey,
    operator_key: Pubkey,
    operator: Pubkey,
    output_hash: bytes,
    job_hash: bytes,
    completed_at: int,
) -> Instruction:
    """Settle a request and take its fee. `completed_at` is in unix seconds, by the operator's clock."""
    data = pack(
        "record_inference_result",
        _RECORD,
        RECORD_INFERENCE_RESULT,
        hash32("output_hash", output_hash),
        hash32("job_hash", job_hash),
        completed_at,
    )
    return Instruction(program_id, data, [_writable(request), _payer(operator_key), _readonly(operator)])


def publish_output(
    program_id: Pubkey, *, request: Pubkey, operator_key: Pubkey, operator: Pubkey, output: bytes
) -> Instruction:
    """Write a settled request's output into the room it keeps; the program hashes it."""
    data = PUBLISH_OUTPUT + blob("output", output)
    return Instruction(program_id, data, [_writable(request), _signer(operator_key), _readonly(operator)])


def reject_request(
    program_id: Pubkey, *, request: Pubkey, operator_key: Pubkey, operator: Pubkey, reason: int
) -> Instruction:
    """Say that there will be no result, and why (`core.request.Reason`)."""
    data = REJECT_REQUEST + pack("reason", _BYTE, reason)
    return Instruction(program_id, data, [_writable(request), _signer(operator_key), _readonly(operator)])


def cancel_request(program_id: Pubkey, *, request: Pubkey, requester: Pubkey) -> Instruction:
    """Withdraw a request that nobody has a lease on, from a queue that requires claims."""
    return Instruction(program_id, CANCEL_REQUEST, [_writable(request), _signer(requester)])


def expire_request(program_id: Pubkey, *, request: Pubkey) -> Instruction:
    """End a request that nobody answered by its deadline. Needs no signer of its own."""
    return Instruction(program_id, EXPIRE_REQUEST, [_writable(request)])


def close_request(program_id: Pubkey, *, request: Pubkey, refund_to: Pubkey, closer: Pubkey) -> Instruction:
    """Return what an ended request still holds, fee or rent, to `refund_to`, and free the account."""
    return Instruction(program_id, CLOSE_REQUEST, [_writable(request), _writable(refund_to), _signer(closer)])


def _terms(terms: QueueTerms) -> bytes:
    return pack(
        "terms",
        _TERMS,
        terms.fee_floor_lamports,
        terms.min_deadline_slots,
        terms.max_deadline_slots,
        terms.lease_slots,
        terms.retention_slots,
        terms.max_body_len,
        terms.max_output_cap,
        terms.claim_required,
    )


def _readonly(key: Pubkey) -> AccountMeta:
    return AccountMeta(key, is_signer=False, is_writable=False)


def _writable(key: Pubkey) -> AccountMeta:
    return AccountMeta(key, is_signer=False, is_writable=True)


def _signer(key: Pubkey) -> AccountMeta:
    return AccountMeta(key, is_signer=True, is_writable=False)


def _payer(key: Pubkey) -> AccountMeta:
    return AccountMeta(key, is_signer=True, is_writable=True)


_SYSTEM: Final = _readonly(SYSTEM_PROGRAM)
