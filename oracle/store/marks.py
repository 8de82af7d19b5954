"""Marks: small values that outlive the process and belong to no request, such as the genesis hash that was seen."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, select, update

from oracle.store.schema import marks
from oracle.store.sql import insert_new


def get(conn: Connection, name: str) -> Any:
    """The value; None where there is none."""
    return conn.execute(select(marks.c.value).where(marks.c.name == name)).scalar()


def keep(conn: Connection, name: str, value: Any) -> Any:
    """The value; `value` from now on where there was none, whoever else is about to set it."""
    insert_new(conn, marks, name=name, value=value)
    return get(conn, name)


def put(conn: Connection, name: str, value: Any) -> None:
    """Set a value: anything that JSON can hold, but null."""
    if insert_new(conn, marks, name=name, value=value) is None:
        conn.execute(update(marks).where(marks.c.name == name).values(value=value))
