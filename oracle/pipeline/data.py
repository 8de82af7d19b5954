"""The data of a `data://` query: fetched once a request, and where that costs money, booked before it is asked for.

A paid fetch is a purchase (laws 4 and 8). It is made when the job is bought and not to judge the request, is booked at
its quote before the call, and one whose answer is lost is repeated at most `max_unconfirmed_purchases` times.
"""

from __future__ import annotations

import hashlib
from typing import Final

import structlog
from sqlalchemy import Connection

from oracle.core import dataquery, policy
from oracle.core.compute import Dataset, Source
from oracle.core.dataquery import DataQuery
from oracle.core.errors import OracleError, Verdict
from oracle.core.request import Data, Request
from oracle.pipeline import budget
from oracle.pipeline.context import Context
from oracle.pipeline.errors import SOURCE_UNKNOWN
from oracle.providers import errors as provider_errors
from oracle.providers.sources.errors import DATA_BUSY, DATA_TOO_LARGE
from oracle.store import ledger, requests, results, spending
from oracle.store.errors import ROW_MISSING
from oracle.store.rows import RequestRow
from oracle.store.schema import LedgerKind

log = structlog.get_logger(__name__)

NOTE: Final = "data"
SHARE: Final = 4
"""A network gets at most one in so many of the steps that may be under way at once."""

# Whoever asks can do nothing about these: the fee is to be free at once.
_OURS: Final = frozenset(
    error.code
    for error in (
        provider_errors.CREDENTIALS_REFUSED,
        provider_errors.NOT_PERMITTED,
        provider_errors.OUT_OF_CREDIT,
        provider_errors.WRONG_ADDRESS,
    )
)
# Refused here, after the network had answered and charged.
_CHARGED: Final = frozenset({DATA_TOO_LARGE.code, provider_errors.ANSWER_TOO_LARGE.code})


def cost_lamports(context: Context, request: Request) -> int:
    """What the input costs: nothing, unless it is data that must be paid for. Asks nobody.

    Raises the ORC-DATA codes of a wrong query and ORC-PIPE-011.
    """
    if not isinstance(request.body.input, Data):
        return 0
    source, query = source_of(context, request.body.input.query)
    return source.cost_lamports(query)


def stand_in(context: Context, data: Data) -> bytes:
    """As much as a fetch may yield at most, to quote a job by before the data is bought."""
    source, _ = source_of(context, data.query)
    return b"x" * source.max_bytes


def prompt(request: Request, content: bytes) -> bytes:
    """What the model is asked about an input: of data, the question of the query is part."""
    match request.body.input:
        case Data(query, _):
            return dataquery.prompt(dataquery.parse(query), content)
        case _:
            return content


async def load(context: Context, request: Request, text: str) -> tuple[bytes, str]:
    """The data and its origin: the stored ones, or those that the network gives now.

    Its hash is not fixed by the query, so a second fetch may differ: it is stored before it is used. Raises what
    `cost_lamports` does, ORC-POLICY-013 and 021, and the codes of the network.
    """
    source, query = source_of(context, text)
    # Not a hash alone: whoever served a URI whose content has that hash could put its own words in the data's place.
    name = f"data:{hashlib.sha256(f'{request.key}/{text}'.encode()).hexdigest()}"
    stored = await context.store.read(lambda c: results.get_input(c, name))
    if stored is not None:
        return stored.content, stored.origin
    try:
        dataset = await fetch(context, request, source, query)
    except OracleError as error:
        if error.code in _OURS:
            raise policy.INPUT_UNSUPPORTED(str(error)) from None
        raise
    now_ms = context.clock.now_ms()
    await context.store.write(
        lambda c: results.put_input(c, name, dataset.content, origin=dataset.origin, now_ms=now_ms)
    )
    log.info("data fetched", network=source.name, sha256=dataset.sha256.hex(), bytes=len(dataset.content))
    return dataset.content, dataset.origin


async def fetch(context: Context, request: Request, source: Source, query: DataQuery) -> Dataset:
    """What the network says now. One that is slow may hold only some of the daemon's hands (law 6)."""
    if context.fetching[source.name] >= max(1, context.config.daemon.concurrency // SHARE):
        raise DATA_BUSY(f"{source.name}: {context.fetching[source.name]} under way")
    context.fetching[source.name] += 1
    try:
        cost = source.cost_lamports(query)
        return await (bought(context, request, source, query, cost) if cost else source.fetch(query))
    finally:
        context.fetching[source.name] -= 1


async def bought(context: Context, request: Request, source: Source, query: DataQuery, cost: int) -> Dataset:
    """One fetch that costs money. What is booked for it stays booked unless it is known to have cost nothing."""
    row = await booked(context, request, source, cost)
    try:
        return await source.fetch(query)
    except OracleError as error:
        if error.verdict is not Verdict.UNKNOWN and error.code not in _CHARGED:
            now_ms = context.clock.now_ms()
            await context.store.write(lambda c: _book_back(c, row, source.name, cost, now_ms))
        raise


async def booked(context: Context, request: Request, source: Source, cost: int) -> RequestRow:
    """Book a fetch that is about to be made. Raises ORC-POLICY-003, 018 or 021: then none may be made."""
    key, now_ms = request.key, context.clock.now_ms()
    policy.check_deadline(request.header.deadline_slot, context.slot(), context.terms().deadline_margin_slots)

    def book(c: Connection) -> RequestRow:
        row = requests.get(c, key.address, key.created_slot, context.operator)
        if row is None:
            raise ROW_MISSING(str(key))
        entries = [entry for entry in ledger.of(c, row.id) if entry.note == NOTE]
        made = sum(1 if entry.lamports < 0 else -1 for entry in entries)
        if made > context.config.policy.max_unconfirmed_purchases:
            raise policy.DATA_UNCONFIRMED(f"{source.name}: {made} fetches, and no answer to any")
        budget.book(c, context, cost, now_ms, provider=source.name, requester=row.requester, request_id=row.id)
        _book(c, row, source.name, -cost, now_ms)
        return row

    return await context.store.write(book)


def source_of(context: Context, text: str) -> tuple[Source, DataQuery]:
    query = dataquery.parse(text)
    source = context.sources.get(query.network)
    if source is None:
        raise SOURCE_UNKNOWN(query.network)
    return source, query


def _book(c: Connection, row: RequestRow, network: str, lamports: int, now_ms: int) -> None:
    ledger.book(
        c,
        LedgerKind.JOB,
        lamports,
        now_ms=now_ms,
        request_id=row.id,
        provider=network,
        requester=row.requester,
        note=NOTE,
    )


def _book_back(c: Connection, row: RequestRow, network: str, lamports: int, now_ms: int) -> None:
    _book(c, row, network, lamports, now_ms)
    spending.correct(c, now_ms, -lamports, provider=network, requester=row.requester)
