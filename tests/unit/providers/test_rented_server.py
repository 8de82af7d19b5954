"""A rented server: one at a time, found again after a crash, given back when idle, never left running unseen."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

import pytest
from provider_wire import TASK
from rented_town import NAMING, PATIENCE, FakeClock, FakeLandlord, rented

from oracle.core.errors import OracleError
from oracle.providers import errors
from oracle.providers.rented.landlord import Naming, RentalState
from oracle.providers.rented.server import RentedServer


@pytest.fixture
def landlord() -> FakeLandlord:
    return FakeLandlord(FakeClock())


async def ask(server: RentedServer, seconds: float = 60.0) -> str:
    """The id of the rental that answers."""
    async with server.use(seconds) as held:
        return (await held.server.complete(TASK)).text


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110 (nothing tells when it holds)
            await asyncio.sleep(0)


async def test_the_first_request_rents_and_the_next_uses_the_same_server(landlord: FakeLandlord) -> None:
    server = rented(landlord)
    assert [await ask(server), await ask(server)] == ["id-1", "id-1"]
    assert landlord.created == ["oracle-fast-0123abcd-1"]


async def test_a_hundred_requests_at_once_rent_one_server(landlord: FakeLandlord) -> None:
    landlord.boots = 3
    server = rented(landlord)
    assert set(await asyncio.gather(*(ask(server) for _ in range(100)))) == {"id-1"}
    assert len(landlord.created) == 1


async def test_a_request_waits_until_the_server_serves(landlord: FakeLandlord) -> None:
    landlord.boots = 4
    began = landlord.clock()
    await ask(rented(landlord))
    assert landlord.clock() - began == 4 * 5.0


async def test_whoever_cannot_wait_has_sent_nothing_and_the_server_comes_up_all_the_same(
    landlord: FakeLandlord,
) -> None:
    landlord.boots = 10
    server = rented(landlord)
    with pytest.raises(OracleError) as raised:
        await ask(server, seconds=0.0)
    assert raised.value.error is errors.NOT_SENT
    await until(lambda: server.is_serving)
    assert await ask(server) == "id-1"


async def test_after_a_crash_the_server_is_found_by_its_name_and_used(landlord: FakeLandlord) -> None:
    await ask(rented(landlord))
    # kill -9: nothing is given back, nothing is remembered.
    after = rented(landlord)
    await after.look_after()
    assert await ask(after) == "id-1"
    assert len(landlord.created) == 1


async def test_a_server_of_another_configuration_is_a_stray_and_ended(landlord: FakeLandlord) -> None:
    await ask(rented(landlord, naming=Naming("oracle-fast", "ffffffff")))
    server = rented(landlord)
    await server.look_after()
    assert landlord.running() == []
    assert await ask(server) == "id-2"
    assert landlord.created[-1] == "oracle-fast-0123abcd-2"


async def test_of_two_servers_of_one_name_one_is_kept(landlord: FakeLandlord) -> None:
    for _ in range(2):
        landlord.add("oracle-fast-0123abcd-1")
        landlord.clock.time += 1
    await rented(landlord).look_after()
    assert landlord.running() == ["id-2"]


@pytest.mark.parametrize("name", ["oracle-fast-eu-0123abcd-1", "oracle-fast", "oracle-fast-0123abcd-x", "my-own-thing"])
async def test_what_is_not_ours_is_left_alone(landlord: FakeLandlord, name: str) -> None:
    landlord.add(name)
    server = rented(landlord)
    await server.look_after()
    assert landlord.running() == ["id-1"]
    assert await ask(server) == "id-2"


async def test_an_idle_server_is_given_back_and_a_busy_one_is_not(landlord: FakeLandlord) -> None:
    server = rented(landlord)
    async with server.use(5.0):
        landlord.clock.time += 10_000
        await server.look_after()
        assert landlord.running() == ["id-1"]
    landlord.clock.time += 299
    await server.look_after()
    assert landlord.running() == ["id-1"]
    landlord.clock.time += 1
    await server.look_after()
    assert landlord.running() == []
    assert landlord.servers[0].is_closed


async def test_a_server_that_was_taken_up_and_that_nobody_needs_is_given_back(landlord: FakeLandlord) -> None:
    landlord.add("oracle-fast-0123abcd-7")
    server = rented(landlord)
    await server.look_after()
    assert landlord.running() == ["id-1"]
    landlord.clock.time += 300
    await server.look_after()
    assert landlord.running() == []


async def test_the_tender_looks_at_once_and_then_on_a_timer(landlord: FakeLandlord) -> None:
    landlord.add("oracle-fast-ffffffff-1")
    tending = asyncio.create_task(rented(landlord).tend())
    await until(lambda: landlord.running() == [])
    assert landlord.clock() == 1_000.0
    landlord.add("oracle-fast-ffffffff-2")
    await until(lambda: landlord.running() == [])
    tending.cancel()


async def test_a_stray_that_cannot_be_ended_is_ended_at_the_next_look(landlord: FakeLandlord) -> None:
    landlord.add("oracle-fast-ffffffff-1")
    landlord.destroy_fails = [errors.UNAVAILABLE("busy")]
    server = rented(landlord)
    await server.look_after()
    assert landlord.running() == ["id-1"]
    await server.look_after()
    assert landlord.running() == []


async def test_an_unreadable_list_ends_nothing_and_rents_nothing(landlord: FakeLandlord) -> None:
    landlord.add("oracle-fast-0123abcd-1")
    landlord.list_fails = [errors.UNAVAILABLE("busy")]
    server = rented(landlord)
    with pytest.raises(OracleError):
        await ask(server)
    assert (landlord.running(), landlord.created) == (["id-1"], [])


async def test_closing_gives_back_what_this_process_rented(landlord: FakeLandlord) -> None:
    server = rented(landlord)
    await ask(server)
    await server.close()
    assert landlord.running() == []
    assert landlord.is_closed


async def test_closing_while_it_comes_up_gives_it_back(landlord: FakeLandlord) -> None:
    landlord.boots = 1_000_000
    server = rented(landlord)
    with pytest.raises(OracleError):
        await ask(server, seconds=0.0)
    await until(lambda: bool(landlord.servers))
    await server.close()
    assert landlord.running() == []


async def test_closing_without_having_used_or_tended_anything_ends_nothing(landlord: FakeLandlord) -> None:
    """A second program, such as `oracle doctor`, must not end the daemon's server."""
    landlord.add("oracle-fast-0123abcd-1")
    await rented(landlord).close()
    assert landlord.running() == ["id-1"]


