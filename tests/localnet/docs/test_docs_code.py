"""The code that docs/how-to/testing.md shows to users runs, as it stands there."""

import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from oracle.localnet.ports import free_port

PAGE = Path(__file__).resolve().parents[3] / "docs" / "how-to" / "testing.md"

pytestmark = pytest.mark.localnet


async def test_the_example_for_users_own_tests_answers_a_request(tmp_path: Path) -> None:
    (code,) = (c for c in re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL) if "def answered" in c)
    shown: dict[str, Any] = {}
    exec(compile(code, str(PAGE), "exec"), shown)
    answered: Callable[[Path, int], Awaitable[bytes]] = shown["answered"]
    assert await answered(tmp_path, free_port())
