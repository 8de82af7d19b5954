"""Reading jobs: open to all, a little behind the chain, without logs (§4.4)."""

from __future__ import annotations

import math
from collections import Counter, deque
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from oracle.localnet.emulators.nosana.flow import without_logs
from oracle.localnet.emulators.nosana.guard import json_object, refuse, whole_number
from oracle.localnet.emulators.nosana.jobs import PAYER, Job, JobState
from oracle.localnet.emulators.nosana.world import World

_LIST_LIMITS = ((20, 30.0), (500, 3600.0), (3000, 86400.0))
"""Calls of the list route from one address, and in how many seconds."""


class JobReads:
    def __init__(self, world: World) -> None:
        self._world = world
        self._list_calls: dict[str, deque[float]] = {}

    def routes(self) -> list[Route]:
        return [
            Route("/jobs", self._list),
            Route("/jobs/batch", self._batch, methods=["POST"]),
            Route("/jobs/count", self._count),
            Route("/jobs/running", self._running),
            Route("/jobs/running-nodes", self._running_nodes),
            Route("/jobs/long-running", self._long_running),
            Route("/jobs/{address}", self._one),
        ]

    async def _one(self, request: Request) -> Response:
        job = self._world.jobs.get(request.path_params["address"])
        if job is None or not self._visible(job):
            raise refuse(404, "Not Found", code="NOT_FOUND")
        return JSONResponse(self._as_json(job))

    async def _list(self, request: Request) -> Response:
        if self._too_often(request.client.host if request.client else ""):
            return rate_limited()
        query = request.query_params
        limit = whole_number(query.get("limit"), 10, least=1, most=50)
        offset = whole_number(query.get("offset"), 0, least=0)
        state = query.get("state")
        if state is not None and state not in JobState.__members__:
            raise refuse(
                422,
                f'{{"expected":"QUEUED | RUNNING | COMPLETED | STOPPED","found":"{state[:50]}"}}',
                code="VALIDATION",
            )
        jobs = [job for job in self._filtered(request) if state is None or job.state is JobState[state]]
        # By start, latest first: queued jobs, whose start is 0, come last and hide behind the first page.
        jobs.sort(key=lambda job: (-job.time_start, -job.number))
        page = [self._as_json(job) for job in jobs[offset : offset + limit]]
        return JSONResponse({"jobs": page, "totalJobs": len(jobs)})

    async def _batch(self, request: Request) -> Response:
        addresses = (await json_object(request)).get("addresses")
        if not isinstance(addresses, list) or not 1 <= len(addresses) <= 100:
            raise refuse(422, '{"expected":"1 to 100 addresses"}', code="VALIDATION")
        found = [self._world.jobs.get(address) for address in addresses if isinstance(address, str)]
        jobs = [self._as_json(job) for job in found if job is not None and self._visible(job)]
        return JSONResponse([{k: v for k, v in job.items() if k not in ("jobDefinition", "jobResult")} for job in jobs])

    async def _count(self, request: Request) -> Response:
        states = Counter(job.state for job in self._filtered(request))
        by_state = {state.name: states[state] for state in JobState}
        return JSONResponse({"total": sum(by_state.values()), "byState": by_state})

    async def _running(self, request: Request) -> Response:
        running = Counter(job.market for job in self._filtered(request) if job.state is JobState.RUNNING)
        return JSONResponse({market: {"running": count} for market, count in running.items()})

    async def _running_nodes(self, request: Request) -> Response:
        return JSONResponse([job.node for job in self._filtered(request) if job.state is JobState.RUNNING])

    async def _long_running(self, request: Request) -> Response:
        """Jobs past their timeout: by market, or `{market, jobs}` when filtered. What is in a group is unverified."""
        late: dict[str, list[dict[str, Any]]] = {}
        for job in self._filtered(request):
            if job.state is JobState.RUNNING and self._world.now() > job.deadline:
                late.setdefault(job.market, []).append(self._as_json(job))
        market = request.query_params.get("market")
        return JSONResponse(late if market is None else {"market": market, "jobs": late.get(market, [])})

    def _filtered(self, request: Request) -> list[Job]:
        query = request.query_params
        wanted = {
            field: query[name]
            for name, field in (("market", "market"), ("node", "node"), ("poster", "project"), ("payer", "payer"))
            if name in query
        }
        if wanted.pop("payer", PAYER) != PAYER:
            return []
        return [
            job
            for job in self._world.jobs
            if self._visible(job) and all(getattr(job, field) == value for field, value in wanted.items())
        ]

    def _visible(self, job: Job) -> bool:
        return not job.delisted and self._world.now() >= job.listed_at + self._world.timings.read_lag_seconds

    def _too_often(self, client: str) -> bool:
        now = self._world.now()
        calls = self._list_calls.setdefault(client, deque(maxlen=3000))
        if any(sum(at > now - seconds for at in calls) >= most for most, seconds in _LIST_LIMITS):
            return True
        calls.append(now)
        return False

    def _as_json(self, job: Job) -> dict[str, Any]:
        taken = job.state is not JobState.QUEUED
        definition = self._document(job.ipfs_job) if taken else None
        lag = self._world.timings.result_lag_seconds
        shown = job.ipfs_result is not None and self._world.now() >= job.result_at + lag
        result = self._document(job.ipfs_result) if shown else None
        trigger = definition.get("meta", {}).get("trigger") if isinstance(definition, dict) else None
        return {
            "id": job.number,
            "address": job.address,
            "ipfsJob": job.ipfs_job,
            "ipfsResult": job.ipfs_result,
            "market": job.market,
            "node": job.node,
            "payer": PAYER,
            "price": job.price_micro_nos_per_second,
            "project": job.project,
            "state": int(job.state),
            "type": trigger,
            # Seen as an object and as a string: every other job has the other (§4.4).
            "jobDefinition": orjson.dumps(definition).decode() if definition and job.number % 2 else definition,
            "jobResult": None if result is None else without_logs(result),
            "jobStatus": None if result is None else result["status"],
            "timeEnd": math.floor(job.time_end),
            "timeStart": math.floor(job.time_start),
            "timeout": job.timeout_seconds,
            "usdRewardPerHour": job.usd_per_hour if taken else None,
            "listedAt": math.floor(job.listed_at) if taken else None,
        }

    def _document(self, cid: str | None) -> Any:
        document = None if cid is None else self._world.pinned(cid)
        try:
            return None if document is None else orjson.loads(document)
        except orjson.JSONDecodeError:
            return None


def rate_limited() -> Response:
    return JSONResponse({"error": "Rate limit exceeded", "message": "Too many requests"}, 429)
