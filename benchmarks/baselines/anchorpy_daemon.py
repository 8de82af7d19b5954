"""The baseline: a daemon as a competent user of anchorpy writes it, without durability, packing or recovery.

For each request: have the answer (at once, as in the benchmark), build `record_inference_result` with anchorpy's
coder, send it with solana-py, and wait until it is confirmed; `at_once` requests at a time.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from collections.abc import Sequence
from pathlib import Path

from anchorpy import Context, Idl, Program, Provider, Wallet
from solana.rpc.async_api import AsyncClient
from solana.rpc.commitment import Confirmed
from solana.rpc.types import TxOpts
from solders.keypair import Keypair
from solders.pubkey import Pubkey

from oracle.chain.program import idl
from oracle.chain.program.addresses import operator_address


async def run(rpc_url: str, queue: str, directory: Path, addresses: Sequence[str], at_once: int) -> float:
    """Seconds until every request is settled and confirmed."""
    operator = Keypair.from_json((directory / "operator.json").read_text())
    client = AsyncClient(rpc_url, commitment=Confirmed)
    provider = Provider(client, Wallet(operator), TxOpts(preflight_commitment=Confirmed))
    legacy = Idl.from_json(json.dumps(idl.to_legacy(idl.built_in())))
    program = Program(legacy, idl.program_id(), provider)
    account = operator_address(idl.program_id(), Pubkey.from_string(queue), operator.pubkey())
    gate = asyncio.Semaphore(at_once)

    async def settle(address: str) -> None:
        async with gate:
            output = f"answer to {address}".encode()
            signature = await program.rpc["record_inference_result"](
                hashlib.sha256(output).digest(),
                hashlib.sha256(b"job" + output).digest(),
                int(time.time()),
                ctx=Context(
                    accounts={
                        "request": Pubkey.from_string(address),
                        "operator_key": operator.pubkey(),
                        "operator": account,
                    }
                ),
            )
            await client.confirm_transaction(signature, Confirmed, sleep_seconds=0.2)

    began = time.perf_counter()
    await asyncio.gather(*(settle(address) for address in addresses))
    took = time.perf_counter() - began
    await client.close()
    return took
