"""The emulator as a whole: signatures, offers, jobs, runs, and the containers behind ports of their own."""

from __future__ import annotations

import json
import re
import secrets
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from decimal import Decimal
from email.utils import formatdate
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from oracle.localnet.emulators.faults import Fault, Faults, wire_kinds
from oracle.localnet.emulators.ionet.containers import Served, relay
from oracle.localnet.emulators.records import Records
from oracle.localnet.emulators.render import refusals
from oracle.localnet.emulators.render.containers import Doors, Exit, loading, started
from oracle.localnet.emulators.render.hardware import HARDWARE, MANY_GPUS_USD_PER_HOUR, Hardware
from oracle.localnet.emulators.render.jobs import AT_ONCE, TERMINAL, Job, JobFault, Timings
from oracle.localnet.emulators.render.orders import read_order
from oracle.localnet.emulators.render.refusals import Refused, refuse
from oracle.localnet.emulators.render.signatures import Signatures
from oracle.localnet.emulators.server import CutConnection
from oracle.localnet.emulators.upstream import REPOSITORIES, ModelServer


@dataclass(frozen=True, slots=True)
class ApiKey:
    """`may_create` False is a key of the preset for nodes (§1)."""

    public_key: str = "pk_localnet"
    secret_key: str = "sk_localnet"
    credit_usd: Decimal = Decimal(100)
    may_create: bool = True


