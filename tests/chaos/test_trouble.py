"""What else befalls a machine: it is suspended, its disk is full, its database locked, its clock set."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import signal
import sqlite3
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from chaos_laws import broken_laws
from chaos_length import IS_LONG, chance
from chaos_load import QUEUES, ask_for
from chaos_town import Oracle, Town, town
from chaos_wait import until
from price_server import price_server

from oracle.core.request import Status
from oracle.providers.errors import PRICE_STALE

pytestmark = [pytest.mark.localnet, pytest.mark.chaos, pytest.mark.timeout(900)]

LEASE_SECONDS = 180.0
LOAD_SECONDS = 1.5
TROUBLE_SECONDS = 100.0 if IS_LONG else 1.5
"""The long one outlasts the patience of every write."""


@asynccontextmanager
async def under_load(place: Town, name: str, **life: object) -> AsyncIterator[Oracle]:
    """An oracle with requests on their way; whatever happens in the block, they must all end well after it."""
    _, random = chance()
    oracle = await place.oracle(name, queues=QUEUES)
    oracle.launch(**life)
    load = asyncio.create_task(ask_for(oracle, random, seconds=LOAD_SECONDS, per_second=8))
    await until_busy(oracle)
    yield oracle
    await load
    assert oracle.daemon.alive, oracle.tail()
    await oracle.at_rest()
    assert not await broken_laws(place, as_expected=False)


async def until_busy(oracle: Oracle) -> None:
    async def look() -> bool:
        return bool(oracle.select("SELECT 1 FROM attempts"))

    await until(look, "the first purchase", 60)


async def test_a_daemon_that_is_stopped_past_its_leases_and_continued_keeps_every_law(tmp_path: Path) -> None:
    """As a suspended machine is: for the process no time has passed, for the database all leases have lapsed."""
    suspended_at = 1.2
    async with town(tmp_path) as place:
        began = time.monotonic()
        async with under_load(place, "stopped", clock_steps=((suspended_at, 2 * LEASE_SECONDS),)) as oracle:
            oracle.daemon.send(signal.SIGSTOP)
            await asyncio.sleep(began + suspended_at + 0.5 - time.monotonic())
            oracle.daemon.send(signal.SIGCONT)


@pytest.mark.long
@pytest.mark.skipif(not IS_LONG, reason="waits until a lease has really lapsed: `make test-all`")
async def test_a_daemon_that_stands_still_for_longer_than_a_lease_keeps_every_law(tmp_path: Path) -> None:
    async with town(tmp_path) as place, under_load(place, "stopped") as oracle:
        oracle.daemon.send(signal.SIGSTOP)
        await asyncio.sleep(LEASE_SECONDS + 10)
        oracle.daemon.send(signal.SIGCONT)


async def test_files_that_cannot_grow_stop_the_work_and_lose_nothing(tmp_path: Path) -> None:
    """No file may grow, the log included, until there is room again."""
    async with town(tmp_path) as place, under_load(place, "full") as oracle:
        unlimited = resource.prlimit(oracle.daemon.pid, resource.RLIMIT_FSIZE, (1, resource.RLIM_INFINITY))
        await asyncio.sleep(TROUBLE_SECONDS)
        resource.prlimit(oracle.daemon.pid, resource.RLIMIT_FSIZE, unlimited)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "full"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", disk], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"a small disk cannot be mounted here: {mounted.stderr.decode().strip()}")
    yield disk
    subprocess.run(["umount", "--lazy", disk], check=True)


async def test_a_full_disk_stops_the_work_and_loses_nothing(tmp_path: Path, small_disk: Path) -> None:
    async with town(tmp_path) as place, under_load(place, small_disk.name):
        filler = small_disk / "filler"
        fill(filler)
        await asyncio.sleep(TROUBLE_SECONDS)
        filler.unlink()


def fill(filler: Path) -> None:
    with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))


async def test_a_database_that_another_process_locks_is_waited_for(tmp_path: Path) -> None:
    options = {"lock_timeout_seconds": 0.3, "patience_seconds": 0.0}
    impatient = ("oracle.store.engine:Store.open.__func__.__kwdefaults__", options)
    async with town(tmp_path) as place, under_load(place, "locked", also_replaced=(impatient,)) as oracle:
        shell = sqlite3.connect(oracle.database, isolation_level=None, timeout=10)
        shell.execute("BEGIN IMMEDIATE")
        await asyncio.sleep(TROUBLE_SECONDS)
        shell.execute("ROLLBACK")
        shell.close()


async def test_a_clock_that_jumps_an_hour_ahead_and_back_again_delays_nothing(tmp_path: Path) -> None:
    steps = ((0.7, 3_600.0), (1.4, -7_200.0))
    async with town(tmp_path) as place, under_load(place, "jumping", clock_steps=steps) as oracle:
        await asyncio.sleep(1.8)
        await oracle.daemon.kill()
        # The next life knows nothing of it: the database is an hour ahead of its clock.
        oracle.launch(clock_steps=((0.0, -3_600.0),))


async def test_a_first_start_that_is_killed_at_any_moment_leaves_nothing_in_the_way_of_the_next(tmp_path: Path) -> None:
    _, random = chance()

    async def start_again_and_again(place: Town, name: str) -> None:
        oracle = await place.oracle(name)
        longest = 0.1
        while not oracle.database.exists():
            oracle.launch()
            await asyncio.sleep(random.uniform(0.02, longest))
            await oracle.daemon.kill()
            # A busy machine needs longer to get as far as the database.
            longest *= 1.2
        await oracle.ask("free")
        oracle.launch()
        await oracle.at_rest()

    async with town(tmp_path) as place:
        await asyncio.gather(*(start_again_and_again(place, f"first-{number}") for number in range(6)))
        assert not await broken_laws(place, as_expected=True)


@pytest.mark.parametrize("side", ["before", "after"])
async def test_what_has_waited_for_a_price_goes_on_wherever_the_daemon_is_killed_as_it_is_read_again(
    tmp_path: Path, side: str
) -> None:
    async with price_server() as prices, town(tmp_path) as place:
        rates = {"sol_usd_url": prices.url, "refresh_seconds": 0.05, "timeout_seconds": 0.5, "max_age_seconds": 1.0}
        oracle = await place.oracle("priced", rates=rates)
        oracle.replaced += (("oracle.providers.price_feed.AGAIN_SECONDS", 1.0),)
        oracle.launch(crash_at=f"{side} store.write prices.run requests.wake")

        async def one_waits() -> bool:
            if oracle.select(f"SELECT 1 FROM requests WHERE error_code = '{PRICE_STALE.code}'"):
                return True
            await oracle.ask("dear", end=(Status.FULFILLED, Status.REJECTED))
            return False

        await until(one_waits, "a request that waits for a price", 60)
        prices.says({"solana": {"usd": 100}})
        assert await oracle.daemon.wait(60) == -signal.SIGKILL
        oracle.launch()
        await oracle.at_rest()
        assert not await broken_laws(place, as_expected=True)
