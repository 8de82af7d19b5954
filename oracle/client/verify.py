"""Is this answer the one that the chain recorded? From the chain and the operator's public URL alone.

Nothing the operator serves is believed: output and receipt must have the hashes on chain, and the receipt must say
what the chain says. An open account is the truth; of a closed one the program's own event remains.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlsplit

import httpx
from solana.rpc.commitment import Commitment, Confirmed
from solders.pubkey import Pubkey

from oracle.chain.program.addresses import operator_address, request_address
from oracle.chain.program.events import InferenceRecorded, RequestSubmitted, read_events
from oracle.chain.program.layout import decode_operator, decode_request
from oracle.chain.rpc.client import Client
from oracle.client.errors import OUTPUT_NOT_SERVED, REQUEST_NOT_FOUND
from oracle.core import receipts
from oracle.core.errors import OracleError
from oracle.core.request import Inline, Request, Status, Uri

MAX_OUTPUT_BYTES: Final = 16 * 1024 * 1024
SILENCE_SECONDS = 20.0
TOTAL_SECONDS = 120.0
"""For one output or receipt, so that an operator who sends a byte now and then keeps nobody waiting for ever."""

RECORDED: Final = "a result is recorded on chain"


@dataclass(frozen=True, slots=True)
class Recorded:
    """What the chain says of a result. `request` is None where the account is closed and only events remain."""

    address: Pubkey
    queue: Pubkey
    operator: Pubkey
    requester: Pubkey
    created_slot: int
    output_hash: bytes
    job_hash: bytes
    completed_at: int
    request: Request | None


@dataclass(frozen=True, slots=True)
class Check:
    """One statement, whether it holds, and what was found."""

    name: str
    ok: bool
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Verification:
    """The checks in the order they were made; `ok` only if every one of them holds."""

    address: Pubkey
    checks: tuple[Check, ...]
    output: bytes | None = None
    receipt: Mapping[str, Any] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        return bool(self.checks) and all(check.ok for check in self.checks)


async def verify(
    rpc: Client, program_id: Pubkey, address: Pubkey, *, base_uri: str | None = None, commitment: Commitment = Confirmed
) -> Verification:
    """Fetch, recompute, compare. `base_uri` replaces the operator's registered one.

    Raises ORC-CLIENT-001 where there is no such request; whatever else fails is a check that does not hold.
    """
    recorded = await read_recorded(rpc, program_id, address, commitment)
    if isinstance(recorded, Check):
        return Verification(address, (recorded,))
    checks = [Check(RECORDED, True, "account" if recorded.request else "event")]
    try:
        uri = base_uri or await operator_uri(rpc, program_id, recorded)
        async with httpx.AsyncClient(timeout=SILENCE_SECONDS, follow_redirects=False) as http:
            receipt_bytes = await fetch(http, f"{uri.rstrip('/')}/v1/receipts/{recorded.job_hash.hex()}")
            output = await fetch(http, f"{uri.rstrip('/')}/v1/outputs/{recorded.output_hash.hex()}")
    except OracleError as error:
        return Verification(address, (*checks, Check("output and receipt are served", False, str(error))))
    checks.append(Check("output and receipt are served", True, uri))
    checks += compare(program_id, recorded, output, receipt_bytes)
    try:
        fields = receipts.decode(receipt_bytes)
    except OracleError:
        fields = {}
    return Verification(address, tuple(checks), output, fields)


def compare(program_id: Pubkey, recorded: Recorded, output: bytes, receipt: bytes) -> list[Check]:
    """Every statement that follows from the bytes alone."""
    output_hash = hashlib.sha256(output).digest()
    checks = [
        Check("output has the hash on chain", output_hash == recorded.output_hash, output_hash.hex()),
        Check(
            "receipt has the hash on chain", receipts.job_hash(receipt) == recorded.job_hash, recorded.job_hash.hex()
        ),
    ]
    try:
        fields = receipts.decode(receipt)
    except OracleError as error:
        return [*checks, Check("receipt is valid", False, str(error))]
    checks.append(Check("receipt is valid", True))
    checks += [_same(name, fields[name], value) for name, value in _expected(program_id, recorded).items()]
    checks.append(
        Check("receipt and output agree: size", fields["output_bytes"] == len(output), f"{len(output)} bytes")
    )
    checks.append(_address_follows(program_id, recorded, fields))
    return checks


def _expected(program_id: Pubkey, recorded: Recorded) -> dict[str, object]:
    expected: dict[str, object] = {
        "program": str(program_id),
        "request": str(recorded.address),
        "created_slot": str(recorded.created_slot),
        "queue": str(recorded.queue),
        "operator": str(recorded.operator),
        "requester": str(recorded.requester),
        "output_hash": recorded.output_hash.hex(),
        "completed_at": recorded.completed_at,
    }
    if (request := recorded.request) is not None:
        params = request.body.params
        expected |= {
            "nonce": str(request.header.nonce),
            "body_hash": request.header.body_hash.hex(),
            "model_asked": request.body.model,
            "params": {
                "max_output_tokens": params.max_output_tokens,
                "temperature_milli": params.temperature_milli,
                "seed": str(params.seed),
                "flags": int(params.flags),
            },
        }
        match request.body.input:
            case Inline(content):
                expected["input_hash"] = hashlib.sha256(content).hexdigest()
            case Uri(_, sha256):
                expected["input_hash"] = sha256.hex()
    return expected


def _same(name: str, found: object, expected: object) -> Check:
    # As text: to Python `true` equals 1, and 1.0 too.
    said, right = json.dumps(found, sort_keys=True), json.dumps(expected, sort_keys=True)
    detail = said.strip('"') if said == right else f"receipt says {said}, chain says {right}"
    return Check(f"receipt and chain agree: {name.replace('_', ' ')}", said == right, detail)


def _address_follows(program_id: Pubkey, recorded: Recorded, fields: Mapping[str, Any]) -> Check:
    """The address commits to requester, nonce and body: a receipt about another question cannot have it."""
    name = "address follows from requester, nonce and body"
    try:
        derived = request_address(
            program_id,
            recorded.queue,
            Pubkey.from_string(fields["requester"]),
            int(fields["nonce"]),
            bytes.fromhex(fields["body_hash"]),
        )
    except (ValueError, OverflowError, OracleError):
        return Check(name, False, "the receipt's values cannot be read")
    return Check(name, derived == recorded.address, str(derived))


async def read_recorded(
    rpc: Client, program_id: Pubkey, address: Pubkey, commitment: Commitment = Confirmed
) -> Recorded | Check:
    """What the chain recorded; a failing `Check` where the request has no result. Raises ORC-CLIENT-001."""
    account = (await rpc.get_account(address, commitment)).value
    if account is None or not account.data or account.owner != program_id:
        return await read_from_events(rpc, program_id, address, commitment)
    request = decode_request(address, account.data)
    header = request.header
    if header.status is not Status.FULFILLED:
        return Check(RECORDED, False, f"the request is {header.status.name.lower()}")
    return Recorded(
        address,
        header.queue,
        header.operator,
        header.requester,
        header.created_slot,
        header.output_hash,
        header.job_hash,
        header.completed_at,
        request,
    )


async def read_from_events(
    rpc: Client, program_id: Pubkey, address: Pubkey, commitment: Commitment = Confirmed
) -> Recorded | Check:
    """What the program itself logged of the newest life of a closed request. Raises ORC-CLIENT-001.

    An address may have several lives, one after another. The answer of an earlier one is not that of the newest.
    """
    recorded: InferenceRecorded | None = None
    before = None
    while page := await rpc.get_signatures_for_address(address, commitment, before=before):
        for info in page:
            if info.failure is not None:
                continue
            transaction = await rpc.get_transaction(info.signature, commitment)
            if transaction is None or transaction.logs is None:
                # It may hold the beginning of a newer life, or its result: whatever follows would be a guess.
                return Check(RECORDED, False, f"the endpoint does not keep transaction {info.signature}")
            if transaction.failure is not None:
                continue
            for event in reversed(read_events(program_id, transaction.logs)):
                match event:
                    case InferenceRecorded(request=about) if about == address:
                        recorded = recorded or event
                    case RequestSubmitted(request=about) if about == address:
                        return _of_life(address, event, recorded)
        before = page[-1].signature
    if recorded is not None:
        return Check(RECORDED, False, "the endpoint's history does not reach back to the request's beginning")
    raise REQUEST_NOT_FOUND(str(address))


def _of_life(address: Pubkey, began: RequestSubmitted, recorded: InferenceRecorded | None) -> Recorded | Check:
    if recorded is None or recorded.created_slot != began.created_slot:
        return Check(RECORDED, False, f"the request of slot {began.created_slot} was closed without one")
    return Recorded(
        address,
        began.queue,
        recorded.operator,
        began.requester,
        recorded.created_slot,
        recorded.output_hash,
        recorded.job_hash,
        recorded.completed_at,
        None,
    )


async def operator_uri(rpc: Client, program_id: Pubkey, recorded: Recorded) -> str:
    """The base URI that the operator registered. Raises ORC-CLIENT-005 where it is registered no more."""
    address = operator_address(program_id, recorded.queue, recorded.operator)
    account = (await rpc.get_account(address)).value
    if account is None or account.owner != program_id:
        raise OUTPUT_NOT_SERVED(f"operator {recorded.operator} is no longer registered; give its URI with --uri")
    return decode_operator(account.data).uri


async def fetch(http: httpx.AsyncClient, url: str) -> bytes:
    """A body of at most 16 MiB. Raises ORC-CLIENT-005."""
    content = bytearray()
    try:
        _ = urlsplit(url).port  # httpx lets any number through, to an exception of its own kind
        async with asyncio.timeout(TOTAL_SECONDS), http.stream("GET", url) as response:
            if response.status_code != 200:
                raise OUTPUT_NOT_SERVED(f"{url}: status {response.status_code}")
            async for piece in response.aiter_bytes():
                content += piece
                if len(content) > MAX_OUTPUT_BYTES:
                    raise OUTPUT_NOT_SERVED(f"{url}: more than {MAX_OUTPUT_BYTES} bytes")
    except TimeoutError:
        raise OUTPUT_NOT_SERVED(f"{url}: not all of it in {TOTAL_SECONDS:.0f} s") from None
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
        raise OUTPUT_NOT_SERVED(f"{url}: {type(error).__name__}") from None
    return bytes(content)
