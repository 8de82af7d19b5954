"""`oracle list`: the requests that this operator's database knows."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated

import typer

from oracle.cli.options import CONFIG, ConfigOption, configuration
from oracle.cli.output import JsonOption, console, print_json, say, short, table
from oracle.core.lifecycle import State

if TYPE_CHECKING:
    from oracle.store.rows import RequestRow


def list_requests(
    config: ConfigOption = CONFIG,
    state: Annotated[list[State] | None, typer.Option("--state", "-s", help="Only these states.")] = None,
    requester: Annotated[str | None, typer.Option(help="Only of this requester.")] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", help="How many, last seen first.", min=1, max=10_000)] = 50,
    json: JsonOption = False,
) -> None:
    """List requests, last seen first. Reads the database; the daemon may run meanwhile."""
    rows = asyncio.run(_read(configuration(config).database.url, state, requester, limit))
    if json:
        print_json([summary(row) for row in rows])
    elif not rows:
        say("No requests.")
    else:
        cells = [
            (short(row.address), row.created_slot, row.model, row.state, f"{row.fee_lamports:,}", row.error_code or "")
            for row in rows
        ]
        columns = ("request", "slot", "model", "state", "fee (lamports)", "last error")
        console.print(table(None, columns, cells, right=("slot", "fee (lamports)")))


async def _read(url: str, states: list[State] | None, requester: str | None, limit: int) -> list[RequestRow]:
    # Imported here: other commands need not wait for the database to load.
    from oracle.store import requests
    from oracle.store.engine import Store

    store = await Store.open(url)
    try:
        return await store.read(lambda c: requests.listing(c, states=states, requester=requester, limit=limit))
    finally:
        await store.close()


def summary(row: RequestRow) -> dict[str, object]:
    """What of a row is told in JSON: all but the account's bytes and the lease."""
    hidden = {"account", "lease_owner", "lease_until_ms", "fence"}
    return {name: getattr(row, name) for name in row._fields if name not in hidden}
