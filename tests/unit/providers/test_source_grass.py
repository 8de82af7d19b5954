"""Grass: a service or files of the operator stand in for an API that does not exist (depin_data.md §3)."""

from __future__ import annotations

import os
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest
from provider_wire import Wire, answer

from oracle.core.compute import Source
from oracle.core.dataquery import compose, parse
from oracle.core.errors import OracleError, Verdict
from oracle.providers.pricing import FixedRates
from oracle.providers.sources.normal import origin_of
from oracle.providers.sources.registry import build

DOCUMENT = {
    "url": "https://shop.example/kettle?id=7",
    "title": "Kettle",
    "text": "A kettle.\nPrice 24.90 EUR.",
    "collected_at": "2026-09-30T11:00:00Z",
    "html": "<b>",
}


def built(wire: Wire | None = None, **settings: Any) -> Source:
    web = {} if wire is None else {"endpoint": "https://web.example/v1/", "api_key": "grass-secret"}
    return build(
        "grass",
        {"kind": "grass", **web, **settings},
        rates=FixedRates(sol_usd=Decimal(100)),
        transport=wire.transport if wire else None,
        environ={},
    )


async def fetched(source: Source, query: str) -> bytes:
    return (await source.fetch(parse(query))).content


async def test_a_search_is_one_call_with_the_key_as_bearer() -> None:
    wire = Wire(answer({"documents": [DOCUMENT, {**DOCUMENT, "title": "Second"}]}))
    found = await built(wire).fetch(parse("data://grass/search?q=steel%20kettle&limit=1&max_age=3600"))
    request = wire.requests[0]
    assert request.url.path == "/v1/search"
    assert dict(request.url.params) == {"q": "steel kettle", "limit": "1", "max_age": "3600"}
    assert request.headers["authorization"] == "Bearer grass-secret"
    assert found.content == (
        b'{"documents":[{"collected_at":"2026-09-30T11:00:00Z","text":"A kettle. Price 24.90 EUR.","title":"Kettle",'
        b'"url":"https://shop.example/kettle?id=7"}]}'
    )
    assert found.origin == "https://web.example/v1/search"


async def test_a_page_is_asked_for_by_its_address_and_a_long_one_is_cut() -> None:
    wire = Wire(answer({"documents": [{**DOCUMENT, "text": "ü" * 500}]}))
    query = compose("grass", "page", params={"url": "https://shop.example/kettle?id=7&x=1", "fields": "text"})
    content = await fetched(built(wire, max_document_characters=100), query)
    assert wire.requests[0].url.params["url"] == "https://shop.example/kettle?id=7&x=1"
    assert content == b'{"documents":[{"text":"' + "ü".encode() * 100 + b'"}]}'


def test_an_origin_has_neither_user_nor_key() -> None:
    assert origin_of("https://user:pw@web.example:444/v1/?key=secret#x", "/search") == (
        "https://web.example:444/v1/search"
    )


@pytest.mark.parametrize(
    "query",
    [
        "data://grass/crawl?q=x",
        "data://grass/search",
        "data://grass/search?q=x&limit=0",
        "data://grass/search?q=x&limit=101",
        "data://grass/search?q=x&max_age=0",
        "data://grass/search?q=x&fields=html",
        "data://grass/page?url=ftp://shop.example/",
        "data://grass/page?url=https://user@shop.example/",
        "data://grass/page?url=https:///x",
        "data://grass/page?url=https://%5B::1",
        "data://grass/page?url=file:///etc/passwd",
        "data://grass/files/x.json",
    ],
)
async def test_what_cannot_be_asked_is_refused_before_anything_is_sent(query: str) -> None:
    wire = Wire(answer({"documents": []}))
    source = built(wire)
    with pytest.raises(OracleError, match=r"ORC-DATA-00[23]"):
        source.cost_lamports(parse(query))
    with pytest.raises(OracleError, match=r"ORC-DATA-00[23]"):
        await source.fetch(parse(query))
    assert wire.requests == []


