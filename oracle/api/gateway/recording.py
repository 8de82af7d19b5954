"""What it takes to have an answer recorded: a request whose address is known before anything is bought for it.

Everything that can be checked is checked before the purchase: the client may, the request can say all that is asked,
it fits a transaction, the queue takes it, the gateway's key can pay.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from solders.hash import Hash
from solders.instruction import Instruction
from solders.pubkey import Pubkey
from sqlalchemy import Connection

from oracle.api.gateway.errors import (
    QUEUE_UNSUITABLE,
    RECORDING_FORBIDDEN,
    RECORDING_IMPOSSIBLE,
    RECORDING_UNSUITABLE,
)
from oracle.api.gateway.keys import Client
from oracle.api.gateway.wire import ChatAsk
from oracle.chain.program import instructions
from oracle.chain.program.addresses import request_address
from oracle.chain.program.body import encode_body
from oracle.chain.program.errors import explain
from oracle.chain.program.layout import HEADER_LENGTH, Queue, decode_queue
from oracle.chain.signer import Signer
from oracle.core.compute import Output
from oracle.core.identity import nonce_of
from oracle.core.packing import TRANSACTION_BYTES
from oracle.core.request import Body, Flags, Inline, Params, Uri
from oracle.pipeline.context import Context
from oracle.pipeline.transactions import fee_lamports, message_of, unsigned
from oracle.store import recordings, results
from oracle.store.rows import GatewayJobRow, RecordingRow

UNIT_LIMIT: Final = 60_000
"""More than any request takes to be made (docs/reference/program.md)."""


@dataclass(frozen=True, slots=True)
class Recording:
    """A request to be. `content` is what is asked; the body holds it, or where it is served.

    `reserved_lamports` are its fee, its rent and the most that its transaction may cost.
    """

    address: str
    queue: str
    requester: str
    nonce: int
    body: Body
    content: bytes
    fee_lamports: int
    ttl_slots: int
    reserved_lamports: int


class Desk:
    """Where recordings are asked for: the gateway's own key and queue. `draw` gives a random nonce of 63 bits."""

    def __init__(self, context: Context, signer: Signer, draw: Callable[[], int]) -> None:
        """Raises ORC-GATEWAY-014 where the queue is not one that this daemon serves."""
        queue = context.config.gateway.queue or str(context.queues[0])
        if queue not in map(str, context.queues):
            raise QUEUE_UNSUITABLE(queue)
        self.signer = signer
        self.queue = Pubkey.from_string(queue)
        self._context = context
        self._draw = draw
        self._rents: dict[int, int] = {}

    async def prepare(self, client: Client, ask: ChatAsk, seed: int, idempotency_key: str | None) -> Recording:
        """Raises ORC-GATEWAY-011, 012 or 013, and the RPC's own errors: then nothing is bought."""
        if not client.settings.record:
            raise RECORDING_FORBIDDEN(client.name)
        context, settings = self._context, self._context.config.gateway
        body = self._body(ask, params_of(ask, seed))
        encoded = encode_body(body)
        nonce = self._draw() if idempotency_key is None else nonce_of(client.name, idempotency_key)
        requester = self.signer.public_key
        address = request_address(context.program_id, self.queue, requester, nonce, hashlib.sha256(encoded).digest())
        queue = await self._queue()
        fee = max(settings.record_fee_lamports, queue.terms.fee_floor_lamports)
        wanted_slots = context.slots.slots(settings.record_deadline_seconds)
        recording = Recording(
            address=str(address),
            queue=str(self.queue),
            requester=str(requester),
            nonce=nonce,
            body=body,
            content=ask.content,
            fee_lamports=fee,
            ttl_slots=min(max(wanted_slots, queue.terms.min_deadline_slots), queue.terms.max_deadline_slots),
            reserved_lamports=fee
            + await self._rent(HEADER_LENGTH + len(encoded))
            + fee_lamports(UNIT_LIMIT, context.config.settlement.max_priority_micro_lamports),
        )
        if await context.store.read(lambda c: recordings.find(c, recording.address)) is None:
            await self._rehearse(recording)
        return recording

    def _body(self, ask: ChatAsk, params: Params) -> Body:
        """The prompt stands in the request itself; a longer one is served by us, and the request has its hash."""
        inline = Body(ask.model, params, Inline(ask.content))
        excess = len(self._transaction(inline)) - TRANSACTION_BYTES
        if excess <= 0:
            return inline
        base_uri = self._context.config.operator.base_uri
        if not base_uri.startswith("https://"):
            raise RECORDING_UNSUITABLE(f"`messages` is {excess} bytes too long, and operator.base_uri is not https")
        sha256 = hashlib.sha256(ask.content)
        return Body(ask.model, params, Uri(f"{base_uri.rstrip('/')}/v1/inputs/{sha256.hexdigest()}", sha256.digest()))

    def _transaction(self, body: Body, nonce: int = 0, fee_lamports: int = 0, ttl_slots: int = 0) -> bytes:
        """Unsigned, for simulations, and to be measured: only the body decides how long it is."""
        key = self.signer.public_key
        step = submission(self._context.program_id, key, self.queue, body, nonce, fee_lamports, ttl_slots)
        return bytes(unsigned(message_of(key, [step], Hash.default(), unit_limit=UNIT_LIMIT, micro_lamports=0)))

    async def _queue(self) -> Queue:
        """The queue, where an answer that is put there can only be ours."""
        context = self._context
        read = await context.rpc.get_multiple_accounts([self.queue, context.operator_account(str(self.queue))])
        account, operator = read.value
        if account is None or operator is None:
            raise RECORDING_IMPOSSIBLE("the queue, or our place on it, is not there")
        queue = decode_queue(account.data)
        if queue.terms.claim_required or queue.operator_count != 1:
            # Another operator could answer first, and the address would hold another answer than the client has.
            raise RECORDING_IMPOSSIBLE("the queue requires claims, or has several operators")
        return queue

    async def _rent(self, size: int) -> int:
        if size not in self._rents:
            self._rents[size] = await self._context.rpc.get_minimum_balance_for_rent_exemption(size)
        return self._rents[size]

    async def _rehearse(self, recording: Recording) -> None:
        wire = self._transaction(recording.body, recording.nonce, recording.fee_lamports, recording.ttl_slots)
        simulation = await self._context.rpc.simulate_transaction(wire, replace_blockhash=True)
        if (failure := simulation.failure) is not None:
            raise RECORDING_IMPOSSIBLE(failure.kind if failure.custom is None else str(explain(failure.custom)))