class Render:
    """Give it to `server.serve`. Containers with a model server run on the OpenAI-compatible one at `model_url`.

    `models` maps the repository that a container may name to the model server's own name. `requests_per_minute` is for
    each key; no limit is known.
    """

    def __init__(
        self,
        model_url: str,
        *,
        models: Mapping[str, str] = REPOSITORIES,
        hardware: Sequence[Hardware] = HARDWARE,
        keys: Sequence[ApiKey] = (ApiKey(),),
        timings: Timings = AT_ONCE,
        requests_per_minute: int | None = None,
        state_directory: Path | None = None,
        now: Callable[[], float] = time.time,
        entropy: Callable[[int], bytes] = secrets.token_bytes,
    ) -> None:
        self.faults = Faults(wire_kinds(("job", JobFault)))
        self._models = ModelServer(model_url, models)
        self._hardware = tuple(hardware)
        self._keys = {key.public_key: key for key in keys}
        self._timings = timings
        self._requests_per_minute = requests_per_minute
        self._now = now
        self._entropy = entropy
        self._signatures = Signatures({key.public_key: key.secret_key for key in keys})
        self._records = Records(state_directory, "render")
        self._jobs = {uuid: Job(**record) for uuid, record in self._records.read("job")}
        self._doors = Doors(self._inside)
        self._recent: dict[str, deque[float]] = {}

    def routes(self) -> ASGIApp:
        app = Starlette(
            routes=[
                Route("/v1/jobs", self._create, methods=["POST"]),
                Route("/v1/jobs", self._list),
                Route("/v1/jobs/{uuid}", self._read),
                Route("/v1/jobs/{uuid}/cancel", self._cancel, methods=["PUT"]),
                Route("/v1/job-runs", self._list_runs),
                Route("/v1/job-runs/{uuid}", self._read_run),
                Route("/v1/compute/offers", self._offers),
            ],
            exception_handlers={Refused: _answer_of, 404: _not_found, 405: _not_found},
        )
        app.router.redirect_slashes = False
        return self._dated(app)

    def canonical_path(self, path: str) -> str:
        return path

    def refusal(self, fault: Fault) -> Response:
        return refusals.refusal(fault)

    def books(self) -> dict[str, Any]:
        """Every job with what it has cost so far, and what each key has spent."""
        now = self._now()
        jobs = [
            {
                "uuid": job.uuid,
                "title": job.order["title"],
                "status": job.status(now),
                "cost_usd": f"{job.cost_usd(now):f}",
            }
            for job in self._jobs.values()
        ]
        return {"jobs": jobs, "spent_usd": {key: f"{self._spent_usd(key):f}" for key in self._keys}}

    async def start(self) -> None:
        return None

    async def close(self) -> None:
        await self._doors.close()
        await self._models.close()
        self._records.close()

    # --- jobs ---

    async def _create(self, request: Request) -> Response:
        key = await self._authenticate(request)
        order = read_order(json.loads(await request.body() or b"null"))
        if not key.may_create:
            raise refuse(403, "FORBIDDEN", "API key is not permitted to create jobs")
        if self._spent_usd(key.public_key) >= key.credit_usd:
            raise refuse(402, "INSUFFICIENT_BALANCE", "Insufficient credits")
        node = next((one for one in self._by_price() if one.fits(order.model_dump())), None)
        fault = self.faults.take("job", order.title)
        job = self._put(self._placed(key, order.model_dump(), node, fault))
        return JSONResponse(job.as_json(self._now()), 201)

    def _placed(self, key: ApiKey, order: dict[str, Any], node: Hardware | None, fault: Fault | None) -> Job:
        """A job with its whole life laid out; one that no node can take waits until its time is over."""
        kind = fault.kind if fault else None
        if node is None:
            kind = JobFault.NEVER_ASSIGNED
        times, now = self._timings, self._now()
        program = started(order["parameters"]["parameters"], self._models.models)
        exit_code = program.code if isinstance(program, Exit) else None
        if fault and kind == JobFault.EXITS:
            exit_code = fault.exit_code
        assigned_at = now + times.assign_seconds
        running_at = assigned_at + times.start_seconds
        run_listed_at = running_at + times.run_lag_seconds
        addressed_at = run_listed_at + times.address_lag_seconds
        rate = MANY_GPUS_USD_PER_HOUR if kind == JobFault.DEAR else node.usd_per_hour if node else Decimal(0)
        return Job(
            uuid=self._uuid(),
            run_uuid=self._uuid(),
            public_key=key.public_key,
            order=order,
            usd_per_hour=str(rate),
            created_at=now,
            assigned_at=assigned_at,
            running_at=running_at,
            run_listed_at=run_listed_at,
            addressed_at=addressed_at,
            serving_at=addressed_at + times.load_seconds,
            cancel_seconds=fault.seconds if fault and kind == JobFault.SLOW_CANCEL else times.cancel_seconds,
            listed_at=now + (fault.seconds if fault and kind == JobFault.UNLISTED else 0.0),
            exit_code=exit_code,
            exit_reason=program.reason if isinstance(program, Exit) else "",
            fault=kind,
        )

    async def _list(self, request: Request) -> Response:
        key = await self._authenticate(request)
        now, query = self._now(), request.query_params
        wanted = {
            "status": query.get("filter[status]"),
            "uuid": query.get("filter[uuid]"),
            "task": query.get("filter[task]"),
        }
        rows = [
            row
            for job in self._of(key)
            if now >= job.listed_at
            for row in (job.as_json(now),)
            if all(value is None or row[name] in value.split(",") for name, value in wanted.items())
        ]
        return _page(rows, query)

    async def _read(self, request: Request) -> Response:
        return JSONResponse((await self._own(request)).as_json(self._now()))

    async def _cancel(self, request: Request) -> Response:
        job = await self._own(request)
        if job.status(self._now()) in TERMINAL:
            raise refuse(409, "CONFLICT", "Job is already in a terminal state")
        if job.cancelled_at is None:
            job = self._put(replace(job, cancelled_at=self._now()))
        return JSONResponse(job.as_json(self._now()))

    # --- runs ---

    async def _list_runs(self, request: Request) -> Response:
        key = await self._authenticate(request)
        query = request.query_params
        wanted = query.get("filter[job_uuid]")
        runs = [
            run for job in self._of(key) if wanted in (None, job.uuid) and (run := await self._run(job)) is not None
        ]
        status = query.get("filter[status]")
        return _page([run for run in runs if status is None or run["status"] in status.split(",")], query)

    async def _read_run(self, request: Request) -> Response:
        key = await self._authenticate(request)
        for job in self._of(key):
            if job.run_uuid == request.path_params["uuid"] and (run := await self._run(job)) is not None:
                program = started(job.order["parameters"]["parameters"], self._models.models)
                return JSONResponse(
                    {**run, "logs": program.logs if isinstance(program, Exit) else "server is listening\n"}
                )
        raise refuse(404, "NOT_FOUND", "Job run not found")

    async def _run(self, job: Job) -> dict[str, Any] | None:
        serves = isinstance(started(job.order["parameters"]["parameters"], self._models.models), Served)
        return job.run_json(self._now(), await self._doors.port(job.uuid) if serves else None)

    async def _inside(self, uuid: str, request: Request) -> Response:
        """A call to the public port: no signature is asked for; the server in the container checks its own key."""
        job, now = self._jobs[uuid], self._now()
        program = started(job.order["parameters"]["parameters"], self._models.models)
        if job.lost_at is not None or job.status(now) not in ("RUNNING", "REBALANCING") or isinstance(program, Exit):
            raise CutConnection
        if not job.serves(now):
            return loading()
        if job.fault == JobFault.NODE_LOST and request.method == "POST":
            self._put(replace(job, lost_at=now))
            raise CutConnection
        return await relay(program, self._models, request, request.url.path)

    # --- offers ---

    async def _offers(self, request: Request) -> Response:
        await self._authenticate(request)
        query = request.query_params
        wanted: dict[str, Any] = {
            name: int(query[f"filter[{name}]"])
            for name in ("cpu_count", "gpu_count", "min_vram_gb", "min_ram_gb", "min_storage_gb")
            if query.get(f"filter[{name}]", "").isdecimal()
        }
        wanted |= {name: query.get(f"filter[{name}]") for name in ("gpu_name", "gpu_registry_uuid")}
        wanted["allowed_region_codes"] = query.get("filter[allowed_region_codes]", "").split(",")
        if wanted["allowed_region_codes"] == [""]:
            wanted["allowed_region_codes"] = []
        return _page(
            [one.as_offer(self._now()) for one in self._hardware if one.fits(wanted)], query, oldest_first=True
        )

    # --- what several routes need ---

    async def _authenticate(self, request: Request) -> ApiKey:
        complaint = self._signatures.complaint(
            request.headers,
            request.method,
            request.url.path,
            request.scope["query_string"].decode("latin-1"),
            await request.body(),
            self._now(),
        )
        if complaint is not None:
            raise refuse(401, "UNAUTHORIZED", complaint)
        key = self._keys[request.headers["x-api-key"]]
        if self._requests_per_minute is not None:
            recent = self._recent.setdefault(key.public_key, deque())
            while recent and recent[0] <= self._now() - 60:
                recent.popleft()
            if len(recent) >= self._requests_per_minute:
                raise refuse(429, "RATE_LIMITED", "Too many requests")
            recent.append(self._now())
        return key

    async def _own(self, request: Request) -> Job:
        key = await self._authenticate(request)
        job = self._jobs.get(request.path_params["uuid"])
        if job is None or job.public_key != key.public_key:
            raise refuse(404, "NOT_FOUND", "Job not found")
        return job

    def _of(self, key: ApiKey) -> list[Job]:
        return [job for job in self._jobs.values() if job.public_key == key.public_key]

    def _spent_usd(self, public_key: str) -> Decimal:
        now = self._now()
        costs = (job.cost_usd(now) for job in self._jobs.values() if job.public_key == public_key)
        return sum(costs, Decimal(0))

    def _by_price(self) -> list[Hardware]:
        return sorted(self._hardware, key=lambda one: one.usd_per_hour)

    def _put(self, job: Job) -> Job:
        self._jobs[job.uuid] = job
        self._records.put("job", job.uuid, asdict(job))
        return job

    def _uuid(self) -> str:
        digits = f"{int(self._now() * 1000):012x}7{self._entropy(9).hex()}"
        return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:32].ljust(12, "0")))

    def _dated(self, app: ASGIApp) -> ASGIApp:
        """Every answer tells the time by the emulator's clock: a client may have to set its own by it (§8)."""

        async def wrapped(scope: Scope, receive: Receive, send: Send) -> None:
            async def send_dated(message: Message) -> None:
                if message["type"] == "http.response.start":
                    date = (b"date", formatdate(self._now(), usegmt=True).encode())
                    message = {**message, "headers": [*message["headers"], date]}
                await send(message)

            await app(scope, receive, send_dated)

        return wrapped


def _page(rows: Sequence[dict[str, Any]], query: Mapping[str, str], *, oldest_first: bool = False) -> Response:
    """The envelope of every list (§3). Rows come in the order of their creation."""
    page, limit = query.get("page", "1"), query.get("limit", "20")
    if not re.fullmatch(r"[1-9]\d{0,8}", page) or not (limit.isdecimal() and 1 <= int(limit) <= 50):
        raise refuse(400, "VALIDATION_ERROR", "page must be at least 1 and limit between 1 and 50")
    if query.get("sort", "created_at") not in ("created_at", "-created_at"):
        raise refuse(400, "VALIDATION_ERROR", "sort must be created_at or -created_at")
    ordered = list(reversed(rows)) if query.get("sort") == "-created_at" and not oldest_first else list(rows)
    start = (int(page) - 1) * int(limit)
    shown = ordered[start : start + int(limit)]
    return JSONResponse({"data": shown, "page": int(page), "limit": int(limit), "total": len(rows)})


async def _answer_of(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refused)
    return error.response


async def _not_found(request: Request, error: Exception) -> Response:
    return refuse(404, "NOT_FOUND", "Not found").response
