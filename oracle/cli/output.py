"""How every command speaks: tables and sentences for people, one JSON document for programs, errors on stderr."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import orjson
import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from oracle.core.errors import OracleError

JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")]

console = Console(highlight=False)
stderr = Console(stderr=True, highlight=False)


def print_json(value: Any) -> None:
    """One document on stdout, with a newline."""
    sys.stdout.write(orjson.dumps(value, option=orjson.OPT_INDENT_2 | orjson.OPT_NON_STR_KEYS, default=str).decode())
    sys.stdout.write("\n")


def show_error(error: OracleError) -> None:
    """Code, what was met, why it happens and what to do: as JSON where the command was asked for JSON."""
    code = error.error
    if "--json" in sys.argv:
        sys.stderr.write(
            orjson.dumps(
                {
                    "code": code.code,
                    "error": code.title,
                    "detail": error.detail,
                    "cause": code.cause,
                    "remedy": code.remedy,
                }
            ).decode()
            + "\n"
        )
        return
    stderr.print(Text.assemble((f"{code.code}  ", "bold red"), (code.title, "bold")))
    if error.detail:
        stderr.print(Text(error.detail.strip("\n")))
    stderr.print(Text.assemble(("why     ", "dim"), code.cause))
    stderr.print(Text.assemble(("remedy  ", "dim"), code.remedy))


def table(
    title: str | None, columns: Sequence[str], rows: Sequence[Sequence[Any]], *, right: Sequence[str] = ()
) -> Table:
    """A plain table; `right` names columns of numbers."""
    made = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="dim")
    for column in columns:
        made.add_column(column, justify="right" if column in right else "left", overflow="fold")
    for row in rows:
        made.add_row(*(cell if isinstance(cell, Text) else Text(str(cell)) for cell in row))
    return made


def facts(title: str, values: Mapping[str, Any], to: Console | None = None) -> None:
    """Names and values, one a line."""
    to = to or console
    to.print(Text(title, style="bold"))
    width = max(map(len, values), default=0)
    for name, value in values.items():
        to.print(Text.assemble((f"  {name:<{width}}  ", "dim"), str(value)))


def lamports(amount: int | None) -> str:
    """An amount as SOL where that reads better."""
    if amount is None:
        return "-"
    return f"{amount / 1e9:,.4f} SOL" if abs(amount) >= 100_000_000 else f"{amount:,} lamports"


def short(address: str) -> str:
    """An address cut for a narrow terminal; whole where there is room, and always in JSON."""
    return address if console.width >= 160 or not console.is_terminal else f"{address[:6]}…{address[-4:]}"


def environment(name: str) -> str | None:
    return os.environ.get(name) or None
