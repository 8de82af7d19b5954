"""How every command speaks: tables and sentences for people, one JSON document for programs, errors on stderr."""

from __future__ import annotations

import os
import sys
import textwrap
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final

import orjson
import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from oracle.core.errors import OracleError
from oracle.core.text import harmless

JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")]

_PIPE_COLUMNS: Final = 200


def _console(*, to_stderr: bool) -> Console:
    is_terminal = (sys.stderr if to_stderr else sys.stdout).isatty()
    # A pipe has no width: what is folded there at eighty characters is lost to grep.
    width = None if is_terminal or "COLUMNS" in os.environ else _PIPE_COLUMNS
    return Console(stderr=to_stderr, highlight=False, width=width)


console = _console(to_stderr=False)
stderr = _console(to_stderr=True)


def print_json(value: Any) -> None:
    """One document on stdout, with a newline; at once, for whoever reads it while the command goes on."""
    sys.stdout.write(orjson.dumps(value, option=orjson.OPT_INDENT_2 | orjson.OPT_NON_STR_KEYS, default=str).decode())
    sys.stdout.write("\n")
    sys.stdout.flush()


def show_error(error: OracleError, *, json: bool) -> None:
    """Code, what was met, why it happens and what to do: as JSON where the command was asked for JSON."""
    code = error.error
    if json:
        document = {
            "code": code.code,
            "error": code.title,
            "detail": error.detail,
            "cause": code.cause,
            "remedy": code.remedy,
        }
        sys.stderr.write(orjson.dumps(document).decode() + "\n")
        return
    say(Text.assemble((code.code, "bold red"), f"  {code.title}"), to=stderr)
    for line in error.detail.strip("\n").splitlines():
        _labelled("", line.strip())
    _labelled("why", code.cause)
    _labelled("remedy", code.remedy)


def _labelled(label: str, text: str) -> None:
    """A label and a text beside it, which never runs below the label."""
    indent = 8
    text = harmless(text)
    lines = textwrap.wrap(text, max(30, stderr.width - indent)) if stderr.is_terminal else [text]
    for at, line in enumerate(lines):
        say(Text.assemble((f"{'' if at else label:<{indent}}", "dim"), line), to=stderr)


def say(what: str | Text, *, to: Console | None = None) -> None:
    """One line, as it stands: what looks like markup is text. A long one is left to the terminal to fold."""
    (to or console).print(Text(what) if isinstance(what, str) else what, soft_wrap=True)


def table(
    title: str | None, columns: Sequence[str], rows: Sequence[Sequence[Any]], *, right: Sequence[str] = ()
) -> Table:
    """A plain table; `right` names columns of numbers."""
    made = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False, header_style="dim")
    for column in columns:
        made.add_column(column, justify="right" if column in right else "left", overflow="fold")
    for row in rows:
        made.add_row(*(cell if isinstance(cell, Text) else Text(harmless(str(cell))) for cell in row))
    return made


def facts(title: str, values: Mapping[str, Any], to: Console | None = None) -> None:
    """Names and values, one a line."""
    say(Text(title, style="bold"), to=to)
    width = max(map(len, values), default=0)
    for name, value in values.items():
        say(Text.assemble((f"  {name:<{width}}  ", "dim"), harmless(str(value))), to=to)


def lamports(amount: int | None) -> str:
    """An amount as SOL where that reads better."""
    if amount is None:
        return "-"
    return f"{amount / 1e9:,.4f} SOL" if abs(amount) >= 100_000_000 else f"{amount:,} lamports"


def short(address: str) -> str:
    """An address cut for a narrow terminal; whole where there is room, and always in JSON."""
    return address if console.width >= 160 or not console.is_terminal else f"{address[:6]}…{address[-4:]}"
