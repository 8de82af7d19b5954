"""A request that was answered: its account, its output and its receipt, all of one piece until a test breaks it."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any

from solders.keypair import Keypair
from solders.pubkey import Pubkey

from oracle.chain.program.addresses import request_address
from oracle.chain.program.body import encode_body
from oracle.client.verify import Recorded
from oracle.core import receipts
from oracle.core.request import Body, Flags, Header, Inline, Input, Params, Request, Status

PROGRAM, QUEUE, OPERATOR, REQUESTER, OTHER = (Keypair().pubkey() for _ in range(5))
PROMPT = b"What is the capital of Japan?"
QUESTION = Inline(PROMPT)
OUTPUT = "Tokyo, of course. 東京".encode()
NONCE = 2**63 + 5
PARAMS = Params(64, 700, 2**60, Flags.PRIVATE)


def receipt_of(request: Request, output: bytes = OUTPUT, /, **changes: Any) -> bytes:
    """The receipt that an honest operator makes, or with `changes` a dishonest one."""
    header, params = request.header, request.body.params
    fields = {
        "version": 1,
        "program": str(PROGRAM),
        "request": str(request.address),
        "created_slot": str(header.created_slot),
        "queue": str(header.queue),
        "operator": str(header.operator),
        "requester": str(header.requester),
        "nonce": str(header.nonce),
        "body_hash": header.body_hash.hex(),
        "input_hash": hashlib.sha256(PROMPT).hexdigest(),
        "input_origin": None,
        "model_asked": request.body.model,
        "model_run": "tiny-1",
        "provider": "scripted",
        "provider_job_id": "job-1",
        "params": {
            "max_output_tokens": params.max_output_tokens,
            "temperature_milli": params.temperature_milli,
            "seed": str(params.seed),
            "flags": int(params.flags),
        },
        "output_hash": hashlib.sha256(output).hexdigest(),
        "output_bytes": len(output),
        "output_media_type": "text/plain; charset=utf-8",
        "submitted_at": 1_700_000_000,
        "completed_at": 1_700_000_005,
    }
    return receipts.encode({**fields, **changes})


def request_of(what: Input = QUESTION, **changes: Any) -> Request:
    body = Body("tiny", PARAMS, what)
    body_bytes = encode_body(body)
    digest = hashlib.sha256(body_bytes).digest()
    header = Header(
        version=1,
        status=Status.FULFILLED,
        reason=0,
        bump=255,
        body_len=len(body_bytes),
        queue=QUEUE,
        operator=OPERATOR,
        deadline_slot=2_000,
        claim_expires_slot=0,
        fee_lamports=50_000,
        created_slot=1_000,
        settled_slot=1_100,
        nonce=NONCE,
        requester=REQUESTER,
        refund_to=REQUESTER,
        body_hash=digest,
        callback_program=Pubkey.default(),
        output_hash=hashlib.sha256(OUTPUT).digest(),
        job_hash=bytes(32),
        completed_at=1_700_000_005,
        output_cap=0,
        output_len=0,
        lease_slots=0,
        retention_slots=100,
        claim_required=False,
        callback_delivered=False,
    )
    address = request_address(PROGRAM, QUEUE, REQUESTER, NONCE, digest)
    return Request(address, replace(header, **changes), body_bytes, body)


def recorded_of(request: Request, receipt: bytes, *, closed: bool = False) -> Recorded:
    """What the chain says where this receipt was settled; with `closed` only what its events say."""
    header = request.header
    return Recorded(
        request.address,
        header.queue,
        header.operator,
        header.requester,
        header.created_slot,
        header.output_hash,
        receipts.job_hash(receipt),
        header.completed_at,
        None if closed else request,
    )
