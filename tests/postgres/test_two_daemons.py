"""Two daemons of one operator key on one PostgreSQL database: one dies, one stands still, the server itself crashes."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from chaos_laws import broken_laws, history, paid_jobs
from chaos_length import IS_LONG, Say, chance, seconds
from chaos_load import QUEUES, ask_for
from chaos_town import Oracle, Town, town
from chaos_wait import until
from postgres_books import Books
from postgres_server import Server

from oracle.core.request import Status
from oracle.testing.forked import ForkedDaemon

pytestmark = [
    pytest.mark.postgres,
    pytest.mark.localnet,
    pytest.mark.chaos,
    pytest.mark.timeout(2_400 if IS_LONG else 300),
]

LEASE_SECONDS = 15.0 if IS_LONG else 5.0
"""The long run keeps the machine busy with other tests, and a step that takes longer than its lease is done twice."""

LOAD_SECONDS = 1.5

SHORT_LEASES = (
    ("oracle.pipeline.context.Context.lease_ms", int(1000 * LEASE_SECONDS)),
    ("oracle.pipeline.submit.CALL_SECONDS", 3.0),
    ("oracle.pipeline.daemon.PATIENCE_SECONDS", 2.0),
    ("oracle.pipeline.relay.LOOK_SECONDS", 0.5),
    ("oracle.pipeline.relay.STANDSTILL_SECONDS", 1.0),
)
"""A lease still outlives the calls that are made under it, and what waits for a lock the daemon that holds it."""


@pytest.fixture
def books(url: str, server: Server) -> Books:
    return Books(server.directory, url)


async def test_a_call_that_runs_in_one_daemon_is_not_bought_again_by_the_other(
    tmp_path: Path, url: str, books: Books
) -> None:
    """A chat API knows no look-up: only the daemon that made a call can tell that it is under way."""
    async with town(tmp_path) as place:
        place.models["dear"].word_seconds = 0.2
        oracle = await place.oracle("undisturbed", database={"url": url}, daemon={"concurrency": 4}, books=books)
        for daemon in oracle.daemons:
            oracle.launch(daemon=daemon)
        for _ in range(12):
            await oracle.ask("dear")
        await oracle.at_rest()
        found = await place.node.call(history)
        assert {paid_jobs(oracle, found, asked) for asked in oracle.asked} == {1}
        assert not await broken_laws(place, as_expected=True)


@pytest.mark.parametrize("side", ["before", "after"])
async def test_a_daemon_that_is_killed_as_it_takes_the_key_leaves_it_to_the_next(
    tmp_path: Path, url: str, books: Books, side: str
) -> None:
    async with town(tmp_path) as place:
        oracle = await place.oracle("key", database={"url": url}, books=books)
        oracle.launch(crash_at=f"{side} store.write daemon.hold_key marks.keep")
        assert await oracle.daemon.wait(60) == -signal.SIGKILL
        for daemon in oracle.daemons:
            oracle.launch(daemon=daemon)
        await oracle.ask("free")
        await oracle.at_rest()
        assert not await broken_laws(place, as_expected=True)


async def test_what_a_killed_daemon_held_is_rescued_by_the_other(tmp_path: Path, url: str, books: Books) -> None:
    async with town(tmp_path) as place, under_load(place, "killed", url, books) as oracle:
        await holding(oracle, oracle.daemon)
        await oracle.daemon.kill()


async def test_a_daemon_that_is_continued_after_its_leases_have_lapsed_buys_and_settles_nothing_twice(
    tmp_path: Path, url: str, books: Books
) -> None:
    # Only what it has bought itself does it collect, so that both have bought by then.
    point, record = "before store.write poll.collect collect_all", tmp_path / "points"
    async with town(tmp_path) as place:
        async with under_load(place, "stopped", url, books, stop_at=point, record=record) as oracle:
            await until(lambda: reached(record, point), point, 60)
            # The other has ended everything when it comes back.
            await asyncio.sleep(LOAD_SECONDS)
            await oracle.at_rest()
            oracle.daemon.send(signal.SIGCONT)
            await until(lambda: said(oracle.daemon, "lease lost"), "a lost lease", 60)
        # It goes on with new work as the only one.
        assert oracle.daemon.alive
        await oracle.second.kill()
        await oracle.ask("free")
        await oracle.at_rest()
        assert not await broken_laws(place, as_expected=True)


@pytest.mark.parametrize("point", ["before http.POST nosana /jobs/list", "after http.POST nosana /jobs/list"])
async def test_a_purchase_in_which_a_daemon_is_stopped_past_its_lease_is_made_once(
    tmp_path: Path, url: str, books: Books, point: str
) -> None:
    async with town(tmp_path) as place:
        oracle = await place.oracle("late", database={"url": url}, books=books)
        record = tmp_path / "points"
        oracle.launch(also_replaced=SHORT_LEASES, record=record, stop_at=point)
        await oracle.ask("gpu")
        await until(lambda: reached(record, point), point, 60)
        oracle.launch(daemon=oracle.second, also_replaced=SHORT_LEASES)
        await oracle.at_rest()
        oracle.daemon.send(signal.SIGCONT)
        await until(lambda: said(oracle.daemon, "lease lost"), "a lost lease", 60)
        assert not await broken_laws(place, as_expected=True)


async def test_a_server_that_crashes_in_the_middle_of_the_work_loses_nothing_of_it(
    tmp_path: Path, url: str, books: Books, server: Server
) -> None:
    async with town(tmp_path) as place:
        async with under_load(place, "served", url, books) as oracle:
            await asyncio.to_thread(server.crash_and_restart)
        for daemon in oracle.daemons:
            assert daemon.alive, oracle.tail()


async def test_operators_of_one_database_leave_each_other_s_requests_alone(
    tmp_path: Path, url: str, books: Books
) -> None:
    async with town(tmp_path) as place:
        oracles = [await place.oracle(name, database={"url": url}, books=books) for name in ("one", "other")]
        for oracle in oracles:
            oracle.launch()
            for _ in range(3):
                await oracle.ask("free")
        for oracle in oracles:
            await oracle.at_rest()
        breaches = await broken_laws(place, as_expected=True)
        owners = set(books("SELECT r.operator, s.operator FROM requests r JOIN settlements s ON s.request_id = r.id"))
    assert owners == {(str(oracle.operator.pubkey()),) * 2 for oracle in oracles}
    assert not breaches


@pytest.mark.long
@pytest.mark.skipif(not IS_LONG, reason="ten minutes of it: `make test-all`")
async def test_two_daemons_that_are_killed_stopped_and_cut_off_at_random_keep_every_law(
    tmp_path: Path, url: str, books: Books, server: Server, say: Say
) -> None:
    seed, random = chance()
    async with town(tmp_path) as place:
        oracle = await place.oracle("two", queues=QUEUES, database={"url": url}, books=books)
        daemons = oracle.daemons
        ends = time.monotonic() + seconds(30)
        # Fewer for Nosana than above: in ten minutes the look-ups of an hour would be used up.
        load = asyncio.create_task(
            ask_for(oracle, random, seconds=ends - time.monotonic(), per_second=4, nosana_every=10)
        )
        troubles = 0
        while time.monotonic() < ends:
            for daemon in daemons:
                if not daemon.alive:
                    oracle.launch(daemon=daemon, also_replaced=SHORT_LEASES)
            await asyncio.sleep(random.uniform(0.2, 3.0))
            victim = random.choice(daemons)
            match random.choice(("kill", "stop", "server")):
                case "kill":
                    await victim.kill()
                case "stop":
                    victim.send(signal.SIGSTOP)
                    await asyncio.sleep(random.uniform(0.5, 2.5) * LEASE_SECONDS)
                    victim.send(signal.SIGCONT)
                case "server":
                    await asyncio.to_thread(server.crash_and_restart)
            troubles += 1
        await load
        for daemon in daemons:
            if not daemon.alive:
                oracle.launch(daemon=daemon, also_replaced=SHORT_LEASES)
        say(f"{troubles} troubles, {len(oracle.asked)} requests, seed {seed}")
        await oracle.at_rest()
        breaches = await broken_laws(place, as_expected=False)
    assert not breaches, f"ORACLE_CHAOS_SEED={seed}\n" + "\n".join(breaches)


@asynccontextmanager
async def under_load(place: Town, name: str, url: str, books: Books, **life: Any) -> AsyncIterator[Oracle]:
    """Two daemons with requests on their way; whatever happens in the block, they must all end well after it. `life` is
    that of the first one."""
    _, random = chance()
    # Few hands each, so that there is always work left for the other.
    oracle = await place.oracle(name, queues=QUEUES, database={"url": url}, daemon={"concurrency": 4}, books=books)
    oracle.launch(also_replaced=SHORT_LEASES, **life)
    oracle.launch(daemon=oracle.second, also_replaced=SHORT_LEASES)
    load = asyncio.create_task(ask_for(oracle, random, seconds=LOAD_SECONDS, per_second=12, nosana_every=3))
    try:
        await until(lambda: both_have_bought(oracle), "the first purchase of each", 60, pause_seconds=0.2)
        yield oracle
        await load
        await oracle.at_rest()
        assert not await broken_laws(place, as_expected=True)
    finally:
        load.cancel()
        await asyncio.gather(load, return_exceptions=True)


async def both_have_bought(oracle: Oracle) -> bool:
    logs = [daemon.log for daemon in oracle.daemons]
    if all(log.exists() and "job bought" in log.read_text() for log in logs):
        return True
    await oracle.ask("free")
    return False


async def holding(oracle: Oracle, daemon: ForkedDaemon) -> None:
    """Stop a daemon in the middle of a step: what it held then it still holds."""

    async def stopped() -> bool:
        with contextlib.suppress(ProcessLookupError):
            daemon.send(signal.SIGSTOP)
        await asyncio.sleep(0.1)  # what the server was told before still takes effect
        if oracle.select(
            f"SELECT 1 FROM requests WHERE lease_owner LIKE '%-{daemon.pid}-%' AND NOT lease_owner LIKE '% keeps'"
        ):
            return True
        daemon.send(signal.SIGCONT)
        await oracle.ask("dear", end=(Status.FULFILLED, Status.REJECTED))
        return False

    await until(stopped, "a lease in its hand", 60)


async def reached(record: Path, point: str) -> bool:
    return point in lines(record)


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


async def said(daemon: ForkedDaemon, words: str) -> bool:
    return words in daemon.log.read_text()
