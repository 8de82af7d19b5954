"""Statements that SQLite runs for many rows: prepared once, and strict about what they are given."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import Connection, bindparam, create_engine, insert, select, update

from oracle.store import sql
from oracle.store.schema import SettlementKind, SettlementState, metadata
from oracle.store.schema import settlements as t

ROW = {
    "request_id": 1,
    "operator": "key",
    "kind": SettlementKind.RECORD,
    "args": {"hash": "ä", "n": [1, None]},
    "deadline_slot": 2**63 - 1,
    "state": SettlementState.PENDING,
    "created_at_ms": 5,
    "wake_at_ms": 6,
}
DECIDED = update(t).where(t.c.id == bindparam("wanted_id")).values(state=SettlementState.SENT)


@pytest.fixture
def conn() -> Iterator[Connection]:
    engine = create_engine("sqlite://")
    metadata.create_all(engine)
    with engine.connect() as conn:
        yield conn
    engine.dispose()


def test_a_prepared_insert_stores_what_sqlalchemy_would_have_stored(conn: Connection) -> None:
    sql._execute_many(conn, insert(t), [{**ROW, "request_id": n} for n in (1, 2)])
    conn.execute(insert(t), [{**ROW, "request_id": n} for n in (3, 4)])

    raw = conn.exec_driver_sql("SELECT * FROM settlements ORDER BY id").all()
    rows = conn.execute(select(t).order_by(t.c.id)).all()

    assert {row[2:] for row in raw} == {raw[0][2:]}
    assert [row.request_id for row in rows] == [1, 2, 3, 4]
    assert rows[0].args == ROW["args"]
    assert rows[0].deadline_slot == ROW["deadline_slot"]


def test_a_prepared_update_says_how_many_rows_it_has_changed_and_writes_fixed_values_too(conn: Connection) -> None:
    conn.execute(insert(t), [{**ROW, "request_id": n} for n in (1, 2)])

    changed = sql.update_each(conn, DECIDED, [{"wanted_id": 1, "error_code": "X"}, {"wanted_id": 2}, {"wanted_id": 9}])

    rows = conn.execute(select(t).order_by(t.c.id)).all()
    assert changed == 2
    assert [(row.state, row.error_code) for row in rows] == [(SettlementState.SENT, "X"), (SettlementState.SENT, None)]


@pytest.mark.parametrize("names", [("error_code",), ("wanted_id", "no_such_column")])
def test_a_value_that_is_missing_or_has_no_place_is_refused_before_anything_runs(
    conn: Connection, names: tuple[str, ...]
) -> None:
    with pytest.raises(Exception, match=r"no value for wanted_id|no_such_column"):
        sql.update_each(conn, DECIDED, [dict.fromkeys(names, "x")])
