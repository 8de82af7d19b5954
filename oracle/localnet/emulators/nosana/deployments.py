"""Deployments: a definition sent inline, pinned and listed by the service itself (§4.8, §7.10).

Strategy SIMPLE, paid with credits. There is no idempotency key: the same name twice is two deployments.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from oracle.localnet.emulators.ionet.containers import relay
from oracle.localnet.emulators.nosana.accounts import Account
from oracle.localnet.emulators.nosana.definition import validate
from oracle.localnet.emulators.nosana.guard import Refused, authenticate, json_object
from oracle.localnet.emulators.nosana.host import Hosts
from oracle.localnet.emulators.nosana.ipfs import as_pinata_stores, base58
from oracle.localnet.emulators.nosana.jobs import NOBODY, Job, JobState
from oracle.localnet.emulators.nosana.world import World
from oracle.localnet.emulators.nosana.writes import Expired, JobWrites

PAGE_SIZES = (10, 20, 50, 100)


@dataclass(frozen=True, slots=True)
class Deployment:
    """`status` is what was last asked for; whether a job runs is another question (§4.8). Times are unix seconds."""

    id: str
    name: str
    user_id: str
    owner: str
    market: str
    replicas: int
    timeout_minutes: int
    definition: dict[str, Any]
    created_at: float
    updated_at: float
    status: str = "DRAFT"
    jobs: tuple[str, ...] = ()
    events: tuple[dict[str, Any], ...] = field(default=())


class Deployments:
    def __init__(self, world: World, hosts: Hosts, writes: JobWrites) -> None:
        self._world = world
        self._hosts = hosts
        self._writes = writes
        self._deployments = {
            key: Deployment(**{**record, "jobs": tuple(record["jobs"]), "events": tuple(record["events"])})
            for key, record in world.records.read("deployment")
        }

    def routes(self) -> list[Route]:
        return [
            Route("/deployments/create", self._create, methods=["POST"]),
            Route("/deployments", self._list),
            Route("/deployments/{id}", self._read),
            Route("/deployments/{id}", self._delete, methods=["DELETE"]),
            Route("/deployments/{id}/jobs", self._jobs),
            Route("/deployments/{id}/jobs/{job}", self._job),
            Route("/deployments/{id}/events", self._events),
            Route("/deployments/{id}/{action}", self._act, methods=["POST"]),
            Route("/node/{host}/{path:path}", self._endpoint, methods=["GET", "POST"]),
        ]

    def as_json(self) -> list[dict[str, Any]]:
        """For the books."""
        return [asdict(deployment) for deployment in self._deployments.values()]

    async def _create(self, request: Request) -> Response:
        account = self._authenticate(request, "deployments:write")
        body = await json_object(request)
        market = self._world.market(body.get("market"))
        for good, complaint in (
            (isinstance(body.get("name"), str) and body["name"], "name is required"),
            (market is not None, "Unknown market"),
            (_positive(body.get("replicas")), "replicas must be at least 1"),
            (_positive(body.get("timeout")), "timeout must be at least 1 minute"),
            (body.get("strategy") == "SIMPLE", "The emulator runs strategy SIMPLE only"),
            (not body.get("confidential"), "The emulator runs no confidential deployments"),
            ("vault" not in body and "new_vault" not in body, "The emulator pays with credits, not from a vault"),
            (
                not validate(body.get("job_definition")),
                f"Invalid job definition: {validate(body.get('job_definition'))}",
            ),
        ):
            if not good:
                raise Refused(JSONResponse({"error": complaint}, 400))
        assert market is not None
        now = self._world.now()
        deployment = Deployment(
            id=self._world.new_address(),
            name=body["name"],
            user_id=account.user_id,
            owner=account.address,
            market=market.address,
            replicas=body["replicas"],
            timeout_minutes=body["timeout"],
            definition=body["job_definition"],
            created_at=now,
            updated_at=now,
        )
        self._put(deployment)
        if body.get("autostart"):
            deployment = self._start(account, deployment)
        return JSONResponse(self._shown(request, deployment))

    async def _list(self, request: Request) -> Response:
        account = self._authenticate(request, "deployments:read")
        mine = [one for one in self._deployments.values() if one.user_id == account.user_id]
        return _page(request, "deployments", [self._shown(request, one) for one in mine if one.status != "DELETED"])

    async def _read(self, request: Request) -> Response:
        return JSONResponse(self._shown(request, self._own(request, "deployments:read")[1]))

    async def _jobs(self, request: Request) -> Response:
        _, deployment = self._own(request, "deployments:read")
        return _page(request, "jobs", [self._job_row(deployment, job) for job in self._jobs_of(deployment)])

    async def _job(self, request: Request) -> Response:
        """The result with its logs, which the job read does not show (§3.8)."""
        _, deployment = self._own(request, "deployments:read")
        job = next((job for job in self._jobs_of(deployment) if job.address == request.path_params["job"]), None)
        if job is None:
            raise _missing()
        result = None if job.ipfs_result is None else self._world.pinned(job.ipfs_result)
        return JSONResponse(
            {
                "confidential": False,
                "revision": 1,
                "market": job.market,
                "node": job.node,
                "state": int(job.state),
                "jobStatus": None,
                "jobDefinition": self._pinned_definition(deployment),
                "jobResult": None if result is None else orjson.loads(result),
                "timeStart": int(job.time_start),
                "timeEnd": int(job.time_end),
                "listedAt": int(job.listed_at),
            }
        )

    async def _events(self, request: Request) -> Response:
        return _page(request, "events", list(self._own(request, "deployments:read")[1].events))

    async def _act(self, request: Request) -> Response:
        account, deployment = self._own(request, "deployments:write")
        acts: dict[str, Callable[[], Deployment]] = {
            "start": lambda: self._start(account, deployment),
            "stop": lambda: self._stop(deployment),
            "archive": lambda: self._put(replace(deployment, status="ARCHIVED")),
        }
        if (act := acts.get(request.path_params["action"])) is None:
            raise _missing()
        return JSONResponse(self._shown(request, act()))

    async def _endpoint(self, request: Request) -> Response:
        """What a replica serves behind this name, to anyone; where none does, the tunnel's page (unverified)."""
        for deployment in self._deployments.values():
            for operation in deployment.definition["ops"]:
                if endpoint_host(deployment.id, deployment.owner, operation["id"]) == request.path_params["host"]:
                    for job in self._jobs_of(deployment):
                        if (server := self._hosts.server_of(job, operation["id"])) is not None:
                            return await relay(server, self._world.models, request, f"/{request.path_params['path']}")
        return HTMLResponse("<html><body><h1>The page you requested was not found.</h1></body></html>", 404)

    async def _delete(self, request: Request) -> Response:
        _, deployment = self._own(request, "deployments:write")
        self._put(replace(self._stop(deployment), status="DELETED"))
        return JSONResponse({})

    def _start(self, account: Account, deployment: Deployment) -> Deployment:
        """Lists a job for each replica. What is refused becomes an event: the deployment runs all the same."""
        definition = as_pinata_stores(self._pinned_definition(deployment))
        listing = {
            "ipfsHash": self._world.pin(definition),
            "market": deployment.market,
            "timeout": deployment.timeout_minutes * 60,
        }
        deployment = replace(deployment, status="RUNNING")
        for _ in range(deployment.replicas):
            try:
                plan = self._writes.plan_listing(account, listing)
                self._writes.require_credits(account, plan.cost_micro_usd)
                listed = plan.carry_out(f"deployment {deployment.name}")
            except (Refused, Expired) as error:
                body = (
                    orjson.loads(bytes(error.response.body)) if isinstance(error, Refused) else {"message": "expired"}
                )
                out_of_credits = isinstance(error, Refused) and error.response.status_code == 402
                message = f"Error Failed to list job batch: {body['message']}"
                status = "INSUFFICIENT_FUNDS" if out_of_credits else deployment.status
                deployment = replace(self._with_event(deployment, "JOB_LIST_ERROR", message), status=status)
            else:
                deployment = self._with_event(deployment, "JOB_LIST_CONFIRMED", listed["job"], tx=listed["tx"])
                deployment = replace(deployment, jobs=(*deployment.jobs, listed["job"]))
        return self._put(deployment)

    def _stop(self, deployment: Deployment) -> Deployment:
        for job in self._jobs_of(deployment):
            if job.state is JobState.QUEUED:
                self._hosts.delist(job)
            elif job.state is JobState.RUNNING:
                self._hosts.stop(job)
        return self._put(replace(deployment, status="STOPPED"))

    def _put(self, deployment: Deployment) -> Deployment:
        deployment = replace(deployment, updated_at=self._world.now())
        self._deployments[deployment.id] = deployment
        self._world.records.put("deployment", deployment.id, asdict(deployment))
        return deployment

    def _with_event(self, deployment: Deployment, kind: str, message: str, **more: Any) -> Deployment:
        event = {
            "category": "Event",
            "deploymentId": deployment.id,
            "type": kind,
            "message": message,
            **more,
            "created_at": _iso(self._world.now()),
        }
        return replace(deployment, events=(*deployment.events, event))

    def _authenticate(self, request: Request, scope: str) -> Account:
        try:
            return authenticate(self._world, request, scope)
        except Refused as refused:
            if refused.response.status_code == 401:
                raise Refused(PlainTextResponse("Unauthorized", 401)) from None
            raise

    def _own(self, request: Request, scope: str) -> tuple[Account, Deployment]:
        account = self._authenticate(request, scope)
        deployment = self._deployments.get(request.path_params["id"])
        if deployment is None or deployment.user_id != account.user_id or deployment.status == "DELETED":
            raise _missing()
        return account, deployment

    def _jobs_of(self, deployment: Deployment) -> list[Job]:
        jobs = (self._world.jobs.get(address) for address in deployment.jobs)
        return [job for job in jobs if job is not None and not job.delisted]

    def _pinned_definition(self, deployment: Deployment) -> dict[str, Any]:
        return {**deployment.definition, "deployment_id": deployment.id}

    def _shown(self, request: Request, deployment: Deployment) -> dict[str, Any]:
        """A SIMPLE deployment whose jobs have all ended has stopped."""
        jobs = self._jobs_of(deployment)
        over = deployment.status == "RUNNING" and bool(jobs) and all(job.state.ended for job in jobs)
        return {
            "id": deployment.id,
            "name": deployment.name,
            "vault": deployment.owner,
            "market": deployment.market,
            "owner": deployment.owner,
            "status": "STOPPED" if over else deployment.status,
            "replicas": deployment.replicas,
            "timeout": deployment.timeout_minutes,
            "endpoints": _endpoints(deployment, str(request.base_url)),
            "confidential": False,
            "active_revision": 1,
            "active_jobs": sum(not job.state.ended for job in jobs),
            "created_at": _iso(deployment.created_at),
            "updated_at": _iso(deployment.updated_at),
            "strategy": "SIMPLE",
        }

    def _job_row(self, deployment: Deployment, job: Job) -> dict[str, Any]:
        return {
            "tx": job.tx,
            "deployment": deployment.id,
            "job": job.address,
            "market": job.market,
            "node": None if job.node == NOBODY else job.node,
            "revision": 1,
            "state": job.state.name,
            "time_start": int(job.time_start),
            "created_at": _iso(job.listed_at),
            "updated_at": _iso(max(job.listed_at, job.time_start, job.time_end)),
        }


