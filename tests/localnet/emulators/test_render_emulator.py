"""Render's compute subnet as its specification has it (render.md): signatures, the life of a job, what is refused."""

from __future__ import annotations

import hashlib
import hmac
import itertools
import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest
from nosana_user import Clock, loopback

from oracle.localnet.emulators.openai import Personality, ScriptedOpenAI
from oracle.localnet.emulators.render import ApiKey, JobFault, Render, Timings
from oracle.localnet.emulators.render.signatures import Signatures
from oracle.localnet.emulators.server import serve

pytestmark = pytest.mark.localnet

ENV = {
    "LLAMA_ARG_HF_REPO": "HuggingFaceTB/SmolLM2-135M-Instruct",
    "LLAMA_ARG_ALIAS": "tiny",
    "LLAMA_ARG_HOST": "0.0.0.0",
    "LLAMA_API_KEY": "own-key",
}
DOCKER = {
    "image": "ghcr.io/ggml-org/llama.cpp",
    "tag": "server-cuda",
    "ports": [22, 8080],
    "allowed_ips": ["0.0.0.0/0"],
    "env": ENV,
}
ORDER: dict[str, Any] = {
    "task": "BATCH",
    "title": "job-1",
    "max_timeout_run_ms": 60_000,
    "cpu_count": 4,
    "gpu_count": 1,
    "gpu_name": "NVIDIA RTX 4090",
    "min_ram_gb": 32,
    "parameters": {"type": "docker", "parameters": DOCKER},
}
ASKED = {"model": "tiny", "messages": [{"role": "user", "content": "hello"}]}


class Customer:
    """Signs as §2 says, in its own words."""

    def __init__(self, emulator: Render, url: str, clock: Clock, http: httpx.AsyncClient) -> None:
        self.emulator, self.url, self.clock, self.http = emulator, url, clock, http
        self.public, self.secret = "pk_localnet", "sk_localnet"
        self._nonces = itertools.count()

    def headers(self, method: str, path: str, query: str, body: bytes) -> dict[str, str]:
        sent_at, nonce = str(int(self.clock() * 1000)), f"{next(self._nonces):032x}"
        text = "|".join((self.public, sent_at, nonce, method, path, query, hashlib.sha256(body).hexdigest()))
        signed = hmac.new(self.secret.encode(), text.encode(), "sha256").hexdigest()
        return {"X-API-Key": self.public, "X-Time": sent_at, "X-Nonce": nonce, "X-Signature": signed}

    async def send(self, method: str, path: str, query: str = "", body: Any = None, **changes: str) -> httpx.Response:
        raw = b"" if body is None else json.dumps(body, sort_keys=True, separators=(",", ":")).encode()
        url = f"{self.url}{path}?{query}" if query else f"{self.url}{path}"
        headers = {**self.headers(method, path, query, raw), **changes}
        return await self.http.request(method, url, content=raw, headers=headers)

    async def get(self, path: str, query: str = "") -> Any:
        answer = await self.send("GET", path, query)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def order(self, **changes: Any) -> dict[str, Any]:
        answer = await self.send("POST", "/v1/jobs", body={**ORDER, **changes})
        assert answer.status_code == 201, answer.text
        return dict(answer.json())

    async def status(self, job: dict[str, Any]) -> str:
        return str((await self.get(f"/v1/jobs/{job['uuid']}"))["status"])


@asynccontextmanager
async def render(clock: Clock | None = None, **options: Any) -> AsyncIterator[Customer]:
    clock = clock or Clock()
    async with serve(ScriptedOpenAI(Personality.LLAMACPP)) as model:
        emulator = Render(f"{model.url}/v1", now=clock, **options)
        async with serve(emulator) as running, loopback(running) as http:
            yield Customer(emulator, running.url, clock, http)


# --- signatures ---


def test_the_vector_of_the_specification_is_accepted_once() -> None:
    body = (
        b'{"gpu_count":1,"max_timeout_run_ms":60000,"parameters":{"parameters":{"env":{"A":"1","B":"2"},'
        b'"image":"example/img","tag":"v1"},"type":"docker"},"task":"BATCH","title":"demo"}'
    )
    headers = {
        "x-api-key": "pk_test_0001",
        "x-time": "1700000000000",
        "x-nonce": "00112233445566778899aabbccddeeff",
        "x-signature": "3c9be87aa573c319b64ddc7f7d907bf9758623c4b2ed90fcefa2125eaadf27f9",
    }
    signatures = Signatures({"pk_test_0001": "sk_test_0001"})
    call = (headers, "POST", "/v1/jobs", "", body)
    assert signatures.complaint(*call, 1700000000.0) is None
    assert signatures.complaint(*call, 1700000001.0) == "X-Nonce was already used"
    assert Signatures({"pk_test_0001": "sk_other"}).complaint(*call, 1700000000.0) == "Invalid signature"


