"""Watches the money that is left: with too little of it nothing is bought, and with enough again buying goes on."""

from __future__ import annotations

import asyncio

import structlog
from sqlalchemy import Connection

from oracle.core.errors import OracleError
from oracle.core.policy import BALANCE_LOW, PROVIDER_PAUSED, WALLET_LOW
from oracle.pipeline import submit
from oracle.pipeline.breakers import HOLD_SECONDS
from oracle.pipeline.context import Context
from oracle.store import requests

log = structlog.get_logger(__name__)
CALL_SECONDS = 20.0
TURN_SECONDS = 1.0


async def run(context: Context) -> None:
    """For ever: balances now and then, and those who wait for a provider woken when it may be asked again."""
    paused: frozenset[str] = frozenset()
    looked_at = -float("inf")
    while True:
        if context.clock.monotonic() - looked_at >= context.config.daemon.balance_interval_seconds:
            looked_at = context.clock.monotonic()
            await look(context)
        before, paused = paused, frozenset(context.breakers.paused)
        if before - paused:
            await wake(context)
        await asyncio.sleep(min(TURN_SECONDS, context.config.daemon.balance_interval_seconds))


async def look(context: Context) -> None:
    """One look at every purse. What cannot be seen now stays as it was."""
    floors = {name: settings.min_balance for name, settings in context.config.providers.items()}
    await asyncio.gather(
        wallet(context),
        *(provider(context, name, floor) for name, floor in floors.items() if floor is not None),
    )


async def wallet(context: Context) -> None:
    floor = context.config.policy.min_wallet_lamports
    try:
        lamports = (await context.rpc.get_balance(context.signer.public_key)).value
    except OracleError as error:
        log.info("wallet not seen", code=error.code, detail=error.detail)
        return
    context.wallet_lamports = lamports
    low = WALLET_LOW(f"{context.signer.public_key} holds {lamports} lamports, below {floor}")
    context.breakers.hold_all(low if lamports < floor else None)


async def provider(context: Context, name: str, floor: float) -> None:
    try:
        async with asyncio.timeout(CALL_SECONDS):
            balance = await context.providers[name].balance()
    except (OracleError, TimeoutError) as error:
        log.info("balance not seen", provider=name, error=str(error))
        return
    if balance is None:
        return
    low = BALANCE_LOW(f"{name}: {balance.amount:g} {balance.unit}, below {floor:g}", retry_after_seconds=HOLD_SECONDS)
    context.breakers.hold(name, low if balance.amount < floor else None)


async def wake(context: Context) -> None:
    now_ms = context.clock.now_ms()

    def write(c: Connection) -> None:
        for error in (PROVIDER_PAUSED, BALANCE_LOW):
            requests.wake(c, submit.STATES, error.code, now_ms)

    await context.write(write, submit.STATES[0])
