"""Daemons on one database wake one another, and do without where they cannot."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
import pytest
from chaos_wait import until
from postgres_server import Server
from sqlalchemy import make_url

from oracle.core.errors import OracleError
from oracle.pipeline import relay
from oracle.pipeline.clock import Clock
from oracle.pipeline.context import Bells
from oracle.store import marks, notices
from oracle.store.engine import Store
from oracle.store.errors import CANNOT_OPEN, CLOCKS_APART, CONNECTION_LOST

pytestmark = pytest.mark.postgres

PATIENCE_SECONDS = 30.0


async def test_a_bell_that_one_daemon_rings_wakes_the_loops_of_the_others_of_its_key(url: str) -> None:
    async with (
        relayed(url, "ours") as here,
        relayed(url, "ours") as there,
        relayed(url, "theirs") as stranger,
        relayed(url, "theirs") as neighbour,
    ):
        here.ring("seen")
        assert await there.wait("seen", PATIENCE_SECONDS)
        there.ring("seen")
        assert await here.wait("seen", PATIENCE_SECONDS)
        stranger.ring("running")
        assert await neighbour.wait("running", PATIENCE_SECONDS)
        # Everybody hears what is said in one order, so that `running` would be heard by now.
        here.ring("last")
        assert await there.wait("last", PATIENCE_SECONDS)
        assert not await there.wait("running", 0.0)


async def test_what_another_has_rung_is_not_passed_back_to_it(url: str) -> None:
    async with relayed(url, "ours") as here, relayed(url, "ours") as there:
        here.ring("seen")
        assert await there.wait("seen", PATIENCE_SECONDS)
        assert await there.rung(0.0) == set()


async def test_a_line_that_breaks_is_opened_anew_and_every_loop_looks_for_what_was_lost(
    url: str, server: Server
) -> None:
    async with relayed(url, "ours") as here, relayed(url, "ours") as there:
        assert not await there.wait("seen", 0.0)
        assert await cut_all(server, url) == 2
        # Nobody says a word: it is the line's return that rings.
        assert await there.wait("seen", PATIENCE_SECONDS)
        here.ring("running")
        assert await there.wait("running", PATIENCE_SECONDS)


async def test_a_listening_connection_holds_no_transaction_open(url: str, server: Server) -> None:
    async with relayed(url, "ours") as here, relayed(url, "ours") as there:
        here.ring("seen")
        assert await there.wait("seen", PATIENCE_SECONDS)
        async with psql(server, url) as connection:
            states = await connection.fetch(
                "SELECT state FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        assert [row["state"] for row in states] == ["idle", "idle"]


async def test_a_word_that_cannot_be_said_is_told(url: str, server: Server) -> None:
    async with notices.line(url, "channel", print) as line:
        assert abs(await line.say([]) - Clock().now_ms()) < 60_000
        await cut_all(server, url)
        with pytest.raises(OracleError) as raised:
            await line.say(["word"])
    assert raised.value.error is CONNECTION_LOST


async def test_a_line_to_a_server_that_is_not_there_is_told(server: Server) -> None:
    with pytest.raises(OracleError) as raised:
        async with notices.line(f"postgresql://postgres@/none?host={server.directory}", "channel", print):
            pass
    assert raised.value.error in (CANNOT_OPEN, CONNECTION_LOST)


async def test_a_daemon_that_was_stopped_in_the_middle_of_a_statement_keeps_its_locks_from_nobody(
    url: str, store: Store, server: Server
) -> None:
    """Half of a statement's messages sent: no time-out of the server's sees it."""
    await store.write(lambda c: marks.put(c, "mark", 1))
    stopped = await asyncpg.connect(
        user="postgres",
        database=make_url(url).database,
        host=server.directory,
        server_settings={"application_name": "inference-oracle"},
    )
    await stopped.execute("BEGIN; UPDATE marks SET value = '2'")
    # Asked for and not executed yet: for the server it is at work.
    await stopped.prepare("SELECT 1")
    async with psql(server, url) as connection:
        state = "SELECT state FROM pg_stat_activity WHERE pid = $1"
        assert await connection.fetchval(state, stopped.get_server_pid()) == "active"
    async with notices.line(url, "channel", print) as line:
        assert await line.end_standstills(3_600.0) == 0
        await until(lambda: line.end_standstills(0.1), "its end", PATIENCE_SECONDS)
    await store.write(lambda c: marks.put(c, "mark", 3))
    assert await store.read(lambda c: marks.get(c, "mark")) == 3
    stopped.terminate()


async def test_a_clock_far_from_the_servers_is_refused(store: Store) -> None:
    await relay.check_time(store, Clock())
    for seconds in (-60, 60):
        with pytest.raises(OracleError) as raised:
            await relay.check_time(store, shifted(seconds))
        assert raised.value.error is CLOCKS_APART


def shifted(seconds: int) -> Clock:
    now_ms = Clock().now_ms()
    return Clock(wall_ns=lambda: (now_ms + 1_000 * seconds) * 1_000_000)


@asynccontextmanager
async def relayed(url: str, operator: str) -> AsyncIterator[Bells]:
    """The bells of a daemon, once it is listening."""
    bells = Bells()
    task = asyncio.create_task(relay.run(url, operator, bells, Clock()))
    assert not await bells.wait("listening", 0.0)
    # The line's opening rings whatever is waited for.
    assert await bells.wait("listening", PATIENCE_SECONDS)
    try:
        yield bells
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@asynccontextmanager
async def psql(server: Server, url: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(user="postgres", database=make_url(url).database, host=server.directory)
    yield connection
    await connection.close()


async def cut_all(server: Server, url: str) -> int:
    """End every other session on the database; how many."""
    async with psql(server, url) as connection:
        cut = await connection.fetch(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
    return len(cut)
