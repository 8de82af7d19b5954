"""Whether the database can be the daemon's memory: reached, at head, writable, and what its server keeps to itself."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Final

from sqlalchemy import Connection, text

from oracle.config import Config
from oracle.config.values import without_secrets
from oracle.core.errors import OracleError
from oracle.pipeline import relay
from oracle.pipeline.clock import Clock
from oracle.pipeline.findings import CheckResult, Health, failed, ok
from oracle.store import notices
from oracle.store.engine import Store
from oracle.store.urls import is_sqlite, parse

NAME: Final = "database"
NOTICE_SECONDS: Final = 5.0

CONNECTIONS: Final = 16
"""What one daemon opens at most: the pool, and the line to the others."""

_FACTS: Final = """
    SELECT current_setting('server_version'), pg_is_in_recovery(),
    has_table_privilege('requests', 'INSERT') AND has_table_privilege('requests', 'UPDATE'),
    current_setting('max_connections')::int
    - (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend')
"""


async def checked(config: Config) -> AsyncIterator[CheckResult]:
    url = config.database.url
    try:
        store = await Store.open(url)
        try:
            if is_sqlite(parse(url)):
                yield ok(NAME, f"{without_secrets(url)}, schema up to date")
                return
            async for result in _server(store, url):
                yield result
        finally:
            await store.close()
    except OracleError as error:
        yield failed(NAME, error)


async def _server(store: Store, url: str) -> AsyncIterator[CheckResult]:
    version, is_standby, is_writable, free = await store.read(_facts)
    where = f"{without_secrets(url)}, PostgreSQL {version}"
    if is_standby:
        yield CheckResult(NAME, Health.FAILED, f"{where} is a standby", "Name the primary in database.url.")
        return
    if not is_writable:
        yield CheckResult(
            NAME, Health.FAILED, f"{where}: the role may not write", "Make the role the owner of the database's tables."
        )
        return
    await relay.check_time(store, Clock())
    yield ok(NAME, f"{where}, schema up to date, commits are durable")
    if free < CONNECTIONS:
        yield CheckResult(
            NAME,
            Health.WARNING,
            f"{free} connections are left, a daemon opens up to {CONNECTIONS}",
            "Raise max_connections of the server.",
        )
    if not await _is_heard(url):
        yield CheckResult(
            NAME,
            Health.WARNING,
            "notices do not arrive, so daemons wake one another only once a second",
            "Let a pooler keep sessions (PgBouncer: pool_mode = session), or connect to the server itself.",
        )


def _facts(conn: Connection) -> tuple[str, bool, bool, int]:
    version, is_standby, is_writable, free = conn.execute(text(_FACTS)).one()
    return version, is_standby, is_writable, free


async def _is_heard(url: str) -> bool:
    heard = asyncio.Event()
    try:
        async with (
            notices.line(url, "oracle-doctor", lambda _: heard.set()),
            notices.line(url, "oracle-doctor", lambda _: None) as line,
        ):
            await line.say(["test"])
            async with asyncio.timeout(NOTICE_SECONDS):
                await heard.wait()
    except TimeoutError:
        return False
    return True
