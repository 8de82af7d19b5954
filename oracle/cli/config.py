"""`oracle config init | check`: write a minimal configuration, and check one."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Annotated

import typer

from oracle.cli.checks import show_checks
from oracle.cli.options import CONFIG, ConfigOption, configuration
from oracle.cli.output import JsonOption, console, facts, print_json
from oracle.core.errors import ErrorCode
from oracle.pipeline import checks

app = typer.Typer(help="Write and check the configuration.", no_args_is_help=True)

FILE_EXISTS = ErrorCode(
    "ORC-CLI-001",
    "File exists",
    "The file to be written is there already.",
    "Name another file, or delete this one first: nothing is overwritten.",
)

MINIMAL = """\
# A minimal configuration. oracle.example.toml explains every option with its default.

[cluster]
rpc = ["{url}"]

[operator]
keypair = "{keypair}"
queues = []                          # addresses, from `oracle queue create`
base_uri = "http://127.0.0.1:8787"   # where the public reaches this daemon's outputs

[database]
url = "sqlite:///oracle.sqlite"

[providers.fallback]
kind = "openai"
base_url = "http://127.0.0.1:8000/v1"
free = true                          # your own server; for a paid one give api_key_env and model_prices

[models."SmolLM2-135M-Instruct"]
routes = [{{ provider = "fallback", model = "SmolLM2-135M-Instruct" }}]
"""


@app.command("init")
def init(
    path: Annotated[Path, typer.Argument(help="File to write.")] = CONFIG,
    url: Annotated[str, typer.Option("--url", "-u", help="RPC endpoint.")] = "http://127.0.0.1:8899",
    keypair: Annotated[str, typer.Option("--keypair", "-k", help="Operator's keypair file.")] = "operator-keypair.json",
) -> None:
    """Write a minimal configuration."""
    text = MINIMAL.format(url=url, keypair=keypair)
    try:
        # It may come to hold an endpoint's API key: nobody else reads it.
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise FILE_EXISTS(str(path)) from None
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    console.print(f"Wrote {path}. Next: [bold]oracle config check --config {path}[/bold]")


@app.command("check")
def check(
    config: ConfigOption = CONFIG,
    rpc: Annotated[bool, typer.Option("--rpc", help="Also ask the cluster and the providers.")] = False,
    json: JsonOption = False,
) -> None:
    """Check the configuration file; with --rpc all that `oracle doctor` checks."""
    checked = configuration(config)
    if rpc:
        show_checks(asyncio.run(checks.all_of(checked)), json)
        return
    summary = {
        "queues": len(checked.operator.queues),
        "providers": ", ".join(f"{name} ({settings.kind})" for name, settings in checked.providers.items()) or "none",
        "models": ", ".join(checked.models) or "none",
        "database": checked.database.url.split("@")[-1],
        "outputs at": checked.operator.base_uri,
    }
    if json:
        print_json({"ok": True, "file": str(config), **summary})
    else:
        facts(f"{config} is valid", summary)
