"""Writes that gather share a commit; one that fails fails alone."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Sequence

import pytest
from sqlalchemy import Connection, text
from store_world import see, sighting

from oracle.core.errors import OracleError
from oracle.store import journal, marks, requests
from oracle.store.engine import Store
from oracle.store.errors import CLOSED, REFUSED_BY_SCHEMA, STATEMENT_FAILED, VALUE_REFUSED


async def test_writes_that_are_handed_over_together_share_a_commit(store: Store) -> None:
    await asyncio.gather(*(store.write(lambda c, n=n: marks.put(c, f"mark-{n}", n)) for n in range(200)))  # type: ignore[misc]
    assert store.commits == 1
    assert await count_marks(store) == 200


async def test_a_lone_write_waits_for_nobody(store: Store) -> None:
    for n in range(3):
        await store.write(lambda c, n=n: marks.put(c, f"mark-{n}", n))  # type: ignore[misc]
        assert store.commits == n + 1


async def test_a_flood_of_writes_is_committed_in_several_groups(store: Store) -> None:
    await asyncio.gather(*(store.write(lambda c, n=n: marks.put(c, f"mark-{n}", n)) for n in range(600)))  # type: ignore[misc]
    assert 1 < store.commits <= 4
    assert await count_marks(store) == 600


async def test_each_writer_gets_its_own_result(store: Store) -> None:
    results = await asyncio.gather(*(store.write(lambda c, n=n: n * n) for n in range(50)))  # type: ignore[misc]
    assert results == [n * n for n in range(50)]


async def test_one_that_raises_does_not_fail_the_others(store: Store) -> None:
    def write(conn: Connection, n: int) -> int:
        marks.put(conn, f"mark-{n}", n)
        if n in (17, 40):
            raise ValueError(f"number {n}")
        return n

    results = await asyncio.gather(
        *(store.write(lambda c, n=n: write(c, n)) for n in range(50)),  # type: ignore[misc]
        return_exceptions=True,
    )
    raised = {n: str(result) for n, result in enumerate(results) if isinstance(result, Exception)}
    assert raised == {17: "number 17", 40: "number 40"}
    assert await count_marks(store) == 48
    assert await store.read(lambda c: marks.get(c, "mark-17")) is None


async def test_rows_that_go_in_at_the_end_of_a_group_go_in_once_and_not_for_one_that_raised(store: Store) -> None:
    def write(conn: Connection, n: int) -> None:
        journal.note(conn, None, f"event-{n}", now_ms=n)
        if n == 7:
            raise ValueError

    writes = [store.write(lambda c, n=n: write(c, n)) for n in range(20)]  # type: ignore[misc]
    await asyncio.gather(*writes, return_exceptions=True)
    lines = await store.read(lambda c: journal.of(c, None))
    assert [line.event for line in lines] == [f"event-{n}" for n in range(20) if n != 7]


async def test_one_whose_last_rows_the_schema_refuses_does_not_fail_the_others(store: Store) -> None:
    results = await asyncio.gather(
        store.write(lambda c: journal.note(c, None, "good", now_ms=1)),
        store.write(lambda c: journal.note(c, 99, "of no request", now_ms=1)),
        return_exceptions=True,
    )
    assert [getattr(result, "error", None) for result in results] == [None, REFUSED_BY_SCHEMA]
    assert [line.event for line in await store.read(lambda c: journal.newest(c))] == ["good"]


async def test_one_that_the_schema_refuses_does_not_fail_the_others(store: Store) -> None:
    def refused(conn: Connection) -> None:
        conn.execute(text("INSERT INTO marks (name, value) VALUES ('taken', '1')"))

    await store.write(refused)
    results = await asyncio.gather(
        store.write(lambda c: marks.put(c, "before", 1)),
        store.write(refused),
        store.write(lambda c: marks.put(c, "after", 1)),
        return_exceptions=True,
    )
    assert [result is None for result in results] == [True, False, True]
    assert isinstance(results[1], OracleError)
    assert results[1].error is REFUSED_BY_SCHEMA
    assert await count_marks(store) == 3


async def test_the_members_of_a_group_see_each_other_in_the_order_of_their_writes(store: Store) -> None:
    def append(conn: Connection, n: int) -> None:
        marks.put(conn, "list", [*(marks.get(conn, "list") or []), n])

    await asyncio.gather(*(store.write(lambda c, n=n: append(c, n)) for n in range(30)))  # type: ignore[misc]
    assert await store.read(lambda c: marks.get(c, "list")) == list(range(30))


async def test_a_read_sees_every_write_that_has_returned(store: Store) -> None:
    for n in range(20):
        await store.write(lambda c, n=n: marks.put(c, "mark", n))  # type: ignore[misc]
        assert await store.read(lambda c: marks.get(c, "mark")) == n


async def test_a_read_sees_one_moment_and_not_the_writes_that_come_while_it_looks(store: Store) -> None:
    await store.write(lambda c: marks.put(c, "mark", 1))
    seen = await asyncio.gather(
        *(store.read(lambda c: marks.get(c, "mark")) for _ in range(5)),
        store.write(lambda c: marks.put(c, "mark", 2)),
    )
    assert set(seen[:5]) <= {1, 2}
    assert await store.read(lambda c: marks.get(c, "mark")) == 2


async def test_a_read_cannot_write(store: Store) -> None:
    with pytest.raises(OracleError):
        await store.read(lambda c: marks.put(c, "mark", 1))
    assert await count_marks(store) == 0


async def test_a_write_whose_caller_has_gone_before_it_began_is_not_made(store: Store) -> None:
    first = asyncio.create_task(store.write(lambda c: marks.put(c, "first", 1)))
    second = asyncio.create_task(store.write(lambda c: marks.put(c, "second", 1)))
    await asyncio.sleep(0)
    second.cancel()
    await first
    with pytest.raises(asyncio.CancelledError):
        await second
    await store.write(lambda c: marks.put(c, "third", 1))
    assert await store.read(lambda c: marks.get(c, "second")) is None
    assert await count_marks(store) == 2


async def test_a_query_that_raises_stop_iteration_hangs_nobody(store: Store) -> None:
    async with asyncio.timeout(60):
        with pytest.raises(RuntimeError):
            await store.write(lambda c: next(iter([])))
        with pytest.raises(RuntimeError):
            await store.read(lambda c: next(iter([])))
        await store.write(lambda c: marks.put(c, "mark", 1))


async def test_what_was_handed_over_is_committed_before_the_store_closes(store: Store, other: Store) -> None:
    writes = [asyncio.create_task(store.write(lambda c, n=n: marks.put(c, f"mark-{n}", n))) for n in range(600)]  # type: ignore[misc]
    await asyncio.sleep(0)
    await store.close()
    await asyncio.gather(*writes)
    assert await count_marks(other) == 600


async def test_a_closed_store_refuses_reads_and_writes_and_closes_twice(store: Store) -> None:
    await store.close()
    await store.close()
    for refused in (store.read(requests.counts), store.write(requests.counts)):
        with pytest.raises(OracleError) as raised:
            await refused
        assert raised.value.error is CLOSED


@pytest.mark.parametrize(
    "changes",
    [{"model": "a\ud800"}, {"chain_status": 2**70}],
    ids=["text that is no Unicode", "a number of 70 bits"],
)
async def test_a_value_that_no_database_holds_is_refused_with_a_code(store: Store, changes: dict[str, object]) -> None:
    with pytest.raises(OracleError) as raised:
        await store.write(lambda c: requests.see(c, sighting(**changes)))
    assert raised.value.error is VALUE_REFUSED
    assert await store.read(lambda c: requests.listing(c)) == []


async def test_an_error_of_the_engine_never_tells_the_values(store: Store) -> None:
    secret = "the-prompt-of-a-user"
    for statement in (
        "INSERT INTO requests (address, model) VALUES (:value, 'm')",
        "INSERT INTO nowhere VALUES (:value)",
    ):
        with pytest.raises(OracleError) as raised:
            await store.write(lambda c, s=statement: c.execute(text(s), {"value": secret}))  # type: ignore[misc]
        assert raised.value.error in (REFUSED_BY_SCHEMA, STATEMENT_FAILED)
        assert secret not in str(raised.value)


async def test_many_loops_at_once_lose_nothing(store: Store, other: Store) -> None:
    numbers = itertools.count()

    async def loop(each: Store) -> None:
        for _ in range(20):
            n = next(numbers)
            await each.write(lambda c, n=n: marks.put(c, f"mark-{n}", n))  # type: ignore[misc]

    await asyncio.gather(*(loop(each) for each in (store, other) * 5))
    assert await count_marks(store) == 200


async def test_a_request_survives_the_store(store: Store, other: Store) -> None:
    row = await see(store)
    await store.close()
    assert await other.read(lambda c: requests.by_id(c, row.id)) == row


async def count_marks(store: Store) -> int:
    return await store.read(lambda c: c.execute(text("SELECT count(*) FROM marks")).scalar_one())


async def test_what_is_written_together_is_handed_to_its_work_at_once_and_each_gets_its_own_result(
    store: Store,
) -> None:
    handed: list[int] = []

    def write_all(conn: Connection, numbers: Sequence[int]) -> list[int]:
        handed.append(len(numbers))
        for n in numbers:
            marks.put(conn, f"mark-{n}", n)
        return [n * n for n in numbers]

    results = await asyncio.gather(*(store.write_together(write_all, n) for n in range(50)))
    assert results == [n * n for n in range(50)]
    assert handed == [50]
    assert await count_marks(store) == 50


async def test_of_what_is_written_together_one_that_raises_fails_alone(store: Store) -> None:
    def write_all(conn: Connection, numbers: Sequence[int]) -> list[int]:
        for n in numbers:
            marks.put(conn, f"mark-{n}", n)
        if bad := [n for n in numbers if n in (17, 40)]:
            raise ValueError(f"among them {bad[0]}")
        return list(numbers)

    results = await asyncio.gather(
        *(store.write_together(write_all, n) for n in range(50)), store.write(lambda _: "alone"), return_exceptions=True
    )
    raised = {n: str(result) for n, result in enumerate(results) if isinstance(result, Exception)}
    assert raised == {17: "among them 17", 40: "among them 40"}
    assert results[-1] == "alone"
    assert await count_marks(store) == 48


async def test_what_is_asked_together_while_a_read_is_under_way_is_answered_by_one_more(store: Store) -> None:
    asked: list[list[int]] = []

    def double_all(_: Connection, numbers: Sequence[int]) -> list[int]:
        asked.append(list(numbers))
        return [2 * n for n in numbers]

    assert await asyncio.gather(*(store.read_together(double_all, n) for n in range(50))) == [2 * n for n in range(50)]
    assert len(asked) <= 2
    assert await store.read_together(double_all, 7) == 14


async def test_a_read_that_fails_fails_for_all_who_asked_and_for_nobody_after_them(store: Store) -> None:
    def answer_all(_: Connection, numbers: Sequence[int]) -> list[int]:
        if 3 in numbers:
            raise ValueError("three")
        return list(numbers)

    results = await asyncio.gather(*(store.read_together(answer_all, 3) for _ in range(5)), return_exceptions=True)
    assert [str(result) for result in results] == ["three"] * 5
    assert await store.read_together(answer_all, 4) == 4
