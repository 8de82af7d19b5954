"""IO Cloud containers (CaaS): rented by the hour, reached at an address of their own (§4).

A container that starts an OpenAI-compatible server is really one: its address is served by the model server. It must
be `vllm serve MODEL` in the vLLM image or `/app/llama-server -hf MODEL` in llama.cpp's, with `--port` the traffic port;
any other stays without an address, as one that does not come up would. What it costs is paid at once for the whole
time and never refunded (whether io.net refunds is unverified, §4.5).
"""

from __future__ import annotations

import re
import secrets
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from decimal import Decimal
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from oracle.localnet.emulators.faults import Fault, Faults, Wire, wire_kinds
from oracle.localnet.emulators.ionet import refusals
from oracle.localnet.emulators.ionet.catalogue import ApiKey
from oracle.localnet.emulators.ionet.containers import Served, bad_gateway, relay, served_by
from oracle.localnet.emulators.ionet.deploy_requests import (
    DeployRequest,
    ExtendRequest,
    ListQuery,
    PatchRequest,
)
from oracle.localnet.emulators.ionet.hardware_market import HardwareMarket
from oracle.localnet.emulators.ionet.refusals import Refused, refuse
from oracle.localnet.emulators.ionet.rental_views import history, rental_json, row_json, without_secrets, worker_json
from oracle.localnet.emulators.ionet.rentals import (
    HARDWARE,
    STATUSES,
    Hardware,
    Rental,
    RentalFault,
    quote,
)
from oracle.localnet.emulators.ionet.requests import check, parse
from oracle.localnet.emulators.records import Records
from oracle.localnet.emulators.upstream import REPOSITORIES, ModelServer

PREFIX = "/enterprise/v1/io-cloud/caas"


CLOUD_KEY = ApiKey(value="io-cloud-localnet")


