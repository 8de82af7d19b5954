"""Each way in which a Nosana job can go wrong looks as nosana.md §3.7 and §7.5 say it looks."""

from __future__ import annotations

from typing import Any

import nosana_template as template
import pytest
from nosana_user import KEY, Clock, NosanaUser, served_nosana

from oracle.localnet.emulators.openai import ScriptedOpenAI

pytestmark = pytest.mark.localnet

Model = tuple[ScriptedOpenAI, str]
NO_REASON = {"hostShutDown": False, "jobStopped": False, "jobExpired": False}


async def job_with(user: NosanaUser, kind: str, **parameters: Any) -> dict[str, Any]:
    user.emulator.faults.add(kind, **parameters)
    return await user.ended(await user.post(template.inference()))


async def test_an_operation_that_fails_leaves_a_completed_job(nosana: NosanaUser, model: Model) -> None:
    """§7.5, failed container."""
    job = await job_with(nosana, "operation_fails", exit_code=9, text="Killed by a test")
    (state,) = (await nosana.document(job))["opStates"]
    assert (job["state"], job["jobStatus"]) == (2, "success")
    assert (state["status"], state["exitCode"], state["results"]) == ("failed", 9, {"part": [], "end": []})
    assert [(line["type"], line["log"]) for line in state["logs"]] == [("stderr", "Killed by a test\n")]
    assert state["diagnostics"]["reason"] == NO_REASON
    assert state["diagnostics"]["state"]["OOMKilled"] is False
    assert model[0].requests == []


async def test_a_missing_image_fails_the_operation(nosana: NosanaUser) -> None:
    """§7.5, image pull failed."""
    job = await job_with(nosana, "image_missing")
    (state,) = (await nosana.document(job))["opStates"]
    assert (job["state"], job["jobStatus"]) == (2, "success")
    assert (state["status"], state["exitCode"], state["providerId"], state["logs"]) == ("failed", 2, None, [])
    error = {"event": "operation-error", "message": "(HTTP code 404) no such image", "code": 404}
    assert state["errors"] == [error]
    assert "results" not in state
    assert state["diagnostics"] == {"reason": NO_REASON}


async def test_a_container_out_of_memory_says_so(nosana: NosanaUser) -> None:
    job = await job_with(nosana, "out_of_memory")
    (state,) = job["jobResult"]["opStates"]
    assert (state["status"], state["exitCode"], state["diagnostics"]["state"]["OOMKilled"]) == ("failed", 137, True)


async def test_an_expired_job_says_success_everywhere_but_in_one_place(nosana: NosanaUser) -> None:
    """§7.5, timed out."""
    job = await job_with(nosana, "expires")
    (state,) = job["jobResult"]["opStates"]
    assert (job["state"], job["jobStatus"], state["status"], state["exitCode"]) == (2, "success", "success", 0)
    reason = {**NO_REASON, "jobExpired": True, "reason": "Operation stopped due to flow expired"}
    assert state["diagnostics"] == {"reason": reason}
    assert job["timeEnd"] - job["timeStart"] >= job["timeout"]
    assert template.answer_in(state.get("results") or {"part": [], "end": []}) is None


async def test_a_host_that_quits_leaves_state_3_and_no_document(nosana: NosanaUser) -> None:
    """§7.4, stopped on chain."""
    job = await job_with(nosana, "host_quits")
    assert (job["state"], job["ipfsResult"], job["jobResult"], job["jobStatus"], job["timeEnd"]) == (
        3,
        None,
        None,
        None,
        0,
    )
    assert (await nosana.books())["jobs"][0]["settled_micro_usd"] == 0


async def test_a_host_that_shuts_down_fails_flow_and_operation(nosana: NosanaUser) -> None:
    job = await job_with(nosana, "host_shuts_down")
    (state,) = job["jobResult"]["opStates"]
    assert (job["jobStatus"], state["status"]) == ("failed", "failed")
    assert state["diagnostics"]["reason"]["hostShutDown"] is True
    assert state["diagnostics"]["reason"]["reason"].endswith("quit")


async def test_a_blank_result_is_a_document_of_zeros(nosana: NosanaUser) -> None:
    """§7.5, blank."""
    job = await job_with(nosana, "blank_result")
    assert await nosana.document(job) == {"status": "", "startTime": 0, "endTime": 0, "opStates": []}


async def test_a_job_stopped_by_its_owner_gets_its_document_later(nosana: NosanaUser) -> None:
    """§2.5, point 5; §7.4, owner stop."""
    nosana.emulator.faults.add("hangs")
    address = await nosana.post(template.inference())
    await nosana.until(address, lambda job: job["state"] == 1)
    await nosana.http.post(f"/jobs/{address}/stop", headers=KEY)
    job = await nosana.job(address)
    assert (job["state"], job["ipfsResult"]) == (2, None)
    assert job["timeEnd"] > 0
    job = await nosana.until(address, lambda job: job["ipfsResult"])
    (state,) = job["jobResult"]["opStates"]
    assert (job["jobStatus"], state["status"]) == ("stopped", "stopped")
    assert state["diagnostics"]["reason"]["jobStopped"] is True


