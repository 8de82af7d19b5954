"""IO Cloud's container API: the bodies of its specification, and what a landlord makes of its answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from typing import Any

import httpx
import orjson
import pytest
from provider_wire import Wire, answer, http

from oracle.core.errors import ErrorCode, OracleError, Verdict
from oracle.providers import errors
from oracle.providers.ionet import cloud_wire as wire
from oracle.providers.ionet.cloud import QUOTE_SECONDS, IoCloud
from oracle.providers.ionet.cloud_container import IMAGES, Blueprint, key_of
from oracle.providers.ionet.cloud_wire import Choice, Container, Wanted, read_exact
from oracle.providers.registry import build, parse
from oracle.providers.rented.landlord import Rental, RentalPrice, RentalState

NOW = 1_791_458_641.0  # 2026-10-08T11:24:01Z
WANTED = Wanted((12,), (1,), gpus=1, hours=1, max_usd_per_hour=Decimal("0.5"))
NAME = "oracle-job-7f3c"
CONTAINER = Container(
    "ghcr.io/org/img:tag", ("python", "-m", "server"), 8080, {"PORT": "8080"}, {"TOKEN": "container-secret"}
)

# ionet.md §4.3, with a token in the place of the dots.
DEPLOY: dict[str, Any] = {
    "resource_private_name": NAME,
    "duration_hours": 1,
    "gpus_per_container": 1,
    "hardware_id": 12,
    "location_ids": [1],
    "container_config": {
        "replica_count": 1,
        "env_variables": {"PORT": "8080"},
        "secret_env_variables": {"TOKEN": "container-secret"},
        "entrypoint": ["python", "-m", "server"],
        "args": [],
        "traffic_port": 8080,
    },
    "registry_config": {"image_url": "ghcr.io/org/img:tag", "registry_username": "", "registry_secret": ""},
}

# ionet.md §4.4, with the id in full.
DEPLOYMENT = b"""{"data":{"id":"d2b1","status":"running","created_at":"2026-10-08T11:22:33",
 "started_at":"2026-10-08T11:26:01","finished_at":null,
 "amount_paid":0.31,"completed_percent":4,"total_gpus":1,"gpus_per_container":1,"total_containers":1,
 "hardware_name":"GeForce RTX 4090","hardware_id":12,"locations":[{"id":1,"iso2":"US","name":"United States"}],
 "brand_name":"NVIDIA","compute_minutes_served":3,"compute_minutes_remaining":57,
 "container_config":{"entrypoint":["python"],"env_variables":{},"traffic_port":8080,
   "image_url":"ghcr.io/org/img:tag","secret_env_keys":["TOKEN"]}}}"""

# ionet.md §4.2, the shapes; the values are made up.
ROW = {
    "id": "d2b1",
    "status": "running",
    "name": NAME,
    "completed_percent": 4,
    "hardware_quantity": 1,
    "brand_name": "NVIDIA",
    "hardware_name": "GeForce RTX 4090",
    "compute_minutes_served": 3,
    "compute_minutes_remaining": 57,
}
PRICE = {
    "replica_count": 1,
    "gpus_per_container": 1,
    "available_replica_count": [3],
    "discount": 0,
    "ionet_fee": 0.00075,
    "ionet_fee_percent": 0.25,
    "currency_conversion_fee": 0.006,
    "currency_conversion_fee_percent": 2.0,
    "total_cost_usdc": 0.30675,
}
PLACES = [{"id": 1, "iso2": "US", "name": "United States", "available_replicas": 3}]
RENTAL = Rental("d2b1", NAME, RentalState.STARTING, NOW)


def page(*rows: Any, total: int | None = None) -> dict[str, Any]:
    return {"data": {"deployments": list(rows), "total": len(rows) if total is None else total, "statuses": []}}


def workers(**changes: Any) -> dict[str, Any]:
    worker = {
        "device_id": "d",
        "container_id": "c",
        "hardware": "RTX 4090",
        "brand_name": "NVIDIA",
        "created_at": "2026-10-08T11:22:33",
        "uptime_percent": 100,
        "gpus_per_container": 1,
        "status": "running",
        "container_events": [{"time": "2026-10-08T11:23:00", "message": "Started"}],
        "public_url": "c-d2b1.example.io.net",
    }
    return {"data": {"total": 1, "workers": [worker | changes]}}


class Cloud:
    """Answers each path with what stands under it, and keeps the requests."""

    def __init__(self, **replies: Any) -> None:
        self.replies: dict[str, Any] = {
            "available-replicas": {"data": PLACES},
            "price": {"data": PRICE},
            "check_cluster_name_availability": True,
            "deploy": {"status": "DEPLOYMENT REQUESTED", "deployment_id": "d2b1"},
            "deployments": page(ROW),
            "d2b1": DEPLOYMENT,
            "containers": workers(),
        } | {name.replace("_", "-"): reply for name, reply in replies.items()}
        self.wire = Wire(self._answer)
        self.time = 0.0
        self.landlord = IoCloud(
            http(self.wire, "https://api.io.solutions/enterprise/v1/io-cloud/caas"),
            WANTED,
            lambda name: CONTAINER,
            clock=lambda: self.time,
            now=lambda: NOW,
        )

    def asked(self, what: str) -> int:
        return sum(request.url.path.endswith(f"/{what}") for request in self.wire.requests)

    def _answer(self, request: httpx.Request) -> httpx.Response:
        reply = self.replies[request.url.path.rpartition("/")[2]]
        if isinstance(reply, Exception):
            raise reply
        if callable(reply):
            return reply(request)
        return answer(reply)(request)


# --- the wire ---


def test_a_deployment_is_asked_for_as_specified() -> None:
    choice = Choice(12, (1,), Decimal("0.30675"))
    assert orjson.dumps(wire.deploy_body(NAME, WANTED, choice, CONTAINER)) == orjson.dumps(DEPLOY)


def test_a_price_is_asked_for_with_locations_as_json_in_a_string() -> None:
    assert wire.price_query(WANTED, "gpu_1x_l40", ("US", 2)) == {
        "location_ids": '["US",2]',
        "hardware_id": "gpu_1x_l40",
        "duration_hours": 1,
        "gpus_per_container": 1,
        "replica_count": 1,
    }


def test_a_deployment_says_what_it_costs_and_when_it_ends() -> None:
    seen = wire.read_rental(read_exact(DEPLOYMENT), RENTAL, NOW)
    assert seen == Rental(
        "d2b1",
        NAME,
        RentalState.RUNNING,
        created_at=NOW - 88,  # a time without a zone is UTC
        ends_at=NOW + 57 * 60,
        price=RentalPrice(Decimal("0.31"), least_seconds=3600.0, most_seconds=3600.0),
        why="running",
    )


@pytest.mark.parametrize(
    ("status", "state"),
    [
        ("deployment requested", RentalState.STARTING),
        ("DEPLOYMENT_REQUESTED", RentalState.STARTING),
        (" Running ", RentalState.RUNNING),
        ("completed", RentalState.ENDED),
        ("FAILED", RentalState.ENDED),
        ("termination requested", RentalState.ENDED),
        ("destroyed", RentalState.ENDED),
        # What nobody has heard of is not the end: it is waited for, and destroyed.
        ("paused", RentalState.RUNNING),
        (None, RentalState.RUNNING),
    ],
)
def test_a_status_is_read_in_any_case(status: Any, state: RentalState) -> None:
    assert wire.state_of(status) is state


@pytest.mark.parametrize(
    ("changes", "address"),
    [
        ({}, "https://c-d2b1.example.io.net/v1"),
        ({"public_url": "https://c.io.net/"}, "https://c.io.net/v1"),
        # No prompt goes over the internet in the clear.
        ({"public_url": "http://c.io.net"}, "https://c.io.net/v1"),
        ({"public_url": "http://127.0.0.1:99/x"}, "http://127.0.0.1:99/x/v1"),
        ({"public_url": None}, None),
        ({"public_url": ""}, None),
        ({"status": "pending"}, None),
        ({"status": "READY"}, "https://c-d2b1.example.io.net/v1"),
        ({"status": None}, None),
        ({"container_events": None}, "https://c-d2b1.example.io.net/v1"),
    ],
)
def test_a_container_has_an_address_once_it_runs(changes: dict[str, Any], address: str | None) -> None:
    read = wire.read_workers(workers(**changes))
    assert read is not None
    assert read[0] == address


@pytest.mark.parametrize("key", ["deployment_id", "cluster_id", "id"])
def test_an_id_is_found_under_each_of_its_names(key: str) -> None:
    assert wire.read_deployment_id({"status": "whatever", key: "x"}) == "x"
    assert wire.read_deployment_id({"data": {key: 7}}) == "7"


@pytest.mark.parametrize("body", [None, [], "x", {}, {"data": None}, {"data": []}, {"id": ""}, {"id": True}])
def test_what_is_not_as_documented_is_nothing(body: Any) -> None:
    assert wire.read_deployment_id(body) is None
    assert wire.read_rentals(body, NOW) is None
    assert wire.read_rental(body, RENTAL, NOW) is None
    assert wire.read_workers(body) is None
    assert wire.read_total_usd(body) is None


@pytest.mark.parametrize("total", [0, -1, True, None, "0.3", "NaN"])
def test_a_price_of_nothing_is_no_price(total: Any) -> None:
    assert wire.read_total_usd({"data": {"total_cost_usdc": total}}) is None


@pytest.mark.parametrize("row", [{}, {"id": "x"}, {"name": "x"}, None, []])
def test_a_list_with_a_row_that_does_not_say_what_it_is_is_no_list(row: Any) -> None:
    assert wire.read_rentals(page(ROW, row), NOW) is None


def test_a_deployment_without_a_name_is_none_of_ours() -> None:
    read = wire.read_rentals(page(ROW | {"name": None}), NOW)
    assert read is not None
    assert [rental.name for rental in read[0]] == [""]


# --- the landlord ---


async def test_a_container_is_deployed_at_a_price_that_was_asked_for_just_now() -> None:
    cloud = Cloud()
    price = await cloud.landlord.price()
    assert price == RentalPrice(Decimal("0.30675"), least_seconds=3600.0, most_seconds=3600.0)
    assert price.cost_usd(60) == price.cost_usd(7200) == Decimal("0.30675")
    assert await cloud.landlord.create(NAME) == "d2b1"
    assert cloud.wire.body() == DEPLOY
    assert cloud.asked("price") == 1
    cloud.time += QUOTE_SECONDS + 1
    await cloud.landlord.create(NAME)
    assert cloud.asked("price") == 2


async def refusal(call: Any) -> OracleError:
    with pytest.raises(OracleError) as caught:
        await call
    return caught.value


async def test_nothing_is_deployed_above_the_cap() -> None:
    cloud = Cloud(price={"data": PRICE | {"total_cost_usdc": 0.500001}})
    error = await refusal(cloud.landlord.create(NAME))
    assert (error.error, error.detail) == (errors.NO_MARKET, "the cheapest is 0.500001 USD an hour, 0.5 allowed")
    assert cloud.asked("deploy") == 0
    assert (await Cloud(price={"data": PRICE | {"total_cost_usdc": 0.5}}).landlord.create(NAME)) == "d2b1"


async def test_the_cheapest_hardware_that_is_free_is_chosen() -> None:
    prices = {"3": 0.4, "12": 0.2, "gpu_1x_l40": 0.3}
    free = {"3": PLACES, "12": [], "gpu_1x_l40": [{"id": "US", "available_replicas": 1}, {"id": "FR"}]}

    def of(table: dict[str, Any], shape: Callable[[Any], Any]) -> Callable[[httpx.Request], httpx.Response]:
        return lambda request: answer(shape(table[request.url.params["hardware_id"]]))(request)

    cloud = Cloud(
        price=of(prices, lambda usd: {"data": {"total_cost_usdc": usd}}),
        available_replicas=of(free, lambda places: {"data": places}),
    )
    cloud.landlord._wanted = replace(WANTED, hardware=(3, 12, "gpu_1x_l40"), locations=())
    await cloud.landlord.create(NAME)
    assert (cloud.wire.body()["hardware_id"], cloud.wire.body()["location_ids"]) == ("gpu_1x_l40", ["US"])


async def test_without_free_hardware_nothing_is_deployed() -> None:
    for change in (
        {"available_replicas": {"data": []}},
        {"available_replicas": {"data": [{"id": 2, "available_replicas": 5}]}},  # elsewhere
        {"available_replicas": answer({"detail": "Hardware not found"}, 404)},
        {"price": answer({"detail": "No hardware available in these locations"}, 400)},
    ):
        assert (await refusal(Cloud(**change).landlord.price())).error is errors.NO_MARKET


LOST = httpx.ReadError("cut")


@pytest.mark.parametrize(
    ("reply", "listed", "expected"),
    [
        # It may have been deployed: whoever called looks it up.
        (LOST, page(), errors.NO_ANSWER),
        (answer(b"<html>", 503), page(), errors.NO_ANSWER),
        (answer({"detail": "Internal Server Error"}, 500), page(), errors.NO_ANSWER),
        (b"<html>", page(), errors.NO_ANSWER),
        ({"status": "DEPLOYMENT REQUESTED"}, page(), errors.NO_ANSWER),
        # It was not.
        (httpx.ConnectError("no"), page(), errors.UNREACHABLE),
        (answer({"detail": "Invalid API Key"}, 401), page(), errors.CREDENTIALS_REFUSED),
        (answer({"detail": "Too many requests"}, 429), page(), errors.RATE_LIMITED),
        (answer({"detail": "Insufficient IO credits"}, 402), page(), errors.OUT_OF_CREDIT),
        (answer({"detail": "Forbidden"}, 403), page(), errors.NOT_PERMITTED),
        (answer({"detail": "bad"}, 422), page(), errors.REQUEST_REFUSED),
        # Refused, and there all the same: whether a name that exists is 400, 409 or 422 is not known.
        (answer({"detail": "Cluster name already exists"}, 409), page(ROW), None),
        (
            answer({"detail": "Cluster name already exists"}, 409),
            page(ROW | {"status": "failed"}),
            errors.REQUEST_REFUSED,
        ),
        # Refused, and whether it is there cannot be told.
        (answer({"detail": "x"}, 400), answer({"detail": "x"}, 500), errors.NO_ANSWER),
        (answer({"detail": "x"}, 400), page(ROW, total=2), errors.NO_ANSWER),
    ],
)
async def test_whatever_is_answered_to_a_deployment_the_list_has_the_last_word(
    reply: Any, listed: Any, expected: ErrorCode | None
) -> None:
    cloud = Cloud(deploy=reply, deployments=listed)
    if expected is None:
        assert await cloud.landlord.create(NAME) == "d2b1"
        return
    error = await refusal(cloud.landlord.create(NAME))
    assert error.error is expected
    assert (error.verdict is Verdict.UNKNOWN) == (expected is errors.NO_ANSWER)
    assert "container-secret" not in str(error)


async def test_a_name_that_was_given_away_is_not_deployed_again() -> None:
    there = Cloud()
    there.replies["check_cluster_name_availability"] = False
    assert await there.landlord.create(NAME) == "d2b1"
    gone = Cloud(deployments=page(ROW | {"status": "destroyed"}))
    gone.replies["check_cluster_name_availability"] = False
    error = await refusal(gone.landlord.create(NAME))
    assert (error.error, error.verdict) == (errors.NAME_TAKEN, Verdict.UNKNOWN)
    assert there.asked("deploy") == gone.asked("deploy") == 0


async def test_every_page_of_the_deployments_is_read() -> None:
    rows = [ROW | {"id": str(at), "name": f"oracle-{at}"} for at in range(250)]

    def pages(request: httpx.Request) -> httpx.Response:
        start = int(request.url.params["page"]) * 100
        return answer(page(*rows[start : start + 100], total=250))(request)

    cloud = Cloud(deployments=pages)
    assert len(await cloud.landlord.rentals("oracle-")) == 250
    assert [rental.name for rental in await cloud.landlord.rentals("oracle-249")] == ["oracle-249"]
    assert str(cloud.wire.requests[0].url).endswith("/caas/deployments?page=0&page_size=100")


@pytest.mark.parametrize("body", [page(ROW, total=2), page(total=1), b"<html>", {"data": {}}, page(ROW, None)])
async def test_a_list_that_does_not_add_up_proves_nothing(body: Any) -> None:
    error = await refusal(Cloud(deployments=body).landlord.rentals("oracle"))
    assert error.verdict is Verdict.RETRY


async def test_a_container_is_looked_at_with_its_address() -> None:
    seen = await Cloud().landlord.look(RENTAL)
    assert seen is not None
    assert (seen.state, seen.address, seen.why) == (
        RentalState.RUNNING,
        "https://c-d2b1.example.io.net/v1",
        "running: Started",
    )


async def test_only_the_api_itself_can_say_that_a_container_is_gone() -> None:
    assert await Cloud(d2b1=answer({"detail": "Deployment not found"}, 404)).landlord.look(RENTAL) is None
    error = await refusal(Cloud(d2b1=answer(b"<html>404</html>", 404)).landlord.look(RENTAL))
    assert error.verdict is Verdict.RETRY


async def test_a_container_is_destroyed_as_often_as_wanted() -> None:
    cloud = Cloud(d2b1={"status": "TERMINATION REQUESTED", "deployment_id": "d2b1"})
    await cloud.landlord.destroy(RENTAL)
    request = cloud.wire.requests[-1]
    assert (request.method, request.url.path) == ("DELETE", "/enterprise/v1/io-cloud/caas/deployment/d2b1")
    await Cloud(d2b1=answer({"detail": "Deployment not found"}, 404)).landlord.destroy(RENTAL)


@pytest.mark.parametrize(("status", "is_fine"), [("destroyed", True), ("running", False)])
async def test_a_destruction_that_is_refused_is_believed_only_of_what_has_ended(status: str, is_fine: bool) -> None:
    def reply(request: httpx.Request) -> httpx.Response:
        if request.method == "DELETE":
            return answer({"detail": "Cannot be deleted"}, 400)(request)
        return answer(DEPLOYMENT.replace(b'"running"', f'"{status}"'.encode()))(request)

    cloud = Cloud(d2b1=reply)
    if is_fine:
        await cloud.landlord.destroy(RENTAL)
    else:
        assert (await refusal(cloud.landlord.destroy(RENTAL))).error is errors.REQUEST_REFUSED


# --- what runs in it ---


def test_each_engine_is_started_by_its_whole_command_and_wants_its_key() -> None:
    vllm = Blueprint("vllm", IMAGES["vllm"], "org/model", ("--max-model-len", "4096"))
    assert vllm.entrypoint == (
        *("vllm", "serve", "org/model", "--host", "0.0.0.0", "--port", "8080"),
        *("--served-model-name", "org/model", "--generation-config", "vllm", "--max-model-len", "4096"),
    )
    assert vllm.container("k").secrets == {"VLLM_API_KEY": "k"}
    llama = Blueprint("llamacpp", IMAGES["llamacpp"], "org/model-GGUF:Q8_0", huggingface_token="hf")
    assert llama.entrypoint[:3] == ("/app/llama-server", "-hf", "org/model-GGUF:Q8_0")
    assert llama.entrypoint[-1] == "--no-slots"
    assert llama.container("k").secrets == {"LLAMA_API_KEY": "k", "HF_TOKEN": "hf"}
    assert "'hf'" not in repr(llama)


def test_a_container_is_found_again_by_its_name_and_its_key_by_that() -> None:
    blueprint = Blueprint("vllm", IMAGES["vllm"], "org/model")
    naming = blueprint.naming("oracle", "My GPUs", "account-key")
    first = naming.next([])
    assert first.startswith("oracle-my-gpus-")
    assert naming.next([first]) == first[:-1] + "2"
    assert blueprint.naming("oracle", "My GPUs", "account-key") == naming
    others = (
        replace(blueprint, model="org/other").naming("oracle", "My GPUs", "account-key"),
        blueprint.naming("oracle", "My GPUs", "another account"),
    )
    for other in others:
        assert naming.is_ours(other.next([]))
        assert not naming.is_current(other.next([]))
    assert key_of(first, "account-key") == key_of(first, "account-key")
    assert len({key_of(first, "account-key"), key_of("other", "account-key"), key_of(first, "b")}) == 3
    assert "account-key" not in key_of(first, "account-key")


SETTINGS = {"kind": "ionet_cloud", "api_key": "io-cloud", "repository": "org/model", "hardware": [12]}


def test_a_provider_is_built_of_its_settings() -> None:
    assert build("cloud", SETTINGS, environ={}).capabilities.prompts_public is False


@pytest.mark.parametrize(
    "change",
    [
        {"hardware": []},
        {"hardware": None},
        {"repository": ""},
        {"duration_hours": 0},
        {"name_prefix": "Not A Name"},
        {"engine": "ollama"},
        {"idle_seconds": 0},
        {"max_usd_per_hour": -1},
    ],
)
def test_settings_that_cannot_work_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(OracleError) as caught:
        parse(SETTINGS | change)
    assert caught.value.error is errors.SETTINGS_INVALID


def test_a_cloud_without_a_key_is_refused() -> None:
    with pytest.raises(OracleError) as caught:
        build("cloud", {name: value for name, value in SETTINGS.items() if name != "api_key"}, environ={})
    assert caught.value.error is errors.SETTINGS_INVALID
