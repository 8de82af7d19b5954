"""A database is brought to the schema that the code was written for, and refused while it is not there."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, MetaData, inspect, text

from oracle.core.errors import OracleError
from oracle.store import migrate
from oracle.store.engine import Store, upgrade
from oracle.store.errors import SCHEMA_NEWER, SCHEMA_OUTDATED
from oracle.store.migrate import on_database
from oracle.store.schema import metadata

SKIPS_EXPRESSIONS = pytest.mark.filterwarnings("ignore:.*expression-based index")
"""As nobody can reflect them on SQLite. `_laws` compares the texts of such indexes."""


def test_an_upgrade_creates_the_schema_and_a_second_one_changes_nothing(empty_url: str) -> None:
    upgrade(empty_url)
    assert migrate.current(empty_url) == migrate.HEAD
    upgrade(empty_url)
    assert migrate.current(empty_url) == migrate.HEAD


def test_two_upgrades_at_once_are_one(empty_url: str) -> None:
    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(upgrade, empty_url) for _ in range(4)]:
            done.result()
    assert migrate.current(empty_url) == migrate.HEAD


def test_a_downgrade_undoes_everything_and_can_be_undone(empty_url: str) -> None:
    upgrade(empty_url)
    migrate.downgrade(empty_url, "base")
    assert migrate.current(empty_url) is None
    assert on_database(empty_url, lambda conn: inspect(conn).get_table_names()) == ["alembic_version"]
    upgrade(empty_url)
    assert migrate.current(empty_url) == migrate.HEAD


@SKIPS_EXPRESSIONS
def test_the_migrations_make_the_schema_that_the_code_describes(empty_url: str) -> None:
    upgrade(empty_url)
    differences = on_database(empty_url, lambda conn: compare_metadata(MigrationContext.configure(conn), metadata))
    assert differences == []


@SKIPS_EXPRESSIONS
def test_the_migrations_make_the_laws_that_the_code_describes(empty_url: str) -> None:
    """Alembic does not compare checks, conditions of indexes and defaults: the very thing that holds our laws."""
    upgrade(empty_url)
    migrated = on_database(empty_url, _laws)
    migrate.downgrade(empty_url, "base")
    on_database(empty_url, metadata.create_all)
    assert migrated == on_database(empty_url, _laws)


def test_an_upgrade_keeps_what_the_ledger_holds(empty_url: str) -> None:
    upgrade(empty_url, "0001")
    booking = "INSERT INTO ledger (id, at_ms, kind, lamports, note) VALUES (7, 1, 'job', -5, 'kept')"
    on_database(empty_url, lambda conn: conn.execute(text(booking)))
    for bring in (lambda: upgrade(empty_url), lambda: migrate.downgrade(empty_url, "0001")):
        bring()
        kept = on_database(
            empty_url, lambda conn: conn.execute(text("SELECT id, kind, lamports, note FROM ledger")).all()
        )
        assert [tuple(row) for row in kept] == [(7, "job", -5, "kept")]


def test_an_upgrade_gives_every_request_the_operator_that_worked_on_it(empty_url: str) -> None:
    upgrade(empty_url, "0003")
    request = (
        "INSERT INTO requests (id, address, created_slot, queue, requester, refund_to, model, fee_lamports, "
        "deadline_slot, claim_required, retention_slots, account, state, state_since_ms, wake_at_ms, chain_status, "
        "chain_slot, seen_at_ms, seen_by) VALUES ({}, '{}', 5, 'q', 'r', 'p', 'm', 1, 9, false, 1, '', 'seen', 1, 1, "
        "0, 5, 1, 'scan')"
    )
    settlement = (
        "INSERT INTO settlements (id, request_id, operator, kind, args, deadline_slot, state, created_at_ms, "
        "wake_at_ms) VALUES (1, 1, 'their-key', 'record', '{{}}', 9, 'sent', 1, 1)"
    )
    for statement in (request.format(1, "settled"), request.format(2, "new"), settlement.format()):
        on_database(empty_url, lambda conn, s=statement: conn.execute(text(s)))  # type: ignore[misc]
    upgrade(empty_url)
    kept = on_database(
        empty_url, lambda conn: conn.execute(text("SELECT address, operator FROM requests ORDER BY id")).all()
    )
    assert [tuple(row) for row in kept] == [("settled", "their-key"), ("new", "their-key")]
    migrate.downgrade(empty_url, "0003")
    assert on_database(empty_url, lambda conn: conn.execute(text("SELECT count(*) FROM requests")).scalar()) == 2


async def test_a_database_without_a_schema_is_refused(empty_url: str) -> None:
    await asyncio.to_thread(upgrade, empty_url)
    await asyncio.to_thread(migrate.downgrade, empty_url, "base")
    with pytest.raises(OracleError) as raised:
        await Store.open(empty_url)
    assert raised.value.error is SCHEMA_OUTDATED
    assert "oracle db upgrade" in raised.value.error.remedy


async def test_a_database_of_a_newer_version_is_refused_and_left_alone(url: str) -> None:
    def set_revision(conn: Connection) -> None:
        conn.execute(text("UPDATE alembic_version SET version_num = '9999'"))

    await asyncio.to_thread(on_database, url, set_revision)
    with pytest.raises(OracleError) as raised:
        await Store.open(url)
    assert raised.value.error is SCHEMA_NEWER
    with pytest.raises(OracleError) as raised:
        await asyncio.to_thread(upgrade, url)
    assert raised.value.error is SCHEMA_NEWER


def test_a_migration_that_fails_leaves_the_database_as_it_was(empty_url: str) -> None:
    def make_way_for_trouble(conn: Connection) -> None:
        conn.execute(text("CREATE TABLE ledger (id INTEGER)"))

    upgrade(empty_url)
    migrate.downgrade(empty_url, "base")
    on_database(empty_url, make_way_for_trouble)
    with pytest.raises(OracleError):
        upgrade(empty_url)
    assert migrate.current(empty_url) is None
    assert sorted(on_database(empty_url, lambda conn: inspect(conn).get_table_names())) == ["alembic_version", "ledger"]


def _laws(conn: Connection) -> dict[str, Any]:
    """What holds in the database that is connected to, as the database itself tells it."""
    found = MetaData()
    found.reflect(conn)
    inspector = inspect(conn)
    return {
        name: {
            "columns": [(c.name, str(c.type), c.nullable, _default(c), c.primary_key) for c in table.columns],
            "checks": sorted((c["name"], c["sqltext"]) for c in inspector.get_check_constraints(name)),
            "uniques": sorted((u["name"], u["column_names"]) for u in inspector.get_unique_constraints(name)),
            "foreign": sorted((f["name"], f["referred_table"]) for f in inspector.get_foreign_keys(name)),
            "indexes": sorted(
                (i["name"], i["column_names"], i["unique"], {k: str(v) for k, v in i["dialect_options"].items()})
                for i in inspector.get_indexes(name)
            ),
            "written": _written(conn, name),
        }
        for name, table in sorted(found.tables.items())
        if name != "alembic_version"
    }


def _written(conn: Connection, table: str) -> list[str]:
    """The indexes as they were written, or as the database would write them."""
    query = {
        "sqlite": "SELECT sql FROM sqlite_master WHERE type = 'index' AND tbl_name = :table AND sql IS NOT NULL",
        "postgresql": "SELECT indexdef FROM pg_indexes WHERE tablename = :table",
    }[conn.dialect.name]
    return sorted(" ".join(written.split()) for written in conn.execute(text(query), {"table": table}).scalars())


def _default(column: Any) -> str | None:
    return None if column.server_default is None else str(column.server_default.arg)
