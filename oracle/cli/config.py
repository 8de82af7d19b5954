"""`oracle config init | check`: write a minimal configuration, and check one."""

from __future__ import annotations

import asyncio
import json as json_module
import os
import tomllib
from pathlib import Path
from typing import Annotated

import typer

from oracle import resources
from oracle.cli import options
from oracle.cli.errors import FILE_EXISTS, FILE_NOT_WRITTEN
from oracle.cli.options import CONFIG, ConfigOption, configuration
from oracle.cli.output import JsonOption, facts, print_json, say
from oracle.config import parse
from oracle.config.values import without_secrets

app = typer.Typer(help="Write and check the configuration.", no_args_is_help=True)

MINIMAL = """\
# A minimal configuration. `oracle config init --full` writes one that explains every option with its default.

[cluster]
rpc = [{url}]

[operator]
keypair = {keypair}
queues = [{queues}]                  # addresses, from `oracle queue create`
base_uri = "http://127.0.0.1:8787"   # where the public reaches this daemon's outputs

[database]
url = "sqlite:///oracle.sqlite"

[providers.local]
kind = "local"                       # a small model on this machine (extra `local`); it costs nothing

[models."SmolLM2-135M-Instruct"]
routes = [{{ provider = "local", model = "SmolLM2-135M-Instruct" }}]
"""


@app.command("init")
def init(
    path: Annotated[Path, typer.Argument(help="File to write.")] = CONFIG,
    url: Annotated[str, typer.Option("--url", "-u", help="RPC endpoint, or localnet, devnet, testnet or mainnet.")] = (
        "localnet"
    ),
    keypair: Annotated[str, typer.Option("--keypair", "-k", help="Operator's keypair file.")] = "operator-keypair.json",
    queue: Annotated[list[str] | None, typer.Option("--queue", "-q", help="Address of a queue to serve.")] = None,
    full: Annotated[
        bool, typer.Option("--full", help="Write every option, each with its meaning and default.")
    ] = False,
) -> None:
    """Write a minimal configuration, or with --full one that explains everything."""
    if full:
        text = resources.example_config().read_text()
    else:
        queues = ", ".join(_quoted(str(options.address(each, "--queue"))) for each in queue or ())
        text = MINIMAL.format(url=_quoted(options.endpoint(url)), keypair=_quoted(keypair), queues=queues)
        parse(tomllib.loads(text))
    try:
        # It may come to hold an endpoint's API key: nobody else reads it.
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise FILE_EXISTS(str(path)) from None
    except OSError as error:
        raise FILE_NOT_WRITTEN(f"{path}: {error.strerror}") from None
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    say(f"Wrote {path}. Next: oracle config check --config {path}")


def _quoted(text: str) -> str:
    # A JSON string is a basic string of TOML, as long as DEL and what is beyond ASCII are escaped as JSON does it.
    return json_module.dumps(text)


@app.command("check")
def check(
    config: ConfigOption = CONFIG,
    rpc: Annotated[bool, typer.Option("--rpc", help="Also ask the cluster and the providers.")] = False,
    json: JsonOption = False,
) -> None:
    """Check the configuration file; with --rpc all that `oracle doctor` checks."""
    checked = configuration(config)
    if rpc:
        # Imported here: other commands need not wait for the whole daemon to load.
        from oracle.cli.checks import show_checks
        from oracle.pipeline import checks

        show_checks(asyncio.run(checks.all_of(checked)), json)
        return
    summary = {
        "queues": len(checked.operator.queues),
        "providers": ", ".join(f"{name} ({settings.kind})" for name, settings in checked.providers.items()) or "none",
        "models": ", ".join(checked.models) or "none",
        "database": without_secrets(checked.database.url),
        "outputs at": checked.operator.base_uri,
    }
    if json:
        print_json({"ok": True, "file": str(config), **summary})
    else:
        facts(f"{config} is valid", summary)
