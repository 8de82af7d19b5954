"""Whether the daemon lives (its loops turn) and is ready (it can see the cluster, write, and pay)."""

from __future__ import annotations

from oracle.core.errors import OracleError
from oracle.pipeline.context import Context

STUCK_SECONDS = 60.0
"""A loop turns every second or two; one that has not for this long is stuck, not busy."""

STALE_SLOTS_SECONDS = 30.0
LOW_LAMPORTS = 1_000_000


def alive(context: Context) -> dict[str, str]:
    """Problems by name; empty where every loop has turned lately."""
    now = context.clock.monotonic()
    return {
        f"loop {name}": f"has not turned for {now - at:.0f} s"
        for name, at in context.pulses.items()
        if now - at > STUCK_SECONDS
    }


async def ready(context: Context) -> dict[str, str]:
    """Problems by name; empty where requests can be taken, bought for and settled."""
    problems = alive(context)
    if context.stopping.is_set():
        problems["daemon"] = "is stopping"
    try:
        await context.store.read(lambda c: None)
    except OracleError as error:
        problems["database"] = str(error)
    try:
        balance = await context.rpc.get_balance(context.signer.public_key)
        if balance.value < LOW_LAMPORTS:
            problems["operator"] = f"has {balance.value} lamports left, fund {context.signer.public_key}"
    except OracleError as error:
        problems["cluster"] = str(error)
    return problems
