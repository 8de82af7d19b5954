"""What people read: whole lines for pipes, folded ones for terminals, and nothing that drives either."""

from __future__ import annotations

import io
import json

import pytest
from rich.console import Console

from oracle.cli import asking, output
from oracle.cli.output import facts, lamports, say, show_error, table
from oracle.client.errors import TRANSACTION_REFUSED
from oracle.core.errors import OracleError

LONG = "word " * 60


def terminal(width: int = 60) -> Console:
    return Console(file=io.StringIO(), force_terminal=True, color_system=None, width=width, highlight=False)


def pipe() -> Console:
    return Console(file=io.StringIO(), width=200, highlight=False)


def printed(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.fixture
def error() -> OracleError:
    return TRANSACTION_REFUSED(f"first line {LONG}\n  second line")


def test_an_error_for_a_pipe_keeps_its_lines_whole(error: OracleError, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output, "stderr", console := pipe())
    show_error(error, json=False)
    lines = printed(console).splitlines()
    assert lines[0] == "ORC-CLIENT-002  Transaction refused"
    assert lines[1].strip() == f"first line {LONG}".strip()
    assert lines[2] == "        second line"
    assert [line.split()[0] for line in lines[3:]] == ["why", "remedy"]


def test_an_error_on_a_terminal_is_folded_beside_its_labels(
    error: OracleError, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(output, "stderr", console := terminal())
    show_error(error, json=False)
    lines = printed(console).splitlines()
    assert all(len(line) <= 60 for line in lines)
    assert all(line.startswith(("        ", "why     ", "remedy  ")) for line in lines[1:])


def test_an_error_as_json_is_one_line(error: OracleError, capsys: pytest.CaptureFixture[str]) -> None:
    show_error(error, json=True)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert json.loads(captured.err)["detail"] == error.detail


def test_nothing_that_is_shown_drives_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    hostile = "\x1b[2J\x1b]0;owned\x07\r\nforged"
    monkeypatch.setattr(output, "stderr", console := terminal())
    show_error(TRANSACTION_REFUSED(hostile), json=False)
    facts("Result", {"detail": hostile}, to=console)
    console.print(table("Rows", ("one",), [(hostile,)]))
    assert not {"\x07", "\r"} & set(printed(console))
    assert "\x1b[2J" not in printed(console)
    assert "\x1b]" not in printed(console)


def test_markup_in_a_value_is_text() -> None:
    console = pipe()
    facts("Result", {"detail": "[bold]not bold[/bold] [link=x]"}, to=console)
    assert "[bold]not bold[/bold] [link=x]" in printed(console)


def test_a_long_line_is_not_folded_so_that_it_can_be_copied() -> None:
    console = terminal()
    say("a" * 300, to=console)
    assert printed(console) == "a" * 300 + "\n"


def test_an_answer_reaches_a_pipe_byte_for_byte_and_a_terminal_harmlessly(
    monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    answer = b"Tokyo\n[bold]:smile: \x1b[31mred\xff \xe6\x9d\xb1"
    monkeypatch.setattr(asking, "console", pipe())
    asking._print_answer(answer)
    assert capfdbinary.readouterr().out == answer + b"\n"
    monkeypatch.setattr(asking, "console", console := terminal())
    monkeypatch.setattr(output, "console", console)
    asking._print_answer(answer)
    assert printed(console) == "Tokyo\n[bold]:smile: \\x1b[31mred\ufffd 東\n"


@pytest.mark.parametrize(
    ("amount", "shown"),
    [
        (None, "-"),
        (0, "0 lamports"),
        (50_000, "50,000 lamports"),
        (-7_000, "-7,000 lamports"),
        (100_000_000, "0.1000 SOL"),
        (1_234_500_000_000, "1,234.5000 SOL"),
    ],
)
def test_amounts_read_well(amount: int | None, shown: str) -> None:
    assert lamports(amount) == shown
