"""An inference container on IO Cloud from its price to its end, against the emulator and all that it can do wrong."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

import httpx
import pytest
from provider_jobs import ended
from rented_jobs import MODEL, TASK, error_of, run

from oracle.core.compute import IdempotencyKey, JobState, Output, Piece, Recovery
from oracle.core.errors import OracleError
from oracle.localnet.emulators.ionet import ApiKey, IonetCloud
from oracle.localnet.emulators.openai import Personality, ScriptedOpenAI
from oracle.localnet.emulators.server import Running, serve
from oracle.providers import errors
from oracle.providers.pricing import FixedRates
from oracle.providers.registry import build
from oracle.providers.rented.compute import RentedCompute

pytestmark = pytest.mark.localnet

RATES = FixedRates(sol_usd=Decimal(100))
# An RTX 4090 for an hour: 0.30 USD, 0.25 % and 2 % of fees.
HOUR_USD = Decimal("0.30675")
SETTINGS = {"kind": "ionet_cloud", "api_key": "io-cloud-localnet", "repository": MODEL, "hardware": [12]}
DEPLOY, LIST = "POST /deploy", "GET /deployments"


@dataclass
class Cloud:
    """The emulator, and providers on it: one after another, as processes would be."""

    emulator: IonetCloud
    running: Running

    def provider(self, transport: httpx.AsyncBaseTransport | None = None, **settings: Any) -> RentedCompute:
        base_url = f"{self.running.url}/enterprise/v1/io-cloud/caas"
        compute = build(
            "gpus", SETTINGS | {"base_url": base_url} | settings, rates=RATES, transport=transport, environ={}
        )
        assert isinstance(compute, RentedCompute)
        compute.server._patience = replace(compute.server._patience, poll=0.01, settle=0.2)
        return compute

    def rentals(self) -> list[dict[str, Any]]:
        return list(self.emulator.books()["rentals"])

    def live(self) -> list[str]:
        return [one["id"] for one in self.rentals() if one["status"] in ("deployment requested", "running")]

    async def destroy_all(self) -> None:
        """As somebody at the console would."""
        headers = {"X-API-KEY": "io-cloud-localnet"}
        async with httpx.AsyncClient(trust_env=False, headers=headers, timeout=60) as http:
            for rental in self.live():
                path = f"/enterprise/v1/io-cloud/caas/deployment/{rental}"
                (await http.delete(self.running.url + path)).raise_for_status()


@asynccontextmanager
async def ionet_cloud(**options: Any) -> AsyncIterator[Cloud]:
    async with serve(ScriptedOpenAI(Personality.VLLM)) as scripted:
        emulator = IonetCloud(f"{scripted.url}/v1", **options)
        async with serve(emulator) as running:
            yield Cloud(emulator, running)


@pytest.fixture
async def cloud() -> AsyncIterator[Cloud]:
    async with ionet_cloud() as cloud:
        yield cloud


async def test_a_batch_runs_on_one_container_which_is_then_given_back(cloud: Cloud) -> None:
    compute = cloud.provider(expected_answers=4, idle_seconds=1)
    quote = await compute.quote(TASK)
    assert quote.expected_seconds == 630.0
    assert compute.capabilities.recovery is Recovery.REPEAT
    handles = [await compute.submit(replace(TASK, seed=at), IdempotencyKey(str(at))) for at in range(4)]
    assert {(await ended(compute, handle)).state for handle in handles} == {JobState.SUCCEEDED}
    outputs = [await compute.fetch(handle) for handle in handles]
    (rental,) = cloud.rentals()
    assert {output.model_run for output in outputs} == {MODEL}
    # The hour that was paid is split over those that used it.
    costs = [Decimal(str(output.cost.amount)) for output in outputs if output.cost]
    assert sum(costs) == pytest.approx(HOUR_USD)
    assert len(costs) == 4
    assert max(output.cost_lamports or 0 for output in outputs) <= quote.cost_lamports
    assert Decimal(rental["paid_usd"]) == HOUR_USD
    # It serves already, so the next would not have to wait for it; nobody comes, so it ends.
    assert (await compute.quote(TASK)).expected_seconds == 30.0
    compute.server._idle_since -= 1
    await compute.server.look_after()
    assert cloud.live() == []
    await compute.close()


async def test_a_container_streams_and_embeds(cloud: Cloud) -> None:
    compute = cloud.provider()
    *pieces, output = [piece async for piece in compute.stream(TASK)]
    assert isinstance(output, Output)
    assert output.content.decode() == "".join(piece.text for piece in pieces if isinstance(piece, Piece))
    assert output.output_tokens
    found = await compute.embed(MODEL, ["a", "b"], seconds=20)
    assert len(found.vectors) == 2
    await compute.close()
    assert len(cloud.rentals()) == 1
    assert cloud.live() == []


async def test_llama_cpp_serves_in_its_own_image(cloud: Cloud) -> None:
    gguf = "bartowski/SmolLM2-135M-Instruct-GGUF:Q8_0"
    compute = cloud.provider(engine="llamacpp", repository=gguf, arguments=["--ctx-size", "4096"])
    assert (await compute.answer(replace(TASK, model=gguf))).model_run == gguf
    assert (await error_of(compute)).error is errors.MODEL_UNAVAILABLE
    await compute.close()


async def test_a_slow_container_is_waited_for_and_nobody_rents_a_second() -> None:
    async with ionet_cloud(provision_seconds=0.3, ready_seconds=0.3, destroy_seconds=0.3) as cloud:
        compute = cloud.provider()
        impatient = run(compute, "a", replace(TASK, timeout_seconds=0.1))
        patient = [run(compute, key) for key in ("b", "c")]
        first, *others = await asyncio.gather(impatient, *patient)
        assert first.error is not None
        assert first.error.error is errors.NOT_SENT
        assert [status.state for status in others] == [JobState.SUCCEEDED] * 2
        assert len(cloud.rentals()) == 1
        await compute.close()
        assert cloud.live() == []


@pytest.mark.parametrize("fault", ["upper_case", "id_as_cluster_id", "id_as_id"])
async def test_every_spelling_of_the_service_is_understood(cloud: Cloud, fault: str) -> None:
    cloud.emulator.faults.add(fault)
    compute = cloud.provider()
    assert (await compute.answer(TASK)).content
    await compute.close()
    assert cloud.live() == []


async def test_dropped_arguments_do_no_harm() -> None:
    async with ionet_cloud(drops_args=True) as cloud:
        compute = cloud.provider(arguments=["--max-model-len", "4096"])
        assert (await compute.answer(TASK)).content
        await compute.close()


@pytest.mark.parametrize("fault", ["provision_fails", "never_ready", "container_dies"])
async def test_a_container_that_does_not_come_up_is_given_back_and_the_next_one_serves(
    cloud: Cloud, fault: str
) -> None:
    cloud.emulator.faults.add(fault)
    compute = cloud.provider(boot_seconds=0.2)
    error = await error_of(compute)
    assert (error.error, error.retry_after_seconds) == (errors.SERVER_NOT_UP, 60.0)
    assert cloud.live() == []
    # At once it would only cost another hour.
    assert (await error_of(compute)).error is errors.SERVER_NOT_UP
    assert len(cloud.rentals()) == 1
    compute.server._cool_until -= 60
    compute.server._patience = replace(compute.server._patience, boot=60.0)
    assert (await compute.answer(TASK)).content
    assert len(cloud.live()) == 1
    await compute.close()
    assert cloud.live() == []


async def test_a_container_that_was_destroyed_under_us_is_followed_by_another(cloud: Cloud) -> None:
    compute = cloud.provider()
    await compute.answer(TASK)
    await cloud.destroy_all()
    error = await error_of(compute)
    assert error.error is errors.UNAVAILABLE
    assert (await compute.answer(TASK)).content
    assert len(cloud.rentals()) == 2
    await compute.close()
    assert cloud.live() == []


@pytest.mark.parametrize(
    "fault",
    [
        {"kind": "lose_answer", "on": DEPLOY},
        {"kind": "truncate", "on": DEPLOY},
        {"kind": "malformed", "on": DEPLOY},
        # The first is served, and the second refused: its name is taken.
        {"kind": "twice", "on": DEPLOY},
    ],
    ids=lambda fault: fault["kind"],
)
async def test_a_deployment_whose_answer_is_lost_is_found_by_its_name(cloud: Cloud, fault: dict[str, Any]) -> None:
    cloud.emulator.faults.add(**fault)
    compute = cloud.provider()
    assert (await compute.answer(TASK)).content
    assert len(cloud.rentals()) == 1
    await compute.close()
    assert cloud.live() == []


@pytest.mark.parametrize("on", ["GET /available-replicas", "GET /price", LIST, DEPLOY])
@pytest.mark.parametrize(
    "fault",
    [
        {"kind": "rate_limit", "retry_after": "0"},
        {"kind": "html"},
        {"kind": "error", "status": 503},
        {"kind": "drop"},
        {"kind": "malformed"},
    ],
    ids=lambda fault: fault["kind"],
)
async def test_a_refused_call_rents_nothing_twice(cloud: Cloud, on: str, fault: dict[str, Any]) -> None:
    cloud.emulator.faults.add(**fault, on=on)
    compute = cloud.provider()
    for key in "ab":
        status = await run(compute, key)
        if status.state is JobState.SUCCEEDED:
            break
        assert status.error is not None
        assert status.error.verdict.value == "retry"
    assert status.state is JobState.SUCCEEDED
    assert len(cloud.rentals()) == 1
    await compute.close()
    assert cloud.live() == []


@pytest.mark.parametrize(
    ("settings", "options", "expected"),
    [
        ({"max_usd_per_hour": "0.3067"}, {}, errors.NO_MARKET),
        ({"hardware": [999]}, {}, errors.NO_MARKET),
        ({"locations": ["FR"]}, {}, errors.NO_MARKET),
        ({"api_key": "wrong"}, {}, errors.CREDENTIALS_REFUSED),
        ({}, {"keys": (ApiKey(value="io-cloud-localnet", credit_usd=Decimal("0.3")),)}, errors.OUT_OF_CREDIT),
    ],
)
async def test_what_may_not_be_bought_is_not(settings: dict[str, Any], options: dict[str, Any], expected: Any) -> None:
    async with ionet_cloud(**options) as cloud:
        compute = cloud.provider(**settings)
        assert (await error_of(compute)).error is expected
        if expected is not errors.OUT_OF_CREDIT:
            with pytest.raises(OracleError) as caught:
                await compute.quote(TASK)
            assert caught.value.error is expected
        await compute.close()
        assert cloud.rentals() == []


async def test_a_name_that_somebody_else_has_is_stepped_over(cloud: Cloud) -> None:
    """Names may well be unique beyond the account, and nobody says for how long."""
    compute = cloud.provider()
    naming = compute.server._naming
    taken = naming.next([])
    body = {
        "resource_private_name": taken,
        "duration_hours": 1,
        "gpus_per_container": 1,
        "hardware_id": 12,
        "location_ids": [1],
        "container_config": {"traffic_port": 8080},
        "registry_config": {"image_url": "x"},
    }
    async with ionet_cloud(keys=(ApiKey(value="io-cloud-localnet"), ApiKey(value="other", key_id="key-2"))) as shared:
        async with httpx.AsyncClient(trust_env=False, headers={"X-API-KEY": "other"}, timeout=60) as http:
            url = f"{shared.running.url}/enterprise/v1/io-cloud/caas/deploy"
            (await http.post(url, json=body)).raise_for_status()
        compute = shared.provider()
        assert (await error_of(compute)).error is errors.SERVER_NOT_UP
        assert (await compute.answer(TASK)).content
        names = {rental["name"] for rental in shared.rentals()}
        assert names == {taken, naming.next([taken])}
        await compute.close()
        assert len(shared.live()) == 1


# --- killed ---


class Killed(BaseException):
    """What no `except` of the adapter catches, as nothing outlives a kill."""


class Fatal(httpx.AsyncBaseTransport):
    """Kills at the call of this number: before it is sent, or once its answer is there. Then nothing goes out."""

    def __init__(self, at: int, *, is_sent: bool) -> None:
        self._inner = httpx.AsyncHTTPTransport()
        self._left = at
        self._is_sent = is_sent
        self.has_killed = False

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if self.has_killed:
            raise Killed
        self._left -= 1
        if self._left >= 0:
            return await self._inner.handle_async_request(request)
        self.has_killed = True
        if self._is_sent:
            await (await self._inner.handle_async_request(request)).aread()
        raise Killed

    async def aclose(self) -> None:
        await self._inner.aclose()


async def lived(compute: RentedCompute) -> bool:
    """Whether it lived to give two answers."""
    try:
        await compute.answer(TASK)
        await compute.answer(TASK)
    except (Killed, OracleError):
        return False
    return True


async def closed(compute: RentedCompute) -> None:
    """As the daemon does it, which tends until it stops."""
    tending = asyncio.create_task(compute.tend())
    await asyncio.sleep(0)
    await compute.close()
    tending.cancel()


@pytest.mark.parametrize("is_sent", [False, True], ids=["unsent", "unanswered"])
async def test_killed_at_any_call_it_finds_its_container_again_and_never_keeps_two(is_sent: bool) -> None:
    async with ionet_cloud(provision_seconds=0.02, ready_seconds=0.02) as cloud:
        for step in itertools.count():
            fatal = Fatal(step, is_sent=is_sent)
            prefix = f"step-{step}"
            has_lived = await lived(cloud.provider(transport=fatal, name_prefix=prefix))
            await fatal.aclose()
            after = cloud.provider(name_prefix=prefix)
            assert (await after.answer(TASK)).content
            assert len(cloud.live()) == 1, f"killed at call {step}"
            await closed(after)
            assert cloud.live() == []
            assert len(cloud.rentals()) == step + 1, f"killed at call {step}"
            if has_lived:
                break
    # Two quotes, three questions of the list and of the name, the deployment, looks at it, its health, two answers.
    assert step >= 9


async def test_a_container_of_another_configuration_is_a_stray_and_one_of_another_name_is_not_ours(
    cloud: Cloud,
) -> None:
    """Three daemons die; what the fourth finds of its own name it uses or ends."""
    same, changed, foreign = (
        cloud.provider(),
        cloud.provider(arguments=["--seed", "1"]),
        cloud.provider(name_prefix="b"),
    )
    for compute in (same, changed, foreign):
        await compute.answer(TASK)
    assert len(cloud.live()) == 3
    after = cloud.provider()
    await after.server.look_after()
    names = Counter(one["name"].rpartition("-")[0] for one in cloud.rentals() if one["id"] in cloud.live())
    assert names == Counter(
        [prefix_of(compute) for compute in (same, foreign)],
    )
    await after.answer(TASK)
    assert len(cloud.rentals()) == 3
    for compute in (after, foreign):
        await closed(compute)
    assert cloud.live() == []


def prefix_of(compute: RentedCompute) -> str:
    naming = compute.server._naming
    return f"{naming.prefix}-{naming.fingerprint}"
