"""The laws, asked of the chain's own history and of the providers' own books, never of the daemon."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from chaos_networks import NETWORKS, Sold
from chaos_town import Asked, Oracle, Town
from solders.pubkey import Pubkey
from solders.transaction import VersionedTransaction

from oracle.chain.program import idl
from oracle.chain.program.events import (
    Event,
    InferenceRecorded,
    OutputPublished,
    RequestCancelled,
    RequestClosed,
    RequestExpired,
    RequestRejected,
    RequestSubmitted,
    read_events,
)
from oracle.chain.program.layout import decode_request
from oracle.core import dataquery
from oracle.core.identity import idempotency_key
from oracle.core.request import RequestKey, Status
from oracle.localnet.chain import Chain
from oracle.localnet.emulators.nosana import jobs_program
from oracle.localnet.emulators.openai import scripted_words
from oracle.providers.sources import geo

_ENDS: dict[type[Event], Status] = {
    InferenceRecorded: Status.FULFILLED,
    RequestRejected: Status.REJECTED,
    RequestExpired: Status.EXPIRED,
    RequestCancelled: Status.CANCELLED,
}
PAID_JOBS = {
    "dear": 2,
    "leaky": 2,
    "intelligence": 2,
    "gpu": 1,
    "idle": 1,
    "listed": 1,
    "container": 1,
    "batch": 1,
    "raced": 2,
    "doubled": 2,
}
"""The most jobs that a request may cost, by model: docs/reliability.md, with `max_unconfirmed_purchases = 1`."""
PAID_FETCHES = 2
"""The most fetches of its data that a request may cost: docs/reliability.md, likewise."""
MOST_ATTEMPTS = 40
ON_NOSANA = ("gpu", "idle", "raced")
LISTING = bytes.fromhex("36aec14311298426")
"""How an instruction begins that lists a job: nosana.md §2."""
ENDINGS = tuple(bytes.fromhex(each) for each in ("b4a0f9d9c2794610", "3788cd6b6bad041f", "6cd8263a6d927411"))
"""Likewise for one that ends a job, withdraws it or takes its deposit back."""

# Of one operator, for others may share its database.
_BOOKED = """
    SELECT kind, sum(lamports) FROM ledger
    WHERE request_id IN (SELECT id FROM requests WHERE operator = '{operator}')
    OR signature_id IN (
        SELECT m.signature_id FROM signature_members m JOIN settlements s ON s.id = m.settlement_id
        WHERE s.operator = '{operator}'
    )
    OR (request_id IS NULL AND signature_id IS NULL)
    GROUP BY kind
"""


@dataclass(slots=True)
class History:
    """What all transactions of the chain have done."""

    ends: dict[Pubkey, list[Status]] = field(default_factory=dict)
    closes: Counter[Pubkey] = field(default_factory=Counter)
    published: dict[Pubkey, list[bytes]] = field(default_factory=dict)
    """What each request shows as its output, once for each time that it was published."""
    fees_asked: dict[Pubkey, int] = field(default_factory=dict)
    created_slots: dict[Pubkey, int] = field(default_factory=dict)
    """Where each request came to stay: a fork may have moved it since it was sent."""
    spent_lamports: Counter[Pubkey] = field(default_factory=Counter)
    """Transaction fees, by payer."""
    listings: Counter[Pubkey] = field(default_factory=Counter)
    """Jobs that were listed on Nosana's chain and paid for, by payer."""
    ending_lamports: Counter[Pubkey] = field(default_factory=Counter)
    """Fees of transactions that ended jobs there, by payer."""
    unended: Counter[Pubkey] = field(default_factory=Counter)
    """Jobs there that wait or run, by whose they are."""
    held_lamports: int = 0
    """What lies in all accounts together."""