@pytest.mark.parametrize(
    ("reply", "usd", "code", "verdict"),
    [
        (answer({"error": "no"}, 404), 0, "ORC-DATA-004", Verdict.GIVE_UP),
        (answer({"error": "no"}, 401), 0, "ORC-PROVIDER-007", Verdict.GIVE_UP),
        (answer({"error": "slow"}, 429), 0, "ORC-PROVIDER-003", Verdict.RETRY),
        (answer({"documents": {}}), 0, "ORC-PROVIDER-005", Verdict.RETRY),
        (answer({"documents": {}}), 0.01, "ORC-PROVIDER-004", Verdict.UNKNOWN),
        (answer({"documents": [{"url": "https://x.example/"}]}), 0, "ORC-PROVIDER-005", Verdict.RETRY),
        (httpx.ReadError("x"), 0, "ORC-PROVIDER-001", Verdict.RETRY),
        (httpx.ReadError("x"), 0.01, "ORC-PROVIDER-004", Verdict.UNKNOWN),
    ],
)
async def test_a_lost_answer_is_unknown_only_where_it_was_paid_for(
    reply: Any, usd: float, code: str, verdict: Verdict
) -> None:
    with pytest.raises(OracleError) as caught:
        await fetched(built(Wire(reply), usd_per_fetch=usd), "data://grass/search?q=x")
    assert (caught.value.code, caught.value.verdict) == (code, verdict)
    assert "grass-secret" not in str(caught.value)


def test_a_call_costs_what_is_configured_and_a_file_nothing(tmp_path: Path) -> None:
    source = built(Wire(answer({})), usd_per_fetch=0.01, files=tmp_path)
    assert source.cost_lamports(parse("data://grass/search?q=x")) == 100_000
    assert source.cost_lamports(parse("data://grass/files/x.json")) == 0


def test_there_is_no_grass_without_an_endpoint_or_files() -> None:
    with pytest.raises(OracleError, match="Grass has no public API"):
        built()


async def test_a_probe_asks_for_nothing_that_might_cost(tmp_path: Path) -> None:
    wire = Wire(answer({"documents": []}))
    assert await built(wire, files=tmp_path).probe() == "no network, but a service or files of yours"
    assert await built(files=tmp_path).probe() == "no network, but files of yours"
    with pytest.raises(OracleError, match="files is not a directory"):
        await built(files=tmp_path / "missing").probe()
    assert wire.requests == []


@pytest.fixture
def files(tmp_path: Path) -> Path:
    directory = tmp_path / "files"
    directory.mkdir()
    lines = ['{"n":1,"text":"one"}', "", '{"n":2,"text":"two"}', '"three"', ""]
    (directory / "reviews.jsonl").write_text("\n".join(lines))
    (directory / "broken.json").write_text("{")
    (directory / "broken.jsonl").write_text('{"n":1}\n{')
    (directory / "numbers.json").write_text("[9007199254740993]")
    (directory / "large.json").write_text('"' + "x" * 20_000 + '"')
    (directory / "folder.json").mkdir()
    (tmp_path / "key.json").write_text('{"secret":1}')
    (directory / "link.json").symlink_to(tmp_path / "key.json")
    return directory


async def test_lines_of_a_file_are_records(files: Path) -> None:
    source = built(files=files)
    assert await fetched(source, "data://grass/files/reviews.jsonl?limit=2&fields=text") == (
        b'{"records":[{"text":"one"},{"text":"two"}]}'
    )
    assert await fetched(source, "data://grass/files/reviews.jsonl") == (
        b'{"records":[{"n":1,"text":"one"},{"n":2,"text":"two"},"three"]}'
    )


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("missing.json", "ORC-DATA-004"),
        ("broken.json", "ORC-DATA-004"),
        ("broken.jsonl", "ORC-DATA-004"),
        ("numbers.json", "ORC-DATA-004"),
        ("folder.json", "ORC-DATA-004"),
        ("link.json", "ORC-DATA-004"),
        ("large.json", "ORC-DATA-005"),
        ("reviews.txt", "ORC-DATA-002"),
        ("sub/reviews.jsonl", "ORC-DATA-002"),
        ("~.json", "ORC-DATA-002"),
        ("reviews.jsonl?limit=0", "ORC-DATA-003"),
        ("broken.json?limit=1", "ORC-DATA-003"),
    ],
)
async def test_only_a_plain_file_of_the_directory_is_read(files: Path, path: str, code: str) -> None:
    with pytest.raises(OracleError, match=code) as caught:
        await fetched(built(files=files), f"data://grass/files/{path}")
    assert str(files) not in str(caught.value)


async def test_a_file_that_grew_too_large_is_not_read_to_its_end(files: Path) -> None:
    with (files / "huge.jsonl").open("wb") as file:
        os.truncate(file.fileno(), 50_000_000)
    with pytest.raises(OracleError, match="ORC-DATA-005"):
        await fetched(built(files=files), "data://grass/files/huge.jsonl")