def submission(
    program_id: Pubkey, key: Pubkey, queue: Pubkey, body: Body, nonce: int, fee_lamports: int, ttl_slots: int
) -> Instruction:
    """The instruction that makes the request: `key` asks, and pays."""
    return instructions.submit_request(
        program_id,
        queue=queue,
        requester=key,
        payer=key,
        nonce=nonce,
        fee_lamports=fee_lamports,
        ttl_slots=ttl_slots,
        output_cap=0,
        body=body,
    )


def params_of(ask: ChatAsk, seed: int) -> Params:
    """How it is asked, as a request on chain says it. Raises ORC-GATEWAY-012 where it has no words for it."""
    if ask.sampling:
        raise RECORDING_UNSUITABLE(f"`{next(iter(ask.sampling))}` has no place in a request")
    temperature_milli = round(ask.temperature * 1000)
    if temperature_milli / 1000 != ask.temperature:
        raise RECORDING_UNSUITABLE("`temperature` is kept in thousandths")
    return Params(ask.max_output_tokens, temperature_milli, seed, Flags.CHAT)


def keep(c: Connection, recording: Recording, call_id: str, job: GatewayJobRow, output: Output, *, now_ms: int) -> bool:
    """Commit the answer under the address of its request, before there is any; False where one was there first."""
    asked = recording.body.input
    if isinstance(asked, Uri):
        results.put_input(c, asked.sha256.hex(), recording.content, origin=asked.uri, now_ms=now_ms)
    return recordings.put(
        c,
        recording.address,
        call_id=call_id,
        queue=recording.queue,
        requester=recording.requester,
        nonce=recording.nonce,
        body=encode_body(recording.body),
        input_sha256=asked.sha256.hex() if isinstance(asked, Uri) else None,
        fee_lamports=recording.fee_lamports,
        ttl_slots=recording.ttl_slots,
        output=output.content,
        media_type=output.media_type,
        finish_reason=output.finish_reason,
        model_run=output.model_run,
        provider=job.provider,
        provider_job_id=job.job_id or job.idempotency_key,
        submitted_at=job.intended_at_ms // 1000,
        completed_at=now_ms // 1000,
        now_ms=now_ms,
    )


def again(row: RecordingRow) -> Output:
    """The answer that is kept, for a client that asks once more."""
    return Output(row.output, row.model_run, row.media_type, finish_reason=row.finish_reason)
