"""What is known of each RPC endpoint, and which of them a call should go to.

Times are monotonic seconds, passed in. Of slots only the newest that an endpoint has shown is kept: it proves that the
endpoint got there, not that it is no further.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import pairwise
from typing import Final

from oracle.core.backoff import backoff_seconds

MAX_LAG_SLOTS: Final = 40
"""Endpoints are asked for their slot in turns of seconds, so a dozen slots between two of them mean nothing."""


class Health(StrEnum):
    ALIVE = "alive"
    LAGGING = "lagging"
    UNVERIFIED = "unverified"
    """It has not yet said, since it last came back, which cluster it serves."""
    RATE_LIMITED = "rate_limited"
    UNREACHABLE = "unreachable"
    WRONG_GENESIS = "wrong_genesis"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One endpoint as its answers have shown it. `failures` and `refusals` (for the rate) are counted in a row."""

    name: str
    genesis_matches: bool | None = None
    slot: int = 0
    latency_seconds: float | None = None
    failures: int = 0
    refusals: int = 0
    resume_at: float = 0.0
    contradictions: int = 0


def answered(endpoint: Endpoint, *, slot: int = 0) -> Endpoint:
    """It answered, perhaps as of a slot. A pause that it asked for meanwhile is kept."""
    return replace(endpoint, failures=0, slot=max(endpoint.slot, slot))


def measured(endpoint: Endpoint, *, slot: int, seconds: float) -> Endpoint:
    """A health check: `slot` replaces what was known, so one absurd answer does not stay for ever."""
    smoothed = seconds if endpoint.latency_seconds is None else 0.7 * endpoint.latency_seconds + 0.3 * seconds
    return replace(endpoint, failures=0, refusals=0, slot=slot, latency_seconds=smoothed)


def failed(endpoint: Endpoint, *, now: float, jitter: float) -> Endpoint:
    """It was unreachable, silent or talked nonsense. When it comes back it may be another node: verify it again."""
    wait = backoff_seconds(endpoint.failures, jitter, first=0.25, most=30.0)
    return replace(
        endpoint,
        failures=endpoint.failures + 1,
        resume_at=max(endpoint.resume_at, now + wait),
        genesis_matches=None if endpoint.genesis_matches else endpoint.genesis_matches,
    )


def limited(endpoint: Endpoint, *, now: float, jitter: float, told_seconds: float | None = None) -> Endpoint:
    """It refused a call for the rate; `told_seconds` is how long it asked us to wait."""
    wait = backoff_seconds(endpoint.refusals, jitter, first=1.0, most=60.0, told=told_seconds)
    return replace(endpoint, refusals=endpoint.refusals + 1, resume_at=max(endpoint.resume_at, now + wait))


def verified(endpoint: Endpoint, *, matches: bool | None) -> Endpoint:
    """It said which cluster it serves; None forgets what it said."""
    return replace(endpoint, genesis_matches=matches)


def contradicted(endpoint: Endpoint) -> Endpoint:
    """It refused for good what another endpoint accepted."""
    return replace(endpoint, contradictions=endpoint.contradictions + 1)


def health(endpoint: Endpoint, *, now: float, tip_slot: int, max_lag_slots: int = MAX_LAG_SLOTS) -> Health:
    if endpoint.genesis_matches is False:
        return Health.WRONG_GENESIS
    if now < endpoint.resume_at:
        return Health.UNREACHABLE if endpoint.failures else Health.RATE_LIMITED
    if endpoint.genesis_matches is None:
        return Health.UNVERIFIED
    return Health.LAGGING if tip_slot - endpoint.slot > max_lag_slots else Health.ALIVE


def tip_slot(endpoints: Sequence[Endpoint], *, max_lag_slots: int = MAX_LAG_SLOTS) -> int:
    """The newest slot that a second endpoint confirms to within the lag; with no such pair, the newest slot.

    One endpoint that invents a slot far ahead thus cannot make two honest ones look as if they lagged.
    """
    slots = sorted((e.slot for e in endpoints if e.genesis_matches), reverse=True)
    for slot, next_slot in pairwise(slots):
        if slot - next_slot <= max_lag_slots:
            return slot
    return slots[0] if slots else 0


def for_reading(endpoints: Sequence[Endpoint], *, now: float, min_context_slot: int = 0) -> list[int]:
    """Positions of the endpoints that may serve a read, best first.

    Nothing behind `min_context_slot` is among them. A lagging endpoint comes last, but it comes: its answers carry
    their slot, and an old truth is better than none.
    """
    tip = tip_slot(endpoints)
    ranks = {Health.ALIVE: 0, Health.UNVERIFIED: 1, Health.LAGGING: 2}
    usable = []
    for position, endpoint in enumerate(endpoints):
        rank = ranks.get(health(endpoint, now=now, tip_slot=tip))
        if rank is not None and endpoint.slot >= min_context_slot:
            usable.append((rank, _latency_class(endpoint), position))
    return [position for _, _, position in sorted(usable)]


def for_sending(endpoints: Sequence[Endpoint], *, now: float) -> list[int]:
    """Positions of the endpoints that a transaction is sent to: all that are up and on our cluster.

    One that lags in its reads may still forward to the leader, and the same bytes twice do no harm.
    """
    shut = (Health.WRONG_GENESIS, Health.UNREACHABLE, Health.RATE_LIMITED)
    return [i for i, endpoint in enumerate(endpoints) if health(endpoint, now=now, tip_slot=0) not in shut]


def next_resume_at(endpoints: Sequence[Endpoint]) -> float | None:
    """When the first endpoint of our cluster may be tried again; None if there is none."""
    return min((e.resume_at for e in endpoints if e.genesis_matches is not False), default=None)


def _latency_class(endpoint: Endpoint) -> int:
    """Latencies within a factor of two are equal, so that noise does not send every read elsewhere than the last."""
    if endpoint.latency_seconds is None:
        return 64
    return max(0, int(endpoint.latency_seconds * 1000)).bit_length()
