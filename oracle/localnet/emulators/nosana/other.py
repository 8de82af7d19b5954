"""Keys, credits and markets of the REST API; the pin and the gateway that go with it (§1.5, §4.2, §4.6, §4.7)."""

from __future__ import annotations

from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from oracle.localnet.emulators.nosana.accounts import SCOPES
from oracle.localnet.emulators.nosana.guard import authenticate, json_object, refuse, whole_number
from oracle.localnet.emulators.nosana.ipfs import as_pinata_stores
from oracle.localnet.emulators.nosana.world import World


class Other:
    """`pin_token` is the Pinata credential that pinning needs; the gateway is open."""

    def __init__(self, world: World, pin_token: str) -> None:
        self._world = world
        self._pin_token = pin_token

    def routes(self) -> list[Route]:
        return [
            Route("/auth/validate-api-key", self._validate_key, methods=["POST"]),
            Route("/auth/scopes", self._scopes),
            Route("/credits/balance", self._balance),
            Route("/markets", self._markets),
            Route("/markets/{market}", self._market),
            Route("/markets/{market}/required-resources", self._required),
            Route("/pinning/pinJSONToIPFS", self._pin_json, methods=["POST"]),
            Route("/ipfs/{cid}", self._gateway),
        ]

    async def _validate_key(self, request: Request) -> Response:
        key = (await json_object(request)).get("apiKey")
        account = next((account for account in self._world.accounts if account.api_key == key), None)
        if account is None:
            return JSONResponse({"valid": False})
        user = {
            "id": account.user_id,
            "legacyUserId": None,
            "email": f"{account.user_id}@example.org",
            "name": None,
            "provider": None,
            "providerUsername": None,
            "generatedAddress": account.address,
            "created_at": None,
        }
        key_id = f"key-{account.user_id}"
        return JSONResponse({"valid": True, "user": user, "apiKeyId": key_id, "scopes": list(account.scopes)})

    async def _scopes(self, request: Request) -> Response:
        return JSONResponse(list(SCOPES))

    async def _balance(self, request: Request) -> Response:
        account = authenticate(self._world, request, "credits:read")
        balance = self._world.jobs.balance(account.user_id, account.assigned_micro_usd)
        return JSONResponse(
            {
                "assignedCredits": balance.assigned / 1e6,
                "reservedCredits": balance.reserved / 1e6,
                "settledCredits": balance.settled / 1e6,
            }
        )

    async def _markets(self, request: Request) -> Response:
        wanted = request.query_params.get("type")
        limit = whole_number(request.query_params.get("limit"), len(self._world.markets), least=1)
        markets = [market.as_json() for market in self._world.markets if wanted in (None, market.type)]
        return JSONResponse(markets[:limit])

    async def _market(self, request: Request) -> Response:
        return JSONResponse(self._find_market(request))

    async def _required(self, request: Request) -> Response:
        market = self._find_market(request)
        return JSONResponse({name: market[name] for name in ("required_images", "required_remote_resources")})

    def _find_market(self, request: Request) -> dict[str, Any]:
        """The answer for an unknown market is unverified."""
        market = self._world.market(request.path_params["market"])
        if market is None:
            raise refuse(500, "Market not found", name="Error")
        return market.as_json()

    async def _pin_json(self, request: Request) -> Response:
        if request.headers.get("authorization") != f"Bearer {self._pin_token}":
            raise refuse(401, "Invalid authentication")
        try:
            document = as_pinata_stores(orjson.loads(await request.body()))
        except orjson.JSONDecodeError:
            return JSONResponse({"error": "Invalid JSON"}, 400)
        cid = self._world.pin(document)
        return JSONResponse({"IpfsHash": cid, "PinSize": len(document), "Timestamp": "2026-07-25T17:19:50.000Z"})

    async def _gateway(self, request: Request) -> Response:
        document = self._world.pinned(request.path_params["cid"])
        if document is None:
            return Response("ipfs resolve: not found", 404, media_type="text/plain")
        try:
            orjson.loads(document)
        except orjson.JSONDecodeError:
            return Response(document, media_type="application/octet-stream")
        return Response(document, media_type="application/json")
