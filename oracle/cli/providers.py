"""`oracle providers`, `oracle providers show`, `oracle providers try`: who can be bought from, and whether it works."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from oracle.cli.options import CONFIG, ConfigOption, configuration
from oracle.cli.output import JsonOption

app = typer.Typer(invoke_without_command=True)
NameArgument = Annotated[str, typer.Argument(help="Name of its section in the configuration.")]


@app.callback()
def providers(context: typer.Context, config: ConfigOption = CONFIG, json: JsonOption = False) -> None:
    """Show every provider and data network. Each is asked whether it is there and takes the key, and for models,
    price, balance and the rate that is left; latency and success are those of your own jobs.

    Nothing is bought, and a daemon may run meanwhile. Exit status 0 only where all of them answer.
    """
    if context.invoked_subcommand is None:
        # Imported here: other commands need not wait for the whole daemon to load.
        from oracle.cli.providers_show import show_all

        asyncio.run(show_all(configuration(config), json))


@app.command("show")
def show(name: NameArgument, config: ConfigOption = CONFIG, json: JsonOption = False) -> None:
    """Show one provider with all its models, and Nosana's markets with GPU, price and queue.

    Exit status 0 only where it answers.
    """
    from oracle.cli.providers_show import show_one

    asyncio.run(show_one(configuration(config), name, json))


@app.command("try")
def try_(
    name: NameArgument,
    model: Annotated[
        str | None,
        typer.Option("--model", "-m", help="Provider's own name of it. Default: the first routed or listed."),
    ] = None,
    prompt: Annotated[str, typer.Option(help="What to ask.")] = "What is the capital city of Japan?",
    max_tokens: Annotated[int, typer.Option(help="Most output tokens.", min=1)] = 64,
    timeout: Annotated[
        float | None,
        typer.Option(help="Longest time of the job, in seconds. Default: its route's, else ten minutes.", min=1),
    ] = None,
    max_lamports: Annotated[int | None, typer.Option(help="Refuse a job that is quoted higher.", min=0)] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before something is spent.")] = False,
    key: Annotated[
        str | None, typer.Option(help="Buy nothing: look up the job of an earlier trial by its key, and follow it.")
    ] = None,
    config: ConfigOption = CONFIG,
    json: JsonOption = False,
) -> None:
    """Run one real small job at a provider, and print every step. It may cost something: then it asks first.

    Ctrl-C calls the job off where the provider can. A server that was rented for it is given back at the end.
    """
    from oracle.cli.providers_try import Wish, try_one

    wish = Wish(name, model, prompt, max_tokens, timeout, max_lamports, yes, key)
    try:
        asyncio.run(try_one(configuration(config), wish, json))
    except asyncio.CancelledError:
        # SIGTERM; Ctrl-C ends in a KeyboardInterrupt.
        raise typer.Exit(130) from None
