"""A chain in a process of its own for the benchmarks, with a queue and requests waiting on it.

    python benchmarks/chain_process.py DIRECTORY REQUESTS BASE_URI

Prints one line of JSON when it serves: where, the program, the queue, and a scripted OpenAI-compatible server. A line
`[COUNT, PER_SECOND]` on stdin has it submit so many more. Ends when its stdin closes.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import sys
import time
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
from oracle.localnet.emulators import server as emulators
from oracle.localnet.emulators.openai import ScriptedOpenAI
from oracle.localnet.server import Node

FEE_LAMPORTS = 100_000
TTL_SLOTS = 900_000


def submit_all(chain: Chain, queue: Pubkey, payer: Keypair, count: int, first_nonce: int = 0) -> list[str]:
    """Real submissions, executed on the chain; returns the addresses."""
    addresses = []
    for nonce in range(first_nonce, first_nonce + count):
        addresses.append(submit(chain, queue, payer, nonce))
        if nonce % 500 == 499:
            chain.advance(1)
    chain.advance(40)
    return addresses


def submit(chain: Chain, queue: Pubkey, payer: Keypair, nonce: int) -> str:
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
    return str(instruction.accounts[0].pubkey)


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
        async with emulators.serve(ScriptedOpenAI(models=("bench",))) as model:
            ready = {
                "rpc": node.rpc_url,
                "program": str(idl.program_id()),
                "queue": str(queue),
                "model": f"{model.url}/v1",
            }
            sys.stdout.write(json.dumps(ready) + "\n")
            sys.stdout.flush()
            while line := await asyncio.to_thread(sys.stdin.readline):
                more, per_second = json.loads(line)
                await submit_at_rate(node, queue, payer, more, per_second, first_nonce=count)
                count += more


async def submit_at_rate(
    node: Node, queue: Pubkey, payer: Keypair, count: int, per_second: float, *, first_nonce: int
) -> None:
    began = time.monotonic()
    for n in range(count):
        await asyncio.sleep(max(0.0, began + n / per_second - time.monotonic()))
        await node.call(lambda chain, n=n: submit(chain, queue, payer, first_nonce + n))  # type: ignore[misc]


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]))
