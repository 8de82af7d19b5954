"""`oracle emulate NAME`: one provider's emulator, to test against."""

from __future__ import annotations

import asyncio
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from oracle.cli.output import JsonOption


class Emulated(StrEnum):
    NOSANA = "nosana"
    IONET = "ionet"
    IONET_CLOUD = "ionet-cloud"
    RENDER = "render"
    OPENAI = "openai"
    BEEMAPS = "beemaps"
    HELIUM = "helium"
    GRASS = "grass"


def emulate(
    name: Annotated[Emulated, typer.Argument(help="What to stand in for.")],
    port: Annotated[int, typer.Option(help="Port on 127.0.0.1; 0 takes a free one.", min=0, max=65_535)] = 0,
    model_url: Annotated[
        str | None,
        typer.Option(help="OpenAI-compatible server that runs the jobs, up to `/v1`. Default: the small local model."),
    ] = None,
    state: Annotated[
        Path | None, typer.Option(help="Directory to keep the books in. Default: nothing is kept.")
    ] = None,
    rpc: Annotated[
        str | None,
        typer.Option(help="nosana only: RPC of an `oracle localnet`; its on-chain jobs are run, too."),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Run one provider's emulator until Ctrl-C, and print the configuration that leads to it.

    It speaks the provider's wire protocol, checks keys, charges, refuses what the provider refuses, and misbehaves on
    demand. Jobs of compute networks really run, on a language model; only the answers of openai are scripted.
    """
    # Imported here: a daemon in production loads no emulator.
    from oracle.cli.emulate_run import run_emulator

    if state is not None:
        state.mkdir(mode=0o700, parents=True, exist_ok=True)
    asyncio.run(run_emulator(name, port=port, model_url=model_url, state=state, rpc_url=rpc, json=json))
