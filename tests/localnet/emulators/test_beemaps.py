"""Bee Maps as its specification has it: keys, credits, shapes, images whose addresses expire."""

from __future__ import annotations

import base64
import itertools
import logging
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import quote

import httpx
import orjson
import pytest
from nosana_user import Clock, loopback

from oracle.localnet.emulators.beemaps import FEATURES, Beemaps, MapKey
from oracle.localnet.emulators.server import serve

pytestmark = pytest.mark.localnet

KEY = {"authorization": "Basic bee_localnet"}
POINT = {"type": "Point", "coordinates": [11.575, 48.137], "radius": 100}
SQUARE = {
    "type": "Polygon",
    "coordinates": [[[11.57, 48.13], [11.58, 48.13], [11.58, 48.14], [11.57, 48.14], [11.57, 48.13]]],
}
AROUND = {"type": ["mapFeatures"], "geometry": POINT}


@pytest.fixture
async def clock() -> Clock:
    return Clock()


@pytest.fixture
async def beemaps(clock: Clock) -> AsyncIterator[tuple[Beemaps, httpx.AsyncClient]]:
    emulator = Beemaps(keys=(MapKey(), MapKey("bee_poor", "org_poor", 2)), now=clock)
    async with serve(emulator) as running, loopback(running) as http:
        yield emulator, http


async def test_features_around_a_point_come_with_their_price(beemaps: tuple[Beemaps, httpx.AsyncClient]) -> None:
    emulator, http = beemaps
    answer = await http.post("/api/developer/map-data", json=AROUND, headers=KEY)
    body = answer.json()
    assert (answer.status_code, body["totalCreditsUsed"], body["totalCreditsRemaining"]) == (200, 3, 99_997)
    result = body["mapFeatureResults"]
    assert (result["type"], result["creditsUsed"]) == ("mapFeatures", 3)
    assert sorted(one["id"] for one in result["data"]) == ["feature-0001", "feature-0002", "feature-0003"]
    assert set(result["data"][0]) == set(FEATURES[0])
    assert (await http.get("/balance", headers=KEY)).json() == {"balance": 99_997}
    assert emulator.books()["spent"]["bee_localnet"] == 3


async def test_the_same_question_is_answered_in_another_order(beemaps: tuple[Beemaps, httpx.AsyncClient]) -> None:
    _, http = beemaps
    orders = set()
    for _ in range(20):
        answer = await http.post("/map-data", json=AROUND, headers=KEY)
        orders.add(tuple(one["id"] for one in answer.json()["mapFeatureResults"]["data"]))
    assert len(orders) > 1


@pytest.mark.parametrize(
    "given",
    [
        {"headers": {"authorization": "Basic bee_localnet"}},
        {"headers": {"authorization": "Basic " + base64.b64encode(b"org_localnet:bee_localnet").decode()}},
        {"params": {"apiKey": "bee_localnet"}},
    ],
)
async def test_a_key_is_taken_by_query_and_by_either_form_of_header(
    beemaps: tuple[Beemaps, httpx.AsyncClient], given: dict[str, Any]
) -> None:
    _, http = beemaps
    assert (await http.post("/map-data", json=AROUND, **given)).status_code == 200


@pytest.mark.parametrize("headers", [{}, {"authorization": "Basic wrong"}, {"authorization": "Bearer bee_localnet"}])
async def test_a_wrong_key_is_403_and_not_401(
    beemaps: tuple[Beemaps, httpx.AsyncClient], headers: dict[str, str]
) -> None:
    _, http = beemaps
    answer = await http.post("/map-data", json=AROUND, headers=headers)
    assert (answer.status_code, answer.json()) == (403, {"error": "Forbidden"})
    assert (await http.get("/devices")).status_code == 200


async def test_an_account_without_credits_gets_nothing(beemaps: tuple[Beemaps, httpx.AsyncClient]) -> None:
    emulator, http = beemaps
    poor = {"authorization": "Basic bee_poor"}
    answer = await http.post("/map-data", json=AROUND, headers=poor)
    assert (answer.status_code, answer.json()) == (402, {"error": "Insufficient credits"})
    assert emulator.books()["spent"]["bee_poor"] == 0


@pytest.mark.parametrize(
    ("geometry", "status", "error"),
    [
        ({**POINT, "radius": 1300}, 422, "Area exceeds maximum"),
        ({**POINT, "radius": -1}, 400, "Invalid GeoJSON Polygon/MultiPolygon"),
        ({**POINT, "coordinates": [48, 190]}, 400, "Invalid GeoJSON Polygon/MultiPolygon"),
        ({"type": "Polygon", "coordinates": [[[0, 0], [0, 1], [1, 1]]]}, 400, "Invalid GeoJSON Polygon/MultiPolygon"),
        (None, 400, "Invalid GeoJSON Polygon/MultiPolygon"),
    ],
)
async def test_a_shape_is_checked_before_it_is_charged(
    beemaps: tuple[Beemaps, httpx.AsyncClient], geometry: Any, status: int, error: str
) -> None:
    emulator, http = beemaps
    answer = await http.post("/map-data", json={"type": ["mapFeatures"], "geometry": geometry}, headers=KEY)
    assert (answer.status_code, answer.json()) == (status, {"error": error})
    assert emulator.books()["spent"]["bee_localnet"] == 0


