"""The Nosana adapter against the Nosana emulator, which was written from the same pages by somebody else."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

import pytest
from provider_jobs import ended, until

from oracle.core.compute import Absent, CannotTell, Found, IdempotencyKey, JobState, Message, Task
from oracle.core.errors import ErrorCode, OracleError, Verdict
from oracle.localnet.emulators.nosana import Nosana
from oracle.localnet.emulators.nosana.accounts import Account
from oracle.localnet.emulators.nosana.timings import Timings
from oracle.localnet.emulators.openai import Personality, ScriptedOpenAI
from oracle.localnet.emulators.server import Running, serve
from oracle.model.server import LocalModel
from oracle.providers import errors
from oracle.providers.http import Http, Timeouts
from oracle.providers.nosana.api import NosanaApi
from oracle.providers.nosana.compute import NosanaCompute, Terms
from oracle.providers.nosana.look_up import LookUp
from oracle.providers.nosana.market_place import MarketPlace
from oracle.providers.nosana.markets import Wanted
from oracle.providers.nosana.purchase import Purchase
from oracle.providers.nosana.templates import built_in
from oracle.providers.pace import Pace
from oracle.providers.pricing import FixedRates
from oracle.providers.registry import build

pytestmark = pytest.mark.localnet

MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"
TASK = Task(MODEL, (Message("user", "What is six times seven?"),), max_output_tokens=32, seed=7, timeout_seconds=60)
KEY = IdempotencyKey("5f0c2f8e-2a41-4f7e-9a9f-0d3c1b2a4e5f")
LIST = "POST /jobs/list"
WANTED = Wanted(max_usd_per_hour=Decimal("0.5"), min_vram_gb=8, max_queued_jobs=5)


class Clock:
    """Wall and monotonic time of adapter and emulator alike; stands still until it is moved."""

    def __init__(self) -> None:
        self.seconds = 1_785_000_000.0

    def __call__(self) -> float:
        return self.seconds


async def at_once(seconds: float) -> None:
    await asyncio.sleep(0)


@dataclass
class Network:
    emulator: Nosana
    running: Running
    clock: Clock

    def compute(
        self,
        *,
        wanted: Wanted = WANTED,
        api_key: str = "nos_localnet",
        project: str | None = None,
        sleep: Callable[[float], Awaitable[None]] = at_once,
    ) -> NosanaCompute:
        """The adapter as a process of its own would build it: nothing in its memory."""

        def http(**headers: str) -> Http:
            timeouts = Timeouts(silence=60.0, total=60.0)
            return Http("nosana", self.running.url, pace=Pace(), headers=headers, timeouts=timeouts)

        api = NosanaApi(
            http(Authorization=f"Bearer {api_key}"),
            http(Authorization="Bearer localnet-pinata"),
            http(),
            listing=Pace(),
        )
        return NosanaCompute(
            "nosana",
            api,
            Terms(built_in("vllm")),
            MarketPlace(api, wanted, clock=self.clock),
            LookUp(api, api_key=api_key, project=project, clock=self.clock, now=self.clock),
            Purchase(api, clock=self.clock, now=self.clock, sleep=sleep),
            rates=FixedRates(sol_usd=Decimal(100)),
            clock=self.clock,
            now=self.clock,
            sleep=sleep,
        )

    def jobs(self) -> list[dict[str, Any]]:
        return list(self.emulator.books()["jobs"])

    def calls(self, path: str) -> int:
        return sum(call.path == path for call in self.running.calls)


@asynccontextmanager
async def served(
    timings: Timings | None = None, accounts: tuple[Account, ...] = (Account(),)
) -> AsyncIterator[Network]:
    clock = Clock()
    async with serve(ScriptedOpenAI(Personality.VLLM)) as scripted:
        emulator = Nosana(f"{scripted.url}/v1", timings=timings, accounts=accounts, now=clock)
        async with serve(emulator) as running:
            yield Network(emulator, running, clock)


@pytest.fixture
async def network() -> AsyncIterator[Network]:
    async with served() as running:
        yield running


# --- from beginning to end ---


async def test_a_job_runs_from_quote_to_output_and_is_paid_as_told(network: Network) -> None:
    compute = network.compute()
    quote = await compute.quote(TASK)
    before = await compute.balance()
    handle = await compute.submit(TASK, KEY)
    assert (await ended(compute, handle)).state is JobState.SUCCEEDED
    output = await compute.fetch(handle)
    assert output.content
    assert output.model_run == MODEL
    assert output.output_tokens
    assert quote.cost_lamports > 0
    (job,) = network.jobs()
    assert (job["address"], job["state"]) == (handle.job_id, "COMPLETED")
    assert before is not None
    assert before.amount == 10.0
    assert output.cost is not None
    assert output.cost.amount == pytest.approx(job["settled_micro_usd"] / 1e6, abs=1e-6)
    await compute.close()


async def test_another_process_fetches_what_this_one_bought(network: Network) -> None:
    first = network.compute()
    handle = await first.submit(TASK, KEY)
    await ended(first, handle)
    # As the database hands it back.
    stored = replace(handle, detail=json.loads(json.dumps(dict(handle.detail))))
    second = network.compute()
    assert (await second.poll([stored]))[stored].state is JobState.SUCCEEDED
    assert (await second.fetch(stored)) == (await first.fetch(handle))


async def test_many_jobs_are_bought_followed_and_never_mixed_up(network: Network) -> None:
    compute = network.compute(wanted=replace(WANTED, max_queued_jobs=100))
    tasks = [replace(TASK, messages=(Message("user", f"question {number}"),)) for number in range(12)]
    handles = await asyncio.gather(*(compute.submit(t, IdempotencyKey(f"key-{n}")) for n, t in enumerate(tasks)))
    for handle in handles:
        assert (await ended(compute, handle)).state is JobState.SUCCEEDED
    outputs = [(await compute.fetch(handle)).content for handle in handles]
    # The scripted model derives its text from the question, so a mix-up would show.
    again = await compute.fetch(await compute.submit(tasks[5], IdempotencyKey("key-5")))
    assert again.content == outputs[5]
    assert len(set(outputs)) == len(network.jobs()) == 12


# --- bought once ---


LOST: list[dict[str, Any]] = [
    {"kind": "lose_answer"},
    {"kind": "drop"},
    {"kind": "truncate"},
    {"kind": "malformed"},
    {"kind": "twice"},
    {"kind": "html", "status": 502},
    {"kind": "html", "status": 504},
    {"kind": "error", "status": 500},
    {"kind": "error", "status": 503},
    {"kind": "lose_answer", "count": 3},
]


@pytest.mark.parametrize("fault", LOST, ids=lambda fault: "-".join(str(value) for value in fault.values()))
async def test_whatever_is_lost_one_job_is_bought(network: Network, fault: dict[str, Any]) -> None:
    network.emulator.faults.add(on=LIST, **fault)
    compute = network.compute()
    handle = await compute.submit(TASK, KEY)
    assert [job["address"] for job in network.jobs()] == [handle.job_id]
    assert (await ended(compute, handle)).state is JobState.SUCCEEDED


async def test_a_transaction_that_expires_is_made_again_under_the_next_epoch(network: Network) -> None:
    network.emulator.faults.add("transaction_expires", count=2)
    compute = network.compute()
    handle = await compute.submit(TASK, KEY)
    assert [job["address"] for job in network.jobs()] == [handle.job_id]
    assert sorted(network.emulator.books()["idempotency_keys"]) == [f"{KEY}:0", f"{KEY}:1", f"{KEY}:2"]


async def test_two_processes_under_one_key_buy_one_job() -> None:
    async with served(Timings(create_seconds=0.05)) as network:
        waiting = network.compute(sleep=lambda seconds: asyncio.sleep(0.02))
        first, second = await asyncio.gather(network.compute().submit(TASK, KEY), waiting.submit(TASK, KEY))
        assert first == second
        assert len(network.jobs()) == 1


class Killed(Exception):
    """Stands for `kill -9`: nothing of what was in memory is left."""


async def killed(seconds: float) -> None:
    raise Killed


async def buy_and_die(network: Network, **options: Any) -> None:
    """A process whose purchase went through, and which dies before it learns of it."""
    network.emulator.faults.add("lose_answer", on=LIST)
    with pytest.raises(Killed):
        await network.compute(sleep=killed, **options).submit(TASK, KEY)
    assert len(network.jobs()) == 1


async def test_a_purchase_of_a_process_that_died_is_found_and_its_output_fetched(network: Network) -> None:
    await buy_and_die(network)
    compute = network.compute()
    found = await compute.find(KEY)
    assert isinstance(found, Found)
    assert found.handle.job_id == network.jobs()[0]["address"]
    assert (await ended(compute, found.handle)).state is JobState.SUCCEEDED
    assert (await compute.fetch(found.handle)).model_run == MODEL


async def test_a_purchase_that_the_indexer_does_not_know_yet_is_not_bought_again() -> None:
    async with served(Timings(read_lag_seconds=30.0)) as network:
        await buy_and_die(network)
        compute = network.compute()
        assert isinstance(await compute.find(KEY), CannotTell)
        handle = await compute.submit(TASK, KEY)
        assert [job["address"] for job in network.jobs()] == [handle.job_id]


async def test_a_purchase_is_recognised_though_another_market_would_be_chosen_now(network: Network) -> None:
    await buy_and_die(network, wanted=replace(WANTED, markets=("nvidia-4090-community",)))
    handle = await network.compute().submit(TASK, KEY)
    assert [job["address"] for job in network.jobs()] == [handle.job_id]


async def test_a_purchase_that_never_went_out_is_absent_once_the_indexer_has_had_its_time(network: Network) -> None:
    compute = network.compute(project=Account().address)
    assert isinstance(await compute.find(KEY), CannotTell)
    network.clock.seconds += 400
    assert await compute.find(KEY) == Absent()
    assert network.jobs() == []


async def test_a_search_that_is_rate_limited_is_no_answer(network: Network) -> None:
    network.emulator.faults.add("rate_limit", on="GET /jobs", count=None)
    with pytest.raises(OracleError) as caught:
        await network.compute().find(KEY)
    assert (caught.value.error, caught.value.verdict) == (errors.RATE_LIMITED, Verdict.RETRY)


async def test_jobs_of_others_are_not_found() -> None:
    other = Account(api_key="nos_other", user_id="user-2", address="4f4aykQByWqVqyrsoevsAvkVxqYFHy3uaiYPupTsjGPN")
    async with served(accounts=(Account(), other)) as network:
        await network.compute(api_key="nos_other").submit(TASK, KEY)
        assert isinstance(await network.compute().find(KEY), CannotTell)


# --- judged by its results ---


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        ({"kind": "operation_fails", "exit_code": 3}, errors.JOB_FAILED),
        ({"kind": "image_missing"}, errors.JOB_FAILED),
        ({"kind": "out_of_memory"}, errors.JOB_FAILED),
        ({"kind": "expires"}, errors.JOB_TIMED_OUT),
        ({"kind": "host_shuts_down"}, errors.HOST_FAILED),
        ({"kind": "host_quits"}, errors.HOST_FAILED),
        ({"kind": "blank_result"}, errors.HOST_FAILED),
        ({"kind": "loses_output"}, errors.OUTPUT_DAMAGED),
        ({"kind": "corrupts_output"}, errors.OUTPUT_DAMAGED),
        ({"kind": "loses_logs"}, None),
    ],
    ids=lambda value: value.get("kind") if isinstance(value, dict) else "",
)
async def test_every_ending_is_told_for_what_it_is(
    network: Network, fault: dict[str, Any], expected: ErrorCode | None
) -> None:
    network.emulator.faults.add(**fault)
    compute = network.compute()
    status = await ended(compute, await compute.submit(TASK, KEY))
    if expected is None:
        assert status.state is JobState.SUCCEEDED
        return
    assert status.error is not None
    assert (status.state, status.error.error) == (JobState.FAILED, expected)
    assert status.error.verdict is Verdict.RETRY


async def test_a_model_that_does_not_exist_fails_on_its_host(network: Network) -> None:
    compute = network.compute()
    status = await ended(compute, await compute.submit(replace(TASK, model="nobody/nothing"), KEY))
    assert status.error is not None
    assert status.error.error is errors.JOB_FAILED
    assert "70" in status.error.detail


async def test_a_result_is_taken_from_rest_while_the_gateway_is_down(network: Network) -> None:
    compute = network.compute()
    handle = await compute.submit(TASK, KEY)
    network.emulator.faults.add("html", on="GET /ipfs/*", count=None)
    assert (await ended(compute, handle)).state is JobState.SUCCEEDED


async def test_a_job_that_no_host_takes_is_withdrawn(network: Network) -> None:
    network.emulator.faults.add("never_starts")
    compute = network.compute()
    handle = await compute.submit(TASK, KEY)
    assert (await compute.poll([handle]))[handle].state is JobState.QUEUED
    network.clock.seconds += 601
    status = await ended(compute, handle)
    assert status.error is not None
    assert status.error.error is errors.NOT_STARTED
    (job,) = network.jobs()
    assert (job["delisted"], job["reserved_micro_usd"]) == (True, 0)


async def test_a_job_whose_host_crashed_is_ended_before_it_is_given_up(network: Network) -> None:
    network.emulator.faults.add("never_finishes")
    compute = network.compute()
    handle = await compute.submit(TASK, KEY)
    await until(compute, handle, lambda status: status.state is JobState.RUNNING)
    network.clock.seconds += 3600 + 601
    status = await ended(compute, handle)
    assert status.error is not None
    assert status.error.error is errors.HOST_FAILED
    assert network.jobs()[0]["state"] == "COMPLETED"


@pytest.mark.parametrize("fault", ["never_starts", "hangs"])
async def test_a_cancelled_job_is_ended_and_its_credit_given_back(network: Network, fault: str) -> None:
    network.emulator.faults.add(fault)
    compute = network.compute()
    handle = await compute.submit(TASK, KEY)
    live = JobState.QUEUED if fault == "never_starts" else JobState.RUNNING
    await until(compute, handle, lambda status: status.state is live)
    await compute.cancel(handle)
    await compute.cancel(handle)
    (job,) = network.jobs()
    assert job["reserved_micro_usd"] == 0
    network.clock.seconds += 61
    assert (await ended(compute, handle)).state in (JobState.CANCELLED, JobState.FAILED)


# --- refused ---


async def test_a_wrong_key_buys_nothing(network: Network) -> None:
    with pytest.raises(OracleError) as caught:
        await network.compute(api_key="nos_wrong").submit(TASK, KEY)
    assert caught.value.error is errors.CREDENTIALS_REFUSED
    assert network.jobs() == []


async def test_an_empty_account_buys_nothing() -> None:
    async with served(accounts=(Account(assigned_micro_usd=1000),)) as network:
        compute = network.compute()
        with pytest.raises(OracleError) as caught:
            await compute.submit(TASK, KEY)
        assert caught.value.error is errors.OUT_OF_CREDIT
        assert network.jobs() == []
        balance = await compute.balance()
        assert balance is not None
        assert balance.amount == 0.001


@pytest.mark.parametrize(
    ("on", "fault"),
    [
        ("POST /pinning/*", {"kind": "error"}),
        ("POST /pinning/*", {"kind": "malformed"}),
        ("GET /ipfs/*", {"kind": "html"}),
        ("GET /markets", {"kind": "truncate"}),
        ("GET /markets", {"kind": "malformed"}),
    ],
)
async def test_trouble_before_the_purchase_buys_nothing_and_may_be_tried_again(
    network: Network, on: str, fault: dict[str, Any]
) -> None:
    network.emulator.faults.add(on=on, **fault)
    compute = network.compute()
    with pytest.raises(OracleError) as caught:
        await compute.submit(TASK, KEY)
    assert caught.value.verdict is Verdict.RETRY
    assert network.jobs() == []
    assert (await ended(compute, await compute.submit(TASK, KEY))).state is JobState.SUCCEEDED


async def test_a_poll_that_fails_changes_nothing(network: Network) -> None:
    compute = network.compute()
    handle = await compute.submit(TASK, KEY)
    for kind in ("html", "malformed", "drop", "error"):
        network.emulator.faults.add(kind, on="POST /jobs/batch")
        with pytest.raises(OracleError) as caught:
            await compute.poll([handle])
        assert caught.value.verdict is Verdict.RETRY
    assert (await ended(compute, handle)).state is JobState.SUCCEEDED


# --- for real ---


@pytest.mark.model
async def test_the_real_model_answers_through_settings_alone(model: LocalModel) -> None:
    async with serve(Nosana(model.base_url)) as running:
        settings = {
            "kind": "nosana",
            "api_key": "nos_localnet",
            "pinata_jwt": "localnet-pinata",
            "base_url": running.url,
            "pinning_url": running.url,
            "gateway_url": running.url,
        }
        compute = build("nosana", settings, rates=FixedRates(sol_usd=Decimal(100)), environ={})
        handle = await compute.submit(TASK, KEY)
        assert (await ended(compute, handle)).state is JobState.SUCCEEDED
        output = await compute.fetch(handle)
        assert output.content.decode().strip()
        assert output.model_run == MODEL
        await compute.close()
