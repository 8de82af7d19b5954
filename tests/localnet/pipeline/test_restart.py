"""A daemon that dies or stops loses nothing, buys nothing twice, and never shares its key or its file."""

import signal
from collections.abc import AsyncIterator, Callable

import pytest
import tomlkit
from pipeline_world import World, until
from sqlalchemy import update

from oracle.client.verify import verify
from oracle.core.request import Status
from oracle.store import attempts, requests, schema
from oracle.store.engine import Store
from oracle.testing.daemon import DaemonProcess

pytestmark = [pytest.mark.localnet, pytest.mark.chaos]

Processes = Callable[..., DaemonProcess]


@pytest.fixture
async def process(world: World) -> AsyncIterator[Processes]:
    """Daemons as processes, made as the world's settings are then. None outlives its test, however that ends."""
    made: list[DaemonProcess] = []

    def make(log: str = "daemon.log") -> DaemonProcess:
        config = world.directory / "oracle.toml"
        config.write_text(tomlkit.dumps(world.settings))
        base_uri, environment = world.settings["operator"]["base_uri"], {"XDG_RUNTIME_DIR": str(world.directory)}
        made.append(DaemonProcess(config, base_uri, world.directory / log, environment))
        return made[-1]

    yield make
    for daemon in made:
        if daemon.alive:
            await daemon.kill()


async def test_requests_in_every_state_survive_a_kill_and_are_answered_once(world: World, process: Processes) -> None:
    daemon = process()
    await daemon.start()
    world.model.faults.add("slow", seconds=1.0, count=None)
    early = [await world.submit(nonce=n) for n in range(3)]

    async def asked() -> bool:
        return len(world.model.requests) >= 1 or len(world.model_url.calls) >= 1

    await until(asked, "the first job")
    await daemon.kill()
    late = [await world.submit(nonce=100 + n) for n in range(2)]
    world.model.faults.clear()
    await daemon.start()
    for submitted in [*early, *late]:
        assert (await world.ended(submitted)).header.status is Status.FULFILLED
    assert await daemon.stop() == 0
    store = await Store.open(world.config().database.url)
    try:
        for submitted in [*early, *late]:
            row = await store.read(lambda c, s=submitted: requests.latest(c, str(s.address)))
            assert row is not None
            tried = await store.read(lambda c, row=row: attempts.of(c, row.id))
            assert [attempt.state for attempt in tried].count("succeeded") == 1
    finally:
        await store.close()


async def test_what_was_settled_before_a_kill_is_served_after_it(world: World, process: Processes) -> None:
    daemon = process()
    await daemon.start()
    submitted = await world.submit()
    await world.ended(submitted)
    await daemon.kill()
    await daemon.start()

    async def served() -> bool:
        return (await verify(world.rpc, world.program_id, submitted.address)).ok

    await until(served, "the verified answer")
    await daemon.stop()


async def test_sigterm_begins_nothing_new_and_loses_nothing(world: World, process: Processes) -> None:
    daemon = process()
    await daemon.start()
    world.model.faults.add("slow", seconds=0.5, count=None)
    begun = await world.submit(nonce=1)

    async def asked() -> bool:
        return len(world.model_url.calls) >= 1

    await until(asked, "the job")
    daemon.send(signal.SIGTERM)
    later = await world.submit(nonce=2)
    assert await daemon.wait() == 0
    assert len(world.model_url.calls) == 1
    await daemon.start()
    for submitted in (begun, later):
        assert (await world.ended(submitted)).header.status is Status.FULFILLED
    await daemon.stop()


async def test_the_time_in_which_the_daemon_was_down_is_not_counted_as_time_of_a_call_that_begins_anew(
    world: World,
    process: Processes,
) -> None:
    daemon = process()
    await daemon.start()
    world.model.faults.add("slow", seconds=60.0, count=None)
    submitted = await world.submit()
    store = await Store.open(world.config().database.url)
    try:

        async def runs() -> bool:
            return [row.state for row in await store.read(lambda c: attempts.of(c, 1))] == ["running"]

        await until(runs, "the call")
        await daemon.kill()
        hour_ago = update(schema.attempts).values(started_at_ms=schema.attempts.c.started_at_ms - 3_600_000)
        await store.write(lambda c: c.execute(hour_ago))
    finally:
        await store.close()
    world.model.faults.clear()
    world.model.faults.add("slow", seconds=1.0, count=None)  # so that it is asked after while it runs
    await daemon.start()
    assert (await world.ended(submitted)).header.status is Status.FULFILLED
    await daemon.stop()


async def test_a_second_daemon_on_the_same_file_is_refused(world: World, process: Processes) -> None:
    first = process()
    await first.start()
    second = process("second.log")
    second.launch()
    assert await second.wait() == 1
    said = second.log.read_text()
    assert "ORC-STORE-021" in said
    assert str(first.pid) in said
    await first.stop()


async def test_a_second_daemon_with_the_same_key_and_another_file_is_refused(world: World, process: Processes) -> None:
    first = process()
    await first.start()
    world.settings["database"] = {"url": "sqlite:///other.sqlite"}
    second = process("second.log")
    second.launch()
    assert await second.wait() == 1
    assert "ORC-STORE-021" in second.log.read_text()
    await first.stop()


async def test_a_request_made_while_the_daemon_was_down_is_found(world: World, process: Processes) -> None:
    submitted = await world.submit()
    await process().start()
    assert (await world.ended(submitted)).header.status is Status.FULFILLED