def test_the_vector_with_a_query_is_accepted_in_any_order_of_the_query() -> None:
    query = "limit=20&filter[status]=RUNNING&filter[job_uuid]=0198ac1c-7063-4be8-bb94-57a5bd83548e"
    headers = {
        "x-api-key": "pk_test_0001",
        "x-time": "1700000000000",
        "x-nonce": "00112233445566778899aabbccddeeff",
        "x-signature": "a140da596452ecc12bc1e5bd4c9144b9adbd4a5d0cfdabf73f6b64ac27e5549b",
    }
    signatures = Signatures({"pk_test_0001": "sk_test_0001"})
    assert signatures.complaint(headers, "GET", "/v1/job-runs", query, b"", 1700000000.0) is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"X-API-Key": "pk_unknown"}, "Unknown API key"),
        ({"X-Time": "1"}, "X-Time is outside the accepted window"),
        ({"X-Time": "soon"}, "X-Time is outside the accepted window"),
        ({"X-Nonce": "ABC"}, "X-Nonce must be 32 hexadecimal characters"),
        ({"X-Nonce": "f" * 32}, "Invalid signature"),
        ({"X-Signature": "0" * 64}, "Invalid signature"),
        ({"X-Signature": ""}, "Invalid signature"),
    ],
)
async def test_what_is_not_signed_right_is_refused(changes: dict[str, str], message: str) -> None:
    async with render() as customer:
        answer = await customer.send("POST", "/v1/jobs", body=ORDER, **changes)
        assert (answer.status_code, answer.json()["error"]) == (401, {"code": "UNAUTHORIZED", "message": message})
        assert customer.emulator.books()["jobs"] == []


async def test_a_body_that_is_not_canonical_is_refused() -> None:
    async with render() as customer:
        raw = json.dumps(ORDER).encode()
        answer = await customer.http.post(
            f"{customer.url}/v1/jobs", content=raw, headers=customer.headers("POST", "/v1/jobs", "", raw)
        )
        assert answer.status_code == 401


async def test_five_minutes_of_skew_are_accepted_and_no_more() -> None:
    async with render() as customer:
        theirs = customer.clock.seconds
        for off, status in ((299, 200), (-299, 200), (301, 401), (-301, 401)):
            customer.clock.seconds = theirs + off
            headers = customer.headers("GET", "/v1/jobs", "", b"")
            customer.clock.seconds = theirs
            answer = await customer.http.get(f"{customer.url}/v1/jobs", headers=headers)
            assert answer.status_code == status, off


async def test_a_nonce_is_remembered_for_a_day() -> None:
    async with render() as customer:
        headers = customer.headers("GET", "/v1/jobs", "", b"")
        for status in (200, 401):
            answer = await customer.http.get(f"{customer.url}/v1/jobs", headers=headers)
            assert answer.status_code == status


# --- jobs ---


async def test_a_job_lives_through_its_phases() -> None:
    timings = Timings(assign_seconds=10, start_seconds=20, run_lag_seconds=5, address_lag_seconds=5, load_seconds=5)
    async with render(timings=timings) as customer:
        job = await customer.order()
        assert (job["status"], job["title"], job["started_at"]) == ("PENDING", "job-1", None)
        runs = f"filter%5Bjob_uuid%5D={job['uuid']}"
        seen = []
        for _ in range(5):
            listed = (await customer.get("/v1/job-runs", runs))["data"]
            seen.append((await customer.status(job), [bool(run["node_urls"]) for run in listed]))
            customer.clock.seconds += 10
        assert seen == [
            ("PENDING", []),
            ("ASSIGNED", []),
            ("PREPARING", []) if seen[2][0] == "PREPARING" else ("ASSIGNED", []),
            ("RUNNING", []),
            ("RUNNING", [True]),
        ]
        customer.clock.seconds += 60
        ended = await customer.get(f"/v1/jobs/{job['uuid']}")
        assert (ended["status"], ended["status_reason"]) == ("FAILED", "Run timed out")
        (run,) = (await customer.get("/v1/job-runs", runs))["data"]
        assert (run["duration_ms"], run["hourly_rate_usd"]) == (60_000, 0.35)
        (booked,) = customer.emulator.books()["jobs"]
        assert Decimal(booked["cost_usd"]) == pytest.approx(Decimal("0.35") / 60)


