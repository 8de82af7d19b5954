"""Who fails is left alone, and tried again by himself; and without money nothing is bought."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from pipeline_world import World, until

from oracle.core.compute import Money
from oracle.core.errors import OracleError
from oracle.core.lifecycle import State
from oracle.core.policy import BALANCE_LOW, PROVIDER_PAUSED, WALLET_LOW
from oracle.pipeline.daemon import Daemon
from oracle.store import attempts

pytestmark = pytest.mark.localnet
QUICK = {"failures_in_a_row": 2, "open_seconds": 0.5, "longest_open_seconds": 1.0}
OFTEN = {"poll_interval_seconds": 0.05, "drain_seconds": 5, "balance_interval_seconds": 0.05}


async def readiness(world: World) -> dict[str, Any]:
    async with httpx.AsyncClient(trust_env=False, timeout=60) as http:
        answer = await http.get(f"{world.settings['operator']['base_uri']}/readyz")
    return {"status": answer.status_code, **answer.json()}


async def metric(world: World, name: str) -> float:
    async with httpx.AsyncClient(trust_env=False, timeout=60) as http:
        text = (await http.get(f"{world.settings['operator']['base_uri']}/metrics")).text
    return next(float(line.split()[-1]) for line in text.splitlines() if line.startswith(name))


async def tried(daemon: Daemon, request_id: int) -> list[tuple[str, str | None]]:
    found = await daemon.context.store.read(lambda c: attempts.of(c, request_id))
    return [(attempt.provider, attempt.error_code) for attempt in found]


async def test_a_provider_that_refuses_its_key_is_paused_and_requests_wait_for_it(world: World) -> None:
    world.model.faults.add("error", status=401, text="bad key", count=None)
    async with world.daemon(breaker=QUICK) as daemon:
        submitted = await world.submit()
        await world.waits(daemon, submitted, PROVIDER_PAUSED)

        async def says_so() -> dict[str, Any] | None:
            said = await readiness(world)
            return said if said["status"] == 503 else None

        said = await until(says_so, "the pause in /readyz")
        assert said["problems"]["model tiny"].startswith(PROVIDER_PAUSED.code)
        assert "ORC-PROVIDER-007" in said["problems"]["model tiny"]
        assert await metric(world, 'oracle_breaker_opened_total{provider="scripted"}') >= 1
        # The key is right again: a probe finds out, and the request that waited is served.
        world.model.faults.clear()
        await world.reaches(daemon, submitted, State.SETTLED)
        assert daemon.context.breakers.paused == {}


async def test_one_poison_request_pauses_nobody(world: World) -> None:
    world.model.faults.add("error", status=400, text="no such thing", count=3)
    async with world.daemon(breaker={**QUICK, "failures_in_a_row": 1}) as daemon:
        poison = await world.submit("poison", nonce=1)
        await world.reaches(daemon, poison, State.REJECTED)
        assert daemon.context.breakers.paused == {}
        world.model.faults.clear()
        good = await world.submit("good", nonce=2)
        row = await world.reaches(daemon, good, State.SETTLED)
        assert row.attempts_made == 1


async def test_a_provider_in_trouble_is_followed_at_once_by_the_next_and_not_asked_again_while_paused(
    world: World,
) -> None:
    world.settings["providers"]["down"] = {
        **world.settings["providers"]["scripted"],
        "base_url": "http://127.0.0.1:9",
        "free": True,
    }
    world.settings["models"]["tiny"]["routes"].insert(0, {"provider": "down", "model": "tiny", "max_attempts": 5})
    patient = {**QUICK, "open_seconds": 60.0, "longest_open_seconds": 60.0}
    async with world.daemon(breaker=patient) as daemon:
        histories = []
        for nonce in range(3):
            submitted = await world.submit(nonce=nonce)
            row = await world.reaches(daemon, submitted, State.SETTLED)
            histories.append(await tried(daemon, row.id))
        assert histories == [
            [("down", "ORC-PROVIDER-001"), ("scripted", None)],
            [("down", "ORC-PROVIDER-001"), ("scripted", None)],
            [("scripted", None)],
        ]
        said = await readiness(world)
        assert (said["status"], list(said["notices"])) == (200, ["provider down"])


async def test_a_low_wallet_pauses_buying_until_it_is_filled(world: World) -> None:
    held = (await world.rpc.get_balance(world.authority.pubkey())).value
    async with world.daemon(daemon=OFTEN, policy={"min_wallet_lamports": held + 1}) as daemon:

        async def paused() -> OracleError | None:
            return daemon.context.breakers.wallet

        assert (await until(paused, "the pause")).error is WALLET_LOW
        submitted = await world.submit()
        row = await world.reaches(daemon, submitted, State.ADMITTED)
        said = await readiness(world)
        assert (said["status"], said["problems"]["operator"][:14]) == (503, WALLET_LOW.code)
        assert (row.attempts_made, world.model.requests) == (0, [])
        await world.node.call(lambda chain: chain.fund(world.authority.pubkey(), 1_000_000_000))
        await world.reaches(daemon, submitted, State.SETTLED)


async def test_nothing_is_bought_while_the_key_may_sign_for_no_more_today(world: World) -> None:
    """What would be bought now could not be settled. One settlement costs 5,000 lamports."""
    async with world.daemon(spending={"max_lamports_per_day": 8_000}) as daemon:
        await world.reaches(daemon, await world.submit(nonce=1), State.SETTLED)
        await world.submit(nonce=2)

        async def spent() -> bool:
            return daemon.context.signer.trouble is not None

        await until(spent, "the end of the allowance")
        third = await world.submit(nonce=3)
        row = await world.reaches(daemon, third, State.ADMITTED)
        said = await readiness(world)
        assert (said["status"], list(said["problems"])) == (503, ["signer"])
        assert (await tried(daemon, row.id), len(world.model.requests)) == ([], 2)


async def test_a_low_balance_at_a_provider_pauses_buying_there_until_it_is_topped_up(world: World) -> None:
    purse = {"usd": 1.0}
    world.settings["providers"]["scripted"]["min_balance"] = 2.0
    async with world.daemon(daemon=OFTEN) as daemon:

        async def balance() -> Money:
            return Money(purse["usd"], "USD")

        daemon.context.providers["scripted"].balance = balance  # type: ignore[method-assign]

        async def held() -> bool:
            return "scripted" in daemon.context.breakers.holds

        await until(held, "the hold")
        submitted = await world.submit()
        await world.waits(daemon, submitted, PROVIDER_PAUSED)
        said = await readiness(world)
        assert said["problems"]["model tiny"].startswith(BALANCE_LOW.code)
        assert world.model.requests == []
        purse["usd"] = 2.5
        await world.reaches(daemon, submitted, State.SETTLED)