class IonetCloud:
    """Give it to `server.serve`. `models` maps what a container may name to the name of the server at `model_url`.

    `provision_seconds` is from the request to `running`, `ready_seconds` from there to an address, `destroy_seconds`
    from a DELETE to `destroyed`. With `drops_args` a container's `args` are silently ignored, as a field report says
    (§4.3).
    """

    def __init__(
        self,
        model_url: str,
        *,
        models: Mapping[str, str] = REPOSITORIES,
        hardware: Sequence[Hardware] = HARDWARE,
        keys: Sequence[ApiKey] = (CLOUD_KEY,),
        provision_seconds: float = 0.0,
        ready_seconds: float = 0.0,
        destroy_seconds: float = 0.0,
        drops_args: bool = False,
        state_directory: Path | None = None,
        now: Callable[[], float] = time.time,
        entropy: Callable[[int], bytes] = secrets.token_bytes,
    ) -> None:
        self.faults = Faults(wire_kinds(("rental", RentalFault)))
        self._models = ModelServer(model_url, models)
        self._market = HardwareMarket(hardware, self._authenticate)
        self._keys = tuple(keys)
        self._provision_seconds = provision_seconds
        self._ready_seconds = ready_seconds
        self._destroy_seconds = destroy_seconds
        self._drops_args = drops_args
        self._now = now
        self._entropy = entropy
        self._records = Records(state_directory, "ionet-cloud")
        self._rentals = {key: Rental(**record) for key, record in self._records.read("rental")}

    def routes(self) -> ASGIApp:
        app = Starlette(
            routes=[
                *self._market.routes(),
                Route("/clusters/check_cluster_name_availability", self._name_is_free),
                Route("/deploy", self._deploy, methods=["POST"]),
                Route("/deployments", self._list),
                Route("/deployment/{id}", self._read),
                Route("/deployment/{id}", self._patch, methods=["PATCH"]),
                Route("/deployment/{id}", self._delete, methods=["DELETE"]),
                Route("/deployment/{id}/extend", self._extend, methods=["POST"]),
                Route("/deployment/{id}/containers", self._containers),
                Route("/deployment/{id}/container/{container}", self._container),
                Route("/deployment/{id}/log/{container}", self._log),
                Route("/_container/{container}{path:path}", self._inside, methods=["GET", "POST"]),
            ],
            exception_handlers={Refused: _answer_of, 404: _not_found},
        )
        app.router.redirect_slashes = False
        return app

    def canonical_path(self, path: str) -> str:
        return re.sub(rf"^{PREFIX}(?=/)", "", path)

    def refusal(self, fault: Fault) -> Response:
        if fault.kind == Wire.OUT_OF_CREDITS:
            return refuse(fault.status or 402, "Insufficient IO credits").response
        return refusals.refusal(fault)

    def books(self) -> dict[str, Any]:
        """What each key had and spent, and every rental as `rentals.Rental` records it, but for what is secret."""
        keys = [
            {
                "key_id": key.key_id,
                "credit_usd": f"{key.credit_usd:f}",
                "spent_usd": f"{self._spent_usd(key):f}",
            }
            for key in self._keys
        ]
        rentals = [
            {**asdict(rental), "config": without_secrets(rental.config), "status": rental.status(self._now())}
            for rental in self._rentals.values()
        ]
        return {"keys": keys, "rentals": rentals}

    async def start(self) -> None:
        return None

    async def close(self) -> None:
        await self._models.close()
        self._records.close()

    # --- rentals ---

    async def _name_is_free(self, request: Request) -> Response:
        self._authenticate(request)
        return JSONResponse(not self._taken(request.query_params.get("cluster_name", "")))

    async def _deploy(self, request: Request) -> Response:
        key = self._authenticate(request)
        body = parse(DeployRequest, await request.body())
        hardware = self._market.find(body.hardware_id)
        location = self._market.find_location(hardware, body.location_ids)
        if self._taken(body.resource_private_name):
            # Whether 400, 409 or 422 is unknown (§4.7).
            raise refuse(409, "Cluster name already exists")
        replicas = body.container_config.replica_count
        price = quote(hardware, body.duration_hours, body.gpus_per_container, replicas)["total_cost_usdc"]
        self._require_credits(key, Decimal(str(price)))
        fault = self.faults.take("rental", body.resource_private_name)
        started = self._now() + self._provision_seconds
        rental = self._put(
            Rental(
                id=str(uuid.UUID(bytes=self._entropy(16), version=4)),
                name=body.resource_private_name,
                key_id=key.key_id,
                hardware_id=hardware.id,
                location_id=location,
                gpus_per_container=body.gpus_per_container,
                config=body.container_config.model_dump(),
                image_url=body.registry_config.image_url,
                paid_usd=str(price),
                created_at=self._now(),
                started_at=started,
                ready_at=started + self._ready_seconds,
                ends_at=started + body.duration_hours * 3600,
                destroy_seconds=self._destroy_seconds,
                fault=None if fault is None else fault.kind,
            )
        )
        keys = {RentalFault.ID_AS_CLUSTER_ID: "cluster_id", RentalFault.ID_AS_ID: "id"}
        name = keys.get(RentalFault(rental.fault), "deployment_id") if rental.fault else "deployment_id"
        return JSONResponse({"status": "DEPLOYMENT REQUESTED", name: rental.id})

    async def _list(self, request: Request) -> Response:
        key = self._authenticate(request)
        query = check(ListQuery, dict(request.query_params), "query")
        rentals = [
            rental
            for rental in reversed(self._rentals.values())
            if rental.key_id == key.key_id and query.status in (None, rental.status(self._now()))
        ]
        page = rentals[query.page * query.page_size : (query.page + 1) * query.page_size]
        rows = [row_json(rental, self._market.find(rental.hardware_id), self._now()) for rental in page]
        return _data({"deployments": rows, "total": len(rentals), "statuses": list(STATUSES)})

    async def _read(self, request: Request) -> Response:
        return self._shown(self._own(request))

    async def _patch(self, request: Request) -> Response:
        rental = self._own(request)
        changes = parse(PatchRequest, await request.body()).model_dump(exclude_unset=True)
        image = changes.pop("image_url", rental.image_url)
        self._put(replace(rental, config={**rental.config, **changes}, image_url=image))
        return JSONResponse({"status": "UPDATED", "deployment_id": rental.id})

    async def _extend(self, request: Request) -> Response:
        key, rental = self._authenticate(request), self._own(request)
        hours = parse(ExtendRequest, await request.body()).duration_hours
        if rental.status(self._now()) not in ("running", "deployment requested"):
            raise refuse(400, "Deployment is not running")
        hardware = self._market.find(rental.hardware_id)
        replicas = rental.config["replica_count"]
        price = Decimal(str(quote(hardware, hours, rental.gpus_per_container, replicas)["total_cost_usdc"]))
        self._require_credits(key, price)
        paid = str(Decimal(rental.paid_usd) + price)
        return self._shown(self._put(replace(rental, ends_at=rental.ends_at + hours * 3600, paid_usd=paid)))

    async def _delete(self, request: Request) -> Response:
        rental = self._own(request)
        if rental.deleted_at is None:
            rental = self._put(replace(rental, deleted_at=self._now()))
        return JSONResponse({"status": rental.status(self._now()).upper(), "deployment_id": rental.id})

    # --- containers ---

    async def _containers(self, request: Request) -> Response:
        rental = self._own(request)
        workers = [self._worker(request, rental, container) for container in rental.containers]
        return _data({"total": len(workers), "workers": workers})

    async def _container(self, request: Request) -> Response:
        """Unwrapped [client]."""
        rental = self._own(request)
        return JSONResponse(self._worker(request, rental, self._find_container(request, rental)))

    async def _log(self, request: Request) -> Response:
        """Plain text lines, never JSON (§4.2)."""
        rental = self._own(request)
        container = self._find_container(request, rental)
        return PlainTextResponse("".join(f"{event['message']}\n" for event in history(rental, container, self._now())))

    async def _inside(self, request: Request) -> Response:
        """The public address: no key of io.net's is asked for; the container checks its own."""
        container = request.path_params["container"]
        rental = self._rentals.get(container.rpartition("-")[0])
        if rental is None or container not in rental.containers or not rental.is_ready(self._now()):
            return bad_gateway()
        server = self._server_in(rental)
        if server is None or rental.fault == RentalFault.CONTAINER_DIES:
            return bad_gateway()
        return await relay(server, self._models, request, request.path_params["path"])

    def _server_in(self, rental: Rental) -> Served | None:
        config = {**rental.config, "args": []} if self._drops_args else rental.config
        return served_by(rental.image_url, config, self._models.models)

    def _worker(self, request: Request, rental: Rental, container: str) -> dict[str, Any]:
        up = rental.is_ready(self._now()) and self._server_in(rental) is not None
        url = f"{request.base_url}_container/{container}" if up else None
        return worker_json(rental, self._market.find(rental.hardware_id), container, url, self._now())

    # --- what several routes need ---

    def _authenticate(self, request: Request) -> ApiKey:
        key = next((key for key in self._keys if key.value == request.headers.get("x-api-key")), None)
        if key is None:
            raise refusals.unauthorized()
        return key

    def _own(self, request: Request) -> Rental:
        key = self._authenticate(request)
        rental = self._rentals.get(request.path_params["id"])
        if rental is None or rental.key_id != key.key_id:
            raise refuse(404, "Deployment not found")
        return rental

    def _find_container(self, request: Request, rental: Rental) -> str:
        if (container := request.path_params["container"]) not in rental.containers:
            raise refuse(404, "Container not found")
        return str(container)

    def _taken(self, name: str) -> bool:
        return any(rental.name == name for rental in self._rentals.values())

    def _spent_usd(self, key: ApiKey) -> Decimal:
        paid = (Decimal(rental.paid_usd) for rental in self._rentals.values() if rental.key_id == key.key_id)
        return sum(paid, Decimal(0))

    def _require_credits(self, key: ApiKey, price: Decimal) -> None:
        if self._spent_usd(key) + price > key.credit_usd:
            raise refuse(402, "Insufficient IO credits")

    def _shown(self, rental: Rental) -> Response:
        return _data(rental_json(rental, self._market.find(rental.hardware_id), self._now()))

    def _put(self, rental: Rental) -> Rental:
        self._rentals[rental.id] = rental
        self._records.put("rental", rental.id, asdict(rental))
        return rental


def _data(value: Any) -> Response:
    return JSONResponse({"data": value})


async def _answer_of(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refused)
    return error.response


async def _not_found(request: Request, error: Exception) -> Response:
    return JSONResponse({"detail": "Not Found"}, 404)
