"""Nosana's REST API, IPFS pinning and IPFS gateway, call by call. Source: specs/nosana.md §1.5, §4."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from enum import IntEnum
from typing import Any, Final, Literal

import orjson

from oracle.providers import errors
from oracle.providers.failures import quotable, read_complaint, retry_after_seconds
from oracle.providers.http import Answer, Http
from oracle.providers.nosana import definition, markets
from oracle.providers.nosana.cid import NO_RESULT, is_cid_v0
from oracle.providers.nosana.markets import Market
from oracle.providers.pace import Pace

# The batch route takes 100 addresses; how many answers its `limit` allows is not known beyond the list's 50.
JOBS_AT_ONCE: Final = 50
PAGE: Final = 50
READ_SECONDS: Final = 20.0
WRITE_SECONDS: Final = 15.0

State = Literal["QUEUED", "RUNNING", "COMPLETED", "STOPPED"]


class JobPhase(IntEnum):
    """`state` of a job over REST. COMPLETED says that it ended, and nothing about how."""

    QUEUED = 0
    RUNNING = 1
    COMPLETED = 2
    STOPPED = 3


@dataclass(frozen=True, slots=True)
class Posted:
    """A job that was bought. `cost_usd` is the reservation for its whole time; `project` the account that owns it."""

    job: str
    project: str | None
    cost_usd: Decimal | None


@dataclass(frozen=True, slots=True)
class Credits:
    """What an account was given, what is reserved for jobs under way, and what is spent. In USD."""

    assigned_usd: Decimal
    reserved_usd: Decimal
    settled_usd: Decimal

    @property
    def available_usd(self) -> Decimal:
        return self.assigned_usd - self.reserved_usd - self.settled_usd


class Refusal(IntEnum):
    """What the idempotency control answers instead of a job (§4.3)."""

    IN_PROGRESS = 1
    EXPIRED = 2
    PAYLOAD_MISMATCH = 3


@dataclass(frozen=True, slots=True)
class Job:
    """A job as REST tells it. Times are unix seconds, 0 where it has not come to that."""

    address: str
    phase: JobPhase
    market: str
    definition_cid: str | None
    result_cid: str | None
    kind: str | None
    definition: Any
    result: Any
    started_at: int
    ended_at: int
    listed_at: int
    timeout_seconds: int
    usd_reward_per_hour: Decimal | None


class NosanaApi:
    """`rest` is the gateway of all services, `pinning` pins documents, `ipfs` reads them.

    `listing` paces the one route with a published limit: 20 calls in 30 s, 500 an hour (§4.4).
    """

    def __init__(self, rest: Http, pinning: Http, ipfs: Http, listing: Pace) -> None:
        self._rest = rest
        self._pinning = pinning
        self._ipfs = ipfs
        self._listing = listing

    async def pin(self, document: bytes) -> str:
        """CID under which the document now lies. Pinning the same bytes again is the same pin."""
        answer = await self._pinning.call(
            "POST", "pinning/pinJSONToIPFS", content=document, repeatable=True, seconds=WRITE_SECONDS
        )
        body = self._pinning.json(answer, repeatable=True)
        cid = body.get("IpfsHash") if isinstance(body, dict) else None
        if not is_cid_v0(cid):
            raise self._pinning.unreadable("no CIDv0 in IpfsHash", repeatable=True)
        return str(cid)

    async def document(self, cid: str) -> Any:
        """A JSON document from IPFS; None where the gateway does not have it, or not whole, yet."""
        answer = await self._ipfs.call("GET", f"ipfs/{cid}", repeatable=True, seconds=READ_SECONDS, expect={404})
        if answer.status == 404:
            return None
        try:
            return orjson.loads(answer.content)
        except orjson.JSONDecodeError:
            return None

    async def post(self, cid: str, market: str, timeout_seconds: int, key: str, now: float) -> Posted | Refusal | float:
        """Buy a job. The same key with the same body buys it once.

        A number is how many seconds to wait before the same call is made again. Raises `UNKNOWN` where the answer is
        lost, and ORC-PROVIDER-027 where the market takes no credits.
        """
        answer = await self._rest.call(
            "POST",
            "jobs/list",
            json={"ipfsHash": cid, "market": market, "timeout": timeout_seconds},
            headers={"Idempotency-Key": key},
            repeatable=False,
            seconds=WRITE_SECONDS,
            expect={403, 409},
        )
        if answer.status == 409:
            return self._control(answer, now)
        if answer.status == 403:
            raise self._forbidden(answer)
        body = self._rest.json(answer, repeatable=False)
        if not isinstance(body, dict) or not isinstance(body.get("job"), str):
            raise self._rest.unreadable("a bought job without its address", repeatable=False)
        credits = body.get("credits")
        credits = credits if isinstance(credits, dict) else {}
        return Posted(body["job"], _text(credits.get("project")), markets.decimal(credits.get("costUSD")))

    async def jobs(self, addresses: Sequence[str]) -> dict[str, Job]:
        """Jobs by address, without their definitions and results; one that the indexer does not know is left out."""
        found: dict[str, Job] = {}
        for at in range(0, len(addresses), JOBS_AT_ONCE):
            chunk = list(addresses[at : at + JOBS_AT_ONCE])
            answer = await self._rest.call(
                "POST",
                "jobs/batch",
                json={"addresses": chunk, "limit": len(chunk)},
                repeatable=True,
                seconds=READ_SECONDS,
            )
            # One that cannot be read is left out too: it must not delay the others.
            found |= {job.address: job for job in self._read(answer) if job is not None}
        return found

    async def job(self, address: str) -> Job | None:
        """A job with its definition, and its result without logs; None where the indexer does not know it."""
        answer = await self._rest.call("GET", f"jobs/{address}", repeatable=True, seconds=READ_SECONDS, expect={404})
        if answer.status == 404:
            return None
        job = read_job(self._rest.json(answer, repeatable=True))
        if job is None:
            raise self._rest.unreadable("a job without address or state", repeatable=True)
        return job

    async def listed(self, project: str, state: State, offset: int) -> list[Job]:
        """A page of the account's jobs in one state, the latest started first."""
        await self._listing.enter()
        try:
            answer = await self._rest.call(
                "GET",
                "jobs/",
                params={"limit": PAGE, "offset": offset, "state": state, "poster": project},
                repeatable=True,
                seconds=READ_SECONDS,
            )
        finally:
            self._listing.leave()
        jobs = self._read(answer, "jobs")
        if None in jobs:
            # It might be the one that is looked for.
            raise self._rest.unreadable("a job without address or state", repeatable=True)
        return [job for job in jobs if job is not None]

    async def stop(self, address: str) -> bool:
        """End a job, or withdraw it from its queue; True also where it had ended. False where it is not known."""
        answer = await self._rest.call(
            "POST", f"jobs/{address}/stop", repeatable=True, seconds=WRITE_SECONDS, expect={404}
        )
        return answer.status != 404

    async def markets(self) -> list[Market]:
        answer = await self._rest.call("GET", "markets/", repeatable=True, seconds=READ_SECONDS)
        body = self._rest.json(answer, repeatable=True)
        if not isinstance(body, list):
            raise self._rest.unreadable("no list of markets", repeatable=True)
        return [market for item in body if (market := markets.read_market(item)) is not None]

    async def queued(self, market: str) -> int:
        """How many jobs wait for a host of the market."""
        answer = await self._rest.call(
            "GET", "jobs/count", params={"market": market}, repeatable=True, seconds=READ_SECONDS
        )
        body = self._rest.json(answer, repeatable=True)
        states = body.get("byState") if isinstance(body, dict) else None
        number = states.get("QUEUED") if isinstance(states, dict) else None
        if not isinstance(number, int):
            raise self._rest.unreadable("no count of queued jobs", repeatable=True)
        return number

    async def available_usd(self) -> Decimal:
        return (await self.credits()).available_usd

    async def credits(self) -> Credits:
        """In USD, by the dashboard and a live reading; one schema says cents (§4.6)."""
        answer = await self._rest.call("GET", "credits/balance", repeatable=True, seconds=READ_SECONDS)
        body = self._rest.json(answer, repeatable=True)
        parts = body if isinstance(body, dict) else {}
        names = ("assignedCredits", "reservedCredits", "settledCredits")
        assigned, reserved, settled = (_signed(parts.get(name)) for name in names)
        if assigned is None or reserved is None or settled is None:
            raise self._rest.unreadable("no balance", repeatable=True)
        return Credits(assigned, reserved, settled)

    async def address_of_key(self, api_key: str) -> str | None:
        """The address that belongs to the key's user, presumably the project of its jobs (§6.5); None if unknown."""
        answer = await self._rest.call(
            "POST", "auth/validate-api-key", json={"apiKey": api_key}, repeatable=True, seconds=READ_SECONDS
        )
        body = self._rest.json(answer, repeatable=True)
        user = body.get("user") if isinstance(body, dict) else None
        return _text(user.get("generatedAddress")) if isinstance(user, dict) else None

    async def close(self) -> None:
        for http in (self._rest, self._pinning, self._ipfs):
            await http.close()

    def _control(self, answer: Answer, now: float) -> Refusal | float:
        complaint = read_complaint(answer.content)
        match complaint.code:
            case "IDEMPOTENCY_KEY_IN_PROGRESS":
                told = retry_after_seconds(answer.headers, now)
                return 1.0 if told is None else told
            case "IDEMPOTENCY_KEY_EXPIRED":
                return Refusal.EXPIRED
            case "IDEMPOTENCY_KEY_PAYLOAD_MISMATCH":
                return Refusal.PAYLOAD_MISMATCH
        raise errors.REQUEST_REFUSED(f"HTTP 409, {quotable(complaint.message, ())}")

    def _forbidden(self, answer: Answer) -> Exception:
        complaint = read_complaint(answer.content)
        said = quotable(complaint.message, ())
        error = errors.MARKET_REFUSED if "market" in said.lower() else errors.NOT_PERMITTED
        return error(f"HTTP 403, {complaint.code} {said}")

    def _read(self, answer: Answer, under: str | None = None) -> list[Job | None]:
        body = self._rest.json(answer, repeatable=True)
        if under is not None:
            body = body.get(under) if isinstance(body, dict) else None
        if not isinstance(body, list):
            raise self._rest.unreadable("no list of jobs", repeatable=True)
        return [read_job(item) for item in body]