def history(chain: Chain) -> History:
    """Read from the ledger, on the chain's thread."""
    found = History()
    for record in chain.ledger.transactions_after(0):
        message = VersionedTransaction.from_bytes(record.wire).message
        payer = message.account_keys[0]
        found.spent_lamports[payer] += record.meta["fee"]
        if any(bytes(each.data).startswith(ENDINGS) for each in message.instructions):
            found.ending_lamports[payer] += record.meta["fee"]
        if record.err is not None:
            continue
        found.listings[payer] += sum(bytes(each.data).startswith(LISTING) for each in message.instructions)
        for event in read_events(idl.program_id(), record.meta["logMessages"]):
            if isinstance(event, RequestSubmitted):
                found.fees_asked[event.request] = event.fee_lamports
                found.created_slots[event.request] = event.created_slot
            elif isinstance(event, OutputPublished):
                account = chain.account(event.request)
                shown = decode_request(event.request, account.data).inline_output if account is not None else b""
                found.published.setdefault(event.request, []).append(shown)
            elif isinstance(event, RequestClosed):
                found.closes[event.request] += 1
            elif (end := _ENDS.get(type(event))) is not None:
                assert isinstance(event, InferenceRecorded | RequestRejected | RequestExpired | RequestCancelled)
                found.ends.setdefault(event.request, []).append(end)
    for _, account in chain.ledger.all_accounts(2**62):
        found.held_lamports += account.lamports
        if account.owner == jobs_program.PROGRAM and account.data.startswith(jobs_program.JOB):
            job = jobs_program.read_job(account.data)
            found.unended[job.project] += job.state == 0
    return found


async def broken_laws(town: Town, *, as_expected: bool) -> list[str]:
    """Every breach in the town, in words. `as_expected`: each request must have had the end that was foreseen for it,
    which holds after a single crash, but not in every storm."""
    found = await town.node.call(history)
    breaches = list(_money(town, found))
    for oracle in town.oracles:
        breaches += [f"{oracle.name}: {breach}" for breach in _of_oracle(oracle, found, as_expected=as_expected)]
    return breaches


async def share_fulfilled(oracle: Oracle) -> float:
    """Of all that was asked of it."""
    ends = (await oracle.town.node.call(history)).ends
    return sum(ends.get(asked.address) == [Status.FULFILLED] for asked in oracle.asked) / len(oracle.asked)


def _money(town: Town, found: History) -> Iterator[str]:
    burned = sum(found.spent_lamports.values())
    if found.held_lamports + burned != town.minted_lamports:
        yield f"{found.held_lamports} held and {burned} burned are not the {town.minted_lamports} that were made"


def _fetches(oracle: Oracle) -> Iterator[str]:
    """It has paid for no data that nobody has asked about."""
    paid = len(_fetched(oracle))
    of_requests = sum(paid_fetches(oracle, asked) for asked in oracle.asked)
    if paid != of_requests:
        yield f"{paid} fetches of data were paid, {of_requests} of them for requests"


def _of_oracle(oracle: Oracle, found: History, *, as_expected: bool) -> Iterator[str]:
    on_nosana = 0
    for asked in oracle.asked:
        ends = found.ends.get(asked.address, [])
        if len(ends) != 1:
            yield f"{asked.prompt}: {len(ends)} ends: {', '.join(end.name for end in ends)}"
        elif as_expected and ends[0] not in asked.ends:
            yield f"{asked.prompt}: ended {ends[0].name}, not {' or '.join(end.name for end in asked.ends)}"
        if found.closes[asked.address] > 1:
            yield f"{asked.prompt}: closed {found.closes[asked.address]} times"
        due = [answer_to(oracle, asked)] if asked.output_cap and ends == [Status.FULFILLED] else []
        if (shown := found.published.get(asked.address, [])) != due:
            yield f"{asked.prompt}: published {shown}, not {due}"
        created_slot = found.created_slots.get(asked.address, asked.created_slot)
        jobs = paid_jobs(oracle, found, replace(asked, created_slot=created_slot)) - oracle.doubled[asked.prompt]
        on_nosana += jobs if asked.model in ON_NOSANA else 0
        if jobs > PAID_JOBS.get(asked.model, jobs):
            yield f"{asked.prompt}: {jobs} paid jobs"
        fetches = paid_fetches(oracle, asked)
        if fetches > PAID_FETCHES or (_is_of_data(asked) and ends == [Status.FULFILLED] and not fetches):
            yield f"{asked.prompt}: {fetches} paid fetches"
    if (bought := len(oracle.nosana.books()["jobs"])) != on_nosana:
        yield f"{bought} jobs were bought on Nosana, {on_nosana} of them under keys of requests"
    yield from _fetches(oracle)
    yield from _sold(oracle, found)
    yield from _books(oracle, found)


