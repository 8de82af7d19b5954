"""Everything that a network can do, at once and at random, between the daemon and its chain and providers."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import orjson
import pytest
from chaos_laws import broken_laws, share_fulfilled
from chaos_length import LONG_RUNS, Say, of_several_seeds, seconds
from chaos_load import LEAST_FULFILLED, QUEUES, ask_for
from chaos_town import Oracle, Town, town

from oracle.localnet.chain import Config
from oracle.testing.fault_proxy import FaultProxy, fault_proxy
from oracle.testing.storm import CallFault, PushFault, Storm

pytestmark = [pytest.mark.localnet, pytest.mark.chaos]

ENDPOINTS = 3
RPC_RATE = 0.1
PROVIDER_RATE = 0.25
REQUESTS_PER_SECOND = 6
TTL_SLOTS = 2_500
"""So short that what is declined, as when a provider refuses a quote, expires while the test waits."""
CHAT = ("free", "dear", "leaky", "broken", "stuck")
ANSWER_SECONDS = 5.0
"""So long a chat server may be silent: calls that hang are to be given up while the test waits."""


def name(kind: str) -> str:
    """Tells calls and pushes apart, which suffer much the same."""
    return f"{type(kind).__name__}.{kind}"


CALLS = frozenset(map(name, CallFault))
PUSHES = frozenset(name(kind) for kind in PushFault if kind is not PushFault.SILENCE)
LONG_ENOUGH_SECONDS = 150.0
"""For every kind to strike. In some seconds a quarter of them does, of calls and of pushes, on a busy machine, too."""


@dataclass(slots=True)
class Weather:
    """The proxies that stand around one oracle."""

    proxies: list[FaultProxy] = field(default_factory=list)
    chats: list[FaultProxy] = field(default_factory=list)
    """Those before chat servers, which cannot tell that a call came twice."""
    begin: list[Callable[[], None]] = field(default_factory=list)

    def break_loose(self) -> None:
        for begin in self.begin:
            begin()

    def calm_down(self) -> None:
        for proxy in self.proxies:
            proxy.storm = None

    def struck(self) -> Counter[str]:
        """How often each kind has struck, by its name."""
        found: Counter[str] = Counter()
        for proxy in self.proxies:
            for (kind, _), times in proxy.struck.items():
                found[name(kind)] += times
        return found

    def doubled(self) -> Counter[str]:
        """How often the network itself has repeated a call to a chat server, by prompt: nobody can prevent that."""
        bodies = (orjson.loads(body) for proxy in self.chats for body in proxy.doubled)
        return Counter(body["messages"][-1]["content"] for body in bodies)


@asynccontextmanager
async def surrounded(place: Town, name: str, seed: int) -> AsyncIterator[tuple[Oracle, Weather]]:
    """An oracle that reaches everything through proxies: two endpoints, a WebSocket, and every provider."""
    weather = Weather()
    async with AsyncExitStack() as stack:

        async def before(upstream: Any, **storm: Any) -> FaultProxy:
            proxy = await stack.enter_async_context(fault_proxy(upstream))
            ready = Storm(seed=seed + len(weather.proxies), **storm)
            weather.proxies.append(proxy)
            weather.begin.append(lambda: setattr(proxy, "storm", ready))
            return proxy

        endpoints = [await before(place.node, rate=RPC_RATE) for _ in range(ENDPOINTS)]
        providers = {}
        for chat in CHAT:
            settings = place.providers[chat]
            proxy = await before(settings["base_url"].removesuffix("/v1"), rate=PROVIDER_RATE, calls=tuple(CallFault))
            providers[chat] = {**settings, "base_url": f"{proxy.url}/v1"}
            weather.chats.append(proxy)
        models = {
            chat: {"routes": [{"provider": chat, "model": "tiny", "timeout_seconds": ANSWER_SECONDS}]} for chat in CHAT
        }
        cluster = {
            "rpc": [proxy.url for proxy in endpoints],
            "websocket": endpoints[0].ws_url,
            "scan_interval_seconds": 0.5,
        }
        # Asked more often than usual, so that more is there to be struck.
        settlement = {"poll_interval_seconds": 0.05, "resend_interval_seconds": 0.2}
        changes = {"cluster": cluster, "providers": providers, "models": models, "settlement": settlement}
        oracle = await place.oracle(name, queues=QUEUES, **changes)
        nosana = await before(oracle.nosana_url, rate=PROVIDER_RATE)
        oracle.write_config(QUEUES, changes, nosana.url)
        yield oracle, weather


async def kept_running(oracle: Oracle, random: Random, until: float) -> int:
    """As systemd does: whatever ends the daemon, it is started again. Here it is killed, now and then."""
    kills = 0
    while time.monotonic() < until:
        oracle.launch()
        try:
            await oracle.daemon.wait(min(random.uniform(2.0, 8.0), max(0.1, until - time.monotonic())))
        except TimeoutError:
            await oracle.daemon.kill()
            kills += 1
    return kills


@pytest.mark.timeout(1500)
@of_several_seeds()
async def test_whatever_the_network_does_every_law_is_kept(tmp_path: Path, say: Say, seed: int) -> None:
    random = Random(seed)
    async with town(tmp_path, config=Config(kept_slots=60)) as place, surrounded(place, "stormy", seed) as it:
        oracle, weather = it
        until = time.monotonic() + seconds(15, share=LONG_RUNS)
        length = until - time.monotonic()
        asking = ask_for(oracle, random, seconds=length, per_second=REQUESTS_PER_SECOND, ttl_slots=TTL_SLOTS)
        load = asyncio.create_task(asking)
        weather.break_loose()
        kills = await kept_running(oracle, random, until)
        await load
        weather.calm_down()
        struck = weather.struck()
        faults = f"{struck.total()} faults of {len(struck)} kinds"
        say(f"{faults}, {kills} kills, {len(oracle.asked)} requests, seed {seed}")
        oracle.launch()
        await oracle.at_rest()
        await oracle.daemon.kill()
        oracle.doubled = weather.doubled()
        breaches = await broken_laws(place, as_expected=False)
        fulfilled = await share_fulfilled(oracle)
    assert not breaches, f"ORACLE_CHAOS_SEED={seed}\n" + "\n".join(breaches)
    assert fulfilled >= LEAST_FULFILLED, f"ORACLE_CHAOS_SEED={seed}: {fulfilled:.0%} were fulfilled"
    for kinds in (CALLS, PUSHES):
        least = len(kinds) if length > LONG_ENOUGH_SECONDS else len(kinds) // 4
        assert len(kinds & struck.keys()) >= least, f"ORACLE_CHAOS_SEED={seed}: not struck by {kinds - struck.keys()}"
