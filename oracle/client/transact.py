"""Signs and sends one transaction of a requester, and waits until it is confirmed."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from solders.compute_budget import set_compute_unit_limit, set_compute_unit_price
from solders.instruction import Instruction
from solders.keypair import Keypair
from solders.message import MessageV0
from solders.signature import Signature
from solders.transaction import VersionedTransaction

from oracle.chain.program.errors import explain
from oracle.chain.rpc.client import Client
from oracle.chain.rpc.types import TransactionFailure
from oracle.client.errors import TRANSACTION_LOST, TRANSACTION_REFUSED

POLL_SECONDS = 0.2
RESEND_EVERY = 5
"""Polls between two sends of the same bytes."""


async def transact(
    rpc: Client,
    instructions: Sequence[Instruction],
    signers: Sequence[Keypair],
    *,
    unit_limit: int = 60_000,
    micro_lamports: int = 0,
) -> Signature:
    """Returns once the transaction is confirmed; the first signer pays. Raises ORC-CLIENT-002 or 003."""
    blockhash = await rpc.get_latest_blockhash()
    budget = [set_compute_unit_limit(unit_limit), set_compute_unit_price(micro_lamports)]
    message = MessageV0.try_compile(signers[0].pubkey(), [*budget, *instructions], [], blockhash.blockhash)
    transaction = VersionedTransaction(message, list(signers))
    wire, signature = bytes(transaction), transaction.signatures[0]
    simulation = await rpc.simulate_transaction(wire, sig_verify=True, min_context_slot=blockhash.slot)
    if simulation.failure is not None:
        raise TRANSACTION_REFUSED(why(simulation.failure))
    polls = 0
    while True:
        if polls % RESEND_EVERY == 0:
            await rpc.send_transaction(wire)
        status = (await rpc.get_signature_statuses([signature])).value[0]
        if status is not None and status.commitment != "processed":
            if status.failure is not None:
                raise TRANSACTION_REFUSED(why(status.failure))
            return signature
        if status is None and await rpc.get_block_height() > blockhash.last_valid_block_height:
            raise TRANSACTION_LOST(str(signature))
        polls += 1
        await asyncio.sleep(POLL_SECONDS)


def why(failure: TransactionFailure) -> str:
    """The program's own words where it named the error."""
    return failure.kind if failure.custom is None else str(explain(failure.custom))
