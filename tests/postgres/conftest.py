"""The store on PostgreSQL: fixtures of the same names as those of `tests/unit/store`, whose tests run here again."""

from __future__ import annotations

import asyncio
import itertools
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from pathlib import Path

import asyncpg
import pytest

from oracle.store.engine import Store, upgrade

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "unit" / "store"), str(HERE.parent / "chaos")]

import postgres_server  # noqa: E402

_numbers = itertools.count()


@pytest.fixture(scope="session")
def server() -> Iterator[postgres_server.Server]:
    with ExitStack() as stack:
        try:
            running = stack.enter_context(postgres_server.running())
        except postgres_server.Unavailable as reason:
            pytest.skip(f"no PostgreSQL: {reason}")
        yield running


@pytest.fixture(scope="session")
def socket_directory(server: postgres_server.Server) -> str:
    return server.directory


@pytest.fixture(scope="session")
def template(socket_directory: str) -> str:
    execute(socket_directory, "CREATE DATABASE template_oracle")
    upgrade(url_of(socket_directory, "template_oracle"))
    return "template_oracle"


@pytest.fixture
def empty_url(socket_directory: str) -> Iterator[str]:
    yield from database(socket_directory, "template0")


@pytest.fixture
def url(socket_directory: str, template: str) -> Iterator[str]:
    yield from database(socket_directory, template)


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


def database(socket_directory: str, template: str) -> Iterator[str]:
    name = f"test_{next(_numbers)}"
    execute(socket_directory, f"CREATE DATABASE {name} TEMPLATE {template}")
    yield url_of(socket_directory, name)
    execute(socket_directory, f"DROP DATABASE {name} WITH (FORCE)")


def url_of(socket_directory: str, name: str) -> str:
    return f"postgresql+asyncpg://postgres@/{name}?host={socket_directory}"


def execute(socket_directory: str, statement: str) -> None:
    async def run() -> None:
        connection = await asyncpg.connect(user="postgres", database="postgres", host=socket_directory)
        try:
            await connection.execute(statement)
        finally:
            await connection.close()

    asyncio.run(run())
