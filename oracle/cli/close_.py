"""`oracle close`: take back what an ended request still holds."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

import typer
from solders.keypair import Keypair
from solders.pubkey import Pubkey

from oracle.chain.rpc.client import Client
from oracle.cli import options
from oracle.cli.errors import REQUEST_OPEN
from oracle.cli.options import KEYPAIR, LOCALNET, KeypairOption, ProgramOption, UrlOption
from oracle.cli.output import JsonOption, facts, lamports, print_json
from oracle.client import requests
from oracle.core.request import Request


def close(
    request: Annotated[str, typer.Argument(help="Address of the request.")],
    url: UrlOption = LOCALNET,
    keypair: KeypairOption = KEYPAIR,
    program: ProgramOption = None,
    json: JsonOption = False,
) -> None:
    """Take back the rent of an ended request, and the fee where no result came.

    A request that nobody answered by its deadline is expired first. The keypair is the one that paid for the request.
    """
    address = options.address(request, "REQUEST")
    done = asyncio.run(_close(url, options.program(program), address, options.keypair(keypair)))
    if json:
        print_json(done)
    else:
        facts("Closed", {**done, "returned": lamports(done["returned"])})


async def _close(url: str, program_id: Pubkey, address: Pubkey, payer: Keypair) -> dict[str, Any]:
    async with options.cluster(url) as rpc:
        ended = await ended_or_expired(rpc, program_id, await requests.read(rpc, address), payer)
        held = await rpc.get_balance(address)
        signature = await requests.close(rpc, program_id, ended, payer)
    return {
        "request": str(address),
        "status": ended.header.status.name.lower(),
        "returned": held.value,
        "signature": str(signature),
    }


async def ended_or_expired(rpc: Client, program_id: Pubkey, request: Request, payer: Keypair) -> Request:
    """The request, ended: by us where its deadline has passed. Raises ORC-CLI-005 where it may yet be answered."""
    if not request.header.status.is_open:
        return request
    if (slot := await rpc.get_slot()) <= request.header.deadline_slot:
        raise REQUEST_OPEN(f"slot {slot}, deadline {request.header.deadline_slot}")
    await requests.expire(rpc, program_id, request.address, payer)
    return await requests.read(rpc, request.address)
