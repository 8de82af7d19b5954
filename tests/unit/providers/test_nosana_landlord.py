"""Nosana's deployments: the wire of nosana.md §4.8 and §7.10, and what a deployment's state says of its server."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from typing import Any

import httpx
import pytest
from nosana_wire import MARKET, MARKETS, MODEL, NOW
from provider_wire import Wire, answer

from oracle.core.errors import ErrorCode, OracleError, Verdict
from oracle.providers import errors
from oracle.providers.http import Http
from oracle.providers.nosana.api import NosanaApi
from oracle.providers.nosana.deployments import DeploymentsApi, Status, read_deployment
from oracle.providers.nosana.landlord import NosanaLandlord
from oracle.providers.nosana.market_place import MarketPlace
from oracle.providers.nosana.markets import Wanted
from oracle.providers.nosana.serving import Blueprint, Engine, key_of
from oracle.providers.pace import Pace
from oracle.providers.rented.landlord import Rental, RentalPrice, RentalState

API_KEY = "nos_test_key"
BLUEPRINT = Blueprint("vllm", "docker.io/vllm/vllm-openai:v0.9.2", MODEL, 8)

# §7.10, the fixture of the SDK.
FIXTURE: dict[str, Any] = {
    "id": "8hP5WVzxX8qQE9s6J7BkUxEsb1vQD5viiEZ1pKVXSQFH",
    "name": "Pytorch Jupyter Notebook",
    "vault": "4f4aykQByWqVqyrsoevsAvkVxqYFHy3uaiYPupTsjGPN",
    "market": "5eX3kWkrcbwejEc1svbfP4F7NKYjtPDuyU5KnV1hUBKg",
    "owner": "4f4aykQByWqVqyrsoevsAvkVxqYFHy3uaiYPupTsjGPN",
    "status": "DRAFT",
    "replicas": 1,
    "timeout": 60,
    "endpoints": [
        {
            "opId": "Pytorch",
            "port": 8888,
            "url": "https://3JZPUXiKwiimMUJBzhLSZzumTs8pqRjDJNpSbdJrMB3m.node.k8s.prd.nos.ci",
        }
    ],
    "confidential": False,
    "active_revision": 1,
    "created_at": "2025-12-04T12:20:13.591Z",
    "updated_at": "2025-12-04T12:20:13.591Z",
    "strategy": "SIMPLE",
}
# §7.10
COMPLAINT = {
    "category": "Event",
    "deploymentId": FIXTURE["id"],
    "type": "JOB_LIST_ERROR",
    "message": "Error Failed to list job batch: Insufficient credits. Available: $0.000, Required: $1.047",
    "created_at": "2026-07-25T17:20:00.000Z",
}
JOB_ROW = {
    "tx": "t",
    "deployment": FIXTURE["id"],
    "job": "3ogUn1GNXoASaRbxPNeVJnVv5rG4EPBtmQmX61jVorUe",
    "market": FIXTURE["market"],
    "node": None,
    "revision": 1,
    "state": "RUNNING",
    "time_start": NOW,
    "created_at": "2026-07-25T17:20:00.000Z",
    "updated_at": "2026-07-25T17:20:00.000Z",
}
RENTAL = Rental(FIXTURE["id"], FIXTURE["name"], RentalState.STARTING, 0.0)


def page(name: str, *items: Any, cursor: str | None = None, total: int | None = None) -> dict[str, Any]:
    pagination = {"cursor_next": cursor, "cursor_prev": None, "total_items": len(items) if total is None else total}
    return {name: list(items), "pagination": pagination}


class Service:
    """Answers by method and path, and remembers what it was asked."""

    def __init__(self, **answers: Any) -> None:
        self.answers: dict[str, Any] = {
            "GET /markets/": MARKETS,
            "GET /jobs/count": {"total": 0, "byState": {"QUEUED": 0, "RUNNING": 0, "COMPLETED": 0, "STOPPED": 0}},
            "GET /credits/balance": {"assignedCredits": 100.5, "reservedCredits": 0.34, "settledCredits": 74.595},
        } | answers
        self.wire = Wire(self._reply)

    def _reply(self, request: httpx.Request) -> httpx.Response:
        reply = self.answers[f"{request.method} {request.url.path}"]
        if isinstance(reply, Exception):
            raise reply
        made: Callable[[httpx.Request], httpx.Response] = reply if callable(reply) else answer(reply)
        return made(request)

    def asked(self) -> list[str]:
        return [f"{request.method} {request.url.path}" for request in self.wire.requests]

    def http(self) -> Http:
        headers = {"Authorization": f"Bearer {API_KEY}"}
        return Http("nosana", "https://api.nosana.com", pace=Pace(), headers=headers, transport=self.wire.transport)

    def deployments(self) -> DeploymentsApi:
        return DeploymentsApi(self.http())

    def landlord(self, blueprint: Blueprint = BLUEPRINT) -> NosanaLandlord:
        api = NosanaApi(self.http(), self.http(), self.http(), Pace())
        wanted = Wanted(Decimal("0.5"), 8, 5)
        return NosanaLandlord(
            self.deployments(), api, MarketPlace(api, wanted), blueprint, API_KEY, timeout_minutes=120
        )


def about(**answers: Any) -> Service:
    """A service with one deployment: `deployment`, `jobs`, `events` and `result` replace what it says of it."""
    path = f"GET /deployments/{FIXTURE['id']}"
    return Service(
        **{
            path: {**FIXTURE, "market": MARKET, "status": "RUNNING", **answers.get("deployment", {})},
            f"{path}/jobs": page("jobs", *answers.get("jobs", [JOB_ROW])),
            f"{path}/events": page("events", *answers.get("events", [])),
            f"{path}/jobs/{JOB_ROW['job']}": {"jobResult": answers.get("result")},
            **{f"POST /deployments/{FIXTURE['id']}/{act}": {} for act in ("start", "stop", "archive")},
        }
    )


def test_7_10_the_deployment_of_the_fixture_is_read() -> None:
    deployment = read_deployment(FIXTURE)
    assert deployment is not None
    assert (deployment.id, deployment.name, deployment.status) == (FIXTURE["id"], FIXTURE["name"], Status.DRAFT)
    assert (deployment.market, deployment.replicas, deployment.timeout_minutes) == (FIXTURE["market"], 1, 60)
    assert deployment.created_at == 1764850813.591
    assert deployment.url == "https://3JZPUXiKwiimMUJBzhLSZzumTs8pqRjDJNpSbdJrMB3m.node.k8s.prd.nos.ci"


@pytest.mark.parametrize("change", [{"id": None}, {"name": 7}, {"status": "SLEEPING"}, {"status": None}])
def test_what_is_no_deployment_is_none(change: dict[str, Any]) -> None:
    assert read_deployment({**FIXTURE, **change}) is None
    assert read_deployment([]) is None


async def test_4_8_a_deployment_is_created_with_its_definition_inline_and_its_time_in_minutes() -> None:
    service = Service(**{"POST /deployments/create": FIXTURE})
    assert await service.landlord().create("oracle-fast-0123abcd-1") == FIXTURE["id"]
    body = service.wire.body()
    assert body == {
        "name": "oracle-fast-0123abcd-1",
        "market": MARKET,
        "replicas": 1,
        "timeout": 120,
        "strategy": "SIMPLE",
        "job_definition": BLUEPRINT.definition("oracle-fast-0123abcd-1", API_KEY),
    }
    request = service.wire.requests[-1]
    assert request.headers["authorization"] == f"Bearer {API_KEY}"


async def test_nothing_is_created_that_the_credit_does_not_cover() -> None:
    poor = {"assignedCredits": 0.09, "reservedCredits": 0, "settledCredits": 0}
    service = Service(**{"GET /credits/balance": poor, "POST /deployments/create": FIXTURE})
    with pytest.raises(OracleError) as raised:
        await service.landlord().create("n")
    # Two hours of the cheapest market, 0.0436 USD and a tenth of network fee, are 0.096 USD.
    assert raised.value.error is errors.OUT_OF_CREDIT
    assert "POST /deployments/create" not in service.asked()


@pytest.mark.parametrize(
    ("reply", "code"),
    [
        (httpx.ReadTimeout("x"), errors.NO_ANSWER),
        (answer(b"<html>", 502), errors.NO_ANSWER),
        (answer({"error": "Internal error"}, 500), errors.NO_ANSWER),
        (answer(b"not json"), errors.NO_ANSWER),
        (answer({"error": "bad"}, 400), errors.REQUEST_REFUSED),
        (answer(b"Unauthorized", 401), errors.CREDENTIALS_REFUSED),
        (httpx.ConnectError("x"), errors.UNREACHABLE),
    ],
)
async def test_a_creation_whose_answer_is_lost_is_unknown_and_a_refusal_is_not(reply: Any, code: ErrorCode) -> None:
    service = Service(**{"POST /deployments/create": reply})
    with pytest.raises(OracleError) as raised:
        await service.landlord().create("n")
    assert raised.value.error is code
    assert (raised.value.verdict is Verdict.UNKNOWN) == (code is errors.NO_ANSWER)


async def test_4_8_all_pages_of_the_list_are_read_by_their_cursor() -> None:
    pages = {None: page("deployments", FIXTURE, cursor="7", total=2), "7": page("deployments", {**FIXTURE, "id": "b"})}
    pages["7"]["pagination"]["total_items"] = 2

    def listed(request: httpx.Request) -> httpx.Response:
        assert request.url.params["limit"] == "100"
        return answer(pages[request.url.params.get("cursor")])(request)

    service = Service(**{"GET /deployments": listed})
    assert [one.id for one in await service.deployments().all()] == [FIXTURE["id"], "b"]


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (page("deployments", FIXTURE, total=2), errors.LOOK_UP_INCOMPLETE),
        (page("deployments", {**FIXTURE, "status": "NEW"}), errors.UNREADABLE_ANSWER),
        ({"deployments": []}, errors.UNREADABLE_ANSWER),
        ([], errors.UNREADABLE_ANSWER),
    ],
)
async def test_a_list_with_something_missing_raises(body: Any, code: ErrorCode) -> None:
    with pytest.raises(OracleError) as raised:
        await Service(**{"GET /deployments": body}).deployments().all()
    assert raised.value.error is code


async def test_a_page_of_a_proxy_does_not_prove_a_deployment_gone() -> None:
    path = f"GET /deployments/{FIXTURE['id']}"
    gone = Service(**{path: answer({"error": "Deployment not found"}, 404)})
    assert await gone.landlord().look(RENTAL) is None
    with pytest.raises(OracleError):
        await Service(**{path: answer(b"<html>", 404)}).landlord().look(RENTAL)


async def test_a_draft_is_started_by_the_first_look() -> None:
    service = about(deployment={"status": "DRAFT"})
    seen = await service.landlord().look(RENTAL)
    assert seen is not None
    assert (seen.state, seen.address) == (RentalState.STARTING, None)
    assert service.asked()[-1] == f"POST /deployments/{FIXTURE['id']}/start"


async def test_a_deployment_whose_job_runs_has_an_address_an_end_and_a_price() -> None:
    seen = await about().landlord().look(RENTAL)
    assert seen == Rental(
        FIXTURE["id"],
        FIXTURE["name"],
        RentalState.RUNNING,
        1764850813.591,
        ends_at=NOW + 3600,
        address="https://3JZPUXiKwiimMUJBzhLSZzumTs8pqRjDJNpSbdJrMB3m.node.k8s.prd.nos.ci/v1",
        price=RentalPrice(Decimal("0.04796")),
    )


async def test_a_deployment_whose_job_waits_for_a_host_has_no_address_yet() -> None:
    seen = await about(jobs=[{**JOB_ROW, "state": "QUEUED", "time_start": 0}]).landlord().look(RENTAL)
    assert seen is not None
    assert (seen.state, seen.address, seen.ends_at) == (RentalState.RUNNING, None, None)


async def test_7_10_running_without_a_job_and_with_a_complaint_has_failed() -> None:
    seen = await about(jobs=[], events=[COMPLAINT]).landlord().look(RENTAL)
    assert seen is not None
    assert seen.state is RentalState.FAILED
    assert "Insufficient credits. Available: $0.000, Required: $1.047" in seen.why


async def test_running_without_a_job_and_without_a_complaint_may_still_come_up() -> None:
    seen = await about(jobs=[]).landlord().look(RENTAL)
    assert seen is not None
    assert (seen.state, seen.why) == (RentalState.RUNNING, "")


async def test_why_a_server_ended_is_read_from_the_result_of_its_operation() -> None:
    operation = {"status": "failed", "exitCode": 137, "diagnostics": {"state": {"OOMKilled": True}, "reason": {}}}
    service = about(jobs=[{**JOB_ROW, "state": "COMPLETED"}], result={"status": "success", "opStates": [operation]})
    seen = await service.landlord().look(RENTAL)
    assert seen is not None
    assert seen.state is RentalState.FAILED
    assert "exit code 137, out of memory" in seen.why


@pytest.mark.parametrize(
    ("status", "state"),
    [
        ("STARTING", RentalState.STARTING),
        ("STOPPING", RentalState.FAILED),
        ("ERROR", RentalState.FAILED),
        ("INSUFFICIENT_FUNDS", RentalState.FAILED),
        ("STOPPED", RentalState.ENDED),
        ("ARCHIVED", RentalState.ENDED),
    ],
)
async def test_only_what_says_that_it_is_over_counts_as_over(status: str, state: RentalState) -> None:
    seen = await about(deployment={"status": status}).landlord().look(RENTAL)
    assert seen is not None
    assert seen.state is state


@pytest.mark.parametrize(
    ("status", "acts"),
    [
        ("DRAFT", ["archive"]),
        ("RUNNING", ["stop", "archive"]),
        ("STOPPING", ["stop", "archive"]),
        ("STOPPED", ["archive"]),
        ("ARCHIVED", []),
    ],
)
async def test_what_is_given_back_is_stopped_and_put_away(status: str, acts: list[str]) -> None:
    service = about(deployment={"status": status})
    await service.landlord().destroy(RENTAL)
    posts = [call.rpartition("/")[2] for call in service.asked() if call.startswith("POST")]
    assert posts == acts


async def test_a_stopped_deployment_that_cannot_be_put_away_yet_costs_nothing_and_is_no_failure() -> None:
    service = about(deployment={"status": "RUNNING"})
    service.answers[f"POST /deployments/{FIXTURE['id']}/archive"] = answer({"error": "still stopping"}, 400)
    await service.landlord().destroy(RENTAL)
    service = about(deployment={"status": "DRAFT"})
    service.answers[f"POST /deployments/{FIXTURE['id']}/archive"] = answer({"error": "no"}, 500)
    with pytest.raises(OracleError):
        await service.landlord().destroy(RENTAL)


async def test_the_price_is_that_of_every_replica() -> None:
    assert await Service().landlord(replace(BLUEPRINT, replicas=3)).price() == RentalPrice(Decimal("0.14388"))


@pytest.mark.parametrize("engine", ["vllm", "llamacpp", "ollama"])
def test_a_server_exposes_its_port_and_keeps_its_log_to_itself(engine: Engine) -> None:
    image = "docker.io/example/engine:1"
    (operation,) = Blueprint(engine, image, MODEL, 8).definition("name", API_KEY)["ops"]
    args = operation["args"]
    assert (args["image"], args["expose"], args["gpu"]) == (image, 8000, True)
    (script,) = args["cmd"]
    lines = script.splitlines()
    assert lines[0] == "set -eu"
    assert lines[-1] == 'wait "$server"'
    # All that a server prints goes to a file: the log of the container becomes public.
    assert ">/tmp/server.log 2>&1 &" in lines[1]
    assert args["env"]["ORACLE_MODEL"] == MODEL


def test_the_key_of_a_server_follows_from_its_name_and_does_not_tell_the_account_key() -> None:
    env = BLUEPRINT.definition("one", API_KEY)["ops"][0]["args"]["env"]
    assert env["VLLM_API_KEY"] == key_of("one", API_KEY)
    assert key_of("one", API_KEY) != key_of("two", API_KEY)
    assert API_KEY not in str(BLUEPRINT.definition("one", API_KEY))


def test_whatever_is_another_server_has_another_name() -> None:
    named = BLUEPRINT.naming("oracle", "Fast GPU", API_KEY)
    assert named.prefix == "oracle-fast-gpu"
    assert named == BLUEPRINT.naming("oracle", "Fast GPU", API_KEY)
    others = [
        replace(BLUEPRINT, model="other/model"),
        replace(BLUEPRINT, image="docker.io/vllm/vllm-openai:v1"),
        replace(BLUEPRINT, replicas=2),
        replace(BLUEPRINT, engine="llamacpp"),
    ]
    fingerprints = {other.naming("oracle", "Fast GPU", API_KEY).fingerprint for other in others}
    fingerprints.add(BLUEPRINT.naming("oracle", "Fast GPU", "nos_another").fingerprint)
    assert len(fingerprints | {named.fingerprint}) == 6


def test_a_model_that_is_no_name_is_refused() -> None:
    with pytest.raises(OracleError) as raised:
        replace(BLUEPRINT, model="a; rm -rf /").definition("n", API_KEY)
    assert raised.value.error is errors.DEFINITION_INVALID
