"""`Source` on Bee Maps, the map of Hivemapper: what stands by the road, and what was filmed where (depin_data.md §1).

    data://beemaps/features?at=LON,LAT&radius=METRES    or box=W,S,E,N; class=, fields=
    data://beemaps/frames?box=W,S,E,N                   week=YYYY-MM-DD, fields=

Images themselves are not fetched: a model is shown text, and their signed addresses expire.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final, Literal

from oracle.core.compute import Dataset
from oracle.core.dataquery import FIELDS, PARAMETER_INVALID, RESOURCE_UNKNOWN, DataQuery, check_params, fields
from oracle.core.errors import OracleError
from oracle.providers import errors
from oracle.providers.http import Answer, Http
from oracle.providers.pricing import NO_RATES, Rates, usd_to_lamports
from oracle.providers.sources import geo
from oracle.providers.sources.normal import (
    Fit,
    Misfit,
    address,
    dataset,
    each,
    number,
    only,
    ordered,
    record,
    text,
)

# Degrees to about a centimetre, shares to a thousandth: floats differ in their last digits (§1.3).
_DEGREES: Final = number(7)
_SHARE: Final = number(3)
_POSITION: Final = {"lat": _DEGREES, "lon": _DEGREES, "azimuth": number(1)}

FEATURE: Final[Mapping[str, Fit]] = {
    "id": text(),
    "class": text(),
    "status": text(),
    "position": record(_POSITION),
    "properties": record({"speedLimit": number(1), "unit": text()}),
    "confidence": _SHARE,
    "observed": record({"firstSeen": text(), "lastSeen": text()}),
    "n_detections": number(0),
}
FRAME: Final[Mapping[str, Fit]] = {
    "url": address,
    "timestamp": text(),
    "sequence": text(),
    "idx": number(0),
    "device": text(),
    "position": record(_POSITION),
    "width": number(0),
    "height": number(0),
}
_FEATURES: Final = record(
    {"mapFeatureResults": record({"data": each(record(FEATURE, required=("id", "class")))}, required=("data",))},
    required=("mapFeatureResults",),
)
_FRAMES: Final = record(
    {"frames": each(record(FRAME, required=("timestamp", "sequence", "idx")))}, required=("frames",)
)
_BALANCE: Final = record({"balance": number(2)}, required=("balance",))
_DAY: Final = re.compile(r"20[0-9]{2}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])")


@dataclass(frozen=True, slots=True)
class Plan:
    """The one call that answers a query, and what of its answer is kept."""

    path: str
    body: Mapping[str, Any]
    params: Mapping[str, str]
    wanted: frozenset[str]
    only_class: str | None = None


class BeeMaps:
    """Implements `Source`. Every fetch costs credits, so none is repeated here; a lost answer is `UNKNOWN`."""

    def __init__(
        self,
        name: str,
        http: Http,
        *,
        origin: str,
        key_params: Mapping[str, str] | None = None,
        max_area_km2: float = 1.0,
        max_bytes: int = 16_384,
        seconds: float = 20.0,
        usd_per_fetch: Decimal = Decimal(0),
        rates: Rates = NO_RATES,
    ) -> None:
        self.name = name
        self.max_bytes = max_bytes
        self._http = http
        self._origin = origin
        self._key_params = dict(key_params or {})
        self._max_area_km2 = max_area_km2
        self._seconds = seconds
        self._usd_per_fetch = usd_per_fetch
        self._rates = rates

    def cost_lamports(self, query: DataQuery) -> int:
        plan_of(query, self._max_area_km2)
        return usd_to_lamports(self._usd_per_fetch, self._rates)

    async def fetch(self, query: DataQuery) -> Dataset:
        plan = plan_of(query, self._max_area_km2)
        answer = await self._call("POST", plan.path, plan.body, plan.params, repeatable=False)
        try:
            content = read(plan, self._http.json(answer, repeatable=False))
            return dataset(content, f"{self._origin}/{plan.path}", self.max_bytes)
        except Misfit as misfit:
            raise self._http.unreadable(f"/{plan.path}: {misfit}", repeatable=False) from None

    async def probe(self) -> str:
        answer = await self._call("GET", "balance", None, {}, repeatable=True)
        try:
            credits = _BALANCE(self._http.json(answer, repeatable=True))["balance"]
        except Misfit as misfit:
            raise self._http.unreadable(f"/balance: {misfit}", repeatable=True) from None
        return f"takes the key, balance {credits:,}"

    async def close(self) -> None:
        await self._http.close()

    async def _call(
        self, method: Literal["GET", "POST"], path: str, body: Any, params: Mapping[str, str], *, repeatable: bool
    ) -> Answer:
        try:
            return await self._http.call(
                method,
                path,
                json=body,
                params={**params, **self._key_params},
                repeatable=repeatable,
                seconds=self._seconds,
            )
        except OracleError as error:
            if error.error is errors.NOT_PERMITTED:
                # A key that is wrong or missing is answered 403 and not 401 (§1.3).
                raise errors.CREDENTIALS_REFUSED(error.detail) from None
            raise


def plan_of(query: DataQuery, max_area_km2: float) -> Plan:
    """How a query is asked. Raises ORC-DATA-002 or 003."""
    match query.path:
        case ("features",):
            check_params(query, optional=(geo.AT, geo.RADIUS, geo.BOX, "class", FIELDS))
            area = geo.area_of(query, max_area_km2)
            body = {"type": ["mapFeatures"], "geometry": area.geojson()}
            return Plan("map-data", body, {}, fields(query, FEATURE), query.get("class"))
        case ("frames",):
            check_params(query, required=(geo.BOX,), optional=("week", FIELDS))
            box = geo.box_of(query)
            assert box is not None
            geo.check_area(box, max_area_km2)
            week = query.get("week")
            if week is None:
                return Plan("latest/poly", box.geojson(), {}, fields(query, FRAME))
            if not _DAY.fullmatch(week):
                raise PARAMETER_INVALID("week is any day of it, as YYYY-MM-DD")
            return Plan("imagery/poly", box.geojson(), {"week": week}, fields(query, FRAME))
    raise RESOURCE_UNKNOWN(f"{query.network} has features and frames")


def read(plan: Plan, body: Any) -> dict[str, Any]:
    """What of an answer is kept, in an order of its own: the network promises none. Raises Misfit."""
    if plan.path == "map-data":
        features = ordered(_FEATURES(body)["mapFeatureResults"]["data"], "id")
        kept = [one for one in features if plan.only_class in (None, one["class"])]
        return {"features": only(kept, plan.wanted)}
    frames = ordered(_FRAMES(body)["frames"], "timestamp", "sequence", "idx")
    return {"frames": only(frames, plan.wanted)}
