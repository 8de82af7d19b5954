"""A chain in a process of its own for the benchmarks, with a queue and requests waiting on it.

    python benchmarks/chain_process.py DIRECTORY REQUESTS BASE_URI

Prints one line of JSON when it serves: where, the program, the queue. Ends when its stdin closes.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import sys
from pathlib import Path

from solders.hash import Hash
from solders.keypair import Keypair
from solders.message import MessageV0
from solders.pubkey import Pubkey
from solders.transaction import VersionedTransaction

from oracle.chain.program import idl, instructions
from oracle.chain.rpc.pool import connect
from oracle.core.request import Body, Inline, Params
from oracle.localnet import network
from oracle.localnet.chain import Chain

FEE_LAMPORTS = 100_000
TTL_SLOTS = 900_000


def submit_all(chain: Chain, queue: Pubkey, payer: Keypair, count: int, first_nonce: int = 0) -> list[str]:
    """Real submissions, executed on the chain; returns the addresses."""
    addresses = []
    for nonce in range(first_nonce, first_nonce + count):
        body = Body("bench", Params(16), Inline(f"question {nonce}".encode()))
        instruction = instructions.submit_request(
            idl.program_id(),
            queue=queue,
            requester=payer.pubkey(),
            payer=payer.pubkey(),
            nonce=nonce,
            fee_lamports=FEE_LAMPORTS,
            ttl_slots=TTL_SLOTS,
            output_cap=0,
            body=body,
        )
        blockhash: Hash = chain.bank(0).blockhash
        message = MessageV0.try_compile(payer.pubkey(), [instruction], [], blockhash)
        chain.submit(VersionedTransaction(message, [payer]))
        addresses.append(str(instruction.accounts[0].pubkey))
        if nonce % 500 == 499:
            chain.advance(1)
    chain.advance(40)
    return addresses


async def main(directory: Path, count: int, base_uri: str) -> None:
    async with network.running(slot_seconds=0.4) as node:
        operator = network.wallet(directory / "operator.json")
        payer = Keypair.from_seed(hashlib.sha256(b"payer").digest())
        for key in (operator, payer):
            await network.fund(node, key.pubkey(), 10**13)
        rpc = connect(node.rpc_url)
        queue = await network.create_queue(rpc, idl.program_id(), operator, operator=operator.pubkey(), uri=base_uri)
        await rpc.close()
        addresses = await node.call(lambda chain: submit_all(chain, queue, payer, count))
        (directory / "addresses.json").write_text(json.dumps(addresses))
        ready = {"rpc": node.rpc_url, "program": str(idl.program_id()), "queue": str(queue)}
        sys.stdout.write(json.dumps(ready) + "\n")
        sys.stdout.flush()
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]))
