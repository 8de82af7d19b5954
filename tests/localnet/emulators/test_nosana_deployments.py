"""Deployments of Nosana (nosana.md §4.8, §7.10): the definition goes inline, the result comes back with its logs."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import nosana_template as template
import pytest
from nosana_user import KEY, MARKET, NosanaUser, served_nosana

from oracle.localnet.emulators.nosana import Account
from oracle.localnet.emulators.nosana.deployments import endpoint_host
from oracle.localnet.emulators.openai import ScriptedOpenAI

pytestmark = pytest.mark.localnet

Model = tuple[ScriptedOpenAI, str]


async def call(user: NosanaUser, method: str, path: str, **body: Any) -> Any:
    answer = await user.http.request(method, f"/deployments{path}", json=body or None, headers=user.headers)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def create(user: NosanaUser, **more: Any) -> dict[str, Any]:
    body = {
        "name": "oracle",
        "market": MARKET,
        "replicas": 1,
        "timeout": 60,
        "strategy": "SIMPLE",
        "job_definition": template.inference(),
        **more,
    }
    return dict(await call(user, "POST", "/create", **body))


async def until_status(user: NosanaUser, deployment: str, status: str) -> dict[str, Any]:
    async with asyncio.timeout(60):
        while True:
            shown = await call(user, "GET", f"/{deployment}")
            if shown["status"] == status:
                return dict(shown)


async def test_a_deployment_pins_lists_and_runs_and_shows_the_result_with_its_logs(nosana: NosanaUser) -> None:
    created = await create(nosana)
    assert (created["status"], created["endpoints"], created["active_revision"]) == ("DRAFT", [], 1)
    assert created["vault"] == created["owner"] == "FAe4sisG95oZ42w7buUn5qEE4TAnfTTFPiguZUHmhiF"
    assert (await nosana.books())["jobs"] == []
    assert (await call(nosana, "POST", f"/{created['id']}/start"))["status"] == "RUNNING"
    await until_status(nosana, created["id"], "STOPPED")
    (row,) = (await call(nosana, "GET", f"/{created['id']}/jobs"))["jobs"]
    assert (row["state"], row["deployment"], row["revision"]) == ("COMPLETED", created["id"], 1)
    job = await call(nosana, "GET", f"/{created['id']}/jobs/{row['job']}")
    (state,) = job["jobResult"]["opStates"]
    assert template.answer_in(state["results"]) is not None
    assert len(state["logs"]) == len(state["results"]["part"]) + 3
    assert job["jobDefinition"]["deployment_id"] == created["id"]
    assert (await nosana.job(row["job"]))["jobResult"]["opStates"][0]["logs"] == []
    (event,) = (await call(nosana, "GET", f"/{created['id']}/events"))["events"]
    assert (event["type"], event["tx"]) == ("JOB_LIST_CONFIRMED", row["tx"])


async def test_replicas_start_by_themselves_and_stop_together(nosana: NosanaUser) -> None:
    nosana.emulator.faults.add("hangs")
    nosana.emulator.faults.add("never_starts")
    created = await create(nosana, replicas=2, autostart=True)
    assert (created["status"], created["active_jobs"]) == ("RUNNING", 2)
    hanging = (await nosana.books())["jobs"][0]["address"]
    await nosana.until(hanging, lambda job: job["state"] == 1)
    stopped = await call(nosana, "POST", f"/{created['id']}/stop")
    assert (stopped["status"], stopped["active_jobs"]) == ("STOPPED", 0)
    rows = (await call(nosana, "GET", f"/{created['id']}/jobs"))["jobs"]
    assert [row["state"] for row in rows] == ["COMPLETED"]


async def test_a_timeout_that_is_too_short_is_accepted_and_fails_at_every_listing(nosana: NosanaUser) -> None:
    created = await create(nosana, timeout=10, autostart=True)
    assert created["status"] == "RUNNING"
    assert (await call(nosana, "GET", f"/{created['id']}/jobs"))["jobs"] == []
    (event,) = (await call(nosana, "GET", f"/{created['id']}/events"))["events"]
    assert event["type"] == "JOB_LIST_ERROR"
    assert "at least 3600 seconds; 600 was requested" in event["message"]


async def test_7_10_want_of_credits_is_an_event_and_a_status(model: Model) -> None:
    async with served_nosana(model[1], accounts=[Account(assigned_micro_usd=0)]) as user:
        created = await create(user, autostart=True)
        (event,) = (await call(user, "GET", f"/{created['id']}/events"))["events"]
    assert created["status"] == "INSUFFICIENT_FUNDS"
    assert event["message"] == (
        "Error Failed to list job batch: Insufficient credits. Available: $0.000, Required: $0.048"
    )


async def test_1_7_the_endpoint_of_an_operation_is_that_of_the_fixture() -> None:
    host = endpoint_host(
        "8hP5WVzxX8qQE9s6J7BkUxEsb1vQD5viiEZ1pKVXSQFH", "4f4aykQByWqVqyrsoevsAvkVxqYFHy3uaiYPupTsjGPN", "Pytorch"
    )
    assert host == "3JZPUXiKwiimMUJBzhLSZzumTs8pqRjDJNpSbdJrMB3m"


async def test_an_exposed_operation_has_an_endpoint(nosana: NosanaUser) -> None:
    created = await create(nosana, job_definition=template.inference(expose=8888))
    (endpoint,) = created["endpoints"]
    assert (endpoint["opId"], endpoint["port"]) == ("inference", 8888)
    assert endpoint["url"].endswith(f"/node/{endpoint_host(created['id'], created['vault'], 'inference')}")
    # Nothing serves yet.
    assert (await nosana.http.get(endpoint["url"])).status_code == 404


async def test_the_same_name_twice_is_two_deployments_and_lists_are_paged(nosana: NosanaUser) -> None:
    made = [(await create(nosana))["id"] for _ in range(11)]
    first = await call(nosana, "GET", "")
    assert [one["id"] for one in first["deployments"]] == made[:0:-1]
    assert first["pagination"] == {"cursor_next": "10", "cursor_prev": None, "total_items": 11}
    last = await call(nosana, "GET", "?cursor=10")
    assert [one["id"] for one in last["deployments"]] == made[:1]
    oldest = await call(nosana, "GET", "?sort_order=asc&limit=20")
    assert [one["id"] for one in oldest["deployments"]] == made
    for query in ("limit=7", "limit=x", "cursor=-1", "sort_order=up"):
        assert (await nosana.http.get(f"/deployments?{query}", headers=KEY)).status_code == 400


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"name": ""}, "name is required"),
        ({"market": "nowhere"}, "Unknown market"),
        ({"replicas": 0}, "replicas must be at least 1"),
        ({"timeout": "60"}, "timeout must be at least 1 minute"),
        ({"strategy": "INFINITE"}, "strategy SIMPLE only"),
        ({"job_definition": {"ops": []}}, "Invalid job definition"),
        ({"vault": "x"}, "credits, not from a vault"),
        ({"confidential": True}, "no confidential deployments"),
    ],
)
async def test_a_bad_deployment_is_refused(nosana: NosanaUser, change: dict[str, Any], complaint: str) -> None:
    body = {"name": "n", "market": MARKET, "replicas": 1, "timeout": 60, "strategy": "SIMPLE"}
    body = {**body, "job_definition": template.inference(), **change}
    answer = await nosana.http.post("/deployments/create", json=body, headers=KEY)
    assert answer.status_code == 400
    assert complaint in answer.json()["error"]
    assert (await nosana.books())["deployments"] == []


async def test_a_deployment_is_its_owners_alone(model: Model) -> None:
    accounts = [Account(), Account(api_key="nos_stranger", user_id="user-2", address="8" * 44)]
    async with served_nosana(model[1], accounts=accounts) as user:
        created = await create(user)
        user.headers = {"authorization": "Bearer nos_stranger"}
        assert (await call(user, "GET", ""))["deployments"] == []
        for method, path in (("GET", ""), ("DELETE", ""), ("POST", "/start"), ("GET", "/jobs"), ("GET", "/events")):
            answer = await user.http.request(method, f"/deployments/{created['id']}{path}", headers=user.headers)
            assert (answer.status_code, answer.json()) == (404, {"error": "Deployment not found"})
        answer = await user.http.get(f"/deployments/{created['id']}")
        assert (answer.status_code, answer.text) == (401, "Unauthorized")


async def test_a_deployment_is_archived_and_deleted(nosana: NosanaUser) -> None:
    created = await create(nosana)
    assert (await call(nosana, "POST", f"/{created['id']}/archive"))["status"] == "ARCHIVED"
    assert (await nosana.http.post(f"/deployments/{created['id']}/explode", headers=KEY)).status_code == 404
    await call(nosana, "DELETE", f"/{created['id']}")
    assert (await nosana.http.get(f"/deployments/{created['id']}", headers=KEY)).status_code == 404
    assert (await call(nosana, "GET", ""))["deployments"] == []
    assert len((await nosana.books())["deployments"]) == 1


async def test_deployments_survive_a_restart(model: Model, tmp_path: Path) -> None:
    async with served_nosana(model[1], state_directory=tmp_path) as user:
        created = await create(user, autostart=True)
        await until_status(user, created["id"], "STOPPED")
        before = await user.books()
    async with served_nosana(model[1], state_directory=tmp_path) as user:
        assert await user.books() == before
        assert (await call(user, "GET", f"/{created['id']}"))["status"] == "STOPPED"