async def test_a_guest_leaves_the_server_that_it_found(landlord: FakeLandlord) -> None:
    landlord.add("oracle-fast-0123abcd-1")
    guest = rented(landlord)
    assert await ask(guest) == "id-1"
    await guest.close()
    assert landlord.running() == ["id-1"]


async def test_a_lost_purchase_is_looked_up_and_not_repeated(landlord: FakeLandlord) -> None:
    landlord.create_is_lost = True
    assert await ask(rented(landlord)) == "id-1"
    assert len(landlord.created) == 1


async def test_a_lost_purchase_that_shows_late_is_waited_for(landlord: FakeLandlord) -> None:
    landlord.create_is_lost = True
    server = rented(landlord)
    landlord.shows_after = 4
    assert await ask(server) == "id-1"
    assert len(landlord.created) == 1


async def test_a_purchase_that_never_shows_is_made_again_under_the_same_name(landlord: FakeLandlord) -> None:
    landlord.create_fails = [errors.NO_ANSWER("lost")]
    server = rented(landlord)
    with pytest.raises(OracleError) as raised:
        await ask(server)
    assert raised.value.error is errors.SERVER_NOT_UP
    assert await ask(server) == "id-1"
    assert landlord.created == ["oracle-fast-0123abcd-1"] * 2


async def test_a_server_that_does_not_come_up_is_given_back_and_the_next_try_waits(landlord: FakeLandlord) -> None:
    landlord.boots = 1_000_000
    server = rented(landlord)
    with pytest.raises(OracleError) as raised:
        await ask(server)
    assert raised.value.error is errors.SERVER_NOT_UP
    assert raised.value.retry_after_seconds == 60.0
    assert landlord.running() == []
    with pytest.raises(OracleError) as raised:
        await ask(server)
    assert raised.value.retry_after_seconds == 60.0
    assert len(landlord.created) == 1
    landlord.clock.time += 60
    landlord.boots = 0
    assert await ask(server) == "id-2"


async def test_a_server_that_ended_is_replaced(landlord: FakeLandlord) -> None:
    server = rented(landlord)
    await ask(server)
    landlord.end("id-1")
    landlord.servers[0].failure = errors.UNREACHABLE("gone")
    with pytest.raises(OracleError):
        await ask(server)
    assert await ask(server) == "id-2"
    assert landlord.servers[0].is_closed


