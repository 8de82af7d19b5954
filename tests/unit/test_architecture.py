"""Imports point one way: the rooms of docs/design.md, held against the source."""

import ast
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2] / "oracle"

# What each room may import of the others. A room that is not named here may not exist.
ALLOWED = {
    "core": set(),
    "model": {"core"},
    "store": {"core"},
    "chain": {"core"},
    "providers": {"core", "model"},
    "config": {"core", "providers"},
    "logs": {"core", "config"},
    "pipeline": {"core", "store", "chain", "providers", "config"},
    "api": {"core", "store", "chain", "providers", "config", "pipeline"},
    "client": {"core", "chain"},
    "localnet": {"core", "store", "chain", "client", "model", "config", "pipeline", "api"},
    "testing": {
        "core",
        "store",
        "chain",
        "client",
        "model",
        "config",
        "logs",
        "providers",
        "pipeline",
        "api",
        "localnet",
    },
    "cli": {
        "core",
        "store",
        "chain",
        "client",
        "model",
        "providers",
        "config",
        "logs",
        "pipeline",
        "api",
        "localnet",
        "testing",
    },
    "resources": {"core"},
}
EVERYWHERE = {"resources"}


def rooms() -> list[str]:
    return sorted({path.relative_to(ROOT).parts[0].removesuffix(".py") for path in sources()})


def sources() -> Iterator[Path]:
    return (path for path in ROOT.rglob("*.py") if path.parent != ROOT or path.stem in ALLOWED)


def imports_of(path: Path) -> Iterator[tuple[int, str]]:
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module] if node.module != "oracle" else [f"oracle.{alias.name}" for alias in node.names]
        for name in names:
            parts = name.split(".")
            if parts[0] == "oracle" and len(parts) > 1:
                yield node.lineno, parts[1]


@pytest.mark.parametrize("room", rooms())
def test_a_room_imports_only_what_stands_below_it(room: str) -> None:
    assert room in ALLOWED, f"{room} is not a room of docs/design.md"
    allowed = ALLOWED[room] | EVERYWHERE | {room}
    wrong = [
        f"{path.relative_to(ROOT)}:{line} imports {imported}"
        for path in sources()
        if path.relative_to(ROOT).parts[0].removesuffix(".py") == room
        for line, imported in imports_of(path)
        if imported not in allowed
    ]
    assert not wrong


def test_the_core_touches_no_clock_no_network_and_no_randomness() -> None:
    forbidden = {"asyncio", "time", "random", "secrets", "socket", "httpx", "os", "sqlalchemy", "structlog", "datetime"}
    wrong = []
    for path in (ROOT / "core").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
            wrong += [f"{path.name}:{node.lineno} {name}" for name in names if name.split(".")[0] in forbidden]
    assert not wrong


def test_an_emulator_never_sees_the_adapter_it_stands_against() -> None:
    wrong = [
        str(path)
        for path in (ROOT / "localnet").rglob("*.py")
        if any(imported == "providers" for _, imported in imports_of(path))
    ]
    assert not wrong


def test_no_two_modules_of_the_tests_share_a_name() -> None:
    """pytest imports them by their bare name, and refuses the second one of a name in the same worker."""
    tests = Path(__file__).parents[1]
    names = Counter(path.name for path in tests.rglob("*.py") if path.name not in ("conftest.py", "__init__.py"))
    assert [name for name, count in names.items() if count > 1] == []
