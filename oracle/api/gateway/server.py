"""The gateway put together over a running daemon's context: its server, its loops, and its end."""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import structlog

from oracle.api.gateway import reaper
from oracle.api.gateway.app import app
from oracle.api.gateway.conversation import Gateway
from oracle.api.gateway.keys import Clients
from oracle.api.gateway.recorder import Recorder
from oracle.api.gateway.recording import Desk
from oracle.api.server import serving
from oracle.config import Operator
from oracle.pipeline import charter
from oracle.pipeline.context import Context
from oracle.pipeline.daemon import key_of
from oracle.pipeline.supervisor import Loop, supervise

log = structlog.get_logger(__name__)


@asynccontextmanager
async def open_gateway(context: Context) -> AsyncIterator[str]:
    """Serves until the block ends, and then lets calls under way finish within `drain_seconds`; yields the base URL.

    Raises ORC-GATEWAY-002, 003 or 014, ORC-SIGNER or ORC-API codes for what is configured wrongly.
    """
    gateway, loops = assembled(context)
    settings = context.config.gateway
    async with serving(app(gateway), settings.host, settings.port) as url:
        log.info("serving OpenAI clients", url=f"{url}/v1", clients=len(settings.keys))
        work = asyncio.create_task(supervise(context, loops, {}), name="gateway")
        try:
            yield f"{url}/v1"
        finally:
            context.stopping.set()
            context.bells.ring_all()
            await work


def assembled(context: Context) -> tuple[Gateway, Mapping[str, Loop]]:
    settings = context.config.gateway
    desk = None
    loops: dict[str, Loop] = {"reaper": lambda: reaper.run(context)}
    if settings.has_keypair:
        key = key_of(
            Operator(
                keypair=settings.keypair,
                keypair_env=settings.keypair_env,
                keypair_credential=settings.keypair_credential,
            )
        )
        signer = charter.guarded(
            key, charter.gateway_charter(context.config), context.config.spending, context.store, context.clock
        )
        desk = Desk(context, signer, lambda: secrets.randbits(63))
        loops["recorder"] = Recorder(context, signer).run
    gateway = Gateway(
        context, Clients(settings.keys, os.environ), desk, secrets.randbits, context.clock.now_ms() // 1000
    )
    loops["calls"] = lambda: finished(gateway)
    return gateway, loops


async def finished(gateway: Gateway) -> None:
    """Ends once the daemon is stopping and no call is under way any more."""
    await gateway.context.stopping.wait()
    while gateway.clients.under_way:
        await gateway.context.bells.wait("calls", 0.05)
