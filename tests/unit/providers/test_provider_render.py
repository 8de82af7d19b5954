"""Signatures, bodies and objects of Render's compute subnet, as its specification has them (render.md)."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import httpx
import pytest
from provider_wire import Wire, answer, http

from oracle.core.compute import IdempotencyKey, Message, Task
from oracle.core.errors import OracleError, Verdict
from oracle.providers import errors
from oracle.providers.registry import build, parse
from oracle.providers.render import container
from oracle.providers.render.api import DispersedApi, Phase
from oracle.providers.render.container import Terms
from oracle.providers.render.listing import Listing
from oracle.providers.render.signing import (
    canonical_body,
    canonical_query,
    signature,
    signed_headers,
    string_to_sign,
)

NOW = 1_700_000_000.0
NONCE = "00112233445566778899aabbccddeeff"
KEY = IdempotencyKey("5f0c2f8e-2a41-4f7e-9a9f-0d3c1b2a4e5f")
TASK = Task(
    "owner/model-GGUF:Q8_0", (Message("user", "Wie spät ist es? 🦉"),), max_output_tokens=32, timeout_seconds=90
)
UUID = "0199aa00-0000-7000-8000-000000000001"
JOB = {
    "object": "job",
    "uuid": UUID,
    "status": "PENDING",
    "title": "oracle-x",
    "created_at": "2026-10-01T10:00:00.000Z",
}


# --- the golden vectors of §2 ---

BODY = {
    "title": "demo",
    "task": "BATCH",
    "parameters": {"type": "docker", "parameters": {"tag": "v1", "image": "example/img", "env": {"B": "2", "A": "1"}}},
    "max_timeout_run_ms": 60000,
    "gpu_count": 1,
}
CANONICAL = (
    b'{"gpu_count":1,"max_timeout_run_ms":60000,"parameters":{"parameters":{"env":{"A":"1","B":"2"},'
    b'"image":"example/img","tag":"v1"},"type":"docker"},"task":"BATCH","title":"demo"}'
)
QUERY = "filter%5Bjob_uuid%5D=0198ac1c-7063-4be8-bb94-57a5bd83548e&filter%5Bstatus%5D=RUNNING&limit=20"


def test_the_body_is_sent_in_its_canonical_form() -> None:
    assert canonical_body(BODY) == CANONICAL
    assert (
        canonical_body({"b": "é", "a": [2, {"d": None, "c": True}]}) == b'{"a":[2,{"c":true,"d":null}],"b":"\\u00e9"}'
    )


def test_a_number_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="JSON"):
        canonical_body({"a": float("nan")})


def test_the_query_is_sorted_and_encoded() -> None:
    pairs: list[tuple[str, str | int]] = [
        ("limit", 20),
        ("filter[status]", "RUNNING"),
        ("filter[job_uuid]", "0198ac1c-7063-4be8-bb94-57a5bd83548e"),
    ]
    assert canonical_query(pairs) == QUERY
    assert canonical_query([("b", "2"), ("a", "y"), ("a", "A,B")]) == "a=A%2CB&a=y&b=2"
    assert canonical_query([]) == ""


def test_a_space_in_a_query_is_refused() -> None:
    with pytest.raises(ValueError, match="space"):
        canonical_query([("filter[gpu_name]", "NVIDIA RTX 4090")])


@pytest.mark.parametrize(
    ("method", "path", "query", "body", "text", "signed"),
    [
        (
            "POST",
            "/v1/jobs",
            "",
            CANONICAL,
            f"pk_test_0001|1700000000000|{NONCE}|POST|/v1/jobs||"
            "b280f13cd2aabd36f7f0fd412bdea1eac9ddbfe7167f3a5de2eb5dcb5948ad8d",
            "3c9be87aa573c319b64ddc7f7d907bf9758623c4b2ed90fcefa2125eaadf27f9",
        ),
        (
            "GET",
            "/v1/job-runs",
            QUERY,
            b"",
            f"pk_test_0001|1700000000000|{NONCE}|GET|/v1/job-runs|{QUERY}|"
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
            "a140da596452ecc12bc1e5bd4c9144b9adbd4a5d0cfdabf73f6b64ac27e5549b",
        ),
    ],
    ids=["POST /v1/jobs", "GET /v1/job-runs"],
)
def test_the_vectors_of_the_specification_are_met(
    method: str, path: str, query: str, body: bytes, text: str, signed: str
) -> None:
    assert string_to_sign("pk_test_0001", 1700000000000, NONCE, method, path, query, body) == text
    assert signature("sk_test_0001", text) == signed
    headers = signed_headers(
        "pk_test_0001",
        "sk_test_0001",
        time_ms=1700000000000,
        nonce=NONCE,
        method=method.lower(),
        path=path,
        query=query,
        body=body,
    )
    assert headers == {
        "X-API-Key": "pk_test_0001",
        "X-Time": "1700000000000",
        "X-Nonce": NONCE,
        "X-Signature": signed,
        "Content-Type": "application/json",
        "Accept": "application/json",
    }


# --- calls ---


def api(wire: Wire, *, now: Callable[[], float] = lambda: NOW) -> DispersedApi:
    counter = iter(range(1000))
    return DispersedApi(
        http(wire, "https://api.example", now=now),
        "pk_test_0001",
        "sk_test_0001",
        now=now,
        entropy=lambda size: next(counter).to_bytes(size, "big"),
    )


async def test_what_is_sent_is_what_is_signed() -> None:
    wire = Wire(answer({"data": [], "page": 1, "limit": 50, "total": 0}))
    await api(wire).runs(UUID)
    (sent,) = wire.requests
    path, _, query = sent.url.raw_path.decode().partition("?")
    text = string_to_sign("pk_test_0001", 1700000000000, sent.headers["x-nonce"], "GET", path, query)
    assert sent.headers["x-signature"] == signature("sk_test_0001", text)
    assert query == f"filter%5Bjob_uuid%5D={UUID}&limit=50&sort=-created_at"


async def test_every_call_has_a_nonce_of_its_own() -> None:
    wire = Wire(answer(JOB))
    for _ in range(3):
        await api(wire).job(UUID)
    dispersed = api(wire)
    for _ in range(3):
        await dispersed.job(UUID)
    assert len({request.headers["x-nonce"] for request in wire.requests[3:]}) == 3


async def test_a_job_is_created_with_the_canonical_bytes() -> None:
    wire = Wire(answer(JOB, 201))
    job = await api(wire).create(BODY, ())
    assert wire.requests[0].content == CANONICAL
    assert (job.uuid, job.phase, job.title) == (UUID, Phase.WAITING, "oracle-x")


@pytest.mark.parametrize("status", [408, 500, 502, 503, 504, 520])
async def test_a_creation_that_the_server_fails_at_may_have_made_the_job(status: int) -> None:
    with pytest.raises(OracleError) as caught:
        await api(Wire(answer({"message": "x", "statusCode": status}, status))).create(BODY, ())
    assert caught.value.verdict is Verdict.UNKNOWN


@pytest.mark.parametrize("content", [b"", b"<html>", b'{"data":[{"object":"job_run","uuid":"0199aa00', b"[]", b"{}"])
async def test_a_creation_whose_answer_is_none_may_have_made_the_job(content: bytes) -> None:
    with pytest.raises(OracleError) as caught:
        await api(Wire(answer(content))).create(BODY, ())
    assert caught.value.verdict is Verdict.UNKNOWN


REFUSED = answer({"error": {"code": "UNAUTHORIZED", "message": "Invalid signature"}}, 401)
EMPTY = answer({"data": [], "page": 1, "limit": 50, "total": 0})


async def test_a_refused_signature_of_a_right_key_may_hide_a_job_that_was_made() -> None:
    """Something on the way sent the creation twice: the first made the job, the second used up the nonce."""
    with pytest.raises(OracleError) as caught:
        await api(Wire(REFUSED, EMPTY)).create(BODY, ())
    assert caught.value.error is errors.NO_ANSWER


async def test_a_refused_signature_of_a_wrong_key_has_made_nothing() -> None:
    with pytest.raises(OracleError) as caught:
        await api(Wire(REFUSED)).create(BODY, ())
    assert caught.value.error is errors.CREDENTIALS_REFUSED


async def test_a_clock_that_is_off_is_set_once_and_then_believed() -> None:
    late = answer({"error": {"code": "UNAUTHORIZED"}}, 401, date="Tue, 14 Nov 2023 23:13:20 GMT")
    wire = Wire(late, answer(JOB), answer(JOB))
    dispersed = api(wire)
    await dispersed.job(UUID)
    await dispersed.job(UUID)
    times = [int(request.headers["x-time"]) for request in wire.requests]
    assert times == [1700000000000, 1700003600000, 1700003600000]


@pytest.mark.parametrize("date", ["", "yesterday", "Tue, 14 Nov 2023 22:13:30 GMT"])
async def test_a_refusal_that_no_clock_explains_is_not_repeated(date: str) -> None:
    wire = Wire(answer({"error": {"code": "UNAUTHORIZED"}}, 401, date=date))
    with pytest.raises(OracleError) as caught:
        await api(wire).job(UUID)
    assert caught.value.error is errors.CREDENTIALS_REFUSED
    assert len(wire.requests) == 1


# --- objects (§5, §7) ---


@pytest.mark.parametrize(
    ("status", "phase"),
    [
        ("PENDING", Phase.WAITING),
        ("ASSIGNED", Phase.WAITING),
        ("PREPARING", Phase.LIVE),
        ("RUNNING", Phase.LIVE),
        ("FAILING", Phase.LIVE),
        ("CANCELLING", Phase.ENDING),
        ("COMPLETED", Phase.COMPLETED),
        ("FAILED", Phase.FAILED),
        ("CANCELLED", Phase.CANCELLED),
        ("REBALANCING", Phase.LIVE),
        (None, Phase.LIVE),
        (7, Phase.LIVE),
    ],
)
async def test_a_status_that_is_not_known_is_no_end(status: Any, phase: Phase) -> None:
    for body in ({**JOB, "status": status}, {"data": {**JOB, "status": status}}):
        job = await api(Wire(answer(body))).job(UUID)
        assert job is not None
        assert job.phase is phase


async def test_the_run_of_the_specification_is_read() -> None:
    run = {
        "object": "job_run",
        "uuid": "0199aa00-0000-7000-8000-0000000000a1",
        "job_uuid": UUID,
        "status": "RUNNING",
        "started_at_ms": 1790848800000,
        "ended_at_ms": None,
        "duration_ms": None,
        "hourly_rate_usd": 0.69,
        "node_urls": [
            {"description": "ssh", "hostname": "abc-us-west-2.proxy.dispersed.com", "port": 31022, "protocol": "tcp"},
            {"description": "8000", "hostname": "abc-us-west-2.proxy.dispersed.com", "port": 31080, "protocol": "http"},
            {"description": "8443", "hostname": "10.0.0.1", "port": 443, "protocol": "http", "tls": True},
            {"description": "9000", "hostname": "user@evil.example/path", "port": 80, "protocol": "http"},
            {"description": "9001", "hostname": "a.example", "port": "80"},
        ],
        "container_access_tokens": ["tok"],
    }
    (found,) = await api(Wire(answer({"data": [run], "page": 1, "limit": 20, "total": 1}))).runs(UUID)
    assert found.usd_per_hour == Decimal("0.69")
    assert found.started_at == 1790848800
    assert found.addresses == {
        "ssh": "http://abc-us-west-2.proxy.dispersed.com:31022",
        "8000": "http://abc-us-west-2.proxy.dispersed.com:31080",
        "8443": "https://10.0.0.1:443",
    }


async def test_the_offer_of_the_specification_is_read() -> None:
    offer = {
        "offer_id": "o",
        "region_code": "us-west-2",
        "availability": {},
        "hardware_summary": {
            "cpu_cores": 16,
            "gpu_count": 1,
            "gpu_model_label": "NVIDIA GeForce RTX 5090",
            "gpu_models": [],
            "gpu_registry_uuid": "0198ac1c-7063-4be8-bb94-57a5bd83548e",
            "min_gpu_vram_gib": 32,
            "ram_gib": 64,
            "storage_gib": 500,
        },
        "pricing": {"hourly_rate_usd": 0.69, "quoted_at": "2026-10-01T10:00:00Z"},
    }
    wire = Wire(answer({"data": [offer, {"offer_id": "strange"}, None], "page": 1, "limit": 50, "total": 3}))
    (found,) = await api(wire).offers(min_vram_gb=8, min_ram_gb=16, min_storage_gb=40, regions="us-west-2,eu-west-1")
    assert (found.usd_per_hour, found.vram_gb, found.gpu_count) == (Decimal("0.69"), 32, 1)
    assert "filter%5Ballowed_region_codes%5D=us-west-2%2Ceu-west-1" in str(wire.requests[0].url)


@pytest.mark.parametrize("item", [None, 7, "x", {}, {"uuid": 7}, {"uuid": "../../x"}])
async def test_a_page_with_a_job_that_cannot_be_read_proves_nothing(item: Any) -> None:
    with pytest.raises(OracleError) as caught:
        await api(Wire(answer({"data": [JOB, item], "page": 1, "limit": 50, "total": 2}))).jobs(1)
    assert caught.value.error is errors.UNREADABLE_ANSWER


# --- the list of jobs ---


class Pages:
    """An account of so many jobs, one a minute, in pages of fifty."""

    def __init__(self, jobs: int) -> None:
        self.jobs, self.asked = jobs, 0

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.asked += 1
        first = (int(request.url.params["page"]) - 1) * 50
        rows = [
            {**JOB, "uuid": f"job-{n}", "created_at": f"{datetime.fromtimestamp(NOW - 60 * n, UTC).isoformat()}"}
            for n in range(first, min(first + 50, self.jobs))
        ]
        return httpx.Response(200, json={"data": rows, "page": 1, "limit": 50, "total": self.jobs})


def listing(pages: Pages, horizon_seconds: float = 86_400.0) -> Listing:
    return Listing(api(Wire(pages)), horizon_seconds=horizon_seconds, clock=lambda: 0.0, now=lambda: NOW)


@pytest.mark.parametrize(("jobs", "asked"), [(0, 1), (50, 1), (51, 2), (120, 3)])
async def test_all_jobs_are_listed_and_the_list_is_shared(jobs: int, asked: int) -> None:
    pages = Pages(jobs)
    found = listing(pages)
    assert len((await found.snapshot()).jobs) == jobs
    await found.snapshot()
    assert pages.asked == asked


async def test_a_look_up_goes_back_to_its_horizon() -> None:
    pages = Pages(1000)
    snapshot = await listing(pages, horizon_seconds=3600).snapshot()
    assert {job.uuid for job in snapshot.jobs} >= {f"job-{n}" for n in range(61)}
    assert pages.asked == 2


async def test_a_look_up_that_does_not_come_to_its_end_says_so() -> None:
    with pytest.raises(OracleError) as caught:
        await listing(Pages(5000), horizon_seconds=1e9).snapshot()
    assert caught.value.error is errors.LOOK_UP_INCOMPLETE


async def test_a_poll_reads_no_further_than_it_has_to() -> None:
    for wanted, asked in (["job-3"], 1), (["job-3", "job-70"], 2), (["job-999"], 4):
        pages = Pages(1000)
        found = await listing(pages).among_the_newest(wanted)
        assert (pages.asked, set(wanted) <= found.keys()) == (asked, wanted != ["job-999"])


# --- the order of a container ---


USUAL = Terms()


def order(task: Task = TASK, terms: Terms = USUAL) -> dict[str, Any]:
    return container.order(task, KEY, terms, gpu_registry_uuid="gpu-1", gpu_name="GPU", secret="sk_test_0001", now=NOW)


def test_the_order_keeps_the_rules_of_the_specification() -> None:
    body = order()
    sent = canonical_body(body)
    assert sent.isascii()
    assert not any(isinstance(value, float) for value in walk(json.loads(sent)))
    assert body["title"] == f"oracle-{KEY}"
    assert body["task"] == "BATCH"
    assert body["max_timeout_run_ms"] == 90_000
    assert body["max_retry_count"] == 0
    assert ("gpu_name" in body, body["gpu_registry_uuid"]) == (False, "gpu-1")
    assert body["parameters"]["parameters"]["ports"] == [22, 8080]
    assert order(Task("a/b", (), 1, timeout_seconds=5))["max_timeout_run_ms"] == 60_000
    assert order(terms=Terms(kind="PERSISTENT"))["max_timeout_run_ms"] is None


def test_the_task_is_read_back_from_the_job() -> None:
    environment = order()["parameters"]["parameters"]["env"]
    assert container.task_in(environment) == TASK
    assert container.key_in(order()["title"]) == KEY
    assert container.key_in("somebody else's") is None


@pytest.mark.parametrize(
    "environment",
    [None, {}, {"ORACLE_TASK": 7}, {"ORACLE_TASK": "%%"}, {"ORACLE_TASK": "W10="}, {"ORACLE_TASK": "e30="}],
)
def test_an_environment_without_a_task_has_none(environment: Any) -> None:
    assert container.task_in(environment) is None


def test_the_key_of_a_container_is_its_own_and_no_secret_of_ours() -> None:
    environment = order()["parameters"]["parameters"]["env"]
    assert "sk_test_0001" not in json.dumps(order())
    assert environment["LLAMA_API_KEY"] == container.server_key(KEY, "sk_test_0001")
    assert container.server_key(IdempotencyKey("another"), "sk_test_0001") != environment["LLAMA_API_KEY"]


def test_what_the_operator_sets_does_not_replace_the_key() -> None:
    terms = Terms(environment=(("LLAMA_ARG_CTX_SIZE", "8192"), ("LLAMA_API_KEY", "open"), ("ORACLE_TASK", "x")))
    environment = order(terms=terms)["parameters"]["parameters"]["env"]
    assert environment["LLAMA_ARG_CTX_SIZE"] == "8192"
    assert environment["LLAMA_API_KEY"] == container.server_key(KEY, "sk_test_0001")
    assert container.task_in(environment) == TASK


@pytest.mark.parametrize("model", ["", "gpt-4o", "a/b --api-key x", "../x/y", "a/b:c:d", "ä/b"])
def test_a_model_that_is_no_repository_is_refused_before_it_costs(model: str) -> None:
    with pytest.raises(OracleError) as caught:
        order(Task(model, TASK.messages, 1))
    assert caught.value.error is errors.DEFINITION_INVALID


def test_a_prompt_that_no_environment_holds_is_refused_before_it_costs() -> None:
    with pytest.raises(OracleError) as caught:
        order(Task("a/b", (Message("user", "x" * 100_000),), 1))
    assert caught.value.error is errors.INPUT_TOO_LARGE


def test_a_job_says_itself_when_nobody_can_want_it_any_longer() -> None:
    body = order()
    ends = NOW + 600 + 90
    assert not container.is_overdue(body["title"], body["description"], ends)
    assert container.is_overdue(body["title"], body["description"], ends + 1)
    assert not container.is_overdue("somebody else's", body["description"], ends + 1)
    assert not container.is_overdue(body["title"], "no word of it", ends + 1)


# --- settings ---


@pytest.mark.parametrize("halves", [{}, {"public_key": "pk_x"}, {"secret_key": "sk_x"}])
def test_both_halves_of_the_key_are_needed(halves: dict[str, str]) -> None:
    with pytest.raises(OracleError) as caught:
        build("render", {"kind": "render", **halves}, environ={})
    assert caught.value.error is errors.SETTINGS_INVALID


def test_a_public_key_that_is_no_header_is_refused() -> None:
    with pytest.raises(OracleError) as caught:
        parse({"kind": "render", "public_key": "pk\nx"})
    assert caught.value.error is errors.SETTINGS_INVALID


async def test_secrets_are_not_repeated_by_an_error() -> None:
    def echo(request: httpx.Request) -> httpx.Response:
        return httpx.Response(400, json={"error": {"code": "X", "message": "sk_test_0001 is not " + "sk_test_0001"}})

    with pytest.raises(OracleError) as caught:
        await DispersedApi(http(Wire(echo), secrets=("sk_test_0001",)), "pk", "sk_test_0001").job(UUID)
    assert "sk_test" not in str(caught.value)


def walk(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [leaf for inner in value.values() for leaf in walk(inner)]
    if isinstance(value, list):
        return [leaf for inner in value for leaf in walk(inner)]
    return [value]
