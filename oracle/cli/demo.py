"""`oracle demo`: the whole oracle on this machine, seven requests through it, and every result checked."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from oracle.cli.output import JsonOption


def demo(
    keep: Annotated[Path | None, typer.Option(help="Keep chain, database and log in this directory.")] = None,
    json: JsonOption = False,
) -> None:
    """Run seven requests through a complete oracle on this machine, and check every result.

    Real: the program's bytecode, the language model, the daemon (a process of its own), the database, every socket.
    Emulated, because nobody can reach them from here: Nosana and io.net, which run the jobs on the same model, and Bee
    Maps, whose map data one request asks about.
    """
    # Imported here: a daemon in production loads neither a chain nor emulators.
    from oracle.cli.demo_stage import perform

    if not perform(keep, json):
        raise typer.Exit(1)
