"""Whether the daemon lives (its loops turn) and is ready (it can see the cluster, write, and pay)."""

from __future__ import annotations

from oracle.chain.rpc.pool import Pool
from oracle.core.endpoints import Health
from oracle.core.errors import OracleError
from oracle.core.policy import WALLET_LOW
from oracle.pipeline.context import Context

STUCK_SECONDS = 60.0
"""A loop turns every second or two; one that has not for this long is stuck, not busy."""

STALE_SLOTS_SECONDS = 30.0

_WITHOUT_USE = (Health.WRONG_GENESIS, Health.UNREACHABLE)


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
    if (trouble := context.signer.trouble) is not None:
        problems["signer"] = trouble
    problems |= endpoints(context.pool)
    if "cluster" in problems:
        return problems  # to ask it would take as long as the pool is patient, and tell no more
    try:
        balance = await context.rpc.get_balance(context.signer.public_key)
        floor = context.config.policy.min_wallet_lamports
        if balance.value < floor:
            low = WALLET_LOW(f"{context.signer.public_key} holds {balance.value} lamports, below {floor}")
            problems["operator"] = told(low)
    except OracleError as error:
        problems["cluster"] = str(error)
    return problems | old_prices(context) | stranded(context)


def endpoints(pool: Pool | None) -> dict[str, str]:
    """One of another cluster is a mistake that does not pass; one that is down matters once no other is left."""
    if pool is None:
        return {}
    shown = list(zip(pool.view(), pool.health(), strict=True))
    problems = {
        f"endpoint {endpoint.name}": "serves another cluster: correct cluster.rpc or cluster.genesis_hash"
        for endpoint, health in shown
        if health is Health.WRONG_GENESIS
    }
    if all(health in _WITHOUT_USE for _, health in shown):
        states = ", ".join(f"{endpoint.name} is {health}" for endpoint, health in shown)
        problems["cluster"] = f"no endpoint can be used: {states}"
    return problems


def stranded(context: Context) -> dict[str, str]:
    """Models of which nothing is bought now, because every provider of theirs is paused; each with what to do."""
    paused = context.breakers.paused
    return {
        f"model {name}": "; ".join(told(paused[provider]) for provider in providers)
        for name, model in context.routes.items()
        if (providers := sorted({route.provider for route in model.routes})) and paused.keys() >= set(providers)
    }


def old_prices(context: Context) -> dict[str, str]:
    """Without a price of SOL or NOS nothing that costs money can be quoted."""
    return {f"price of {each.coin}": told(each.staleness()) for each in context.rates.all if each.is_stale}


def notices(context: Context) -> dict[str, str]:
    """What is wrong and stops nothing: providers for which others may stand in, and prices that are not too old yet."""
    providers = {f"provider {name}": told(error) for name, error in context.breakers.paused.items()}
    prices = {
        f"price of {each.coin}": told(each.trouble)
        for each in context.rates.all
        if each.trouble is not None and not each.is_stale
    }
    return providers | prices


def told(error: OracleError) -> str:
    return f"{error}. {error.error.remedy}"
