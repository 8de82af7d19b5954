"""`oracle localnet`: a chain with the program on it, for tests and for a first look."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from oracle.cli.output import JsonOption


def localnet(
    port: Annotated[int, typer.Option(help="RPC port; the WebSocket is on the next one.")] = 8899,
    slot_ms: Annotated[int, typer.Option(help="Length of a slot, in milliseconds.", min=10)] = 400,
    state: Annotated[Path | None, typer.Option(help="Directory to keep the chain and its wallets in.")] = None,
    base_uri: Annotated[str, typer.Option(help="URI that the queue's operator registers.")] = "http://127.0.0.1:8787",
    json: JsonOption = False,
) -> None:
    """Run an embedded chain with the program, a funded wallet and a queue, until Ctrl-C.

    Without --state everything is thrown away at the end.
    """
    # Imported here: a daemon in production loads no chain of its own.
    from oracle.cli.localnet_run import run_localnet

    with tempfile.TemporaryDirectory(prefix="oracle-localnet-") as scratch:
        directory = state or Path(scratch)
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        asyncio.run(run_localnet(directory, port, slot_ms / 1000, base_uri, json))
