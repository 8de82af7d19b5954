"""A local network to work against: the embedded chain with the program on it, and wallets with money."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from solders.keypair import Keypair
from solders.pubkey import Pubkey

from oracle import resources
from oracle.chain.program import idl, instructions
from oracle.chain.program.addresses import queue_address
from oracle.chain.program.layout import QueueTerms
from oracle.chain.rpc.client import Client
from oracle.client.transact import transact
from oracle.localnet.chain import Chain, Config
from oracle.localnet.server import Node, serve

SEED = b"inference oracle localnet"
QUEUE_NAME = "localnet"

LOCAL_TERMS = QueueTerms(
    fee_floor_lamports=5_000,
    min_deadline_slots=5,
    max_deadline_slots=1_000_000,
    lease_slots=300,
    retention_slots=1_000,
    max_body_len=8_192,
    max_output_cap=1_024,
    claim_required=False,
)
"""Terms that suit tests and a demo: short deadlines, a low floor, one operator."""


@asynccontextmanager
async def running(
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    slot_seconds: float | None = 0.4,
    directory: Path | None = None,
    seed: bytes = SEED,
    config: Config | None = None,
) -> AsyncIterator[Node]:
    """The chain, served, with the built-in program at its address. Kept in `directory` where one is given."""
    chain = Chain(seed=seed, now=time.time, config=config, directory=directory)
    try:
        async with serve(chain, host, port, slot_seconds=slot_seconds) as node:
            elf = resources.bytecode().read_bytes()
            await node.call(lambda chain: chain.load_program(idl.program_id(), elf))
            yield node
    finally:
        chain.close()


async def fund(node: Node, address: Pubkey, lamports: int = 100_000_000_000) -> None:
    """Give an account lamports out of nothing, as a genesis would."""
    await node.call(lambda chain: chain.fund(address, lamports))


def queue_of(program_id: Pubkey, authority: Pubkey, name: str = QUEUE_NAME) -> Pubkey:
    return queue_address(program_id, authority, name)


async def create_queue(
    rpc: Client,
    program_id: Pubkey,
    authority: Keypair,
    *,
    name: str = QUEUE_NAME,
    operator: Pubkey,
    uri: str,
    terms: QueueTerms = LOCAL_TERMS,
) -> Pubkey:
    """A queue with one operator, in one transaction."""
    queue = queue_address(program_id, authority.pubkey(), name)
    made = instructions.create_queue(program_id, authority=authority.pubkey(), name=name, terms=terms)
    added = instructions.add_operator(
        program_id, queue=queue, authority=authority.pubkey(), operator_key=operator, uri=uri
    )
    await transact(rpc, [made, added], [authority])
    return queue


def wallet(path: Path) -> Keypair:
    """The keypair in a file of the Solana CLI's format; where there is none a new one is written, private."""
    if path.exists():
        return Keypair.from_json(path.read_text())
    keypair = Keypair()
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(keypair.to_json())
    return keypair
