"""Helium's Entity API as its specification has it, and the web-context service that `data://grass/…` asks for."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator

import httpx
import pytest
from nosana_user import loopback

from oracle.localnet.emulators.grass import Grass
from oracle.localnet.emulators.helium import HOTSPOTS, WALLETS, Helium
from oracle.localnet.emulators.server import serve

pytestmark = pytest.mark.localnet


@pytest.fixture
async def helium() -> AsyncIterator[tuple[Helium, httpx.AsyncClient]]:
    emulator = Helium()
    async with serve(emulator) as running, loopback(running) as http:
        yield emulator, http


@pytest.fixture
async def grass() -> AsyncIterator[tuple[Grass, httpx.AsyncClient]]:
    emulator = Grass()
    async with serve(emulator) as running, loopback(running) as http:
        yield emulator, http


async def test_a_hotspot_has_three_addresses(helium: tuple[Helium, httpx.AsyncClient]) -> None:
    _, http = helium
    hotspot = HOTSPOTS[0]
    for path in (
        f"/v2/hotspot/{hotspot['key_to_asset_key']}",
        f"/v1/{hotspot['key_to_asset_key']}",
        f"/{hotspot['entity_key_str']}",
    ):
        assert (await http.get(path)).json() == hotspot
    assert 43 <= len(hotspot["key_to_asset_key"]) <= 44
    assert 50 <= len(hotspot["entity_key_str"]) <= 53


async def test_pages_lead_from_cursor_to_cursor_and_hold_every_hotspot_once(
    helium: tuple[Helium, httpx.AsyncClient],
) -> None:
    _, http = helium
    metadata = (await http.get("/v2/hotspots/pagination-metadata?subnetwork=iot")).json()
    assert metadata == {"pageSize": 2, "totalItems": 3, "totalPages": 2}
    cursor, keys, pages = "", [], 0
    while cursor is not None:
        page = (await http.get(f"/v2/hotspots?subnetwork=iot{cursor}")).json()
        keys += [item["key_to_asset_key"] for item in page["items"]]
        cursor = page["cursor"] and f"&cursor={page['cursor']}"
        pages += 1
    assert pages == 2
    assert sorted(keys) == sorted(one["key_to_asset_key"] for one in HOTSPOTS if "iot" in one["hotspot_infos"])


async def test_wallets_and_organisations_are_told(helium: tuple[Helium, httpx.AsyncClient]) -> None:
    _, http = helium
    ((owner, wallet),) = WALLETS.items()
    assert (await http.get(f"/v2/wallet/{owner}")).json() == wallet
    assert [one["oui"] for one in (await http.get("/v2/oui/all")).json()["orgs"]] == [1, 12, 60]
    assert (await http.get("/v2/oui/60")).json()["locked"] is True


@pytest.mark.parametrize(
    ("path", "status", "reason"),
    [
        ("/v2/hotspot/nobody", 404, "Not Found"),
        ("/v2/oui/7", 404, "Not Found"),
        ("/v2/oui/²", 400, "Bad Request"),
        ("/v2/hotspots", 400, "Bad Request"),
        ("/v2/hotspots?subnetwork=iot&cursor=page-x", 400, "Bad Request"),
        ("/v3/anything", 404, "Not Found"),
    ],
)
async def test_what_is_wrong_is_refused_in_one_envelope(
    helium: tuple[Helium, httpx.AsyncClient], caplog: pytest.LogCaptureFixture, path: str, status: int, reason: str
) -> None:
    caplog.set_level(logging.ERROR)
    _, http = helium
    answer = await http.get(path)
    body = answer.json()
    assert (answer.status_code, body["statusCode"], body["error"]) == (status, status, reason)
    assert body["message"]
    assert caplog.records == []


async def test_faults_of_the_entity_api_are_told_in_its_envelope(helium: tuple[Helium, httpx.AsyncClient]) -> None:
    emulator, http = helium
    emulator.faults.add("error")
    answer = await http.get("/v2/oui/all")
    assert (answer.status_code, answer.json()["error"]) == (500, "Internal Server Error")
    emulator.faults.add("rate_limit", retry_after="2")
    answer = await http.get("/v2/oui/all")
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "2")


async def test_documents_are_found_by_words_and_by_address(grass: tuple[Grass, httpx.AsyncClient]) -> None:
    _, http = grass
    key = {"authorization": "Bearer grass_localnet"}
    found = (await http.get("/search?q=kettle+value&limit=5", headers=key)).json()["documents"]
    assert [one["url"] for one in found] == ["https://reviews.example/kettle/2"]
    page = (await http.get("/page", params={"url": "https://shop.example/kettle"}, headers=key)).json()
    assert "24.90" in page["documents"][0]["text"]
    assert (await http.get("/page?url=https://shop.example/spoon", headers=key)).status_code == 404
    assert (await http.get("/search?q=&limit=5", headers=key)).status_code == 400
    assert (await http.get("/search?q=x&limit=²", headers=key)).status_code == 400
    assert (await http.get("/search?q=kettle")).json() == {"error": "unauthorized"}
