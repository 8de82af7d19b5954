"""Outputs and receipts are served once the chain says that they are the answer, and kept while anyone needs them."""

from __future__ import annotations

import hashlib

import pytest
from store_world import NOW, see

from oracle.core.lifecycle import State
from oracle.store import requests, results
from oracle.store.engine import Store
from oracle.store.requests import RequestRow
from oracle.store.results import Pruned

ANSWER = b"forty-two"
HASH = hashlib.sha256(ANSWER).hexdigest()
JOB_HASH = "ab" * 32


async def test_an_output_is_not_served_before_its_settlement(store: Store) -> None:
    row = await computed(store)
    assert await store.read(lambda c: results.servable_output(c, HASH)) is None
    assert await store.read(lambda c: results.servable_receipt(c, JOB_HASH)) is None
    assert await store.read(lambda c: results.get_output(c, HASH)) is not None
    await settle(store, row)
    output = await store.read(lambda c: results.servable_output(c, HASH))
    receipt = await store.read(lambda c: results.servable_receipt(c, JOB_HASH))
    assert output is not None
    assert receipt is not None
    assert (output.content, output.media_type, output.bytes) == (ANSWER, "text/plain", 9)
    assert (receipt.content, receipt.request_id) == (b"{}", row.id)


async def test_an_output_whose_settlement_was_forked_away_is_not_served(store: Store) -> None:
    row = await computed(store)
    await settle(store, row)
    await store.write(lambda c: requests.force(c, row.id, State.SUPERSEDED, now_ms=NOW, slot=1, event="forked"))
    assert await store.read(lambda c: results.servable_output(c, HASH)) is None


async def test_an_output_that_two_requests_share_is_served_when_either_is_settled(store: Store) -> None:
    first, second = await computed(store, "a"), await computed(store, "b")
    await settle(store, second)
    assert await store.read(lambda c: results.servable_output(c, HASH)) is not None
    assert first.output_sha256 == second.output_sha256


async def test_a_receipt_that_is_not_the_settled_one_is_not_served(store: Store) -> None:
    row = await computed(store)
    await store.write(lambda c: results.put_receipt(c, "cd" * 32, b"{}", request_id=row.id, now_ms=NOW))
    await settle(store, row)
    assert await store.read(lambda c: results.servable_receipt(c, "cd" * 32)) is None
    assert await store.read(lambda c: results.get_receipt(c, "cd" * 32)) is not None


async def test_nothing_is_served_for_a_hash_that_nobody_knows(store: Store) -> None:
    assert await store.read(lambda c: results.servable_output(c, "00" * 32)) is None
    assert await store.read(lambda c: results.servable_receipt(c, "00" * 32)) is None


async def test_an_output_is_kept_under_its_own_hash_only(store: Store) -> None:
    with pytest.raises(ValueError, match="hash"):
        await store.write(lambda c: results.put_output(c, HASH, b"other", media_type="text/plain", now_ms=NOW))


async def test_results_that_are_put_twice_are_there_once(store: Store) -> None:
    for media_type in ("text/plain", "text/html"):
        await store.write(
            lambda c, media_type=media_type: results.put_output(c, HASH, ANSWER, media_type=media_type, now_ms=NOW)  # type: ignore[misc]
        )
    kept = await store.read(lambda c: results.get_output(c, HASH))
    assert kept is not None
    assert kept.media_type == "text/plain"


async def test_the_first_content_of_an_input_stays(store: Store) -> None:
    assert await store.write(lambda c: results.put_input(c, "key", b"first", origin="https://a", now_ms=NOW))
    assert not await store.write(lambda c: results.put_input(c, "key", b"second", origin="https://b", now_ms=NOW))
    row = await store.read(lambda c: results.get_input(c, "key"))
    assert row is not None
    assert (row.content, row.origin) == (b"first", "https://a")
    assert await store.read(lambda c: results.get_input(c, "another")) is None


async def test_a_large_output_lies_in_a_file(store: Store) -> None:
    await store.write(
        lambda c: results.put_output_file(c, HASH, "outputs/a", size=9, media_type="text/plain", now_ms=NOW)
    )
    output = await store.read(lambda c: results.get_output(c, HASH))
    assert output is not None
    assert (output.content, output.path, output.bytes) == (None, "outputs/a", 9)


async def test_what_an_open_or_unfinalized_request_needs_is_not_pruned(store: Store) -> None:
    row = await computed(store)
    assert await prune(store) == Pruned(0, 0, 0, ())
    await settle(store, row)
    assert await prune(store) == Pruned(0, 0, 0, ())
    await store.write(lambda c: requests.amend(c, row.id, end_finalized=True))
    assert await prune(store) == Pruned(0, 1, 1, ())
    assert await store.read(lambda c: results.get_output(c, HASH)) is None


async def test_what_is_younger_than_the_retention_is_not_pruned(store: Store) -> None:
    row = await computed(store)
    await settle(store, row)
    await store.write(lambda c: requests.amend(c, row.id, end_finalized=True))
    await store.write(lambda c: results.put_input(c, "key", b"x", origin="o", now_ms=NOW))
    assert await store.write(lambda c: results.prune(c, NOW)) == Pruned(0, 0, 0, ())
    assert await prune(store) == Pruned(1, 1, 1, ())


async def test_pruning_tells_which_files_belong_to_nothing_any_more(store: Store) -> None:
    await store.write(
        lambda c: results.put_output_file(c, HASH, "outputs/a", size=9, media_type="text/plain", now_ms=NOW)
    )
    assert (await prune(store)).paths == ("outputs/a",)


async def computed(store: Store, address: str = "request-1") -> RequestRow:
    row = await see(store, address, state=State.COMPUTED)
    await store.write(lambda c: results.put_output(c, HASH, ANSWER, media_type="text/plain", now_ms=NOW))
    await store.write(lambda c: results.put_receipt(c, JOB_HASH, b"{}", request_id=row.id, now_ms=NOW))
    return await store.write(lambda c: requests.amend(c, row.id, output_sha256=HASH, job_hash=JOB_HASH))


async def settle(store: Store, row: RequestRow) -> None:
    await store.write(lambda c: requests.force(c, row.id, State.SETTLED, now_ms=NOW, slot=9, event="settled"))


async def prune(store: Store) -> Pruned:
    return await store.write(lambda c: results.prune(c, NOW + 1))
