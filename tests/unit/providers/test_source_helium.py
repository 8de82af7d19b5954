"""Helium: the Entity API's calls and pages, token supplies read from a mint, and files (depin_data.md §2)."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import httpx
import pytest
from provider_wire import Wire, answer

from oracle.core.compute import Source
from oracle.core.dataquery import parse
from oracle.core.errors import OracleError, Verdict
from oracle.providers.sources.registry import build

KEY = "7Y6mvBXGAyYBYRyS4S6pBp9R9yRmSvqn5mBHv8W2o2vF"
ENTITY = "112NqN2WWMwtK29PMzRby62fDydBJfsCLkCAf392stdok48ovNT6"

# depin_data.md §2.1: documented keys, synthetic values.
HOTSPOT: dict[str, Any] = {
    "name": "rapid-teal-otter",
    "description": "A hotspot",
    "image": "https://entities.example/x.png",
    "asset_id": "asset",
    "key_to_asset_key": KEY,
    "entity_key_b64": "AAAA",
    "key_serialization": "b58",
    "entity_key_str": ENTITY,
    "hotspot_infos": {
        "iot": {
            "address": "1 Road",
            "street": "Road",
            "city": "Lisbon",
            "state": "Lisboa",
            "country": "Portugal",
            "location": "8839221b35fffff",
            "elevation": 12,
            "gain": 40,
            "created_at": "2024-05-04T12:00:00.000Z",
            "asset": "asset",
            "lat": 38.722312345678,
            "long": -9.1393,
            "dc_onboarding_fee_paid": "4000000",
            "is_active": False,
        }
    },
    "attributes": [{"trait_type": "networks", "value": "iot"}, {"trait_type": "iot_city", "value": "Lisbon"}],
}
OUI: dict[str, Any] = {
    "oui": 12,
    "owner": "o",
    "payer": "p",
    "escrow": "e",
    "delegate_keys": ["d"],
    "locked": False,
}


def built(wire: Wire, **settings: Any) -> Source:
    return build("helium", {"kind": "helium", "requests_per_second": 1000, **settings}, transport=wire.transport)


async def fetched(wire: Wire, query: str, **settings: Any) -> bytes:
    return (await built(wire, **settings).fetch(parse(query))).content


@pytest.mark.parametrize(("key", "path"), [(KEY, f"/v2/hotspot/{KEY}"), (ENTITY, f"/{ENTITY}")])
async def test_a_hotspot_is_found_by_either_of_its_keys(key: str, path: str) -> None:
    wire = Wire(answer(HOTSPOT))
    found = await built(wire).fetch(parse(f"data://helium/hotspot/{key}"))
    assert (wire.requests[0].method, str(wire.requests[0].url)) == ("GET", f"https://entities.nft.helium.io{path}")
    assert found.origin == f"https://entities.nft.helium.io{path}"
    assert b'"lat":38.7223123,"location":"8839221b35fffff","long":-9.1393' in found.content
    assert b"description" not in found.content
    assert b"is_active" not in found.content


async def test_a_hotspot_may_be_cut_to_some_fields() -> None:
    content = await fetched(Wire(answer(HOTSPOT)), f"data://helium/hotspot/{KEY}?fields=name,attributes")
    assert content == (
        b'{"attributes":[{"trait_type":"iot_city","value":"Lisbon"},{"trait_type":"networks","value":"iot"}],'
        b'"name":"rapid-teal-otter"}'
    )


def page(cursor: str | None, *items: tuple[str, float, float]) -> Any:
    listed = [
        {"key_to_asset_key": key, "entity_key_str": "e", "is_active": False, "lat": lat, "long": long}
        for key, lat, long in items
    ]
    return answer({"cursor": cursor, "items": listed})


async def test_pages_are_followed_to_the_last_and_put_in_order() -> None:
    wire = Wire(page("next&page", ("b", 1.5, 2.5)), page(None, ("c", 3.0, 4.0), ("a", 50.0, 60.0)))
    content = await fetched(wire, "data://helium/hotspots?subnetwork=iot&fields=key_to_asset_key,lat")
    assert [str(request.url.params) for request in wire.requests] == [
        "subnetwork=iot",
        "subnetwork=iot&cursor=next%26page",
    ]
    assert content == (
        b'{"hotspots":[{"key_to_asset_key":"a","lat":50},{"key_to_asset_key":"b","lat":1.5},'
        b'{"key_to_asset_key":"c","lat":3}]}'
    )


async def test_hotspots_outside_a_box_or_of_no_known_place_are_left_out() -> None:
    nowhere = answer({"cursor": None, "items": [{"key_to_asset_key": "n", "lat": None, "long": None}]})
    wire = Wire(page("1", ("in", 1.5, 2.5), ("out", 1.5, 3.5)), nowhere)
    content = await fetched(wire, "data://helium/hotspots?subnetwork=mobile&box=2,1,3,2&fields=key_to_asset_key")
    assert content == b'{"hotspots":[{"key_to_asset_key":"in"}]}'


async def test_part_of_a_network_is_never_given_for_the_whole() -> None:
    wire = Wire(page("again", ("a", 1.0, 1.0)))
    with pytest.raises(OracleError, match="ORC-DATA-005"):
        await fetched(wire, "data://helium/hotspots?subnetwork=iot", max_pages=3)
    assert len(wire.requests) == 3


async def test_wallets_counts_and_organisations_are_read() -> None:
    balances = [{"mint": "m2", "balance": "18446744073709551615"}, {"mint": "m1", "balance": "1"}]
    wallet = answer({"hotspots_count": 2, "hotspots": [{}], "balances": balances})
    assert await fetched(Wire(wallet), f"data://helium/wallet/{KEY}") == (
        b'{"balances":[{"balance":"1","mint":"m1"},{"balance":"18446744073709551615","mint":"m2"}],"hotspots_count":2}'
    )
    pages = Wire(answer({"pageSize": 1000, "totalItems": 31_337, "totalPages": 32}))
    assert await fetched(pages, "data://helium/network?subnetwork=mobile") == (
        b'{"hotspots":31337,"subnetwork":"mobile"}'
    )
    orgs = Wire(answer({"orgs": [OUI, {**OUI, "oui": 2}]}))
    assert await fetched(orgs, "data://helium/ouis?fields=oui,locked") == (
        b'{"orgs":[{"locked":false,"oui":2},{"locked":false,"oui":12}]}'
    )
    assert await fetched(Wire(answer(OUI)), "data://helium/oui/12?fields=oui,payer") == b'{"oui":12,"payer":"p"}'


def mint(supply: int, decimals: int) -> bytes:
    """An SPL Token mint of 82 bytes."""
    return bytes(36) + supply.to_bytes(8, "little") + bytes([decimals, 1]) + bytes(36)


async def test_a_supply_is_read_from_the_mint_whatever_its_size() -> None:
    data = [base64.b64encode(mint(2**64 - 1, 8)).decode(), "base64"]
    wire = Wire(answer({"jsonrpc": "2.0", "id": 1, "result": {"context": {"slot": 5}, "value": {"data": data}}}))
    source = built(wire, rpc_url="https://rpc.example/v1/rpc-secret?api-key=rpc-secret")
    found = await source.fetch(parse("data://helium/supply/HNT"))
    assert found.content == (
        b'{"decimals":8,"mint":"hntyVP6YFm1Hg25TN9WGLqM12b8TQmcknKrdu1oxWux","supply":"18446744073709551615",'
        b'"token":"HNT"}'
    )
    assert found.origin == "https://rpc.example getAccountInfo hntyVP6YFm1Hg25TN9WGLqM12b8TQmcknKrdu1oxWux"
    assert wire.body()["params"][1] == {"encoding": "base64", "commitment": "finalized"}


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"result": {"context": {"slot": 5}, "value": None}}, "ORC-DATA-004"),
        ({"error": {"code": -32005, "message": "behind"}}, "ORC-PROVIDER-005"),
        ({"result": {"value": {"data": ["AAAA", "base64"]}}}, "ORC-PROVIDER-005"),
        ({"result": {"value": {"data": ["*", "base64"]}}}, "ORC-PROVIDER-005"),
        ({"result": {"value": {"data": []}}}, "ORC-PROVIDER-005"),
        ({"result": {"value": {"data": "AAAA"}}}, "ORC-PROVIDER-005"),
    ],
)
async def test_what_is_no_mint_is_no_supply(body: Any, code: str) -> None:
    with pytest.raises(OracleError, match=code):
        await fetched(Wire(answer(body)), "data://helium/supply/HNT", rpc_url="https://rpc.example")


@pytest.mark.parametrize(
    "query",
    [
        "data://helium/hotspot",
        "data://helium/hotspot/short",
        f"data://helium/hotspot/{KEY}/more",
        f"data://helium/hotspot/{KEY.replace('Y', 'l')}",
        f"data://helium/hotspot/{KEY}?fields=image",
        f"data://helium/hotspot/{KEY}?limit=1",
        "data://helium/hotspots",
        "data://helium/hotspots?subnetwork=wifi",
        "data://helium/hotspots?subnetwork=iot&cursor=x",
        "data://helium/hotspots?subnetwork=iot&box=3,1,2,2",
        "data://helium/network",
        "data://helium/wallet/nobody",
        "data://helium/oui/01",
        "data://helium/oui/all",
        "data://helium/supply/HNT",
        "data://helium/files/x.json",
    ],
)
async def test_what_cannot_be_asked_is_refused_before_anything_is_sent(query: str) -> None:
    wire = Wire(answer({}))
    source = built(wire)
    with pytest.raises(OracleError, match=r"ORC-DATA-00[23]"):
        source.cost_lamports(parse(query))
    with pytest.raises(OracleError, match=r"ORC-DATA-00[23]"):
        await source.fetch(parse(query))
    assert wire.requests == []


def test_nothing_of_it_costs_anything() -> None:
    assert built(Wire(answer({}))).cost_lamports(parse(f"data://helium/hotspot/{KEY}")) == 0


# depin_data.md §2.1
REFUSALS = [
    (400, {"statusCode": 400, "error": "Bad Request", "message": "params"}, "ORC-PROVIDER-011", Verdict.GIVE_UP),
    (404, {"statusCode": 404, "error": "Not Found", "message": "Hotspot not found"}, "ORC-DATA-004", Verdict.GIVE_UP),
    (429, {"statusCode": 429, "error": "Too Many Requests", "message": "x"}, "ORC-PROVIDER-003", Verdict.RETRY),
    (500, {"statusCode": 500, "error": "Internal Server Error", "message": "x"}, "ORC-PROVIDER-002", Verdict.RETRY),
    (524, "<html>", "ORC-PROVIDER-002", Verdict.RETRY),
    (200, {"name": "x"}, "ORC-PROVIDER-005", Verdict.RETRY),
    (200, {**HOTSPOT, "hotspot_infos": []}, "ORC-PROVIDER-005", Verdict.RETRY),
    (200, {**HOTSPOT, "name": "x" * 600}, "ORC-PROVIDER-005", Verdict.RETRY),
]


@pytest.mark.parametrize(("status", "body", "code", "verdict"), REFUSALS)
async def test_every_refusal_has_its_code(status: int, body: Any, code: str, verdict: Verdict) -> None:
    with pytest.raises(OracleError) as caught:
        await fetched(Wire(answer(body, status)), f"data://helium/hotspot/{KEY}")
    assert (caught.value.code, caught.value.verdict) == (code, verdict)


async def test_a_lost_answer_cost_nothing_and_a_slow_network_ends() -> None:
    with pytest.raises(OracleError) as caught:
        await fetched(Wire(httpx.ReadError("x")), f"data://helium/hotspot/{KEY}")
    assert caught.value.verdict is Verdict.RETRY
    wire = Wire(page("again", ("a", 1.0, 1.0)))
    with pytest.raises(OracleError, match="ORC-PROVIDER-001") as caught:
        await fetched(
            wire,
            "data://helium/hotspots?subnetwork=iot",
            timeout_seconds=0.1,
            requests_per_second=2,
            max_pages=500,
        )
    assert caught.value.verdict is Verdict.RETRY


async def test_files_of_the_operator_are_data_too(tmp_path: Path) -> None:
    (tmp_path / "price.json").write_bytes(b'{"usd" : 5.50, "token":"HNT"}')
    found = await built(Wire(answer({})), files=tmp_path).fetch(parse("data://helium/files/price.json"))
    assert (found.content, found.origin) == (b'{"token":"HNT","usd":5.5}', "helium:files/price.json")
