"""Statements that the queries share: inserts of rows that may be there already, or that can wait for company."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from functools import cache
from typing import Any, Final

from sqlalchemy import Column, ColumnElement, Connection, Table, literal_column
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.dialects.postgresql import Insert as PostgresqlInsert
from sqlalchemy.dialects.sqlite import Insert as SqliteInsert
from sqlalchemy.sql.dml import ReturningInsert

_GATHERED: Final = "gathered rows"


def insert_new(conn: Connection, table: Table, **values: Any) -> Any:
    """Insert a row and return its key; None, and no error, where a unique law of the table speaks against it.

    The transaction lives on, which on PostgreSQL it would not after an error.
    """
    return conn.execute(_insert_new(conn.dialect.name, table), values).scalar()


def append(conn: Connection, table: Table, **values: Any) -> None:
    """Insert a row unless a unique law of the table speaks against it; nobody needs to know which.

    Inside `gathered` it goes in at the end, with the others for its table. Give the same columns every time.
    """
    rows = conn.info.get(_GATHERED)
    if rows is None:
        conn.execute(_append(conn.dialect.name, table), values)
    else:
        rows.setdefault(table, []).append(values)


@contextmanager
def gathered(conn: Connection) -> Iterator[None]:
    """A transaction whose appended rows go in at its end, a statement for each table: a tenth of the work of a
    statement for each row."""
    rows: dict[Table, list[dict[str, Any]]] = {}
    info = conn.info  # a connection that is lost has none any more
    info[_GATHERED] = rows
    try:
        yield
        for table, values in rows.items():
            conn.execute(_append(conn.dialect.name, table), values)
    finally:
        info.pop(_GATHERED, None)


def is_one_of(column: Column[Any], members: Iterable[StrEnum]) -> ColumnElement[bool]:
    """`column IN (…)`, with the members in the text of the statement.

    As parameters they would be spelt out anew at every execution, and SQLite would not use a partial index for them.
    """
    return column.in_([literal_column(f"'{member.value}'") for member in sorted(members)])


@cache
def _insert_new(dialect: str, table: Table) -> ReturningInsert[Any]:
    return _append(dialect, table).returning(*table.primary_key)


@cache
def _append(dialect: str, table: Table) -> SqliteInsert | PostgresqlInsert:
    insert = sqlite.insert(table) if dialect == "sqlite" else postgresql.insert(table)
    return insert.on_conflict_do_nothing()
