"""How the queries run: prepared statements, inserts of rows that may be there already, or that can wait for company.

What runs for every request is built once and named by a constant. On SQLite it goes to the driver as text and plain
values, since SQLAlchemy's way from a statement to a result takes several times as long as SQLite's work on it.
"""

from __future__ import annotations

import itertools
import json
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from functools import cache, lru_cache
from types import MappingProxyType
from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    BindParameter,
    Boolean,
    Column,
    ColumnElement,
    Connection,
    Dialect,
    Insert,
    Select,
    String,
    Table,
    Text,
    TypeDecorator,
    Update,
    bindparam,
    literal_column,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.dialects.postgresql import Insert as PostgresqlInsert
from sqlalchemy.dialects.sqlite import Insert as SqliteInsert
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.dml import ReturningInsert, ReturningUpdate
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import TypeEngine

_NO_VALUES: Final[Mapping[str, Any]] = MappingProxyType({})
_GATHERED: Final = "gathered rows"
_MOST_ROWS: Final = 64
"""Of one statement: SQLite allows 32,766 values."""


Query = Select[Any] | ReturningUpdate[Any] | ReturningInsert[Any]


def fetch(conn: Connection, query: Query, values: Mapping[str, Any] = _NO_VALUES) -> Sequence[Any]:
    """The rows of a prepared query: one that is built once, with a place for each of the values and no other."""
    if conn.dialect.name != "sqlite":
        return conn.execute(query, values).all()
    prepared = _prepare(conn.dialect, query, tuple(values))
    return prepared.results(_driver(conn).execute(prepared.text, prepared.parameters(values)))


def fetch_one(conn: Connection, query: Query, values: Mapping[str, Any] = _NO_VALUES) -> Any | None:
    """The only row of a prepared query; None where there is none."""
    rows = fetch(conn, query, values)
    if len(rows) > 1:
        raise ValueError(f"{len(rows)} rows, where one at most was looked for")
    return rows[0] if rows else None


def insert_new(conn: Connection, table: Table, **values: Any) -> Any:
    """Insert a row and return its key; None, and no error, where a unique law of the table speaks against it.

    The transaction lives on, which on PostgreSQL it would not after an error.
    """
    row = fetch_one(conn, _insert_new(conn.dialect.name, table, *table.primary_key), values)
    return None if row is None else row[0]


def append(conn: Connection, table: Table, **values: Any) -> None:
    """Insert a row unless a unique law of the table speaks against it; nobody needs to know which.

    Inside `gathered` it goes in at the end, with the others for its table. Give the same columns every time.
    """
    rows = conn.info.get(_GATHERED)
    if rows is None:
        run_each(conn, _append(conn.dialect.name, table), [values])
    else:
        rows.setdefault(table, []).append(values)


def insert_all_new(conn: Connection, table: Table, rows: Sequence[dict[str, Any]], *key: Column[Any]) -> dict[Any, int]:
    """`insert_new` of many rows with the same columns: the ids of those that went in, by `key`: texts or numbers."""
    if not rows:
        return {}
    statement = _insert_new(conn.dialect.name, table, table.c.id, *key)
    found = _insert_many(conn, statement, rows) if conn.dialect.name == "sqlite" else conn.execute(statement, rows)
    return {(tuple(row[1:]) if len(key) > 1 else row[1]): row[0] for row in found}


def run_each(conn: Connection, statement: Update | Insert, rows: Sequence[Mapping[str, Any]]) -> None:
    """Run a prepared statement once for each set of values, all with the same names."""
    if conn.dialect.name == "sqlite":
        _execute_many(conn, statement, rows)
    elif rows:
        conn.execute(statement, rows)


def update_each(conn: Connection, statement: Update, rows: Sequence[Mapping[str, Any]]) -> int:
    """Run an update once for each set of values, of which those with the same names go in together; how many rows
    it has changed in all."""
    alike: dict[frozenset[str], list[Mapping[str, Any]]] = {}
    for row in rows:
        alike.setdefault(frozenset(row), []).append(row)
    return sum(_update_alike(conn, statement, group) for group in alike.values())


