"""Passes our bells on to the other daemons of our key on the database, and rings theirs here.

It only makes them quicker: what is lost while the line is broken costs as long as a loop naps without a bell.
"""

from __future__ import annotations

import asyncio

import structlog

from oracle.core.backoff import backoff_seconds
from oracle.core.errors import OracleError
from oracle.pipeline.clock import Clock
from oracle.pipeline.context import Bells
from oracle.store import leases, notices
from oracle.store.engine import Store
from oracle.store.errors import CLOCKS_APART

log = structlog.get_logger(__name__)

GATHER_SECONDS = 0.01
"""How long words wait for company: a burst of work is one notice."""

LOOK_SECONDS = 2.0
"""How often the line is tried, since a connection can be dead without either end noticing, and others looked after."""

STANDSTILL_SECONDS = 4.0
"""A daemon that has left a transaction for so long is stopped. With the look, shorter than any wait for its locks."""

STEADY_SECONDS = 30.0
"""A line that has held so long starts the back-off anew when it breaks."""

LONGEST_WAIT_SECONDS = 15.0

MOST_APART_MS = 10_000
"""How far a clock may be from the server's: by less than a lease outlives the calls made under it."""


async def run(url: str, operator: str, bells: Bells, clock: Clock) -> None:
    """Until it is cancelled; a broken line is opened anew, with back-off."""
    failures = 0
    while True:
        began = clock.monotonic()
        try:
            await one_line(url, channel_of(operator), bells, clock)
        except OracleError as error:
            log.warning("no notices from other daemons", code=error.code, detail=error.detail)
        failures = 0 if clock.monotonic() - began > STEADY_SECONDS else failures + 1
        await asyncio.sleep(backoff_seconds(failures, clock.jitter(), first=0.25, most=LONGEST_WAIT_SECONDS))


async def one_line(url: str, channel: str, bells: Bells, clock: Clock) -> None:
    """Until the line breaks. Raises what broke it."""
    looked_at = clock.monotonic()
    async with notices.line(url, channel, bells.ring_here) as line:
        log.info("listening to other daemons")
        bells.ring_all()  # what they have said before is lost
        while True:
            words = await bells.rung(LOOK_SECONDS)
            if words:
                await asyncio.sleep(GATHER_SECONDS)
                words |= await bells.rung(0.0)
            apart_ms = clock.now_ms() - await line.say(words)
            if clock.monotonic() - looked_at < LOOK_SECONDS:
                continue
            looked_at = clock.monotonic()
            if ended := await line.end_standstills(STANDSTILL_SECONDS):
                log.warning("ended transactions of a daemon that stands still", sessions=ended)
            if abs(apart_ms) > MOST_APART_MS:
                log.error("clock is wrong", code=CLOCKS_APART.code, ahead_seconds=apart_ms / 1000)


def channel_of(operator: str) -> str:
    """One for each key: daemons of different keys share no work."""
    return f"oracle-{operator}"


async def check_time(store: Store, clock: Clock) -> None:
    """Raises ORC-STORE-024 where our clock is not the server's: no lease would mean what it says."""
    apart_ms = await store.read(leases.server_ms) - clock.now_ms()
    if abs(apart_ms) > MOST_APART_MS:
        raise CLOCKS_APART(f"the server's is {apart_ms / 1000:+.1f} s from ours")