async def test_the_container_answers_to_its_own_key_only() -> None:
    async with render() as customer:
        job = await customer.order()
        (run,) = (await customer.get("/v1/job-runs", f"filter%5Bjob_uuid%5D={job['uuid']}"))["data"]
        (address,) = [url for url in run["node_urls"] if url["description"] == "8080"]
        base = f"http://{address['hostname']}:{address['port']}"
        assert (await customer.http.get(f"{base}/health")).status_code == 200
        chat = f"{base}/v1/chat/completions"
        assert (await customer.http.post(chat, json=ASKED)).status_code == 401
        right = {"authorization": "Bearer own-key"}
        answer = await customer.http.post(chat, json=ASKED, headers=right)
        assert answer.json()["model"] == "tiny"
        assert answer.json()["choices"][0]["message"]["content"].startswith("answer ")
        await customer.send("PUT", f"/v1/jobs/{job['uuid']}/cancel", body={"reason": "enough"})
        with pytest.raises(httpx.TransportError):
            await customer.http.post(chat, json=ASKED, headers=right)


async def test_a_node_that_is_lost_cuts_the_call_and_fails_the_job() -> None:
    async with render(timings=Timings(cancel_seconds=5)) as customer:
        customer.emulator.faults.add(JobFault.NODE_LOST)
        job = await customer.order()
        (run,) = (await customer.get("/v1/job-runs", f"filter%5Bjob_uuid%5D={job['uuid']}"))["data"]
        port = run["node_urls"][1]["port"]
        with pytest.raises(httpx.TransportError):
            await customer.http.post(
                f"http://127.0.0.1:{port}/v1/chat/completions", json=ASKED, headers={"authorization": "Bearer own-key"}
            )
        assert await customer.status(job) == "FAILING"
        customer.clock.seconds += 5
        assert await customer.status(job) == "FAILED"


async def test_a_cancellation_goes_through_cancelling_and_happens_once() -> None:
    async with render(timings=Timings(cancel_seconds=10)) as customer:
        job = await customer.order()
        for _ in range(2):
            answer = await customer.send("PUT", f"/v1/jobs/{job['uuid']}/cancel", body={"reason": "enough"})
            assert answer.json()["status"] == "CANCELLING"
        customer.clock.seconds += 10
        assert await customer.status(job) == "CANCELLED"
        again = await customer.send("PUT", f"/v1/jobs/{job['uuid']}/cancel")
        assert (again.status_code, again.json()["error"]["code"]) == (409, "CONFLICT")


async def test_a_container_that_ends_has_logs_in_its_run_and_not_in_the_list() -> None:
    docker = {"image": "hello-world", "tag": "latest", "env": {}}
    async with render() as customer:
        job = await customer.order(parameters={"type": "docker", "parameters": docker})
        assert await customer.status(job) == "COMPLETED"
        (run,) = (await customer.get("/v1/job-runs", f"filter%5Bjob_uuid%5D={job['uuid']}"))["data"]
        assert "logs" not in run
        assert (await customer.get(f"/v1/job-runs/{run['uuid']}"))["logs"] == "Hello from Docker!\n"


async def test_lists_come_in_pages_the_newest_first_where_asked() -> None:
    async with render(timings=Timings(assign_seconds=100)) as customer:
        made = [(await customer.order(title=f"job-{n}"))["title"] for n in range(5)]
        page = await customer.get("/v1/jobs", "limit=2&page=2&sort=-created_at")
        assert [job["title"] for job in page["data"]] == [made[2], made[1]]
        assert (page["page"], page["limit"], page["total"]) == (2, 2, 5)
        waiting = await customer.get("/v1/jobs", "filter%5Bstatus%5D=RUNNING%2CPENDING&limit=50")
        assert waiting["total"] == 5
        for query in ("limit=51", "limit=0", "page=0", "limit=x", "sort=title"):
            assert (await customer.send("GET", "/v1/jobs", query)).status_code == 400, query


