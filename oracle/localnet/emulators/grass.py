"""Stand-in for the web-context service that an operator runs for `data://grass/…`.

Grass has no public demand API (specs/depin_data.md §3), so there is no wire format to follow but the one that the
oracle itself asks for: docs/how-to/use-network-data.md, "Grass".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from oracle.localnet.emulators.faults import Fault, Faults, Wire, wire_kinds
from oracle.localnet.emulators.spoilt import Spoilt, spoil

DOCUMENTS = (
    {
        "url": "https://shop.example/kettle",
        "title": "Kettle, 1.7 litres",
        "text": "A kettle of steel. Price 24.90 EUR. In stock.",
        "collected_at": "2026-09-30T11:00:00Z",
    },
    {
        "url": "https://reviews.example/kettle/2",
        "title": "Review of the kettle",
        "text": "Great value for the price.",
        "collected_at": "2026-09-29T08:15:00Z",
    },
    {
        "url": "https://reviews.example/toaster/7",
        "title": "Review of a toaster",
        "text": "The toaster was terrible and the delivery was slow.",
        "collected_at": "2026-09-28T20:45:00Z",
    },
)


class Grass:
    """Give it to `server.serve`. `api_key` None leaves it open."""

    def __init__(
        self, *, api_key: str | None = "grass_localnet", documents: Sequence[Mapping[str, str]] = DOCUMENTS
    ) -> None:
        self.faults = Faults(wire_kinds(("data", Spoilt)))
        self._api_key = api_key
        self._documents = documents

    def routes(self) -> ASGIApp:
        app = Starlette(
            routes=[Route("/search", self._search), Route("/page", self._page)],
            exception_handlers={404: _not_found, 405: _not_found},
        )
        app.router.redirect_slashes = False
        return app

    def canonical_path(self, path: str) -> str:
        return path

    def refusal(self, fault: Fault) -> Response:
        match fault.kind:
            case Wire.RATE_LIMIT:
                headers = {} if fault.retry_after is None else {"retry-after": fault.retry_after}
                return _error(429, fault.text or "too many requests", headers)
            case Wire.UNAUTHORIZED:
                return _error(401, "unauthorized")
            case Wire.OUT_OF_CREDITS:
                return _error(402, fault.text or "out of credits")
        return _error(fault.status or 500, fault.text or "internal error")

    def books(self) -> dict[str, Any]:
        """Nothing is bought here."""
        return {}

    async def start(self) -> None:
        return None

    async def close(self) -> None:
        return None

    async def _search(self, request: Request) -> Response:
        """Documents that hold every word of `q`, the best match first, at most `limit`."""
        if (refused := self._refuse(request)) is not None:
            return refused
        words = request.query_params.get("q", "").lower().split()
        limit = request.query_params.get("limit", "10")
        if not words or not limit.isascii() or not limit.isdecimal() or not 1 <= int(limit[:9]) <= 100:
            return _error(400, "q and a limit of 1 to 100 are needed")
        found = [document for document in self._documents if all(word in _words_of(document) for word in words)]
        found.sort(key=lambda document: -sum(_words_of(document).count(word) for word in words))
        return self._answer(request, found[: int(limit)])

    async def _page(self, request: Request) -> Response:
        if (refused := self._refuse(request)) is not None:
            return refused
        found = [document for document in self._documents if document["url"] == request.query_params.get("url")]
        return self._answer(request, found) if found else _error(404, "not collected")

    def _refuse(self, request: Request) -> Response | None:
        if self._api_key is None or request.headers.get("authorization") == f"Bearer {self._api_key}":
            return None
        return _error(401, "unauthorized")

    def _answer(self, request: Request, documents: Sequence[Mapping[str, str]]) -> Response:
        body = {"documents": list(documents)}
        fault = self.faults.take("data", f"{request.method} {request.url.path}")
        return JSONResponse(body if fault is None else spoil(fault.kind, body))


def _words_of(document: Mapping[str, str]) -> str:
    return f"{document['title']} {document['text']}".lower()


def _error(status: int, text: str, headers: Mapping[str, str] | None = None) -> Response:
    return JSONResponse({"error": text}, status, headers)


async def _not_found(request: Request, error: Exception) -> Response:
    return _error(404, "not found")
