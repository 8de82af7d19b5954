"""The data networks' adapters against emulators that were written from the specification, fault by fault."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal
from random import Random
from typing import Any

import orjson
import pytest

from oracle.core.compute import Source
from oracle.core.dataquery import compose, parse
from oracle.core.errors import OracleError, Verdict
from oracle.localnet.emulators.beemaps import Beemaps, MapKey
from oracle.localnet.emulators.grass import Grass
from oracle.localnet.emulators.helium import HOTSPOTS, WALLETS, Helium
from oracle.localnet.emulators.server import Emulator, Running, serve
from oracle.providers.pricing import FixedRates
from oracle.providers.sources.registry import build

pytestmark = pytest.mark.localnet

AROUND = "data://beemaps/features?at=11.575,48.137&radius=100"
BOX = "data://beemaps/frames?box=11.57,48.13,11.58,48.14"
KETTLE = "data://grass/search?q=kettle"
IOT = "data://helium/hotspots?subnetwork=iot"


@asynccontextmanager
async def reading(emulator: Emulator, **settings: Any) -> AsyncIterator[Source]:
    async with serve(emulator) as running, reading_at(running, emulator, **settings) as source:
        yield source


@asynccontextmanager
async def reading_at(running: Running, emulator: Emulator, **settings: Any) -> AsyncIterator[Source]:
    address, prefix, key = {
        Beemaps: ("base_url", "/api/developer", "bee_localnet"),
        Helium: ("base_url", "", None),
        Grass: ("endpoint", "", "grass_localnet"),
    }[type(emulator)]
    kind = type(emulator).__name__.lower()
    given = {"kind": kind, address: running.url + prefix, "requests_per_second": 1000, **settings}
    if key is not None:
        given.setdefault("api_key", key)
    source = build(kind, given, rates=FixedRates(sol_usd=Decimal(150)))
    try:
        yield source
    finally:
        await source.close()


@asynccontextmanager
async def troubled(emulator: Emulator, fault: dict[str, Any]) -> AsyncIterator[tuple[Source, Source]]:
    """A source that meets a fault, and one to read from when that is over: the same, but for one that waits in vain
    for an answer, and would have no patience with a good one that is slow."""
    emulator.faults.add(**fault)
    async with serve(emulator) as running, reading_at(running, emulator) as patient:
        if fault["kind"] != "hang":
            yield patient, patient
            return
        async with reading_at(running, emulator, timeout_seconds=1.0) as impatient:
            yield impatient, patient


async def read(source: Source, query: str) -> Any:
    return orjson.loads((await source.fetch(parse(query))).content)


async def test_features_of_a_place_are_the_same_bytes_however_the_network_orders_them() -> None:
    contents = set()
    for seed in range(5):
        async with reading(Beemaps(shuffle=Random(seed))) as source:
            contents.add((await source.fetch(parse(AROUND))).content)
    (content,) = contents
    assert [one["id"] for one in orjson.loads(content)["features"]] == ["feature-0001", "feature-0002", "feature-0003"]


async def test_every_resource_of_bee_maps_is_read() -> None:
    emulator = Beemaps()
    async with reading(emulator) as source:
        signs = await read(source, f"{AROUND}&class=speed-sign&fields=class,properties")
        newest = await read(source, f"{BOX}&fields=timestamp,idx,url")
        week = await read(source, f"{BOX}&week=2026-03-04&fields=idx")
        boxed = await read(source, "data://beemaps/features?box=11.58,48.135,11.59,48.145&fields=id")
    assert signs == {"features": [{"class": "speed-sign", "properties": {"speedLimit": 30, "unit": "kmh"}}]}
    assert [(frame["idx"], "sig=" in frame["url"]) for frame in newest["frames"]] == [(3, False)]
    assert week == {"frames": [{"idx": 1}, {"idx": 2}]}
    assert boxed == {"features": [{"id": "feature-0004"}]}
    assert emulator.books()["spent"]["bee_localnet"] == 3 + 1 + 2 + 1


@pytest.mark.parametrize("settings", [{"api_key": "b3JnX2xvY2FsbmV0OmJlZV9sb2NhbG5ldA=="}, {"auth": "query"}])
async def test_the_key_is_sent_as_the_operator_says(settings: dict[str, Any]) -> None:
    async with reading(Beemaps(), **settings) as source:
        assert (await read(source, AROUND))["features"]


@pytest.mark.parametrize(
    ("emulator", "settings", "code"),
    [
        (Beemaps(), {"api_key": "wrong"}, "ORC-PROVIDER-007"),
        (Beemaps(keys=(MapKey(credits=2),)), {}, "ORC-PROVIDER-009"),
        (Beemaps(keys=(MapKey(credits=2),), exhausted_status=403), {}, "ORC-PROVIDER-009"),
        (Beemaps(keys=(MapKey(credits=2),), exhausted_status=429), {}, "ORC-PROVIDER-009"),
        # The network's own limit, where it is stricter than ours.
        (Beemaps(max_area_km2=0.001), {}, "ORC-PROVIDER-011"),
    ],
)
async def test_a_refusal_is_final_and_costs_nothing(emulator: Beemaps, settings: dict[str, Any], code: str) -> None:
    async with reading(emulator, **settings) as source:
        with pytest.raises(OracleError, match=code) as caught:
            await source.fetch(parse(AROUND))
    assert caught.value.verdict is Verdict.GIVE_UP
    assert set(emulator.books()["spent"].values()) == {0}


@pytest.mark.parametrize(
    ("fault", "verdict", "charged"),
    [
        ({"kind": "drop"}, Verdict.UNKNOWN, 0),
        ({"kind": "hang"}, Verdict.UNKNOWN, 0),
        ({"kind": "lose_answer"}, Verdict.UNKNOWN, 3),
        ({"kind": "truncate"}, Verdict.UNKNOWN, 3),
        ({"kind": "malformed"}, Verdict.UNKNOWN, 3),
        ({"kind": "broken"}, Verdict.UNKNOWN, 3),
        ({"kind": "html", "status": 524}, Verdict.UNKNOWN, 0),
        ({"kind": "html", "status": 502}, Verdict.RETRY, 0),
        ({"kind": "error"}, Verdict.RETRY, 0),
        ({"kind": "rate_limit", "retry_after": "7"}, Verdict.RETRY, 0),
        ({"kind": "unauthorized"}, Verdict.GIVE_UP, 0),
        ({"kind": "out_of_credits"}, Verdict.GIVE_UP, 0),
        ({"kind": "huge"}, Verdict.GIVE_UP, 3),
    ],
    ids=lambda value: value.get("kind") if isinstance(value, dict) else "",
)
async def test_whatever_may_have_been_charged_is_unknown_or_too_large(
    fault: dict[str, Any], verdict: Verdict, charged: int
) -> None:
    emulator = Beemaps()
    async with troubled(emulator, fault) as (source, later):
        with pytest.raises(OracleError) as caught:
            await source.fetch(parse(AROUND))
        assert caught.value.verdict is verdict
        assert caught.value.retry_after_seconds == (7 if "retry_after" in fault else None)
        assert emulator.books()["spent"]["bee_localnet"] == charged
        if verdict is not Verdict.RETRY:
            assert len((await read(later, AROUND))["features"]) == 3


async def test_what_a_network_slips_in_or_says_twice_changes_nothing() -> None:
    async with reading(Beemaps()) as source:
        good = (await source.fetch(parse(AROUND))).content
    for kind in ("strange", "twice_said"):
        emulator = Beemaps()
        emulator.faults.add(kind)
        async with reading(emulator) as source:
            assert (await source.fetch(parse(AROUND))).content == good, kind


async def test_every_resource_of_helium_is_read() -> None:
    hotspot = HOTSPOTS[0]
    ((owner, _),) = WALLETS.items()
    async with reading(Helium()) as source:
        by_asset = await read(source, f"data://helium/hotspot/{hotspot['key_to_asset_key']}")
        by_entity = await read(source, f"data://helium/hotspot/{hotspot['entity_key_str']}")
        listed = await read(source, f"{IOT}&fields=key_to_asset_key")
        near = await read(source, "data://helium/hotspots?subnetwork=iot&box=11,48,12,49&fields=lat")
        counted = await read(source, "data://helium/network?subnetwork=mobile")
        wallet = await read(source, f"data://helium/wallet/{owner}")
        ouis = await read(source, "data://helium/ouis?fields=oui")
        oui = await read(source, "data://helium/oui/60?fields=locked")
    assert by_asset == by_entity
    assert by_asset["hotspot_infos"]["iot"]["city"] == "Lisbon"
    iot = sorted(one["key_to_asset_key"] for one in HOTSPOTS if "iot" in one["hotspot_infos"])
    assert [one["key_to_asset_key"] for one in listed["hotspots"]] == iot
    assert near == {"hotspots": [{"lat": 48.1371}]}
    assert counted == {"hotspots": 2, "subnetwork": "mobile"}
    assert (wallet["hotspots_count"], len(wallet["balances"])) == (2, 2)
    assert ouis == {"orgs": [{"oui": 1}, {"oui": 12}, {"oui": 60}]}
    assert oui == {"locked": True}


@pytest.mark.parametrize("seed", range(3))
async def test_pages_of_any_size_and_order_are_the_same_hotspots(seed: int) -> None:
    async with reading(Helium(page_size=1 + seed, shuffle=Random(seed))) as source:
        content = (await source.fetch(parse(IOT))).content
    async with reading(Helium()) as source:
        assert (await source.fetch(parse(IOT))).content == content


@pytest.mark.parametrize(
    ("query", "code"),
    [("data://helium/oui/7", "ORC-DATA-004"), (f"data://helium/hotspot/{'1' * 44}", "ORC-DATA-004")],
)
async def test_what_helium_does_not_know_is_not_there(query: str, code: str) -> None:
    async with reading(Helium()) as source:
        with pytest.raises(OracleError, match=code):
            await source.fetch(parse(query))


@pytest.mark.parametrize(
    "fault",
    [
        {"kind": "drop"},
        {"kind": "hang"},
        {"kind": "lose_answer"},
        {"kind": "truncate"},
        {"kind": "malformed"},
        {"kind": "html"},
        {"kind": "error"},
        {"kind": "broken"},
    ],
    ids=lambda fault: fault["kind"],
)
async def test_trouble_in_the_middle_of_the_pages_is_worth_another_try(fault: dict[str, Any]) -> None:
    emulator = Helium()
    async with troubled(emulator, {**fault, "skip": 1}) as (source, later):
        with pytest.raises(OracleError) as caught:
            await source.fetch(parse(IOT))
        assert caught.value.verdict is Verdict.RETRY
        assert emulator.faults.report()[0]["hits"] == 1
        assert len((await read(later, IOT))["hotspots"]) == 3


async def test_a_network_that_grows_without_end_is_not_followed() -> None:
    emulator = Helium()
    emulator.faults.add("huge")
    async with reading(emulator) as source:
        with pytest.raises(OracleError, match="ORC-DATA-005"):
            await source.fetch(parse(IOT))


async def test_every_network_can_be_probed() -> None:
    async with reading(Beemaps()) as beemaps, reading(Helium()) as helium:
        assert await beemaps.probe() == "takes the key, balance 100,000"
        assert await helium.probe() == "answers, needs no key"


async def test_documents_are_searched_and_read() -> None:
    async with reading(Grass()) as source:
        found = await read(source, f"{KETTLE}&limit=2&fields=title")
        page = await read(source, compose("grass", "page", params={"url": "https://shop.example/kettle"}))
        with pytest.raises(OracleError, match="ORC-DATA-004"):
            await source.fetch(parse(compose("grass", "page", params={"url": "https://shop.example/spoon"})))
    assert {document["title"] for document in found["documents"]} == {"Kettle, 1.7 litres", "Review of the kettle"}
    assert "24.90" in page["documents"][0]["text"]


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        ({"kind": "unauthorized"}, "ORC-PROVIDER-007"),
        ({"kind": "rate_limit"}, "ORC-PROVIDER-003"),
        ({"kind": "lose_answer"}, "ORC-PROVIDER-001"),
        ({"kind": "broken"}, "ORC-PROVIDER-005"),
    ],
    ids=lambda value: value["kind"] if isinstance(value, dict) else "",
)
async def test_trouble_of_the_operators_own_service_has_its_code(fault: dict[str, Any], code: str) -> None:
    emulator = Grass()
    emulator.faults.add(**fault)
    async with reading(emulator) as source:
        with pytest.raises(OracleError, match=code):
            await source.fetch(parse(KETTLE))


async def test_nothing_that_was_not_collected_is_made_up() -> None:
    emulator = Grass()
    emulator.faults.add("empty")
    async with reading(emulator) as source:
        assert await read(source, KETTLE) == {"documents": []}
