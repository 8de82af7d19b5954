"""Nosana as a `Compute`: bought once whatever is lost, found again after a crash, judged by its own results."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from typing import Any

import httpx
import orjson
import pytest
from nosana_wire import (
    BOUGHT,
    JOB,
    KEY,
    MARKET,
    MARKETS,
    MODEL,
    NOW,
    OTHER_MARKET,
    PROJECT,
    TASK,
    Clock,
    Network,
    completed,
    compute_of,
    document,
    in_turn,
    job,
    queued,
)
from provider_wire import answer

from oracle.core.compute import (
    Absent,
    CannotTell,
    Found,
    IdempotencyKey,
    JobHandle,
    JobState,
    JobStatus,
    Money,
    Recovery,
)
from oracle.core.errors import ErrorCode, OracleError, Verdict
from oracle.providers import errors
from oracle.providers.nosana import definition
from oracle.providers.nosana.cid import cid_v0
from oracle.providers.nosana.markets import Wanted, choose, fitting, read_market
from oracle.providers.nosana.templates import built_in
from oracle.providers.offers import Allowance, Describing
from oracle.providers.registry import build

LIST = "POST /jobs/list"
BATCH = "POST /jobs/batch"
DEFINITION = definition.build(TASK, KEY, built_in("vllm"), min_vram_gb=8)
HANDLE = JobHandle(
    "nosana", JOB, {"listed_at": NOW, "timeout_seconds": 3600, "max_output_tokens": 32, "reserved_usd": "0.048"}
)


def control(code: str, **headers: str) -> Callable[[httpx.Request], httpx.Response]:
    return answer({"code": f"IDEMPOTENCY_KEY_{code}", "message": "…"}, 409, **headers)


async def refused(network: Network, clock: Clock | None = None, **options: Any) -> OracleError:
    with pytest.raises(OracleError) as caught:
        await compute_of(network, clock or Clock(), **options).submit(TASK, KEY)
    return caught.value


async def polled(network: Network, clock: Clock | None = None, handle: JobHandle = HANDLE) -> JobStatus:
    return (await compute_of(network, clock or Clock()).poll([handle]))[handle]


# --- buying ---


async def test_a_job_is_pinned_seen_on_the_gateway_and_bought_on_the_cheapest_market() -> None:
    network, clock = Network(), Clock()
    handle = await compute_of(network, clock).submit(TASK, KEY)
    assert [f"{r.method} {r.url.path}" for r in network.requests if r.url.path not in ("/markets/", "/jobs/count")] == [
        "POST /pinning/pinJSONToIPFS",
        f"GET /ipfs/{cid_v0(DEFINITION)}",
        LIST,
    ]
    (pin,) = network.calls("POST /pinning/pinJSONToIPFS")
    assert pin.content == DEFINITION
    assert pin.headers["authorization"] == "Bearer test-pinata-jwt"
    (post,) = network.calls(LIST)
    assert orjson.loads(post.content) == {"ipfsHash": cid_v0(DEFINITION), "market": MARKET, "timeout": 3600}
    assert post.headers["idempotency-key"] == f"{KEY}:0"
    assert post.headers["authorization"] == "Bearer nos_test_key"
    assert handle == JobHandle("nosana", JOB)
    assert handle.detail == {
        "cid": cid_v0(DEFINITION),
        "market": MARKET,
        "listed_at": NOW,
        "timeout_seconds": 3600,
        "max_output_tokens": 32,
        "reserved_usd": "0.048",
        "project": PROJECT,
    }


async def test_the_gateway_of_the_hosts_is_shown_no_secret() -> None:
    network = Network()
    await compute_of(network, Clock()).submit(TASK, KEY)
    reads = [request for request in network.requests if request.url.path.startswith("/ipfs/")]
    assert reads
    assert all("authorization" not in request.headers for request in reads)


async def test_a_job_that_may_take_longer_asks_for_more_than_the_shortest_time() -> None:
    network = Network()
    await compute_of(network, Clock()).submit(replace(TASK, timeout_seconds=7200.5), KEY)
    assert orjson.loads(network.calls(LIST)[0].content)["timeout"] == 7201


@pytest.mark.parametrize(
    "lost",
    [
        httpx.ReadTimeout("lost"),
        httpx.RemoteProtocolError("cut"),
        answer(b"<html>502</html>", 502),
        answer(b"<html>504</html>", 504),
        answer({"message": "Internal server error"}, 500),
        answer(b'{"tx":"2YcoEGf3y'),
        answer({"tx": None}),
        control("IN_PROGRESS", Retry_After="5"),
    ],
    ids=["timeout", "cut", "502", "504", "500", "half an answer", "no address", "in progress"],
)
async def test_a_lost_answer_is_asked_for_again_with_the_same_key_and_body(lost: Any) -> None:
    network, clock = Network(**{LIST: in_turn(lost, lost, BOUGHT)}), Clock()
    handle = await compute_of(network, clock).submit(TASK, KEY)
    posts = network.calls(LIST)
    assert len(posts) == 3
    assert len({(post.content, post.headers["idempotency-key"]) for post in posts}) == 1
    assert handle.job_id == JOB


async def test_a_key_in_use_is_asked_after_as_late_as_it_says() -> None:
    network, clock = Network(**{LIST: in_turn(control("IN_PROGRESS", Retry_After="5"), BOUGHT)}), Clock()
    await compute_of(network, clock).submit(TASK, KEY)
    assert clock.naps == [5.0]


@pytest.mark.parametrize(
    "after", [httpx.ConnectError("down"), answer({"message": "Insufficient credits"}, 402), answer({}, 429)]
)
async def test_what_follows_a_lost_answer_cannot_prove_that_nothing_was_bought(after: Any) -> None:
    found = await refused(Network(**{LIST: in_turn(httpx.ReadTimeout("lost"), after)}))
    assert (found.error, found.verdict) == (errors.NO_ANSWER, Verdict.UNKNOWN)


@pytest.mark.parametrize(
    ("reply", "expected", "verdict"),
    [
        (httpx.ConnectError("down"), errors.UNREACHABLE, Verdict.RETRY),
        (answer({"message": "Unauthorized"}, 401), errors.CREDENTIALS_REFUSED, Verdict.GIVE_UP),
        (
            answer({"message": "Insufficient credits. Available: $0.000, Required: $1.047"}, 402),
            errors.OUT_OF_CREDIT,
            Verdict.GIVE_UP,
        ),
        (
            answer(
                {"message": "Insufficient scope. This endpoint requires: jobs:write.", "code": "INSUFFICIENT_SCOPE"},
                403,
            ),
            errors.NOT_PERMITTED,
            Verdict.GIVE_UP,
        ),
        (
            answer(
                {"message": "Credit-paid jobs must have a timeout of at least 3600 seconds; 600 was requested"}, 400
            ),
            errors.REQUEST_REFUSED,
            Verdict.GIVE_UP,
        ),
        (answer({"message": "already ended"}, 409), errors.REQUEST_REFUSED, Verdict.GIVE_UP),
        (
            answer({"error": "Rate limit exceeded", "message": "Too many requests"}, 429),
            errors.RATE_LIMITED,
            Verdict.RETRY,
        ),
        (control("EXPIRED"), errors.PURCHASE_EXPIRED, Verdict.RETRY),
        (control("PAYLOAD_MISMATCH"), errors.PURCHASE_CONFLICT, Verdict.UNKNOWN),
    ],
)
async def test_a_first_refusal_is_what_it_says(reply: Any, expected: ErrorCode, verdict: Verdict) -> None:
    found = await refused(Network(**{LIST: reply}))
    assert (found.error, found.verdict) == (expected, verdict)


async def test_an_expired_key_is_followed_by_its_next_epoch_and_no_other() -> None:
    network = Network(**{LIST: in_turn(control("EXPIRED"), control("EXPIRED"), BOUGHT)})
    await compute_of(network, Clock()).submit(TASK, KEY)
    keys = [post.headers["idempotency-key"] for post in network.calls(LIST)]
    assert keys == [f"{KEY}:0", f"{KEY}:1", f"{KEY}:2"]


async def test_a_purchase_of_an_earlier_process_is_recognised_under_the_market_it_chose() -> None:
    """Prices have changed since: another market is the cheapest now, and the first body is not the one that bought."""

    def remembers_the_dear_market(request: httpx.Request) -> httpx.Response:
        same = orjson.loads(request.content)["market"] == OTHER_MARKET
        return (answer(BOUGHT) if same else control("PAYLOAD_MISMATCH"))(request)

    network = Network(**{LIST: remembers_the_dear_market})
    handle = await compute_of(network, Clock()).submit(TASK, KEY)
    assert (handle.job_id, handle.detail["market"]) == (JOB, OTHER_MARKET)


@pytest.mark.parametrize(
    "after", [answer({"message": "Market is not eligible"}, 403), control("EXPIRED"), answer({}, 402)]
)
async def test_once_a_key_is_known_to_have_bought_no_refusal_says_otherwise(after: Any) -> None:
    found = await refused(Network(**{LIST: in_turn(control("PAYLOAD_MISMATCH"), after)}))
    assert (found.error, found.verdict) == (errors.PURCHASE_CONFLICT, Verdict.UNKNOWN)


async def test_a_repetition_carries_the_same_body_though_prices_have_changed() -> None:
    cheaper = [MARKETS[0] | {"usd_reward_per_hour": 0.001}, MARKETS[1]]
    network = Network(**{"GET /markets/": in_turn(MARKETS, cheaper)})
    clock = Clock()
    compute = compute_of(network, clock)
    await compute.submit(TASK, KEY)
    clock.advance(3600)
    await compute.submit(TASK, KEY)
    await compute.submit(TASK, IdempotencyKey("another"))
    bodies = [orjson.loads(post.content) for post in network.calls(LIST)]
    assert bodies[0] == bodies[1]
    assert [body["market"] for body in bodies] == [MARKET, MARKET, OTHER_MARKET]


async def test_a_market_that_takes_no_credits_is_left_alone_for_an_hour() -> None:
    def picky(request: httpx.Request) -> httpx.Response:
        dear = orjson.loads(request.content)["market"] == OTHER_MARKET
        return (answer(BOUGHT) if dear else answer({"message": "Market is not eligible for credits"}, 403))(request)

    network, clock = Network(**{LIST: picky}), Clock()
    compute = compute_of(network, clock)
    with pytest.raises(OracleError) as caught:
        await compute.submit(TASK, KEY)
    assert (caught.value.error, caught.value.verdict) == (errors.MARKET_REFUSED, Verdict.RETRY)
    assert (await compute.submit(TASK, IdempotencyKey("next"))).detail["market"] == OTHER_MARKET
    clock.advance(3601)
    with pytest.raises(OracleError):
        await compute.submit(TASK, IdempotencyKey("later"))


async def test_nothing_is_bought_that_hosts_cannot_read() -> None:
    network, clock = Network(), Clock()
    network.routes["POST /pinning/pinJSONToIPFS"] = {"IpfsHash": cid_v0(DEFINITION)}
    found = await refused(network, clock)
    assert (found.error, found.verdict) == (errors.UNAVAILABLE, Verdict.RETRY)
    assert network.calls(LIST) == []
    assert clock.naps == [0.5, 1.0, 2.0, 4.0]


async def test_nothing_is_bought_of_a_definition_that_was_changed_on_its_way() -> None:
    network = Network()
    other = network.keep({"version": "0.1"})
    network.routes["POST /pinning/pinJSONToIPFS"] = {"IpfsHash": other}
    assert (await refused(network)).error is errors.UNAVAILABLE
    assert network.calls(LIST) == []


@pytest.mark.parametrize("reply", [{"IpfsHash": "bafybeigd"}, {}, [], answer(b"<html>"), answer({}, 500)])
async def test_nothing_is_bought_without_a_pin(reply: Any) -> None:
    network = Network(**{"POST /pinning/pinJSONToIPFS": reply})
    assert (await refused(network)).verdict is Verdict.RETRY
    assert network.calls(LIST) == []


async def test_a_private_request_leaves_no_trace() -> None:
    network = Network()
    compute = compute_of(network, Clock())
    private = replace(TASK, private=True)
    for attempt in (compute.submit(private, KEY), compute.quote(private)):
        with pytest.raises(OracleError) as caught:
            await attempt
        assert caught.value.error is errors.PRIVATE_REFUSED
    assert network.requests == []
    assert compute.capabilities.prompts_public


async def test_a_model_that_is_not_on_offer_is_not_bought() -> None:
    assert (await refused(Network(), models=("org/other",))).error is errors.MODEL_UNAVAILABLE
    assert await compute_of(Network(), Clock(), models=(MODEL,)).models() == (MODEL,)


# --- finding ---


def listing(*jobs: dict[str, Any], state: str = "QUEUED") -> Callable[[httpx.Request], httpx.Response]:
    """The list route as documented: one state, fifty at most, from an offset."""

    def reply(request: httpx.Request) -> httpx.Response:
        query = request.url.params
        assert (query["poster"], query["limit"]) == (PROJECT, "50")
        found = list(jobs) if query["state"] == state else []
        page = found[int(query["offset"]) : int(query["offset"]) + 50]
        return answer({"jobs": page, "totalJobs": len(found)})(request)

    return reply


@pytest.mark.parametrize("state", ["QUEUED", "RUNNING", "COMPLETED", "STOPPED"])
async def test_a_purchase_of_an_earlier_process_is_found_by_the_key_in_its_definition(state: str) -> None:
    ours = job(jobDefinition=orjson.loads(DEFINITION), ipfsJob=cid_v0(DEFINITION))
    network = Network(**{"GET /jobs/": listing(ours, state=state)})
    found = await compute_of(network, Clock(), project=PROJECT).find(KEY)
    assert isinstance(found, Found)
    assert found.handle == JobHandle("nosana", JOB)
    assert found.handle.detail["market"] == MARKET


async def test_a_definition_that_the_indexer_has_not_fetched_yet_is_read_from_ipfs() -> None:
    network = Network()
    ours = queued(ipfsJob=network.keep(DEFINITION), jobDefinition=None)
    network.routes["GET /jobs/"] = listing(ours)
    assert isinstance(await compute_of(network, Clock(), project=PROJECT).find(KEY), Found)


async def test_a_definition_handed_out_as_text_is_read_too() -> None:
    network = Network(**{"GET /jobs/": listing(job(jobDefinition=DEFINITION.decode()))})
    assert isinstance(await compute_of(network, Clock(), project=PROJECT).find(KEY), Found)


async def test_a_job_on_a_later_page_is_found() -> None:
    others = [job(address=f"other{number}", type="dashboard", jobDefinition={}) for number in range(120)]
    ours = job(jobDefinition=orjson.loads(DEFINITION))
    network = Network(**{"GET /jobs/": listing(*others, ours, state="COMPLETED")})
    assert isinstance(await compute_of(network, Clock(), project=PROJECT).find(KEY), Found)


async def test_a_search_that_is_not_complete_is_no_answer_at_all() -> None:
    unreadable = queued(ipfsJob="QmSMXKpPP9P4yuGuR1pdgfY7dYpGNcdY5mmFLeRKryc9oq")
    replies = [
        listing(unreadable),
        listing(job(state=9)),
        answer({"jobs": None}),
        answer({"error": "Rate limit exceeded", "message": "Too many requests"}, 429),
        answer({"message": "Internal server error"}, 500),
        httpx.ReadTimeout("slow"),
    ]
    for reply in replies:
        with pytest.raises(OracleError) as caught:
            await compute_of(Network(**{"GET /jobs/": reply}), Clock(), project=PROJECT).find(KEY)
        assert caught.value.verdict is Verdict.RETRY


async def test_a_search_without_end_is_not_complete() -> None:
    def endless(request: httpx.Request) -> httpx.Response:
        return answer({"jobs": [job(address=str(n), type="x", jobDefinition={}) for n in range(50)]})(request)

    with pytest.raises(OracleError) as caught:
        await compute_of(Network(**{"GET /jobs/": endless}), Clock(), project=PROJECT).find(KEY)
    assert caught.value.error is errors.LOOK_UP_INCOMPLETE


async def test_ended_jobs_are_searched_as_far_back_as_the_horizon() -> None:
    old = [job(address=str(n), type="x", jobDefinition={}, timeStart=NOW - 200_000) for n in range(2000)]
    network = Network(**{"GET /jobs/": listing(*old, state="COMPLETED")})
    assert isinstance(await compute_of(network, Clock(), project=PROJECT).find(KEY), CannotTell)
    assert len(network.calls("GET /jobs/")) == 4


async def test_absence_is_proof_only_after_the_indexer_has_had_its_time() -> None:
    network, clock = Network(**{"GET /jobs/": listing()}), Clock()
    compute = compute_of(network, clock, project=PROJECT)
    assert isinstance(await compute.find(KEY), CannotTell)
    clock.advance(300)
    assert isinstance(await compute.find(KEY), CannotTell)
    clock.advance(61)
    assert await compute.find(KEY) == Absent()


async def test_a_new_call_under_a_key_starts_the_time_of_its_absence_anew() -> None:
    network, clock = Network(**{"GET /jobs/": listing(), LIST: httpx.ReadTimeout("lost")}), Clock()
    compute = compute_of(network, clock, project=PROJECT)
    await compute.find(KEY)
    clock.advance(400)
    with pytest.raises(OracleError):
        await compute.submit(TASK, KEY)
    assert isinstance(await compute.find(KEY), CannotTell)


async def test_absence_in_an_account_that_is_only_presumed_ours_proves_nothing() -> None:
    key_check = {"valid": True, "user": {"id": "u1", "generatedAddress": PROJECT}, "apiKeyId": "k1", "scopes": []}
    network, clock = Network(**{"GET /jobs/": listing(), "POST /auth/validate-api-key": key_check}), Clock()
    compute = compute_of(network, clock)
    await compute.find(KEY)
    clock.advance(1000)
    assert isinstance(await compute.find(KEY), CannotTell)
    (check,) = network.calls("POST /auth/validate-api-key")
    assert orjson.loads(check.content) == {"apiKey": "nos_test_key"}
    # A job of ours in it shows that it is.
    ours = job(jobDefinition=orjson.loads(DEFINITION.replace(KEY.encode(), b"an older key")))
    network.routes["GET /jobs/"] = listing(ours)
    clock.advance(1000)
    assert await compute.find(KEY) == Absent()


async def test_the_account_is_learned_from_the_first_purchase() -> None:
    network, clock = Network(**{"GET /jobs/": listing()}), Clock()
    compute = compute_of(network, clock)
    await compute.submit(TASK, IdempotencyKey("first"))
    await compute.find(KEY)
    clock.advance(400)
    assert await compute.find(KEY) == Absent()
    assert network.calls("POST /auth/validate-api-key") == []


@pytest.mark.parametrize("reply", [{"valid": False}, {"valid": True, "user": {}}, {}])
async def test_without_an_account_nothing_is_searched_and_nothing_answered(reply: Any) -> None:
    network = Network(**{"POST /auth/validate-api-key": reply})
    with pytest.raises(OracleError) as caught:
        await compute_of(network, Clock()).find(KEY)
    assert caught.value.error is errors.LOOK_UP_INCOMPLETE


async def test_one_search_answers_for_many_keys() -> None:
    network = Network(**{"GET /jobs/": listing()})
    compute = compute_of(network, Clock(), project=PROJECT)
    for number in range(20):
        await compute.find(IdempotencyKey(str(number)))
    assert len(network.calls("GET /jobs/")) == 4


async def test_the_account_is_learned_from_the_jobs_that_a_restart_left_behind() -> None:
    network, clock = Network(**{"GET /jobs/": listing(), BATCH: [job()]}), Clock()
    compute = compute_of(network, clock)
    await compute.poll([replace(HANDLE, detail={**HANDLE.detail, "project": PROJECT})])
    await compute.find(KEY)
    clock.advance(400)
    assert await compute.find(KEY) == Absent()


async def test_an_interrupted_purchase_is_looked_up() -> None:
    assert compute_of(Network(), Clock()).capabilities.recovery is Recovery.LOOK_UP


# --- following ---


async def test_jobs_are_asked_after_in_bulk() -> None:
    network = Network(**{BATCH: [job(), queued(address="waiting")]})
    handles = [HANDLE, JobHandle("nosana", "waiting", {"listed_at": NOW})]
    statuses = await compute_of(network, Clock()).poll(handles)
    assert [statuses[handle].state for handle in handles] == [JobState.RUNNING, JobState.QUEUED]
    (post,) = network.calls(BATCH)
    assert orjson.loads(post.content) == {"addresses": [JOB, "waiting"], "limit": 2}


async def test_many_jobs_are_asked_after_in_several_batches() -> None:
    network = Network(**{BATCH: []})
    handles = [JobHandle("nosana", str(number), {"listed_at": NOW}) for number in range(120)]
    statuses = await compute_of(network, Clock()).poll(handles)
    assert len(statuses) == 120
    assert [len(orjson.loads(post.content)["addresses"]) for post in network.calls(BATCH)] == [50, 50, 20]


async def test_a_job_that_cannot_be_read_does_not_delay_the_others() -> None:
    network = Network(**{BATCH: [{"address": 7}, "x", job(state="RUNNING", address="odd"), job()]})
    assert (await polled(network)).state is JobState.RUNNING


async def test_an_ended_job_is_judged_by_its_document_and_fetched_without_asking_again() -> None:
    network, clock = Network(), Clock()
    network.keep(document())
    network.routes[BATCH] = [completed(document())]
    compute = compute_of(network, clock)
    assert (await compute.poll([HANDLE]))[HANDLE] == JobStatus(JobState.SUCCEEDED)
    asked = len(network.requests)
    output = await compute.fetch(HANDLE)
    assert len(network.requests) == asked
    assert (output.content, output.model_run) == (b"42", MODEL)
    assert (output.input_tokens, output.output_tokens) == (12, 5)
    assert (output.started_at, output.finished_at) == (NOW, NOW + 120)
    # 120 of 3600 reserved seconds of 0.048 USD, at 100 USD for a SOL.
    assert (output.cost, output.cost_lamports) == (Money(0.0016, "USD"), 16_000)


async def test_an_output_can_be_fetched_by_a_process_that_has_not_polled() -> None:
    network = Network()
    network.keep(document())
    network.routes[f"GET /jobs/{JOB}"] = completed(document())
    bare = JobHandle("nosana", JOB)
    output = await compute_of(network, Clock()).fetch(bare)
    assert (output.content, output.cost) == (b"42", None)


async def test_what_has_not_succeeded_is_not_fetched() -> None:
    network = Network(**{f"GET /jobs/{JOB}": in_turn(job(), answer({"message": "Not Found"}, 404))})
    compute = compute_of(network, Clock())
    for _ in range(2):
        with pytest.raises(OracleError) as caught:
            await compute.fetch(HANDLE)
        assert caught.value.error is errors.JOB_UNKNOWN


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (document(exitCode=1, status="failed", results={}, logs=[]), errors.JOB_FAILED),
        (document(diagnostics__reason__jobExpired=True), errors.JOB_TIMED_OUT),
        (document(diagnostics__reason__jobStopped=True), errors.JOB_STOPPED),
        (document(diagnostics__reason__hostShutDown=True), errors.HOST_FAILED),
        (document(results={}, logs=[]), errors.OUTPUT_DAMAGED),
        ({"status": "", "startTime": 0, "endTime": 0, "opStates": []}, errors.HOST_FAILED),
    ],
)
async def test_completed_is_not_success(found: Any, expected: ErrorCode) -> None:
    network = Network()
    network.keep(found)
    network.routes[BATCH] = [completed(found, jobStatus="success")]
    status = await polled(network)
    assert status.state is JobState.FAILED
    assert status.error is not None
    assert status.error.error is expected


async def test_an_answer_cut_before_its_limit_is_refused() -> None:
    cut = orjson.loads(orjson.dumps(document()))
    body = {"id": "x", "model": MODEL, "choices": [{"message": {"content": "4"}, "finish_reason": "length"}]}
    cut = document(orjson.dumps(body | {"usage": {"prompt_tokens": 5, "completion_tokens": 3}}))
    network = Network()
    network.keep(cut)
    network.routes[BATCH] = [completed(cut)]
    status = await polled(network)
    assert status.error is not None
    assert status.error.error is errors.ANSWER_CUT


async def test_a_result_that_ipfs_does_not_serve_yet_is_waited_for() -> None:
    network, clock = Network(), Clock()
    network.routes[BATCH] = [completed(document())]
    network.routes[f"GET /jobs/{JOB}"] = completed(document())
    clock.advance(86_400)
    status = await polled(network, clock)
    assert status.state is JobState.RUNNING
    assert "cannot be read yet" in status.message


async def test_the_copy_of_rest_serves_while_ipfs_does_not() -> None:
    copy = document(logs=[])
    network = Network(**{BATCH: [completed(document())], f"GET /jobs/{JOB}": completed(document(), jobResult=copy)})
    assert (await polled(network)).state is JobState.SUCCEEDED


async def test_a_copy_without_logs_does_not_prove_an_output_damaged() -> None:
    copy = document(logs=[], results={"part": [], "end": []})
    network = Network(**{BATCH: [completed(document())], f"GET /jobs/{JOB}": completed(document(), jobResult=copy)})
    assert (await polled(network)).state is JobState.RUNNING


@pytest.mark.parametrize("no_result", [None, "QmNLei78zWmzUdbeRB3CiUfAizWUrbeeZh5K1rhAQKCh51"])
async def test_a_job_that_its_owner_ended_has_no_result_to_wait_for(no_result: str | None) -> None:
    clock = Clock()
    network = Network(**{BATCH: [completed(document(), ipfsResult=no_result, timeEnd=NOW)]})
    clock.advance(30)
    assert (await polled(network, clock)).state is JobState.RUNNING
    clock.advance(31)
    status = await polled(network, clock)
    assert status.error is not None
    assert status.error.error is errors.JOB_STOPPED


STOP = f"POST /jobs/{JOB}/stop"
STOPPED = {"tx": None, "job": JOB, "delisted": False, "outcome": "already_terminal"}


async def test_a_job_that_no_host_takes_is_withdrawn_and_only_then_failed() -> None:
    clock = Clock()
    network = Network(**{BATCH: [queued()], STOP: in_turn(answer({"message": "x"}, 500), STOPPED)})
    assert (await polled(network, clock)).state is JobState.QUEUED
    assert network.calls(STOP) == []
    clock.advance(601)
    assert (await polled(network, clock)).state is JobState.QUEUED
    status = await polled(network, clock)
    assert status.error is not None
    assert (status.state, status.error.error) == (JobState.FAILED, errors.NOT_STARTED)


async def test_a_job_whose_host_never_ends_it_is_stopped_before_another_is_bought() -> None:
    clock = Clock()
    network = Network(**{BATCH: [job()], STOP: in_turn(httpx.ReadTimeout("slow"), STOPPED)})
    clock.advance(3600 + 600)
    assert (await polled(network, clock)).state is JobState.RUNNING
    assert network.calls(STOP) == []
    clock.advance(1)
    assert (await polled(network, clock)).state is JobState.RUNNING
    status = await polled(network, clock)
    assert status.error is not None
    assert (status.state, status.error.error) == (JobState.FAILED, errors.HOST_FAILED)


async def test_a_job_that_its_host_left_is_ended_before_another_is_bought() -> None:
    network = Network(**{BATCH: [job(state=3)], STOP: in_turn(answer({}, 503), STOPPED)})
    assert (await polled(network)).state is JobState.RUNNING
    status = await polled(network)
    assert status.error is not None
    assert (status.state, status.error.error) == (JobState.FAILED, errors.HOST_FAILED)


async def test_a_fresh_job_that_the_indexer_does_not_know_is_waited_for() -> None:
    status = await polled(Network(**{BATCH: []}))
    assert status.state is JobState.QUEUED


async def test_a_job_that_is_gone_for_good_was_withdrawn() -> None:
    clock = Clock()
    clock.advance(400)
    assert (await polled(Network(**{BATCH: []}), clock)).state is JobState.CANCELLED


async def test_a_job_that_cannot_be_asked_after_is_not_taken_for_gone() -> None:
    clock = Clock()
    clock.advance(400)
    network = Network(**{BATCH: [], f"GET /jobs/{JOB}": answer({"message": "Internal server error"}, 500)})
    assert (await polled(network, clock)).state is JobState.RUNNING


async def test_cancel_stops_the_job() -> None:
    network = Network(**{STOP: {"tx": "sig", "job": JOB, "delisted": True, "outcome": "delisted"}})
    await compute_of(network, Clock()).cancel(HANDLE)
    assert len(network.calls(STOP)) == 1


async def test_a_job_too_young_to_be_known_cannot_be_taken_for_stopped() -> None:
    network, clock = Network(), Clock()
    compute = compute_of(network, clock)
    with pytest.raises(OracleError) as caught:
        await compute.cancel(HANDLE)
    assert caught.value.verdict is Verdict.RETRY
    clock.advance(400)
    await compute.cancel(HANDLE)


# --- money ---


async def test_a_quote_is_the_time_that_the_task_allows_at_the_price_with_the_fee() -> None:
    quote = await compute_of(Network(), Clock()).quote(replace(TASK, timeout_seconds=900))
    # 0.0436 USD an hour and ten per cent, for a quarter of an hour.
    assert quote.cost == Money(0.01199, "USD")
    assert (quote.cost_lamports, quote.expected_seconds) == (119_900, 300.0)


async def test_the_balance_is_what_is_neither_reserved_nor_spent() -> None:
    network = Network(
        **{"GET /credits/balance": {"assignedCredits": 100.5, "reservedCredits": 0.34, "settledCredits": 74.595}}
    )
    compute = compute_of(network, Clock())
    assert isinstance(compute, Describing)
    assert await compute.balance() == Money(25.565, "USD")
    # Reserved and settled are used; `assigned` is all that the account was ever given.
    assert await compute.allowance() == Allowance(Decimal("25.565"), Decimal("74.935"), Decimal("100.5"))


async def test_the_markets_are_told_with_the_one_that_would_be_used() -> None:
    compute = compute_of(Network(), Clock())
    listed = await compute.markets()
    assert (listed[0].slug, listed[0].is_chosen) == ("nvidia-3060", True)
    assert all(one.queued is not None for one in listed if not one.why_not)


@pytest.mark.parametrize("reply", [{}, [], {"assignedCredits": "1"}])
async def test_a_balance_that_is_not_told_is_not_zero(reply: Any) -> None:
    with pytest.raises(OracleError):
        await compute_of(Network(**{"GET /credits/balance": reply}), Clock()).balance()


READ = [market for item in MARKETS if (market := read_market(item)) is not None]
ANY = Wanted(max_usd_per_hour=Decimal(1), min_vram_gb=0, max_queued_jobs=5)


def test_the_cheapest_market_comes_first() -> None:
    offers = fitting(READ, ANY, None)
    assert [(offer.market.slug, offer.usd_per_hour) for offer in offers] == [
        ("nvidia-3060", Decimal("0.04796")),
        ("nvidia-4090-community", Decimal("0.2399925")),
    ]


@pytest.mark.parametrize(
    ("wanted", "slugs"),
    [
        (replace(ANY, min_vram_gb=12), ["nvidia-4090-community"]),
        (replace(ANY, max_usd_per_hour=Decimal("0.1")), ["nvidia-3060"]),
        (replace(ANY, kinds=("COMMUNITY",)), ["nvidia-4090-community"]),
        (replace(ANY, markets=("nvidia-4090-community",)), ["nvidia-4090-community"]),
        (replace(ANY, markets=(MARKET,)), ["nvidia-3060"]),
    ],
)
def test_only_what_fits_is_offered(wanted: Wanted, slugs: list[str]) -> None:
    assert [offer.market.slug for offer in fitting(READ, wanted, None)] == slugs


@pytest.mark.parametrize(
    "wanted",
    [
        replace(ANY, min_vram_gb=48),
        replace(ANY, max_usd_per_hour=Decimal("0.01")),
        replace(ANY, kinds=("OTHER",)),
        replace(ANY, markets=("elsewhere",)),
    ],
)
def test_where_nothing_fits_the_reason_is_told(wanted: Wanted) -> None:
    with pytest.raises(OracleError) as caught:
        fitting(READ, wanted, None)
    assert caught.value.error is errors.NO_MARKET
    assert caught.value.detail.startswith("of 2,")


def test_a_market_without_a_price_in_dollars_is_priced_in_nos() -> None:
    priceless = read_market(MARKETS[0] | {"usd_reward_per_hour": None})
    assert priceless is not None
    assert fitting([priceless], ANY, Decimal("0.3"))[0].usd_per_hour == Decimal("0.2328480")
    with pytest.raises(OracleError):
        fitting([priceless], ANY, None)


def test_a_market_that_hides_its_memory_is_used_only_where_it_is_named() -> None:
    silent = read_market({name: value for name, value in MARKETS[1].items() if name != "lowest_vram"})
    assert silent is not None
    with pytest.raises(OracleError):
        fitting([silent], ANY, None)
    assert fitting([silent], replace(ANY, markets=("nvidia-3060",)), None)


def test_a_market_with_a_long_or_unknown_queue_is_passed_over() -> None:
    offers = fitting(READ, ANY, None)
    assert choose(offers, {MARKET: 6, OTHER_MARKET: 5}, ANY).market.address == OTHER_MARKET
    assert choose(offers, {OTHER_MARKET: 0}, ANY).market.address == OTHER_MARKET
    assert choose(offers, {MARKET: 0, OTHER_MARKET: 0}, ANY, refused={MARKET}).market.address == OTHER_MARKET
    with pytest.raises(OracleError) as caught:
        choose(offers, {}, ANY)
    assert caught.value.verdict is Verdict.RETRY


@pytest.mark.parametrize("item", [None, [], {}, {"address": 7}])
def test_what_is_no_market_is_left_out(item: Any) -> None:
    assert read_market(item) is None


async def test_prices_and_queues_are_read_once_a_minute() -> None:
    network, clock = Network(), Clock()
    compute = compute_of(network, clock)
    for _ in range(5):
        await compute.quote(TASK)
    assert len(network.calls("GET /markets/")) == 1
    assert len(network.calls("GET /jobs/count")) == 2
    clock.advance(61)
    await compute.quote(TASK)
    assert len(network.calls("GET /markets/")) == 2


# --- building ---


async def test_a_provider_is_built_from_its_settings() -> None:
    network = Network()
    settings = {
        "kind": "nosana",
        "api_key": "nos_secret_key",
        "pinata_jwt": "jwt-secret",
        "base_url": "https://api.nosana.example",
        "pinning_url": "https://pin.example",
        "gateway_url": "https://gateway.example",
        "template": "llamacpp",
        "models": ["bartowski/SmolLM2-135M-Instruct-GGUF:Q8_0"],
        "markets": ["nvidia-4090-community"],
    }
    compute = build("nosana", settings, transport=httpx.MockTransport(network.answer), environ={})
    task = replace(TASK, model="bartowski/SmolLM2-135M-Instruct-GGUF:Q8_0")
    await compute.submit(task, KEY)
    (post,) = network.calls(LIST)
    assert orjson.loads(post.content)["market"] == OTHER_MARKET
    (pin,) = network.calls("POST /pinning/pinJSONToIPFS")
    assert orjson.loads(pin.content)["ops"][0]["args"]["image"] == "ghcr.io/ggml-org/llama.cpp:server-cuda"
    hosts = {request.url.host: request.headers.get("authorization") for request in network.requests}
    assert hosts == {
        "api.nosana.example": "Bearer nos_secret_key",
        "pin.example": "Bearer jwt-secret",
        "gateway.example": None,
    }
    await compute.close()


@pytest.mark.parametrize("missing", ["api_key", "pinata_jwt"])
def test_a_provider_without_its_secrets_is_not_built(missing: str) -> None:
    settings = {"kind": "nosana", "api_key": "nos_x", "pinata_jwt": "y"}
    del settings[missing]
    with pytest.raises(OracleError) as caught:
        build("nosana", settings, environ={})
    assert caught.value.error is errors.SETTINGS_INVALID
