"""The store on SQLite. `tests/postgres` runs the same tests with fixtures of the same names."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from oracle.store.engine import Store, upgrade


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("template") / "oracle.sqlite"
    upgrade(f"sqlite:///{path}")
    return path


@pytest.fixture
def empty_url(tmp_path: Path) -> str:
    """A database without a schema, which for SQLite is none at all."""
    return f"sqlite:///{tmp_path}/empty.sqlite"


@pytest.fixture
def url(tmp_path: Path, template: Path) -> str:
    """A database of its own for each test, at head."""
    shutil.copy(template, tmp_path / "oracle.sqlite")
    return f"sqlite:///{tmp_path}/oracle.sqlite"


@pytest.fixture
async def store(url: str) -> AsyncIterator[Store]:
    store = await Store.open(url)
    yield store
    await store.close()


@pytest.fixture
async def other(url: str) -> AsyncIterator[Store]:
    """Another daemon's store, on the same database."""
    store = await Store.open(url)
    yield store
    await store.close()
