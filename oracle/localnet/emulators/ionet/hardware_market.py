"""The catalogue of IO Cloud: hardware, where there is some, and what it costs (§4.2, §4.6)."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from oracle.localnet.emulators.ionet.catalogue import ApiKey
from oracle.localnet.emulators.ionet.deploy_requests import Id, PriceQuery
from oracle.localnet.emulators.ionet.refusals import refuse
from oracle.localnet.emulators.ionet.rentals import LOCATIONS, Hardware, quote
from oracle.localnet.emulators.ionet.requests import check

PUBLIC_PREFIX = "/v1/io-cloud/caas"
"""The catalogue that needs no key."""


class HardwareMarket:
    def __init__(self, hardware: Sequence[Hardware], authenticate: Callable[[Request], ApiKey]) -> None:
        self._hardware = {str(one.id): one for one in hardware}
        self._authenticate = authenticate

    def routes(self) -> list[Route]:
        return [
            Route("/hardware", self._list_hardware),
            Route(f"{PUBLIC_PREFIX}/hardware", self._list_public_hardware),
            Route(f"{PUBLIC_PREFIX}/locations", self._list_locations),
            Route("/hardware/max-gpus-per-container", self._max_gpus),
            Route("/available-replicas", self._replicas),
            Route("/price", self._price),
        ]

    def find(self, name: Id) -> Hardware:
        if (hardware := self._hardware.get(str(name))) is None:
            raise refuse(404, "Hardware not found")
        return hardware

    def find_location(self, hardware: Hardware, wanted: list[Any]) -> Id:
        for location in hardware.locations:
            if location in wanted:
                return location
        raise refuse(400, "No hardware available in these locations")

    async def _list_hardware(self, request: Request) -> Response:
        self._authenticate(request)
        return await self._list_public_hardware(request)

    async def _list_public_hardware(self, request: Request) -> Response:
        rows = [
            {
                "available": one.available,
                "brand_name": "NVIDIA",
                "confidential_compute": False,
                "hardware_id": one.id,
                "hardware_name": one.name,
                "location": None,
                "max_gpus_per_container": one.max_gpus_per_container,
                "min_gpus_per_container": None,
                "network": "io.net",
                "price": float(one.usd_per_hour),
            }
            for one in self._hardware.values()
        ]
        return _data({"hardware": rows, "total": len(rows)})

    async def _list_locations(self, request: Request) -> Response:
        return _data({"locations": list(LOCATIONS.values()), "total": len(LOCATIONS)})

    async def _max_gpus(self, request: Request) -> Response:
        self._authenticate(request)
        rows = [
            {
                "max_gpus_per_container": one.max_gpus_per_container,
                "available": one.available,
                "hardware_id": one.id,
                "hardware_name": one.name,
                "brand_name": "NVIDIA",
            }
            for one in self._hardware.values()
        ]
        return _data({"hardware": rows, "total": len(rows)})

    async def _replicas(self, request: Request) -> Response:
        self._authenticate(request)
        hardware = self.find(request.query_params.get("hardware_id", ""))
        places = [{**LOCATIONS[place], "available_replicas": hardware.available} for place in hardware.locations]
        return _data([{name: place[name] for name in ("id", "iso2", "name", "available_replicas")} for place in places])

    async def _price(self, request: Request) -> Response:
        self._authenticate(request)
        query = check(PriceQuery, dict(request.query_params), "query")
        hardware = self.find(query.hardware_id)
        self.find_location(hardware, _json_list(query.location_ids))
        return _data(quote(hardware, query.duration_hours, query.gpus_per_container, query.replica_count))


def _json_list(text: str) -> list[Any]:
    try:
        value = json.loads(text)
    except json.JSONDecodeError:
        value = None
    if not isinstance(value, list):
        raise refuse(400, "location_ids must be a JSON array")
    return value


def _data(value: Any) -> Response:
    return JSONResponse({"data": value})
