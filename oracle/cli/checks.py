"""Shows the checks that `doctor` and `config check --rpc` make."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

import typer
from rich.text import Text

from oracle.cli.output import print_json, say
from oracle.core.text import harmless
from oracle.pipeline.findings import CheckResult, Health

_MARKS = {Health.OK: ("ok  ", "green"), Health.WARNING: ("warn", "yellow"), Health.FAILED: ("FAIL", "bold red")}


def show_checks(results: Sequence[CheckResult], json: bool) -> None:
    """All of them; exit status 1 where one failed."""
    failed = any(result.health is Health.FAILED for result in results)
    if json:
        print_json({"ok": not failed, "checks": [asdict(result) for result in results]})
    else:
        width = max(len(result.name) for result in results)
        for result in results:
            say(Text.assemble(_MARKS[result.health], f"  {harmless(result.name):<{width}}  ", harmless(result.detail)))
            if result.remedy:
                say(Text(f"{'':<{width + 8}}{harmless(result.remedy)}", style="dim"))
    if failed:
        raise typer.Exit(1)
