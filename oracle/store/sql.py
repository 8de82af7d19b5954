"""The few statements that both engines have, but SQLAlchemy spells by engine."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Table
from sqlalchemy.dialects import postgresql, sqlite


def insert_new(conn: Connection, table: Table, **values: Any) -> Any:
    """Insert a row and return its key; None, and no error, where a unique law of the table speaks against it.

    The transaction lives on, which on PostgreSQL it would not after an error.
    """
    insert = sqlite.insert(table) if conn.dialect.name == "sqlite" else postgresql.insert(table)
    return conn.execute(insert.values(**values).on_conflict_do_nothing().returning(*table.primary_key)).scalar()
