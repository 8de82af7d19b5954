"""What a dead daemon has left: leases that nobody holds, and appointments by a clock that may have been wrong."""

from __future__ import annotations

from typing import Final

from sqlalchemy import Connection, text, update

from oracle.core.lifecycle import ENDED
from oracle.store.schema import CallState, SettlementState, gateway_calls, requests, settlements

_SOON_MS: Final = 60_000


def server_ms(conn: Connection) -> int:
    """The clock of the PostgreSQL server, in unix milliseconds."""
    return int(conn.execute(text("SELECT extract(epoch FROM clock_timestamp()) * 1000")).scalar_one())


def take_over(conn: Connection, now_ms: int) -> int:
    """Free whatever is held, and make due what is not due soon; how many rows that were.

    Only for whoever holds the database alone. The fences grow: should a holder be alive after all, it finds that its
    rows have gone on without it. An hour by which the clock was set back since must not be waited for.
    """
    freed = [
        conn.execute(
            update(table)
            .where(table.c.lease_owner.is_not(None))
            .values(lease_owner=None, lease_until_ms=None, fence=table.c.fence + 1)
        ).rowcount
        for table in (requests, settlements)
    ]
    hurried = [
        conn.execute(
            update(table).where(table.c.wake_at_ms > now_ms + _SOON_MS, waiting).values(wake_at_ms=now_ms)
        ).rowcount
        for table, waiting in (
            (requests, requests.c.state.not_in(ENDED)),
            (settlements, settlements.c.state == SettlementState.PENDING),
        )
    ]
    # Calls of the gateway lapse at once: whoever looks after them ends them, and cancels what they had bought.
    lapsed = conn.execute(
        update(gateway_calls).where(gateway_calls.c.state == CallState.OPEN).values(owned_until_ms=0)
    ).rowcount
    return sum(freed) + sum(hurried) + lapsed
