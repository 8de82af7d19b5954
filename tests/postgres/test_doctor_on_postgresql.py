"""`oracle doctor` says what is wrong with a PostgreSQL server, and never shows its password."""

from __future__ import annotations

import asyncpg
import pytest
from postgres_server import Server
from sqlalchemy import make_url

from oracle.config import Config
from oracle.core.errors import OracleError
from oracle.pipeline import database_checks
from oracle.pipeline.findings import CheckResult, Health
from oracle.store.engine import Store
from oracle.store.errors import URL_REFUSED

pytestmark = pytest.mark.postgres


async def test_a_server_that_is_in_order_is_told_with_its_version(url: str) -> None:
    (found,) = await checked(url)
    assert found.health is Health.OK
    assert "PostgreSQL 1" in found.detail


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ("postgresql+asyncpg://postgres:hunter2@/none?host={socket}", "ORC-STORE-002"),
        ("postgresql+asyncpg://postgres:hunter2@/postgres?host={socket}/nowhere", "ORC-STORE-002"),
        ("postgresql+asyncpg://postgres:hunter2@127.0.0.1:1/postgres", "ORC-STORE-002"),
        ("postgresql+asyncpg://postgres:hunter2@nowhere.invalid/postgres", "ORC-STORE-002"),
        ("postgresql+asyncpg://nobody:hunter2@/postgres?host={socket}", "ORC-STORE-002"),
        ("postgresql+asyncpg://postgres:hunter2@/postgres?host={socket}&connect_timeout=5", "ORC-STORE-001"),
        ("postgresql+asyncpg://postgres:hunter2@/postgres?host={socket}&sslmode=nonsense", "ORC-STORE-002"),
        ("postgresql+asyncpg://postgres:hunter2@/postgres?host={socket}", "ORC-STORE-004"),
    ],
    ids=[
        "no such database", "no such socket", "nobody listens", "no such host", "no such role",
        "an unknown option", "a TLS mode that does not exist", "no schema",
    ],
)  # fmt: skip
async def test_what_is_wrong_with_a_url_is_told_without_its_password(server: Server, where: str, said: str) -> None:
    (found,) = await checked(where.format(socket=server.directory))
    assert found.health is Health.FAILED
    assert said in found.detail
    assert found.remedy
    assert "hunter2" not in repr(found)


async def test_a_role_that_may_not_write_is_found(url: str, server: Server) -> None:
    psql = await asyncpg.connect(user="postgres", database=make_url(url).database, host=server.directory)
    await psql.execute("CREATE ROLE reader LOGIN; GRANT SELECT ON ALL TABLES IN SCHEMA public TO reader")
    try:
        (found,) = await checked(url.replace("postgres@", "reader@"))
        assert (found.health, "may not write" in found.detail) == (Health.FAILED, True)
    finally:
        await psql.execute("DROP OWNED BY reader; DROP ROLE reader")
        await psql.close()


async def test_too_few_connections_are_a_warning(url: str, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database_checks, "CONNECTIONS", 10_000)
    _, found = await checked(url)
    assert (found.health, "max_connections" in found.remedy) == (Health.WARNING, True)


async def test_a_pooler_that_swallows_notices_is_a_warning(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def say_nothing(*_: object) -> int:
        return 0

    monkeypatch.setattr("oracle.store.notices.Line.say", say_nothing)
    monkeypatch.setattr(database_checks, "NOTICE_SECONDS", 0.1)
    _, found = await checked(url)
    assert (found.health, "pool_mode" in found.remedy) == (Health.WARNING, True)


async def test_another_driver_is_refused_before_it_is_loaded(url: str) -> None:
    with pytest.raises(OracleError) as raised:
        await Store.open(url.replace("+asyncpg", "+psycopg"))
    assert raised.value.error is URL_REFUSED


async def test_a_url_in_the_words_of_other_drivers_is_understood(url: str) -> None:
    store = await Store.open(url.replace("postgresql+asyncpg:", "postgresql:") + "&sslmode=disable")
    await store.close()


async def checked(url: str) -> list[CheckResult]:
    return [found async for found in database_checks.checked(Config.model_validate({"database": {"url": url}}))]
