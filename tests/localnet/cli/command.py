"""Runs `oracle ARGUMENTS` in this process, as a user would, and gives back what it printed."""

from __future__ import annotations

import asyncio
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog
from solders.keypair import Keypair
from typer.testing import CliRunner

from oracle.cli.app import app


@dataclass(frozen=True)
class Ran:
    """What came of a command. `refusal` is the code of its error."""

    status: int
    out: str
    err: str
    output: bytes

    @property
    def document(self) -> Any:
        return json.loads(self.out)

    @property
    def refusal(self) -> str | None:
        found = re.match(r"ORC-[A-Z]+-\d{3}", self.err)
        return found[0] if found else None


async def oracle(*arguments: object, stdin: str | bytes | None = None, **environment: str) -> Ran:
    """The command in a thread, so that chain and daemon go on in this loop meanwhile."""
    return await asyncio.to_thread(run, *map(str, arguments), stdin=stdin, **environment)


def run(*arguments: str, stdin: str | bytes | None = None, **environment: str) -> Ran:
    """The command; what is no error with a code fails the test with its traceback."""
    # The daemon of a test logs to stdout unless told otherwise, and that is the command's while it runs.
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    try:
        result = CliRunner().invoke(app, list(arguments), input=stdin, env=environment, prog_name="oracle")
    finally:
        structlog.reset_defaults()
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert "Traceback" not in result.output
    return Ran(result.exit_code, result.stdout, result.stderr, result.stdout_bytes)


def wallet_file(path: Path, keypair: Keypair) -> Path:
    path.write_text(keypair.to_json())
    path.chmod(0o600)
    return path
