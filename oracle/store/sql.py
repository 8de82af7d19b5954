"""The few statements that both engines have, but SQLAlchemy spells by engine."""

from __future__ import annotations

from functools import cache
from typing import Any

from sqlalchemy import Connection, Table
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.sql.dml import ReturningInsert


def insert_new(conn: Connection, table: Table, **values: Any) -> Any:
    """Insert a row and return its key; None, and no error, where a unique law of the table speaks against it.

    The transaction lives on, which on PostgreSQL it would not after an error.
    """
    return conn.execute(_insert_new(conn.dialect.name, table), values).scalar()


@cache
def _insert_new(dialect: str, table: Table) -> ReturningInsert[Any]:
    insert = sqlite.insert(table) if dialect == "sqlite" else postgresql.insert(table)
    return insert.on_conflict_do_nothing().returning(*table.primary_key)