def read_job(item: Any) -> Job | None:
    """A job of any REST answer; None for what is none."""
    if not isinstance(item, dict) or not isinstance(item.get("address"), str):
        return None
    try:
        phase = JobPhase(item["state"])
    except (KeyError, ValueError):
        return None
    result_cid = item.get("ipfsResult")
    return Job(
        address=item["address"],
        phase=phase,
        market=_text(item.get("market")) or "",
        definition_cid=_text(item.get("ipfsJob")),
        result_cid=result_cid if is_cid_v0(result_cid) and result_cid != NO_RESULT else None,
        kind=_text(item.get("type")),
        definition=item.get("jobDefinition"),
        result=item.get("jobResult"),
        started_at=_seconds(item.get("timeStart")),
        ended_at=_seconds(item.get("timeEnd")),
        listed_at=_seconds(item.get("listedAt")),
        timeout_seconds=_seconds(item.get("timeout")),
        usd_reward_per_hour=markets.decimal(item.get("usdRewardPerHour")),
    )


def key_of(job: Job) -> str | None:
    """The idempotency key in the job's definition, where REST handed the definition out and it is ours."""
    return definition.key_of(job.definition)


def _seconds(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def _signed(value: Any) -> Decimal | None:
    """A number of credits. Below zero it is a banned account (§5), which is a balance all the same."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return Decimal(str(value))
