"""Listing, extending and stopping jobs for credits (§4.3)."""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from oracle.localnet.emulators.nosana.accounts import Account
from oracle.localnet.emulators.nosana.guard import Refused, authenticate, json_object, refuse
from oracle.localnet.emulators.nosana.host import Hosts, JobFault
from oracle.localnet.emulators.nosana.idempotency import RETRY_AFTER_SECONDS, Idempotency, Outcome
from oracle.localnet.emulators.nosana.ipfs import is_cid
from oracle.localnet.emulators.nosana.jobs import Job, JobState
from oracle.localnet.emulators.nosana.markets import Market
from oracle.localnet.emulators.nosana.world import World

SHORTEST_TIMEOUT_SECONDS = 3600
FIRST_JOB_NUMBER = 47675178


@dataclass(frozen=True, slots=True)
class Plan:
    """A write that was found good. `carry_out` takes the idempotency key and never fails but with `Expired`."""

    cost_micro_usd: int
    carry_out: Callable[[str | None], dict[str, Any]]


_Planner = Callable[[Account, dict[str, Any]], Plan]
_Step = Callable[[Account, dict[str, Any], str | None], Outcome]


class Expired(Exception):
    """The prepared transaction can never land."""


class JobWrites:
    """Each write is one step without a pause, so that a key settles with the effect it stands for, or not at all."""

    def __init__(self, world: World, hosts: Hosts) -> None:
        self._world = world
        self._hosts = hosts
        self._idempotency = Idempotency(world.records)

    def routes(self) -> list[Route]:
        planners: list[tuple[str, str, _Planner]] = [
            ("/jobs/list", "/jobs/list/batch", self.plan_listing),
            ("", "/jobs/assign/batch", self._plan_assignment),
            ("/jobs/{jobAddress}/extend", "/jobs/extend/batch", self._plan_extension),
            ("/jobs/{jobAddress}/stop", "/jobs/stop/batch", self._plan_stop),
        ]
        return [
            Route(path, self._handler(step(planner), key_needed), methods=["POST"])
            for single, batch, planner in planners
            for path, step, key_needed in ((single, self._one, False), (batch, self._batch, True))
            if path
        ]

    def _handler(self, step: _Step, key_needed: bool) -> Callable[[Request], Awaitable[Response]]:
        """Wraps a step of the network's state into authentication, parsing and idempotency."""

        async def handle(request: Request) -> Response:
            account = authenticate(self._world, request, "jobs:write")
            body = {**(await json_object(request) if await request.body() else {}), **request.path_params}
            key = request.headers.get("idempotency-key")
            if key_needed and key is None:
                raise refuse(400, "Idempotency-Key header is required")

            def work() -> Outcome:
                try:
                    return step(account, body, key)
                except Refused as refused:
                    return Outcome(refused.response.status_code, orjson.loads(bytes(refused.response.body)))

            payload = request.url.path.encode() + b"\0" + orjson.dumps(body, option=orjson.OPT_SORT_KEYS)
            seconds = self._world.timings.create_seconds
            outcome = await self._idempotency.once(account.user_id, key, payload, work, seconds=seconds)
            wait = isinstance(outcome.body, dict) and "retryAfter" in outcome.body
            headers = {"retry-after": str(RETRY_AFTER_SECONDS)} if wait else None
            return JSONResponse(outcome.body, outcome.status, headers)

        return handle

    def _one(self, planner: _Planner) -> _Step:
        def step(account: Account, body: dict[str, Any], key: str | None) -> Outcome:
            plan = planner(account, body)
            self.require_credits(account, plan.cost_micro_usd)
            try:
                return Outcome(200, plan.carry_out(key))
            except Expired:
                return Outcome(500, {"message": "Internal server error"}, dead=True)

        return step

    def _batch(self, planner: _Planner) -> _Step:
        """One bad item refuses the whole batch (§4.3), so all are planned before the first is carried out."""

        def step(account: Account, body: dict[str, Any], key: str | None) -> Outcome:
            items = body.get("jobs")
            if not isinstance(items, list) or not items or not all(isinstance(item, dict) for item in items):
                raise refuse(400, "jobs must be a non-empty array")
            plans = [planner(account, item) for item in items]
            self.require_credits(account, sum(plan.cost_micro_usd for plan in plans))
            return Outcome(200, {"items": [_item(n, plan, key) for n, plan in enumerate(plans)]})

        return step

    def plan_listing(self, account: Account, body: dict[str, Any]) -> Plan:
        """Raises Refused for what cannot be listed, but not for want of credits."""
        if not is_cid(body.get("ipfsHash")):
            raise refuse(400, "ipfsHash must be a CIDv0")
        market = self._world.market(body.get("market"))
        if market is None:
            raise refuse(400, "Unknown market")
        timeout = body.get("timeout", SHORTEST_TIMEOUT_SECONDS)
        if not isinstance(timeout, int) or isinstance(timeout, bool):
            raise refuse(400, "timeout must be an integer")
        if timeout < SHORTEST_TIMEOUT_SECONDS:
            least = f"Credit-paid jobs must have a timeout of at least {SHORTEST_TIMEOUT_SECONDS} seconds"
            raise refuse(400, f"{least}; {timeout} was requested")
        if not isinstance(body.get("node"), str | None):
            raise refuse(400, "node must be an address")
        if not market.credit_eligible:
            raise refuse(403, "Market is not eligible for credits")
        cost = market.reservation_micro_usd(timeout)
        return Plan(cost, lambda key: self._list(account, market, body, timeout, cost, key))

    def _list(
        self, account: Account, market: Market, body: dict[str, Any], timeout: int, cost: int, key: str | None
    ) -> dict[str, Any]:
        world = self._world
        fault = world.faults.take("job", f"{market.slug} {account.user_id} {key or '-'}")
        if fault is not None and fault.kind == JobFault.TRANSACTION_EXPIRES:
            raise Expired
        job = world.jobs.put(
            Job(
                number=FIRST_JOB_NUMBER + len(world.jobs),
                address=world.new_address(),
                run=world.new_address(),
                tx=world.new_signature(),
                user_id=account.user_id,
                project=account.address,
                market=market.address,
                ipfs_job=body["ipfsHash"],
                timeout_seconds=timeout,
                price_micro_nos_per_second=market.price_micro_nos_per_second,
                usd_per_hour=market.job_usd_per_hour,
                reserved_micro_usd=cost,
                listed_at=world.now(),
                reservation_id=self._new_reservation(),
                idempotency_key=key,
                requested_node=body.get("node"),
                fault=None if fault is None else asdict(fault),
            )
        )
        self._hosts.take(job)
        credits = {**_credits(cost, job.reservation_id), "project": job.project}
        return {"tx": job.tx, "job": job.address, "run": job.run, "credits": credits}

    def _plan_assignment(self, account: Account, body: dict[str, Any]) -> Plan:
        if not isinstance(body.get("node"), str):
            raise refuse(400, "node must be an address")
        return self.plan_listing(account, body)

    def _plan_extension(self, account: Account, body: dict[str, Any]) -> Plan:
        job = self._own_job(account, body)
        seconds = body.get("seconds")
        if not isinstance(seconds, int) or isinstance(seconds, bool) or seconds < 1:
            raise refuse(400, "seconds must be a positive integer")
        if job.state.ended:
            return Plan(0, lambda key: {"tx": None, "job": job.address})
        market = self._world.market(job.market)
        assert market is not None
        cost = market.reservation_micro_usd(seconds)
        return Plan(cost, lambda key: self._extend(job.address, seconds, cost))

    def _extend(self, address: str, seconds: int, cost: int) -> dict[str, Any]:
        job = self._world.jobs.get(address)
        assert job is not None
        timeout, reserved = job.timeout_seconds + seconds, job.reserved_micro_usd + cost
        self._world.jobs.change(address, timeout_seconds=timeout, reserved_micro_usd=reserved)
        credits = _credits(cost, self._new_reservation())
        return {"tx": self._world.new_signature(), "job": address, "credits": credits}

    def _plan_stop(self, account: Account, body: dict[str, Any]) -> Plan:
        address = self._own_job(account, body).address
        return Plan(0, lambda key: self._stop(address))

    def _stop(self, address: str) -> dict[str, Any]:
        job = self._world.jobs.get(address)
        assert job is not None
        if job.state.ended or job.delisted:
            return {"tx": None, "job": address, "delisted": False, "outcome": "already_terminal"}
        if queued := job.state is JobState.QUEUED:
            self._hosts.delist(job)
        else:
            self._hosts.stop(job)
        outcome = "delisted" if queued else "ended"
        return {"tx": self._world.new_signature(), "job": address, "delisted": queued, "outcome": outcome}

    def _own_job(self, account: Account, body: dict[str, Any]) -> Job:
        job = self._world.jobs.get(str(body.get("jobAddress")))
        if job is None or job.delisted:
            raise refuse(404, "Job not found")
        if job.user_id != account.user_id:
            raise refuse(403, "Job belongs to another user")
        return job

    def require_credits(self, account: Account, cost_micro_usd: int) -> None:
        """402 is documented in prose and absent from the schema; the text was seen (§4.3)."""
        available = self._world.jobs.balance(account.user_id, account.assigned_micro_usd).available
        if available < cost_micro_usd:
            amounts = f"Available: ${available / 1e6:.3f}, Required: ${cost_micro_usd / 1e6:.3f}"
            raise refuse(402, f"Insufficient credits. {amounts}")

    def _new_reservation(self) -> str:
        return str(uuid.UUID(bytes=self._world.entropy(16), version=4))


def _item(index: int, plan: Plan, key: str | None) -> dict[str, Any]:
    try:
        done = plan.carry_out(key)
    except Expired:
        return {"index": index, "status": "expired"}
    return {
        "index": index,
        "status": "confirmed",
        **{name: done[name] for name in ("job", "run", "tx") if name in done},
    }


def _credits(cost_micro_usd: int, reservation_id: str) -> dict[str, Any]:
    return {
        "costUSD": cost_micro_usd / 1_000_000,
        "creditsUsed": cost_micro_usd // 1000,
        "reservationId": reservation_id,
    }
