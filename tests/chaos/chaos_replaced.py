"""What is replaced in the daemons of these tests. Every life imports this module, so it imports next to nothing."""

from __future__ import annotations

import time
from typing import Any


def checked_already(_: object) -> None:
    """The program's binding does not change between two lives, and was checked when the fork server was started."""


def served_at(uri: str) -> bytes:
    return f"Tell me about {uri}".encode()


async def fetch_here(uri: str, _: object) -> bytes:
    """Stands for the internet, which has tests of its own: what a URI serves follows from the URI."""
    return served_at(uri)


def impatient(**terms: Any) -> Any:
    """How a rented server is looked after."""
    from oracle.providers.rented.boot import Patience

    return Patience(**terms, tend=0.3, settle=1.0, poll=0.05)


REPLACED: tuple[tuple[str, Any], ...] = (
    ("oracle.chain.program.selfcheck.check", checked_already),
    ("oracle.pipeline.inputs.fetch", fetch_here),
    ("oracle.providers.nosana.compute.INDEX_LAG_SECONDS", 0.3),
    ("oracle.providers.nosana.look_up._FRESH_SECONDS", 0.1),
    ("oracle.providers.nosana.purchase.PURCHASE_SECONDS", 1.5),
    ("oracle.providers.render.compute.LIST_LAG_SECONDS", 0.3),
    (
        "oracle.providers.render.listing:Listing.__init__.__kwdefaults__",
        {"fresh_seconds": 0.1, "clock": time.monotonic, "now": time.time},
    ),
    ("oracle.providers.openai.batch.LIST_LAG_SECONDS", 0.3),
    ("oracle.providers.openai.batch_list._FRESH_SECONDS", 0.1),
    ("oracle.providers.rented.build.Patience", impatient),
    ("oracle.pipeline.housekeeping.CALL_SECONDS", 3.0),
    ("oracle.pipeline.housekeeping.PRUNE_SECONDS", 1.0),
)
"""What is minutes at the real network is seconds at the emulated one, whose index does not lag."""
