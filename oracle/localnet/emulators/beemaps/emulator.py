"""The emulator as a whole: keys and credits, map features, street images whose addresses expire (§1)."""

from __future__ import annotations

import base64
import hashlib
import hmac
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any
from urllib.parse import unquote

import orjson
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from oracle.localnet.emulators.beemaps.geometry import NotAShape, Shape, geometry_of, polygon_of
from oracle.localnet.emulators.beemaps.town import FEATURES, FRAMES
from oracle.localnet.emulators.faults import Fault, Faults, Wire, wire_kinds
from oracle.localnet.emulators.spoilt import Spoilt, spoil

_RESULTS = {"mapFeatures": "mapFeatureResults", "imagery": "imageryResults"}


class Refused(Exception):
    """Carries the answer that ends a call: JSON with a top-level `error` (§1.3)."""

    def __init__(self, status: int, error: str) -> None:
        self.response = JSONResponse({"error": error}, status)
        super().__init__(error)


@dataclass(frozen=True, slots=True)
class MapKey:
    """An account's key. `credits` is what it has to spend."""

    value: str = "bee_localnet"
    organisation: str = "org_localnet"
    credits: int = 100_000


class Beemaps:
    """Give it to `server.serve`; the API is under `/api/developer`, or without that prefix.

    A feature and a frame cost one credit each: how credits are reckoned is not documented. `exhausted_status` is what
    an account without credits is answered, which is not known either. `/aievents` and `/burst` are not here: of the
    first no answer is documented, and the second is an order, not a question.
    """

    def __init__(
        self,
        *,
        keys: Sequence[MapKey] = (MapKey(),),
        features: Sequence[Mapping[str, Any]] = FEATURES,
        frames: Sequence[Mapping[str, Any]] = FRAMES,
        max_area_km2: float = 5.0,
        exhausted_status: int = 402,
        url_seconds: float = 3600.0,
        now: Callable[[], float] = time.time,
        shuffle: random.Random | None = None,
    ) -> None:
        self.faults = Faults(wire_kinds(("data", Spoilt)))
        self._keys = tuple(keys)
        self._features = features
        self._frames = frames
        self._max_area_km2 = max_area_km2
        self._exhausted_status = exhausted_status
        self._url_seconds = url_seconds
        self._now = now
        self._shuffle = shuffle or random.Random(0)
        self._spent = {key.value: 0 for key in keys}
        self._history: dict[str, list[dict[str, Any]]] = {key.value: [] for key in keys}

    def routes(self) -> ASGIApp:
        app = Starlette(
            routes=[
                Route("/latest/poly", self._latest, methods=["POST"]),
                Route("/imagery/poly", self._imagery, methods=["POST"]),
                Route("/map-data", self._map_data, methods=["POST"]),
                Route("/mapFeatures/poly", self._map_features, methods=["POST"]),
                Route("/renew/{asset:path}", self._renew, methods=["POST"]),
                Route("/balance", self._balance),
                Route("/history", self._list_history),
                Route("/devices", self._devices),
                Route("/images/{name}", self._image),
            ],
            exception_handlers={Refused: _answer_of, 404: _not_found, 405: _not_found},
        )
        app.router.redirect_slashes = False
        return app

    def canonical_path(self, path: str) -> str:
        return path.removeprefix("/api/developer") or "/"

    def refusal(self, fault: Fault) -> Response:
        match fault.kind:
            case Wire.RATE_LIMIT:
                headers = {} if fault.retry_after is None else {"retry-after": fault.retry_after}
                return JSONResponse({"error": fault.text or "Too many requests"}, 429, headers)
            case Wire.UNAUTHORIZED:
                return Refused(403, "Forbidden").response
            case Wire.OUT_OF_CREDITS:
                return Refused(fault.status or self._exhausted_status, fault.text or "Insufficient credits").response
        status = fault.status or 500
        return Refused(status, fault.text or _ERRORS.get(status, "Internal server error")).response

    def books(self) -> dict[str, Any]:
        """What each key has spent, and what for."""
        return {"spent": dict(self._spent), "history": {key: list(lines) for key, lines in self._history.items()}}

    async def start(self) -> None:
        return None

    async def close(self) -> None:
        return None

    async def _map_data(self, request: Request) -> Response:
        key = self._authenticate(request)
        body = await _json(request)
        if not isinstance(body, dict):
            raise _invalid()
        kinds = body.get("type")
        if not isinstance(kinds, list) or not kinds or any(kind not in ("mapFeatures", "imagery") for kind in kinds):
            raise Refused(400, "Invalid type")
        shape = self._shape(geometry_of, body.get("geometry"))
        answer: dict[str, Any] = {}
        for kind in dict.fromkeys(kinds):
            found = self._features_in(shape) if kind == "mapFeatures" else self._signed(request, self._frames_in(shape))
            answer[_RESULTS[kind]] = {"type": kind, "data": found, "creditsUsed": len(found)}
        used = sum(result["creditsUsed"] for result in answer.values())
        self._charge(key, used, shape, body["geometry"])
        head = {"totalCreditsUsed": used, "totalCreditsRemaining": self._left(key)}
        return self._answer(request, head | answer)

    async def _map_features(self, request: Request) -> Response:
        key = self._authenticate(request)
        body = await _json(request)
        shape = self._shape(polygon_of, body)
        found = self._features_in(shape)
        self._charge(key, len(found), shape, body)
        return self._answer(request, {"features": found})

    async def _latest(self, request: Request) -> Response:
        key = self._authenticate(request)
        body = await _json(request)
        shape = self._shape(polygon_of, body)
        since = _day(request.query_params.get("min_week"))
        frames = [frame for frame in self._frames_in(shape) if since is None or _filmed(frame) >= since]
        newest = max(map(_filmed, frames), default=None)
        frames = [frame for frame in frames if _filmed(frame) == newest]
        self._charge(key, len(frames), shape, body)
        return self._answer(request, {"frames": self._signed(request, frames)})

    async def _imagery(self, request: Request) -> Response:
        key = self._authenticate(request)
        body = await _json(request)
        shape = self._shape(polygon_of, body)
        day = _day(request.query_params.get("week"))
        if day is None:
            raise Refused(400, "week is required")
        monday = day - timedelta(days=day.weekday())
        frames = [frame for frame in self._frames_in(shape) if 0 <= (_filmed(frame) - monday).days < 7]
        self._charge(key, len(frames), shape, body, weeks=[monday.isoformat()])
        head = {"frames": self._signed(request, frames)}
        return self._answer(request, head | {"creditsUsed": len(frames), "creditsRemaining": self._left(key)})

    async def _renew(self, request: Request) -> Response:
        self._authenticate(request)
        name = unquote(request.path_params["asset"]).split("?")[0].rsplit("/", 1)[-1]
        if name not in {_image_name(frame) for frame in self._frames}:
            raise Refused(404, "Not found")
        return JSONResponse({"url": self._sign(request, name)})

    async def _image(self, request: Request) -> Response:
        """The bytes behind a signed address, without a key; the address expires."""
        name, until = request.path_params["name"], request.query_params.get("expires", "")
        good = hmac.compare_digest(request.query_params.get("sig", "").encode(), self._signature(name, until).encode())
        if not good or not until.isdecimal() or int(until) < self._now():
            raise Refused(403, "Forbidden")
        return Response(b"\xff\xd8" + name.encode() + b"\xff\xd9", media_type="image/jpeg")

    async def _balance(self, request: Request) -> Response:
        return JSONResponse({"balance": self._left(self._authenticate(request))})

    async def _list_history(self, request: Request) -> Response:
        key = self._authenticate(request)
        skip, limit = (_count(request, name, default) for name, default in (("skip", 0), ("limit", 100)))
        return JSONResponse({"history": self._history[key.value][skip : skip + limit]})

    async def _devices(self, request: Request) -> Response:
        """Open to anyone; the intrinsics are synthetic."""
        return JSONResponse({name: {"focal": 0.4, "k1": 0.0, "k2": 0.0} for name in ("hdc", "hdc-s", "bee")})

    def _authenticate(self, request: Request) -> MapKey:
        """By query or by header; of the header both documented forms are taken. 403 and not 401 (§1.1, §1.3)."""
        sent = request.query_params.get("apiKey")
        header = request.headers.get("authorization", "")
        if sent is None and header.startswith("Basic "):
            sent = header.removeprefix("Basic ")
        for key in self._keys:
            encoded = base64.b64encode(f"{key.organisation}:{key.value}".encode()).decode()
            if sent in (key.value, encoded):
                return key
        raise Refused(403, "Forbidden")

    def _shape(self, read: Callable[[Any], Shape], value: Any) -> Shape:
        try:
            shape = read(value)
        except NotAShape:
            raise _invalid() from None
        if shape.area_km2 > self._max_area_km2:
            raise Refused(422, "Area exceeds maximum")
        return shape

    def _features_in(self, shape: Shape) -> list[dict[str, Any]]:
        return self._in_any_order(self._features, shape)

    def _frames_in(self, shape: Shape) -> list[dict[str, Any]]:
        return self._in_any_order(self._frames, shape)

    def _in_any_order(self, things: Sequence[Mapping[str, Any]], shape: Shape) -> list[dict[str, Any]]:
        found = [dict(one) for one in things if shape.holds(one["position"]["lon"], one["position"]["lat"])]
        self._shuffle.shuffle(found)
        return found

    def _charge(self, key: MapKey, credits: int, shape: Shape, payload: Any, weeks: Sequence[str] = ()) -> None:
        if credits > self._left(key):
            raise Refused(self._exhausted_status, "Insufficient credits")
        self._spent[key.value] += credits
        line = {"area": shape.area_km2, "timestamp": self._now(), "credits": credits, "payload": payload}
        self._history[key.value].append({**line, "weeks": list(weeks)})

    def _left(self, key: MapKey) -> int:
        return key.credits - self._spent[key.value]

    def _signed(self, request: Request, frames: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        return [{"url": self._sign(request, _image_name(frame)), **frame} for frame in frames]

    def _sign(self, request: Request, name: str) -> str:
        until = str(int(self._now() + self._url_seconds))
        origin = f"{request.url.scheme}://{request.url.netloc}"
        return f"{origin}/images/{name}?expires={until}&sig={self._signature(name, until)}"

    def _signature(self, name: str, until: str) -> str:
        return hmac.new(b"beemaps emulator", f"{name} {until}".encode(), hashlib.sha256).hexdigest()

    def _answer(self, request: Request, body: dict[str, Any]) -> Response:
        fault = self.faults.take("data", f"{request.method} {request.url.path}")
        return JSONResponse(body if fault is None else spoil(fault.kind, body))


async def _json(request: Request) -> Any:
    try:
        return orjson.loads(await request.body())
    except orjson.JSONDecodeError:
        raise _invalid() from None


def _invalid() -> Refused:
    return Refused(400, "Invalid GeoJSON Polygon/MultiPolygon")


def _image_name(frame: Mapping[str, Any]) -> str:
    return f"{frame['sequence']}-{frame['idx']}.jpg"


def _filmed(frame: Mapping[str, Any]) -> date:
    return date.fromisoformat(frame["timestamp"][:10])


def _day(text: str | None) -> date | None:
    try:
        return None if text is None else date.fromisoformat(text)
    except ValueError:
        raise Refused(400, "Invalid week") from None


def _count(request: Request, name: str, default: int) -> int:
    text = request.query_params.get(name, str(default))
    if not text.isdecimal() or not text.isascii() or len(text) > 9:
        raise Refused(400, f"Invalid {name}")
    return int(text)


async def _answer_of(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refused)
    return error.response


async def _not_found(request: Request, error: Exception) -> Response:
    return Refused(404, "Not found").response


_ERRORS = {
    400: "Invalid GeoJSON Polygon/MultiPolygon",
    401: "Unauthorized",
    402: "Insufficient credits",
    403: "Forbidden",
    404: "Not found",
    409: "Conflict",
    422: "Area exceeds maximum",
    429: "Too many requests",
}
