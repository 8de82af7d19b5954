"""Bring a database to the schema of this version, and refuse one that is not there.

Alembic is imported only where it has something to do: it takes as long to import as a short command runs, and a
database that is as it should be needs none of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, TypeVar

from sqlalchemy import URL, Connection, inspect, text

from oracle import resources
from oracle.store.errors import DAMAGED, SCHEMA_NEWER, SCHEMA_OUTDATED
from oracle.store.failures import opening
from oracle.store.postgresql import async_engine
from oracle.store.sqlite import create_private, path_of, writing_engine
from oracle.store.urls import is_sqlite, parse

if TYPE_CHECKING:
    from alembic.config import Config

T = TypeVar("T")

HEAD: Final = "0006"
"""The revision that this version of the oracle needs: the newest under `migrations/`."""

_LOCK_TIMEOUT_SECONDS: Final = 60.0
_ADVISORY_LOCK: Final = 0x0AC1E5C4E3A


def upgrade(url: str, revision: str = "head") -> None:
    """Create the database if it is a file, and run the migrations up to `revision`, all in one transaction.

    Twice, or two processes at once, is harmless: the second finds nothing to do. Blocks, and must not be called from
    a running event loop: use `asyncio.to_thread`.
    """
    parsed = parse(url)
    if is_sqlite(parsed):
        create_private(path_of(parsed))
    _alone(parsed, lambda conn: _upgrade(conn, revision))


def downgrade(url: str, revision: str) -> None:
    """Undo migrations back to `revision`; `base` undoes all, with everything in the tables. Blocks, as `upgrade`."""
    from alembic import command

    _alone(parse(url), lambda conn: command.downgrade(config(conn), revision))


def current(url: str) -> str | None:
    """The revision of a database; None where it is empty, or a file that is not there. Blocks, as `upgrade` does."""
    parsed = parse(url)
    if is_sqlite(parsed) and not path_of(parsed).exists():
        return None
    return _alone(parsed, _revision)


def assert_current(conn: Connection) -> None:
    """Raise ORC-STORE-004 or -005 unless the schema is the one that this version was written for."""
    found = _revision(conn)
    if found == HEAD:
        return
    if found is None or _is_known(found):
        raise SCHEMA_OUTDATED(f"it is at {found or 'nothing'}, this version needs {HEAD}")
    raise SCHEMA_NEWER(f"it is at {found}, this version knows up to {HEAD}")


def config(conn: Connection | None = None) -> Config:
    """The configuration of Alembic's commands; `migrations/env.py` works on `conn`, inside its transaction."""
    from alembic.config import Config

    made = Config(attributes={"connection": conn})
    made.set_main_option("script_location", str(resources.migrations()).replace("%", "%%"))
    return made


def _upgrade(conn: Connection, revision: str) -> None:
    found = _revision(conn)
    if found is not None and not _is_known(found):
        raise SCHEMA_NEWER(f"it is at {found}, this version knows up to {HEAD}")
    from alembic import command

    command.upgrade(config(conn), revision)


def _revision(conn: Connection) -> str | None:
    if not inspect(conn).has_table("alembic_version"):
        return None
    revision: str | None = conn.execute(text("SELECT version_num FROM alembic_version")).scalar()
    return revision


def _is_known(revision: str) -> bool:
    from alembic.script import ScriptDirectory

    return revision in {script.revision for script in ScriptDirectory.from_config(config()).walk_revisions()}


def on_database(url: str, work: Callable[[Connection], T]) -> T:
    """Run `work` alone on a database, in one transaction, as an upgrade does. Blocks, as `upgrade` does."""
    return _alone(parse(url), work)


def _alone(url: URL, work: Callable[[Connection], T]) -> T:
    with opening(url):
        return _on_sqlite(url, work) if is_sqlite(url) else asyncio.run(_on_postgresql(url, work))


def _on_sqlite(url: URL, work: Callable[[Connection], T]) -> T:
    # A migration that rebuilds a table drops it, which enforced foreign keys would forbid; they are checked at the end.
    engine = writing_engine(url, lock_timeout_seconds=_LOCK_TIMEOUT_SECONDS, foreign_keys=False)
    try:
        with engine.begin() as conn:
            result = work(conn)
            orphans = conn.exec_driver_sql("PRAGMA foreign_key_check").all()
            if orphans:
                raise DAMAGED(f"{len(orphans)} rows name others that do not exist")
            return result
    finally:
        engine.dispose()


async def _on_postgresql(url: URL, work: Callable[[Connection], T]) -> T:
    engine = async_engine(url, lock_timeout_seconds=_LOCK_TIMEOUT_SECONDS)
    try:
        async with engine.begin() as conn:
            await conn.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _ADVISORY_LOCK})
            return await conn.run_sync(work)
    finally:
        await engine.dispose()