def _update_alike(conn: Connection, statement: Update, rows: Sequence[Mapping[str, Any]]) -> int:
    if conn.dialect.name == "sqlite":
        return _execute_many(conn, statement, rows)
    # asyncpg does not say how many rows many executions have changed.
    return sum(conn.execute(statement, row).rowcount for row in rows)


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
            run_each(conn, _append(conn.dialect.name, table), values)
    finally:
        info.pop(_GATHERED, None)


def _execute_many(conn: Connection, statement: Update | Insert, rows: Sequence[Mapping[str, Any]]) -> int:
    """Run a statement once for each set of values, all with the same names; how many rows it has changed in all."""
    if not rows:
        return 0
    prepared = _prepare(conn.dialect, statement, tuple(rows[0]))
    return _driver(conn).executemany(prepared.text, [prepared.parameters(row) for row in rows]).rowcount


def _insert_many(
    conn: Connection, statement: ReturningInsert[Any], rows: Sequence[Mapping[str, Any]]
) -> Iterator[Sequence[Any]]:
    """What an insert with `RETURNING` returns for many rows.

    Many rows go in by one statement; as many as a power of two, so that there are few statements for SQLite to compile.
    """
    prepared = _prepare(conn.dialect, statement, tuple(rows[0]))
    row_places = f"({', '.join('?' * len(prepared.places))})"
    head, found, tail = prepared.text.partition(f" VALUES {row_places} ")
    if not found:
        raise ValueError(f"no place for many rows: {prepared.text}")
    driver, at = _driver(conn), 0
    while left := len(rows) - at:
        count = min(_MOST_ROWS, 1 << (left.bit_length() - 1))
        text = f"{head} VALUES {', '.join([row_places] * count)} {tail}"
        values = itertools.chain.from_iterable(prepared.parameters(row) for row in rows[at : at + count])
        yield from prepared.results(driver.execute(text, tuple(values)))
        at += count


def _driver(conn: Connection) -> sqlite3.Connection:
    """The driver's own connection, in a transaction that `conn` knows of."""
    if not conn.in_transaction():
        conn.begin()
    connection = conn.connection.dbapi_connection
    assert isinstance(connection, sqlite3.Connection)
    return connection


@dataclass(frozen=True, slots=True)
class _Prepared:
    """The text of a statement; for each of its places the name of a value and what makes it one of the driver's, or no
    name, and the value that is always the same; and what makes the driver's values those of a result, by their column.
    """

    text: str
    places: tuple[tuple[str | None, Any], ...]
    columns: tuple[tuple[int, Callable[[Any], Any]], ...]

    def parameters(self, row: Mapping[str, Any]) -> tuple[Any, ...]:
        return tuple(
            [this if name is None else row[name] if this is None else this(row[name]) for name, this in self.places]
        )

    def results(self, cursor: sqlite3.Cursor) -> list[Any]:
        rows = cursor.fetchall()
        if not self.columns:
            return rows
        results = []
        for row in rows:
            values = list(row)
            for at, from_driver in self.columns:
                values[at] = from_driver(values[at])
            results.append(values)
        return results


@lru_cache(maxsize=256)
def _prepare(dialect: Dialect, statement: Update | Insert | Query, names: tuple[str, ...]) -> _Prepared:
    compiled = statement.compile(dialect=dialect, column_keys=list(names))
    assert isinstance(compiled, SQLCompiler)
    if compiled.insert_prefetch or compiled.update_prefetch:
        raise ValueError("a default that SQLAlchemy computes for each row")
    if compiled.post_compile_params:
        raise ValueError(f"a list whose length is part of the text: {compiled}")
    order = compiled.positiontup or []
    if unknown := set(names) - set(order):
        raise ValueError(f"no place for {', '.join(sorted(unknown))}")
    places: list[tuple[str | None, Any]] = []
    for name in order:
        parameter = compiled.binds[name]
        to_driver = parameter.type.dialect_impl(dialect).bind_processor(dialect)
        if name in names:
            places.append((name, to_driver))
        elif parameter.required:
            raise ValueError(f"no value for {name}")
        else:
            value = parameter.effective_value
            places.append((None, value if to_driver is None else to_driver(value)))
    columns = []
    for at, column in enumerate(statement.exported_columns):
        from_driver = column.type.dialect_impl(dialect).result_processor(dialect, None)
        if from_driver is not None:
            columns.append((at, from_driver))
    return _Prepared(str(compiled), tuple(places), tuple(columns))


