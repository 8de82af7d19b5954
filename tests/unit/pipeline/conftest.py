"""One database in memory for all histories of a module."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from settlement_world import Memory, memory, strict_logs


@pytest.fixture(scope="session")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Memory]:
    with memory(tmp_path_factory.mktemp("settlements")) as made:
        yield made


@pytest.fixture(autouse=True)
def _errors_fail() -> Iterator[None]:
    with strict_logs():
        yield
