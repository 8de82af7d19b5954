"""Golden vectors of nosana.md §7: the emulator answers in the very shape, and where it can in the very bytes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import httpx
import nosana_template as template
import orjson
import pytest
from nosana_template import SPEC_EXAMPLE
from nosana_user import KEY, MARKET, PIN, NosanaUser, served_nosana

from oracle.localnet.emulators.nosana import Account

pytestmark = pytest.mark.localnet

PINNED = (
    b'{"version":"0.1","type":"container","meta":{"trigger":"python","task_id":"task-0001"},"ops":[{"type":"container'
    b'/run","id":"main","args":{"image":"docker.io/library/python:3.12-slim","cmd":["python","-c","print(\'RESULT 42\''
    b')"],"gpu":true},"results":{"answer":{"regex":"^RESULT (\\\\S+)","logType":["stdout"]}}}]}'
)
PINNED_CID = "QmSMXKpPP9P4yuGuR1pdgfY7dYpGNcdY5mmFLeRKryc9oq"
ADDRESS = re.compile(r"[1-9A-HJ-NP-Za-km-z]{32,44}")
SIGNATURE = re.compile(r"[1-9A-HJ-NP-Za-km-z]{80,90}")
JOB_FIELDS = (
    *("id", "address", "ipfsJob", "ipfsResult", "market", "node", "payer", "price", "project", "state", "type"),
    *("jobDefinition", "jobResult", "jobStatus", "timeEnd", "timeStart", "timeout", "usdRewardPerHour", "listedAt"),
)


def shape(value: Any) -> Any:
    """The types of a JSON value, with its keys."""
    match value:
        case dict():
            return {key: shape(item) for key, item in value.items()}
        case list():
            return [shape(item) for item in value]
    return type(value).__name__


async def test_7_2_a_pinned_document_gets_its_true_cid_and_comes_back_byte_for_byte(nosana: NosanaUser) -> None:
    answer = await nosana.http.post("/pinning/pinJSONToIPFS", content=PINNED, headers=PIN)
    assert answer.json() == {"IpfsHash": PINNED_CID, "PinSize": 308, "Timestamp": "2026-07-25T17:19:50.000Z"}
    gateway = await nosana.http.get(f"/ipfs/{PINNED_CID}")
    assert (gateway.content, gateway.headers["content-type"]) == (PINNED, "application/json")
    assert orjson.loads(PINNED) == SPEC_EXAMPLE


async def test_7_2_json_is_stored_compact_however_it_was_sent(nosana: NosanaUser) -> None:
    spaced = orjson.dumps(orjson.loads(PINNED), option=orjson.OPT_INDENT_2)
    answer = await nosana.http.post("/pinning/pinJSONToIPFS", content=spaced, headers=PIN)
    assert answer.json()["IpfsHash"] == PINNED_CID


async def test_7_2_pinning_needs_its_own_token_and_valid_json(nosana: NosanaUser) -> None:
    assert (await nosana.http.post("/pinning/pinJSONToIPFS", content=PINNED, headers=KEY)).status_code == 401
    assert (await nosana.http.post("/pinning/pinJSONToIPFS", content=b"{", headers=PIN)).status_code == 400
    assert (await nosana.http.get(f"/ipfs/{PINNED_CID}")).status_code == 404


async def test_7_3_a_job_is_created_with_the_documented_answer(nosana: NosanaUser) -> None:
    body = (
        b'{"ipfsHash":"QmSMXKpPP9P4yuGuR1pdgfY7dYpGNcdY5mmFLeRKryc9oq",'
        b'"market":"7AtiXMSH6R1jjBxrcYjehCkkSF7zvYWte63gwEDBcGHq","timeout":3600}'
    )
    headers = {**KEY, "idempotency-key": "task-0001:0:0", "content-type": "application/json"}
    answer = (await nosana.http.post("/jobs/list", content=body, headers=headers)).json()
    assert list(answer) == ["tx", "job", "run", "credits"]
    assert SIGNATURE.fullmatch(answer["tx"])
    assert ADDRESS.fullmatch(answer["job"])
    assert ADDRESS.fullmatch(answer["run"])
    reservation = answer["credits"].pop("reservationId")
    assert re.fullmatch(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", reservation)
    assert answer["credits"] == {
        "costUSD": 0.048,
        "creditsUsed": 48,
        "project": "FAe4sisG95oZ42w7buUn5qEE4TAnfTTFPiguZUHmhiF",
    }


@pytest.mark.parametrize("prefix", ["", "/api"])
@pytest.mark.parametrize("slash", ["", "/"])
async def test_1_3_every_path_works_with_and_without_the_api_prefix(
    nosana: NosanaUser, prefix: str, slash: str
) -> None:
    for path in ("/markets", "/jobs", "/credits/balance", "/jobs/count", "/markets/nvidia-3060"):
        answer = await nosana.http.get(f"{prefix}{path}{slash}", headers=KEY)
        assert answer.status_code == 200, path


async def test_7_4_a_queued_job_reads_as_documented(nosana: NosanaUser) -> None:
    nosana.emulator.faults.add("never_starts")
    job = await nosana.job(await nosana.post(SPEC_EXAMPLE, "task-0001:0:0"))
    assert tuple(job) == JOB_FIELDS
    address = job.pop("address")
    assert ADDRESS.fullmatch(address)
    assert job == {
        "id": 47675178,
        "ipfsJob": PINNED_CID,
        "ipfsResult": None,
        "market": MARKET,
        "node": "11111111111111111111111111111111",
        "payer": "credFgXCGH3JFUT6WEKF6tJitxrXhSCM2VEqF7GE6pt",
        "price": 48,
        "project": "FAe4sisG95oZ42w7buUn5qEE4TAnfTTFPiguZUHmhiF",
        "state": 0,
        "type": None,
        "jobDefinition": None,
        "jobResult": None,
        "jobStatus": None,
        "timeEnd": 0,
        "timeStart": 0,
        "timeout": 3600,
        "usdRewardPerHour": None,
        "listedAt": None,
    }


async def test_7_4_a_running_job_reads_as_documented(nosana: NosanaUser) -> None:
    nosana.emulator.faults.add("hangs")
    address = await nosana.post(SPEC_EXAMPLE)
    job = await nosana.until(address, lambda job: job["state"] == 1)
    assert job["node"] == "2Zqh2jyHWKtqxGy4zMjicNRFq6EPa5JMkhxKTkyVP2yJ"
    assert job["type"] == "python"
    assert (job["timeEnd"], job["ipfsResult"], job["jobResult"], job["jobStatus"]) == (0, None, None, None)
    assert 0 < job["listedAt"] <= job["timeStart"]
    assert job["usdRewardPerHour"] == pytest.approx(0.04796, abs=1e-5)
    assert job["jobDefinition"] == SPEC_EXAMPLE


async def test_7_4_and_7_5_a_completed_job_and_its_document_are_as_documented(nosana: NosanaUser) -> None:
    job = await nosana.ended(await nosana.post(SPEC_EXAMPLE))
    gateway = await nosana.http.get(f"/ipfs/{job['ipfsResult']}")
    documented = orjson.loads(
        b'{"status":"success","startTime":1785000000000,"endTime":1785000120000,"opStates":[{"operationId":"main",'
        b'"group":"main","providerId":"c0ffee000001","status":"success","startTime":1785000060000,"endTime":'
        b'1785000119000,"exitCode":0,"logs":[{"type":"stdout","log":"RESULT 42\\n","timestamp":'
        b'"2026-07-25T17:21:58.500000000Z"}],"errors":[],"results":{"answer":["RESULT 42","42"]},"diagnostics":{'
        b'"reason":{"hostShutDown":false,"jobStopped":false,"jobExpired":false}}}]}'
    )
    document = gateway.json()
    assert shape(document) == shape(documented)
    (state,), (expected,) = document["opStates"], documented["opStates"]
    for field in ("operationId", "group", "status", "exitCode", "errors", "results", "diagnostics"):
        assert state[field] == expected[field], field
    assert state["logs"][0]["log"] == "RESULT 42\n"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z", state["logs"][0]["timestamp"])
    assert (job["state"], job["jobStatus"], job["type"]) == (2, "success", "python")
    assert job["jobResult"] == {**document, "opStates": [{**state, "logs": []}]}
    assert job["timeStart"] <= job["timeEnd"]


async def test_7_4_the_definition_comes_as_an_object_and_as_a_string(nosana: NosanaUser) -> None:
    jobs = [await nosana.ended(await nosana.post(SPEC_EXAMPLE)) for _ in range(2)]
    assert [type(job["jobDefinition"]) for job in jobs] == [dict, str]
    assert orjson.loads(jobs[1]["jobDefinition"]) == SPEC_EXAMPLE


async def test_7_4_an_unknown_job_is_not_found(nosana: NosanaUser) -> None:
    answer = await nosana.http.get("/jobs/3ogUn1GNXoASaRbxPNeVJnVv5rG4EPBtmQmX61jVorUe")
    assert (answer.status_code, answer.json()) == (404, {"message": "Not Found", "code": "NOT_FOUND"})


async def test_7_6_stop_and_extend_answer_as_documented(nosana: NosanaUser) -> None:
    nosana.emulator.faults.add("never_starts")
    nosana.emulator.faults.add("hangs")
    queued, running = await nosana.post(SPEC_EXAMPLE), await nosana.post(SPEC_EXAMPLE)
    await nosana.until(running, lambda job: job["state"] == 1)

    async def write(path: str, **body: Any) -> dict[str, Any]:
        answer = (
            await nosana.http.post(path, headers=KEY, json=body) if body else await nosana.http.post(path, headers=KEY)
        )
        assert answer.status_code == 200
        return {**answer.json(), "tx": bool(answer.json()["tx"])}

    extended = await write(f"/jobs/{running}/extend", seconds=7200)
    reservation = extended["credits"].pop("reservationId")
    assert len(reservation) == 36
    assert extended == {"tx": True, "job": running, "credits": {"costUSD": 0.096, "creditsUsed": 96}}
    assert await write(f"/jobs/{queued}/stop") == {
        "tx": True,
        "job": queued,
        "delisted": True,
        "outcome": "delisted",
    }
    assert await write(f"/jobs/{running}/stop") == {
        "tx": True,
        "job": running,
        "delisted": False,
        "outcome": "ended",
    }
    assert await write(f"/jobs/{running}/stop") == {
        "tx": False,
        "job": running,
        "delisted": False,
        "outcome": "already_terminal",
    }
    assert await write(f"/jobs/{running}/extend", seconds=1) == {"tx": False, "job": running}


@pytest.mark.parametrize(
    ("change", "status", "message"),
    [
        ({"timeout": 600}, 400, "Credit-paid jobs must have a timeout of at least 3600 seconds; 600 was requested"),
        ({"timeout": "3600"}, 400, "timeout must be an integer"),
        ({"market": "nvidia-9090"}, 400, "Unknown market"),
        ({"ipfsHash": "bafybeigdyrzt5sfp7udm7hu76uh7y26nf3efuylqabf3oclgtqy55fbzdi"}, 400, "ipfsHash must be a CIDv0"),
        ({"ipfsHash": None}, 400, "ipfsHash must be a CIDv0"),
        ({"market": "no-credits"}, 403, "Market is not eligible for credits"),
        ({"timeout": 10**9}, 402, "Insufficient credits. Available: $10.000, Required: $13322.400"),
    ],
)
async def test_7_7_a_bad_listing_is_refused_with_the_documented_error(
    nosana: NosanaUser, change: dict[str, Any], status: int, message: str
) -> None:
    body = {"ipfsHash": PINNED_CID, "market": MARKET, "timeout": 3600, **change}
    answer = await nosana.http.post("/jobs/list", json=body, headers=KEY)
    assert (answer.status_code, answer.json()) == (status, {"message": message})
    assert (await nosana.books())["jobs"] == []


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'"x"'])
async def test_7_7_a_listing_that_is_no_object_is_refused(nosana: NosanaUser, body: bytes) -> None:
    answer = await nosana.http.post("/jobs/list", content=body, headers=KEY)
    assert answer.status_code == 400
    assert list(answer.json()) == ["message"]


@pytest.mark.parametrize("authorization", [None, "Bearer nos_other", "nos_localnet_", "Basic abc"])
async def test_7_7_writes_and_credits_need_a_key(nosana: NosanaUser, authorization: str | None) -> None:
    headers = {} if authorization is None else {"authorization": authorization}
    for method, path in (("POST", "/jobs/list"), ("POST", "/jobs/x/stop"), ("GET", "/credits/balance")):
        answer = await nosana.http.request(method, path, headers=headers)
        assert (answer.status_code, answer.json()) == (401, {"message": "Unauthorized"})


async def test_7_7_a_key_without_the_scope_is_told_which(model: tuple[Any, str]) -> None:
    async with served_nosana(model[1], accounts=[Account(scopes=("jobs:read",))]) as user:
        answer = await user.http.post("/jobs/list", json={}, headers=KEY)
    assert answer.status_code == 403
    assert answer.json() == {
        "message": "Insufficient scope. This endpoint requires: jobs:write.",
        "code": "INSUFFICIENT_SCOPE",
    }
    assert answer.headers["www-authenticate"] == 'Bearer error="insufficient_scope", scope="jobs:write"'


async def test_7_8_the_fixture_market_and_the_balance_are_as_documented(nosana: NosanaUser) -> None:
    market = (await nosana.http.get("/markets/Dcwz62TisNbWuto6KJM2EGYGVKnHbdZGVGmgLASzsXy8/")).json()
    documented = {
        "address": "Dcwz62TisNbWuto6KJM2EGYGVKnHbdZGVGmgLASzsXy8",
        "slug": "nvidia-4090-community",
        "name": "NVIDIA 4090 Community",
        "sft": "HLuwMuBQgJt9QzR64VuqKod5wxZkCogryK4CFqH2id43",
        "type": "COMMUNITY",
        "usd_reward_per_hour": 0.218175,
        "nos_reward_per_second": 0.000196,
        "nos_job_price_per_second": 0.0002156,
        "network_fee_percentage": 10,
        "gpu_types": ["NVIDIA GeForce RTX 4090 D", "NVIDIA GeForce RTX 4090"],
        "required_images": ["docker.io/vllm/vllm-openai:v0.9.2"],
        "max_usd_uptime_reward_per_day": 0,
        "lowest_vram": 24,
    }
    assert {key: market[key] for key in documented} == documented
    assert (await nosana.http.get("/markets/nvidia-4090-community/")).json() == market
    assert market in (await nosana.http.get("/markets/?type=COMMUNITY")).json()
    assert (await nosana.http.get("/markets/?type=OTHER&limit=5")).json()[0]["slug"] == "no-credits"
    assert (await nosana.http.get("/credits/balance", headers=KEY)).json() == {
        "assignedCredits": 10.0,
        "reservedCredits": 0.0,
        "settledCredits": 0.0,
    }


async def test_7_8_a_key_is_checked_as_documented(nosana: NosanaUser) -> None:
    good = (await nosana.http.post("/auth/validate-api-key", json={"apiKey": "nos_localnet"})).json()
    assert good["valid"] is True
    assert good["user"]["generatedAddress"] == "FAe4sisG95oZ42w7buUn5qEE4TAnfTTFPiguZUHmhiF"
    assert {"jobs:read", "jobs:write", "credits:read"} <= set(good["scopes"])
    bad = await nosana.http.post("/auth/validate-api-key", json={"apiKey": "nos_other"})
    assert bad.json() == {"valid": False}


async def test_7_9_has_no_part_here_and_an_unknown_route_is_not_found(nosana: NosanaUser) -> None:
    for method, path in (("GET", "/nonsense"), ("GET", "/jobs/list/batch"), ("DELETE", "/jobs/x/stop")):
        answer: httpx.Response = await nosana.http.request(method, path, headers=KEY)
        assert (answer.status_code, answer.json()) == (404, {"message": "Not Found", "code": "NOT_FOUND"})


def test_the_template_in_the_tests_is_the_one_in_the_documentation() -> None:
    """The page that tells adapters which job definition can be executed."""
    page = (Path(__file__).parents[3] / "oracle/localnet/emulators/nosana/template.md").read_text()
    assert template.script() in page
    assert template.LLAMA_CPP_SERVER in page
