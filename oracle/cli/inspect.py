"""`oracle inspect`: everything that is known of one request, as a timeline."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from oracle.cli import options
from oracle.cli.options import CONFIG, ConfigOption, configuration
from oracle.cli.output import JsonOption, print_json


def inspect(
    request: Annotated[str, typer.Argument(help="Address of the request.")],
    config: ConfigOption = CONFIG,
    json: JsonOption = False,
) -> None:
    """Show a request's state, attempts, settlements, money and journal. Reads the database only."""
    # Imported here: other commands need not wait for the whole daemon to load.
    from oracle.cli import history

    address = str(options.address(request, "REQUEST"))
    found = asyncio.run(history.read(configuration(config).database.url, address))
    if json:
        print_json(found)
    else:
        history.show(found)
