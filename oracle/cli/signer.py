"""`oracle signer serve`: hold the operator's key as a user of its own, and sign for the daemon over a Unix socket."""

from __future__ import annotations

import asyncio
import os
import pwd
import signal
from pathlib import Path
from typing import Annotated

import typer

from oracle.cli.errors import NO_SUCH_USER
from oracle.cli.options import CONFIG, ConfigOption, configuration
from oracle.config import Config
from oracle.logs import set_up

app = typer.Typer(help="The key apart from the daemon.", no_args_is_help=True)


@app.command("serve")
def serve(
    config: ConfigOption = CONFIG,
    socket: Annotated[Path, typer.Option(help="Where to listen.")] = Path("/run/inference-oracle-signer/socket"),
    spent: Annotated[Path, typer.Option(help="File that remembers what the day has cost.")] = Path("spent.json"),
    allow_user: Annotated[
        list[str] | None, typer.Option(help="User or uid that may ask, besides the server's own; repeatable.")
    ] = None,
) -> None:
    """Sign the daemon's transactions with the key and within the spending limits of this configuration."""
    checked = configuration(config)
    set_up(checked.log)
    asyncio.run(run_server(checked, socket, spent, {os.getuid(), *map(uid_of, allow_user or ())}))


async def run_server(config: Config, path: Path, spent: Path, allowed_uids: set[int]) -> None:
    # Imported here: other commands need not wait for the whole daemon to load.
    from oracle.chain.signing.socket_server import serving
    from oracle.chain.signing.spent_file import SpentFile
    from oracle.pipeline import charter, systemd
    from oracle.pipeline.clock import Clock
    from oracle.pipeline.daemon import key_of

    caps, stop = charter.caps_of(config.spending), asyncio.Event()
    file = SpentFile(spent, caps.day)
    guard = charter.guard(key_of(config.operator), charter.operator_charter(config), caps, file, Clock())
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with serving(guard, path, allowed_uids):
        systemd.notify("READY=1")
        await stop.wait()
    file.close()


def uid_of(user: str) -> int:
    """Raises ORC-CLI-NNN for a name that nobody has."""
    if user.isdecimal():
        return int(user)
    try:
        return pwd.getpwnam(user).pw_uid
    except KeyError:
        raise NO_SUCH_USER(user) from None
