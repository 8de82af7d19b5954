"""Requests of every kind, at random, while something goes wrong."""

from __future__ import annotations

import asyncio
import time
from random import Random

from chaos_town import Oracle

from oracle.core.request import Status

QUEUES = ("open", "claims", "brief")
_KINDS = (
    ("free", "open", 5),
    ("free", "claims", 3),
    ("free", "brief", 2),
    ("dear", "open", 3),
    ("shaky", "open", 1),
    ("broken", "open", 1),
    ("leaky", "open", 1),
    ("tardy", "open", 1),
    ("nobody", "open", 1),
)
_ENDS = {
    "dear": (Status.FULFILLED, Status.REJECTED),
    **dict.fromkeys(("broken", "leaky", "tardy", "nobody"), (Status.REJECTED,)),
}
"""How a request ends where there is time for it and purchases are interrupted once or twice; others are fulfilled."""
LEAST_FULFILLED = 1 / 3
"""The share that is answered whatever goes wrong; mostly it is two thirds and more. A daemon that lets everything
expire breaks no law."""
NOSANA_EVERY = 40
"""Nosana allows few look-ups a minute, so most requests go elsewhere."""


async def ask_for(
    oracle: Oracle,
    random: Random,
    *,
    seconds: float,
    per_second: float,
    ttl_slots: int = 8_000,
    nosana_every: int = NOSANA_EVERY,
) -> None:
    """Ask at a steady rate for so many seconds."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        (model, queue, _) = random.choices(_KINDS, [weight for *_, weight in _KINDS])[0]
        if len(oracle.asked) % nosana_every == 0:
            model, queue = "gpu", "open"
        await oracle.ask(model, queue=queue, ttl_slots=ttl_slots, end=_ENDS.get(model, (Status.FULFILLED,)))
        await asyncio.sleep(random.expovariate(per_second))
