"""Nosana on chain, without a chain: what is bought, when nothing is, and what every state of a job means."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest
from nosana_chain import (
    A_HANDLE,
    CHEAP,
    DEAR,
    HOST,
    JOB,
    NOSANA,
    OTHER_RUN,
    OWNER,
    RATES,
    RUN,
    SLOT,
    WANTED,
    Ground,
    a_market,
)
from nosana_wire import KEY, MODEL, NOW, TASK, document, job
from provider_wire import answer
from solders.keypair import Keypair
from solders.pubkey import Pubkey

from oracle.core.compute import Absent, CannotTell, Found, JobState, JobStatus, Recovery
from oracle.core.errors import ErrorCode, OracleError, Verdict
from oracle.core.purchase import AlreadyUsed, InFlight, Landed, NotBought, Refused
from oracle.providers import errors
from oracle.providers.nosana.cid import cid_of, digest_of
from oracle.providers.nosana.program import JobState as ChainState
from oracle.providers.pricing import FixedRates
from oracle.providers.registry import build, parse


@pytest.fixture
def ground() -> Ground:
    return Ground()


def refused(caught: pytest.ExceptionInfo[OracleError], error: ErrorCode) -> None:
    assert caught.value.error is error


async def status(ground: Ground, **terms: Any) -> JobStatus:
    return (await ground.compute(**terms).poll([A_HANDLE]))[A_HANDLE]


# --- quotes and markets ---


async def test_a_quote_is_the_whole_time_at_the_price_of_the_chain_with_the_network_fee(ground: Ground) -> None:
    quote = await ground.compute().quote(replace(TASK, timeout_seconds=100.2))
    usd = Decimal(48) / 10**6 * Decimal("1.1") * 101 * Decimal("0.28")
    assert quote.cost.amount == pytest.approx(float(usd))
    assert quote.cost_lamports == pytest.approx(float(usd / 100) * 1e9, abs=1)


async def test_nothing_is_quoted_where_nos_has_no_price(ground: Ground) -> None:
    with pytest.raises(OracleError) as caught:
        await ground.compute(rates=FixedRates(sol_usd=Decimal(100))).quote(TASK)
    refused(caught, errors.PRICE_UNKNOWN)


async def test_the_price_of_the_chain_is_taken_and_not_the_one_that_rest_tells(ground: Ground) -> None:
    ground.chain.put_market(CHEAP, 300)
    await ground.compute().submit(TASK, KEY)
    assert ground.buyer.orders[0].contended == (DEAR,)


async def test_a_market_with_a_long_queue_is_passed_over(ground: Ground) -> None:
    ground.chain.put_market(CHEAP, 48, *[Keypair().pubkey() for _ in range(6)])
    await ground.compute().submit(TASK, KEY)
    assert ground.buyer.orders[0].contended == (DEAR,)


async def test_hosts_that_wait_are_no_queue(ground: Ground) -> None:
    ground.chain.put_market(CHEAP, 48, *[Keypair().pubkey() for _ in range(60)], holds_jobs=False)
    await ground.compute().submit(TASK, KEY)
    assert ground.buyer.orders[0].contended == (CHEAP,)


async def test_a_market_above_the_cap_or_off_the_chain_is_never_used(ground: Ground) -> None:
    del ground.chain.states[CHEAP]
    with pytest.raises(OracleError) as caught:
        await ground.compute(wanted=replace(WANTED, max_usd_per_hour=Decimal("0.1"))).quote(TASK)
    refused(caught, errors.NO_MARKET)


async def test_markets_that_are_named_by_address_need_no_rest(ground: Ground) -> None:
    ground.network.routes["GET /markets/"] = answer({"message": "x"}, 503)
    compute = ground.compute(wanted=replace(WANTED, markets=(str(DEAR),)))
    await compute.submit(TASK, KEY)
    assert ground.buyer.orders[0].contended == (DEAR,)
    with pytest.raises(OracleError) as caught:
        await ground.compute(wanted=replace(WANTED, markets=("nvidia-3060",))).quote(TASK)
    refused(caught, errors.UNAVAILABLE)


async def test_a_market_account_that_cannot_be_read_is_an_error_and_no_market(ground: Ground) -> None:
    ground.chain.put(CHEAP, a_market(48)[:100])
    with pytest.raises(OracleError) as caught:
        await ground.compute().quote(TASK)
    refused(caught, errors.UNREADABLE_ANSWER)


# --- buying ---


async def test_the_definition_is_pinned_and_readable_before_the_job_is_listed(ground: Ground) -> None:
    handle = await ground.compute().submit(TASK, KEY)
    (order,) = ground.buyer.orders
    (listing,) = order.instructions
    (cid,) = ground.network.pinned
    assert bytes(listing.data)[8:40] == digest_of(cid)
    assert int.from_bytes(bytes(listing.data)[40:], "little") == 120
    assert order.cosigners == ("nosana-job", "nosana-run")
    assert order.most_spent == {NOSANA.nos_account(OWNER): int(48 * 120 * 1.1)}
    assert handle.job_id == str(JOB)
    assert handle.detail == {**order.detail, "slot": SLOT, "reserved_usd": "0.0016128"}
    assert order.detail["cid"] == cid


async def test_prompts_are_declared_public_and_private_requests_refused_before_anything_is_pinned(
    ground: Ground,
) -> None:
    compute = ground.compute()
    assert compute.capabilities.prompts_public
    assert compute.capabilities.recovery is Recovery.LOOK_UP
    with pytest.raises(OracleError) as caught:
        await compute.submit(replace(TASK, private=True), KEY)
    refused(caught, errors.PRIVATE_REFUSED)
    assert (ground.network.requests, ground.buyer.orders) == ([], [])


@pytest.mark.parametrize(("nos", "sol"), [(0.005, 1.0), (0.0, 1.0), (1.0, 0.005)])
async def test_a_wallet_that_cannot_pay_intends_nothing(ground: Ground, nos: float, sol: float) -> None:
    ground.chain.put_wallet(nos, sol)
    with pytest.raises(OracleError) as caught:
        await ground.compute().submit(TASK, KEY)
    refused(caught, errors.OUT_OF_CREDIT)
    assert (ground.buyer.orders, ground.network.pinned) == ([], {})


async def test_a_wallet_without_a_nos_account_intends_nothing(ground: Ground) -> None:
    del ground.chain.states[NOSANA.nos_account(OWNER)]
    with pytest.raises(OracleError) as caught:
        await ground.compute().submit(TASK, KEY)
    refused(caught, errors.OUT_OF_CREDIT)


@pytest.mark.parametrize(
    ("refusal", "error"),
    [
        (Refused("Custom", 1, ("Program log: Error: insufficient funds",)), errors.OUT_OF_CREDIT),
        (Refused("Custom", 1, ("Transfer: insufficient lamports 5, need 9",)), errors.OUT_OF_CREDIT),
        (
            Refused("Custom", 6001, ("Program log: AnchorError. Error Code: MarketInWrongState. Error Number: 6001.",)),
            errors.LISTING_REFUSED,
        ),
        (Refused("Custom", 3012, ()), errors.LISTING_REFUSED),
    ],
)
async def test_a_refusal_is_told_by_its_words_and_prices_are_read_again(
    ground: Ground, refusal: Refused, error: ErrorCode
) -> None:
    ground.buyer.answer = refusal
    compute = ground.compute()
    with pytest.raises(OracleError) as caught:
        await compute.submit(TASK, KEY)
    refused(caught, error)
    ground.chain.put_market(CHEAP, 50)
    quote = await compute.quote(TASK)
    assert quote.cost.amount == pytest.approx(50 / 1e6 * 1.1 * 120 * 0.28)


async def test_a_purchase_that_may_still_land_stays_unknown(ground: Ground) -> None:
    ground.buyer.answer = errors.NO_ANSWER("in flight")
    with pytest.raises(OracleError) as caught:
        await ground.compute().submit(TASK, KEY)
    assert caught.value.verdict is Verdict.UNKNOWN


async def test_a_job_that_a_lost_memory_has_bought_is_adopted(ground: Ground) -> None:
    ground.buyer.answer = AlreadyUsed(JOB)
    ground.chain.put_job()
    handle = await ground.compute().submit(TASK, KEY)
    assert handle.job_id == str(JOB)
    assert (handle.detail["cid"], handle.detail["timeout_seconds"]) == (cid_of(bytes(range(32))), 120)


async def test_a_key_that_was_cleaned_leads_to_its_old_job_and_to_no_new_one(ground: Ground) -> None:
    ground.buyer.answer = AlreadyUsed(JOB)
    ground.chain.used.add(JOB)
    compute = ground.compute()
    handle = await compute.submit(TASK, KEY)
    assert handle.job_id == str(JOB)
    assert (await compute.poll([handle]))[handle].state is JobState.FAILED


# --- looking a purchase up ---


@pytest.mark.parametrize("fate", [NotBought("x"), InFlight({"cid": "Qm1"}), Landed(SLOT, {"cid": "Qm1"})])
async def test_a_job_account_is_proof_whatever_the_memory_says(ground: Ground, fate: Any) -> None:
    ground.buyer.fate = fate
    ground.chain.put_job()
    found = await ground.compute().find(KEY)
    assert isinstance(found, Found)
    assert found.handle.job_id == str(JOB)
    assert ground.buyer.withdrawn == [KEY]


@pytest.mark.parametrize("fate", [NotBought("x"), InFlight(), Landed(SLOT)])
async def test_transactions_that_named_the_key_are_proof_of_a_job_that_is_gone(ground: Ground, fate: Any) -> None:
    ground.buyer.fate = fate
    ground.chain.used.add(JOB)
    assert isinstance(await ground.compute().find(KEY), Found)


async def test_only_what_was_never_signed_or_is_dead_is_absent(ground: Ground) -> None:
    compute = ground.compute()
    ground.buyer.fate = NotBought("dead")
    assert await compute.find(KEY) == Absent()
    ground.buyer.fate = InFlight()
    assert isinstance(await compute.find(KEY), CannotTell)
    ground.buyer.fate = Landed(SLOT)
    assert isinstance(await compute.find(KEY), CannotTell)


async def test_a_job_that_landed_is_looked_for_where_it_can_be_known(ground: Ground) -> None:
    ground.buyer.fate = Landed(SLOT)
    await ground.compute().find(KEY)
    assert ground.chain.asked_since == [SLOT]


# --- what a job is doing ---


async def test_a_job_in_the_queue_waits(ground: Ground) -> None:
    ground.chain.put_job()
    ground.chain.put_market(CHEAP, 48, Keypair().pubkey(), JOB)
    assert (await status(ground)).state is JobState.QUEUED


async def test_a_job_runs_where_a_host_was_handed_it_or_chose_its_own_run(ground: Ground) -> None:
    ground.chain.put_job()
    ground.chain.put_run(RUN)
    assert (await status(ground)).state is JobState.RUNNING
    del ground.chain.states[RUN]
    ground.chain.put_run(OTHER_RUN)
    compute = ground.compute()
    assert (await compute.poll([A_HANDLE]))[A_HANDLE].state is JobState.RUNNING
    # The second look finds it without searching.
    ground.chain.searches = False
    assert (await compute.poll([A_HANDLE]))[A_HANDLE] == JobStatus(JobState.RUNNING)


async def test_a_run_of_another_job_is_not_ours(ground: Ground) -> None:
    ground.chain.put_job()
    ground.chain.put_run(RUN, job=Keypair().pubkey())
    ground.chain.put_market(CHEAP, 48, JOB)
    assert (await status(ground)).state is JobState.QUEUED


async def test_an_endpoint_that_does_not_search_never_leads_to_a_job_being_given_up(ground: Ground) -> None:
    ground.chain.put_job(state=ChainState.STOPPED)
    ground.chain.searches = False
    assert (await status(ground)).state is JobState.RUNNING
    with pytest.raises(OracleError) as caught:
        await ground.compute().cancel(A_HANDLE)
    refused(caught, errors.UNAVAILABLE)
    assert ground.buyer.performed == []


async def test_a_job_that_nobody_takes_is_withdrawn(ground: Ground) -> None:
    ground.chain.put_job()
    ground.chain.put_market(CHEAP, 48, JOB)
    ground.clock.advance(601)
    found = await status(ground)
    assert found.error is not None
    assert (found.state, found.error.error) == (JobState.FAILED, errors.NOT_STARTED)
    (order,) = ground.buyer.performed
    assert [bytes(one.data).hex() for one in order.instructions] == ["3788cd6b6bad041f"]


async def test_a_job_that_cannot_be_withdrawn_yet_has_not_failed(ground: Ground) -> None:
    ground.chain.put_job()
    ground.chain.put_market(CHEAP, 48, JOB)
    ground.buyer.refusals = [Refused("Custom", 6001)] * 3
    ground.clock.advance(601)
    assert (await status(ground)).state is JobState.QUEUED


async def test_a_job_that_takes_long_to_be_stopped_keeps_no_other_waiting(
    ground: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    patience = "oracle.providers.nosana.onchain_status._PATIENCE_SECONDS"
    monkeypatch.setattr(patience, 0.01)
    ground.chain.put_job()
    ground.chain.put_market(CHEAP, 48, JOB)
    landed, perform = asyncio.Event(), ground.buyer.perform

    async def slow(order: Any) -> Refused | None:
        await landed.wait()
        return await perform(order)

    ground.buyer.perform = slow  # type: ignore[method-assign]
    ground.clock.advance(601)
    compute = ground.compute()
    for _ in range(3):
        assert (await compute.poll([A_HANDLE]))[A_HANDLE].state is JobState.QUEUED
    landed.set()
    with monkeypatch.context() as patient:
        patient.setattr(patience, 60.0)
        assert (await compute.poll([A_HANDLE]))[A_HANDLE].state is JobState.FAILED
    assert len(ground.buyer.performed) == 1
    landed.clear()
    assert (await compute.poll([A_HANDLE]))[A_HANDLE].state is JobState.QUEUED
    await compute.close()


async def test_a_host_that_never_ends_its_job_is_ended_ten_minutes_past_its_time(ground: Ground) -> None:
    ground.chain.put_job()
    ground.chain.put_run(RUN, started_at=NOW)
    ground.clock.advance(120 + 599)
    assert (await status(ground)).state is JobState.RUNNING
    ground.clock.advance(2)
    found = await status(ground)
    assert found.error is not None
    assert (found.state, found.error.error) == (JobState.FAILED, errors.HOST_FAILED)
    (order,) = ground.buyer.performed
    # The host has no NOS account yet, so it is made for it first.
    assert [bytes(one.data).hex() for one in order.instructions] == ["01", "b4a0f9d9c2794610"]
    assert order.instructions[0].accounts[1].pubkey == NOSANA.nos_account(HOST)


async def test_a_job_that_its_host_quit_is_recovered_before_it_counts_as_failed(ground: Ground) -> None:
    ground.chain.put_job(state=ChainState.STOPPED)
    found = await status(ground)
    assert found.error is not None
    assert (found.state, found.error.error) == (JobState.FAILED, errors.HOST_FAILED)
    (order,) = ground.buyer.performed
    assert [bytes(one.data).hex() for one in order.instructions] == ["6cd8263a6d927411"]


async def test_a_job_that_another_host_has_claimed_runs_again(ground: Ground) -> None:
    ground.chain.put_job(state=ChainState.STOPPED)
    ground.chain.put_run(OTHER_RUN)
    assert (await status(ground)).state is JobState.RUNNING
    assert ground.buyer.performed == []


async def test_an_orphan_is_given_up_only_after_it_was_seen_in_no_hands_for_minutes(ground: Ground) -> None:
    ground.chain.put_job()
    compute = ground.compute()

    async def now() -> JobState:
        return (await compute.poll([A_HANDLE]))[A_HANDLE].state

    assert await now() is JobState.QUEUED
    ground.clock.advance(119)
    assert await now() is JobState.QUEUED
    ground.chain.put_run(OTHER_RUN)
    assert await now() is JobState.RUNNING
    del ground.chain.states[OTHER_RUN]
    ground.clock.advance(10)
    assert await now() is JobState.QUEUED
    ground.clock.advance(121)
    assert await now() is JobState.FAILED


async def test_a_job_that_is_not_there_and_never_was_is_lost_and_not_failed(ground: Ground) -> None:
    assert (await status(ground)).state is JobState.LOST


async def test_lamports_on_the_address_of_a_job_are_no_job(ground: Ground) -> None:
    ground.chain.put(JOB, b"", Pubkey.default())
    assert (await status(ground)).state is JobState.LOST


async def test_one_account_that_cannot_be_read_does_not_hide_the_others(ground: Ground) -> None:
    ground.chain.put_job()
    ground.chain.put_run(RUN)
    broken = replace(A_HANDLE, job_id=str(OTHER_RUN), detail={**A_HANDLE.detail, "run": str(HOST)})
    ground.chain.put(OTHER_RUN, b"damaged")
    statuses = await ground.compute().poll([broken, A_HANDLE])
    assert statuses[broken] == JobStatus(JobState.RUNNING, message="its account cannot be read")
    assert statuses[A_HANDLE] == JobStatus(JobState.RUNNING)


async def test_nothing_is_asked_where_there_is_nothing_to_ask(ground: Ground) -> None:
    assert await ground.compute().poll([]) == {}


# --- results ---


def done(ground: Ground, result: Any, **changes: Any) -> None:
    cid = ground.network.keep(result)
    ground.chain.put_job(
        **({"state": ChainState.DONE, "result": digest_of(cid), "started_at": NOW, "ended_at": NOW + 30} | changes)
    )


async def test_a_result_is_judged_by_its_operation_and_costs_the_seconds_it_took(ground: Ground) -> None:
    done(ground, document())
    compute = ground.compute()
    handle = replace(A_HANDLE, detail={**A_HANDLE.detail, "reserved_usd": "0.0016128"})
    assert (await compute.poll([handle]))[handle].state is JobState.SUCCEEDED
    output = await compute.fetch(handle)
    assert (output.content, output.model_run) == (b"42", MODEL)
    assert output.cost is not None
    assert output.cost.amount == pytest.approx(0.0016128 * 30 / 120)
    assert (output.started_at, output.finished_at) == (NOW, NOW + 30)


@pytest.mark.parametrize(
    ("result", "error"),
    [
        (document(status="failed", exitCode=1), errors.JOB_FAILED),
        (document(diagnostics__reason__jobExpired=True), errors.JOB_TIMED_OUT),
        (document(diagnostics__reason__jobStopped=True), errors.JOB_STOPPED),
        ({"status": "", "startTime": 0, "endTime": 0, "opStates": []}, errors.HOST_FAILED),
    ],
)
async def test_a_job_that_is_done_and_paid_may_have_failed_all_the_same(
    ground: Ground, result: Any, error: ErrorCode
) -> None:
    done(ground, result)
    found = await status(ground)
    assert found.error is not None
    assert (found.state, found.error.error) == (JobState.FAILED, error)


async def test_a_job_without_a_result_is_waited_for_and_then_counts_as_stopped(ground: Ground) -> None:
    ground.chain.put_job(state=ChainState.DONE, started_at=NOW, ended_at=NOW + 30)
    assert (await status(ground)).state is JobState.RUNNING
    ground.clock.advance(91)
    found = await status(ground)
    assert found.error is not None
    assert (found.state, found.error.error) == (JobState.FAILED, errors.JOB_STOPPED)


async def test_a_job_that_was_cleaned_is_asked_of_the_indexer(ground: Ground) -> None:
    ground.chain.used.add(JOB)
    cid = ground.network.keep(document())
    ended = job(address=str(JOB), state=2, ipfsResult=cid, timeEnd=NOW + 120)
    ground.network.routes[f"GET /jobs/{JOB}"] = ended
    compute = ground.compute()
    assert (await compute.poll([A_HANDLE]))[A_HANDLE].state is JobState.SUCCEEDED
    assert (await compute.fetch(A_HANDLE)).content == b"42"


async def test_a_cleaned_job_is_not_given_up_while_the_indexer_does_not_answer(ground: Ground) -> None:
    ground.chain.used.add(JOB)
    ground.network.routes[f"GET /jobs/{JOB}"] = answer({"message": "x"}, 503)
    assert (await status(ground)).state is JobState.RUNNING


async def test_nothing_is_fetched_of_a_job_that_runs(ground: Ground) -> None:
    ground.chain.put_job()
    ground.chain.put_run(RUN)
    with pytest.raises(OracleError) as caught:
        await ground.compute().fetch(A_HANDLE)
    refused(caught, errors.JOB_UNKNOWN)


# --- cancelling ---


async def test_a_job_that_has_ended_is_left_as_it_is(ground: Ground) -> None:
    done(ground, document())
    await ground.compute().cancel(A_HANDLE)
    del ground.chain.states[JOB]
    await ground.compute().cancel(A_HANDLE)
    assert ground.buyer.performed == []


async def test_a_job_that_is_taken_while_it_is_withdrawn_is_ended_instead(ground: Ground) -> None:
    ground.chain.put_job()
    ground.chain.put_market(CHEAP, 48, JOB)
    perform = ground.buyer.perform

    async def taken_meanwhile(order: Any) -> Refused | None:
        if not ground.buyer.performed:
            ground.chain.put_market(CHEAP, 48)
            ground.chain.put_run(OTHER_RUN)
            ground.buyer.refusals = [Refused("Custom", 6001)]
        return await perform(order)

    ground.buyer.perform = taken_meanwhile  # type: ignore[method-assign]
    await ground.compute().cancel(A_HANDLE)
    tried = [bytes(order.instructions[-1].data).hex() for order in ground.buyer.performed]
    assert tried == ["3788cd6b6bad041f", "b4a0f9d9c2794610"]


async def test_a_job_whose_listing_may_still_land_cannot_be_called_cancelled(ground: Ground) -> None:
    with pytest.raises(OracleError) as caught:
        await ground.compute().cancel(A_HANDLE)
    refused(caught, errors.UNAVAILABLE)


# --- the wallet, and the settings ---


async def test_the_wallet_is_shown_with_what_is_staked(ground: Ground) -> None:
    ground.chain.put(NOSANA.stake_account(OWNER), bytes(8) + (5_000_000).to_bytes(8, "little") + bytes(200), HOST)
    compute = ground.compute()
    balance = await compute.balance()
    assert balance is not None
    assert (balance.amount, balance.unit) == (100.0, "NOS")
    assert (await compute.holdings()).staked_micro_nos == 5_000_000
    chosen, *_ = await compute.markets()
    assert (chosen.is_chosen, chosen.why_not) == (True, "")
    assert chosen.usd_per_hour is not None
    assert chosen.queued is not None


def test_a_configuration_without_a_chain_or_a_pin_is_refused() -> None:
    settings = {"kind": "nosana_onchain", "pinata_jwt": "jwt"}
    with pytest.raises(OracleError) as caught:
        build("n", settings, rates=RATES)
    refused(caught, errors.SETTINGS_INVALID)
    with pytest.raises(OracleError) as caught:
        build("n", {"kind": "nosana_onchain"}, rates=RATES)
    refused(caught, errors.SETTINGS_INVALID)
    with pytest.raises(OracleError) as caught:
        parse({"kind": "nosana_onchain", "pinata_jwt": "jwt", "api_key": "nos_x"})
    refused(caught, errors.SETTINGS_INVALID)
