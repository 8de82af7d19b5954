"""What the client relies on, asked of a chain that somebody else wrote. Run on the embedded chain and on Surfpool."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from solana.rpc.commitment import Confirmed, Finalized, Processed
from solders.hash import Hash
from solders.keypair import Keypair
from solders.message import MessageV0
from solders.pubkey import Pubkey
from solders.signature import Signature
from solders.system_program import ID as SYSTEM_PROGRAM
from solders.system_program import TransferParams, transfer
from solders.transaction import VersionedTransaction

from oracle.chain.rpc.client import Client
from oracle.chain.rpc.types import DataSlice, SignatureStatus

T = TypeVar("T")
SOL = 10**9


async def until(look: Callable[[], Awaitable[T | None]], seconds: float = 60.0) -> T:
    async with asyncio.timeout(seconds):
        while (found := await look()) is None:  # noqa: ASYNC110 - a chain has no event
            await asyncio.sleep(0.05)
    return found


async def funded(client: Client, lamports: int = 5 * SOL) -> Keypair:
    """A key pair that an airdrop has paid for, confirmed."""
    payer = Keypair()
    signature = await client.request_airdrop(payer.pubkey(), lamports)
    await landed(client, signature)
    return payer


async def landed(client: Client, signature: Signature, *commitments: str) -> SignatureStatus:
    wanted = commitments or (Confirmed, Finalized)

    async def look() -> SignatureStatus | None:
        (status,) = (await client.get_signature_statuses([signature])).value
        return status if status is not None and status.commitment in wanted else None

    return await until(look)


async def payment(client: Client, payer: Keypair, to: Pubkey, lamports: int) -> VersionedTransaction:
    blockhash = await client.get_latest_blockhash()
    instruction = transfer(TransferParams(from_pubkey=payer.pubkey(), to_pubkey=to, lamports=lamports))
    return VersionedTransaction(MessageV0.try_compile(payer.pubkey(), [instruction], [], blockhash.blockhash), [payer])


async def the_clock_of_the_chain_is_consistent(client: Client) -> None:
    genesis = await client.get_genesis_hash()
    assert genesis != Hash.default()
    assert (await client.get_version()).solana_core
    await client.get_health()
    finalized, confirmed, processed = [await client.get_slot(level) for level in (Finalized, Confirmed, Processed)]
    assert finalized <= confirmed <= processed
    epoch = await client.get_epoch_info(Confirmed)
    assert epoch.slot >= confirmed
    assert 0 <= epoch.block_height <= epoch.slot
    assert await client.get_block_height(Confirmed) >= epoch.block_height
    blockhash = await client.get_latest_blockhash(min_context_slot=confirmed)
    assert blockhash.slot >= confirmed
    assert blockhash.last_valid_block_height > epoch.block_height
    assert await client.get_first_available_block() <= await client.get_slot(Processed)
    await client.get_minimum_ledger_slot()
    for sample in await client.get_recent_performance_samples(5):
        assert sample.slots >= 0
    least, more = [await client.get_minimum_balance_for_rent_exemption(size) for size in (0, 1000)]
    assert 0 < least < more


async def a_payment_is_sent_followed_and_found_in_history(client: Client) -> None:
    payer, receiver = await funded(client), Pubkey.new_unique()
    transaction = await payment(client, payer, receiver, SOL)
    wire, signature = bytes(transaction), transaction.signatures[0]
    simulated = await client.simulate_transaction(wire, accounts=[receiver])
    assert simulated.failure is None
    assert simulated.units_consumed
    assert simulated.accounts[0] is not None
    assert simulated.accounts[0].lamports == SOL
    assert await client.send_transaction(wire) == signature
    status = await landed(client, signature)
    assert status.failure is None
    read = await client.get_account(receiver, min_context_slot=status.slot)
    assert read.slot >= status.slot
    assert read.value is not None
    assert (read.value.lamports, read.value.owner, read.value.data) == (SOL, SYSTEM_PROGRAM, b"")
    assert (await client.get_balance(receiver)).value == SOL
    record = await until(lambda: client.get_transaction(signature))
    assert (record.failure, record.fee_lamports) == (None, 5000)
    assert record.logs
    listed = await until(lambda: _listed(client, receiver))
    assert signature in listed
    for fee in await client.get_recent_prioritization_fees([payer.pubkey()]):
        assert fee.micro_lamports >= 0


async def many_accounts_and_absences_are_read_at_once(client: Client) -> None:
    payer = await funded(client)
    addresses = [Pubkey.new_unique() for _ in range(130)] + [payer.pubkey()]
    read = await client.get_multiple_accounts(addresses, data_slice=DataSlice(0, 8))
    assert [account is None for account in read.value] == [True] * 130 + [False]


async def a_failure_names_the_instruction_and_the_code(client: Client) -> None:
    payer, poor = await funded(client), Keypair()
    blockhash = await client.get_latest_blockhash()
    instructions = [
        transfer(TransferParams(from_pubkey=payer.pubkey(), to_pubkey=poor.pubkey(), lamports=890_880)),
        transfer(TransferParams(from_pubkey=poor.pubkey(), to_pubkey=payer.pubkey(), lamports=SOL)),
    ]
    message = MessageV0.try_compile(payer.pubkey(), instructions, [], blockhash.blockhash)
    transaction = VersionedTransaction(message, [payer, poor])
    simulated = await client.simulate_transaction(bytes(transaction), sig_verify=True)
    assert simulated.failure is not None
    assert (simulated.failure.kind, simulated.failure.instruction, simulated.failure.custom) == ("Custom", 1, 1)
    await client.send_transaction(bytes(transaction))
    status = await landed(client, transaction.signatures[0])
    assert status.failure is not None
    assert (status.failure.instruction, status.failure.custom) == (1, 1)


async def the_proof_of_absence_has_every_part(client: Client) -> None:
    payer = await funded(client)
    sent = await payment(client, payer, Pubkey.new_unique(), SOL)
    await client.send_transaction(bytes(sent))
    await landed(client, sent.signatures[0], Finalized)
    never_sent = await payment(client, payer, Pubkey.new_unique(), SOL)
    history = await client.get_signature_history([sent.signatures[0], never_sent.signatures[0]])
    there, absent = history.statuses
    assert there is not None
    assert there.commitment == Finalized
    assert absent is None
    assert history.finalized_block_height <= history.finalized_slot
    assert history.first_available_slot <= there.slot <= history.finalized_slot


async def _listed(client: Client, address: Pubkey) -> list[Signature] | None:
    return [info.signature for info in await client.get_signatures_for_address(address, limit=10)] or None


CONTRACT = [
    the_clock_of_the_chain_is_consistent,
    a_payment_is_sent_followed_and_found_in_history,
    many_accounts_and_absences_are_read_at_once,
    a_failure_names_the_instruction_and_the_code,
    the_proof_of_absence_has_every_part,
]
