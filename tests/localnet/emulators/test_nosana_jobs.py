"""How Nosana's jobs live and end, who pays what, and what a repeated write does."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import httpx
import nosana_template as template
import orjson
import pytest
from nosana_user import KEY, MARKET, Clock, NosanaUser, served_nosana

from oracle.localnet.emulators.nosana import Account, Timings
from oracle.localnet.emulators.openai import ScriptedOpenAI, scripted_words

pytestmark = pytest.mark.localnet

Model = tuple[ScriptedOpenAI, str]
OTHER_MARKET = "Dcwz62TisNbWuto6KJM2EGYGVKnHbdZGVGmgLASzsXy8"
STRANGER = {"authorization": "Bearer nos_stranger"}


def two_accounts() -> list[Account]:
    return [Account(), Account(api_key="nos_stranger", user_id="user-2", address="8" * 44)]


async def test_a_job_runs_on_the_model_server_and_its_answer_comes_back(nosana: NosanaUser, model: Model) -> None:
    job = await nosana.ended(await nosana.post(template.inference()))
    (state,) = job["jobResult"]["opStates"]
    assert (state["status"], state["exitCode"], state["logs"]) == ("success", 0, [])
    answer = template.answer_in(state["results"])
    assert answer is not None
    text = orjson.loads(answer)["choices"][0]["message"]["content"]
    assert text == "".join(scripted_words(template.chat()["messages"]))
    assert len(model[0].requests) == 1
    logs = (await nosana.document(job))["opStates"][0]["logs"]
    assert [line["log"] for line in logs] == [
        line + "\n" for name in ("part", "end") for line in state["results"][name]
    ]


async def test_a_job_completes_though_its_operation_failed(nosana: NosanaUser) -> None:
    """§0.2, point 2: state, flow and job status say success; only the operation tells."""
    job = await nosana.ended(await nosana.post(template.inference(body={"model": "another", "messages": []})))
    assert (job["state"], job["jobStatus"], job["jobResult"]["status"]) == (2, "success", "success")
    (state,) = job["jobResult"]["opStates"]
    assert (state["status"], state["exitCode"]) == ("failed", 1)
    assert state["diagnostics"]["state"]["ExitCode"] == 1


async def test_an_invalid_definition_completes_with_a_validation_error(nosana: NosanaUser) -> None:
    """§7.5, invalid definition."""
    definition = template.inference()
    del definition["ops"][0]["args"]["image"]
    job = await nosana.ended(await nosana.post(definition))
    assert (job["state"], job["jobStatus"]) == (2, "validation-error")
    assert job["jobResult"]["errors"] == [{"path": "$input.ops[0].args.image", "expected": "string"}]
    assert job["jobResult"]["opStates"] == []


async def test_operations_run_in_order_and_a_failed_one_does_not_stop_the_next(nosana: NosanaUser) -> None:
    def echo(name: str, command: str) -> dict[str, Any]:
        run = {"image": "docker.io/library/busybox", "cmd": command}
        return {"id": name, "type": "container/run", "args": run, "execution": {"group": "both"}}

    volume = {"id": "volume", "type": "container/create-volume", "args": {"name": "v"}}
    operations = [volume, echo("first", "exit 3"), echo("second", "echo done")]
    definition = {"version": "0.1", "type": "container", "ops": operations}
    document = await nosana.document(await nosana.ended(await nosana.post(definition)))
    states = document["opStates"]
    assert [(state["operationId"], state["group"], state["status"], state["exitCode"]) for state in states] == [
        ("volume", "volume", "success", 0),
        ("first", "both", "failed", 3),
        ("second", "both", "success", 0),
    ]
    assert "results" not in states[2]


async def test_a_result_of_many_blocks_is_pinned_whole(nosana: NosanaUser, model: Model) -> None:
    prompt = {"messages": [{"role": "user", "content": "x"}], "model": template.REPOSITORY, "filler": "y" * 80_000}
    model[0].words = 30_000
    job = await nosana.ended(await nosana.post(template.inference(body=prompt)))
    raw = (await nosana.http.get(f"/ipfs/{job['ipfsResult']}")).content
    assert len(raw) > 256 * 1024
    assert template.answer_in(job["jobResult"]["opStates"][0]["results"]) is not None


# --- money -----------------------------------------------------------------------------------------------------------


async def balance(user: NosanaUser) -> tuple[float, float, float]:
    answer = (await user.http.get("/credits/balance", headers=user.headers)).json()
    return answer["assignedCredits"], answer["reservedCredits"], answer["settledCredits"]


async def test_the_whole_timeout_is_reserved_and_only_the_used_seconds_are_charged(model: Model) -> None:
    """§5, credits."""
    clock = Clock()
    async with served_nosana(model[1], now=clock) as user:
        user.emulator.faults.add("hangs")
        address = await user.post(template.inference())
        await user.until(address, lambda job: job["state"] == 1)
        assert await balance(user) == (10.0, 0.048, 0.0)
        clock.seconds += 1800
        await user.http.post(f"/jobs/{address}/stop", headers=KEY)
        assert await balance(user) == (10.0, 0.0, 0.023981)
        (job,) = (await user.books())["jobs"]
        assert (job["reserved_micro_usd"], job["settled_micro_usd"]) == (0, 23_981)


async def test_a_queued_job_that_is_stopped_costs_nothing_and_is_gone(nosana: NosanaUser) -> None:
    """§4.4: a delisted job is deleted."""
    nosana.emulator.faults.add("never_starts")
    address = await nosana.post(template.inference())
    assert (await balance(nosana))[1] == 0.048
    await nosana.http.post(f"/jobs/{address}/stop", headers=KEY)
    assert await balance(nosana) == (10.0, 0.0, 0.0)
    assert (await nosana.http.get(f"/jobs/{address}")).status_code == 404
    assert (await nosana.http.post(f"/jobs/{address}/stop", headers=KEY)).status_code == 404
    assert (await nosana.books())["jobs"][0]["delisted"] is True


async def test_credits_run_out(model: Model) -> None:
    """§7.7, 402; the number is that of the market."""
    async with served_nosana(model[1], accounts=[Account(assigned_micro_usd=100_000)]) as user:
        user.emulator.faults.add("never_starts", count=None)
        cid = await user.pin(template.inference())
        statuses = [(await user.list(cid)).status_code for _ in range(3)]
        refused = (await user.list(cid)).json()
    assert statuses == [200, 200, 402]
    assert refused == {"message": "Insufficient credits. Available: $0.004, Required: $0.048"}


async def test_an_extension_moves_the_deadline_and_reserves_more(model: Model) -> None:
    """§6.2, §7.6."""
    clock = Clock()
    async with served_nosana(model[1], now=clock) as user:
        user.emulator.faults.add("hangs")
        address = await user.post(template.inference())
        await user.until(address, lambda job: job["state"] == 1)
        await user.http.post(f"/jobs/{address}/extend", json={"seconds": 600}, headers=KEY)
        assert (await user.job(address))["timeout"] == 4200
        assert (await balance(user))[1] == 0.056
        clock.seconds += 3601
        with pytest.raises(TimeoutError):
            await user.ended(address, seconds=0.3)
        clock.seconds += 600
        job = await user.ended(address)
        assert (job["state"], job["jobStatus"]) == (2, "success")
        assert job["jobResult"]["opStates"][0]["diagnostics"]["reason"]["jobExpired"] is True
        assert job["timeEnd"] - job["timeStart"] >= job["timeout"]
        assert (await balance(user))[2] == 0.055955


@pytest.mark.parametrize("body", [{}, {"seconds": 0}, {"seconds": "60"}, {"seconds": True}])
async def test_an_extension_by_no_time_is_refused(nosana: NosanaUser, body: dict[str, Any]) -> None:
    nosana.emulator.faults.add("never_starts")
    address = await nosana.post(template.inference())
    assert (await nosana.http.post(f"/jobs/{address}/extend", json=body, headers=KEY)).status_code == 400


async def test_a_stranger_may_neither_stop_nor_extend_a_job(model: Model) -> None:
    async with served_nosana(model[1], accounts=two_accounts()) as user:
        user.emulator.faults.add("never_starts")
        address = await user.post(template.inference())
        for path, body in (("stop", {}), ("extend", {"seconds": 60})):
            assert (await user.http.post(f"/jobs/{address}/{path}", json=body, headers=STRANGER)).status_code == 403
            unknown = await user.http.post(f"/jobs/unknown/{path}", json=body, headers=STRANGER)
            assert (unknown.status_code, unknown.json()) == (404, {"message": "Job not found"})


# --- idempotency -----------------------------------------------------------------------------------------------------


async def test_a_replayed_key_returns_the_first_answer_and_charges_once(nosana: NosanaUser) -> None:
    cid = await nosana.pin(template.inference())
    first, second = await nosana.list(cid, "key"), await nosana.list(cid, "key")
    assert first.json() == second.json()
    assert len((await nosana.books())["jobs"]) == 1
    assert (await nosana.list(cid)).json()["job"] != (await nosana.list(cid)).json()["job"]


async def test_a_key_with_another_payload_is_a_mismatch(nosana: NosanaUser) -> None:
    cid = await nosana.pin(template.inference())
    await nosana.list(cid, "key")
    answer = await nosana.list(cid, "key", timeout=7200)
    assert answer.status_code == 409
    assert answer.json()["code"] == "IDEMPOTENCY_KEY_PAYLOAD_MISMATCH"
    assert "retry-after" not in answer.headers


async def test_a_key_in_flight_is_in_progress(model: Model) -> None:
    async with served_nosana(model[1], timings=Timings(create_seconds=1.0)) as user:
        cid = await user.pin(template.inference())
        first, second = await asyncio.gather(user.list(cid, "key"), user.list(cid, "key"))
    assert first.status_code == 200
    assert second.status_code == 409
    assert (second.json()["code"], second.json()["retryAfter"]) == ("IDEMPOTENCY_KEY_IN_PROGRESS", 5)
    assert second.headers["retry-after"] == "5"


async def test_a_key_whose_transaction_died_is_expired_for_ever(nosana: NosanaUser) -> None:
    nosana.emulator.faults.add("transaction_expires", on="* key-0")
    cid = await nosana.pin(template.inference())
    assert (await nosana.list(cid, "key-0")).status_code == 500
    for _ in range(2):
        answer = await nosana.list(cid, "key-0")
        assert (answer.status_code, answer.json()["code"]) == (409, "IDEMPOTENCY_KEY_EXPIRED")
    assert (await nosana.list(cid, "key-1")).status_code == 200
    assert len((await nosana.books())["jobs"]) == 1


async def test_a_key_of_another_user_is_not_found(model: Model) -> None:
    async with served_nosana(model[1], accounts=two_accounts()) as user:
        cid = await user.pin(template.inference())
        await user.list(cid, "key")
        user.headers = STRANGER
        assert (await user.list(cid, "key")).status_code == 404


async def test_a_refusal_leaves_the_key_free(nosana: NosanaUser) -> None:
    cid = await nosana.pin(template.inference())
    assert (await nosana.list(cid, "key", timeout=60)).status_code == 400
    assert (await nosana.list(cid, "key")).status_code == 200


async def test_a_lost_answer_is_found_again_under_its_key(nosana: NosanaUser) -> None:
    """§6.4: no response, same key."""
    nosana.emulator.faults.add("lose_answer", on="POST /jobs/list")
    cid = await nosana.pin(template.inference())
    with pytest.raises(httpx.RemoteProtocolError):
        await nosana.list(cid, "key")
    (job,) = (await nosana.books())["jobs"]
    assert job["idempotency_key"] == "key"
    assert (await nosana.list(cid, "key")).json()["job"] == job["address"]


async def test_a_write_that_a_proxy_repeats_has_one_effect_with_a_key_and_two_without(nosana: NosanaUser) -> None:
    nosana.emulator.faults.add("twice", on="POST /jobs/list", count=2)
    cid = await nosana.pin(template.inference())
    await nosana.list(cid, "key")
    assert len((await nosana.books())["jobs"]) == 1
    await nosana.list(cid)
    assert len((await nosana.books())["jobs"]) == 3


# --- batches ---------------------------------------------------------------------------------------------------------


async def test_a_batch_is_listed_extended_and_stopped_as_one(nosana: NosanaUser) -> None:
    nosana.emulator.faults.add("never_starts", count=None)
    cid = await nosana.pin(template.inference())
    headers = {**KEY, "idempotency-key": "batch"}
    listing = {
        "jobs": [{"ipfsHash": cid, "market": "nvidia-3060"}, {"ipfsHash": cid, "market": MARKET, "timeout": 7200}]
    }
    items = (await nosana.http.post("/jobs/list/batch", json=listing, headers=headers)).json()["items"]
    assert [(item["index"], item["status"], sorted(item)) for item in items] == [
        (n, "confirmed", ["index", "job", "run", "status", "tx"]) for n in range(2)
    ]
    replay = (await nosana.http.post("/jobs/list/batch", json=listing, headers=headers)).json()["items"]
    assert replay == items
    extension = {"jobs": [{"jobAddress": item["job"], "seconds": 60} for item in items]}
    headers["idempotency-key"] = "extension"
    await nosana.http.post("/jobs/extend/batch", json=extension, headers=headers)
    assert [(await nosana.job(item["job"]))["timeout"] for item in items] == [3660, 7260]
    headers["idempotency-key"] = "stop"
    stop = {"jobs": [{"jobAddress": item["job"]} for item in items]}
    assert len((await nosana.http.post("/jobs/stop/batch", json=stop, headers=headers)).json()["items"]) == 2
    assert [(await nosana.http.get(f"/jobs/{item['job']}")).status_code for item in items] == [404, 404]


async def test_one_bad_item_refuses_a_whole_batch(nosana: NosanaUser) -> None:
    cid = await nosana.pin(template.inference())
    good, short = {"ipfsHash": cid, "market": MARKET}, {"ipfsHash": cid, "market": MARKET, "timeout": 60}
    headers = {**KEY, "idempotency-key": "batch"}
    for jobs in ([good, short], [], "x", [good, 3], [good, {**good, "timeout": 10**9}]):
        answer = await nosana.http.post("/jobs/list/batch", json={"jobs": jobs}, headers=headers)
        assert answer.status_code in (400, 402)
    answer = await nosana.http.post("/jobs/assign/batch", json={"jobs": [good]}, headers=headers)
    assert answer.status_code == 400
    assert (await nosana.books())["jobs"] == []


async def test_a_batch_needs_a_key(nosana: NosanaUser) -> None:
    """§7.7, 400 batch without key."""
    answer = await nosana.http.post("/jobs/list/batch", json={"jobs": []}, headers=KEY)
    assert (answer.status_code, answer.json()) == (400, {"message": "Idempotency-Key header is required"})


async def test_an_item_whose_transaction_died_is_expired_in_its_batch(nosana: NosanaUser) -> None:
    nosana.emulator.faults.add("transaction_expires", skip=1)
    cid = await nosana.pin(template.inference())
    jobs = [{"ipfsHash": cid, "market": MARKET, "node": "7" * 44}] * 2
    headers = {**KEY, "idempotency-key": "batch"}
    items = (await nosana.http.post("/jobs/assign/batch", json={"jobs": jobs}, headers=headers)).json()["items"]
    assert [item["status"] for item in items] == ["confirmed", "expired"]
    assert (await nosana.ended(items[0]["job"]))["node"] == "7" * 44


# --- reading ---------------------------------------------------------------------------------------------------------


async def test_a_list_hides_queued_jobs_behind_its_first_page(nosana: NosanaUser) -> None:
    """§4.4, §6.5: by start, latest first; queued jobs have none."""
    nosana.emulator.faults.add("never_starts")
    nosana.emulator.faults.add("hangs")
    queued, running = await nosana.post(template.inference("a")), await nosana.post(template.inference("b"))
    done = [await nosana.post(template.inference(str(n))) for n in range(9)]
    for address in done:
        await nosana.ended(address)
    await nosana.until(running, lambda job: job["state"] == 1)
    page = (await nosana.http.get("/jobs/")).json()
    assert page["totalJobs"] == 11
    assert len(page["jobs"]) == 10
    assert queued not in [job["address"] for job in page["jobs"]]
    second = (await nosana.http.get("/jobs/?offset=10")).json()["jobs"]
    assert [job["address"] for job in second] == [queued]
    one = (await nosana.http.get("/jobs/?state=QUEUED&limit=50")).json()
    assert ([job["address"] for job in one["jobs"]], one["totalJobs"]) == ([queued], 1)
    assert (await nosana.http.get("/jobs/count")).json() == {
        "total": 11,
        "byState": {"QUEUED": 1, "RUNNING": 1, "COMPLETED": 9, "STOPPED": 0},
    }
    assert (await nosana.http.get("/jobs/running")).json() == {MARKET: {"running": 1}}
    assert len((await nosana.http.get("/jobs/running-nodes")).json()) == 1


async def test_a_list_is_filtered_by_market_poster_and_payer(model: Model) -> None:
    async with served_nosana(model[1], accounts=two_accounts()) as user:
        mine = await user.post(template.inference())
        await user.ended(mine)
        user.headers = STRANGER
        cid = await user.pin(template.inference())
        theirs = (await user.list(cid, market="nvidia-4090-community")).json()["job"]
        await user.ended(theirs)

        async def found(query: str) -> list[str]:
            return [job["address"] for job in (await user.http.get(f"/jobs?{query}")).json()["jobs"]]

        assert await found(f"market={OTHER_MARKET}") == [theirs]
        assert await found("poster=FAe4sisG95oZ42w7buUn5qEE4TAnfTTFPiguZUHmhiF") == [mine]
        assert set(await found("payer=credFgXCGH3JFUT6WEKF6tJitxrXhSCM2VEqF7GE6pt")) == {mine, theirs}
        assert await found("payer=FAe4sisG95oZ42w7buUn5qEE4TAnfTTFPiguZUHmhiF") == []


@pytest.mark.parametrize("query", ["limit=51", "limit=0", "limit=x", "offset=-1", "state=PENDING"])
async def test_a_list_query_that_makes_no_sense_is_422(nosana: NosanaUser, query: str) -> None:
    answer = await nosana.http.get(f"/jobs?{query}")
    assert (answer.status_code, answer.json()["code"]) == (422, "VALIDATION")


async def test_the_21st_list_in_30_seconds_is_refused_and_single_reads_are_not(model: Model) -> None:
    """§4.4."""
    clock = Clock()
    async with served_nosana(model[1], now=clock) as user:
        statuses = [(await user.http.get("/jobs")).status_code for _ in range(21)]
        refused = await user.http.get("/jobs/")
        assert statuses == [200] * 20 + [429]
        assert refused.json() == {"error": "Rate limit exceeded", "message": "Too many requests"}
        assert (await user.http.get("/jobs/unknown")).status_code == 404
        clock.seconds += 31
        assert (await user.http.get("/jobs")).status_code == 200


async def test_a_batch_read_leaves_definition_and_result_out(nosana: NosanaUser) -> None:
    address = await nosana.post(template.inference())
    await nosana.ended(address)
    answer = await nosana.http.post("/jobs/batch", json={"addresses": [address, "unknown", 3]})
    (job,) = answer.json()
    assert job["address"] == address
    assert not {"jobDefinition", "jobResult"} & set(job)
    for addresses in ([], ["x"] * 101, None):
        assert (await nosana.http.post("/jobs/batch", json={"addresses": addresses})).status_code == 422


async def test_a_new_job_and_its_result_are_seen_late(model: Model) -> None:
    """§4.4: 404 after create, null results after the end."""
    clock = Clock()
    async with served_nosana(model[1], now=clock, timings=Timings(read_lag_seconds=5, result_lag_seconds=60)) as user:
        address = await user.post(template.inference())
        assert (await user.http.get(f"/jobs/{address}")).status_code == 404
        clock.seconds += 5
        job = await user.ended(address)
        assert job["ipfsResult"] is not None
        assert (job["jobResult"], job["jobStatus"]) == (None, None)
        assert (await user.document(job))["status"] == "success"
        clock.seconds += 60
        assert (await user.job(address))["jobStatus"] == "success"


async def test_jobs_wait_for_a_free_host(model: Model) -> None:
    async with served_nosana(model[1]) as user:
        user.emulator.faults.add("hangs", count=4)
        running = [await user.post(template.inference(str(n))) for n in range(4)]
        for address in running:
            await user.until(address, lambda job: job["state"] == 1)
        waiting = await user.post(template.inference("waiting"))
        assert (await user.job(waiting))["state"] == 0
        await user.http.post(f"/jobs/{running[0]}/stop", headers=KEY)
        assert (await user.ended(waiting))["jobStatus"] == "success"


# --- restarts --------------------------------------------------------------------------------------------------------


async def test_books_survive_a_restart_and_unfinished_jobs_go_on(model: Model, tmp_path: Path) -> None:
    async with served_nosana(model[1], state_directory=tmp_path) as user:
        done = await user.ended(await user.post(template.inference("done"), "key"))
        user.emulator.faults.add("slow_run", seconds=60)
        half_way = await user.post(template.inference("half-way"))
        await user.until(half_way, lambda job: job["state"] == 1)
        before = await user.books()
    async with served_nosana(model[1], state_directory=tmp_path, timings=Timings()) as user:
        assert await user.books() == before
        assert await user.job(done["address"]) == done
        assert (await user.list(done["ipfsJob"], "key")).json()["job"] == done["address"]
        await user.http.post(f"/jobs/{half_way}/stop", headers=KEY)
        assert (await user.job(half_way))["state"] == 2
    assert sum(account["settled_micro_usd"] for account in before["accounts"]) > 0
