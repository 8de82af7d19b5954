"""Kill the gateway before and after everything it does for a recorded answer, and ask the chain and the upstream."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from chaos_laws import history
from chaos_length import IS_LONG, say
from chaos_lives import KILLED
from chaos_town import FUNDS_LAMPORTS, Oracle, Town, town
from chaos_wait import until
from solders.keypair import Keypair
from solders.pubkey import Pubkey

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
TRIES = 3
PATIENCE_SECONDS = 60.0
GATEWAY = ("books.", "conversation.", "recording.", "recorder.", "reaper.", "recorded.", "routes.", "http.POST free")
"""What tells the points of the gateway from those of the daemon, which has a matrix of its own."""
LEAVES_A_TRACE = re.compile(r"store\.write (?!reaper)|sendTransaction|http\.POST")
"""Before and after a read the world is as it was after the last write: those points are for `make test-all`."""
ANSWER_IS_SAFE = "after store.write books.Call._succeed write"
"""From here on nothing may be bought again."""


@dataclass(slots=True)
class Case:
    """A gateway, its own key, and the one call that its client makes until it is answered."""

    oracle: Oracle
    payer: Keypair
    url: str

    @property
    def question(self) -> str:
        return f"What does {self.oracle.name} remember?"

    async def asks(self) -> tuple[str, str]:
        """Text and request of the answer. A client repeats its call under the same name until it is answered."""
        body = {"model": "free", "messages": [{"role": "user", "content": self.question}], "max_tokens": 50}
        headers = {"Authorization": f"Bearer {KEY}", "X-Oracle-Record": "true", "Idempotency-Key": "once"}
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

    def unfinished(self) -> list[tuple[str, str]]:
        """What the books of the gateway still have to do."""
        left = self.oracle.select("SELECT 'call', id FROM gateway_calls WHERE state = 'open'")
        live = "'intended', 'unknown', 'running'"
        left += self.oracle.select(f"SELECT 'job', call_id FROM gateway_jobs WHERE state IN ({live})")
        left += self.oracle.select("SELECT state, address FROM recordings WHERE state <> 'ended'")
        return left

    async def at_rest(self) -> None:
        async def look() -> bool:
            assert self.oracle.daemon.alive, f"the gateway is dead: {self.oracle.tail()}"
            return bool(self.oracle.select("SELECT 1 FROM recordings")) and not self.unfinished()

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
    asking = asyncio.create_task(recorded.asks())
    recorded.launch(record=file)
    await asking
    await recorded.at_rest()
    assert await recorded.oracle.daemon.stop() == 0
    reached = [point for point in file.read_text().splitlines() if any(part in point for part in GATEWAY)]
    return [point for point in reached if IS_LONG or LEAVES_A_TRACE.search(point)]


async def killed(place: Town, point: str, name: str, *, is_safe: bool) -> list[str] | None:
    """The breaches of a life that is ended at `point` and begun again; None where the point was not reached."""
    this = await case(place, name)
    asking = asyncio.create_task(this.asks())
    this.launch(crash_at=point)
    if not await crashed(this, asking):
        await this.oracle.daemon.kill()
        return None
    this.launch()
    text, address = await asking
    await this.at_rest()
    await this.oracle.daemon.kill()
    return [f"{point}: {breach}" for breach in await breaches(place, this, text, address, is_safe=is_safe)]


async def crashed(this: Case, asking: asyncio.Task[tuple[str, str]]) -> bool:
    while True:
        try:
            assert await this.oracle.daemon.wait(0.2) == KILLED, this.oracle.tail()
            return True
        except TimeoutError:
            if asking.done() and not this.unfinished():
                return False


async def breaches(place: Town, this: Case, text: str, address: str, *, is_safe: bool) -> list[str]:
    """What the chain, the upstream and the books have against it."""
    request = Pubkey.from_string(address)
    found = await place.node.call(history)
    account = await place.node.call(lambda chain: chain.account(request))
    asked = [{"role": "user", "content": this.question}]
    bought = sum(body["messages"] == asked for body in place.models["free"].requests)
    rent, fee = 0 if account is None else account.lamports, found.fees_asked.get(request, 0)
    left = await place.node.call(lambda chain: chain.account(this.payer.pubkey()))
    paid = FUNDS_LAMPORTS - (0 if left is None else left.lamports)
    own = await place.node.call(lambda chain: made_by(chain, this.payer.pubkey()))
    held = None if account is None else decode_request(request, account.data).header
    claims = {
        "the answer is the one to this question": text == "".join(scripted_words(asked, 4)),
        "the client's answer is the one on chain": held is not None
        and held.output_hash == hashlib.sha256(text.encode()).digest(),
        "one request was made": own == [request],
        "it was settled once": found.ends.get(request) == [Status.FULFILLED],
        "the gateway's key paid fee, rent and its transactions, and nothing else": paid
        == fee + rent + found.spent_lamports[this.payer.pubkey()],
        "the daemon bought nothing": this.oracle.select("SELECT 1 FROM attempts") == [],
        f"bought {bought} times": bought == 1 if is_safe else bought <= 2,
        "every booking has its job": this.oracle.select("SELECT count(*) FROM ledger WHERE kind = 'job'")
        == this.oracle.select("SELECT count(*) FROM gateway_jobs"),
        "the fee was booked once": this.oracle.select("SELECT sum(lamports) FROM ledger WHERE kind = 'request_fee'")
        == [(-fee,)],
    }
    return [claim for claim, holds in claims.items() if not holds]


def made_by(chain: Chain, requester: Pubkey) -> list[Pubkey]:
    """Every request that a key has made, as often as it has made it."""
    records = [record for record in chain.ledger.transactions_after(0) if record.err is None]
    events = [event for each in records for event in read_events(idl.program_id(), each.meta["logMessages"])]
    made = [event for event in events if isinstance(event, RequestSubmitted)]
    return [event.request for event in made if event.requester == requester]


@pytest.mark.timeout(300)
async def test_wherever_the_gateway_is_killed_nothing_is_lost_and_nothing_is_double(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    began = time.monotonic()
    numbers, gate = itertools.count(), asyncio.Semaphore(AT_ONCE)
    async with town(tmp_path) as place:
        reached = await points(place)
        safe_from = reached.index(ANSWER_IS_SAFE)

        async def one(at: int, point: str) -> Sequence[str]:
            async with gate:
                for _ in range(TRIES):
                    found = await killed(place, point, f"{next(numbers):03d}", is_safe=at >= safe_from)
                    if found is not None:
                        return found
            return [f"{point}: recorded once, and not reached again"]

        found = await asyncio.gather(*(one(at, point) for at, point in enumerate(reached)))
    say(capsys, f"{len(reached)} crash points in {time.monotonic() - began:.0f} s")
    assert not [breach for each in found for breach in each]


STARTED = "store.write books.Call.started calls.job_started"


@pytest.mark.parametrize("moment", [f"before {STARTED}", f"after {STARTED}"], ids=["unheard of", "heard of"])
async def test_a_job_whose_gateway_was_killed_is_found_and_cancelled(tmp_path: Path, moment: str) -> None:
    async with town(tmp_path) as place:
        place.models["gpu"].word_seconds = 5.0
        this = await case(place, "gpu")
        body = {"model": "gpu", "messages": [{"role": "user", "content": this.question}], "max_tokens": 50}
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
        assert await this.oracle.daemon.wait() == KILLED
        await asking
        this.launch()

        async def cleaned() -> bool:
            return this.oracle.select("SELECT state FROM gateway_jobs") == [("cancelled",)]

        await until(cleaned, f"the cancelled job: {this.oracle.tail()}", PATIENCE_SECONDS)
        (job,) = this.oracle.nosana.books()["jobs"]
        assert job["stopped_by_owner"]
        assert this.oracle.select("SELECT state, error_code FROM gateway_calls") == [("failed", "ORC-GATEWAY-018")]
        assert this.oracle.select("SELECT count(*) FROM ledger WHERE kind = 'job'") == [(1,)]
