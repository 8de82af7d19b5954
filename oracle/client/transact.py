"""Signs and sends one transaction of a requester, and waits until it is confirmed."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

from solders.compute_budget import set_compute_unit_limit, set_compute_unit_price
from solders.instruction import Instruction
from solders.keypair import Keypair
from solders.message import MessageV0
from solders.signature import Signature
from solders.transaction import VersionedTransaction

from oracle.chain.program.errors import explain
from oracle.chain.rpc.client import Client
from oracle.chain.rpc.types import SignatureStatus, TransactionFailure
from oracle.client.errors import TRANSACTION_LOST, TRANSACTION_REFUSED, TRANSACTION_TOO_LARGE, TRANSACTION_UNKNOWN
from oracle.core.errors import OracleError, Verdict

POLL_SECONDS: Final = 0.2
RESEND_EVERY: Final = 5
"""Polls between two sends of the same bytes."""

MAX_WIRE_BYTES: Final = 1_232
"""`PACKET_DATA_SIZE` of solana-sdk: what fits an IPv6 packet of 1,280 bytes."""


async def transact(
    rpc: Client,
    instructions: Sequence[Instruction],
    signers: Sequence[Keypair],
    *,
    unit_limit: int = 60_000,
    micro_lamports: int = 0,
) -> Signature:
    """Returns once the transaction is confirmed; the first signer pays.

    Raises ORC-CLIENT-002, 003, 007 or 008. After 003 it is proven that nothing happened, after 008 nobody knows.
    """
    # solders panics on what no transaction could hold: the sizes are compared before.
    if (size := sum(len(instruction.data) for instruction in instructions)) > MAX_WIRE_BYTES:
        raise TRANSACTION_TOO_LARGE(f"{size:,} bytes of data alone, at most {MAX_WIRE_BYTES:,}")
    blockhash = await rpc.get_latest_blockhash()
    budget = [set_compute_unit_limit(unit_limit), set_compute_unit_price(micro_lamports)]
    message = MessageV0.try_compile(signers[0].pubkey(), [*budget, *instructions], [], blockhash.blockhash)
    transaction = VersionedTransaction(message, list(signers))
    wire, signature = bytes(transaction), transaction.signatures[0]
    if len(wire) > MAX_WIRE_BYTES:
        raise TRANSACTION_TOO_LARGE(f"{len(wire):,} bytes, at most {MAX_WIRE_BYTES:,}")
    simulation = await rpc.simulate_transaction(wire, sig_verify=True, min_context_slot=blockhash.slot)
    if simulation.failure is not None:
        raise TRANSACTION_REFUSED(why(simulation.failure))
    await _send(rpc, wire, is_first=True)
    try:
        return await _confirmed(rpc, wire, signature, blockhash.last_valid_block_height)
    except OracleError as error:
        if error.error in (TRANSACTION_REFUSED, TRANSACTION_LOST):
            raise
        # It is on its way, whatever keeps us from seeing it arrive.
        raise TRANSACTION_UNKNOWN(f"{signature}: {error}") from None


async def _confirmed(rpc: Client, wire: bytes, signature: Signature, last_valid_block_height: int) -> Signature:
    polls = 0
    while True:
        polls += 1
        await asyncio.sleep(POLL_SECONDS)
        status = (await rpc.get_signature_statuses([signature])).value[0]
        if status is None and await rpc.get_block_height() > last_valid_block_height:
            status = await _found_after_all(rpc, signature, last_valid_block_height)
        if status is not None and status.commitment != "processed":
            if status.failure is not None:
                raise TRANSACTION_REFUSED(why(status.failure))
            return signature
        if polls % RESEND_EVERY == 0:
            await _send(rpc, wire, is_first=False)


async def _found_after_all(rpc: Client, signature: Signature, last_valid_block_height: int) -> SignatureStatus | None:
    """One absent status proves nothing. Raises ORC-CLIENT-003 where one endpoint, in one exchange, proves that the
    transaction is not in the chain and can no longer get there; until then it may still be found."""
    history = await rpc.get_signature_history([signature])
    status = history.statuses[0]
    if status is None and history.finalized_block_height > last_valid_block_height:
        raise TRANSACTION_LOST(str(signature))
    return status


async def _send(rpc: Client, wire: bytes, *, is_first: bool) -> None:
    try:
        await rpc.send_transaction(wire)
    except OracleError as error:
        # Only a first send that was refused for good proves that nothing is on its way.
        if is_first and error.verdict is Verdict.GIVE_UP:
            raise


def why(failure: TransactionFailure) -> str:
    """The program's own words where it named the error."""
    return failure.kind if failure.custom is None else str(explain(failure.custom))
