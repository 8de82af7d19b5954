"""A rented server as a provider: what is quoted, what each answer costs, what a lost call allows."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from decimal import Decimal

import pytest
from provider_wire import TASK
from rented_town import PATIENCE, PRICE, FakeClock, FakeLandlord, rented

from oracle.core.compute import IdempotencyKey, JobHandle, JobState, Output, Recovery, Synchronous, Task, Tended
from oracle.core.errors import OracleError
from oracle.providers import errors
from oracle.providers.chat import Limits
from oracle.providers.pricing import FixedRates
from oracle.providers.rented.compute import RentedCompute, RentedTerms
from oracle.providers.rented.landlord import RentalPrice
from oracle.providers.rented.meter import Meter

KEY = IdempotencyKey("11111111-2222-3333-4444-555555555555")
RATES = FixedRates(sol_usd=Decimal(100))


@pytest.fixture
def landlord() -> FakeLandlord:
    return FakeLandlord(FakeClock())


def compute(landlord: FakeLandlord, *, expected_answers: int = 1, prompts_public: bool = False) -> RentedCompute:
    return RentedCompute(
        "fast",
        landlord,
        rented(landlord, expected_answers=expected_answers),
        RentedTerms(TASK.model, expected_answers, expected_seconds=10.0, prompts_public=prompts_public),
        PATIENCE,
        limits=Limits(),
        rates=RATES,
        now=landlord.clock,
    )


async def output_of(provider: RentedCompute, handle: JobHandle) -> Output:
    async with asyncio.timeout(60):
        while True:
            status = (await provider.poll([handle]))[handle]
            if status.state not in (JobState.QUEUED, JobState.RUNNING):
                break
            await asyncio.sleep(0)
    assert status.state is JobState.SUCCEEDED, status
    return await provider.fetch(handle)


async def test_a_job_is_submitted_polled_and_fetched(landlord: FakeLandlord) -> None:
    provider = compute(landlord)
    assert isinstance(provider, Synchronous)
    assert isinstance(provider, Tended)
    output = await output_of(provider, await provider.submit(TASK, KEY))
    assert (output.content, output.model_run) == (b"id-1", TASK.model)
    await provider.close()
    assert landlord.running() == []


async def test_a_call_that_was_lost_is_made_again_since_only_time_is_paid(landlord: FakeLandlord) -> None:
    assert compute(landlord).capabilities.recovery is Recovery.REPEAT


async def test_a_quote_is_a_share_of_start_and_idle_time_and_the_time_of_the_answer(landlord: FakeLandlord) -> None:
    quote = await compute(landlord, expected_answers=4).quote(TASK)
    # 3.6 USD an hour is a thousandth a second: (60 + 300) / 4 + 10 seconds.
    assert quote.cost.amount == pytest.approx(0.1)
    assert quote.cost_lamports == 1_000_000
    assert (quote.expected_seconds, quote.starting_seconds) == (70.0, 60.0)


async def test_a_quote_expects_no_start_where_a_server_serves(landlord: FakeLandlord) -> None:
    provider = compute(landlord)
    await provider.answer(TASK)
    quote = await provider.quote(TASK)
    assert (quote.expected_seconds, quote.starting_seconds) == (10.0, 0.0)


async def test_the_expected_answers_pay_for_the_whole_rental(landlord: FakeLandlord) -> None:
    provider = compute(landlord, expected_answers=4)
    paid = Decimal(0)
    for _ in range(4):
        output = await provider.answer(TASK)
        assert output.cost is not None
        paid += Decimal(str(output.cost.amount))
        landlord.clock.time += 50
    rental_seconds = 3 * 50 + PATIENCE.idle
    assert paid == pytest.approx(PRICE.cost_usd(rental_seconds))


async def test_a_streamed_answer_is_billed_too(landlord: FakeLandlord) -> None:
    last = [piece async for piece in compute(landlord).stream(TASK)][-1]
    assert isinstance(last, Output)
    assert last.cost_lamports == 3_000_000


async def test_embeddings_are_billed_too(landlord: FakeLandlord) -> None:
    assert (await compute(landlord).embed(TASK.model, ["a"], seconds=10)).cost_lamports == 3_000_000


async def test_private_requests_are_refused_where_strangers_could_read_them(landlord: FakeLandlord) -> None:
    provider = compute(landlord, prompts_public=True)
    assert provider.capabilities.prompts_public
    with pytest.raises(OracleError) as raised:
        await provider.answer(replace(TASK, private=True))
    assert raised.value.error is errors.PRIVATE_REFUSED
    assert landlord.created == []


@pytest.mark.parametrize("task", [replace(TASK, model="another")])
async def test_another_model_is_refused_and_nothing_rented(landlord: FakeLandlord, task: Task) -> None:
    provider = compute(landlord)
    for call in (provider.answer(task), provider.quote(task)):
        with pytest.raises(OracleError) as raised:
            await call
        assert raised.value.error is errors.MODEL_UNAVAILABLE
    assert landlord.created == []


def test_requests_at_the_same_time_share_what_is_due() -> None:
    meter = Meter(PRICE, began_at=0.0, idle_seconds=0.0, expected_answers=1)
    assert [meter.share_usd(100.0, in_flight) for in_flight in (2, 1)] == [Decimal("0.05"), Decimal("0.05")]


def test_time_that_is_paid_however_early_it_is_given_back_is_billed() -> None:
    meter = Meter(RentalPrice(Decimal(2), least_seconds=3600), 0.0, idle_seconds=60.0, expected_answers=2)
    assert [meter.share_usd(10.0, 1), meter.share_usd(20.0, 1)] == [Decimal(1), Decimal(1)]
    assert meter.share_usd(30.0, 1) == 0


def test_what_an_earlier_process_billed_is_not_billed_again() -> None:
    meter = Meter(PRICE, 0.0, idle_seconds=0.0, expected_answers=1)
    meter.forgive(1_000.0)
    assert meter.share_usd(1_100.0, 1) == Decimal("0.1")


def test_an_unknown_price_is_no_price() -> None:
    assert Meter(None, 0.0, 0.0, 1).share_usd(100.0, 1) is None
