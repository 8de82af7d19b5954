"""`oracle run`: the daemon, until it is told to stop."""

from __future__ import annotations

import asyncio
import signal
from contextlib import AsyncExitStack

import structlog

from oracle.cli.options import CONFIG, ConfigOption, configuration
from oracle.config import Config
from oracle.logs import set_up

log = structlog.get_logger(__name__)


def run(config: ConfigOption = CONFIG) -> None:
    """Run the daemon. SIGTERM or Ctrl-C stops it: nothing new is begun, and what was begun is finished or kept."""
    checked = configuration(config)
    set_up(checked.log)
    asyncio.run(run_daemon(checked))


async def run_daemon(config: Config, *, with_gateway: bool = False) -> None:
    # Imported here: other commands need not wait for the whole daemon to load.
    from oracle.api.app import app
    from oracle.api.server import serving
    from oracle.pipeline import interpreter, systemd
    from oracle.pipeline.daemon import assembled

    async with AsyncExitStack() as stack:
        daemon = await stack.enter_async_context(assembled(config))

        def stop() -> None:
            systemd.notify("STOPPING=1")
            daemon.stop()

        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop)
        url = await stack.enter_async_context(serving(app(daemon.context), config.api.host, config.api.port))
        log.info("serving outputs and receipts", url=url, base_uri=config.operator.base_uri)
        if with_gateway:
            from oracle.api.gateway.server import open_gateway

            await stack.enter_async_context(open_gateway(daemon.context))
        interpreter.prepare()
        systemd.notify("READY=1")
        await daemon.run()