async def test_a_server_that_ended_unasked_is_noticed_by_the_tender(landlord: FakeLandlord) -> None:
    server = rented(landlord)
    await ask(server)
    landlord.end("id-1")
    await server.look_after()
    assert not server.is_serving
    assert await ask(server) == "id-2"


async def test_a_server_that_has_served_and_hangs_is_not_waited_for_as_long_as_a_new_one(
    landlord: FakeLandlord,
) -> None:
    server = rented(landlord)
    await ask(server)
    landlord.servers[0].failure = errors.UNAVAILABLE("HTTP 502")
    landlord.boots = 1_000_000
    with pytest.raises(OracleError):
        await ask(server)
    began = landlord.clock()
    with pytest.raises(OracleError) as raised:
        await ask(server)
    assert raised.value.error is errors.SERVER_NOT_UP
    assert PATIENCE.expected_boot <= landlord.clock() - began < PATIENCE.boot
    assert landlord.running() == []


async def test_a_doubted_server_that_answers_is_kept_and_calls_on_it_are_not_cut(landlord: FakeLandlord) -> None:
    server = rented(landlord)
    await ask(server)
    first = landlord.servers[0]
    first.gate = asyncio.Event()
    slow = asyncio.create_task(ask(server))
    await until(lambda: first.asked == 2)
    first.failure = errors.NO_ANSWER("timed out")
    with pytest.raises(OracleError):
        async with server.use(5.0):
            raise first.failure
    assert await ask(server) == "id-1"
    assert len(landlord.created) == 1
    assert not first.is_closed
    first.failure = None
    first.gate.set()
    assert await slow == "id-1"
    assert first.is_closed


async def test_a_server_whose_paid_time_ends_is_replaced_once_its_calls_have_ended(landlord: FakeLandlord) -> None:
    landlord.lasts_seconds = 3_600.0
    server = rented(landlord)
    await ask(server)
    first = landlord.servers[0]
    first.gate = asyncio.Event()
    slow = asyncio.create_task(ask(server))
    await until(lambda: first.asked == 2)
    landlord.clock.time += 3_600 - 119
    late = asyncio.create_task(ask(server))
    await until(lambda: landlord.clock() > 1_000 + 3_600 - 119)
    assert landlord.running() == ["id-1"]
    first.gate.set()
    assert (await slow, await late) == ("id-1", "id-2")
    assert landlord.running() == ["id-2"]


async def test_a_wrong_key_is_said_at_once(landlord: FakeLandlord) -> None:
    landlord.create_fails = [errors.CREDENTIALS_REFUSED("401")]
    with pytest.raises(OracleError) as raised:
        await ask(rented(landlord))
    assert raised.value.error is errors.CREDENTIALS_REFUSED


def test_names_count_on_and_stay_the_same_until_one_is_taken() -> None:
    assert NAMING.next([]) == "oracle-fast-0123abcd-1"
    assert NAMING.next(["oracle-fast-ffffffff-8", "other-0123abcd-99"]) == "oracle-fast-0123abcd-9"


async def test_a_server_that_has_failed_is_ended_and_not_taken_up(landlord: FakeLandlord) -> None:
    landlord.add("oracle-fast-0123abcd-1")
    landlord.books["id-1"] = replace(landlord.books["id-1"], state=RentalState.FAILED)
    server = rented(landlord)
    await server.look_after()
    assert landlord.running() == []
    assert await ask(server) == "id-2"


async def test_a_server_that_fails_while_it_comes_up_is_ended_at_once(landlord: FakeLandlord) -> None:
    landlord.boots = 1_000_000
    server = rented(landlord)
    waiting = asyncio.create_task(ask(server))
    await until(lambda: bool(landlord.servers))
    landlord.books["id-1"] = replace(landlord.books["id-1"], state=RentalState.FAILED, why="no such image")
    with pytest.raises(OracleError, match="no such image"):
        await waiting
    assert landlord.running() == []


@pytest.mark.parametrize("is_gone", [True, False])
async def test_a_refusal_counts_only_where_the_server_is_there_to_refuse(landlord: FakeLandlord, is_gone: bool) -> None:
    server = rented(landlord)
    await ask(server)
    landlord.servers[0].is_gone = is_gone
    landlord.servers[0].failure = errors.REQUEST_REFUSED("HTTP 404")
    with pytest.raises(OracleError) as raised:
        await ask(server)
    assert raised.value.error is (errors.UNAVAILABLE if is_gone else errors.REQUEST_REFUSED)
