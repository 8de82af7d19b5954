"""Ends the leases of a daemon that is known to be dead, so that nobody waits until they lapse."""

from __future__ import annotations

from sqlalchemy import Connection, update

from oracle.store.schema import requests, settlements


def release_all(conn: Connection) -> int:
    """Free whatever is held; how many rows that were. Only for whoever holds the database alone.

    The fences grow: should a holder be alive after all, it finds that its rows have gone on without it.
    """
    return sum(
        conn.execute(
            update(table)
            .where(table.c.lease_owner.is_not(None))
            .values(lease_owner=None, lease_until_ms=None, fence=table.c.fence + 1)
        ).rowcount
        for table in (requests, settlements)
    )
