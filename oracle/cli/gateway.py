"""`oracle gateway`: the daemon, and beside it an OpenAI-compatible server in front of the same routes."""

from __future__ import annotations

import asyncio

from oracle.cli.options import CONFIG, ConfigOption, configuration
from oracle.cli.run_ import run_daemon
from oracle.logs import set_up


def gateway(config: ConfigOption = CONFIG) -> None:
    """Run the daemon and serve OpenAI clients too, at `gateway.host` and `gateway.port`. Instead of `oracle run`."""
    checked = configuration(config)
    set_up(checked.log)
    asyncio.run(run_daemon(checked, with_gateway=True))