async def test_offers_are_those_that_fit() -> None:
    async with render() as customer:
        offers = (await customer.get("/v1/compute/offers", "filter%5Bgpu_count%5D=1&filter%5Bmin_vram_gb%5D=32"))[
            "data"
        ]
        assert [offer["pricing"]["hourly_rate_usd"] for offer in offers] == [0.69]
        nowhere = await customer.get("/v1/compute/offers", "filter%5Ballowed_region_codes%5D=mars-1%2Cmars-2")
        assert nowhere["total"] == 0


async def test_a_job_that_no_node_can_take_is_never_assigned() -> None:
    async with render() as customer:
        job = await customer.order(min_vram_gb=1000)
        assert job["status"] == "PENDING"
        customer.clock.seconds += 300
        ended = await customer.get(f"/v1/jobs/{job['uuid']}")
        assert (ended["status"], ended["status_reason"]) == ("FAILED", "Assignment timed out")


@pytest.mark.parametrize(
    ("changes", "status", "message"),
    [
        ({"max_timeout_run_ms": None}, 400, "max_timeout_run_ms is required for BATCH jobs"),
        ({"task": "PERSISTENT"}, 400, "max_timeout_run_ms must be null for PERSISTENT jobs"),
        ({"max_timeout_run_ms": 59_999}, 400, None),
        ({"max_timeout_assign_ms": 1}, 400, None),
        ({"max_timeout_start_ms": 1}, 400, None),
        ({"gpu_registry_uuid": "x"}, 422, "gpu_name and gpu_registry_uuid are mutually exclusive"),
        ({"parameters": {"type": "docker", "parameters": {**DOCKER, "command": ["x"]}}}, 400, None),
    ],
)
async def test_an_order_that_breaks_a_rule_is_refused(
    changes: dict[str, Any], status: int, message: str | None
) -> None:
    async with render() as customer:
        answer = await customer.send("POST", "/v1/jobs", body={**ORDER, **changes})
        assert answer.status_code == status, answer.text
        assert message in (None, answer.json()["error"]["message"])
        assert customer.emulator.books()["jobs"] == []


async def test_money_rights_and_rates_are_checked() -> None:
    keys = (
        ApiKey(credit_usd=Decimal(0)),
        ApiKey("pk_node", "sk_node", may_create=False),
    )
    async with render(keys=keys, requests_per_minute=3) as customer:
        assert (await customer.send("POST", "/v1/jobs", body=ORDER)).status_code == 402
        customer.public, customer.secret = "pk_node", "sk_node"
        assert (await customer.send("POST", "/v1/jobs", body=ORDER)).status_code == 403
        for status in (200, 200, 429):
            assert (await customer.send("GET", "/v1/jobs")).status_code == status


async def test_jobs_are_their_owner_s_and_outlive_the_emulator(tmp_path: Path) -> None:
    clock = Clock()
    keys = (ApiKey(), ApiKey("pk_other", "sk_other"))
    async with render(clock, state_directory=tmp_path) as customer:
        job = await customer.order()
    async with render(clock, state_directory=tmp_path, keys=keys) as customer:
        assert (await customer.get("/v1/jobs"))["data"][0]["uuid"] == job["uuid"]
        customer.public, customer.secret = "pk_other", "sk_other"
        assert (await customer.get("/v1/jobs"))["total"] == 0
        assert (await customer.send("GET", f"/v1/jobs/{job['uuid']}")).status_code == 404


VALUES: list[Any] = [None, True, -1, 0, 1.5, 10**30, "", "x", "\u2028\x00", [], [None], {}, {"a": {"b": []}}, [[[]]]]


async def test_whatever_comes_in_is_refused_in_its_own_words(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR)
    async with render() as customer:
        bodies: list[Any] = [*VALUES]
        bodies += [{**ORDER, name: value} for name in ORDER for value in VALUES]
        bodies += [
            {**ORDER, "parameters": {"type": "docker", "parameters": {**DOCKER, name: value}}}
            for name in (*DOCKER, "volumes", "secret")
            for value in VALUES
        ]
        for body in bodies:
            answer = await customer.send("POST", "/v1/jobs", body=body)
            assert answer.status_code in (201, 400, 401, 422), (body, answer.text)
        assert (await customer.get("/v1/job-runs", "limit=50"))["total"] >= 1
    assert not caplog.records
