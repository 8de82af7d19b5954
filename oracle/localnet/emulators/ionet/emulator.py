"""The emulator as a whole: keys, catalogue, limits and the routes under `/api/v1` and `/v1`."""

from __future__ import annotations

import re
import secrets
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from oracle.localnet.emulators.faults import Fault, Faults, wire_kinds
from oracle.localnet.emulators.ionet import refusals
from oracle.localnet.emulators.ionet.catalogue import SMOLLM2_SERVED, ApiKey, ServedModel
from oracle.localnet.emulators.ionet.chat import Caller, Chat
from oracle.localnet.emulators.ionet.ledger import Ledger
from oracle.localnet.emulators.ionet.refusals import Refused, refuse
from oracle.localnet.emulators.ionet.requests import ChatRequest, EmbeddingRequest, ModelsQuery, check, parse
from oracle.localnet.emulators.ionet.spoiling import AnswerFault
from oracle.localnet.emulators.records import Records
from oracle.localnet.emulators.upstream import ModelServer


class Ionet:
    """Give it to `server.serve`. Inferences run on the OpenAI-compatible server at `model_url`.

    `models_shape` is which of two conflicting shapes `/models` has (§2.7). `exhausted_status` is what an account
    without credits is answered: unknown, so a client must take 402, 403 and 429. `requests_per_minute` is for each key,
    with `retry_after` as header; no limit is known. `credit_lag_seconds` is how late spending counts.
    """

    def __init__(
        self,
        model_url: str,
        *,
        catalogue: Sequence[ServedModel] = (SMOLLM2_SERVED,),
        keys: Sequence[ApiKey] = (ApiKey(),),
        models_shape: Literal["live", "documented"] = "live",
        exhausted_status: int = 402,
        requests_per_minute: int | None = None,
        retry_after: str | None = None,
        credit_lag_seconds: float = 0.0,
        state_directory: Path | None = None,
        now: Callable[[], float] = time.time,
        entropy: Callable[[int], bytes] = secrets.token_bytes,
    ) -> None:
        self.faults = Faults(wire_kinds(("answer", AnswerFault)))
        self._catalogue = {model.id: model for model in catalogue}
        self._keys = tuple(keys)
        self._models_shape = models_shape
        self._exhausted_status = exhausted_status
        self._requests_per_minute = requests_per_minute
        self._retry_after = retry_after
        self._now = now
        self._entropy = entropy
        self._records = Records(state_directory, "ionet")
        self._ledger = Ledger(self._records, now, credit_lag_seconds)
        self._models = ModelServer(model_url, {model.id: model.upstream_model for model in catalogue})
        self._chat = Chat(self._models, self._ledger, now, entropy)
        self._recent: dict[str, deque[float]] = {}

    def withdraw(self, model: str) -> None:
        """Models vanish without notice (§2.13)."""
        del self._catalogue[model]

    def reprice(self, model: str, factor: Decimal) -> None:
        """Prices move without notice (§2.13)."""
        served = self._catalogue[model]
        self._catalogue[model] = replace(
            served,
            input_token_price=served.input_token_price * factor,
            output_token_price=served.output_token_price * factor,
        )

    def routes(self) -> ASGIApp:
        app = Starlette(
            routes=[
                Route("/chat/completions", self._complete, methods=["POST"]),
                Route("/embeddings", self._embed, methods=["POST"]),
                Route("/models", self._list_models),
                Route("/embedding-models", self._list_models),
                Route("/api-keys/sub-keys/me/usage", self._usage),
            ],
            exception_handlers={Refused: _answer_of, 404: _not_found, 405: _not_allowed},
        )
        app.router.redirect_slashes = False
        return self._behind_cloudflare(app)

    def canonical_path(self, path: str) -> str:
        """Both hosts' prefixes (§2.1)."""
        return re.sub(r"^(/api)?/v1(?=/)", "", path)

    def refusal(self, fault: Fault) -> Response:
        return refusals.refusal(fault)

    def books(self) -> dict[str, Any]:
        """What each key had and spent, and every inference as `ledger.Inference` records it."""
        keys = [
            {
                "key_id": key.key_id,
                "credit_usd": f"{key.credit_usd:f}",
                "spent_usd": f"{self._ledger.spent_usd(key.key_id):f}",
            }
            for key in self._keys
        ]
        return {"keys": keys, "inferences": self._ledger.as_json()}

    async def start(self) -> None:
        return None

    async def close(self) -> None:
        await self._models.close()
        self._records.close()

    async def _complete(self, request: Request) -> Response:
        key = self._authenticate(request)
        body = parse(ChatRequest, await request.body())
        model = self._offered(key, body.model, embeds=False)
        if body.n not in (None, 1):
            raise refuse(400, "The emulator serves n=1 only")
        caller = self._admit(key, request)
        fault = self.faults.take("answer", f"{model.id} {key.key_id}") or _asked_for(request)
        answer = self._chat.stream if body.stream else self._chat.answer
        return await answer(caller, model, body, fault)

    async def _embed(self, request: Request) -> Response:
        key = self._authenticate(request)
        body = parse(EmbeddingRequest, await request.body())
        model = self._offered(key, body.model, embeds=True)
        return await self._chat.embed(self._admit(key, request), model, body.model_dump(exclude_none=True))

    async def _list_models(self, request: Request) -> Response:
        self._authenticate(request)
        embeds = request.url.path == "/embedding-models"
        models = [model for model in self._catalogue.values() if model.embeds == embeds]
        if self._models_shape == "live":
            return JSONResponse({"object": "list", "data": [model.as_live() for model in models]})
        query = check(ModelsQuery, dict(request.query_params), "query")
        page, size = query.page, query.page_size
        models = [model for model in models if query.q in model.id]
        pages = max(1, -(-len(models) // size))
        pagination = {
            "total": len(models),
            "page": page,
            "page_size": size,
            "total_pages": pages,
            "has_next": page < pages,
            "has_previous": page > 1,
        }
        shown = models[(page - 1) * size : page * size]
        return JSONResponse({"data": [model.as_documented() for model in shown], "pagination": pagination})

    async def _usage(self, request: Request) -> Response:
        """What a sub-key has used, as late as the credit check sees it (§2.11). The names of the fields are invented:
        nobody has published them."""
        key = self._authenticate(request)
        if not key.is_sub_key:
            raise refuse(403, "Forbidden")
        used = self._ledger.spent_usd(key.key_id, seen=True)
        data = {
            "key_id": key.key_id,
            "credit_limit": float(key.credit_usd),
            "credit_refresh_cycle": "daily",
            "used_credit": float(used),
            "remaining_credit": float(max(Decimal(0), key.credit_usd - used)),
        }
        return JSONResponse({"status": "succeeded", "data": data})

    def _authenticate(self, request: Request) -> ApiKey:
        """By either header (§2.2). A key that has expired is as good as none."""
        sent = request.headers.get("authorization", "").removeprefix("Bearer ") or request.headers.get("x-api-key")
        key = next((key for key in self._keys if key.value == sent), None)
        if key is None or (key.expires_at is not None and key.expires_at <= self._now()):
            raise refusals.unauthorized()
        return key

    def _offered(self, key: ApiKey, name: str, *, embeds: bool) -> ServedModel:
        model = self._catalogue.get(name)
        if model is None or model.embeds != embeds:
            raise refusals.model_unavailable(one.id for one in self._catalogue.values() if one.embeds == embeds)
        if key.allowed_models is not None and name not in key.allowed_models:
            raise refuse(403, "Model is not allowed for this API key")
        if model.higher_tier_required:
            raise refuse(403, "Model requires a higher tier")
        return model

    def _admit(self, key: ApiKey, request: Request) -> Caller:
        """Holds a key to its credits and its rate."""
        if self._ledger.spent_usd(key.key_id, seen=True) >= key.credit_usd:
            raise refusals.out_of_credits(self._exhausted_status, is_sub_key=key.is_sub_key)
        if self._requests_per_minute is not None:
            recent = self._recent.setdefault(key.key_id, deque())
            while recent and recent[0] <= self._now() - 60:
                recent.popleft()
            if len(recent) >= self._requests_per_minute:
                raise refusals.rate_limited(self._retry_after)
            recent.append(self._now())
        return Caller(key, request.scope["x-request-id"])

    def _behind_cloudflare(self, app: ASGIApp) -> ASGIApp:
        """The headers that were seen on answers; none of them tells of rate limits (§2.5)."""

        async def wrapped(scope: Scope, receive: Receive, send: Send) -> None:
            request_id = self._entropy(16).hex()

            async def send_with_headers(message: Message) -> None:
                if message["type"] == "http.response.start":
                    seen = {"server": "cloudflare", "x-request-id": request_id, "cf-ray": f"{request_id[:16]}-AMS"}
                    more = [(name.encode(), value.encode()) for name, value in seen.items()]
                    message = {**message, "headers": [*message["headers"], *more]}
                await send(message)

            await app({**scope, "x-request-id": request_id}, receive, send_with_headers)

        return wrapped


def _asked_for(request: Request) -> Fault | None:
    """The fault of an answer that a test asks for in the call itself (§7 point 5)."""
    kind = request.headers.get("x-standin-fault")
    return Fault(kind) if kind in set(AnswerFault) else None


async def _answer_of(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refused)
    return error.response


async def _not_found(request: Request, error: Exception) -> Response:
    return JSONResponse({"detail": "Not Found"}, 404)


async def _not_allowed(request: Request, error: Exception) -> Response:
    return JSONResponse({"detail": "Method Not Allowed"}, 405)
