"""The emulator as a whole: hotspots one by one and in pages, wallets, and organisations (§2.1). There are no keys."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from oracle.localnet.emulators.faults import Fault, Faults, Wire, wire_kinds
from oracle.localnet.emulators.helium.hotspots import HOTSPOTS, OUIS, WALLETS
from oracle.localnet.emulators.spoilt import Spoilt, spoil

_REASONS = {
    400: "Bad Request",
    401: "Unauthorized",
    402: "Payment Required",
    404: "Not Found",
    429: "Too Many Requests",
    500: "Internal Server Error",
    503: "Service Unavailable",
}


class Refused(Exception):
    """Carries the answer that ends a call, in the envelope of the API (§2.1)."""

    def __init__(self, status: int, message: str) -> None:
        self.response = _envelope(status, message)
        super().__init__(message)


class Helium:
    """Give it to `server.serve`. Pages of hotspots hold `page_size` of them, in no order.

    A wallet that nobody knows has no hotspots and no balances; what the API says to that is not documented.
    """

    def __init__(
        self,
        *,
        hotspots: Sequence[Mapping[str, Any]] = HOTSPOTS,
        wallets: Mapping[str, Mapping[str, Any]] = WALLETS,
        ouis: Sequence[Mapping[str, Any]] = OUIS,
        page_size: int = 2,
        shuffle: random.Random | None = None,
    ) -> None:
        self.faults = Faults(wire_kinds(("data", Spoilt)))
        self._hotspots = list(hotspots)
        self._wallets = wallets
        self._ouis = ouis
        self._page_size = page_size
        (shuffle or random.Random(0)).shuffle(self._hotspots)

    def routes(self) -> ASGIApp:
        app = Starlette(
            routes=[
                Route("/v2/wallet/{key}", self._wallet),
                Route("/v2/hotspots/pagination-metadata", self._pagination),
                Route("/v2/hotspots", self._page),
                Route("/v2/hotspot/{key}", self._by_asset_key),
                Route("/v1/{key}", self._by_asset_key),
                Route("/v2/oui/all", self._all_ouis),
                Route("/v2/oui/{number}", self._oui),
                Route("/{key}", self._by_entity_key),
            ],
            exception_handlers={Refused: _answer_of, 404: _not_found, 405: _not_found},
        )
        app.router.redirect_slashes = False
        return app

    def canonical_path(self, path: str) -> str:
        return path

    def refusal(self, fault: Fault) -> Response:
        """The API has no keys and no credits; its envelope is used for whatever status a proxy might put before it."""
        status = {Wire.RATE_LIMIT: 429, Wire.UNAUTHORIZED: 401, Wire.OUT_OF_CREDITS: 402}.get(
            Wire(fault.kind), fault.status or 500
        )
        headers = {} if fault.retry_after is None else {"retry-after": fault.retry_after}
        return _envelope(status, fault.text or "Something went wrong", headers)

    def books(self) -> dict[str, Any]:
        """Nothing is ever bought here."""
        return {}

    async def start(self) -> None:
        return None

    async def close(self) -> None:
        return None

    async def _wallet(self, request: Request) -> Response:
        nobody = {"hotspots_count": 0, "hotspots": [], "balances": []}
        return self._answer(request, self._wallets.get(request.path_params["key"], nobody))

    async def _pagination(self, request: Request) -> Response:
        total = len(self._on(request))
        pages = -(-total // self._page_size)
        return self._answer(request, {"pageSize": self._page_size, "totalItems": total, "totalPages": pages})

    async def _page(self, request: Request) -> Response:
        hotspots = self._on(request)
        cursor = request.query_params.get("cursor", "page-0")
        page = cursor.removeprefix("page-")
        if not cursor.startswith("page-") or not page.isascii() or not page.isdecimal() or len(page) > 9:
            raise Refused(400, "Invalid cursor")
        start = int(page) * self._page_size
        items = [_listed(hotspot) for hotspot in hotspots[start : start + self._page_size]]
        more = start + self._page_size < len(hotspots)
        return self._answer(request, {"cursor": f"page-{int(page) + 1}" if more else None, "items": items})

    async def _by_asset_key(self, request: Request) -> Response:
        return self._answer(request, self._find(request, "key_to_asset_key"))

    async def _by_entity_key(self, request: Request) -> Response:
        return self._answer(request, self._find(request, "entity_key_str"))

    async def _all_ouis(self, request: Request) -> Response:
        return self._answer(request, {"orgs": list(self._ouis)})

    async def _oui(self, request: Request) -> Response:
        number = request.path_params["number"]
        if not number.isascii() or not number.isdecimal():
            raise Refused(400, "params/oui must be integer")
        for oui in self._ouis:
            if str(oui["oui"]) == number:
                return self._answer(request, oui)
        raise Refused(404, "OUI not found")

    def _on(self, request: Request) -> list[Mapping[str, Any]]:
        subnetwork = request.query_params.get("subnetwork")
        if subnetwork not in ("iot", "mobile"):
            raise Refused(400, "querystring/subnetwork must be equal to one of the allowed values")
        return [hotspot for hotspot in self._hotspots if subnetwork in hotspot["hotspot_infos"]]

    def _find(self, request: Request, name: str) -> Mapping[str, Any]:
        for hotspot in self._hotspots:
            if hotspot[name] == request.path_params["key"]:
                return hotspot
        raise Refused(404, "Hotspot not found")

    def _answer(self, request: Request, body: Any) -> Response:
        fault = self.faults.take("data", f"{request.method} {request.url.path}")
        return JSONResponse(body if fault is None else spoil(fault.kind, body))


def _listed(hotspot: Mapping[str, Any]) -> dict[str, Any]:
    """A hotspot in a page. `is_active` is deprecated and always false."""
    info = next(iter(hotspot["hotspot_infos"].values()))
    kept = {name: hotspot[name] for name in ("key_to_asset_key", "entity_key_str")}
    return {**kept, "is_active": False, "lat": info["lat"], "long": info["long"]}


def _envelope(status: int, message: str, headers: Mapping[str, str] | None = None) -> Response:
    body = {"statusCode": status, "error": _REASONS.get(status, "Error"), "message": message}
    return JSONResponse(body, status, headers)


async def _answer_of(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refused)
    return error.response


async def _not_found(request: Request, error: Exception) -> Response:
    return _envelope(404, f"Route {request.method}:{request.url.path} not found")
