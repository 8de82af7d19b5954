"""`oracle queue create | show | add-operator | remove-operator | pause | resume`: set up where requests are made."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from solders.keypair import Keypair
from solders.pubkey import Pubkey

from oracle.chain.program import instructions
from oracle.chain.program.addresses import operator_address, queue_address
from oracle.chain.program.layout import QueueTerms
from oracle.chain.rpc.client import Client
from oracle.cli import options
from oracle.cli.asking import slots_of
from oracle.cli.options import KEYPAIR, LOCALNET, KeypairOption, ProgramOption, UrlOption
from oracle.cli.output import JsonOption, facts, print_json
from oracle.client.requests import read_queue
from oracle.client.transact import transact

app = typer.Typer(help="Queues: where requests are made, and who may answer them.", no_args_is_help=True)
Work = Callable[[Client, Pubkey, Keypair], Awaitable[dict[str, Any]]]
QueueArgument = Annotated[str, typer.Argument(help="Address of the queue.")]


@app.command("create")
def create(
    name: Annotated[
        str, typer.Argument(help="1 to 32 printable ASCII characters; with your key it makes the address.")
    ],
    operator: Annotated[str | None, typer.Option(help="Operator's address; by default your own.")] = None,
    uri: Annotated[str, typer.Option(help="Base URI of the operator's outputs.")] = "http://127.0.0.1:8787",
    fee_floor: Annotated[int, typer.Option(help="Least fee, in lamports.", min=0)] = 10_000,
    min_deadline: Annotated[float, typer.Option(help="Shortest time to live, in seconds.", min=1)] = 10.0,
    max_deadline: Annotated[float, typer.Option(help="Longest time to live, in seconds.", min=1)] = 86_400.0,
    lease: Annotated[float, typer.Option(help="How long a claim protects its operator, in seconds.", min=1)] = 120.0,
    retention: Annotated[
        float, typer.Option(help="How long an ended request stays before anyone may close it, in seconds.", min=0)
    ] = 86_400.0,
    max_body: Annotated[int, typer.Option(help="Largest request body, in bytes.", min=1)] = 8_192,
    max_output: Annotated[int, typer.Option(help="Most room for an inline output, in bytes.", min=0)] = 1_024,
    claims: Annotated[bool, typer.Option(help="Require claims, as several operators need.")] = False,
    url: UrlOption = LOCALNET,
    keypair: KeypairOption = KEYPAIR,
    program: ProgramOption = None,
    json: JsonOption = False,
) -> None:
    """Create a queue and register its first operator. Times become slots at the cluster's measured slot time."""

    async def work(rpc: Client, program_id: Pubkey, authority: Keypair) -> dict[str, Any]:
        terms = QueueTerms(
            fee_floor_lamports=fee_floor,
            min_deadline_slots=await slots_of(rpc, min_deadline),
            max_deadline_slots=await slots_of(rpc, max_deadline),
            lease_slots=await slots_of(rpc, lease),
            retention_slots=await slots_of(rpc, retention),
            max_body_len=max_body,
            max_output_cap=max_output,
            claim_required=claims,
        )
        key = authority.pubkey() if operator is None else options.address(operator, "--operator")
        queue = queue_address(program_id, authority.pubkey(), name)
        made = instructions.create_queue(program_id, authority=authority.pubkey(), name=name, terms=terms)
        added = instructions.add_operator(
            program_id, queue=queue, authority=authority.pubkey(), operator_key=key, uri=uri
        )
        signature = await transact(rpc, [made, added], [authority])
        return {"queue": str(queue), "name": name, "operator": str(key), "uri": uri, "signature": str(signature)}

    _done("Queue created", _run(work, url, keypair, program), json)


