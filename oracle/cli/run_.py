"""`oracle run`: the daemon, until it is told to stop."""

from __future__ import annotations

import asyncio
import signal

import structlog

from oracle.api.app import app
from oracle.api.server import serving
from oracle.cli.options import CONFIG, ConfigOption, configuration
from oracle.config import Config
from oracle.logs import set_up
from oracle.pipeline import systemd
from oracle.pipeline.daemon import assembled

log = structlog.get_logger(__name__)


def run(config: ConfigOption = CONFIG) -> None:
    """Run the daemon. SIGTERM or Ctrl-C stops it: nothing new is begun, and what was begun is finished or kept."""
    checked = configuration(config)
    set_up(checked.log)
    asyncio.run(run_daemon(checked))


async def run_daemon(config: Config) -> None:
    async with assembled(config) as daemon:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, daemon.stop)
        async with serving(app(daemon.context), config.api.host, config.api.port) as url:
            log.info("serving outputs and receipts", url=url, base_uri=config.operator.base_uri)
            systemd.notify("READY=1")
            await daemon.run()
            systemd.notify("STOPPING=1")