async def test_polygons_lines_and_holes_hold_what_lies_in_them(beemaps: tuple[Beemaps, httpx.AsyncClient]) -> None:
    _, http = beemaps

    async def ids(path: str, body: Any) -> list[str]:
        answer = (await http.post(path, json=body, headers=KEY)).json()
        features = answer.get("features") or answer["mapFeatureResults"]["data"]
        return sorted(one["id"][-1] for one in features)

    hole = [[11.5742, 48.1367], [11.5744, 48.1367], [11.5744, 48.1369], [11.5742, 48.1369], [11.5742, 48.1367]]
    line = {"type": "LineString", "coordinates": [[11.5751, 48.1369], [11.5751, 48.1373]]}
    assert await ids("/mapFeatures/poly", SQUARE) == ["1", "2", "3"]
    assert await ids("/mapFeatures/poly", {**SQUARE, "coordinates": [*SQUARE["coordinates"], hole]}) == ["1", "2"]
    both = {"type": "MultiPolygon", "coordinates": [SQUARE["coordinates"]]}
    assert await ids("/mapFeatures/poly", both) == ["1", "2", "3"]
    assert await ids("/map-data", {"type": ["mapFeatures"], "geometry": line}) == ["1", "2"]


async def test_latest_frames_are_of_the_newest_day_and_imagery_of_one_week(
    beemaps: tuple[Beemaps, httpx.AsyncClient],
) -> None:
    _, http = beemaps
    latest = (await http.post("/latest/poly", json=SQUARE, headers=KEY)).json()
    assert [frame["idx"] for frame in latest["frames"]] == [3]
    week = (await http.post("/imagery/poly?week=2026-03-05", json=SQUARE, headers=KEY)).json()
    assert (sorted(frame["idx"] for frame in week["frames"]), week["creditsUsed"]) == ([1, 2], 2)
    history = (await http.get("/history?limit=1&skip=1", headers=KEY)).json()["history"]
    assert [line["weeks"] for line in history] == [["2026-03-02"]]


async def test_the_address_of_an_image_expires_and_is_renewed(
    beemaps: tuple[Beemaps, httpx.AsyncClient], clock: Clock
) -> None:
    _, http = beemaps
    url = (await http.post("/latest/poly", json=SQUARE, headers=KEY)).json()["frames"][0]["url"]
    image = await http.get(url)
    assert (image.status_code, image.headers["content-type"]) == (200, "image/jpeg")
    clock.seconds += 3601
    assert (await http.get(url)).status_code == 403
    renewed = await http.post(f"/renew/{quote(url, safe='')}", headers=KEY)
    assert (await http.get(renewed.json()["url"])).content == image.content
    assert (await http.post("/renew/nothing", headers=KEY)).status_code == 404


@pytest.mark.parametrize(
    ("fault", "status", "body"),
    [
        ({"kind": "error", "status": 422}, 422, {"error": "Area exceeds maximum"}),
        ({"kind": "rate_limit", "retry_after": "3"}, 429, {"error": "Too many requests"}),
        ({"kind": "unauthorized"}, 403, {"error": "Forbidden"}),
        ({"kind": "error"}, 500, {"error": "Internal server error"}),
        ({"kind": "html", "status": 524}, 524, None),
    ],
)
async def test_it_misbehaves_on_demand_in_its_own_words(
    beemaps: tuple[Beemaps, httpx.AsyncClient], fault: dict[str, Any], status: int, body: Any
) -> None:
    emulator, http = beemaps
    assert (await http.post("/_emulator/faults", json=fault)).status_code == 200
    answer = await http.post("/map-data", json=AROUND, headers=KEY)
    assert answer.status_code == status
    assert body is None or answer.json() == body
    assert emulator.books()["spent"]["bee_localnet"] == 0


async def test_a_good_status_may_carry_a_spoilt_answer(beemaps: tuple[Beemaps, httpx.AsyncClient]) -> None:
    emulator, http = beemaps
    spoilt = {}
    for kind in ("huge", "twice_said", "strange", "broken", "empty"):
        emulator.faults.add(kind)
        answer = await http.post("/map-data", json=AROUND, headers=KEY)
        spoilt[kind] = answer.json()["mapFeatureResults"]["data"]
    assert [len(spoilt[kind]) for kind in ("huge", "twice_said", "empty")] == [6000, 6, 0]
    assert "undocumented" in spoilt["strange"][0]
    assert isinstance(spoilt["broken"][0]["confidence"], str)


VALUES: list[Any] = [None, True, -1, 1e308, "", "x\u0000", [], [[]], [[[]]], {}, {"type": "Polygon"}, [[[0, None]] * 5]]


async def test_whatever_comes_in_is_refused_in_its_words(
    beemaps: tuple[Beemaps, httpx.AsyncClient], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR)
    _, http = beemaps
    shapes = [
        {"type": kind, "coordinates": value, "radius": radius}
        for kind, value, radius in itertools.product(
            ("Point", "LineString", "Polygon", "MultiPolygon"), VALUES, (5, "5")
        )
    ]
    bodies = [*VALUES, *shapes, *({"type": ["mapFeatures"], "geometry": one} for one in [*VALUES, *shapes])]
    for path in ("/map-data", "/latest/poly", "/imagery/poly?week=9999-12-31", "/mapFeatures/poly"):
        for raw in [b"", b"\xff", b'{"a":' * 500, *map(orjson.dumps, bodies)]:
            answer = await http.post(path, content=raw, headers=KEY)
            assert (answer.status_code, answer.json()["error"][:7]) == (400, "Invalid"), (path, raw)
    for query in ("skip=x", "limit=-1", "limit=²"):
        assert (await http.get(f"/history?{query}", headers=KEY)).status_code == 400
    assert (await http.post("/imagery/poly?week=soon", json=SQUARE, headers=KEY)).status_code == 400
    assert caplog.records == []
