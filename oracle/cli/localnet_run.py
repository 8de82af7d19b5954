"""Runs the embedded chain for `oracle localnet`."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Mapping
from pathlib import Path

from solders.keypair import Keypair

from oracle.chain.program import idl
from oracle.chain.rpc.pool import connect
from oracle.cli.output import facts, print_json, say
from oracle.client.requests import read_queue
from oracle.core.errors import OracleError
from oracle.localnet import network
from oracle.localnet.chain import Chain
from oracle.localnet.emulators.nosana import genesis
from oracle.localnet.emulators.nosana.jobs_program import MICRO_NOS, nos_account
from oracle.localnet.server import Node

NOS = 1_000


async def run_localnet(directory: Path, port: int, slot_seconds: float, base_uri: str, json: bool) -> None:
    stopped = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    chain = directory / "chain"
    async with network.running(port=port, slot_seconds=slot_seconds, directory=chain) as node:
        wallet = network.wallet(directory / "wallet.json")
        await network.fund(node, wallet.pubkey())
        await node.call(genesis.place)
        await _grant_nos(node, wallet)
        queue = await _queue(node.rpc_url, wallet, base_uri)
        shown = {
            "rpc": node.rpc_url,
            "websocket": node.ws_url,
            "program": str(idl.program_id()),
            "queue": queue,
            "wallet": str(directory / "wallet.json"),
            "address": str(wallet.pubkey()),
        }
        if json:
            print_json(shown)
        else:
            facts("Localnet", shown)
            for line in _hints(shown):
                say(line)
        await stopped.wait()


async def _grant_nos(node: Node, wallet: Keypair) -> None:
    """What the wallet needs to buy from Nosana on chain; a wallet of a kept chain has it already."""

    def grant(chain: Chain) -> None:
        if chain.account(nos_account(wallet.pubkey())) is None:
            genesis.grant_nos(chain, wallet.pubkey(), NOS * MICRO_NOS)

    await node.call(grant)


def _hints(shown: Mapping[str, str]) -> tuple[str, ...]:
    """What to do next, ready to be copied."""
    at = f"-k {shown['wallet']} -u {shown['rpc']}"
    return (
        "",
        "The wallet has money, and is the queue's authority and its operator. Serve the queue, in another terminal:",
        f"  oracle config init {at} -q {shown['queue']} && oracle run",
        "and ask:",
        f'  oracle submit {at} -q {shown["queue"]} -m SmolLM2-135M-Instruct "What is the capital of Japan?"',
        "Ctrl-C stops.",
    )


async def _queue(rpc_url: str, wallet: Keypair, base_uri: str) -> str:
    """The wallet's queue; made where a kept chain does not have it yet."""
    rpc = connect(rpc_url)
    try:
        address = network.queue_of(idl.program_id(), wallet.pubkey())
        try:
            await read_queue(rpc, idl.program_id(), address)
        except OracleError:
            await network.create_queue(rpc, idl.program_id(), wallet, operator=wallet.pubkey(), uri=base_uri)
        return str(address)
    finally:
        await rpc.close()