def is_among(column: Column[Any], name: str) -> ColumnElement[bool]:
    """`column IN (…)`, with members that are given as a list under this name at each execution: texts or numbers."""
    return _Among(column, bindparam(name, type_=_Members(are_texts=isinstance(column.type, String))))


class _Members(TypeDecorator[Any]):
    """A list that is one value of a statement, so that the text is the same for any length of it: JSON on SQLite, an
    array on PostgreSQL."""

    impl = Text
    cache_ok = True

    def __init__(self, *, are_texts: bool) -> None:
        super().__init__()
        self.are_texts = are_texts

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        if dialect.name == "sqlite":
            return Text()
        return postgresql.ARRAY(Text() if self.are_texts else BigInteger())

    def process_bind_param(self, value: Any, dialect: Dialect) -> Any:
        return json.dumps(list(value)) if dialect.name == "sqlite" else list(value)


class _Among(FunctionElement[bool]):
    type = Boolean()
    inherit_cache = True


@compiles(_Among, "sqlite")
def _among_json(element: _Among, compiler: SQLCompiler, **options: Any) -> str:
    column, members = (compiler.process(clause, **options) for clause in element.clauses)
    return f"{column} IN (SELECT value FROM json_each({members}))"


@compiles(_Among, "postgresql")
def _among_array(element: _Among, compiler: SQLCompiler, **options: Any) -> str:
    column, members = (compiler.process(clause, **options) for clause in element.clauses)
    return f"{column} = ANY ({members})"


def has_lapsed(until_ms: Column[Any], now_ms: BindParameter[int]) -> ColumnElement[bool]:
    """`until_ms <= now_ms`. On PostgreSQL by the clock of the server where that is behind ours: it is the one that all
    daemons share, and one whose own jumps ahead must not take what the others hold."""
    return _Lapsed(until_ms, now_ms)


class _Lapsed(FunctionElement[bool]):
    type = Boolean()
    inherit_cache = True


@compiles(_Lapsed, "sqlite")
def _lapsed_by_ours(element: _Lapsed, compiler: SQLCompiler, **options: Any) -> str:
    until_ms, now_ms = (compiler.process(clause, **options) for clause in element.clauses)
    return f"{until_ms} <= {now_ms}"


@compiles(_Lapsed, "postgresql")
def _lapsed_by_both(element: _Lapsed, compiler: SQLCompiler, **options: Any) -> str:
    until_ms, now_ms = (compiler.process(clause, **options) for clause in element.clauses)
    return f"{until_ms} <= LEAST({now_ms}, CAST(EXTRACT(EPOCH FROM now()) * 1000 AS BIGINT))"


def is_one_of(column: Column[Any], members: Iterable[StrEnum]) -> ColumnElement[bool]:
    """`column IN (…)`, with the members in the text of the statement.

    As parameters they would be spelt out anew at every execution, and SQLite would not use a partial index for them.
    """
    return column.in_([literal_column(f"'{member.value}'") for member in sorted(members)])


@cache
def _insert_new(dialect: str, table: Table, *returned: Column[Any]) -> ReturningInsert[Any]:
    return _append(dialect, table).returning(*returned)


@cache
def _append(dialect: str, table: Table) -> SqliteInsert | PostgresqlInsert:
    insert = sqlite.insert(table) if dialect == "sqlite" else postgresql.insert(table)
    return insert.on_conflict_do_nothing()
