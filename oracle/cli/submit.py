"""`oracle submit`: ask a question on chain, wait for the answer, check it, and take back what is left."""

from __future__ import annotations

import asyncio
import hashlib
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.status import Status as Spinner
from solana.rpc.commitment import Confirmed

from oracle.chain.clock import SlotClock
from oracle.chain.rpc.client import Client
from oracle.cli import options
from oracle.cli.options import KEYPAIR, LOCALNET, KeypairOption, ProgramOption, UrlOption
from oracle.cli.output import JsonOption, console, facts, lamports, print_json, stderr
from oracle.client import requests
from oracle.client.verify import Verification, verify
from oracle.core import dataquery
from oracle.core.request import Body, Data, Flags, Inline, Input, Params, Reason, Request, Status, Uri


def submit(
    queue: Annotated[str, typer.Option("--queue", "-q", envvar="ORACLE_QUEUE", help="Address of the queue.")],
    model: Annotated[str, typer.Option("--model", "-m", help="Model to ask.")],
    prompt: Annotated[str | None, typer.Argument(help="The prompt; - reads it from stdin.")] = None,
    uri: Annotated[str | None, typer.Option(help="https URI of the input, instead of a prompt.")] = None,
    uri_sha256: Annotated[str | None, typer.Option(help="SHA-256 of what the URI serves, in hex.")] = None,
    data: Annotated[
        str | None, typer.Option(help="data:// query as input; a prompt is then the question about it.")
    ] = None,
    fee: Annotated[int, typer.Option(help="Fee in lamports, held in escrow.", min=0)] = 50_000,
    deadline: Annotated[float, typer.Option(help="Seconds until the request may expire.", min=1)] = 120.0,
    max_tokens: Annotated[int, typer.Option(help="Most output tokens.", min=1)] = 256,
    temperature: Annotated[float, typer.Option(min=0, max=2)] = 0.0,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    private: Annotated[bool, typer.Option("--private", help="Never to a network that publishes prompts.")] = False,
    any_model: Annotated[bool, typer.Option("--any-model", help="Allow another model to answer.")] = False,
    chat: Annotated[bool, typer.Option("--chat", help="The input is a JSON array of chat messages.")] = False,
    wait: Annotated[bool, typer.Option(help="Wait for the answer.")] = True,
    close: Annotated[bool, typer.Option(help="Take rent and unearned fee back when it has ended.")] = True,
    url: UrlOption = LOCALNET,
    keypair: KeypairOption = KEYPAIR,
    program: ProgramOption = None,
    json: JsonOption = False,
) -> None:
    """Submit a request, wait for its answer and verify it. Exit status 0 only for a verified answer."""
    flags = (Flags.PRIVATE * private) | (Flags.ANY_MODEL * any_model) | (Flags.CHAT * chat)
    body = Body(
        model,
        Params(max_tokens, round(temperature * 1000), seed, Flags(flags)),
        _input(prompt, uri, uri_sha256, data),
    )
    asyncio.run(
        _submit(
            options.address(queue, "--queue"),
            body,
            fee,
            deadline,
            wait=wait,
            close=close,
            url=url,
            keypair=keypair,
            program=program,
            json=json,
        )
    )


def _input(prompt: str | None, uri: str | None, uri_sha256: str | None, data: str | None) -> Input:
    if prompt is None and uri is None and data is None:
        raise typer.BadParameter("give a prompt, --uri or --data")
    if uri is not None and (prompt is not None or data is not None):
        raise typer.BadParameter("--uri stands for the whole input")
    if uri is not None:
        try:
            digest = bytes.fromhex(uri_sha256 or "")
        except ValueError:
            digest = b""
        if len(digest) != 32:
            raise typer.BadParameter("give the SHA-256 of the content in 64 hex digits", param_hint="--uri-sha256")
        return Uri(uri, digest)
    text = sys.stdin.read() if prompt == "-" else prompt
    if data is not None:
        # Read here already: an operator declines what it cannot read, and nothing tells its requester why.
        query = data if text is None else dataquery.with_question(data, text.strip())
        dataquery.parse(query)
        return Data(query, hashlib.sha256(query.encode()).digest())
    assert text is not None
    return Inline(text.encode())


async def _submit(
    queue: Any,
    body: Body,
    fee_lamports: int,
    deadline_seconds: float,
    *,
    wait: bool,
    close: bool,
    url: str,
    keypair: Path,
    program: str | None,
    json: bool,
) -> None:
    program_id, signer = options.program(program), options.keypair(keypair)
    async with options.cluster(url) as rpc:
        terms = (await requests.read_queue(rpc, program_id, queue)).terms
        ttl_slots = await slots_of(rpc, deadline_seconds)
        ttl_slots = min(max(ttl_slots, terms.min_deadline_slots), terms.max_deadline_slots)
        submitted = await requests.submit(
            rpc,
            program_id,
            queue=queue,
            requester=signer,
            body=body,
            fee_lamports=fee_lamports,
            ttl_slots=ttl_slots,
        )
        if not json:
            stderr.print(f"Request [bold]{submitted.address}[/bold], fee {lamports(fee_lamports)}, {ttl_slots} slots")
        if not wait:
            if json:
                print_json({"request": str(submitted.address), "signature": str(submitted.signature)})
            return
        with Spinner("waiting for the answer", console=stderr):
            ended = await requests.wait(rpc, submitted.address, timeout_seconds=deadline_seconds * 2 + 60)
        result = await _result(rpc, program_id, ended)
        if close:
            await requests.close(rpc, program_id, ended, signer)
    show(ended, result, json)
    if result is None or not result.ok:
        raise typer.Exit(1)


async def slots_of(rpc: Client, seconds: float) -> int:
    """Seconds in slots, by the slot time that the cluster has lately kept."""
    clock = SlotClock()
    clock.seed(await rpc.get_recent_performance_samples())
    return clock.slots(seconds)


async def _result(rpc: Client, program_id: Any, ended: Request) -> Verification | None:
    if ended.header.status is not Status.FULFILLED:
        return None
    # The operator serves an output once it has seen the settlement confirmed, which may be a moment after us.
    for _ in range(20):
        result = await verify(rpc, program_id, ended.address, commitment=Confirmed)
        if result.output is not None:
            return result
        await asyncio.sleep(0.5)
    return result


def show(ended: Request, result: Verification | None, json: bool) -> None:
    header = ended.header
    reason = Reason(header.reason).name.lower() if header.reason in set(Reason) else header.reason
    answer = result.output.decode(errors="replace") if result and result.output is not None else None
    if json:
        print_json(
            {
                "request": str(ended.address),
                "status": header.status.name.lower(),
                "reason": reason if header.status is Status.REJECTED else None,
                "answer": answer,
                "verified": bool(result and result.ok),
                "output_hash": header.output_hash.hex(),
                "job_hash": header.job_hash.hex(),
                "checks": [(check.name, check.ok, check.detail) for check in result.checks] if result else [],
            }
        )
        return
    if answer is not None:
        console.print(answer, markup=False)
    status = header.status.name.lower() + (f" ({reason})" if header.status is Status.REJECTED else "")
    summary = {"request": ended.address, "status": status, "verified": "yes" if result and result.ok else "no"}
    if header.status is Status.FULFILLED:
        summary |= {"output hash": header.output_hash.hex(), "job hash": header.job_hash.hex()}
    if result is not None and not result.ok:
        summary |= {"failed": "; ".join(f"{check.name}: {check.detail}" for check in result.checks if not check.ok)}
    with_stderr = {name: str(value) for name, value in summary.items()}
    stderr.print()
    facts("Result", with_stderr, to=stderr)