async def test_a_job_that_never_starts_waits_until_it_is_stopped(nosana: NosanaUser) -> None:
    nosana.emulator.faults.add("never_starts")
    first, second = await nosana.post(template.inference("1")), await nosana.post(template.inference("2"))
    await nosana.ended(second)
    assert (await nosana.job(first))["state"] == 0


async def test_a_job_that_never_finishes_runs_past_its_timeout(model: Model) -> None:
    """§3.7, host crashed."""
    clock = Clock()
    async with served_nosana(model[1], now=clock) as user:
        user.emulator.faults.add("never_finishes")
        address = await user.post(template.inference())
        await user.until(address, lambda job: job["state"] == 1)
        assert (await user.http.get("/jobs/long-running")).json() == {}
        clock.seconds += 3600 + 600
        job = await user.job(address)
        assert job["state"] == 1
        late = (await user.http.get(f"/jobs/long-running?market={job['market']}")).json()
        assert [one["address"] for one in late["jobs"]] == [address]
        assert list((await user.http.get("/jobs/long-running")).json()) == [job["market"]]
        await user.http.post(f"/jobs/{address}/stop", headers=KEY)
        job = await user.job(address)
        assert (job["state"], job["ipfsResult"]) == (2, None)
        assert (await user.books())["jobs"][0]["settled_micro_usd"] == 47_961


@pytest.mark.parametrize("kind", ["slow_start", "slow_run"])
async def test_a_slow_job_comes_to_the_same_end(nosana: NosanaUser, kind: str) -> None:
    nosana.emulator.faults.add(kind, seconds=1.0)
    address = await nosana.post(template.inference())
    await nosana.until(address, lambda job: job["state"] == (0 if kind == "slow_start" else 1))
    assert (await nosana.ended(address))["jobStatus"] == "success"


async def test_lost_log_lines_are_made_good_by_their_repetition(nosana: NosanaUser) -> None:
    """§3.8."""
    whole = (await nosana.ended(await nosana.post(template.inference())))["jobResult"]["opStates"][0]["results"]
    results = (await job_with(nosana, "loses_logs"))["jobResult"]["opStates"][0]["results"]
    assert len(results["part"]) * 2 == len(whole["part"])
    assert template.answer_in(results) is not None


@pytest.mark.parametrize("kind", ["loses_output", "corrupts_output"])
async def test_output_that_is_lost_or_altered_fails_its_own_check_and_nothing_else(
    nosana: NosanaUser, kind: str
) -> None:
    job = await job_with(nosana, kind)
    (state,) = job["jobResult"]["opStates"]
    assert (job["jobStatus"], state["status"], state["exitCode"]) == ("success", "success", 0)
    assert template.answer_in(state["results"]) is None


async def test_a_job_whose_definition_cannot_be_read_is_given_up(nosana: NosanaUser) -> None:
    answer = await nosana.list("QmSMXKpPP9P4yuGuR1pdgfY7dYpGNcdY5mmFLeRKryc9oq")
    assert (await nosana.ended(answer.json()["job"]))["state"] == 3


async def test_a_fault_of_jobs_is_aimed_at_market_user_and_key(nosana: NosanaUser) -> None:
    nosana.emulator.faults.add("host_quits", on="nvidia-3060 user-1 second")
    states = [
        (await nosana.ended(await nosana.post(template.inference(), key)))["state"] for key in ("first", "second")
    ]
    assert states == [2, 3]


@pytest.mark.parametrize(
    ("kind", "parameters", "status", "body"),
    [
        ("rate_limit", {"retry_after": "7"}, 429, {"error": "Rate limit exceeded", "message": "Too many requests"}),
        ("unauthorized", {}, 401, {"message": "Unauthorized"}),
        ("out_of_credits", {}, 402, {"message": "Insufficient credits. Available: $0.000, Required: $1.047"}),
        ("error", {}, 500, {"message": "Internal server error"}),
        ("error", {"status": 503, "text": "busy"}, 503, {"message": "busy"}),
    ],
)
async def test_a_refusal_on_demand_is_in_the_words_of_the_documentation(
    nosana: NosanaUser, kind: str, parameters: dict[str, Any], status: int, body: dict[str, Any]
) -> None:
    """§7.7."""
    nosana.emulator.faults.add(kind, on="POST /jobs/list", **parameters)
    answer = await nosana.list(await nosana.pin(template.inference()))
    assert (answer.status_code, answer.json()) == (status, body)
    assert answer.headers.get("retry-after") == parameters.get("retry_after")
    assert (await nosana.books())["jobs"] == []