def answer_to(oracle: Oracle, asked: Asked) -> bytes:
    """What the chat server of that name says to it."""
    words = oracle.town.models[asked.model].words
    return "".join(scripted_words([{"role": "user", "content": asked.prompt}], words)).encode()


def paid_jobs(oracle: Oracle, found: History, asked: Asked) -> int:
    """How many jobs the provider's own books have for a request."""
    if asked.model in ON_NOSANA:
        operator = str(oracle.operator.pubkey())
        keys = {
            idempotency_key(operator, RequestKey(str(asked.address), asked.created_slot), lane, number)
            for lane in (0, 1)
            for number in range(1, MOST_ATTEMPTS)
        }
        jobs = oracle.nosana.books()["jobs"]
        return sum(str(job["idempotency_key"]).rpartition(":")[0] in keys for job in jobs)
    if asked.model in ("dear", "leaky", "doubled"):
        servers = ("slow", "dear") if asked.model == "doubled" else (asked.model,)
        sent = [body for server in servers for body in oracle.town.models[server].requests]
        return sum(body["messages"][-1]["content"] == asked.prompt for body in sent)
    if asked.model == "intelligence":
        return sum(asked.prompt in str(body) for body in oracle.town.models["gpu"].requests)
    return 0


def paid_fetches(oracle: Oracle, asked: Asked) -> int:
    """How often the data network's own books say that somebody paid for the place that a request asks about."""
    if not _is_of_data(asked):
        return 0
    box = geo.box_of(dataquery.parse(asked.prompt))
    assert box is not None
    return _fetched(oracle).count(box.geojson())


def _fetched(oracle: Oracle) -> list[Any]:
    """The place of each fetch that was paid for."""
    history = oracle.maps.books()["history"].values()
    return [line["payload"] for lines in history for line in lines if line["credits"]]


def _is_of_data(asked: Asked) -> bool:
    return asked.prompt.startswith(dataquery.SCHEME)


def _sold(oracle: Oracle, found: History) -> Iterator[str]:
    """Where books do not say for whom they were written, all of them together say whether one is too many."""
    listings = found.listings[oracle.operator.pubkey()]
    asked = Counter(each.model for each in oracle.asked)
    if listings > PAID_JOBS["listed"] * asked["listed"]:
        yield f"{listings} jobs were listed on chain for {asked['listed']} requests"
    if unended := found.unended[oracle.operator.pubkey()]:
        yield f"{unended} jobs on chain were left running"
    if oracle.network is None:
        return
    sold = oracle.sold()
    if NETWORKS[oracle.network].rents:
        yield from _servers(sold)
    elif len(sold) > PAID_JOBS[oracle.network] * asked[oracle.network]:
        yield f"{len(sold)} of {oracle.network} were paid for {asked[oracle.network]} requests"
    if running := sum(each.ended is None for each in sold):
        yield f"{running} of {oracle.network} were left running"


def _servers(sold: Sequence[Sold]) -> Iterator[str]:
    """One at a time."""
    in_order = sorted(sold, key=lambda each: each.began)
    for one, other in itertools.pairwise(in_order):
        if one.ended is None or one.ended > other.began:
            yield f"a server was rented at {other.began} while another ran until {one.ended}"


def _books(oracle: Oracle, found: History) -> Iterator[str]:
    """The daemon's ledger says what the chain says."""
    booked = dict(oracle.select(_BOOKED.format(operator=oracle.operator.pubkey())))
    earned = sum(
        found.fees_asked[asked.address] for asked in oracle.asked if found.ends.get(asked.address) == [Status.FULFILLED]
    )
    if booked.get("fee_earned", 0) != earned:
        yield f"books {booked.get('fee_earned', 0)} lamports as earned, the chain paid {earned}"
    spent = found.spent_lamports[oracle.operator.pubkey()] - oracle.other_fees_lamports
    # A kill between the end of a job on chain and its booking loses the fee of that: docs/reliability.md.
    if not spent - found.ending_lamports[oracle.operator.pubkey()] <= -booked.get("tx_fee", 0) <= spent:
        yield f"books {-booked.get('tx_fee', 0)} lamports of transaction fees, the chain took {spent}"
