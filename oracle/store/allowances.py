"""What has been set aside of a key's daily allowance: one mark a key."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, select

from oracle.core.spending import Day, Spend, set_aside
from oracle.store import marks
from oracle.store.schema import marks as table
from oracle.store.sql import insert_new


def reserve(c: Connection, key: str, today: int, least: Spend, most: Spend, cap: Spend) -> Spend:
    """Set aside between `least` and `most`, and tell how much. Raises ORC-SIGNER-012.

    Daemons that share a database and a key share the allowance: the row is locked from the read to the write.
    """
    name = f"spent {key}"
    insert_new(c, table, name=name, value=_json(Day(today)))
    known = c.execute(select(table.c.value).where(table.c.name == name).with_for_update()).scalar_one()
    day, granted = set_aside(_day(known), today, least, most, cap)
    marks.put(c, name, _json(day))
    return granted


def _day(value: Any) -> Day:
    return Day(value["day"], Spend(value["lamports"], value["micro_nos"]))


def _json(day: Day) -> dict[str, int]:
    return {"day": day.number, "lamports": day.spent.lamports, "micro_nos": day.spent.micro_nos}
