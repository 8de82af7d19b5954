"""An inference server in a deployment of Nosana, from its price to its end, against the emulator and its mishaps."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

import httpx
import pytest
from provider_jobs import ended
from rented_jobs import MODEL, TASK, error_of, run

from oracle.core.compute import IdempotencyKey, JobState, Message, Output, Piece
from oracle.localnet.emulators.nosana import Account, Nosana
from oracle.localnet.emulators.nosana.timings import Timings
from oracle.localnet.emulators.openai import Personality, ScriptedOpenAI
from oracle.localnet.emulators.server import Running, serve
from oracle.providers import errors
from oracle.providers.pricing import FixedRates
from oracle.providers.registry import build
from oracle.providers.rented.compute import RentedCompute

pytestmark = pytest.mark.localnet

CREATE = "POST /deployments/create"
ENGINES = {
    "vllm": MODEL,
    "llamacpp": "bartowski/SmolLM2-135M-Instruct-GGUF:Q8_0",
    "ollama": "smollm2:135m",
}


@dataclass
class Network:
    """The emulator, and providers on it: one after another, as processes would be."""

    emulator: Nosana
    running: Running

    def provider(self, **settings: Any) -> RentedCompute:
        options = {"kind": "nosana_deployment", "api_key": "nos_localnet", "repository": MODEL, **settings}
        compute = build(
            "gpus", {"base_url": self.running.url, **options}, rates=FixedRates(sol_usd=Decimal(100)), environ={}
        )
        assert isinstance(compute, RentedCompute)
        compute.server._patience = replace(compute.server._patience, poll=0.01, settle=0.2)
        return compute

    def deployments(self) -> list[dict[str, Any]]:
        return list(self.emulator.books()["deployments"])

    def live_jobs(self) -> list[dict[str, Any]]:
        """What costs money."""
        jobs = self.emulator.books()["jobs"]
        return [job for job in jobs if job["state"] in ("QUEUED", "RUNNING") and not job["delisted"]]

    def calls(self, path: str) -> int:
        return sum(f"{call.method} {call.path}" == path for call in self.running.calls)


@asynccontextmanager
async def nosana(**options: Any) -> AsyncIterator[Network]:
    async with serve(ScriptedOpenAI(Personality.VLLM)) as scripted:
        emulator = Nosana(f"{scripted.url}/v1", **options)
        async with serve(emulator) as running:
            yield Network(emulator, running)


@pytest.fixture
async def network() -> AsyncIterator[Network]:
    async with nosana() as network:
        yield network


async def test_a_batch_runs_on_one_deployment_which_is_then_given_back(network: Network) -> None:
    compute = network.provider(expected_answers=4)
    quote = await compute.quote(TASK)
    assert quote.cost_lamports > 0
    handles = [await compute.submit(replace(TASK, seed=at), IdempotencyKey(str(at))) for at in range(4)]
    assert {(await ended(compute, handle)).state for handle in handles} == {JobState.SUCCEEDED}
    outputs = [await compute.fetch(handle) for handle in handles]
    assert {output.model_run for output in outputs} == {MODEL}
    assert all(output.cost_lamports for output in outputs)
    assert sum(output.cost_lamports or 0 for output in outputs) <= 4 * quote.cost_lamports
    (deployment,) = network.deployments()
    assert (deployment["status"], deployment["replicas"], deployment["timeout_minutes"]) == ("RUNNING", 1, 120)
    assert len(network.live_jobs()) == 1
    compute.server._idle_since -= 100_000
    await compute.server.look_after()
    assert network.live_jobs() == []
    assert network.deployments()[0]["status"] == "ARCHIVED"
    await compute.close()


@pytest.mark.parametrize("engine", ENGINES)
async def test_every_engine_serves_and_streams_and_stops_with_the_daemon(network: Network, engine: str) -> None:
    model = ENGINES[engine]
    compute = network.provider(engine=engine, repository=model)
    *pieces, output = [piece async for piece in compute.stream(replace(TASK, model=model))]
    assert isinstance(output, Output)
    assert "".join(piece.text for piece in pieces if isinstance(piece, Piece)).encode() == output.content
    assert output.model_run == model
    await compute.close()
    assert network.live_jobs() == []


async def test_a_server_asks_its_callers_for_the_key_that_follows_from_its_name(network: Network) -> None:
    compute = network.provider()
    await compute.answer(TASK)
    listed = await compute.server._landlord.rentals("oracle-gpus")
    seen = await compute.server._landlord.look(listed[0])
    assert seen is not None
    assert seen.address is not None
    async with httpx.AsyncClient(trust_env=False, timeout=60) as stranger:
        assert (await stranger.get(f"{seen.address}/models")).status_code == 401
    await compute.close()


async def test_after_a_kill_the_deployment_is_found_by_its_name_and_used(network: Network) -> None:
    await network.provider().answer(TASK)
    # kill -9: the first process gives nothing back.
    after = network.provider()
    await after.server.look_after()
    assert (await after.answer(TASK)).content
    assert len(network.deployments()) == 1
    assert network.calls(CREATE) == 1
    await after.close()
    assert network.live_jobs() == []


async def test_a_draft_that_a_dead_process_left_is_started_when_it_is_needed(network: Network) -> None:
    first = network.provider()
    landlord = first.server._landlord
    await landlord.create(first.server._naming.next([]))
    assert network.deployments()[0]["status"] == "DRAFT"
    after = network.provider()
    assert (await after.answer(TASK)).content
    assert len(network.deployments()) == 1


@pytest.mark.parametrize(
    "change", [{"engine": "llamacpp"}, {"replicas": 2}, {"image": "docker.io/vllm/vllm-openai:v1"}]
)
async def test_what_an_earlier_configuration_left_is_ended(network: Network, change: dict[str, Any]) -> None:
    other = network.provider(**change)
    await other.server._landlord.create(other.server._naming.next([]))
    await network.provider().server.look_after()
    assert {one["status"] for one in network.deployments()} == {"ARCHIVED"}


@pytest.mark.parametrize(
    "fault",
    [
        {"kind": "lose_answer"},
        {"kind": "drop"},
        {"kind": "truncate"},
        {"kind": "malformed"},
        {"kind": "html", "status": 502},
        {"kind": "error", "status": 503},
    ],
    ids=lambda fault: str(fault["kind"]),
)
async def test_a_creation_whose_answer_is_lost_leaves_one_server_and_nothing_unseen(
    network: Network, fault: dict[str, Any]
) -> None:
    network.emulator.faults.add(on=CREATE, **fault)
    compute = network.provider()
    for attempt in ("first", "second"):
        # Where it was not made after all, the next request makes it.
        status = await run(compute, attempt)
        if status.state is JobState.SUCCEEDED:
            break
    assert status.state is JobState.SUCCEEDED
    await compute.server.look_after()
    assert len(network.live_jobs()) == 1
    await compute.close()
    assert network.live_jobs() == []


async def test_two_that_were_made_under_one_name_become_one(network: Network) -> None:
    network.emulator.faults.add("twice", on=CREATE)
    compute = network.provider()
    await compute.answer(TASK)
    assert len(network.deployments()) == 2
    await compute.server.look_after()
    assert sorted(one["status"] for one in network.deployments()) == ["ARCHIVED", "RUNNING"]
    await compute.close()


async def test_a_start_whose_answer_is_lost_is_not_a_second_start(network: Network) -> None:
    network.emulator.faults.add("lose_answer", on="POST /deployments/*/start")
    compute = network.provider()
    await compute.answer(TASK)
    assert len(network.emulator.books()["jobs"]) == 1
    await compute.close()


async def test_a_server_that_dies_before_it_serves_is_ended_and_says_why(network: Network) -> None:
    compute = network.provider(repository="no/such-model")
    error = await error_of(compute, replace(TASK, model="no/such-model"))
    assert error.error is errors.SERVER_NOT_UP
    assert "exit code 70" in str(error) or "has ended" in str(error)
    assert network.live_jobs() == []


async def test_without_credit_nothing_is_created() -> None:
    async with nosana(accounts=(Account(assigned_micro_usd=1_000),)) as network:
        assert (await error_of(network.provider())).error is errors.OUT_OF_CREDIT
        assert network.deployments() == []


async def test_a_market_that_is_too_dear_is_not_used(network: Network) -> None:
    assert (await error_of(network.provider(max_usd_per_hour="0.01"))).error is errors.NO_MARKET
    assert network.deployments() == []


async def test_a_host_that_shuts_down_is_replaced(network: Network) -> None:
    compute = network.provider()
    await compute.answer(TASK)
    (job,) = network.live_jobs()
    async with httpx.AsyncClient(
        trust_env=False, headers={"authorization": "Bearer nos_localnet"}, timeout=60
    ) as owner:
        (await owner.post(f"{network.running.url}/jobs/{job['address']}/stop")).raise_for_status()
    # The first call finds out; what was asked of a server that is gone cost nothing of its own, and is asked again.
    for attempt in ("first", "second"):
        status = await run(compute, attempt)
        if status.state is JobState.SUCCEEDED:
            break
    assert status.state is JobState.SUCCEEDED
    assert len(network.live_jobs()) == 1
    await compute.close()


async def test_private_requests_need_the_operators_word(network: Network) -> None:
    assert network.provider().capabilities.prompts_public
    private = replace(TASK, private=True)
    assert (await error_of(network.provider(), private)).error is errors.PRIVATE_REFUSED
    trusting = network.provider(strangers_may_read=True)
    assert not trusting.capabilities.prompts_public
    assert (await trusting.answer(private)).content
    await trusting.close()


async def test_no_prompt_reaches_what_is_published(network: Network) -> None:
    compute = network.provider()
    secret = "the launch code is swordfish"
    await compute.answer(replace(TASK, messages=(Message("user", secret),)))
    (job,) = network.live_jobs()
    await compute.close()
    async with asyncio.timeout(60), httpx.AsyncClient(trust_env=False, timeout=60) as anyone:
        while True:
            shown = (await anyone.get(f"{network.running.url}/jobs/{job['address']}")).json()
            if shown["ipfsResult"]:
                break
            await asyncio.sleep(0.02)
        published = [
            (await anyone.get(f"{network.running.url}/ipfs/{shown[which]}")).text for which in ("ipfsJob", "ipfsResult")
        ]
    assert all("swordfish" not in document for document in published)
    assert "opStates" in published[1]


async def test_a_queue_without_hosts_is_waited_for_no_longer_than_allowed() -> None:
    async with nosana(timings=Timings(queue_seconds=1_000)) as network:
        compute = network.provider(boot_seconds=0.2)
        assert (await error_of(compute)).error is errors.SERVER_NOT_UP
        assert network.live_jobs() == []