@app.command("add-operator")
def add_operator(
    queue: QueueArgument,
    operator: Annotated[str, typer.Argument(help="Address of the operator's key.")],
    uri: Annotated[str, typer.Option(help="Base URI of the operator's outputs.")],
    url: UrlOption = LOCALNET,
    keypair: KeypairOption = KEYPAIR,
    program: ProgramOption = None,
    json: JsonOption = False,
) -> None:
    """Register an operator. A second one needs a queue that requires claims."""

    async def work(rpc: Client, program_id: Pubkey, authority: Keypair) -> dict[str, Any]:
        instruction = instructions.add_operator(
            program_id,
            queue=options.address(queue, "QUEUE"),
            authority=authority.pubkey(),
            operator_key=options.address(operator, "OPERATOR"),
            uri=uri,
        )
        return {"operator": operator, "signature": str(await transact(rpc, [instruction], [authority]))}

    _done("Operator added", _run(work, url, keypair, program), json)


@app.command("remove-operator")
def remove_operator(
    queue: QueueArgument,
    operator: Annotated[str, typer.Argument(help="Address of the operator's key.")],
    url: UrlOption = LOCALNET,
    keypair: KeypairOption = KEYPAIR,
    program: ProgramOption = None,
    json: JsonOption = False,
) -> None:
    """Remove an operator: from then on it can neither claim nor settle."""

    async def work(rpc: Client, program_id: Pubkey, authority: Keypair) -> dict[str, Any]:
        address = options.address(queue, "QUEUE")
        instruction = instructions.remove_operator(
            program_id,
            operator=operator_address(program_id, address, options.address(operator, "OPERATOR")),
            queue=address,
            authority=authority.pubkey(),
        )
        return {"operator": operator, "signature": str(await transact(rpc, [instruction], [authority]))}

    _done("Operator removed", _run(work, url, keypair, program), json)


@app.command("pause")
def pause(
    queue: QueueArgument,
    url: UrlOption = LOCALNET,
    keypair: KeypairOption = KEYPAIR,
    program: ProgramOption = None,
    json: JsonOption = False,
) -> None:
    """Take no more requests. Those that are open are answered, expired and closed as ever."""
    _done("Queue paused", _run(_pausing(queue, True), url, keypair, program), json)


@app.command("resume")
def resume(
    queue: QueueArgument,
    url: UrlOption = LOCALNET,
    keypair: KeypairOption = KEYPAIR,
    program: ProgramOption = None,
    json: JsonOption = False,
) -> None:
    """Take requests again."""
    _done("Queue resumed", _run(_pausing(queue, False), url, keypair, program), json)


def _pausing(queue: str, paused: bool) -> Work:
    async def work(rpc: Client, program_id: Pubkey, authority: Keypair) -> dict[str, Any]:
        address = options.address(queue, "QUEUE")
        instruction = instructions.update_queue(
            program_id,
            queue=address,
            authority=authority.pubkey(),
            terms=(await read_queue(rpc, program_id, address)).terms,
            paused=paused,
        )
        return {"queue": queue, "signature": str(await transact(rpc, [instruction], [authority]))}

    return work


@app.command("show")
def show(
    queue: QueueArgument, url: UrlOption = LOCALNET, program: ProgramOption = None, json: JsonOption = False
) -> None:
    """Show a queue's terms."""

    async def work() -> dict[str, Any]:
        async with options.cluster(url) as rpc:
            found = await read_queue(rpc, options.program(program), options.address(queue, "QUEUE"))
        terms = {name: getattr(found.terms, name) for name in QueueTerms.__slots__}
        return {
            "name": found.name,
            "authority": str(found.authority),
            "operators": found.operator_count,
            "paused": found.paused,
            **terms,
        }

    _done(f"Queue {queue}", asyncio.run(work()), json)


def _run(work: Work, url: str, keypair: Path, program: str | None) -> dict[str, Any]:
    async def run() -> dict[str, Any]:
        async with options.cluster(url) as rpc:
            return await work(rpc, options.program(program), options.keypair(keypair))

    return asyncio.run(run())


def _done(title: str, values: dict[str, Any], json: bool) -> None:
    if json:
        print_json(values)
    else:
        facts(title, values)
