"""Submit a request, follow it, and take back what it holds when it has ended."""

from __future__ import annotations

import asyncio
import hashlib
import secrets
import time
from dataclasses import dataclass
from typing import Final

from solana.rpc.commitment import Commitment, Confirmed
from solders.keypair import Keypair
from solders.pubkey import Pubkey
from solders.signature import Signature

from oracle.chain.program import instructions
from oracle.chain.program.addresses import request_address
from oracle.chain.program.body import encode_body
from oracle.chain.program.layout import Queue, decode_queue, decode_request
from oracle.chain.rpc.client import Client
from oracle.client.errors import QUEUE_NOT_FOUND, REQUEST_NOT_FOUND, WAIT_TOO_LONG
from oracle.client.transact import transact
from oracle.core.errors import OracleError, Verdict
from oracle.core.request import Body, Request

POLL_SECONDS: Final = 0.4
ABSENT_SECONDS: Final = 10.0


@dataclass(frozen=True, slots=True)
class Submitted:
    """A request that is on chain, and the transaction that put it there."""

    address: Pubkey
    nonce: int
    signature: Signature


async def submit(
    rpc: Client,
    program_id: Pubkey,
    *,
    queue: Pubkey,
    requester: Keypair,
    body: Body,
    fee_lamports: int,
    ttl_slots: int,
    output_cap: int = 0,
    nonce: int | None = None,
    micro_lamports: int = 0,
) -> Submitted:
    """Create the request and wait until it is confirmed. The requester pays and gets every refund.

    A nonce is drawn if none is given; the same nonce and body again name the same request.

    Raises ORC-CLIENT-002 or 003.
    """
    nonce = draw_nonce() if nonce is None else nonce
    address = address_of(program_id, queue, requester.pubkey(), nonce, body)
    instruction = instructions.submit_request(
        program_id,
        queue=queue,
        requester=requester.pubkey(),
        payer=requester.pubkey(),
        nonce=nonce,
        fee_lamports=fee_lamports,
        ttl_slots=ttl_slots,
        output_cap=output_cap,
        body=body,
    )
    return Submitted(address, nonce, await transact(rpc, [instruction], [requester], micro_lamports=micro_lamports))


def draw_nonce() -> int:
    return secrets.randbits(64)


def address_of(program_id: Pubkey, queue: Pubkey, requester: Pubkey, nonce: int, body: Body) -> Pubkey:
    """Where the request will be: known before it is sent, so that it is found whatever becomes of the sending."""
    return request_address(program_id, queue, requester, nonce, hashlib.sha256(encode_body(body)).digest())


async def read(rpc: Client, address: Pubkey, commitment: Commitment = Confirmed) -> Request:
    """The request as the chain holds it. Raises ORC-CLIENT-001."""
    account = (await rpc.get_account(address, commitment)).value
    if account is None or not account.data:
        raise REQUEST_NOT_FOUND(str(address))
    return decode_request(address, account.data)


async def read_queue(rpc: Client, program_id: Pubkey, address: Pubkey) -> Queue:
    """The queue at an address. Raises ORC-CLIENT-004."""
    account = (await rpc.get_account(address)).value
    if account is None or account.owner != program_id:
        raise QUEUE_NOT_FOUND(str(address))
    return decode_queue(account.data)


async def wait(rpc: Client, address: Pubkey, *, timeout_seconds: float, overdue_slots: int | None = None) -> Request:
    """The request once it has ended, by whatever end. Raises ORC-CLIENT-001 or 006.

    With `overdue_slots` also once it is so many slots past its deadline and still open: nobody is going to answer.
    """
    now = time.monotonic()
    until, absent_since = now + timeout_seconds, None
    while True:
        try:
            found = await rpc.get_account(address)
        except OracleError as error:
            if error.verdict is Verdict.GIVE_UP or time.monotonic() > until:
                raise
        else:
            if found.value is not None and found.value.data:
                absent_since = None
                request = decode_request(address, found.value.data)
                header = request.header
                is_overdue = overdue_slots is not None and found.slot > header.deadline_slot + overdue_slots
                if not header.status.is_open or is_overdue:
                    return request
            else:
                # Absence in one read proves nothing: behind an address stand nodes of which some are late.
                absent_since = absent_since or time.monotonic()
                if time.monotonic() - absent_since > ABSENT_SECONDS:
                    raise REQUEST_NOT_FOUND(str(address))
        if time.monotonic() > until:
            raise WAIT_TOO_LONG(f"{address} after {timeout_seconds:.0f} s")
        await asyncio.sleep(POLL_SECONDS)


async def close(rpc: Client, program_id: Pubkey, request: Request, refund_to: Keypair) -> Signature:
    """Take back rent, and the fee where no result came. Only after the end, and not in the slot of creation."""
    instruction = instructions.close_request(
        program_id, request=request.address, refund_to=refund_to.pubkey(), closer=refund_to.pubkey()
    )
    return await transact(rpc, [instruction], [refund_to])


async def expire(rpc: Client, program_id: Pubkey, address: Pubkey, payer: Keypair) -> Signature:
    """End a request that nobody answered by its deadline, which frees its fee. Anyone may."""
    return await transact(rpc, [instructions.expire_request(program_id, request=address)], [payer])


async def cancel(rpc: Client, program_id: Pubkey, address: Pubkey, requester: Keypair) -> Signature:
    """Withdraw a request from a queue with claims, while nobody holds a lease on it."""
    instruction = instructions.cancel_request(program_id, request=address, requester=requester.pubkey())
    return await transact(rpc, [instruction], [requester])
