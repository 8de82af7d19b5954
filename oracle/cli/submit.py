"""`oracle submit`: ask a question on chain, wait for the answer, check it, and take back what is left."""

from __future__ import annotations

import asyncio
import hashlib
import sys
from typing import Annotated

import typer

from oracle.cli import options
from oracle.cli.asking import Ask, ask, show
from oracle.cli.options import KEYPAIR, LOCALNET, KeypairOption, ProgramOption, UrlOption
from oracle.cli.output import JsonOption
from oracle.core import dataquery
from oracle.core.prompt import messages_of
from oracle.core.request import Body, Data, Flags, Inline, Input, Params, Uri


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
    temperature: Annotated[float, typer.Option(help="0 asks for the likeliest answer.", min=0, max=2)] = 0.0,
    seed: Annotated[int, typer.Option(help="Seed of the sampling.", min=0, max=2**64 - 1)] = 0,
    private: Annotated[bool, typer.Option("--private", help="Never to a network that publishes prompts.")] = False,
    any_model: Annotated[bool, typer.Option("--any-model", help="Allow another model to answer.")] = False,
    chat: Annotated[bool, typer.Option("--chat", help="The input is a JSON array of chat messages.")] = False,
    wait: Annotated[bool, typer.Option(help="Wait for the answer.")] = True,
    close: Annotated[bool, typer.Option(help="Take rent and unearned fee back when it has ended.")] = True,
    priority: Annotated[int, typer.Option(help="Price per compute unit in micro-lamports.", min=0)] = 0,
    url: UrlOption = LOCALNET,
    keypair: KeypairOption = KEYPAIR,
    program: ProgramOption = None,
    json: JsonOption = False,
) -> None:
    """Submit a request, wait for its answer and verify it.

    The answer goes to stdout, all else to stderr. Exit status 0 only for a verified answer.
    """
    flags = Flags((Flags.PRIVATE * private) | (Flags.ANY_MODEL * any_model) | (Flags.CHAT * chat))
    params = Params(max_tokens, round(temperature * 1000), seed, flags)
    what = Ask(
        queue=options.address(queue, "--queue"),
        body=Body(model, params, _input(prompt, uri, uri_sha256, data, flags)),
        fee_lamports=fee,
        deadline_seconds=deadline,
        wait=wait,
        close=close,
        micro_lamports=priority,
    )
    answered = asyncio.run(ask(what, url, options.program(program), options.keypair(keypair), quiet=json))
    show(answered, json)
    if wait and not answered.is_verified:
        raise typer.Exit(1)


def _input(
    prompt: str | None, uri: str | None, uri_sha256: str | None, data: str | None, flags: Flags = Flags.NONE
) -> Input:
    if prompt is None and uri is None and data is None:
        raise typer.BadParameter("give a prompt, --uri or --data")
    if uri is not None:
        if prompt is not None or data is not None:
            raise typer.BadParameter("--uri stands for the whole input")
        return _uri(uri, uri_sha256)
    if uri_sha256 is not None:
        raise typer.BadParameter("is the hash of what --uri serves", param_hint="--uri-sha256")
    content = sys.stdin.buffer.read() if prompt == "-" else (prompt or "").encode(errors="surrogateescape")
    # Read here already: an operator declines what it cannot read, and nothing tells its requester why.
    if data is not None:
        query = data if prompt is None else dataquery.with_question(data, content.decode().strip())
        dataquery.parse(query)
        return Data(query, hashlib.sha256(query.encode()).digest())
    messages_of(content, flags)
    return Inline(content)


def _uri(uri: str, uri_sha256: str | None) -> Uri:
    if not uri.startswith("https://"):
        raise typer.BadParameter("operators fetch https:// only", param_hint="--uri")
    try:
        digest = bytes.fromhex(uri_sha256 or "")
    except ValueError:
        digest = b""
    if len(digest) != 32:
        raise typer.BadParameter("give the SHA-256 of the content in 64 hex digits", param_hint="--uri-sha256")
    return Uri(uri, digest)
