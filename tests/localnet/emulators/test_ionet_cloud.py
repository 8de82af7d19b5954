"""IO Cloud containers (ionet.md §4): rent one, wait for its address, ask the model in it, give it back."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import nosana_template as template
import orjson
import pytest
from nosana_user import Clock, loopback

from oracle.localnet.emulators.ionet import ApiKey, IonetCloud
from oracle.localnet.emulators.openai import ScriptedOpenAI, scripted_words
from oracle.localnet.emulators.server import serve

pytestmark = pytest.mark.localnet

Model = tuple[ScriptedOpenAI, str]
KEY = {"x-api-key": "io-cloud-localnet"}
CAAS = "/enterprise/v1/io-cloud/caas"
VLLM = ["vllm", "serve", template.REPOSITORY, "--port", "8080", "--api-key", "container-key"]
CONTAINER_KEY = {"authorization": "Bearer container-key"}


class Tenant:
    def __init__(self, emulator: IonetCloud, http: httpx.AsyncClient) -> None:
        self.emulator, self.http, self.headers = emulator, http, dict(KEY)

    async def get(self, path: str, **query: Any) -> Any:
        answer = await self.http.get(f"{CAAS}{path}", params=query, headers=self.headers)
        assert answer.status_code == 200, answer.text
        return answer.json()["data"]

    async def send(self, method: str, path: str, **body: Any) -> httpx.Response:
        return await self.http.request(method, f"{CAAS}{path}", json=body or None, headers=self.headers)

    async def deploy(
        self, name: str = "oracle-job-1", *, config: dict[str, Any] | None = None, **more: Any
    ) -> httpx.Response:
        body = {
            "resource_private_name": name,
            "duration_hours": 1,
            "gpus_per_container": 1,
            "hardware_id": 12,
            "location_ids": [1],
            "container_config": {"replica_count": 1, "entrypoint": VLLM, "traffic_port": 8080, **(config or {})},
            "registry_config": {"image_url": "vllm/vllm-openai:v0.9.2", "registry_secret": "registry-password"},
            **more,
        }
        return await self.send("POST", "/deploy", **body)

    async def rent(self, name: str = "oracle-job-1", **more: Any) -> str:
        answer = await self.deploy(name, **more)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["deployment_id"])

    async def worker(self, rental: str) -> dict[str, Any]:
        (worker,) = (await self.get(f"/deployment/{rental}/containers"))["workers"]
        return dict(worker)

    async def status(self, rental: str) -> str:
        return str((await self.get(f"/deployment/{rental}"))["status"])


@asynccontextmanager
async def served(url: str, **options: Any) -> AsyncIterator[Tenant]:
    emulator = IonetCloud(url, **options)
    async with serve(emulator) as running, loopback(running) as http:
        yield Tenant(emulator, http)


@pytest.fixture
async def cloud(model: Model) -> AsyncIterator[Tenant]:
    async with served(model[1]) as tenant:
        yield tenant


async def test_a_rented_container_really_serves_the_model_under_its_own_key_and_name(cloud: Tenant) -> None:
    worker = await cloud.worker(await cloud.rent())
    url = worker["public_url"]
    assert worker["status"] == "running"
    assert (await cloud.http.get(f"{url}/health")).status_code == 200
    answer = await cloud.http.post(f"{url}/v1/chat/completions", json=template.chat(), headers=CONTAINER_KEY)
    assert answer.json()["model"] == template.REPOSITORY
    text = "".join(scripted_words(template.chat()["messages"]))
    assert answer.json()["choices"][0]["message"]["content"] == text
    body = {**template.chat(), "stream": True}
    stream = await cloud.http.post(f"{url}/v1/chat/completions", json=body, headers=CONTAINER_KEY)
    *events, done, _ = stream.text.split("\n\n")
    assert done == "data: [DONE]"
    parsed = [orjson.loads(event.removeprefix("data: ")) for event in events]
    assert {event["model"] for event in parsed} == {template.REPOSITORY}
    assert "".join(event["choices"][0]["delta"].get("content", "") for event in parsed) == text


async def test_a_container_checks_its_own_key_and_model(cloud: Tenant) -> None:
    url = (await cloud.worker(await cloud.rent()))["public_url"]
    answer = await cloud.http.post(f"{url}/v1/chat/completions", json=template.chat(), headers=KEY)
    assert (answer.status_code, answer.json()) == (401, {"error": "Unauthorized"})
    body = {**template.chat(), "model": "another"}
    answer = await cloud.http.post(f"{url}/v1/chat/completions", json=body, headers=CONTAINER_KEY)
    assert (answer.status_code, answer.json()["error"]["type"]) == (404, "NotFoundError")


async def test_llama_cpp_takes_its_key_from_a_secret(cloud: Tenant) -> None:
    config = {
        "entrypoint": ["/app/llama-server", "-hf", template.REPOSITORY],
        "args": ["--port", "8080"],
        "secret_env_variables": {"LLAMA_API_KEY": "container-key"},
    }
    image = {"image_url": "ghcr.io/ggml-org/llama.cpp:server-cuda"}
    url = (await cloud.worker(await cloud.rent(config=config, registry_config=image)))["public_url"]
    bad = await cloud.http.post(f"{url}/v1/chat/completions", json=template.chat())
    assert (bad.status_code, bad.json()["error"]["type"]) == (401, "authentication_error")
    good = await cloud.http.post(f"{url}/v1/chat/completions", json=template.chat(), headers=CONTAINER_KEY)
    assert good.status_code == 200


async def test_4_4_a_rental_goes_through_the_documented_statuses(model: Model) -> None:
    clock = Clock()
    times = {"provision_seconds": 60, "ready_seconds": 300, "destroy_seconds": 30}
    async with served(model[1], now=clock, **times) as cloud:
        rental = await cloud.rent()
        assert await cloud.status(rental) == "deployment requested"
        clock.seconds += 60
        assert await cloud.status(rental) == "running"
        worker = await cloud.worker(rental)
        assert (worker["public_url"], worker["status"]) == (None, "pending")
        clock.seconds += 300
        url = (await cloud.worker(rental))["public_url"]
        assert (await cloud.http.get(f"{url}/health")).status_code == 200
        shown = await cloud.get(f"/deployment/{rental}")
        assert (shown["compute_minutes_served"], shown["compute_minutes_remaining"], shown["completed_percent"]) == (
            5,
            55,
            8,
        )
        assert shown["created_at"] == "2026-07-25T17:20:00"
        clock.seconds += 3300
        assert await cloud.status(rental) == "completed"
        assert (await cloud.http.get(f"{url}/health")).status_code == 502
        other = await cloud.rent("other")
        assert (await cloud.send("DELETE", f"/deployment/{other}")).json()["status"] == "TERMINATION REQUESTED"
        assert await cloud.status(other) == "termination requested"
        clock.seconds += 30
        assert (await cloud.send("DELETE", f"/deployment/{other}")).status_code == 200
        assert await cloud.status(other) == "destroyed"


async def test_4_4_the_deployment_object_has_the_documented_fields_and_no_secrets(cloud: Tenant) -> None:
    rental = await cloud.rent(config={"secret_env_variables": {"TOKEN": "container-secret"}})
    shown = await cloud.get(f"/deployment/{rental}")
    documented = {
        "status": "running",
        "finished_at": None,
        "total_gpus": 1,
        "gpus_per_container": 1,
        "total_containers": 1,
        "hardware_name": "GeForce RTX 4090",
        "hardware_id": 12,
        "locations": [{"id": 1, "iso2": "US", "name": "United States"}],
        "brand_name": "NVIDIA",
    }
    assert {name: shown[name] for name in documented} == documented
    assert shown["container_config"]["secret_env_keys"] == ["TOKEN"]
    everything = str(shown) + (await cloud.http.get("/_emulator/books")).text
    assert "container-secret" not in everything
    assert "registry-password" not in everything


async def test_4_3_a_name_is_taken_once_and_finds_a_rental_whose_answer_was_lost(cloud: Tenant) -> None:
    cloud.emulator.faults.add("lose_answer", on="POST /deploy")
    free = f"{CAAS}/clusters/check_cluster_name_availability?cluster_name=oracle-job-1"
    assert (await cloud.http.get(free, headers=KEY)).json() is True
    with pytest.raises(httpx.RemoteProtocolError):
        await cloud.deploy()
    assert (await cloud.http.get(free, headers=KEY)).json() is False
    again = await cloud.deploy()
    assert (again.status_code, again.json()) == (409, {"detail": "Cluster name already exists"})
    listed = await cloud.get("/deployments")
    assert [(row["name"], row["status"]) for row in listed["deployments"]] == [("oracle-job-1", "running")]
    assert "deployment requested" in listed["statuses"]


async def test_4_2_lists_are_paged_from_zero(cloud: Tenant) -> None:
    for n in range(11):
        await cloud.rent(f"job-{n}", hardware_id=3)
    assert len((await cloud.get("/deployments"))["deployments"]) == 10
    second = await cloud.get("/deployments", page=1)
    assert ([row["name"] for row in second["deployments"]], second["total"]) == (["job-0"], 11)
    assert (await cloud.get("/deployments", status="destroyed"))["deployments"] == []


async def test_4_2_hardware_price_and_places_are_in_the_documented_shapes(cloud: Tenant) -> None:
    (first, *_) = (await cloud.get("/hardware/max-gpus-per-container"))["hardware"]
    assert first == {
        "max_gpus_per_container": 8,
        "available": 8,
        "hardware_id": 12,
        "hardware_name": "GeForce RTX 4090",
        "brand_name": "NVIDIA",
    }
    assert await cloud.get("/available-replicas", hardware_id="gpu_1x_l40", hardware_qty=1) == [
        {"id": "US", "iso2": "US", "name": "United States", "available_replicas": 8}
    ]
    query = {
        "location_ids": "[1,2]",
        "hardware_id": 12,
        "duration_hours": 2,
        "gpus_per_container": 1,
        "replica_count": 1,
    }
    price = await cloud.get("/price", **query)
    assert list(price) == [
        "replica_count",
        "gpus_per_container",
        "available_replica_count",
        "discount",
        "ionet_fee",
        "ionet_fee_percent",
        "currency_conversion_fee",
        "currency_conversion_fee_percent",
        "total_cost_usdc",
    ]
    assert price["total_cost_usdc"] == 0.6135
    bad = await cloud.http.get(f"{CAAS}/price", params={**query, "location_ids": "US"}, headers=KEY)
    assert bad.status_code == 400


async def test_4_1_the_public_catalogue_needs_no_key_and_the_rest_does(cloud: Tenant) -> None:
    assert (await cloud.http.get("/v1/io-cloud/caas/locations")).json()["data"]["total"] == 2
    assert (await cloud.http.get("/v1/io-cloud/caas/hardware")).json()["data"]["hardware"][2]["price"] == 0.6615
    for headers in ({}, {"x-api-key": "other"}, {"authorization": "Bearer io-cloud-localnet"}):
        for path in ("/hardware", "/deployments", "/deployment/x", "/price"):
            answer = await cloud.http.get(f"{CAAS}{path}", headers=headers)
            assert (answer.status_code, answer.json()) == (401, {"detail": "Invalid API Key"})


async def test_4_5_the_whole_time_is_paid_and_nothing_comes_back(model: Model) -> None:
    key = ApiKey(value="io-cloud-localnet", credit_usd=Decimal("0.7"))
    async with served(model[1], keys=[key]) as cloud:
        rental = await cloud.rent()
        extended = await cloud.send("POST", f"/deployment/{rental}/extend", duration_hours=1)
        assert extended.json()["data"]["amount_paid"] == 0.6135
        await cloud.send("DELETE", f"/deployment/{rental}")
        assert (await cloud.send("POST", f"/deployment/{rental}/extend", duration_hours=1)).status_code == 400
        refused = await cloud.deploy("other")
        books = (await cloud.http.get("/_emulator/books")).json()
    assert (refused.status_code, refused.json()) == (402, {"detail": "Insufficient IO credits"})
    assert books["keys"] == [{"key_id": "key-1", "credit_usd": "0.7", "spent_usd": "0.61350"}]
    assert [(one["name"], one["status"]) for one in books["rentals"]] == [("oracle-job-1", "destroyed")]


async def test_4_7_a_patch_wrapped_in_container_config_is_refused_as_seen(cloud: Tenant) -> None:
    rental = await cloud.rent()
    answer = await cloud.http.patch(f"{CAAS}/deployment/{rental}", json={"container_config": {}}, headers=KEY)
    assert answer.status_code == 422
    assert answer.content == (
        b'{"detail":[{"type":"extra_forbidden","loc":["body","container_config"],"msg":"Extra inputs are not '
        b'permitted","input":{}}]}'
    )
    other = ["vllm", "serve", "no/such-model", "--port", "8080"]
    assert (await cloud.send("PATCH", f"/deployment/{rental}", entrypoint=other)).status_code == 200
    assert (await cloud.worker(rental))["public_url"] is None


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"hardware_id": 999}, 404),
        ({"location_ids": ["nowhere"]}, 400),
        ({"duration_hours": 0}, 422),
        ({"location_ids": []}, 422),
        ({"config": {"traffic_port": 0}}, 422),
        ({"config": {"surprise": 1}}, 422),
        ({"registry_config": {}}, 422),
    ],
)
async def test_a_bad_deployment_is_refused_and_not_paid(cloud: Tenant, change: dict[str, Any], status: int) -> None:
    assert (await cloud.deploy(**change)).status_code == status
    assert (await cloud.http.get("/_emulator/books")).json()["rentals"] == []


async def test_what_is_no_model_server_never_comes_up(cloud: Tenant) -> None:
    for n, config in enumerate(({"entrypoint": ["python", "-m", "server"]}, {"entrypoint": VLLM, "traffic_port": 9})):
        rental = await cloud.rent(f"job-{n}", config=config)
        assert await cloud.status(rental) == "running"
        assert (await cloud.worker(rental))["public_url"] is None


async def test_4_3_args_may_be_dropped_silently(model: Model) -> None:
    config = {"entrypoint": VLLM[:3], "args": VLLM[3:]}
    async with served(model[1]) as cloud:
        assert (await cloud.worker(await cloud.rent(config=config)))["public_url"]
    async with served(model[1], drops_args=True) as cloud:
        assert (await cloud.worker(await cloud.rent(config=config)))["public_url"] is None


async def test_a_container_is_read_by_itself_and_has_a_log_of_plain_text(cloud: Tenant) -> None:
    rental = await cloud.rent()
    worker = await cloud.worker(rental)
    one = await cloud.http.get(f"{CAAS}/deployment/{rental}/container/{worker['container_id']}", headers=KEY)
    assert one.json() == worker
    log = await cloud.http.get(f"{CAAS}/deployment/{rental}/log/{worker['container_id']}", headers=KEY)
    assert log.headers["content-type"].startswith("text/plain")
    assert log.text.splitlines()[0] == "Pulling image vllm/vllm-openai:v0.9.2"
    missing = await cloud.http.get(f"{CAAS}/deployment/{rental}/log/other", headers=KEY)
    assert (missing.status_code, missing.json()) == (404, {"detail": "Container not found"})


@pytest.mark.parametrize(
    ("kind", "status", "has_url", "probe"),
    [
        ("provision_fails", "failed", False, None),
        ("never_ready", "running", False, None),
        ("container_dies", "running", True, 502),
        ("upper_case", "RUNNING", True, 200),
    ],
)
async def test_a_rental_goes_wrong_on_demand(
    cloud: Tenant, kind: str, status: str, has_url: bool, probe: int | None
) -> None:
    cloud.emulator.faults.add(kind, on="oracle-*")
    rental = await cloud.rent()
    assert await cloud.status(rental) == status
    url = (await cloud.worker(rental))["public_url"]
    assert (url is not None) == has_url
    if probe is not None:
        assert (await cloud.http.get(f"{url}/health")).status_code == probe


@pytest.mark.parametrize(("kind", "name"), [("id_as_id", "id"), ("id_as_cluster_id", "cluster_id")])
async def test_4_2_the_id_comes_under_other_names_too(cloud: Tenant, kind: str, name: str) -> None:
    cloud.emulator.faults.add(kind)
    answer = (await cloud.deploy()).json()
    assert sorted(answer) == sorted(["status", name])
    assert await cloud.status(answer[name]) == "running"


async def test_a_rental_is_its_tenants_alone(model: Model) -> None:
    keys = [ApiKey(value="io-cloud-localnet"), ApiKey(value="io-stranger", key_id="key-2")]
    async with served(model[1], keys=keys) as cloud:
        rental = await cloud.rent()
        cloud.headers = {"x-api-key": "io-stranger"}
        for method in ("GET", "DELETE"):
            answer = await cloud.send(method, f"/deployment/{rental}")
            assert (answer.status_code, answer.json()) == (404, {"detail": "Deployment not found"})
        assert (await cloud.get("/deployments"))["total"] == 0


async def test_rentals_survive_a_restart(model: Model, tmp_path: Path) -> None:
    async with served(model[1], state_directory=tmp_path) as cloud:
        rental = await cloud.rent()
        before = (await cloud.http.get("/_emulator/books")).json()
    async with served(model[1], state_directory=tmp_path) as cloud:
        assert (await cloud.http.get("/_emulator/books")).json() == before
        assert (await cloud.worker(rental))["public_url"]
