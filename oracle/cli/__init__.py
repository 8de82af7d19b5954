"""The command line: one file per command. Each prints what a person wants, and `--json` for a program."""

from __future__ import annotations


def main() -> None:
    """Entry point of the `oracle` script."""
    # Imported here: `oracle --version` and shell completion should not wait for the whole daemon to load.
    from oracle.cli.app import app

    app(prog_name="oracle")
