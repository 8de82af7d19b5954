"""Kill the gateway before and after everything it does for a recorded answer, and ask the chain and the upstream."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from chaos_laws import history
from chaos_length import Say
from chaos_lives import KILLED, crash, crashes_late
from chaos_scenarios import FirstLost
from chaos_town import FUNDS_LAMPORTS, LAMPORTS_PER_SIGNATURE, SOON_FINAL, Oracle, Town, town
from chaos_wait import until
from solders import system_program
from solders.instruction import Instruction
from solders.keypair import Keypair
from solders.pubkey import Pubkey
from solders.system_program import TransferParams

from oracle.api.gateway.errors import CLIENT_LEFT, INTERRUPTED
from oracle.chain.program import idl
from oracle.chain.program.events import RequestSubmitted, read_events
from oracle.chain.program.layout import decode_request
from oracle.core.request import Status
from oracle.localnet.chain import Chain
from oracle.localnet.emulators.openai import scripted_words
from oracle.localnet.ports import free_port

pytestmark = [pytest.mark.localnet, pytest.mark.chaos]

KEY = "a-client-of-the-gateway"
AT_ONCE = 6
IN_A_ROW = 7
"""How many kills share a gateway, the last point first: see `chaos_matrix`."""
TRIES = 3
PATIENCE_SECONDS = 60.0
GATEWAY = ("books.", "conversation.", "recording.", "recorder.", "reaper.", "recorded.", "routes.", "http.POST free")
"""What tells the points of the gateway from those of the daemon, which has a matrix of its own."""
ANSWER_IS_SAFE = "after store.write books.Call._succeed write"
"""From here on nothing may be bought again."""


@dataclass(slots=True)
class Call:
    """One call of a client, who makes it until it is answered. It may be bought `most_jobs` times."""

    interrupted_at: str
    question: str
    answer: asyncio.Task[tuple[str, str]]
    most_jobs: int = 1

    @property
    def asked(self) -> list[dict[str, str]]:
        return [{"role": "user", "content": self.question}]


@dataclass(slots=True)
class Case:
    """A gateway, its own key, and the calls of its client."""

    oracle: Oracle
    payer: Keypair
    url: str
    calls: list[Call] = field(default_factory=list)

    def call(self, interrupted_at: str) -> None:
        name = f"{self.oracle.name}-{len(self.calls)}"
        question = f"What does {name} remember?"
        call = Call(interrupted_at, question, asyncio.create_task(self.asks(name, question)))
        self.calls.append(call)

    async def asks(self, name: str, question: str) -> tuple[str, str]:
        """Text and request of the answer. A client repeats its call under the same name until it is answered."""
        body = {"model": "free", "messages": [{"role": "user", "content": question}], "max_tokens": 50}
        headers = {"Authorization": f"Bearer {KEY}", "X-Oracle-Record": "true", "Idempotency-Key": name}
        async with httpx.AsyncClient(trust_env=False, timeout=PATIENCE_SECONDS) as http:
            while True:
                try:
                    answer = await http.post(f"{self.url}/v1/chat/completions", json=body, headers=headers)
                except httpx.TransportError:
                    await asyncio.sleep(0.05)
                    continue
                if answer.status_code == 200:
                    told = answer.json()
                    return told["choices"][0]["message"]["content"], told["oracle"]["request"]
                assert answer.status_code in (409, 503), answer.text
                await asyncio.sleep(0.1)

    def launch(self, **life: Any) -> None:
        self.oracle.launch(gateway=True, **life)

    async def dies(self, point: str, **life: Any) -> None:
        """One life, to that point."""
        self.launch(crash_at=point, **life)
        assert await self.oracle.daemon.wait(PATIENCE_SECONDS) == KILLED

    def unfinished(self) -> list[tuple[str, str]]:
        """What the books of the gateway still have to do."""
        left = self.oracle.select("SELECT 'call', id FROM gateway_calls WHERE state = 'open'")
        live = "'intended', 'unknown', 'running'"
        left += self.oracle.select(f"SELECT 'job', call_id FROM gateway_jobs WHERE state IN ({live})")
        left += self.oracle.select("SELECT state, address FROM recordings WHERE state <> 'ended'")
        return left

    def is_over(self) -> bool:
        known = self.oracle.select("SELECT count(*) FROM recordings")
        return (
            all(call.answer.done() for call in self.calls) and known == [(len(self.calls),)] and not self.unfinished()
        )

    async def at_rest(self) -> None:
        async def look() -> bool:
            assert self.oracle.daemon.alive, f"the gateway is dead: {self.oracle.tail()}"
            return self.is_over()

        try:
            await until(look, f"{self.oracle.name} at rest", PATIENCE_SECONDS)
        except AssertionError as error:
            raise AssertionError(f"{error}: {self.unfinished()}\n{self.oracle.tail()}") from None


async def case(place: Town, name: str) -> Case:
    payer, port = Keypair(), free_port()
    client = {"sha256": hashlib.sha256(KEY.encode()).hexdigest(), "record": True, "lamports_per_day": FUNDS_LAMPORTS}
    limits = {"requests_per_minute": 10_000, "concurrent": 100}
    gateway = {"port": port, "keypair": "gateway.json", "keys": {"client": {**client, **limits}}}
    oracle = await place.oracle(name, gateway=gateway)
    oracle.replaced += (("oracle.api.gateway.reaper.TURN_SECONDS", 0.2),)
    keypair = oracle.directory / "gateway.json"
    keypair.write_text(payer.to_json())
    keypair.chmod(0o600)
    await place.fund(payer.pubkey())
    return Case(oracle, payer, f"http://127.0.0.1:{port}")


async def points(place: Town) -> list[str]:
    """What a gateway reaches from the call to the finalized end, in its order."""
    recorded = await case(place, "record")
    file = recorded.oracle.directory / "points"
    recorded.call("nowhere")
    recorded.launch(record=file)
    await recorded.at_rest()
    assert await recorded.oracle.daemon.stop() == 0
    return [point for point in file.read_text().splitlines() if any(part in point for part in GATEWAY)]


async def killed(
    place: Town, points: Sequence[str], name: str, *, safe: Collection[str]
) -> tuple[list[str], list[str]]:
    """The breaches of a gateway that is killed at one point after another, while it answers one call after another, and
    the points that were not reached."""
    this = await case(place, name)
    this.call(points[0])
    missed = []
    for point in points:
        this.launch(crash_at=point)
        is_dead = await crash(this.oracle, this.is_over)
        if not is_dead and point != points[0]:
            this.call(point)
            is_dead = await crash(this.oracle, this.is_over)
        if is_dead or await crashes_late(this.oracle):
            last = this.calls[-1]
            # Nothing is bought again for one whose answer was safe when it was first interrupted.
            if last.interrupted_at not in safe and not last.answer.done():
                last.most_jobs += 1
        else:
            missed.append(point)
            await this.oracle.daemon.kill()
    this.launch()
    await this.at_rest()
    await this.oracle.daemon.kill()
    return [f"{', '.join(points)}: {breach}" for breach in await breaches(place, this)], missed


async def breaches(place: Town, this: Case) -> list[str]:
    """What the chain, the upstream and the books have against it."""
    found = await place.node.call(history)
    own = await place.node.call(lambda chain: made_by(chain, this.payer.pubkey()))
    left = await place.node.call(lambda chain: chain.account(this.payer.pubkey()))
    paid = FUNDS_LAMPORTS - (0 if left is None else left.lamports)
    requests = [Pubkey.from_string(call.answer.result()[1]) for call in this.calls]
    held = [await place.node.call(lambda chain, request=request: chain.account(request)) for request in requests]  # type: ignore[misc]
    rent = sum(account.lamports for account in held if account is not None)
    fees = sum(found.fees_asked.get(request, 0) for request in requests)
    claims = {
        "one request was made for each call": sorted(map(str, own)) == sorted(map(str, requests)),
        "the gateway's key paid fees, rent and its transactions, and nothing else": paid
        == fees + rent + found.spent_lamports[this.payer.pubkey()],
        "the daemon bought nothing": this.oracle.select("SELECT 1 FROM attempts") == [],
        "every booking has its job": this.oracle.select("SELECT count(*) FROM ledger WHERE kind = 'job'")
        == this.oracle.select("SELECT count(*) FROM gateway_jobs"),
        "each fee was booked once": this.oracle.select("SELECT sum(lamports) FROM ledger WHERE kind = 'request_fee'")
        == [(-fees,)],
    }
    for call, request, account in zip(this.calls, requests, held, strict=True):
        text = call.answer.result()[0]
        header = None if account is None else decode_request(request, account.data).header
        bought = sum(body["messages"] == call.asked for body in place.models["free"].requests)
        claims |= {
            f"{call.question} The answer is the one to it": text == "".join(scripted_words(call.asked, 4)),
            f"{call.question} The client's answer is the one on chain": header is not None
            and header.output_hash == hashlib.sha256(text.encode()).digest(),
            f"{call.question} It was settled once": found.ends.get(request) == [Status.FULFILLED],
            f"{call.question} Bought {bought} times, {call.most_jobs} at most": bought <= call.most_jobs,
        }
    return [claim for claim, holds in claims.items() if not holds]


def transfer(giver: Keypair, taker: Keypair, lamports: int) -> Instruction:
    params = TransferParams(from_pubkey=giver.pubkey(), to_pubkey=taker.pubkey(), lamports=lamports)
    return system_program.transfer(params)


def made_by(chain: Chain, requester: Pubkey) -> list[Pubkey]:
    """Every request that a key has made, as often as it has made it."""
    records = [record for record in chain.ledger.transactions_after(0) if record.err is None]
    events = [event for each in records for event in read_events(idl.program_id(), each.meta["logMessages"])]
    made = [event for event in events if isinstance(event, RequestSubmitted)]
    return [event.request for event in made if event.requester == requester]


@pytest.mark.timeout(300)
async def test_wherever_the_gateway_is_killed_nothing_is_lost_and_nothing_is_double(tmp_path: Path, say: Say) -> None:
    began = time.monotonic()
    numbers, gate = itertools.count(), asyncio.Semaphore(AT_ONCE)
    async with town(tmp_path, config=SOON_FINAL) as place:
        reached = await points(place)
        safe = frozenset(reached[reached.index(ANSWER_IS_SAFE) :])

        async def row(its: Sequence[str], tries: int = TRIES) -> list[str]:
            async with gate:
                breaches, missed = await killed(place, its, f"{next(numbers):03d}", safe=safe)
            if not tries:
                return [*breaches, *(f"{point}: recorded once, and not reached again" for point in missed)]
            return breaches + [breach for point in missed for breach in await row([point], tries - 1)]

        rows = [reached[at : at + IN_A_ROW][::-1] for at in range(0, len(reached), IN_A_ROW)]
        found = await asyncio.gather(*map(row, rows))
    say(f"{len(reached)} crash points in {time.monotonic() - began:.0f} s")
    assert not [breach for each in found for breach in each]


REFUSED = "store.write recorder.Recorder._later recordings.postpone"
DEAD = "store.write recorder.Recorder._dead write"
SPENDABLE_LAMPORTS = FUNDS_LAMPORTS - LAMPORTS_PER_SIGNATURE


async def broke(place: Town) -> tuple[Case, Keypair]:
    """A gateway that has answered and cannot pay to record it, and the purse in which its lamports are now."""
    this, purse = await case(place, "broke"), Keypair()
    await place.fund(purse.pubkey())
    this.call(ANSWER_IS_SAFE)
    await this.dies(ANSWER_IS_SAFE)
    await place.transact([transfer(this.payer, purse, SPENDABLE_LAMPORTS)], this.payer)
    return this, purse


@pytest.mark.parametrize("side", ["before", "after"])
async def test_an_answer_is_recorded_once_the_gateway_can_pay_wherever_it_is_killed_meanwhile(
    tmp_path: Path, side: str
) -> None:
    async with town(tmp_path, config=SOON_FINAL) as place:
        this, purse = await broke(place)
        await this.dies(f"{side} {REFUSED}")
        await place.transact([transfer(purse, this.payer, SPENDABLE_LAMPORTS)], purse)
        this.launch()
        await this.at_rest()
        assert not await breaches(place, this)


@pytest.mark.parametrize("side", ["before", "after"])
async def test_a_recording_that_the_network_has_lost_is_signed_anew_once_wherever_the_gateway_is_killed(
    tmp_path: Path, side: str
) -> None:
    async with town(tmp_path, config=SOON_FINAL) as place:
        this = await case(place, "lost")
        place.deliveries[this.payer.pubkey()] = FirstLost()
        this.call(DEAD)
        await this.dies(f"{side} {DEAD}")
        this.launch()
        await this.at_rest()
        assert not await breaches(place, this)


GIVEN_UP = "store.write recorder.Recorder._failed write"
PRUNED = "store.write recorder.Recorder._prune recordings.prune"


@pytest.mark.parametrize("side", ["before", "after"])
async def test_a_recording_that_is_given_up_costs_nothing_wherever_the_gateway_is_killed(
    tmp_path: Path, side: str
) -> None:
    async with town(tmp_path, config=SOON_FINAL) as place:
        this, _ = await broke(place)
        at_once = (("oracle.api.gateway.recorder.GIVE_UP_MS", -1),)
        await this.dies(f"{side} {GIVEN_UP}", also_replaced=at_once)
        this.launch(also_replaced=at_once)

        async def is_given_up() -> bool:
            return this.oracle.select("SELECT state FROM recordings") == [("failed",)]

        await until(is_given_up, f"the end of the recording: {this.oracle.tail()}", PATIENCE_SECONDS)
        assert this.oracle.select("SELECT chain_lamports FROM gateway_calls") == [(0,)]
        assert await place.node.call(lambda chain: made_by(chain, this.payer.pubkey())) == []


@pytest.mark.parametrize("side", ["before", "after"])
async def test_answers_are_recorded_wherever_the_gateway_is_killed_while_it_clears_up(
    tmp_path: Path, side: str
) -> None:
    async with town(tmp_path, config=SOON_FINAL) as place:
        this = await case(place, "tidy")
        this.oracle.replaced += (("oracle.api.gateway.recorder.PRUNE_SECONDS", 0.0),)
        await this.dies(f"{side} {PRUNED}")
        this.call(PRUNED)
        this.launch()
        await this.at_rest()
        assert not await breaches(place, this)


STARTED = "store.write books.Call.started calls.job_started"
LEFT = "store.write books.Call._end write"
STOPPED = "provider.cancel nosana reaper.cancel"
CANCELLED = "store.write reaper.cancel calls.finish_job"
MOMENTS = [f"{side} {step}" for step in (STARTED, LEFT, STOPPED, CANCELLED) for side in ("before", "after")]


@pytest.mark.parametrize("moment", MOMENTS)
async def test_a_job_whose_client_has_left_is_cancelled_wherever_the_gateway_is_killed(
    tmp_path: Path, moment: str
) -> None:
    async with town(tmp_path) as place:
        place.models["gpu"].word_seconds = 5.0
        this = await case(place, "gpu")
        body = {"model": "gpu", "messages": [{"role": "user", "content": "What does it remember?"}], "max_tokens": 50}
        this.launch(crash_at=moment)

        async def asked() -> None:
            async with httpx.AsyncClient(trust_env=False, timeout=PATIENCE_SECONDS) as http:
                headers = {"Authorization": f"Bearer {KEY}"}
                while True:
                    try:
                        await http.post(f"{this.url}/v1/chat/completions", json=body, headers=headers)
                    except httpx.ConnectError:
                        await asyncio.sleep(0.05)
                    except httpx.TransportError:
                        return

        asking = asyncio.create_task(asked())

        async def is_under_way() -> bool:
            return asking.done() or this.oracle.select("SELECT state FROM gateway_jobs") == [("running",)]

        await until(is_under_way, f"the job to run: {this.oracle.tail()}", PATIENCE_SECONDS)
        asking.cancel()
        assert await this.oracle.daemon.wait() == KILLED
        this.launch()

        async def cleaned() -> bool:
            return this.oracle.select("SELECT state FROM gateway_jobs") == [("cancelled",)]

        await until(cleaned, f"the cancelled job: {this.oracle.tail()}", PATIENCE_SECONDS)
        (job,) = this.oracle.nosana.books()["jobs"]
        assert job["stopped_by_owner"]
        is_known = MOMENTS.index(moment) >= MOMENTS.index(f"after {LEFT}")
        end = ("cancelled", CLIENT_LEFT.code) if is_known else ("failed", INTERRUPTED.code)
        assert this.oracle.select("SELECT state, error_code FROM gateway_calls") == [end]
        assert this.oracle.select("SELECT count(*) FROM ledger WHERE kind = 'job'") == [(1,)]
