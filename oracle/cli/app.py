"""The commands under one name; what goes wrong is shown with its code, its cause and its remedy."""

from __future__ import annotations

import sys
from importlib.metadata import version
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from oracle.cli import (
    close_,
    config,
    db,
    demo,
    doctor,
    emulate,
    gateway,
    inspect,
    list_,
    localnet,
    providers,
    queue,
    run_,
    signer,
    submit,
    verify,
)
from oracle.cli.output import show_error
from oracle.core.errors import OracleError


class _Coded(TyperGroup):
    """Exit status: 0 done, 1 an error with a code or a "no", 2 wrong usage, 130 interrupted."""

    def invoke(self, ctx: Any) -> Any:
        json = "--json" in ctx.args
        try:
            return super().invoke(ctx)
        except OracleError as error:
            show_error(error, json=json)
            raise typer.Exit(1) from None


app = typer.Typer(
    name="oracle",
    cls=_Coded,
    help="The inference oracle for Solana: paid requests on chain, answers from decentralised compute.",
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
    rich_markup_mode="rich",
)


def _version(wanted: bool) -> None:
    if wanted:
        sys.stdout.write(f"oracle {version('solana-inference-oracle')}\n")
        raise typer.Exit


@app.callback()
def _oracle(
    _: Annotated[bool, typer.Option("--version", help="Show the version.", callback=_version, is_eager=True)] = False,
) -> None:
    """Nothing of its own: options stand with their commands."""


app.command("demo")(demo.demo)
app.command("localnet")(localnet.localnet)
app.command("emulate")(emulate.emulate)
app.command("run")(run_.run)
app.command("gateway")(gateway.gateway)
app.command("submit")(submit.submit)
app.command("list")(list_.list_requests)
app.command("inspect")(inspect.inspect)
app.command("verify")(verify.verify)
app.command("close")(close_.close)
app.command("doctor")(doctor.doctor)
app.add_typer(providers.app, name="providers")
app.add_typer(queue.app, name="queue")
app.add_typer(signer.app, name="signer")
app.add_typer(config.app, name="config")
app.add_typer(db.app, name="db")
