"""`oracle db upgrade | status`: bring the database's schema to this release."""

from __future__ import annotations

from typing import Annotated

import typer

from oracle.cli.options import CONFIG, ConfigOption, configuration
from oracle.cli.output import JsonOption, print_json, say

app = typer.Typer(help="The database's schema.", no_args_is_help=True)
UrlOption = Annotated[str | None, typer.Option("--url", help="Database URL, instead of the configuration's.")]


@app.command("upgrade")
def upgrade(config: ConfigOption = CONFIG, url: UrlOption = None, json: JsonOption = False) -> None:
    """Create the schema, or bring it to this release. Safe to run again; stop the daemon before."""
    # Imported here: other commands need not wait for the database to load.
    from oracle.store import migrate

    target = url or configuration(config).database.url
    before = migrate.current(target)
    migrate.upgrade(target)
    after = migrate.current(target)
    if json:
        print_json({"from": before, "to": after})
    elif before == after:
        say(f"The schema is at {after} already.")
    else:
        say(f"Upgraded the schema from {before or 'nothing'} to {after}.")


@app.command("status")
def status(config: ConfigOption = CONFIG, url: UrlOption = None, json: JsonOption = False) -> None:
    """Show the schema's revision, and the one this release needs."""
    from oracle.store import migrate

    target = url or configuration(config).database.url
    now, head = migrate.current(target), migrate.HEAD
    if json:
        print_json({"current": now, "head": head, "ok": now == head})
    else:
        say(f"The schema is at {now or 'nothing'}, this release needs {head}.")
    if now != head:
        raise typer.Exit(1)
