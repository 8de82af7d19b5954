"""Who is calling, and the errors that every route shares (§4.1, §4.2, §7.7)."""

from __future__ import annotations

from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from oracle.localnet.emulators.nosana.accounts import Account
from oracle.localnet.emulators.nosana.world import World


class Refused(Exception):
    """Carries the answer that ends a request."""

    def __init__(self, response: Response) -> None:
        self.response = response
        super().__init__(response.status_code)


def refuse(status: int, message: str, **more: Any) -> Refused:
    return Refused(JSONResponse({"message": message, **more}, status))


def unauthorized() -> Refused:
    """The shape of a 401 is unverified beyond being JSON."""
    return refuse(401, "Unauthorized")


def authenticate(world: World, request: Request, scope: str) -> Account:
    key = request.headers.get("authorization", "").removeprefix("Bearer ")
    account = next((account for account in world.accounts if account.api_key == key), None)
    if account is None:
        raise unauthorized()
    if scope not in account.scopes:
        message = f"Insufficient scope. This endpoint requires: {scope}."
        challenge = f'Bearer error="insufficient_scope", scope="{scope}"'
        body = {"message": message, "code": "INSUFFICIENT_SCOPE"}
        raise Refused(JSONResponse(body, 403, {"www-authenticate": challenge}))
    return account


async def json_object(request: Request) -> dict[str, Any]:
    try:
        body = orjson.loads(await request.body())
    except orjson.JSONDecodeError:
        raise refuse(400, "Bad request: the body is not JSON") from None
    if not isinstance(body, dict):
        raise refuse(400, "Bad request: the body is not an object")
    return body


def whole_number(text: str | None, default: int, *, least: int, most: int | None = None) -> int:
    """A query parameter. Raises Refused with 422, as the indexer does (unverified on the wire)."""
    if text is None:
        return default
    if not text.isascii() or not text.isdigit() or int(text) < least or (most is not None and int(text) > most):
        raise refuse(422, f'{{"expected":"number from {least} to {most}","found":"{text[:50]}"}}', code="VALIDATION")
    return int(text)
