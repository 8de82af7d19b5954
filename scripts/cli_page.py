"""Writes docs/reference/cli.md from the commands themselves: `python scripts/cli_page.py`. A test compares them."""

from __future__ import annotations

import enum
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import typer

from oracle.cli.app import app

PAGE = Path(__file__).resolve().parents[1] / "docs" / "reference" / "cli.md"

HEAD = """\
# Command line

Written by `python scripts/cli_page.py` from the commands; `oracle COMMAND --help` says the same.

- What a person wants goes to stdout as text, and with `--json` as one JSON document. Errors go to stderr, with a code,
  a cause and a remedy: [error codes](errors.md). Under `--json` they are JSON too.
- Exit status: 0 done, 1 an error or a check that does not hold, 2 wrong usage, 130 interrupted.
- `--url` takes a URL, or `localnet`, `devnet`, `testnet` or `mainnet` for the public endpoints.
"""

_METAVARS = {int: "N", float: "NUMBER", str: "TEXT", Path: "PATH"}


def page() -> str:
    root = typer.main.get_command(app)
    sections = [HEAD, _contents(root), *(_section(name, command) for name, command in commands(root, "oracle"))]
    return "\n".join(sections)


def commands(group: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Every command that does something, as `("oracle queue create", command)`, in the order of `--help`."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            if command.invoke_without_command:
                yield f"{path} {name}", command
            yield from commands(command, f"{path} {name}")
        else:
            yield f"{path} {name}", command


def _contents(root: Any) -> str:
    rows = [
        f"| [`{name}`](#{name.replace(' ', '-')}) | {_summary(command)} |" for name, command in commands(root, "oracle")
    ]
    return "\n".join(["| command | |", "|---|---|", *rows, ""])


def _section(name: str, command: Any) -> str:
    arguments = [p for p in command.params if p.param_type_name == "argument"]
    options = [p for p in command.params if p.param_type_name == "option" and not p.hidden]
    usage = " ".join([name, *(_usage(p) for p in arguments), *(["[OPTIONS]"] if options else [])])
    paragraphs = [f"## {name}", f"```text\n{usage}\n```", *_paragraphs(command.help)]
    rows = [f"| {_names(p)} | {_default(p)} | {_meaning(p)} |" for p in [*arguments, *options]]
    if rows:
        paragraphs.append("\n".join(["| | default | |", "|---|---|---|", *rows]))
    return "\n\n".join(paragraphs) + "\n"


def _summary(command: Any) -> str:
    return _paragraphs(command.help)[0].split(". ")[0].rstrip(".") + "."


def _paragraphs(text: str) -> list[str]:
    return [" ".join(paragraph.split()) for paragraph in text.split("\n\n")]


def _usage(argument: Any) -> str:
    return argument.name.upper() if argument.required else f"[{argument.name.upper()}]"


def _names(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        return f"`{parameter.name.upper()}`"
    value = "" if parameter.is_flag else f" {_metavar(parameter.type_descriptor.annotation)}"
    return ", ".join(
        f"`{name}{value if name.startswith('--') else ''}`" for name in [*parameter.opts, *parameter.secondary_opts]
    )


def _metavar(annotation: Any) -> str:
    return _METAVARS.get(_element(annotation), "NAME")


def _element(annotation: Any) -> Any:
    """What stands in a list; a plain type stands for itself."""
    return get_args(annotation)[0] if get_origin(annotation) is list else annotation


def _choices(element: Any) -> list[str]:
    if get_origin(element) is Literal:
        return [str(value) for value in get_args(element)]
    if isinstance(element, type) and issubclass(element, enum.Enum):
        return [str(member.value) for member in element]
    return []


def _default(parameter: Any) -> str:
    if parameter.required:
        return "required"
    value = parameter.default
    if isinstance(value, bool):
        (on, off) = (parameter.opts[0], (parameter.secondary_opts or [""])[0])
        return f"`{on if value else off}`" if (value or off) else ""
    return "" if value is None else f"`{value}`"


def _meaning(parameter: Any) -> str:
    parts = [parameter.help or ""]
    annotation = parameter.type_descriptor.annotation
    if choices := _choices(_element(annotation)):
        parts.append("One of " + ", ".join(f"`{choice}`" for choice in choices) + ".")
    if get_origin(annotation) is list:
        parts.append("May be given several times.")
    bounds = ((parameter.min, "at least"), (parameter.max, "at most"))
    if told := ", ".join(f"{word} {bound:,}" for bound, word in bounds if bound is not None):
        parts.append(told[0].upper() + told[1:] + ".")
    if parameter.envvar:
        parts.append(f"Or `{parameter.envvar}`.")
    return " ".join(part for part in parts if part)


if __name__ == "__main__":
    PAGE.write_text(page())
