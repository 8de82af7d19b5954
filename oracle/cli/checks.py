"""Shows the start-up checks, as `doctor`, `config check --rpc` and `run` make them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

import typer
from rich.text import Text

from oracle.cli.output import console, print_json
from oracle.pipeline.checks import CheckResult, Health

_MARKS = {Health.OK: ("ok  ", "green"), Health.WARNING: ("warn", "yellow"), Health.FAILED: ("FAIL", "bold red")}


def show_checks(results: Sequence[CheckResult], json: bool) -> None:
    """All of them; exit status 1 where one failed."""
    failed = any(result.health is Health.FAILED for result in results)
    if json:
        print_json({"ok": not failed, "checks": [asdict(result) for result in results]})
    else:
        for result in results:
            console.print(Text.assemble(_MARKS[result.health], f"  {result.name:<22} ", result.detail))
            if result.remedy:
                console.print(Text(f"      {result.remedy}", style="dim"))
    if failed:
        raise typer.Exit(1)
