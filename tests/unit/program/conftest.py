"""Fixtures of the tests that run the built program."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from oracle_world import World


@pytest.fixture(scope="module")
def world() -> World:
    return World()


@pytest.fixture
def show(capsys: pytest.CaptureFixture[str], pytestconfig: pytest.Config) -> Callable[[str], None]:
    """Prints a figure past pytest's capture: the measurement is part of the test's result."""
    terminal = pytestconfig.get_terminal_writer()

    def line(text: str) -> None:
        with capsys.disabled():
            terminal.write(f"\n{text}")

    return line