def endpoint_host(deployment_id: str, vault: str, operation_id: str) -> str:
    """The stable name of an operation of a deployment (§1.7)."""
    group = base58(hashlib.sha512(f"{deployment_id}:{vault}".encode()).digest())[:45]
    return base58(hashlib.sha512(f"{operation_id}:0:{group}".encode()).digest())[:44]


def _endpoints(deployment: Deployment, here: str) -> list[dict[str, Any]]:
    """At Nosana each is a host of its own, `https://<hash>.node.k8s.prd.nos.ci`; here it is a path of the emulator."""
    return [
        {
            "opId": operation["id"],
            "port": operation["args"]["expose"],
            "url": f"{here}node/{endpoint_host(deployment.id, deployment.owner, operation['id'])}",
        }
        for operation in deployment.definition["ops"]
        if "expose" in operation["args"]
    ]


def _page(request: Request, name: str, rows: list[dict[str, Any]]) -> Response:
    """Cursor pages, newest first unless asked otherwise. The cursor is opaque; here it is an offset."""
    query = request.query_params
    try:
        limit, start = int(query.get("limit", 10)), int(query.get("cursor", 0))
    except ValueError:
        limit, start = 0, 0
    if limit not in PAGE_SIZES or start < 0 or query.get("sort_order", "desc") not in ("asc", "desc"):
        raise Refused(JSONResponse({"error": "Invalid pagination"}, 400))
    ordered = rows if query.get("sort_order") == "asc" else rows[::-1]
    pagination = {
        "cursor_next": str(start + limit) if start + limit < len(rows) else None,
        "cursor_prev": str(max(0, start - limit)) if start else None,
        "total_items": len(rows),
    }
    return JSONResponse({name: ordered[start : start + limit], "pagination": pagination})


def _missing() -> Refused:
    return Refused(JSONResponse({"error": "Deployment not found"}, 404))


def _positive(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
