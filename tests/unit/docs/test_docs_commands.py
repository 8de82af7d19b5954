"""Every command shown is one that can be typed, and the reference says what the commands say."""

import runpy
import shlex
from typing import Any

import pytest
import typer
from docs_pages import PAGES, ROOT, Block, blocks, commands, inline_code, name

from oracle.cli.app import app

SHELL = [block for page in PAGES for block in blocks(page) if block.language == "sh"]
SCRIPT = ROOT / "scripts" / "cli_page.py"


def found(words: list[str]) -> tuple[Any, list[str]]:
    """The command, or the group, that the words name, and the words that are left to it."""
    command: Any = typer.main.get_command(app)
    while words and hasattr(command, "commands") and not words[0].startswith("-"):
        assert words[0] in command.commands, f"no command {words[0]!r}"
        command, words = command.commands[words[0]], words[1:]
    return command, words


@pytest.mark.parametrize("block", [block for block in SHELL if any(commands(block))], ids=str)
def test_a_command_shown_parses(block: Block) -> None:
    for words in commands(block):
        command, rest = found(words)
        if rest[-1:] in (["--help"], ["--version"]):
            continue
        is_group = hasattr(command, "commands") and not command.invoke_without_command
        assert not is_group, f"{words} names a group only"
        command.make_context("oracle", rest)


def test_a_command_named_in_a_sentence_exists_with_its_options() -> None:
    wrong = []
    for page in PAGES:
        for code in inline_code(page):
            if not code.startswith("oracle ") or "…" in code.split()[1] or code.split()[1].isupper():
                continue
            try:
                command, rest = found(shlex.split(code)[1:])
            except (AssertionError, ValueError) as error:
                wrong.append(f"{name(page)}: `{code}`: {error}")
                continue
            known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
            given = {word.partition("=")[0] for word in rest if word.startswith("-") and word != "-"}
            if given - known - {"--help", "--version"}:
                wrong.append(f"{name(page)}: `{code}`: no {', '.join(given - known)}")
    assert not wrong


def test_the_reference_says_what_the_commands_say() -> None:
    module = runpy.run_path(str(SCRIPT))
    assert module["PAGE"].read_text() == module["page"](), "run python scripts/cli_page.py"


def test_every_option_says_what_it_does() -> None:
    root = typer.main.get_command(app)
    told_by_its_name = {"temperature", "seed"}
    silent = [
        f"{path} {parameter.name}"
        for path, command in runpy.run_path(str(SCRIPT))["commands"](root, "oracle")
        for parameter in command.params
        if not parameter.help and parameter.name not in told_by_its_name
    ]
    assert not silent
